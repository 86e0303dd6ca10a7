"""The chat screen: one conversation's header, messages and message box."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from nicegui import ui

from antiphon.app.composer import Composer
from antiphon.app.errors import show_error_snackbar
from antiphon.app.message_list import Item, MessageList
from antiphon.app.seats import View
from antiphon.app.theme import avatar_color, brief, initials
from antiphon.chat.models import Entry
from antiphon.chat.observations import TimelineChanged
from antiphon.chat.problems import explain
from antiphon.chat.room import Room
from antiphon.chat.session import ChatSession
from antiphon.errors import AntiphonError

from .chat_header import ChatHeader

__all__ = ["ChatScreen"]

SHOWN: Final = 100
"""Messages a page gets at once."""
MAX_SHOWN: Final = 500
"""Messages a page gets at once where more are unread."""
PATIENCE: Final = 0.3
"""Seconds to wait for a conversation to be loaded before showing what is there."""
FIRST_PATIENCE: Final = 2.0
"""Seconds to wait for the list of conversations or a first page, where nothing is there yet."""


class ChatScreen:
    """One conversation at a time, built in the current slot; it fills its parent, a flex column.

    Args:
        view: The tab.
        chat: The session.
        on_back: Called when the reader goes back to the list.
        on_missing: Called when the wanted conversation is not one of the reader's.
    """

    def __init__(
        self,
        view: View,
        chat: ChatSession,
        *,
        on_back: Callable[[], Any],
        on_missing: Callable[[], Any],
    ) -> None:
        self._view = view
        self._chat = chat
        self._room: Room | None = None
        self._on_missing = on_missing
        self._wanted: str | None = None
        self._is_opening = False
        self._awaited: asyncio.Future[None] | None = None  # opening it shows its first messages
        with ui.element("div").classes("hm-nothing") as self._nothing:
            ui.icon("forum").props('aria-hidden="true"')
            ui.label("Choose a conversation").classes("hm-nothing-title")
            ui.label("Your messages appear here.").classes("ap-muted")
        with ui.element("div").classes("hm-chat") as self._chat_box:
            self._header = ChatHeader(on_back=on_back)
            self._messages = MessageList(
                on_older=self._older,
                on_seen=self._seen,
                on_retry=self._retry,
                on_discard=self._discard,
            )
            self._composer = Composer(on_send=self._send, on_keystroke=self._keystroke)
        self._chat_box.set_visibility(False)

    @property
    def room(self) -> Room | None:
        """The conversation that is shown."""
        return self._room

    async def show(self, conversation_id: str | None) -> None:
        """Show another conversation, or none."""
        if conversation_id is not None and conversation_id == getattr(self._room, "id", None):
            return
        self._wanted = conversation_id
        if conversation_id is not None and conversation_id not in self._chat.rooms:
            is_known = await self._list_is_known()
            if self._wanted != conversation_id:
                return
            if is_known and conversation_id not in self._chat.rooms:
                self._on_missing()
                return
        room = None if conversation_id is None else self._chat.room(conversation_id)
        self._room = room
        self._nothing.set_visibility(room is None)
        self._chat_box.set_visibility(room is not None)
        if room is None:
            self._composer.conversation(None)
            await self._view.show(None)
            return
        me = self._view.seat.user
        self._composer.conversation(f"{me.id if me is not None else ''}:{room.id}")
        self.redraw_header()
        self._is_opening, self._awaited = True, None
        opening = asyncio.ensure_future(self._view.show(room.id))
        try:
            done, _ = await asyncio.wait({opening}, timeout=PATIENCE)
            if self._room is not room:
                return
            self._is_opening = False
            if done or (len(room.timeline) > 1 and not room.unread):
                self.redraw()
            else:
                self._awaited = opening
                self._messages.show([], has_older=True)  # it shows that it loads
            self._composer.focus()
        finally:
            await opening
        if self._awaited is opening:
            self._awaited = None
            self.redraw()

    async def _list_is_known(self) -> bool:
        """Whether the backend has told its conversations, soon enough for who comes straight here.

        Else the conversation is shown, and history says whether there is one.
        """
        if not self._chat.dialect.conversations:
            return False
        try:
            await asyncio.wait_for(self._chat.ready(), FIRST_PATIENCE)
        except (AntiphonError, TimeoutError):
            return False
        return self._chat.is_connected

    # What the session tells

    def redraw(self) -> None:
        """Show the timeline as it is now."""
        room = self._room
        if room is None or self._is_opening:
            return
        entries = room.timeline.entries
        first = max(0, len(entries) - SHOWN)
        news = room.timeline.get(room.first_unread) if room.first_unread else None
        if news is not None:
            first = max(min(first, entries.index(news) - SHOWN // 10), len(entries) - MAX_SHOWN, 0)
        self._messages.show(
            self._items(room, entries[first:]),
            has_older=room.timeline.has_older or first > 0,
            unread_from=room.first_unread,
        )

    def change(self, changed: TimelineChanged) -> None:
        """Show what has become of some messages."""
        room = self._room
        if room is None or room.id != changed.conversation_id or self._is_opening:
            return
        if changed.is_history:
            return  # whoever has asked for it gets it as the answer
        put: list[Item] = []
        for change in changed.changes:
            if change.kind == "removed":
                self._messages.put(put)
                put = []
                self._messages.remove(change.entry.key)
            else:
                put.append({**self._item(room, change.entry), "after": change.after})
        if put:
            self._messages.put(put)

    def tells(self, failure: str) -> bool:
        """Whether one of the newest messages shown says that it failed for this reason."""
        entries = self._room.timeline.entries[-10:] if self._room is not None else ()
        return any(entry.failure == failure for entry in entries)

    def redraw_header(self) -> None:
        """Show who types, who is there, and what the conversation is called."""
        room = self._room
        if room is None:
            return
        other = room.others[0] if len(room.others) == 1 else None
        typing = typing_words(room)
        online = other is not None and self._chat.is_online(other.id)
        if typing:
            line = typing
        elif other is not None:
            line = "online" if online else ""
        else:
            line = self._members(room)
        self._header.show(
            title=brief(room.title),
            initials=initials(room.title),
            color=avatar_color(other.id if other is not None else f"c{room.id}"),
            line=line,
            typing=bool(typing),
            online=online,
            seen_at=self._chat.last_seen(other.id) if other is not None else None,
        )

    def _members(self, room: Room) -> str:
        if not room.members:
            return ""
        there = sum(self._chat.is_online(user.id) for user in room.members)
        words = f"{len(room.members)} members" if len(room.members) > 1 else "1 member"
        return f"{words}, {there} online" if there else words

    # What the reader does

    async def _older(self, first_key: str | None) -> None:
        room = self._room
        if room is None:
            return
        awaited = self._awaited
        if awaited is not None:
            # The newest alone, once they are seen, would make all before them read.
            await asyncio.wait({awaited}, timeout=FIRST_PATIENCE)
            if awaited.done() or self._awaited is not awaited:
                return  # all is shown anew
            self._awaited = None
        before = _before(room, first_key)
        if not before and room.timeline.has_older:
            try:
                await room.older()
            except AntiphonError as exc:
                if self._room is room:
                    self._messages.older([], has_older=True, before=first_key)
                    show_error_snackbar(explain(exc))
                return
            if self._room is not room:
                return
            before = _before(room, first_key)
        if before is None:  # the timeline has begun anew meanwhile
            self.redraw()
            return
        page = before[-SHOWN:]
        has_older = len(before) > len(page) or room.timeline.has_older
        self._messages.older(self._items(room, page), has_older, before=first_key)

    def _seen(self, key: str) -> None:
        room = self._room
        entry = room.timeline.get(key) if room is not None else None
        if room is not None and entry is not None:
            room.seen(entry.id)

    async def _retry(self, key: str) -> None:
        if self._room is not None:
            await self._room.retry(key)

    async def _discard(self, key: str) -> None:
        if self._room is not None:
            await self._room.discard(key)

    async def _send(self, text: str, id_: str) -> None:
        if self._room is not None:
            await self._room.send(text, temp_id=id_)

    def _keystroke(self) -> None:
        if self._room is not None:
            self._room.keystroke()

    # Items

    def _items(self, room: Room, entries: Sequence[Entry]) -> list[Item]:
        return [self._item(room, entry) for entry in entries]

    def _item(self, room: Room, entry: Entry) -> Item:
        return {
            "key": entry.key,
            "own": entry.is_mine,
            "sender": sender_name(room, entry),
            "sender_id": entry.sender_id,
            "text": entry.content,
            "at": None if entry.sent_at is None else entry.sent_at.timestamp() * 1000,
            "status": entry.status.value if entry.is_mine else "",
            "error": entry.failure and (entry.failure if self._chat.is_connected else _LATER),
        }


_LATER: Final = "Not sent yet: it goes out by itself when the connection is back."


def sender_name(room: Room, entry: Entry) -> str:
    """Who wrote an entry, as far as it is known."""
    if entry.sender_name:
        return brief(entry.sender_name)
    return brief(next((user.name for user in room.members if str(user.id) == entry.sender_id), ""))


def typing_words(room: Room) -> str:
    """Who types in a conversation, in words; empty for nobody."""
    names = [brief(user.first_name or user.name or "Somebody") for user in room.typing]
    if not names:
        return ""
    if len(room.others) == 1:
        return "typing"
    if len(names) == 1:
        return f"{names[0]} is typing"
    if len(names) == 2:
        return f"{names[0]} and {names[1]} are typing"
    return f"{names[0]} and {len(names) - 1} others are typing"


def _before(room: Room, key: str | None) -> Sequence[Entry] | None:
    """The entries before one; None if it is not there."""
    entries = room.timeline.entries
    if key is None:
        return entries
    entry = room.timeline.get(key)
    return None if entry is None else entries[: entries.index(entry)]

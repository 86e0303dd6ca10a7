"""How far the messages of a conversation have come: what is unread, and who has what."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from antiphon.errors import ApiError, LoginFailed

from .models import Id, Status
from .observations import ConversationsChanged
from .pace import ReadMark
from .timeline import Change
from .timers import Timers

if TYPE_CHECKING:
    from .core import Core
    from .events import MessagesReadEvent
    from .room import Room

__all__ = ["DELIVERED", "DELIVERED_EVERY", "Marks"]

DELIVERED: Final = "client-delivered"
"""What the others' sessions are told of the messages that one's own has."""
DELIVERED_EVERY: Final = 1.0
"""Seconds between two whispers of it."""


class Marks:
    """What is unread in one room, how far one has read, and how far the others have.

    Attributes:
        unread: Messages of others after one's read mark.
        attended: Whether the room is shown and has the focus.
    """

    def __init__(self, core: Core, room: Room) -> None:
        self.unread = 0
        self.attended = False
        self._core = core
        self._room = room
        self._is_listed = False
        # So many were unread when this message was the newest; those after it count by themselves.
        self._counted: tuple[int, str | None] = (0, None)
        # Whether that leaves out what was read since.
        self._is_counted = True
        self._read_up_to: str | None = None
        self._read_mark = ReadMark()
        self._marking: str | None = None  # the read mark that is under way
        self._delivered: str | None = None
        # What another's session has, though the answer to its sender is not here yet.
        self._delivered_ahead: str | None = None
        self._told_delivered_at = -DELIVERED_EVERY
        self._timers = Timers()

    # What is unread

    def listed(self, unread: int, newest: str | None) -> None:
        """The list says that so many are unread, when this message was the newest."""
        self._is_listed = True
        self.count(unread, newest)
        self._send_read()  # one that was given up, if there is any

    def count(self, unread: int, newest: str | None) -> None:
        """So many were unread when this was the newest message."""
        self._counted = (unread, newest)
        self._is_counted = False
        self.recount()

    def recount(self) -> None:
        """Count what is unread: by what the list said, what has come since and what was read."""
        timeline, read = self._room.timeline, self._read_up_to
        unread, newest = self._counted
        unread = max(0, unread + self._others_after(newest))
        if not self._is_counted and read is not None and timeline.get(read) is not None:
            unread = min(unread, timeline.others_after(read))
        self.unread = unread
        if newest is None and timeline.has_older:
            self._count_on()  # history may come in front
        if self.attended:
            self.seen()

    def settle(self) -> None:
        """Nothing is missing: what is unread now is counted from here on."""
        self._count_on()
        self._is_counted = True

    def _count_on(self) -> None:
        """Count from a later message on; not from the newest, for one may come before it yet."""
        here = self._room._history.overlap()
        self._counted = (self.unread - self._others_after(here), here)

    def _others_after(self, message_id: str | None) -> int:
        # One that is not here yet is newer than all; of those whose ids are numbers the timeline
        # knows itself where they would stand.
        timeline = self._room.timeline
        is_named = message_id is not None and not message_id.isdecimal()
        if is_named and timeline.get(str(message_id)) is None:
            return 0
        return timeline.others_after(message_id)

    def first_unread(self) -> str | None:
        """Where the new messages begin; of more than are loaded, the first that is loaded."""
        if not self.unread:
            return None
        others = [entry for entry in self._room.timeline.entries if not entry.is_mine]
        return others[-min(self.unread, len(others))].key if others else None

    # What one has read

    def seen(self, message_id: str | None = None) -> None:
        """The reader has seen the messages up to one; the newest, if none is said."""
        timeline = self._room.timeline
        target = timeline.newest_of_others(message_id)
        if target is None or self._core.is_closed:
            return
        # Of a conversation that no list has told of nobody knows what was read before.
        is_known = self._is_listed or self._read_up_to is not None
        if is_known and timeline.others_after(target) >= self.unread:
            return
        self._have_read(target)
        self._timers.at("read", self._read_mark.seen(target, _now()), self._send_read)

    def _have_read(self, message_id: str) -> None:
        """The user has read up to a message, here or elsewhere."""
        timeline, read = self._room.timeline, self._read_up_to
        is_here = read is not None and timeline.get(read) is not None
        if is_here and timeline.others_after(read) <= timeline.others_after(message_id):
            return  # a mark never goes back
        before = self.unread
        self._read_up_to = message_id
        self._is_counted = False
        self.recount()
        self._room._history.settle()
        if self.unread != before:
            self._core.tell(ConversationsChanged((self._room.id,)))

    def _send_read(self) -> None:
        message_id = self._read_mark.due(_now())
        if message_id is not None:
            self._core.spawn(self._mark_read(message_id))

    async def _mark_read(self, message_id: str) -> None:
        self._marking = message_id
        try:
            await self._core.rest.read(
                self._room.id, message_id, socket_id=self._core.client.socket_id
            )
        except ApiError as exc:
            self._timers.at("read", self._read_mark.failed(_now()), self._send_read)
            if isinstance(exc, LoginFailed):
                self._core.report(exc)
        else:
            self._read_mark.sent(message_id)
        finally:
            if self._marking == message_id:
                self._marking = None

    # What others have read, or oneself on another device

    def read(self, event: MessagesReadEvent) -> None:
        """Somebody has read messages."""
        ids = [str(id_) for id_ in event.message_ids]
        if not ids:
            return
        if str(event.reader_id) == self._core.my_id:
            self._read_elsewhere(ids)
            return
        self._core.presence.alive(event.reader_id)
        timeline = self._room.timeline
        changes = timeline.mark(ids, Status.READ)
        if timeline.get(ids[-1]) is not None:
            changes += timeline.mark_up_to(ids[-1], Status.READ)
        self._room._tell(changes)

    def _read_elsewhere(self, ids: list[str]) -> None:
        """The user has read messages on another device."""
        timeline = self._room.timeline
        here = next((id_ for id_ in reversed(ids) if timeline.get(id_) is not None), None)
        if here is not None:
            self._have_read(here)
            return
        unread, newest = self._counted
        self._counted = (unread - min(len(ids), self.unread), newest)
        self.recount()
        self._core.tell(ConversationsChanged((self._room.id,)))
        self._core.inbox.ask_soon()  # a list that is under way may have left them out already

    # What sessions have, whether or not it is read

    def delivered(self, user_id: str, message_id: str) -> None:
        """Somebody's session has messages up to one."""
        if user_id == self._core.my_id:
            return
        timeline = self._room.timeline
        if timeline.get(message_id) is None:
            # The answer to its sender is still to come, or it is nonsense: it must not mark
            # what will be sent one day.
            self._delivered_ahead = message_id
            return
        self._room._tell(timeline.mark_up_to(message_id, Status.DELIVERED))

    def arrived(self, message_id: Id) -> list[Change]:
        """A message is here now of which it may have been said before that another has it."""
        if str(message_id) != self._delivered_ahead:
            return []
        self._delivered_ahead = None
        return self._room.timeline.mark_up_to(message_id, Status.DELIVERED)

    def deliver(self, message_id: str) -> None:
        """Tell those who are here that one's session has the messages up to one."""
        self._delivered = message_id
        if self._core.presence.channel(self._room) is None or "delivered" in self._timers:
            return
        at = max(_now(), self._told_delivered_at + DELIVERED_EVERY)
        self._timers.at("delivered", at, self._send_delivered)

    def deliver_again(self) -> None:
        """Somebody has come who may not know."""
        newest = self._room.timeline.newest_of_others()
        if newest is not None:
            self.deliver(newest)

    def _send_delivered(self) -> None:
        self._told_delivered_at = _now()
        self._core.presence.whisper(self._room, DELIVERED, {"message_id": self._delivered})

    def close(self) -> str | None:
        """The session ends; the read mark that is still to be sent."""
        self._timers.stop()
        return self._read_mark.due(float("inf")) or self._marking


def _now() -> float:
    return asyncio.get_running_loop().time()

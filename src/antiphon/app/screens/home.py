"""The main page: the conversations beside the one that is open, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote

from nicegui import background_tasks, ui
from nicegui import context as nicegui_context
from nicegui.events import GenericEventArguments

from antiphon.app.banner import ConnectionBanner
from antiphon.app.errors import show_error_dialog, show_error_snackbar
from antiphon.app.notify import Attention
from antiphon.app.seats import View
from antiphon.app.theme import avatar, avatar_color, brief, initials
from antiphon.chat.observations import (
    ChatObservation,
    ChatState,
    ConversationsChanged,
    PresenceChanged,
    StateChanged,
    TimelineChanged,
    TimelineReplaced,
    Typing,
)
from antiphon.chat.problems import Problem
from antiphon.chat.room import Room
from antiphon.errors import ApiError, ConnectionFailed

from .chat import ChatScreen, sender_name, typing_words
from .conversation_list import ConversationList, Row
from .new_conversation import new_conversation_dialog

__all__ = ["Home"]

TOGETHER: Final = 0.05
"""Seconds within which changes of the list are gathered."""
MAX_TEXT: Final = 140
"""Characters of a last message that the list gets."""
MAX_UNREAD: Final = 9_999
"""More new messages of a conversation are not counted."""


class Home:
    """The main page of one tab, built in the current slot.

    The address names the open conversation; the browser's own back and forward switch it in place.

    Args:
        view: The tab, on a seat where somebody has logged in.
        title: The app's name.
        conversation_id: The conversation to open; None for none.
    """

    def __init__(self, view: View, *, title: str, conversation_id: str | None) -> None:
        assert view.seat.chat is not None
        self._view = view
        self._chat = view.seat.chat
        self._title = title
        self._client = nicegui_context.client
        self._changed: set[str] = set()
        self._flushing: asyncio.TimerHandle | None = None
        self._rooms_of: dict[str, set[str]] = {}
        # Conversations that were begun while one looks on: they stand on top at once.
        self._begun: dict[str, float] = {}
        self._pushed = 0
        self._shown_title, self._shown_unread = title, 0
        self._opens_only_one = bool(view.seat.guest) and conversation_id is None
        ui.add_head_html(_ON_POPSTATE)
        ui.on("ap_went", self._went)
        self._attention = Attention(title, on_look=lambda _: self._touch(()), on_open=self._open)
        with ui.element("div").classes("hm") as self._frame:
            with ui.element("div").classes("hm-banner"):
                ConnectionBanner(self._chat, on_login=self._log_in_again)
            with ui.element("nav").classes("hm-side").props('aria-label="Conversations"'):
                self._build_side_header(title)
                self._list = ConversationList(on_open=self._open, on_start=self._new)
            with ui.element("main").classes("hm-main"):
                self._screen = ChatScreen(
                    view, self._chat, on_back=self._back, on_missing=self._missing
                )
        stop_observing = self._chat.observe(self._observe)
        stop_waiting = view.seat.on_end(lambda: self._client.open("/login"))
        self._client.on_delete(stop_observing)
        self._client.on_delete(stop_waiting)
        self._client.on_delete(self._cancel)
        if self._chat.rooms or self._knows_conversations():
            self._show_list()
            self._touch(())
        self._go(conversation_id)
        if self._chat.state is ChatState.FAILED and self._chat.problem is not None:
            self._show_problem(self._chat.problem)
        elif view.seat.needs_login:
            self._lead_to_login()
        elif view.seat.trouble is not None:
            self._show_problem(view.seat.trouble)

    def _build_side_header(self, title: str) -> None:
        seat = self._view.seat
        with ui.element("header").classes("hm-side-header"):
            name = brief(seat.user.name or seat.user.email) if seat.user is not None else ""
            avatar(name, seat.user.id if seat.user is not None else "", 36)
            with ui.element("div").classes("hm-me"):
                with ui.element("h1"):
                    ui.label(title)
                ui.label(name).props('dir="auto"').classes("hm-my-name")
            new = ui.button(icon="edit_square", color=None, on_click=self._new)
            new.props('flat round aria-label="New conversation"')
            more = ui.button(icon="more_vert", color=None).props('flat round aria-label="Menu"')
            with more, ui.menu() as menu:
                menu.props('role=menu auto-close anchor="bottom right" self="top right"')
                menu.on("keydown", js_handler=_STEP)
                self._item("Connection", "sensors", lambda: self._leave("/connection"))
                self._item("Settings", "settings", lambda: self._leave("/settings"))
                if not seat.guest:
                    ui.separator()
                    self._item("Log out", "logout", self._log_out)

    @staticmethod
    def _item(text: str, icon: str, action: object) -> None:
        item = ui.menu_item(on_click=action)  # type: ignore[arg-type]
        with item.classes("hm-menu-item").props("role=menuitem"):
            ui.icon(icon).props('aria-hidden="true"')
            ui.label(text)

    # Where one is

    def _go(self, conversation_id: str | None) -> None:
        """Show a conversation, or the list alone."""
        self._list.choose(conversation_id)
        self._frame.classes(
            add="chatting" if conversation_id is not None else "",
            remove="" if conversation_id is not None else "chatting",
        )
        background_tasks.create(
            self._show(conversation_id), name="antiphon open", context=self._frame
        )

    async def _show(self, conversation_id: str | None) -> None:
        await self._screen.show(conversation_id)
        self._touch(())

    def _open(self, conversation_id: str) -> None:
        if conversation_id == self._view.conversation_id:
            self._go(conversation_id)
            return
        self._pushed += 1
        self._history("push", conversation_id)
        self._go(conversation_id)

    def _back(self) -> None:
        if self._pushed:
            self._pushed -= 1
            self._client.run_javascript("history.back()")
        else:
            self._history("replace", None)
            self._go(None)

    def _missing(self) -> None:
        self._history("replace", None)
        self._go(None)
        with self._frame:
            show_error_snackbar(ApiError("The backend's list has no such conversation.", code=404))

    def _history(self, how: str, conversation_id: str | None) -> None:
        path = "/" if conversation_id is None else f"/c/{quote(conversation_id, safe='')}"
        address = json.dumps(path + self._view.seat.query)
        self._client.run_javascript(
            f"history.{how}State(null, '', (window.path_prefix || '') + {address})"
        )

    def _went(self, event: GenericEventArguments) -> None:
        path = event.args if isinstance(event.args, str) else "/"
        _, is_conversation, id_ = path.partition("/c/")
        self._go(unquote(id_) if is_conversation and id_ else None)

    def _leave(self, path: str) -> None:
        ui.navigate.to(path + self._view.seat.query)

    # What the reader does

    def _new(self) -> None:
        new_conversation_dialog(self._chat, on_started=self._open)

    async def _log_out(self) -> None:
        seat = self._view.seat
        if seat.unsent:
            n = f"{seat.unsent} messages are" if seat.unsent > 1 else "One message is"
            then = (
                "They are sent the next time you log in here."
                if seat.keeps_unsent
                else "They will be lost."
            )
            if not await _confirm("Log out?", f"{n} not sent yet. {then}", "Log out"):
                return
        await seat.log_out()

    # What the session tells

    def _observe(self, observation: ChatObservation) -> None:
        match observation:
            case TimelineChanged(conversation_id=id_):
                self._screen.change(observation)
                self._call(observation)
                if not observation.is_history:
                    self._touch((id_,))  # the list shows the last one's tick
            case TimelineReplaced(conversation_id=id_, reason=reason):
                self._replaced(id_, reason)
            case ConversationsChanged(conversation_ids=ids):
                if len(ids) == 1 and self._chat.room(ids[0]).last is None:
                    self._begun.setdefault(ids[0], time.time() * 1000)  # and not the whole list
                self._touch(ids)
            case Typing(conversation_id=id_):
                self._touch((id_,))
            case PresenceChanged(user_ids=ids):
                self._touch(room for id_ in ids for room in self._rooms_of.get(id_, ()))
            case StateChanged():
                self._moved(observation)
            case Problem():
                self._trouble(observation)

    def _replaced(self, conversation_id: str, reason: str) -> None:
        room = self._screen.room
        if room is not None and room.id == conversation_id:
            self._screen.redraw()
            if reason:
                with self._frame:
                    show_error_snackbar(reason)
        self._touch((conversation_id,))

    def _call(self, changed: TimelineChanged) -> None:
        """Tell a reader who looks elsewhere what has come."""
        room = self._chat.room(changed.conversation_id)
        news = [c.entry for c in changed.changes if c.is_news and not c.entry.is_mine]
        if news:
            self._attention.notify(brief(room.title), news[-1].content, tag=room.id)

    def _moved(self, moved: StateChanged) -> None:
        if moved.current is ChatState.FAILED and moved.problem is not None:
            self._show_problem(moved.problem)
        if self._knows_conversations():
            self._touch(())  # an empty list is news too

    def _trouble(self, problem: Problem) -> None:
        if problem.needs_login:
            self._lead_to_login(problem)
        elif isinstance(problem.error, ConnectionFailed) or not self._chat.is_connected:
            pass  # the banner tells it, and in the end the dialog
        elif self._view.seat.trouble is not None:
            self._show_problem(problem)  # there is nothing else to look at
        elif self._screen.tells(problem.explanation):
            pass  # it stands below the message that could not be sent
        else:
            with self._frame:
                show_error_snackbar(problem)

    def _show_problem(self, problem: Problem) -> None:
        with self._frame:
            show_error_dialog(problem, on_retry=self._chat.retry, on_login=self._log_in_again)

    def _lead_to_login(self, problem: Problem | None = None) -> None:
        if problem is not None:
            self._show_problem(problem)
        else:
            self._log_in_again()

    def _log_in_again(self) -> None:
        path = "/"
        if self._view.conversation_id is not None:
            path = f"/c/{quote(self._view.conversation_id, safe='')}"
        self._client.open(f"/login?next={quote(path)}")

    # The list

    def _knows_conversations(self) -> bool:
        return self._view.seat.has_list or self._chat.state is ChatState.FAILED

    def _touch(self, conversation_ids: Iterable[str]) -> None:
        """Show these conversations as they are, soon."""
        self._changed.update(conversation_ids)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(TOGETHER, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        changed, self._changed = self._changed, set()
        rooms = self._chat.rooms
        rows = [self._row(rooms[id_]) for id_ in changed if id_ in rooms]
        if rows or self._knows_conversations():  # else it would say that there are none
            self._list.put(rows)
        shown = self._screen.room
        if shown is not None and shown.id in changed:
            self._screen.redraw_header()
        if self._opens_only_one and rooms:
            self._opens_only_one = False
            if len(rooms) == 1 and shown is None:  # a guest's demonstration begins in it
                only = next(iter(rooms))
                self._history("replace", only)
                self._go(only)
        title = self._title if shown is None else f"{brief(shown.title)} - {self._title}"
        if title != self._shown_title:
            self._shown_title = title
            self._attention.title(title)
        unread = sum(_unread(room) for room in rooms.values())
        if unread != self._shown_unread:
            self._shown_unread = unread
            self._attention.unread(unread)

    def _show_list(self) -> None:
        self._list.show([self._row(room) for room in self._chat.rooms.values()])

    def _cancel(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()

    def _row(self, room: Room) -> Row:
        others = room.others
        for user in others:
            self._rooms_of.setdefault(str(user.id), set()).add(room.id)
        other = others[0] if len(others) == 1 else None
        last = room.last
        prefix = status = text = ""
        if last is not None:
            text = " ".join(last.content[: 2 * MAX_TEXT].split())[:MAX_TEXT]
            if last.is_mine:
                prefix, status = "You", last.status.value
            elif other is None:
                prefix = sender_name(room, last).partition(" ")[0]
        typing = typing_words(room)
        return {
            "id": room.id,
            "title": brief(room.title),
            "initials": initials(room.title),
            "color": avatar_color(other.id if other is not None else f"c{room.id}"),
            "online": other is not None and self._chat.is_online(other.id),
            "text": text,
            "prefix": prefix,
            "status": status,
            "at": None if last is None or last.sent_at is None else last.sent_at.timestamp() * 1000,
            "begun": self._begun.get(room.id, 0.0),
            "unread": _unread(room),
            "typing": f"{typing}…" if typing else "",
        }


def _unread(room: Room) -> int:
    """How many messages are new; a backend's number may be beyond what a page can count."""
    return min(max(room.unread, 0), MAX_UNREAD)


# Up and down go round, as menus have it.
_STEP: Final = """(event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const items = [...event.currentTarget.querySelectorAll("[role=menuitem]")];
  const here = items.indexOf(document.activeElement);
  items.at(here < 0 ? Math.min(step, 0) : (here + step) % items.length).focus();
}"""

_ON_POPSTATE: Final = """<script>
addEventListener("popstate", () =>
  emitEvent("ap_went", location.pathname.slice((window.path_prefix || "").length)));
</script>"""


async def _confirm(title: str, text: str, action: str) -> bool:
    with ui.dialog() as dialog, ui.element("div").classes("dg-card"):
        dialog.props(f'role="alertdialog" aria-label="{title}"')
        with ui.element("h2").classes("dg-title"):
            ui.label(title)
        ui.label(text).classes("ap-muted")
        with ui.element("div").classes("dg-actions"):
            ui.button("Cancel", on_click=lambda: dialog.submit(False)).props("flat")
            ui.button(action, on_click=lambda: dialog.submit(True)).props("unelevated")
    try:
        return bool(await dialog)
    finally:
        dialog.delete()

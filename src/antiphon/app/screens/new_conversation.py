"""Choosing with whom to talk: one person, or several with a title."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from nicegui import ui

from antiphon.app.errors import show_error_snackbar
from antiphon.app.theme import avatar, brief
from antiphon.chat.models import User
from antiphon.chat.session import ChatSession
from antiphon.errors import AntiphonError

__all__ = ["new_conversation_dialog"]

SHOWN: Final = 50
"""People listed at once; a search finds the others."""
MAX_TITLE: Final = 100


def new_conversation_dialog(chat: ChatSession, *, on_started: Callable[[str], Any]) -> None:
    """Open the dialog; it goes when it is closed.

    Args:
        chat: The session.
        on_started: Gets the conversation's id.
    """
    _NewConversation(chat, on_started)


class _NewConversation:
    def __init__(self, chat: ChatSession, on_started: Callable[[str], Any]) -> None:
        self._chat = chat
        self._on_started = on_started
        self._chosen: dict[str, User] = {}
        self._search_number = 0
        with ui.dialog() as self._dialog, ui.element("div").classes("dg-card nc-card"):
            self._dialog.props('aria-label="New conversation"')
            self._dialog.on("hide", self._dialog.delete)
            with ui.element("header").classes("nc-header"):
                with ui.element("h2").classes("dg-title"):
                    ui.label("New conversation")
                close = ui.button(icon="close", color=None, on_click=self._dialog.close)
                close.props('flat round dense aria-label="Close"')
            self._search = ui.input(placeholder="Search people", on_change=self._find)
            self._search.props('outlined dense autofocus debounce=150 aria-label="Search people"')
            self._search.props("spellcheck=false")
            self._search.props("autocomplete=off maxlength=100 clearable")
            self._chips = ui.element("div").classes("nc-chips")
            self._people = ui.element("div").classes("nc-people")
            self._title = ui.input(placeholder="Title of the group (optional)")
            self._title.props(f"outlined dense maxlength={MAX_TITLE} autocomplete=off")
            self._title.props('aria-label="Title of the group"')
            self._title.set_visibility(False)
            with ui.element("div").classes("dg-actions"):
                ui.button("Cancel", on_click=self._dialog.close).props("flat")
                self._start_button = ui.button("Start", on_click=self._start)
                self._start_button.props("unelevated")
            self._start_button.set_enabled(False)
        self._dialog.open()
        ui.timer(0, self._find, once=True)

    async def _find(self) -> None:
        self._search_number += 1
        number = self._search_number
        try:
            found = await self._chat.rest.users((self._search.value or "").strip())
        except AntiphonError as exc:
            self._say("People could not be looked up.")
            show_error_snackbar(exc)
            return
        if number != self._search_number or self._dialog.is_deleted:
            return  # something else is searched for by now
        me = self._chat.me
        mine = "" if me is None else str(me.id)
        people = [user for user in found if str(user.id) != mine][:SHOWN]
        if not people:
            self._say("Nobody found.")
            return
        self._people.clear()
        with self._people:
            for user in people:
                self._person(user)

    def _say(self, text: str) -> None:
        self._people.clear()
        with self._people:
            ui.label(text).classes("nc-nobody").props('role="status"')

    def _person(self, user: User) -> None:
        name = brief(user.name or user.email)
        row = ui.element("label").classes("nc-person")
        with row:
            box = ui.checkbox(
                value=str(user.id) in self._chosen,
                on_change=lambda event: self._choose(user, bool(event.value)),
            )
            avatar(name, user.id, 40)
            with ui.element("span").classes("nc-who"):
                ui.label(name).props('dir="auto"').classes("nc-name")
                ui.label(brief(user.email)).classes("nc-email")
        box.props["aria-label"] = name

    def _choose(self, user: User, is_chosen: bool) -> None:
        if is_chosen:
            self._chosen[str(user.id)] = user
        else:
            self._chosen.pop(str(user.id), None)
        self._chips.clear()
        with self._chips:
            for chosen in self._chosen.values():
                ui.label(brief(chosen.name or chosen.email)).classes("nc-chip").props('dir="auto"')
        self._title.set_visibility(len(self._chosen) > 1)
        self._start_button.set_enabled(bool(self._chosen))

    async def _start(self) -> None:
        self._start_button.props["loading"] = True
        title = (self._title.value or "").strip() if len(self._chosen) > 1 else ""
        ids = [user.id for user in self._chosen.values()]
        try:
            room = await self._chat.start_conversation(ids, title or None)
        except AntiphonError as exc:
            self._start_button.props["loading"] = False
            show_error_snackbar(exc)
            return
        self._dialog.close()
        self._on_started(room.id)

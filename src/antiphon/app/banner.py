"""The banner that says that there is no connection, until when, and that it is back."""

from __future__ import annotations

import time
from typing import Any

from nicegui.element import Element

from antiphon.chat.observations import ChatObservation, ChatState, StateChanged
from antiphon.chat.session import ChatSession
from antiphon.client import ConnectingIn

from .errors import Action

__all__ = ["ConnectionBanner"]


class ConnectionBanner(Element, component="banner.js"):
    """A line under the header while the chat is not connected; otherwise it takes no room.

    It counts the seconds to the next attempt and lets the reader hurry it. A loss that is mended
    within 0.4 seconds is not mentioned; after a longer one it says for 2 seconds that it is over.

    Args:
        chat: The session; it may be connected or not.
        on_login: Called by the Log in button that is there when only a new log-in helps.
    """

    def __init__(self, chat: ChatSession, *, on_login: Action | None = None) -> None:
        super().__init__()
        self._chat = chat
        self._props["state"] = self._state()
        self._forget = chat.observe(self._observe)
        self.on("retry", chat.retry, args=[])
        if on_login is not None:
            self.on("login", on_login, args=[])

    def _observe(self, observation: ChatObservation) -> None:
        if isinstance(observation, StateChanged | ConnectingIn):
            self._props["state"] = self._state()

    def _state(self) -> dict[str, Any]:
        chat = self._chat
        if chat.state is ChatState.FAILED:
            problem = chat.problem
            return {
                "kind": "failed",
                "needs_login": problem is not None and problem.needs_login,
                "why": "" if problem is None else problem.title,
            }
        if chat.state not in (ChatState.CONNECTING, ChatState.RECONNECTING):
            return {"kind": "online"}
        state: dict[str, Any] = {"kind": "away", "is_first": chat.state is ChatState.CONNECTING}
        if chat.connecting_in is not None and chat.retry_at is not None:
            state["seconds"] = max(0.0, chat.retry_at - time.monotonic())
            state["attempt"] = chat.connecting_in.attempt
            state["max_attempts"] = chat.connecting_in.max_attempts
        return state

    def _handle_delete(self) -> None:
        self._forget()
        super()._handle_delete()

"""Who types in a conversation: oneself, of whom the others are told, and the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from antiphon.errors import ApiError, LoginFailed

from .observations import Typing
from .pace import Keystrokes, Typists
from .timers import Timers

if TYPE_CHECKING:
    from .core import Core
    from .events import TypingUser
    from .room import Room

__all__ = ["OVERTAKES", "STOPPED", "WhoTypes"]

OVERTAKES: Final = 1.0
"""Seconds by which a message may overtake the notice that it is being typed."""
STOPPED: Final = "client-stopped-typing"
"""What the others' sessions are told of one who types no more."""


class WhoTypes:
    """The typing in one room."""

    def __init__(self, core: Core, room: Room) -> None:
        self._core = core
        self._room = room
        self._keystrokes = Keystrokes()
        self._typists = Typists()
        self._wrote_at: dict[str, float] = {}
        self._timers = Timers()

    @property
    def users(self) -> tuple[TypingUser, ...]:
        """The others who type now."""
        return self._typists.users

    # Oneself

    def keystroke(self) -> None:
        """The text has changed: tell the others that one types."""
        if self._core.is_closed:
            return
        if self._keystrokes.press(_now()) and self._core.is_connected:
            self._core.spawn(self._say_typing())
        self._timers.at("idle", self._keystrokes.idle_at, self.stop_typing)

    async def _say_typing(self) -> None:
        try:
            await self._core.rest.typing(self._room.id, socket_id=self._core.client.socket_id)
        except ApiError as exc:
            if isinstance(exc, LoginFailed):
                self._core.report(exc)

    def stop_typing(self, *, is_sent: bool = False) -> None:
        """One types no more; if it is sent, the message itself says so to those who get it."""
        if self._keystrokes.stop(_now()) and not is_sent:
            self._core.presence.whisper(self._room, STOPPED, {})
        self._timers.at("idle", None, self.stop_typing)

    # The others

    def typed(self, user: TypingUser) -> None:
        """Somebody types."""
        id_ = str(user.id)
        if id_ == self._core.my_id:
            return
        self._core.presence.alive(id_)
        if _now() < self._wrote_at.get(id_, -OVERTAKES) + OVERTAKES:
            return  # the notice was sent before the message
        if self._typists.typed(user, _now()):
            self._tell()
        self._timers.at("typists", self._typists.expires_at, self._expire)

    def wrote(self, user_id: str) -> None:
        """A message of somebody's has come."""
        self._wrote_at[user_id] = _now()
        self.stopped(user_id)

    def stopped(self, user_id: str) -> None:
        """Somebody types no more, or has gone."""
        if self._typists.stopped(user_id):
            self._tell()

    def _expire(self) -> None:
        if self._typists.expire(_now()):
            self._tell()
        self._timers.at("typists", self._typists.expires_at, self._expire)

    def _tell(self) -> None:
        typing = Typing(self._room.id, self.users)
        self._core.tell(typing)
        self._core.listeners.call("typing", typing)

    def close(self) -> None:
        """The session ends."""
        self._timers.stop()


def _now() -> float:
    return asyncio.get_running_loop().time()

"""When to say that one types or has read, and when to forget that others type; time is a number."""

from __future__ import annotations

from typing import Final

from .events import TypingUser

__all__ = [
    "IDLE_AFTER",
    "READ_EVERY",
    "READ_TRIES",
    "TYPING_EVERY",
    "TYPING_LASTS",
    "Keystrokes",
    "ReadMark",
    "Typists",
]

TYPING_EVERY: Final = 2.0
"""Seconds between two notices that one types."""
IDLE_AFTER: Final = 1.0
"""Seconds after the last keystroke from which on one types no more."""
TYPING_LASTS: Final = 7.0
"""Seconds for which a notice of another counts."""
READ_EVERY: Final = 1.0
"""Seconds between two read marks."""
READ_TRIES: Final = 6
"""How often a read mark is tried in vain, after 1, 2, 4, 8, 16 s, before it waits for a newer."""

TOLERANCE: Final = 0.02
"""Seconds by which a timer may go off early; that of Windows ticks 64 times a second."""


class Keystrokes:
    """One's own typing in one conversation."""

    def __init__(self) -> None:
        self._idle_at: float | None = None
        self._told_at: float | None = None
        self._is_told = False

    def press(self, now: float) -> bool:
        """A key was pressed; whether the others are to be told now."""
        self._idle_at = now + IDLE_AFTER
        # Also across a pause: who types, stops and types again is told of no more often.
        if self._told_at is not None and now < self._told_at + TYPING_EVERY:
            return False
        self._told_at = now
        self._is_told = True
        return True

    @property
    def idle_at(self) -> float | None:
        """When one will have stopped, unless another key is pressed; None while not typing."""
        return self._idle_at

    def stop(self, now: float) -> bool:
        """One has sent it, or the time of `idle_at` has come; whether the others had been told.

        Not, if that is so long ago that they have forgotten it.
        """
        is_told = self._is_told and self._told_at is not None and now < self._told_at + TYPING_LASTS
        self._idle_at = None
        self._is_told = False
        return is_told


class Typists:
    """Who types in one conversation."""

    def __init__(self) -> None:
        # By id as text, in the order they began: who, and until when that counts.
        self._typing: dict[str, tuple[TypingUser, float]] = {}

    @property
    def users(self) -> tuple[TypingUser, ...]:
        """Who types, in the order they began."""
        return tuple(user for user, _ in self._typing.values())

    def typed(self, user: TypingUser, now: float) -> bool:
        """Somebody types; whether that changes `users`."""
        before = self.users
        self.expire(now)
        self._typing[str(user.id)] = (user, now + TYPING_LASTS)
        return self.users != before

    def stopped(self, user_id: object) -> bool:
        """Somebody has stopped, sent or gone; whether that changes `users`."""
        return self._typing.pop(str(user_id), None) is not None

    def expire(self, now: float) -> bool:
        """Forget who was not heard of for `TYPING_LASTS`; whether that changes `users`."""
        gone = [id_ for id_, (_, until) in self._typing.items() if until <= now]
        for id_ in gone:
            del self._typing[id_]
        return bool(gone)

    @property
    def expires_at(self) -> float | None:
        """When `expire` will next have something to do."""
        return min((until for _, until in self._typing.values()), default=None)


class ReadMark:
    """How far one has read in one conversation, and how far that is told: a mark never goes back.

    Ids are compared as a timeline orders them; the caller passes only newer ones. A mark may be
    sent while one before it is under way: the backend keeps the newer.
    """

    def __init__(self) -> None:
        self._newest: str | None = None
        # Of the newest: whether it is still to be sent, and whether the backend has it.
        self._waits = False
        self._is_told = False
        self._next_at = float("-inf")
        self._failures = 0

    def seen(self, message_id: str, now: float) -> float:
        """A newer message was seen; the time at which to send the mark (now, or later)."""
        if message_id != self._newest:
            self._newest = message_id
            self._waits = True
            self._is_told = False
            self._failures = 0
        return max(now, self._next_at)

    def due(self, now: float) -> str | None:
        """The id to send now, which then counts as under way; None if there is nothing to send."""
        if not self._waits or now < self._next_at - TOLERANCE:
            return None
        self._waits = False
        # Counted from when it was due: timers that go off early do not add up.
        self._next_at = max(now, self._next_at) + READ_EVERY
        return self._newest

    def sent(self, message_id: str) -> None:
        """The backend has taken a mark."""
        self._failures = 0
        if message_id == self._newest:
            self._waits = False
            self._is_told = True

    def failed(self, now: float) -> float | None:
        """The backend has not; the time at which to try again with the newest id, None for never.

        After `READ_TRIES` in a row there is no time; the mark is sent with the next `due`.
        """
        if self._newest is None or self._is_told:
            return None
        self._waits = True
        self._failures += 1
        if self._failures >= READ_TRIES:
            return None
        self._next_at = max(self._next_at, now + READ_EVERY * 2 ** (self._failures - 1))
        return self._next_at

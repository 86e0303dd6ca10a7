"""Who may look: a password, a few tries a minute, and a session that ends by itself."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections import deque
from typing import Final

from antiphon.errors import SettingsError

__all__ = ["Door", "Seat", "TooManyTries"]

MIN_PASSWORD: Final = 12
MAX_WRONG: Final = 5
WINDOW: Final = 60.0
IDLE: Final = 12 * 3600.0
MAX_SEATS: Final = 100


class TooManyTries(Exception):
    """Nobody is let in at the moment, whatever the password.

    Attributes:
        retry_after: Seconds until somebody may try again.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many wrong passwords. Try again in {retry_after} s.")
        self.retry_after = retry_after


class Seat:
    """Somebody who has logged in.

    Attributes:
        token: What a request that changes something must show, besides the cookie.
        seen: When a request came last.
    """

    __slots__ = ("seen", "token")

    def __init__(self, now: float) -> None:
        self.token = secrets.token_urlsafe(32)
        self.seen = now


class Door:
    """Lets in who knows the password; `now` is in seconds of any clock that only goes forward.

    Args:
        password: It.

    Raises:
        SettingsError: It is shorter than 12 characters.
    """

    def __init__(self, password: str) -> None:
        if len(password) < MIN_PASSWORD:
            raise SettingsError(
                f"The console's password has {len(password)} characters;"
                f" it needs {MIN_PASSWORD} (ANTIPHON_CONSOLE_PASSWORD)."
            )
        self._password = _digest(password)
        self._wrong: deque[float] = deque(maxlen=MAX_WRONG)
        self._seats: dict[str, Seat] = {}  # by cookie

    def enter(self, password: str, now: float) -> str | None:
        """The cookie of a new session; None if the password is wrong.

        Raises:
            TooManyTries: Five were wrong within a minute, whoever tried.
        """
        if len(self._wrong) == MAX_WRONG and now - self._wrong[0] < WINDOW:
            raise TooManyTries(math.ceil(self._wrong[0] + WINDOW - now))
        if not hmac.compare_digest(_digest(password), self._password):
            self._wrong.append(now)
            return None
        if len(self._seats) >= MAX_SEATS:
            del self._seats[min(self._seats, key=lambda cookie: self._seats[cookie].seen)]
        cookie = secrets.token_urlsafe(32)
        self._seats[cookie] = Seat(now)
        return cookie

    def find(self, cookie: str, now: float) -> Seat | None:
        """The session of a cookie, if there is one that was used in the last 12 hours."""
        seat = self._seats.get(cookie)
        if seat is not None and now - seat.seen > IDLE:
            self.leave(cookie)
            return None
        return seat

    def leave(self, cookie: str) -> None:
        """End a session; one that is not known is ignored."""
        self._seats.pop(cookie, None)


def _digest(text: str) -> bytes:
    # Of one length, whatever was typed: the comparison tells nothing of the password's.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

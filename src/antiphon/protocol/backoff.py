"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .closing import Action

__all__ = ["Backoff"]

_MAX_DOUBLINGS: Final = 32


class Backoff:
    """Delays between attempts: exponential, with full jitter, from `minimum` to `maximum`.

    The n-th delay lies anywhere between `minimum` and `minimum * 2**n`, so that clients which
    lost a server together do not come back together. `RECONNECT` costs no delay, but only once:
    a server that keeps closing with 4200 is backed off from like any other.

    Args:
        random: Gives numbers from 0 up to 1; injected, so that tests choose them.
        minimum: Seconds; 1 is the protocol's least for codes 4100-4199.
        maximum: Seconds no delay exceeds.
        max_attempts: Attempts without a lasting connection before giving up; None for no end.
        stable_after: Seconds a connection must last for the count to begin anew.
    """

    __slots__ = ("_random", "attempts", "max_attempts", "maximum", "minimum", "stable_after")

    def __init__(
        self,
        random: Callable[[], float],
        *,
        minimum: float = 1.0,
        maximum: float = 30.0,
        max_attempts: int | None = None,
        stable_after: float = 10.0,
    ) -> None:
        self._random = random
        self.minimum = minimum
        self.maximum = maximum
        self.max_attempts = max_attempts
        self.stable_after = stable_after
        self.attempts = 0

    def next_delay(self, action: Action) -> float | None:
        """Seconds to wait before the next attempt, or None when there shall be none."""
        if action is Action.STOP:
            return None
        if self.max_attempts is not None and self.attempts >= self.max_attempts:
            return None
        self.attempts += 1
        if self.attempts == 1 and action is not Action.BACK_OFF:
            return 0.0
        doublings = min(self.attempts, _MAX_DOUBLINGS)
        ceiling = min(self.maximum, self.minimum * 2.0**doublings)
        return self.minimum + self._random() * max(0.0, ceiling - self.minimum)

    def connection_lasted(self, seconds: float) -> None:
        """Begin anew if a connection lasted; one that ended at once counts as an attempt."""
        if seconds >= self.stable_after:
            self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.attempts = 0

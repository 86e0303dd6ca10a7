"""Pinging and pruning: one timer for all connections.

Connections lie in buckets by the second in which they are to be looked at; a busy connection
costs nothing until its bucket comes up, and is then put further back.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final, Protocol

__all__ = ["Liveness", "Watched"]

_TICK: Final = 1.0


class Watched(Protocol):
    """A connection, as the sweep needs it."""

    due: int
    """The second in which it is looked at next; the sweep's own note."""

    def next_timer(self) -> float:
        """When it must be looked at."""

    def tick(self, now: float) -> bool:
        """Ping or give up a silent client; whether it is still connected."""


class Liveness:
    """Looks at every connection when its protocol's timer is due.

    Attributes:
        lag: Seconds by which the last tick came late: how long the event loop was busy.
    """

    def __init__(self) -> None:
        self.lag = 0.0
        self._buckets: dict[int, set[Watched]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._swept = math.floor(time.monotonic())

    def start(self) -> None:
        """Begin to sweep, once a second."""
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_TICK, self._tick)

    def stop(self) -> None:
        """Sweep no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def add(self, session: Watched) -> None:
        """Look after a connection."""
        session.due = max(math.ceil(session.next_timer()), self._swept + 1)
        self._buckets.setdefault(session.due, set()).add(session)

    def remove(self, session: Watched) -> None:
        """Forget a connection; one that is not known is ignored."""
        bucket = self._buckets.get(session.due)
        if bucket is not None:
            bucket.discard(session)
            if not bucket:
                del self._buckets[session.due]

    def sweep(self, now: float) -> None:
        """Look at all connections that are due."""
        first, self._swept = self._swept + 1, math.floor(now)
        for second in range(first, self._swept + 1):
            for session in self._buckets.pop(second, ()):
                if session.tick(now):
                    self.add(session)

    def _tick(self) -> None:
        if self._timer is not None:
            self.lag = max(0.0, self._loop.time() - self._timer.when())
        self.start()
        self.sweep(time.monotonic())

"""How many subscribers channels have, told when it changes but not too often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["Counts"]

LARGE: Final = 100
"""From more subscribers than this on, a change is told with a delay."""
EVERY: Final = 5.0
"""Seconds between two tellings of a large channel. Pusher documentation, *events*."""


class Counts:
    """Tells of each channel whose count has changed: once a turn of the loop, or every 5 seconds.

    Args:
        count: The number of a channel's subscribers now.
        tell: Called with a channel's name and that number.
    """

    def __init__(self, count: Callable[[str], int], tell: Callable[[str, int], None]) -> None:
        self._count = count
        self._tell = tell
        self._changed: dict[str, None] = {}
        self._told_at: dict[str, float] = {}  # of large channels
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def changed(self, channel: str) -> None:
        """Somebody has come or gone."""
        if channel in self._timers:
            return
        if not self._changed:
            asyncio.get_running_loop().call_soon(self._flush)
        self._changed[channel] = None

    def close(self) -> None:
        """Tell nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._changed.clear()

    def _flush(self) -> None:
        changed, self._changed = self._changed, {}
        loop = asyncio.get_running_loop()
        for channel in changed:
            count = self._count(channel)
            due = self._told_at.get(channel, -EVERY) + EVERY
            if count > LARGE and loop.time() < due:
                self._timers[channel] = loop.call_at(due, self._tell_now, channel)
            else:
                self._tell_now(channel)

    def _tell_now(self, channel: str) -> None:
        self._timers.pop(channel, None)
        count = self._count(channel)
        if count > LARGE:
            self._told_at[channel] = asyncio.get_running_loop().time()
        else:
            self._told_at.pop(channel, None)
        self._tell(channel, count)

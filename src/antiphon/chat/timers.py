"""Calls to come, of which a newer one takes the place of the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Timers"]


class Timers:
    """What is planned, each under a name of its own; after `stop` nothing is planned any more."""

    def __init__(self) -> None:
        self._planned: dict[str, asyncio.TimerHandle] = {}
        self._is_stopped = False

    def __contains__(self, what: str) -> bool:
        return what in self._planned

    def at(self, what: str, when: float | None, function: Callable[[], None]) -> None:
        """Call a function at a time of the loop's; None only takes back what was planned."""
        planned = self._planned.pop(what, None)
        if planned is not None:
            planned.cancel()
        if when is not None and not self._is_stopped:
            loop = asyncio.get_running_loop()
            self._planned[what] = loop.call_at(when, self._call, what, function)

    def stop(self) -> None:
        """Take everything back, for good."""
        self._is_stopped = True
        for planned in self._planned.values():
            planned.cancel()
        self._planned.clear()

    def _call(self, what: str, function: Callable[[], None]) -> None:
        del self._planned[what]
        function()

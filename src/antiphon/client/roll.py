"""After a reconnection: who has not answered yet."""

from __future__ import annotations

from collections.abc import Iterable

from .host import Host
from .states import Reconnected

__all__ = ["Roll"]


class Roll:
    """Tells `Reconnected` once everything that was held has its answer on the new connection.

    Args:
        host: What the client's parts share.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._away: float | None = None
        self._missing: set[str] = set()
        self._joined: list[str] = []
        self._failed: list[str] = []

    def call(self, names: Iterable[str], away: float) -> None:
        """A new connection stands, and these have been asked for on it.

        Args:
            names: The channels, and whatever else is to be granted.
            away: Seconds without a connection.
        """
        self.forget()
        self._away = away
        self._missing.update(names)
        self._tell_if_complete()

    def forget(self) -> None:
        """The connection is gone again."""
        self._away = None
        self._missing.clear()
        self._joined, self._failed = [], []

    def joined(self, name: str) -> None:
        """One is subscribed again."""
        if name in self._missing:
            self._joined.append(name)
        self.gone(name)

    def failed(self, name: str) -> None:
        """One was refused."""
        if name in self._missing:
            self._failed.append(name)
        self.gone(name)

    def gone(self, name: str) -> None:
        """One is waited for no longer."""
        if name in self._missing:
            self._missing.remove(name)
            self._tell_if_complete()

    def _tell_if_complete(self) -> None:
        if self._away is None or self._missing:
            return
        told = Reconnected(self._away, tuple(self._joined), tuple(self._failed))
        self.forget()
        self._host.tell(told)

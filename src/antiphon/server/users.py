"""Who has signed in, and who wants to be told of whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from antiphon.protocol.server import watchlist_events

__all__ = ["Lookout", "Users", "Watcher"]


class Watcher(Protocol):
    """A connection, as `Users` needs it."""

    def send(self, message: bytes) -> None:
        """Send one message."""


class Lookout(Protocol):
    """The other nodes, as `Users` needs them."""

    @property
    def is_live(self) -> bool:
        """Whether they can be asked."""

    def user_changed(self, user_id: str) -> None:
        """A user's first connection here has signed in, or the last one has ended."""

    def ask_online(self, user_ids: Iterable[str], done: Callable[[set[str]], None]) -> None:
        """Find out who of these is signed in on any node."""


W = TypeVar("W", bound=Watcher)


class Users(Generic[W]):
    """The signed-in users of one application, each with all connections it has on this node.

    Pusher documentation, *watchlist events*: a user is online from the first connection that
    signs in to the last one that ends.

    Attributes:
        lookout: The other nodes; None if there are none.
    """

    def __init__(self) -> None:
        self.lookout: Lookout | None = None
        self._connections: dict[str, set[W]] = {}
        self._user_of: dict[W, str] = {}
        self._watchers: dict[str, set[W]] = {}
        self._watched_by: dict[W, tuple[str, ...]] = {}

    def connections(self, user_id: str) -> list[W]:
        """All connections of a user."""
        return list(self._connections.get(user_id, ()))

    def here(self) -> set[str]:
        """Everybody who is signed in."""
        return set(self._connections)

    def is_here(self, user_id: str) -> bool:
        """Whether a user is signed in."""
        return user_id in self._connections

    def sign_in(self, connection: W, user_id: str, watchlist: tuple[str, ...]) -> None:
        """A connection is a user's from now on; it is told who of its watchlist is online."""
        is_first = user_id not in self._connections
        self._connections.setdefault(user_id, set()).add(connection)
        self._user_of[connection] = user_id
        if is_first:
            self._changed(user_id)
        self._unwatch(connection)
        if watchlist:
            self._watched_by[connection] = watchlist
            for watched in watchlist:
                self._watchers.setdefault(watched, set()).add(connection)
            self._tell_all(connection)

    def sign_out(self, connection: W) -> None:
        """A connection has ended; one that never signed in is ignored."""
        user_id = self._user_of.pop(connection, None)
        if user_id is None:
            return
        self._unwatch(connection)
        connections = self._connections[user_id]
        connections.discard(connection)
        if not connections:
            del self._connections[user_id]
            self._changed(user_id)

    def told(self, user_id: str, *, is_online: bool) -> None:
        """A user has come or gone, on all nodes."""
        watchers = self._watchers.get(user_id)
        if watchers:
            message = watchlist_events(("online" if is_online else "offline", (user_id,)))
            for watcher in list(watchers):
                watcher.send(message)

    def ask_again(self) -> None:
        """Tell every watcher who is online: something may have been missed."""
        for connection in list(self._watched_by):
            self._tell_all(connection)

    def _changed(self, user_id: str) -> None:
        if self.lookout is not None:
            self.lookout.user_changed(user_id)
        if self.lookout is None or not self.lookout.is_live:
            self.told(user_id, is_online=user_id in self._connections)

    def _tell_all(self, connection: W) -> None:
        watchlist = self._watched_by[connection]
        if self.lookout is not None and self.lookout.is_live:
            self.lookout.ask_online(watchlist, lambda online: _tell(connection, watchlist, online))
        else:
            _tell(connection, watchlist, self._connections.keys() & set(watchlist))

    def _unwatch(self, connection: W) -> None:
        for watched in self._watched_by.pop(connection, ()):
            watchers = self._watchers[watched]
            watchers.discard(connection)
            if not watchers:
                del self._watchers[watched]


def _tell(connection: Watcher, watchlist: tuple[str, ...], online: set[str]) -> None:
    here = [watched for watched in watchlist if watched in online]
    away = [watched for watched in watchlist if watched not in online]
    told = (("online", here), ("offline", away))
    connection.send(watchlist_events(*((name, ids) for name, ids in told if ids)))

"""The signed-in user: `pusher:signin`, events sent to this user alone, and the watchlist."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from antiphon.errors import (
    AntiphonError,
    ClientClosed,
    ConnectionFailed,
    SignInFailed,
    SubscriptionFailed,
)
from antiphon.protocol.backoff import Backoff
from antiphon.protocol.channels import user_channel
from antiphon.protocol.client import Received
from antiphon.protocol.closing import Action
from antiphon.protocol.events import SignedIn, WatchlistChanged
from antiphon.protocol.frames import Event

from .auth import Authentication, UserAuthenticator
from .channel import ChannelState, Granted, signature
from .connection import Connection
from .host import Host
from .roll import Roll
from .source import EventSource

__all__ = ["User", "Watchlist"]

log = logging.getLogger("antiphon.channel")

SIGN_IN: Final = "pusher:signin"


class Watchlist(EventSource):
    """Who of those that the signed-in user watches is online.

    Changes are the events `online` and `offline`, with `{"user_ids": [...]}` as their data.

    Attributes:
        online: The ids of those who are, as far as the server has told on this connection.
    """

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.online: set[str] = set()

    def changed(self, change: WatchlistChanged) -> None:
        """The server tells who has come and gone."""
        self.online.update(change.online)
        self.online.difference_update(change.offline)
        for name, ids in (("online", change.online), ("offline", change.offline)):
            if ids:
                self._bindings.deliver(Event(name=name, raw={"user_ids": list(ids)}))

    def close(self) -> None:
        """Take all handlers off."""
        self._bindings.close()


class User(Granted):
    """The user of this client, once `Client.signin` was called.

    Events are those that a backend sends to this user, on whichever connection; besides them
    `pusher:signin_success` and `pusher:signin_error`.

    Attributes:
        state: `PENDING` until the server has accepted the sign-in, `SUBSCRIBED` from then on.
        id: The user's id, once signed in.
        data: All that the backend said of the user, once signed in.
        watchlist: Who of those this user watches is online.
    """

    def __init__(
        self, host: Host, authenticator: UserAuthenticator, roll: Roll, backoff: Backoff
    ) -> None:
        super().__init__(host)
        self.id: str | None = None
        self.data: dict[str, Any] = {}
        self.watchlist = Watchlist(host)
        self._authenticator = authenticator
        self._roll = roll
        self._backoff = backoff
        self._connection: Connection | None = None
        self._end: Callable[[], None] | None = None

    def __repr__(self) -> str:
        """Id and state."""
        return f"<User {self.id or '?'} {self.state}>"

    @property
    def channel(self) -> str:
        """The channel on which this user is addressed; empty until signed in."""
        return "" if self.id is None else user_channel(self.id)

    async def signed_in(self, timeout: float | None = None) -> None:
        """Wait until the server has accepted the sign-in.

        Args:
            timeout: Seconds to wait; None for no limit.

        Raises:
            AuthorizationFailed: The backend did not say who the user is.
            SignInFailed: The server did not accept it.
            ConnectionFailed: The client has given up, or was closed.
            TimeoutError: There was no answer in time.
        """
        state, error = await self._settled(timeout)
        if error is not None:
            raise error.with_traceback(None)  # raised again and again, it would gather them
        if state is not ChannelState.SUBSCRIBED:
            raise ClientClosed("The client was closed.")

    # What the client calls

    def opened(self, connection: Connection) -> None:
        """Sign in on a connection that has just opened."""
        self._connection = connection
        if self._end is not None:
            self._end()  # who signs in at the moment of connecting is not signed in twice
        self.move(ChannelState.PENDING)
        self._end = self._host.spawn(self._sign_in(connection), "antiphon sign-in")

    def again(self) -> None:
        """Try once more, if the last attempt has failed."""
        if self.state is ChannelState.FAILED and self._connection is not None:
            self.opened(self._connection)

    def lost(self) -> None:
        """The connection is gone; the next one signs in again."""
        self._connection = None
        if self._end is not None:
            self._end()
            self._end = None
        self._backoff.reset()
        self.watchlist.online.clear()
        super().lost()

    def give_up(self, error: ConnectionFailed) -> None:
        """What is waited for will not come: say so."""
        super().give_up(error)
        self.watchlist.give_up(error)

    def fail(self, error: ConnectionFailed) -> None:
        """The client has given up: streams end with the error, as does all waiting."""
        super().fail(error)
        self.watchlist.fail(error)

    def close(self) -> None:
        """Let go of the handlers."""
        self.move(ChannelState.UNSUBSCRIBED)
        self.give_up(ClientClosed("The client was closed."))
        self._bindings.close()
        self.watchlist.close()

    def receive(self, event: Event) -> None:
        """Take an event that no channel took: it may be for this user."""
        if self.id is not None and event.channel == self.channel:
            self._bindings.deliver(event)

    def notice(self, event: Received) -> bool:
        """Take what the protocol says of the user; whether it was of one."""
        match event:
            case SignedIn(user_id, user_data):
                self._accepted(user_id, user_data)
            case SignInFailed():
                self._refused(event)
            case WatchlistChanged():
                self.watchlist.changed(event)
            case SubscriptionFailed() if self.id is not None and event.channel == self.channel:
                self._host.report(event)
            case _:
                return False
        return True

    async def _sign_in(self, connection: Connection) -> None:
        socket_id = connection.protocol.socket_id
        assert socket_id is not None
        try:
            ask = partial(self._authenticator.authenticate, socket_id)
            answer = await signature(ask, Authentication, "the sign-in")
        except AntiphonError as exc:
            error = exc
        else:
            if connection is self._connection:
                connection.sign_in(answer.auth, answer.user_data)
            return
        if connection is self._connection:
            self._refused(error)

    def _accepted(self, user_id: str, user_data: dict[str, Any]) -> None:
        self.id, self.data = user_id, user_data
        if self._connection is not None:
            self._connection.subscribe(self.channel, None, None)
        log.info("signed in as user %s", user_id)
        self._backoff.reset()
        self.move(ChannelState.SUBSCRIBED)
        self._roll.gone(SIGN_IN)  # it has its answer, and is no channel
        self._surface("pusher:signin_success", user_data)

    def _refused(self, error: AntiphonError) -> None:
        self.move(ChannelState.FAILED, error)
        self._host.report(error)
        self._roll.failed(SIGN_IN)
        self._surface(
            "pusher:signin_error",
            {"type": type(error).__name__, "error": str(error), "status": error.code},
        )
        delay = self._backoff.next_delay(Action.BACK_OFF)
        is_temporary = isinstance(error, SubscriptionFailed) and error.temporary
        # A handler may have tried again by now, or closed the client.
        if is_temporary and delay is not None and self.state is ChannelState.FAILED:
            log.info("signing in again in %.1f s", delay)
            self._end = asyncio.get_running_loop().call_later(delay, self.again).cancel

    def _surface(self, name: str, data: Any) -> None:
        event = Event(name=name, raw=data)
        self._bindings.deliver(event)
        self._host.tell(event)

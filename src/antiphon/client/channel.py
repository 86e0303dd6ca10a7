"""Channels as a program holds them. They outlive connections: each new one subscribes them anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from antiphon.errors import ClientClosed, ConnectionFailed, InvalidName, SubscriptionFailed
from antiphon.protocol.channels import (
    Access,
    access_of,
    check_event_name,
    takes_client_events,
)
from antiphon.protocol.frames import Event

from .bindings import Binding, Bindings, Handler, Host
from .flow import DEFAULT_LIMIT, Policy, Stream

if TYPE_CHECKING:
    from antiphon.protocol.presence import Member

__all__ = ["Channel", "ChannelState", "Members", "PresenceChannel", "make_channel"]

T = TypeVar("T")
H = TypeVar("H", bound=Handler)


class ChannelState(StrEnum):
    """Where a subscription stands."""

    PENDING = "pending"
    """Asked for; there is no answer yet, or no connection."""
    SUBSCRIBED = "subscribed"
    """Events arrive."""
    FAILED = "failed"
    """Refused; it is tried again with the next connection."""
    UNSUBSCRIBED = "unsubscribed"
    """Left by the program."""


class ChannelHost(Host, Protocol):
    """What a channel needs of its client."""

    ended: ConnectionFailed | None
    """Why no connection will come; None while one is there or may come."""

    def leave(self, channel: Channel) -> None:
        """Give back one hold on a channel."""

    def trigger(self, channel: Channel, event: str, data: Any) -> None:
        """Send a client event."""


class Channel:
    """A public, private or cache channel.

    Made by `Client.subscribe`. Handlers get the `Event`, or, when bound with a type, the event's
    data decoded into it.
    """

    def __init__(self, name: str, host: ChannelHost) -> None:
        self.name = name
        self.state = ChannelState.PENDING
        self.error: SubscriptionFailed | None = None
        self.subscription_count: int | None = None
        self.holds = 1
        self._host = host
        self._bindings = Bindings(host)
        # Who waits for anything here, and of those who for the server's answer to the subscribe.
        self._waiters: set[asyncio.Future[Any]] = set()
        self._answers: set[asyncio.Future[None]] = set()
        # Hot path: no attribute between the client and the handlers.
        self.deliver = self._bindings.deliver

    def __repr__(self) -> str:
        """Name and state."""
        return f"<{type(self).__name__} {self.name} {self.state}>"

    # Receiving

    @overload
    def bind(
        self,
        event: str,
        handler: Handler,
        *,
        type: type[Any] | None = None,
        limit: int = ...,
        policy: Policy = ...,
    ) -> Binding: ...

    @overload
    def bind(
        self,
        event: str,
        *,
        type: type[Any] | None = None,
        limit: int = ...,
        policy: Policy = ...,
    ) -> Callable[[H], H]: ...

    def bind(
        self,
        event: str,
        handler: Handler | None = None,
        *,
        type: type[Any] | None = None,
        limit: int = DEFAULT_LIMIT,
        policy: Policy = "pause",
    ) -> Binding | Callable[[H], H]:
        """Call a handler for each event of a name; without a handler, decorate one.

        A synchronous handler runs as the event arrives. An asynchronous one gets its events one
        after the other, in order; up to `limit` may wait for it, then `policy` decides. A handler
        that raises is reported as `HandlerFailed` and goes on being called.

        Args:
            event: The event's name, as it is on the wire.
            handler: Called with the `Event`, or with a value of `type`.
            type: What to decode the data into; data that does not fit is reported as
                `PayloadInvalid`.
            limit: Events that may wait for an asynchronous handler.
            policy: `pause` stops reading the socket, `drop_oldest` drops.
        """
        bound: Binding | Callable[[H], H]
        bound = bind(self._bindings, event, handler, type, limit, policy)
        return bound

    @overload
    def bind_all(self, handler: Handler, *, limit: int = ..., policy: Policy = ...) -> Binding: ...

    @overload
    def bind_all(self, *, limit: int = ..., policy: Policy = ...) -> Callable[[H], H]: ...

    def bind_all(
        self,
        handler: Handler | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        policy: Policy = "pause",
    ) -> Binding | Callable[[H], H]:
        """Call a handler with every `Event` of this channel; without a handler, decorate one."""
        bound: Binding | Callable[[H], H]
        bound = bind(self._bindings, None, handler, None, limit, policy)
        return bound

    def unbind(self, event: str | None = None, handler: Handler | None = None) -> None:
        """Take off the handlers of an event, a handler from all events, or all."""
        self._bindings.unbind(event, handler)

    @overload
    def stream(
        self, event: str, type: type[T], *, limit: int = ..., policy: Policy = ...
    ) -> Stream[T]: ...

    @overload
    def stream(
        self, event: str | None = None, *, limit: int = ..., policy: Policy = ...
    ) -> Stream[Event]: ...

    def stream(
        self,
        event: str | None = None,
        type: type[Any] | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        policy: Policy = "pause",
    ) -> Stream[Any]:
        """An asynchronous iterator over events from now on.

        Args:
            event: Only events of this name.
            type: Decode their data into this.
            limit: Events that may wait.
            policy: `pause` stops reading the socket when that many wait, `drop_oldest` drops.
        """
        return self._bindings.stream(event, type, limit=limit, policy=policy)

    def __aiter__(self) -> Stream[Event]:
        return self.stream()

    @overload
    async def wait_for(self, event: str, type: type[T], *, timeout: float | None = None) -> T: ...

    @overload
    async def wait_for(self, event: str, *, timeout: float | None = None) -> Event: ...

    async def wait_for(
        self, event: str, type: type[Any] | None = None, *, timeout: float | None = None
    ) -> Any:
        """The next event of a name.

        Args:
            event: The event's name.
            type: Decode its data into this.
            timeout: Seconds to wait; None for no limit.

        Raises:
            TimeoutError: It did not come in time.
            ConnectionFailed: The client has given up, or was closed.
            ClientClosed: The channel was left.
        """
        if self.state is ChannelState.UNSUBSCRIBED:
            raise ClientClosed(f"{self.name} is {self.state}.")
        future = asyncio.get_running_loop().create_future()
        binding = self._bindings.once(event, type, future)
        try:
            return await self._answer(future, timeout)
        finally:
            binding.unbind()

    async def _answer(self, future: asyncio.Future[Any], timeout: float | None) -> Any:
        """Wait for what the server sends, unless no connection will come."""
        if self._host.ended is not None:
            raise self._host.ended
        self._waiters.add(future)
        try:
            async with asyncio.timeout(timeout):
                if future in self._answers or self._host.runs_here():
                    # Who waits in a handler must not wait for itself.
                    with self._host.valve.held_open():
                        return await future
                return await future
        finally:
            self._waiters.discard(future)

    # The subscription

    @property
    def is_subscribed(self) -> bool:
        """Whether events arrive."""
        return self.state is ChannelState.SUBSCRIBED

    async def subscribed(self, timeout: float | None = None) -> None:
        """Wait until the channel is joined.

        Args:
            timeout: Seconds to wait; None for no limit.

        Raises:
            SubscriptionFailed: The authorizer or the server refused.
            ConnectionFailed: The client has given up, or was closed.
            ClientClosed: The channel was left.
            TimeoutError: There was no answer in time.
        """
        if self.state is ChannelState.PENDING:
            answer = asyncio.get_running_loop().create_future()
            self._answers.add(answer)
            try:
                await self._answer(answer, timeout)
            finally:
                self._answers.discard(answer)
        if self.state is ChannelState.FAILED and self.error is not None:
            raise self.error
        if self.state is not ChannelState.SUBSCRIBED:
            raise ClientClosed(f"{self.name} is {self.state}.")

    def unsubscribe(self) -> None:
        """Give this hold on the channel back; with the last one the server is told.

        Handlers stay bound only while someone holds the channel.
        """
        if self.state is not ChannelState.UNSUBSCRIBED:
            self._host.leave(self)

    def trigger(self, event: str, data: Any = None) -> None:
        """Send a client event to the channel's other members.

        Args:
            event: A name that begins with `client-`.
            data: Any JSON value.

        Raises:
            InvalidName: The name does not begin with `client-`.
            SubscriptionFailed: The channel is not joined, or takes no client events.
        """
        if not event.startswith("client-"):
            raise InvalidName(f"A client event's name begins with 'client-', {event!r} does not.")
        check_event_name(event)
        if not takes_client_events(self.name):
            raise SubscriptionFailed(
                f"{self.name} takes no client events: only private and presence channels do.",
                channel=self.name,
            )
        if not self.is_subscribed:
            raise SubscriptionFailed(
                f"{self.name} is {self.state}: wait for subscribed() before you trigger.",
                channel=self.name,
            )
        self._host.trigger(self, event, data)

    # What the client calls

    def move(self, state: ChannelState, error: SubscriptionFailed | None = None) -> None:
        """Enter a state and let go who waits for it; the only place that writes it."""
        self.state = state
        self.error = error
        if state is ChannelState.PENDING:
            return
        for answer in self._answers:
            if not answer.done():
                answer.set_result(None)

    def joined(self, members: dict[str, Member]) -> None:
        """The server has added this connection."""
        self.move(ChannelState.SUBSCRIBED)

    def lost(self) -> None:
        """The connection is gone; the next one joins again."""
        self.move(ChannelState.PENDING)

    def fail(self, error: ConnectionFailed) -> None:
        """The client has given up: streams end with the error, as does all waiting."""
        self._bindings.fail(error)
        self.give_up(error)

    def give_up(self, error: ConnectionFailed) -> None:
        """What is waited for will not come: say so."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def left(self) -> None:
        """The program has given its last hold back."""
        self.move(ChannelState.UNSUBSCRIBED)
        self.give_up(ClientClosed(f"{self.name} was left."))
        self._bindings.close()


class Members:
    """The users in a presence channel, as far as the server has told."""

    def __init__(self) -> None:
        self._by_id: dict[str, Member] = {}
        self.my_id: str | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._by_id)

    @property
    def me(self) -> Member | None:
        """This client's own user."""
        return None if self.my_id is None else self._by_id.get(self.my_id)

    def get(self, user_id: str) -> Member | None:
        """One user, or None."""
        return self._by_id.get(user_id)

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._by_id

    def reset(self, members: dict[str, Member]) -> None:
        """Take what the server says on joining."""
        self._by_id = dict(members)

    def add(self, member: Member) -> None:
        """A user has come."""
        self._by_id[member.id] = member

    def remove(self, user_id: str) -> Member | None:
        """A user has gone; the user, if known."""
        return self._by_id.pop(user_id, None)


class PresenceChannel(Channel):
    """A channel that knows its users."""

    def __init__(self, name: str, host: ChannelHost) -> None:
        super().__init__(name, host)
        self.members = Members()

    def joined(self, members: dict[str, Member]) -> None:
        """The server has added this connection and says who is there."""
        self.members.reset(members)
        super().joined(members)

    def lost(self) -> None:
        """The connection is gone, and with it what was known of the others."""
        self.members.reset({})
        super().lost()


def make_channel(name: str, host: ChannelHost) -> Channel:
    """A channel of the kind its name says."""
    kind = PresenceChannel if access_of(name) is Access.PRESENCE else Channel
    return kind(name, host)


def bind(
    bindings: Bindings,
    event: str | None,
    handler: Handler | None,
    type_: type[Any] | None,
    limit: int,
    policy: Policy,
) -> Any:
    """Bind a handler, or give the decorator that does."""
    if handler is not None:
        return bindings.add(event, handler, type_, limit=limit, policy=policy)

    def decorate(handler: H) -> H:
        bindings.add(event, handler, type_, limit=limit, policy=policy)
        return handler

    return decorate

"""What events can be bound on: the client, a channel, the signed-in user, the watchlist."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from antiphon.errors import ClientClosed, ConnectionFailed
from antiphon.protocol.frames import Event

from .bindings import Binding, Bindings, Handler
from .flow import DEFAULT_LIMIT, Policy, Stream
from .host import Host

__all__ = ["EventSource"]

ANSWER_PATIENCE: Final = 30.0
"""Seconds for which who waits for an answer keeps the socket from being left unread."""

T = TypeVar("T")
R = TypeVar("R")
H = TypeVar("H", bound=Handler)


class EventSource:
    """Something that events come from.

    Handlers get the `Event`, or, when bound with a type, the event's data decoded into it: a
    `msgspec.Struct`, a dataclass, or any other type that msgspec knows.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._bindings = Bindings(host)
        self._waiters: set[asyncio.Future[Any]] = set()

    @overload
    def bind(
        self,
        event: str,
        handler: Callable[[T], object],
        *,
        type: type[T],
        limit: int = ...,
        policy: Policy = ...,
    ) -> Binding: ...

    @overload
    def bind(
        self,
        event: str,
        handler: Callable[[Event], object],
        *,
        limit: int = ...,
        policy: Policy = ...,
    ) -> Binding: ...

    @overload
    def bind(
        self, event: str, *, type: type[T], limit: int = ..., policy: Policy = ...
    ) -> Callable[[Callable[[T], R]], Callable[[T], R]]: ...

    @overload
    def bind(
        self, event: str, *, limit: int = ..., policy: Policy = ...
    ) -> Callable[[Callable[[Event], R]], Callable[[Event], R]]: ...

    def bind(
        self,
        event: str,
        handler: Callable[[Any], object] | None = None,
        *,
        type: type[Any] | None = None,
        limit: int = DEFAULT_LIMIT,
        policy: Policy = "pause",
    ) -> Any:
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
            policy: `pause` stops reading the socket, `drop_oldest` drops, `error` drops what
                comes and reports `QueueOverflow`.
        """
        return self._bind(event, handler, type, limit, policy)

    @overload
    def bind_all(
        self, handler: Callable[[Event], object], *, limit: int = ..., policy: Policy = ...
    ) -> Binding: ...

    @overload
    def bind_all(
        self, *, limit: int = ..., policy: Policy = ...
    ) -> Callable[[Callable[[Event], R]], Callable[[Event], R]]: ...

    def bind_all(
        self,
        handler: Callable[[Event], object] | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        policy: Policy = "pause",
    ) -> Any:
        """Call a handler with every `Event` from here; without a handler, decorate one."""
        return self._bind(None, handler, None, limit, policy)

    def _bind(
        self,
        event: str | None,
        handler: Handler | None,
        type_: type[Any] | None,
        limit: int,
        policy: Policy,
    ) -> Any:
        if handler is not None:
            return self._bound().add(event, handler, type_, limit=limit, policy=policy)

        def decorate(handler: H) -> H:
            self._bound().add(event, handler, type_, limit=limit, policy=policy)
            return handler

        return decorate

    def unbind(
        self, event: str | None = None, handler: Callable[[Any], object] | None = None
    ) -> None:
        """Take off the handlers of an event, a handler from all events, or all.

        Streams and waits are not handlers: they go on.
        """
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
            type: Decode their data into this; data that does not fit is reported as
                `PayloadInvalid` and left out.
            limit: Events that may wait.
            policy: `pause` stops reading the socket when that many wait, `drop_oldest` drops,
                `error` drops what comes and raises `QueueOverflow` in its place.
        """
        return self._bound().stream(event, type, limit=limit, policy=policy)

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
            ClientClosed: The channel was left, or the client closed.
        """
        if self._bindings.is_closed:
            raise ClientClosed(f"{self!r} was left, or its client closed.")
        future = asyncio.get_running_loop().create_future()
        binding = self._bound().once(event, type, future)
        try:
            return await self._wait(future, timeout)
        finally:
            binding.unbind()

    async def _wait(
        self, future: asyncio.Future[Any], timeout: float | None, *, asked: bool = False
    ) -> Any:
        """Wait for what the server sends, unless no connection will come.

        Args:
            future: Gets it.
            timeout: Seconds to wait; None for no limit.
            asked: Whether it answers something that the server was asked: it will not be long.
        """
        if self._host.ended is not None:
            raise self._host.ended.again()
        self._waiters.add(future)
        try:
            async with asyncio.timeout(timeout) as time:
                valve = self._host.valve
                # Who waits in a handler, or in its own loop over a stream, must not wait for
                # itself.
                if not asked and not self._host.runs_here():
                    with valve.held_open_for_reader():
                        return await future
                with valve.held_open() as release:
                    # An answer that never comes must not keep the reading going for ever.
                    loop = asyncio.get_running_loop()
                    patience = loop.call_later(ANSWER_PATIENCE, release) if asked else None
                    try:
                        return await future
                    finally:
                        if patience is not None:
                            patience.cancel()
        except TimeoutError:
            if not time.expired():
                raise  # it is what was waited for that ran out of time
            raise TimeoutError(f"Nothing came in {timeout:g} s for {self!r}.") from None
        finally:
            self._waiters.discard(future)

    def _bound(self) -> Bindings:
        """The handlers, now that there will be one."""
        return self._bindings

    # What the client calls

    def give_up(self, error: ConnectionFailed) -> None:
        """What is waited for will not come: say so."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error.again())

    def fail(self, error: ConnectionFailed) -> None:
        """The client has given up: streams end with the error, as does all waiting."""
        self._bindings.fail(error)
        self.give_up(error)

"""Handlers by event name, and how an event reaches them.

This is the hot path: a synchronous handler costs one look-up, one decode straight into its type
and one call. Decoders are made when a handler is bound.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import msgspec

from antiphon.errors import (
    ClientClosed,
    ConnectionFailed,
    HandlerFailed,
    PayloadInvalid,
    QueueOverflow,
)
from antiphon.protocol.frames import Event, decode_data_as

from .flow import Inbox, Policy, Stream
from .host import Host

__all__ = ["Binding", "Bindings", "Handler"]

T = TypeVar("T")

Handler = Callable[[Any], object]
AsyncHandler = Callable[[Any], Awaitable[None]]
Decode = Callable[[Any], Any]
Sink = tuple[Decode | None, Callable[[Any], object]]
"""What decodes an event's data, and what is called with it; without the one, with the event."""

_UNFIT: Final = (msgspec.MsgspecError, TypeError, UnicodeError, RecursionError)


class Binding:
    """A handler that is bound; `unbind()` takes it off."""

    __slots__ = ("_bindings", "_stop", "event", "fail", "handler", "sink", "was_bound")

    def __init__(
        self,
        bindings: Bindings,
        event: str | None,
        handler: object,
        sink: Sink,
        stop: Callable[[], None],
    ) -> None:
        self._bindings = bindings
        self._stop = stop
        self.event = event
        self.handler = handler
        self.sink = sink
        self.fail: Callable[[Exception], None] | None = None
        # Whether `unbind` by name or handler means it: not what a stream or a wait has put on.
        self.was_bound = handler is not None

    def unbind(self) -> None:
        """Deliver nothing more to this handler; a call that is under way is finished."""
        self._bindings.remove(self)
        self._stop()
        self.sink = (None, _itself)  # the old one may hold this: no cycle is left behind


class Bindings:
    """The handlers of one channel, or of the client.

    Args:
        host: What the client's parts share.
    """

    __slots__ = ("_bound", "_closed", "_host", "_sinks", "_sinks_for_all", "_unfinished")

    def __init__(self, host: Host) -> None:
        self._host = host
        self._closed = False
        self._unfinished: Inbox[tuple[Event, Awaitable[object]]] | None = None
        self._bound: list[Binding] = []
        # Made from `_bound` whenever it changes. Tuples, so that a handler may bind and unbind
        # while it is called.
        self._sinks: dict[str, tuple[Sink, ...]] = {}
        self._sinks_for_all: tuple[Sink, ...] = ()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be bound any more."""
        return self._closed

    # Delivering

    def deliver(self, event: Event) -> None:
        """Give an event to its handlers, in the order in which they were bound."""
        for decode, call in self._sinks.get(event.name, self._sinks_for_all):
            try:
                if decode is None:
                    result = call(event)
                else:
                    try:
                        # The usual case, JSON in a string, without a detour.
                        value = decode(event.raw)
                    except _UNFIT:
                        value = _decode_otherwise(event, decode)
                    result = call(value)
            except (Exception, asyncio.CancelledError) as exc:
                self._report(event, exc)
            else:
                if result is not None:
                    self._finish(event, result)

    def _finish(self, event: Event, result: object) -> None:
        """A plain function has given something to await: that is done in order, and bounded."""
        if not inspect.isawaitable(result):
            return
        if self._closed:  # by a handler before this one
            if inspect.iscoroutine(result):
                result.close()
            return
        if self._unfinished is None:
            self._unfinished = Inbox(self._host.valve)
            self._host.spawn(self._finish_all(self._unfinished), "antiphon unfinished handlers")
        self._unfinished.put((event, result))

    async def _finish_all(self, unfinished: Inbox[tuple[Event, Awaitable[object]]]) -> None:
        try:
            while True:
                event, work = await unfinished.get()
                await self._guard(event, _itself, work)
        except StopAsyncIteration:
            pass

    async def _guard(
        self, event: Event, handler: Callable[[Any], Awaitable[object]], value: Any
    ) -> None:
        """Call and await a handler, and report how it failed."""
        try:
            await handler(value)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the client ends; else something the handler awaited was cancelled
            self._report(event, exc)
        except Exception as exc:
            self._report(event, exc)

    def _report(self, event: Event, exc: BaseException) -> None:
        where = f"{event.name} on {event.channel or 'the connection'}"
        if isinstance(exc, PayloadInvalid):
            self._host.report(exc)
            return
        error = HandlerFailed(
            f"A handler of {where} raised {type(exc).__name__}: {exc}",
            event=event.name,
            channel=event.channel,
        )
        error.__cause__ = exc
        self._host.report(error)

    # Binding

    def add(
        self,
        event: str | None,
        handler: Handler,
        type_: type[Any] | None,
        *,
        limit: int,
        policy: Policy,
    ) -> Binding:
        """Bind a handler; None for the event binds it to all."""
        if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object whose call is a coroutine
        ):
            return self._add_asynchronous(
                event, cast("AsyncHandler", handler), type_, limit, policy
            )
        return self._insert(Binding(self, event, handler, (_decoder(type_), handler), _nothing))

    def _add_asynchronous(
        self,
        event: str | None,
        handler: AsyncHandler,
        type_: type[Any] | None,
        limit: int,
        policy: Policy,
    ) -> Binding:
        inbox: Inbox[tuple[Event, Any]] = Inbox(self._host.valve, limit=limit, policy=policy)
        decode = _decoder(type_)

        def put(event: Event) -> None:
            inbox.put((event, _value(event, decode)))

        def stop() -> None:
            inbox.close(discard=True)  # a call under way is finished

        def first(event: Event) -> None:
            # The task is made with the first event: one may bind before there is a loop.
            name = f"antiphon handler of {binding.event or 'all events'}"
            self._host.spawn(self._consume(inbox, handler), name)
            binding.sink = (None, put)
            self._route(binding.event)
            put(event)

        binding = Binding(self, event, handler, (None, first), stop)
        return self._insert(binding)

    def stream(
        self, event: str | None, type_: type[Any] | None, *, limit: int, policy: Policy
    ) -> Stream[Any]:
        """An iterator over an event's values; None for the event gives all events."""
        inbox: Inbox[Any] = Inbox(self._host.valve, limit=limit, policy=policy)
        sink = (_decoder(type_), inbox.put)
        binding = self._insert(Binding(self, event, None, sink, inbox.close))
        binding.fail = inbox.fail
        ended = self._host.ended
        if ended is not None and not isinstance(ended, ClientClosed):
            inbox.fail(ended.again())
        return Stream(inbox, binding.unbind)

    def once(self, event: str, type_: type[Any] | None, future: asyncio.Future[Any]) -> Binding:
        """Give the next value of an event to a future."""

        def put(value: Any) -> None:
            if not future.done():
                future.set_result(value)

        return self._insert(Binding(self, event, None, (_decoder(type_), put), _nothing))

    def fail(self, error: ConnectionFailed) -> None:
        """Nothing more can come: end the streams with the error."""
        for binding in tuple(self._bound):
            if binding.fail is not None:
                binding.fail(error.again())
                binding.unbind()

    def close(self) -> None:
        """Take all handlers off, and accept none any more."""
        self._closed = True
        for binding in tuple(self._bound):
            binding.unbind()
        if self._unfinished is not None:
            for _, work in self._unfinished.drain():
                if inspect.iscoroutine(work):
                    work.close()
            self._unfinished.close()

    def remove(self, binding: Binding) -> None:
        """Take a binding off; one that is off already is ignored."""
        if binding in self._bound:
            self._bound.remove(binding)
            self._route(binding.event)

    def unbind(self, event: str | None, handler: Handler | None) -> None:
        """Take off the handlers that match; None matches all."""
        for binding in tuple(self._bound):
            if (
                binding.was_bound
                and event in (None, binding.event)
                and handler in (None, binding.handler)
            ):
                binding.unbind()

    def _insert(self, binding: Binding) -> Binding:
        if self._closed:
            binding.unbind()
            return binding
        self._bound.append(binding)
        self._route(binding.event)
        return binding

    def _route(self, event: str | None) -> None:
        """Work out who gets an event, so that delivering need not; None for all of them."""
        names = set(self._sinks) if event is None else {event}
        self._sinks_for_all = tuple(b.sink for b in self._bound if b.event is None)
        for name in names:
            bound = [b for b in self._bound if b.event in (None, name)]
            if any(b.event == name for b in bound):
                self._sinks[name] = tuple(b.sink for b in bound)
            else:
                self._sinks.pop(name, None)

    async def _consume(self, inbox: Inbox[tuple[Event, Any]], handler: AsyncHandler) -> None:
        """Run an asynchronous handler, one event after the other."""
        while True:
            try:
                event, value = await inbox.get()
            except StopAsyncIteration:
                return
            except QueueOverflow as exc:
                self._host.report(exc)
            else:
                await self._guard(event, handler, value)


def _decoder(type_: type[Any] | None) -> Decode | None:
    """What decodes data into a type, straight from its text; None where none is asked for."""
    return None if type_ is None else msgspec.json.Decoder(type_).decode


def _value(event: Event, decode: Decode | None) -> Any:
    """What a handler is called with.

    Raises:
        PayloadInvalid: The data does not fit the handler's type.
    """
    if decode is None:
        return event
    try:
        return decode(event.raw)
    except _UNFIT:
        return _decode_otherwise(event, decode)


def _decode_otherwise(event: Event, decode: Decode) -> Any:
    """Decode data that is no JSON in a string, or does not fit.

    Raises:
        PayloadInvalid: It does not fit the type.
    """
    decoder: msgspec.json.Decoder[Any] = decode.__self__  # type: ignore[attr-defined]  # its method
    try:
        return decode_data_as(event.raw, decoder)
    except _UNFIT as exc:
        # Its frames would keep the data for as long as somebody keeps the error.
        exc.__traceback__ = None
        raise PayloadInvalid(
            f"The data of {event.name} on {event.channel or 'the connection'} does not fit"
            f" {getattr(decoder.type, '__name__', decoder.type)}: {exc}",
            event=event.name,
            channel=event.channel,
        ) from exc


def _itself(value: Any) -> Any:
    return value


def _nothing() -> None:
    pass

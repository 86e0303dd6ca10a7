"""Who gets an event, in what form and in what order."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest

from antiphon.client.bindings import Binding, Bindings, Handler
from antiphon.client.flow import DEFAULT_LIMIT, Policy, Stream
from antiphon.errors import HandlerFailed, PayloadInvalid, SubscriptionFailed
from antiphon.protocol.frames import Event, decode_event

from .linked import FakeHost, soon


class Message(msgspec.Struct):
    id: int
    text: str = ""


@dataclass
class Typing:
    user: str


def event(raw: Any = None, name: str = "e", channel: str | None = "news") -> Event:
    return Event(name=name, channel=channel, raw=raw)


class Bound(Bindings):
    """Bindings whose calls are short."""

    def __init__(self, host: FakeHost) -> None:
        super().__init__(host)
        self.host = host

    def on(
        self,
        name: str | None,
        handler: Handler,
        type_: Any = None,
        *,
        limit: int = DEFAULT_LIMIT,
        policy: Policy = "pause",
    ) -> Binding:
        return self.add(name, handler, type_, limit=limit, policy=policy)

    def read(
        self,
        name: str | None = "e",
        type_: Any = None,
        *,
        limit: int = DEFAULT_LIMIT,
        policy: Policy = "pause",
    ) -> Stream[Any]:
        return self.stream(name, type_, limit=limit, policy=policy)

    def give(self, *raws: Any, name: str = "e") -> None:
        for raw in raws:
            self.deliver(event(raw, name))


@pytest.fixture
async def bound() -> AsyncIterator[Bound]:
    host = FakeHost()
    yield Bound(host)
    await host.close()


# Who gets an event


async def test_an_event_goes_to_the_handlers_of_its_name(bound: Bound) -> None:
    got: list[Event] = []
    other: list[Event] = []
    bound.on("e", got.append)
    bound.on("f", other.append)
    bound.give("1")
    assert [e.data for e in got] == [1]
    assert other == []


async def test_handlers_run_in_the_order_in_which_they_were_bound(bound: Bound) -> None:
    order: list[int] = []
    bound.on("e", lambda _: order.append(1))
    bound.on(None, lambda _: order.append(2))
    bound.on("e", lambda _: order.append(3))
    bound.give("1")
    assert order == [1, 2, 3]


async def test_a_handler_for_all_events_also_gets_those_nobody_else_asked_for(
    bound: Bound,
) -> None:
    names: list[str] = []
    bound.on(None, lambda e: names.append(e.name))
    bound.on("e", lambda _: None)
    bound.give("1")
    bound.give("1", name="unheard of")
    assert names == ["e", "unheard of"]


async def test_a_handler_bound_twice_is_called_twice(bound: Bound) -> None:
    got: list[Event] = []
    bound.on("e", got.append)
    bound.on("e", got.append)
    bound.give("1")
    assert len(got) == 2


async def test_an_event_without_handlers_is_nobodys_business(bound: Bound) -> None:
    bound.give("1")
    assert bound.host.errors == []


# In what form


async def test_without_a_type_a_handler_gets_the_event_itself(bound: Bound) -> None:
    got: list[Event] = []
    bound.on("e", got.append)
    sent = event('{"id":1}')
    bound.deliver(sent)
    assert got[0] is sent


@pytest.mark.parametrize(
    ("type_", "data", "value"),
    [
        (Message, '"{\\"id\\":1,\\"text\\":\\"hi\\",\\"more\\":2}"', Message(1, "hi")),
        (Message, '{"id":1}', Message(1)),
        (Typing, '"{\\"user\\":\\"ann\\"}"', Typing("ann")),
        (Typing, '{"user":"ann"}', Typing("ann")),
        (dict, '"{\\"a\\":[1]}"', {"a": [1]}),
        (list[int], '"[1,2]"', [1, 2]),
        (list[int], "[1,2]", [1, 2]),
        (int, '"5"', 5),
        (int, "5", 5),
        (str, '"plain words"', "plain words"),
        (str, '"\\"in quotes\\""', "in quotes"),
        (bool, "true", True),
        (Message | None, "null", None),
        (Message | None, '"null"', None),
    ],
    ids=str,
)
async def test_with_a_type_a_handler_gets_the_data_decoded_into_it(
    bound: Bound, type_: Any, data: str, value: Any
) -> None:
    got: list[Any] = []
    bound.on("e", got.append, type_)
    bound.deliver(decode_event(f'{{"event":"e","channel":"news","data":{data}}}'.encode()))
    assert bound.host.errors == []
    assert got == [value]
    assert type(got[0]) is type(value)


@pytest.mark.parametrize(
    "raw",
    ['{"text":"no id"}', '{"id":"1"}', "[]", "null", "plain words", "{broken", "", None, 5, {}, []],
)
async def test_data_that_does_not_fit_is_reported_and_calls_nobody(bound: Bound, raw: Any) -> None:
    got: list[Any] = []
    raws: list[Any] = []
    bound.on("e", got.append, Message)
    bound.on("e", lambda e: raws.append(e.raw))
    bound.give(raw, '{"id":2}')
    assert got == [Message(2)], "the next one fits"
    assert raws == [raw, '{"id":2}'], "other handlers do not mind"
    (error,) = bound.host.errors
    assert isinstance(error, PayloadInvalid)
    assert (error.event, error.channel) == ("e", "news")
    assert "e on news" in str(error)
    assert "Message" in str(error)


async def test_what_does_not_fit_is_told_with_its_place_in_the_data(bound: Bound) -> None:
    bound.on("e", lambda _: None, Message)
    bound.give('{"id":1,"text":[]}')
    assert "$.text" in str(bound.host.errors[0])


async def test_an_event_of_no_channel_is_reported_as_the_connections(bound: Bound) -> None:
    bound.on("e", lambda _: None, Message)
    bound.deliver(event("5", channel=None))
    assert "the connection" in str(bound.host.errors[0])


# Handlers that raise


async def test_a_handler_that_raises_is_reported_and_the_others_go_on(bound: Bound) -> None:
    got: list[Any] = []

    def bad(_: Event) -> None:
        raise ZeroDivisionError("by nothing")

    bound.on("e", bad)
    bound.on("e", got.append)
    bound.give("1", "2")
    assert len(got) == 2
    assert len(bound.host.errors) == 2, "it goes on being called"
    error = bound.host.errors[0]
    assert isinstance(error, HandlerFailed)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert (error.event, error.channel) == ("e", "news")
    assert "e on news" in str(error)
    assert "ZeroDivisionError: by nothing" in str(error)


async def test_an_error_of_ours_out_of_a_handler_is_the_handlers_all_the_same(
    bound: Bound,
) -> None:
    # It may be another client's: this one is not refused, closed or whatever it says.
    error = SubscriptionFailed("not joined", channel="news")

    def bad(_: Event) -> None:
        raise error

    bound.on("e", bad)
    bound.give("1")
    (failed,) = bound.host.errors
    assert isinstance(failed, HandlerFailed)
    assert failed.__cause__ is error


async def test_an_asynchronous_handler_that_raises_is_reported_and_goes_on(bound: Bound) -> None:
    got: list[Any] = []

    async def bad(e: Event) -> None:
        got.append(e.data)
        raise KeyError("x")

    bound.on("e", bad)
    bound.give("1", "2")
    await bound.host.idle()
    assert got == [1, 2]
    assert [type(error.__cause__) for error in bound.host.errors] == [KeyError, KeyError]


async def test_a_synchronous_handler_that_meets_a_cancelled_future_harms_nobody(
    bound: Bound,
) -> None:
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    got: list[Any] = []
    bound.on("e", lambda _: cancelled.result())
    bound.on("e", got.append)
    bound.give("1", "2")
    assert len(got) == 2
    assert len(bound.host.errors) == 2


async def test_an_asynchronous_handler_that_awaits_something_cancelled_goes_on(
    bound: Bound,
) -> None:
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    got: list[Any] = []

    async def bad(e: Event) -> None:
        got.append(e.data)
        await cancelled

    bound.on("e", bad, limit=2)
    bound.give("1", "2", "3")
    await bound.host.idle()
    assert got == [1, 2, 3]
    assert len(bound.host.errors) == 3
    assert bound.host.reads()


# Asynchronous handlers


async def test_an_asynchronous_handler_gets_its_events_one_after_the_other(bound: Bound) -> None:
    steps: list[str] = []

    async def slow(e: Event) -> None:
        steps.append(f"begin {e.data}")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        steps.append(f"end {e.data}")

    bound.on("e", slow)
    bound.give("1", "2")
    await bound.host.idle()
    assert steps == ["begin 1", "end 1", "begin 2", "end 2"]


async def test_a_slow_handler_does_not_keep_the_others_waiting(bound: Bound) -> None:
    never = asyncio.Event()
    got: list[Any] = []

    async def stuck(_: Event) -> None:
        await never.wait()

    async def quick(e: Event) -> None:
        got.append(e.data)

    bound.on("e", stuck)
    bound.on("e", quick)
    bound.give("1", "2", "3")
    await bound.host.idle()
    assert got == [1, 2, 3]


async def test_an_asynchronous_handler_gets_its_type(bound: Bound) -> None:
    got: list[Any] = []

    async def handler(message: Message) -> None:
        got.append(message)

    bound.on("e", handler, Message)
    bound.give('{"id":1}', "no", '{"id":2}')
    await bound.host.idle()
    assert got == [Message(1), Message(2)]
    assert [type(error) for error in bound.host.errors] == [PayloadInvalid]


class AsyncCallable:
    def __init__(self) -> None:
        self.got: list[Any] = []

    async def __call__(self, e: Event) -> None:
        self.got.append(e.data)

    async def method(self, e: Event, *more: Any) -> None:
        self.got.append(e.data)


async def test_every_kind_of_asynchronous_handler_is_known_as_one(bound: Bound) -> None:
    callable_, partial, method = AsyncCallable(), AsyncCallable(), AsyncCallable()
    mock = AsyncMock()
    bound.on("e", callable_)
    bound.on("e", functools.partial(partial.method))
    bound.on("e", method.method)
    bound.on("e", mock)
    bound.give("1")
    await bound.host.idle()
    assert [callable_.got, partial.got, method.got] == [[1], [1], [1]]
    mock.assert_awaited_once()


async def test_a_plain_function_that_gives_an_awaitable_is_awaited(bound: Bound) -> None:
    target = AsyncCallable()
    bound.on("e", lambda e: target.method(e))
    bound.give("1")
    await bound.host.idle()
    gc.collect()  # a coroutine that nobody awaited says so now
    assert target.got == [1]


async def test_what_a_plain_function_gives_to_await_is_awaited_in_order(bound: Bound) -> None:
    steps: list[str] = []

    async def slow(n: int) -> None:
        steps.append(f"begin {n}")
        await asyncio.sleep(0)
        steps.append(f"end {n}")

    bound.on("e", lambda e: slow(e.data))
    bound.give("1", "2")
    await bound.host.idle()
    assert steps == ["begin 1", "end 1", "begin 2", "end 2"]


async def test_an_asynchronous_handler_that_cannot_be_called_is_reported_and_goes_on(
    bound: Bound,
) -> None:
    async def takes_nothing() -> None:
        pass

    bound.on("e", takes_nothing, limit=1)  # type: ignore[arg-type]
    bound.give("1", "2")
    await bound.host.idle()
    assert [type(error) for error in bound.host.errors] == [HandlerFailed, HandlerFailed]
    assert bound.host.reads()


async def test_a_handler_that_cannot_keep_up_shuts_the_valve_at_its_limit(bound: Bound) -> None:
    free = asyncio.Event()
    got: list[int] = []

    async def slow(e: Event) -> None:
        await free.wait()
        got.append(e.data)

    bound.on("e", slow, limit=3)
    bound.give("1", "2")
    assert bound.host.reads()
    bound.give("3", "4")
    assert not bound.host.reads()
    free.set()
    await bound.host.idle()
    assert bound.host.reads()
    assert got == [1, 2, 3, 4]


async def test_a_handler_may_rather_lose_the_oldest_events(bound: Bound) -> None:
    got: list[int] = []

    async def handler(e: Event) -> None:
        got.append(e.data)

    bound.on("e", handler, limit=2, policy="drop_oldest")
    bound.give("1", "2", "3", "4")
    assert bound.host.reads()
    await bound.host.idle()
    assert got == [3, 4]


# Unbinding


async def test_an_unbound_handler_gets_nothing_more(bound: Bound) -> None:
    got: list[Any] = []
    binding = bound.on("e", got.append)
    bound.give("1")
    binding.unbind()
    binding.unbind()
    bound.give("2")
    assert len(got) == 1


async def test_handlers_are_taken_off_by_event_by_handler_or_all(bound: Bound) -> None:
    calls: list[str] = []

    def one(_: Event) -> None:
        calls.append("one")

    def two(_: Event) -> None:
        calls.append("two")

    def bind() -> None:
        bound.unbind(None, None)
        for name in ("e", "f", None):
            bound.on(name, one)
        bound.on("e", two)

    for unbind, left in (
        (("e", None), ["one"]),
        (("e", one), ["one", "two"]),
        ((None, one), ["two"]),
        (("f", one), ["one", "one", "two"]),
        (("nothing", None), ["one", "one", "two"]),
        ((None, None), []),
    ):
        bind()
        calls.clear()
        bound.unbind(*unbind)
        bound.give("1")
        assert calls == left, unbind


async def test_a_bound_method_is_taken_off_by_naming_it_again(bound: Bound) -> None:
    class Screen:
        def __init__(self) -> None:
            self.got: list[Event] = []

        def show(self, e: Event) -> None:
            self.got.append(e)

    screen = Screen()
    bound.on("e", screen.show)
    bound.unbind("e", screen.show)
    bound.give("1")
    assert screen.got == []


async def test_a_handler_that_unbinds_itself_is_called_once_and_the_next_one_is_not_passed_over(
    bound: Bound,
) -> None:
    calls: list[str] = []

    def once(_: Event) -> None:
        calls.append("once")
        binding.unbind()

    binding = bound.on("e", once)
    bound.on("e", lambda _: calls.append("always"))
    bound.give("1", "2")
    assert calls == ["once", "always", "always"]


async def test_a_handler_bound_by_a_handler_gets_the_next_event(bound: Bound) -> None:
    got: list[Any] = []

    def binder(_: Event) -> None:
        if not got:
            bound.on("e", lambda e: got.append(e.data))

    bound.on("e", binder)
    bound.give("1")
    assert got == []
    bound.give("2")
    assert got == [2]


async def test_an_asynchronous_handler_that_unbinds_itself_gets_nothing_more(bound: Bound) -> None:
    got: list[Any] = []

    async def once(e: Event) -> None:
        got.append(e.data)
        binding.unbind()

    binding = bound.on("e", once)
    bound.give("1", "2", "3")
    await bound.host.idle()
    assert got == [1]
    assert not bound.host.tasks


async def test_an_asynchronous_handler_that_is_unbound_ends_its_call_and_gets_nothing_more(
    bound: Bound,
) -> None:
    free = asyncio.Event()
    got: list[int] = []

    async def slow(e: Event) -> None:
        await free.wait()
        got.append(e.data)

    binding = bound.on("e", slow, limit=1)
    bound.give("1")
    await bound.host.idle()
    bound.give("2", "3")
    assert not bound.host.reads()
    binding.unbind()
    assert bound.host.reads()
    free.set()
    await bound.host.idle()
    assert got == [1], "what it had begun is finished"
    assert not bound.host.tasks


def test_an_asynchronous_handler_can_be_bound_before_there_is_a_loop() -> None:
    bound = Bound(FakeHost())
    got: list[int] = []

    async def handler(e: Event) -> None:
        got.append(e.data)

    bound.on("e", handler)

    async def main() -> None:
        bound.give("1", "2")
        await bound.host.idle()
        await bound.host.close()

    asyncio.run(main())
    assert got == [1, 2]


async def test_an_asynchronous_handler_may_unbind_itself_and_go_on_with_what_it_does(
    bound: Bound,
) -> None:
    done: list[bool] = []

    async def handler(_: Event) -> None:
        binding.unbind()
        await asyncio.sleep(0)
        done.append(True)

    binding = bound.on("e", handler)
    bound.give("1")
    await bound.host.idle()
    assert done == [True]


# Streams


async def test_a_stream_gives_the_events_of_a_name_from_now_on(bound: Bound) -> None:
    bound.give("0")
    stream = bound.read("e")
    bound.give("1")
    bound.give("x", name="f")
    bound.give("2")
    assert [(await soon(stream.__anext__())).data for _ in range(2)] == [1, 2]


async def test_a_stream_of_no_name_gives_all_events(bound: Bound) -> None:
    stream = bound.read(None)
    bound.give("1")
    bound.give("2", name="f")
    assert [(await soon(stream.__anext__())).name for _ in range(2)] == ["e", "f"]


async def test_a_stream_of_a_type_gives_values_and_passes_over_what_does_not_fit(
    bound: Bound,
) -> None:
    stream = bound.read("e", Message)
    bound.give('{"id":1}', "no", '{"id":2}')
    assert [await soon(stream.__anext__()) for _ in range(2)] == [Message(1), Message(2)]
    assert [type(error) for error in bound.host.errors] == [PayloadInvalid]


async def test_a_stream_nobody_holds_any_more_is_taken_off(
    bound: Bound, caplog: pytest.LogCaptureFixture
) -> None:
    stream = bound.read("e", Message, limit=1)
    bound.give('{"id":1}')
    assert not bound.host.reads()
    del stream
    gc.collect()
    assert bound.host.reads()
    bound.give("does not fit")
    assert bound.host.errors == [], "nobody decodes it any more"
    assert not [r for r in caplog.records if r.name.startswith("antiphon")]


async def test_unbinding_everything_takes_off_handlers_and_no_stream_or_wait(bound: Bound) -> None:
    stream = bound.read("e")
    future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    bound.once("e", None, future)
    got: list[Event] = []
    bound.on("e", got.append)
    bound.unbind(None, None)
    bound.give("1")
    assert got == []
    assert (await future).data == 1
    assert (await anext(stream)).data == 1

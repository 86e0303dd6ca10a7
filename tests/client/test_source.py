"""What events can be bound on: the same words on client, channel, user and watchlist.

The types that callers see are checked by mypy, in `assert_type`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_type

import msgspec
import pytest

from antiphon.client import (
    Authentication,
    Binding,
    Channel,
    Client,
    Stream,
    User,
)
from antiphon.client.host import Host
from antiphon.client.source import EventSource
from antiphon.errors import ClientClosed, ConnectionLost, PayloadInvalid
from antiphon.protocol.frames import Event
from tests.server.wire import TIMEOUT, until

from .linked import Signer, join, linked, soon, watch
from .peer import Dial

MINE = "#server-to-user-7"


class Order(msgspec.Struct):
    id: int


@dataclass
class Typing:
    user: str


class Passport(Signer):
    """Signs users in as well."""

    async def authenticate(self, socket_id: str) -> Authentication:
        return Authentication("k:x", '{"id":"7"}')


Kind = Callable[[Client, Dial], Any]


async def _client(client: Client, dial: Dial) -> tuple[EventSource, str]:
    return client, "anything"


async def _channel(client: Client, dial: Dial) -> tuple[EventSource, str]:
    return await join(client, dial, "news"), "news"


async def _user(client: Client, dial: Dial) -> tuple[EventSource, str]:
    user = client.signin()
    sent = await dial.event("pusher:signin")
    dial.send("pusher:signin_success", {"user_data": sent["user_data"]})
    await dial.event("pusher:subscribe")
    await user.signed_in(TIMEOUT)
    return user, MINE


@pytest.mark.parametrize("kind", [_client, _channel, _user])
async def test_events_are_had_in_the_same_ways_from_everything_that_has_some(kind: Kind) -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        source: EventSource
        source, channel = await kind(client, dial)
        got: list[Any] = []
        source.bind("order", lambda e: got.append(("plain", e.data)))
        source.bind("order", lambda o: got.append(("typed", o)), type=Order)

        @source.bind("order", type=dict[str, int])
        def decorated(order: dict[str, int]) -> None:
            got.append(("decorated", order))

        @source.bind("order", type=Order)
        async def asynchronous(order: Order) -> None:
            got.append(("asynchronous", order))

        source.bind_all(lambda e: got.append(("all", e.name)))
        everything, orders = aiter(source), source.stream("order", Order)
        waiting = asyncio.ensure_future(source.wait_for("order", Order))
        await asyncio.sleep(0)
        dial.send("order", {"id": 5}, channel)
        assert await soon(waiting) == Order(5)
        assert await soon(orders.__anext__()) == Order(5)
        assert (await soon(everything.__anext__())).name == "order"
        await until(lambda: len(got) == 5)
        assert got == [
            ("plain", {"id": 5}),
            ("typed", Order(5)),
            ("decorated", {"id": 5}),
            ("all", "order"),
            ("asynchronous", Order(5)),
        ]
        source.unbind()
        dial.send("order", {"id": 6}, channel)
        await until(lambda: client.history[-1].data == {"id": 6})
        assert len(got) == 5


async def test_callers_see_the_types_they_asked_for() -> None:
    async with linked(authorizer=Passport()) as (client, dial, _):
        channel = await join(client, dial, "news")
        assert_type(channel, Channel)
        assert_type(client.channel("news"), Channel | None)
        assert_type(client.user, User | None)
        assert_type(client.signin(), User)
        assert_type(client.stream(), Stream[Event])
        assert_type(client.stream("e"), Stream[Event])
        assert_type(client.stream("e", Order), Stream[Order])
        assert_type(channel.stream("e", Typing, limit=5, policy="error"), Stream[Typing])
        assert_type(aiter(channel), Stream[Event])
        assert_type(client.events(), Stream[Event])
        assert_type(channel.bind("e", print), Binding)
        assert_type(channel.bind_all(print, limit=5), Binding)
        assert_type(channel.bind("e", print, type=Order), Binding)

        @client.bind("e", type=Order)
        def first(order: Order) -> None:
            pass

        @channel.bind_all()
        async def second(event: Event) -> None:
            pass

        first(Order(1))
        await second(Event(name="e"))

        async def typed() -> None:
            assert_type(await channel.wait_for("e"), Event)
            assert_type(await channel.wait_for("e", Order), Order)
            assert_type(await client.wait_for("e", Typing, timeout=TIMEOUT), Typing)

        waiting = asyncio.ensure_future(typed())
        served: set[Any] = set()
        for data in ({"id": 1}, {"id": 1}, {"user": "Ann"}):
            await until(lambda: (channel._waiters | client._waiters) - served)  # noqa: B023
            served |= channel._waiters | client._waiters
            dial.send("e", data, "news")
        await soon(waiting)


async def test_the_client_reports_what_does_not_fit_its_types_once_for_each_handler() -> None:
    async with linked() as (client, dial, _):
        seen = watch(client)
        got: list[Any] = []
        client.bind("order", got.append, type=Order)
        client.bind("order", got.append, type=Typing)
        dial.send("order", {"id": 5}, "news")
        await until(lambda: got)
        await until(lambda: any(isinstance(o, PayloadInvalid) for o in seen))
        assert got == [Order(5)]
        assert len([o for o in seen if isinstance(o, PayloadInvalid)]) == 1


async def test_a_handler_of_the_client_is_called_after_those_of_the_channel() -> None:
    async with linked() as (client, dial, _):
        order: list[str] = []
        client.bind("e", lambda e: order.append("client"))
        channel = await join(client, dial, "news")
        channel.bind("e", lambda e: order.append("channel"))
        dial.send("e", 1, "news")
        await until(lambda: len(order) == 2)
        assert order == ["channel", "client"]


async def test_a_client_may_be_bound_on_before_it_is_connected_and_stays_so() -> None:
    async with linked() as (client, dial, peer):
        got: list[Any] = []
        client.bind("e", lambda e: got.append(e.data))
        dial.send("e", 1, "news")
        await until(lambda: got == [1])
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        again.send("e", 2, "news")
        await until(lambda: got == [1, 2])


# Waiting


async def test_a_wait_that_ends_in_any_way_leaves_nothing_behind() -> None:
    source = EventSource(Host())
    with pytest.raises(TimeoutError):
        await source.wait_for("e", timeout=0.01)
    waiting = asyncio.ensure_future(source.wait_for("e"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert source._waiters == set()
    assert source._bindings._bound == []


async def test_all_who_wait_are_told_when_nothing_will_come() -> None:
    source = EventSource(Host())
    waiting = [asyncio.ensure_future(source.wait_for(name)) for name in ("e", "f")]
    await asyncio.sleep(0)
    source.give_up(ConnectionLost("Gone."))
    for work in waiting:
        with pytest.raises(ConnectionLost):
            await soon(work)


async def test_nothing_is_waited_for_where_nothing_can_come() -> None:
    host = Host()
    host.ended = ClientClosed("Closed.")
    with pytest.raises(ClientClosed):
        await EventSource(host).wait_for("e")


async def test_an_event_that_comes_at_the_moment_of_the_end_is_still_had() -> None:
    source = EventSource(Host())
    waiting = asyncio.ensure_future(source.wait_for("e"))
    await asyncio.sleep(0)
    source._bindings.deliver(Event(name="e", raw="1"))
    source.give_up(ConnectionLost("Gone."))
    assert (await soon(waiting)).data == 1


async def test_streams_of_a_source_that_fails_give_what_they_have_and_then_why() -> None:
    source = EventSource(Host())
    stream = source.stream()
    source._bindings.deliver(Event(name="e", raw="1"))
    source.fail(ConnectionLost("Gone."))
    assert (await soon(stream.__anext__())).data == 1
    with pytest.raises(ConnectionLost):
        await soon(stream.__anext__())

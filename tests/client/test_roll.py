"""After a reconnection: the moment at which everything has its answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.client import (
    ChannelState,
    Client,
    ConnectionState,
    Reconnected,
    StateChange,
    Subscribed,
)
from antiphon.client import client as client_module
from antiphon.client.clock import monotonic
from antiphon.client.host import Host
from antiphon.client.roll import Roll
from antiphon.errors import AuthServerError
from tests.server.wire import TIMEOUT, until

from .linked import Signer, impatient, join, linked, meet, part, soon, watch
from .peer import Dial, Peer


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def roll(told: list[Any]) -> Roll:
    host = Host()
    host.observe(told.append)
    return Roll(host)


def reconnections(seen: list[Any]) -> list[Reconnected]:
    return [o for o in seen if isinstance(o, Reconnected)]


async def lose(dial: Dial, peer: Peer) -> Dial:
    """End a connection; the next one, greeted."""
    await dial.hang_up()
    again = await peer.dial()
    await again.greet()
    return again


async def answered(dial: Dial) -> None:
    """All that was sent before has arrived."""
    dial.send("pusher:ping")
    while (await dial.message())["event"] != "pusher:pong":
        pass


# The roll by itself


def test_with_nobody_on_the_roll_it_is_complete_at_once(roll: Roll, told: list[Any]) -> None:
    roll.call([], 1.5)
    assert told == [Reconnected(1.5, (), ())]


def test_it_is_complete_when_everybody_has_an_answer_whichever(roll: Roll, told: list[Any]) -> None:
    roll.call(["a", "b", "c"], 1.5)
    roll.joined("c")
    roll.failed("a")
    assert told == []
    roll.joined("b")
    assert told == [Reconnected(1.5, ("c", "b"), ("a",))]


def test_what_comes_after_it_is_complete_is_not_told_again(roll: Roll, told: list[Any]) -> None:
    roll.call(["a"], 1.5)
    roll.failed("a")
    roll.joined("a")
    roll.gone("a")
    assert len(told) == 1


def test_who_is_not_on_the_roll_is_not_waited_for_and_not_named(
    roll: Roll, told: list[Any]
) -> None:
    roll.joined("early")
    roll.call(["a"], 1.5)
    roll.joined("new")
    roll.failed("newer")
    roll.joined("a")
    assert told == [Reconnected(1.5, ("a",), ())]


def test_a_roll_that_was_forgotten_is_never_complete(roll: Roll, told: list[Any]) -> None:
    roll.call(["a"], 1.5)
    roll.forget()
    roll.joined("a")
    assert told == []
    roll.call(["a"], 2.5)
    roll.joined("a")
    assert told == [Reconnected(2.5, ("a",), ())]


def test_who_is_told_may_lose_the_connection_at_once(roll: Roll, told: list[Any]) -> None:
    def lose_and_return(_: Any) -> None:
        if len(told) == 1:
            roll.call(["a"], 3.5)

    roll._host.observe(lose_and_return)
    roll.call([], 1.5)
    roll.joined("a")
    assert told == [Reconnected(1.5, (), ()), Reconnected(3.5, ("a",), ())]


# The roll of a client


async def test_a_reconnection_is_told_only_when_every_channel_has_its_answer() -> None:
    signer = Signer()
    async with linked(authorizer=signer) as (client, dial, peer):
        for name in ("news", "private-x", "private-y"):
            await join(client, dial, name)
        seen = watch(client)
        stream = client.reconnections()
        signer.refuse("private-y")
        again = await lose(dial, peer)
        assert (await again.subscribe())["channel"] == "news"
        assert (await again.subscribe(accept=False))["channel"] == "private-x"
        await answered(again)
        assert reconnections(seen) == []
        again.accept("private-x")
        (reconnected,) = [await soon(anext(stream))]
        assert sorted(reconnected.channels) == ["news", "private-x"]
        assert reconnected.failed == ("private-y",)
        joined = [seen.index(Subscribed(name)) for name in ("news", "private-x")]
        assert max(joined) < seen.index(reconnected)
        assert len(reconnections(seen)) == 1


async def test_the_first_connection_is_no_reconnection() -> None:
    async with linked() as (client, dial, _):
        seen = watch(client)
        await join(client, dial, "news")
        await answered(dial)
        assert reconnections(seen) == []


async def test_a_first_connection_that_took_several_attempts_is_none_either() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        seen = watch(client)
        connecting = asyncio.ensure_future(client.connect())
        for _ in range(2):
            await (await peer.dial()).hang_up()
        dial = await peer.dial()
        await dial.greet()
        await soon(connecting)
        assert reconnections(seen) == []
        assert client.stats.connections == 1
        await part(client, peer)


async def test_a_client_without_channels_is_back_at_once() -> None:
    async with linked() as (client, dial, peer):
        stream = client.reconnections()
        await lose(dial, peer)
        reconnected = await soon(anext(stream))
        assert (reconnected.channels, reconnected.failed) == ((), ())


async def test_a_client_is_connected_when_it_tells_of_the_reconnection() -> None:
    async with linked() as (client, dial, peer):
        seen = watch(client)
        await lose(dial, peer)
        await until(lambda: reconnections(seen))
        states = [o for o in seen if isinstance(o, StateChange)]
        assert states[-1].current is ConnectionState.CONNECTED
        assert seen.index(states[-1]) < seen.index(reconnections(seen)[0])


async def test_a_channel_that_is_left_meanwhile_is_not_waited_for() -> None:
    async with linked() as (client, dial, peer):
        news = await join(client, dial, "news")
        await join(client, dial, "other")
        seen = watch(client)
        again = await lose(dial, peer)
        await again.subscribe(accept=False)
        await again.subscribe()
        await until(lambda: Subscribed("other") in seen)
        assert reconnections(seen) == []
        news.unsubscribe()
        (reconnected,) = reconnections(seen)
        assert reconnected.channels == ("other",)
        assert reconnected.failed == ()


async def test_a_channel_that_is_new_meanwhile_is_not_waited_for() -> None:
    async with linked() as (client, dial, peer):
        await join(client, dial, "news")
        seen = watch(client)
        again = await lose(dial, peer)
        await until(lambda: client.state is ConnectionState.CONNECTED)
        client.subscribe("new")
        await again.subscribe()
        await until(lambda: reconnections(seen))
        assert reconnections(seen)[0].channels == ("news",)


async def test_a_channel_that_is_refused_for_the_moment_does_not_hold_the_others_up() -> None:
    signer = Signer()
    async with linked(authorizer=signer, min_delay=0.05) as (client, dial, peer):
        channel = await join(client, dial, "private-x")
        seen = watch(client)
        signer.errors["private-x"] = AuthServerError("Broken.", channel="private-x", code=503)
        again = await lose(dial, peer)
        await until(lambda: reconnections(seen))
        assert reconnections(seen)[0].failed == ("private-x",)
        signer.errors.clear()
        await again.subscribe()
        await channel.subscribed(TIMEOUT)
        assert len(reconnections(seen)) == 1, "and is told of by itself"
        assert Subscribed("private-x") in seen


async def test_a_reconnection_that_is_lost_before_it_is_complete_is_not_told() -> None:
    async with linked() as (client, dial, peer):
        await join(client, dial, "news")
        seen = watch(client)
        second = await lose(dial, peer)
        await second.subscribe(accept=False)
        third = await lose(second, peer)
        assert reconnections(seen) == []
        await third.subscribe()
        await until(lambda: reconnections(seen))
        assert reconnections(seen)[0].channels == ("news",)
        assert len(reconnections(seen)) == 1


async def test_what_is_left_between_two_connections_completes_nothing() -> None:
    async with linked() as (client, dial, peer):
        news = await join(client, dial, "news")
        seen = watch(client)
        second = await lose(dial, peer)
        await second.subscribe(accept=False)
        await second.hang_up()
        third = await peer.dial()
        await until(lambda: client.state is not ConnectionState.CONNECTED)
        news.unsubscribe()
        assert reconnections(seen) == []
        await third.greet()
        await until(lambda: reconnections(seen))
        assert reconnections(seen)[0].channels == ()


async def test_how_long_there_was_no_connection_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [0.0]
    monkeypatch.setattr(client_module, "monotonic", lambda: monotonic() + passed[0])
    async with linked() as (client, dial, peer):
        stream = client.reconnections()
        passed[0] += 50.0
        await dial.hang_up()
        again = await peer.dial()
        passed[0] += 7.0
        await again.hang_up()  # an attempt that fails does not shorten it
        third = await peer.dial()
        passed[0] += 5.0
        await third.greet()
        assert 12.0 <= (await soon(anext(stream))).away < 50.0


async def test_a_program_that_disconnects_and_connects_is_told_too() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        dial = await meet(client, peer)
        await join(client, dial, "news")
        seen = watch(client)
        leaving = asyncio.ensure_future(client.disconnect())
        await dial.close(1000)
        await soon(leaving)
        again = await meet(client, peer)
        await again.subscribe()
        await until(lambda: reconnections(seen))
        assert reconnections(seen)[0].channels == ("news",)
        await part(client, peer)


async def test_who_is_told_may_close_the_client() -> None:
    async with linked() as (client, dial, peer):
        closing: list[asyncio.Future[None]] = []

        def close(o: Any) -> None:
            if isinstance(o, Reconnected):
                closing.append(asyncio.ensure_future(client.close()))

        client.observe(close)
        again = await lose(dial, peer)
        await until(lambda: closing)
        await again.close(1000)
        await soon(closing[0])
        assert client.state is ConnectionState.DISCONNECTED


async def test_the_stream_of_reconnections_ends_with_the_client() -> None:
    async with Peer() as peer:
        client: Client = impatient(peer.settings())
        await meet(client, peer)
        stream = client.reconnections()
        await part(client, peer)
        assert [item async for item in stream] == []


async def test_a_channel_is_pending_while_its_connection_is_away() -> None:
    async with linked() as (client, dial, peer):
        channel = await join(client, dial, "news")
        await dial.hang_up()
        await peer.dial()
        await until(lambda: channel.state is ChannelState.PENDING)
        with pytest.raises(TimeoutError):
            await channel.subscribed(0.01)

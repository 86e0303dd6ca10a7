"""The states of a connection, and what a program does about them: retry now, to others."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

import pytest

from antiphon.client import ConnectingIn, ConnectionState, SecretAuthorizer, Stats
from antiphon.errors import AntiphonError, ConnectionFailed, Unreachable
from antiphon.protocol.frames import Event
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App
from tests.server.cluster import free_port
from tests.server.wire import TIMEOUT, until

from .linked import impatient, join, linked, meet, part, soon, states, watch
from .peer import Dial, Peer

CONNECTED, CONNECTING = ConnectionState.CONNECTED, ConnectionState.CONNECTING


def waits(seen: list[Any]) -> list[ConnectingIn]:
    return [o for o in seen if isinstance(o, ConnectingIn)]


async def nobody_dials(peer: Peer) -> None:
    """Nothing arrives in the time in which something would."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await peer.dial()


# Retrying now


async def test_retrying_now_ends_a_pause_and_only_that_one() -> None:
    async with linked(min_delay=60, max_delay=60) as (client, dial, peer):
        seen = watch(client)
        await dial.hang_up()
        await until(lambda: waits(seen))
        client.retry_now()
        client.retry_now()  # twice is once
        again = await peer.dial()
        await again.hang_up()
        await until(lambda: len(waits(seen)) == 2)
        await nobody_dials(peer)


async def test_retrying_now_begins_a_dial_that_hangs_anew() -> None:
    async with linked(min_delay=60, max_delay=60, connect_timeout=60) as (client, dial, peer):
        seen = watch(client)
        await dial.hang_up()
        await until(lambda: waits(seen))
        client.retry_now()
        hanging = await peer.dial()
        await hanging.request()  # and no answer
        client.retry_now()
        again = await peer.dial()
        await again.greet()
        await until(lambda: client.state is CONNECTED)
        assert client.socket_id == "3.1"


async def test_retrying_now_begins_the_first_dial_anew_too() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), min_delay=60, max_delay=60, connect_timeout=60)
        connecting = asyncio.ensure_future(client.connect())
        hanging = await peer.dial()
        await hanging.request()
        client.retry_now()
        again = await peer.dial()
        await again.greet()
        await soon(connecting)
        assert client.socket_id == "2.1"
        await part(client, peer)


async def test_retrying_now_leaves_a_server_that_does_not_greet() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), min_delay=60, max_delay=60, connect_timeout=60)
        connecting = asyncio.ensure_future(client.connect())
        hanging = await peer.dial()
        await hanging.upgrade()  # and never a word
        await until(lambda: client._dialling is None)
        client.retry_now()
        again = await peer.dial()
        await again.greet()
        await soon(connecting)
        await part(client, peer)


async def test_a_dial_that_is_begun_anew_does_not_use_up_an_attempt() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), max_attempts=1, connect_timeout=60)
        seen = watch(client)
        connecting = asyncio.ensure_future(client.connect())
        for _ in range(3):
            await (await peer.dial()).request()
            client.retry_now()
        again = await peer.dial()
        await again.greet()
        await soon(connecting)
        assert client.state is CONNECTED
        assert states(seen) == [CONNECTING, CONNECTED]
        assert [o for o in seen if isinstance(o, AntiphonError | ConnectingIn)] == []
        await part(client, peer)


async def test_a_dial_that_is_begun_anew_and_fails_is_waited_after() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), min_delay=60, max_delay=60, connect_timeout=60)
        seen = watch(client)
        connecting = asyncio.ensure_future(client.connect())
        await (await peer.dial()).request()
        client.retry_now()
        await (await peer.dial()).hang_up()
        await until(lambda: waits(seen))
        await nobody_dials(peer)
        await soon(client.close())
        with pytest.raises(ConnectionFailed):
            await soon(connecting)


async def test_retrying_now_while_a_dial_succeeds_is_forgotten_when_it_has() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), min_delay=60, max_delay=60)
        seen = watch(client)
        connecting = asyncio.ensure_future(client.connect())
        first = await peer.dial()
        await first.request()
        client.retry_now()
        dial = await peer.dial()
        await dial.greet()
        await soon(connecting)
        await dial.hang_up()
        await until(lambda: waits(seen))
        await nobody_dials(peer)
        await soon(client.close())


async def test_retrying_now_while_connected_is_not_remembered() -> None:
    async with linked(min_delay=60, max_delay=60) as (client, dial, peer):
        seen = watch(client)
        client.retry_now()
        await dial.hang_up()
        await until(lambda: waits(seen))
        await nobody_dials(peer)
        assert [o for o in seen if isinstance(o, ConnectionFailed)]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_retrying_now_without_being_told_to_connect_does_nothing(when: str) -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), min_delay=60, max_delay=60)
        seen: list[Any] = []
        if when == "after":
            await meet(client, peer)
            await part(client, peer)
        seen = watch(client)
        client.retry_now()
        await nobody_dials(peer)
        assert seen == []
        await client.close()


async def test_retrying_now_from_an_observer_of_the_loss_is_kept_for_the_pause() -> None:
    async with linked(min_delay=60, max_delay=60) as (client, dial, peer):
        told: list[Any] = []

        def retry(o: Any) -> None:
            if isinstance(o, ConnectingIn) and not told:
                told.append(o)
                client.retry_now()

        client.observe(retry)
        await dial.hang_up()
        await (await peer.dial()).greet()
        await until(lambda: client.state is CONNECTED)
        assert told


async def test_closing_while_a_dial_is_begun_anew_closes() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), connect_timeout=60)
        connecting = asyncio.ensure_future(client.connect())
        await (await peer.dial()).request()
        client.retry_now()
        await soon(client.close())
        with pytest.raises(ConnectionFailed):
            await soon(connecting)
        assert client.state is ConnectionState.DISCONNECTED
        await nobody_dials(peer)


async def test_retrying_now_when_nobody_listens_tries_at_once() -> None:
    peer = Peer(port=free_port())
    settings = peer.settings()
    client = impatient(settings, min_delay=60, max_delay=60)
    seen = watch(client)
    connecting = asyncio.ensure_future(client.connect())
    for attempts in range(1, 4):
        await until(lambda n=attempts: len(waits(seen)) == n)  # type: ignore[misc]
        client.retry_now()
    async with peer:
        await until(lambda: len(waits(seen)) >= 4 or peer.dials)
        if not peer.dials:
            client.retry_now()
        dial = await peer.dial()
        await dial.greet()
        await soon(connecting)
        assert {type(o) for o in seen if isinstance(o, AntiphonError)} == {Unreachable}
        await part(client, peer)


# To others


async def test_a_client_tells_the_headers_by_which_others_are_meant() -> None:
    async with linked() as (client, dial, peer):
        assert client.to_others == {"X-Socket-ID": "1.1"}
        await dial.hang_up()
        again = await peer.dial()
        await until(lambda: client.state is CONNECTING)
        assert client.to_others == {}
        await again.greet()
        await until(lambda: client.to_others == {"X-Socket-ID": "2.1"})


async def test_a_client_that_is_not_connected_means_everybody() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        assert client.to_others == {}
        await meet(client, peer)
        await part(client, peer)
        assert client.to_others == {}


def note(names: list[str], event: Event) -> None:
    names.append(event.name)


async def test_what_is_published_to_others_does_not_come_back() -> None:
    async with Server(App(id="1", key="k", secret="s")) as server:
        settings = server.settings()
        signer = SecretAuthorizer(settings)
        async with contextlib.AsyncExitStack() as stack:
            one = await stack.enter_async_context(impatient(settings, authorizer=signer))
            other = await stack.enter_async_context(impatient(settings, authorizer=signer))
            publisher = await stack.enter_async_context(Publisher(settings))
            got: dict[str, list[str]] = {"one": [], "other": []}
            for name, client in (("one", one), ("other", other)):
                channel = client.subscribe("private-x")
                channel.bind_all(partial(note, got[name]))
                await channel.subscribed(TIMEOUT)
            await publisher.trigger("private-x", "mine", 1, socket_id=one.to_others["X-Socket-ID"])
            await publisher.trigger("private-x", "all", 1)
            await until(lambda: "all" in got["one"] and "all" in got["other"])
            assert [name for name in got["one"] if ":" not in name] == ["all"]
            assert [name for name in got["other"] if ":" not in name] == ["mine", "all"]


# What is told


def test_the_words_for_states_are_pushers_own() -> None:
    assert [str(state) for state in ConnectionState] == [
        "initialized",
        "connecting",
        "connected",
        "unavailable",
        "failed",
        "disconnected",
    ]


async def test_what_is_told_cannot_be_changed() -> None:
    async with linked() as (client, _, _):
        stats = client.stats
        assert isinstance(stats, Stats)
        with pytest.raises(AttributeError):
            stats.connections = 2  # type: ignore[misc]


async def test_attempts_are_numbered_from_the_last_connection_that_lasted() -> None:
    async with linked(max_attempts=9) as (client, dial, peer):
        seen = watch(client)
        await join(client, dial, "news")
        latest: Dial = dial
        for _ in range(3):
            await latest.hang_up()
            latest = await peer.dial()
        await latest.greet()
        await until(lambda: client.state is CONNECTED)
        assert [w.attempt for w in waits(seen)] == [2, 3, 4]
        assert {w.max_attempts for w in waits(seen)} == {9}

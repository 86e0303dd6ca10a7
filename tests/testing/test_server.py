"""A real server in a thread: what it tells, what it publishes, and how it breaks."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from antiphon import App, Client, Event, Member, Publisher, SecretAuthorizer, Settings
from antiphon.errors import PublishFailed, Refused, SettingsError
from antiphon.testing import PusherServer
from antiphon.testing.server import wait_for_ends
from tests.server.cluster import free_port
from tests.server.wire import TIMEOUT


@pytest.fixture
def server() -> Iterator[PusherServer]:
    with PusherServer(port=free_port()) as server:  # some tests stop it and start it again
        yield server


@pytest_asyncio.fixture
async def client(server: PusherServer) -> AsyncIterator[Client]:
    async with impatient(server) as client:
        yield client


def impatient(server: PusherServer, user_id: str = "ann", **options: Any) -> Client:
    signs = SecretAuthorizer(server.settings, user_id=user_id)
    defaults = {"authorizer": signs, "min_delay": 0.01, "max_delay": 0.02}
    return Client(server.settings, **{**defaults, **options})


async def until(server: PusherServer, condition: Any) -> None:
    await asyncio.to_thread(server.wait_until, condition, TIMEOUT)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "antiphon" in thread.name]


def can_dial(server: PusherServer) -> bool:
    with socket.socket() as dialled:
        return dialled.connect_ex(("127.0.0.1", server.port)) == 0


# Life


def test_a_server_listens_from_start_to_close_and_leaves_no_thread() -> None:
    server = PusherServer()
    assert repr(server) == "<PusherServer 127.0.0.1:0 stopped>"
    server.start()
    assert repr(server) == f"<PusherServer 127.0.0.1:{server.port} running>"
    with urllib.request.urlopen(f"{server.settings.http_url}/up", timeout=TIMEOUT) as answer:
        assert answer.status == 200
    server.close()
    assert threads() == []
    assert not can_dial(server)


async def test_a_context_may_be_asynchronous() -> None:
    async with PusherServer() as server, impatient(server) as client:
        assert server.connections == [client.socket_id]
    assert threads() == []


async def test_a_client_of_the_same_loop_is_parted_with_in_order() -> None:
    async with PusherServer() as server:
        client = impatient(server)
        await client.connect()
        changes = client.changes()
    async with asyncio.timeout(TIMEOUT):
        async for change in changes:
            assert change.previous.value == "connected"
            break
    await client.close()
    assert threads() == []


def test_starting_and_stopping_twice_changes_nothing(server: PusherServer) -> None:
    port = server.port
    server.start()
    assert (server.port, len(threads())) == (port, 1)
    server.stop()
    server.stop()
    server.close()
    server.close()


def test_a_port_that_is_taken_is_an_error_and_leaves_no_thread(server: PusherServer) -> None:
    other = PusherServer(port=server.port)
    for _ in range(2):
        with pytest.raises(SettingsError, match="another program listens there"):
            other.start()
    assert "stopped" in repr(other)
    server.close()
    wait_for_ends()
    assert threads() == []


def test_two_servers_know_nothing_of_each_other(server: PusherServer) -> None:
    with PusherServer() as other:
        assert server.port != other.port
        other.disconnect_all()
        other.stop()
        server.trigger("news", "Event")


def test_what_needs_a_running_server_says_so(server: PusherServer) -> None:
    server.stop()
    with pytest.raises(SettingsError, match=r"stopped: start\(\) it first"):
        server.disconnect_all()
    with pytest.raises(SettingsError, match=r"stopped: start\(\) it first"):
        server.trigger("news", "Event")
    assert (server.connections, server.channels, server.members("presence-x")) == ([], {}, {})
    assert server.settings.port == server.port
    with pytest.raises(SettingsError, match="has no port yet"):
        _ = PusherServer().settings


# What programs need


async def test_the_settings_connect_publish_and_sign(server: PusherServer, client: Client) -> None:
    private = client.subscribe("private-room")
    await private.subscribed(TIMEOUT)
    stream = private.stream("Event")
    async with Publisher(server.settings) as publisher:
        await publisher.trigger("private-room", "Event", {"n": 1})
    async with asyncio.timeout(TIMEOUT):
        assert (await anext(aiter(stream))).data == {"n": 1}


def test_the_environment_names_the_server_as_laravel_does(server: PusherServer) -> None:
    assert Settings.from_env(environ=server.environ) == server.settings


async def test_what_is_triggered_reaches_the_subscribers_but_not_its_sender(
    server: PusherServer, client: Client
) -> None:
    async with impatient(server) as other:
        seen: list[tuple[str, Any]] = []

        def note(name: str, event: Event) -> None:
            seen.append((name, event.data))

        for name, each in (("one", client), ("other", other)):
            channel = each.subscribe("news")
            channel.bind("Event", partial(note, name))
            await channel.subscribed(TIMEOUT)
        server.trigger(["news", "elsewhere"], "Event", {"n": 1}, socket_id=client.socket_id)
        server.trigger("news", "Event", "last")
        await until(server, lambda: ("one", "last") in seen and ("other", "last") in seen)
    assert sorted(seen, key=str) == [("one", "last"), ("other", "last"), ("other", {"n": 1})]


def test_what_the_api_refuses_is_refused(server: PusherServer) -> None:
    with pytest.raises(PublishFailed) as caught:
        server.trigger("news", "Event", "x" * 20_000)
    assert caught.value.code == 413


# Looking at it


async def test_it_tells_who_is_connected_and_subscribed(
    server: PusherServer, client: Client
) -> None:
    async with impatient(server, "bob") as other:
        for name, each in (("news", client), ("presence-room", client), ("presence-room", other)):
            await each.subscribe(name).subscribed(TIMEOUT)
        assert server.connections == [client.socket_id, other.socket_id]
        assert server.channels == {
            "news": [client.socket_id],
            "presence-room": [client.socket_id, other.socket_id],
        }
        assert server.members("presence-room") == {"ann": Member("ann"), "bob": Member("bob")}
        assert server.members("news") == {}
    await until(server, lambda: len(server.connections) == 1)
    assert list(server.members("presence-room")) == ["ann"]


def test_it_can_be_waited_for_what_another_program_does(server: PusherServer) -> None:
    program = (
        "import asyncio\n"
        "from antiphon import Client, Settings\n"
        "async def main():\n"
        "    async with Client(Settings.from_env()) as client:\n"
        "        async for event in client.subscribe('jobs').stream('Job'):\n"
        "            return print(event.data)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], env=server.environ, stdout=subprocess.PIPE, text=True
    ) as worker:
        server.wait_until(lambda: "jobs" in server.channels, timeout=60)
        server.trigger("jobs", "Job", {"n": 7})
        assert worker.communicate(timeout=60)[0] == "{'n': 7}\n"
    assert worker.returncode == 0


def test_waiting_in_vain_tells_how_things_stand(server: PusherServer) -> None:
    with pytest.raises(TimeoutError, match=r"Not within 0\.01 s; .* 0 connections, .* no channel"):
        server.wait_until(lambda: False, timeout=0.01)


async def test_waiting_where_it_would_block_the_clients_is_refused(server: PusherServer) -> None:
    with pytest.raises(RuntimeError, match=r"await asyncio\.to_thread"):
        server.wait_until(lambda: True)


# Faults


@pytest.mark.parametrize("code", [4100, 4200, None])
async def test_clients_that_may_come_back_do(
    server: PusherServer, client: Client, code: int | None
) -> None:
    await client.subscribe("news").subscribed(TIMEOUT)
    before = server.connections
    server.disconnect_all(code)
    await until(server, lambda: server.channels and server.connections != before)
    assert len(server.connections) == 1


async def test_clients_that_are_sent_away_for_good_stay_away(
    server: PusherServer, client: Client
) -> None:
    server.disconnect_all(4009, "Banned")
    with pytest.raises(Refused, match="Banned") as caught:
        await client.wait_closed()
    assert caught.value.code == 4009
    assert server.connections == []


async def test_a_restart_on_the_same_port_brings_clients_and_channels_back(
    server: PusherServer, client: Client
) -> None:
    port = server.port
    await client.subscribe("news").subscribed(TIMEOUT)
    for _ in range(3):
        server.stop()
        assert (server.connections, can_dial(server)) == ([], False)
        server.start()
        assert server.port == port
        await until(server, lambda: "news" in server.channels)


async def test_the_limits_of_the_application_hold() -> None:
    app = App(id="1", key="k", secret="s", max_connections=1)
    async with PusherServer(app) as server, impatient(server):
        with pytest.raises(Refused) as caught:
            async with impatient(server, max_attempts=1):
                pass
        assert caught.value.code == 4004


def test_a_test_that_blocks_its_loop_holds_nothing_up(server: PusherServer) -> None:
    async def stubborn() -> None:
        async with impatient(server) as client:
            await client.subscribe("news").subscribed(TIMEOUT)
            server.trigger("news", "Event")  # blocks this loop until the server has answered
            assert server.channels == {"news": [client.socket_id]}

    asyncio.run(stubborn())
    server.wait_until(lambda: not server.connections)

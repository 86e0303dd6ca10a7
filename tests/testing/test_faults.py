"""A server that is faulty to order, and what a real client makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from antiphon import Client
from antiphon.errors import ConnectionFailed, ConnectionLost, Refused, Unreachable
from antiphon.testing import (
    ConnectionEnded,
    Dial,
    FaultServer,
    Script,
    answering,
    closing,
    frame_bytes,
    hanging_up,
    polite,
    refusing,
    silent,
)
from tests.server.cluster import free_port
from tests.server.wire import TIMEOUT, until


def client(server: FaultServer, **options: Any) -> Client:
    return Client(server.settings, **{"min_delay": 0.01, "max_delay": 0.02, **options})


async def failure(script: Script, **options: Any) -> ConnectionFailed:
    """How a client that tries once gives up."""
    async with FaultServer(script) as server:
        with pytest.raises(ConnectionFailed) as caught:
            async with client(server, max_attempts=1, **options):
                pass
        assert len(server.dials) == 1
    return caught.value


async def test_a_polite_server_grants_every_channel_and_can_send() -> None:
    async with FaultServer(polite) as server, client(server) as ours:
        news = ours.subscribe("news")
        await news.subscribed(TIMEOUT)
        (dial,) = server.dials
        async with asyncio.timeout(TIMEOUT):
            stream = news.stream("Event")
            dial.send("Event", {"n": 1}, "news")
            async for event in stream:
                assert event.data == {"n": 1}
                break
    assert dial.path.startswith("/app/test-key?protocol=7")
    assert dial.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("code", [4001, 4009])
@pytest.mark.parametrize("close", [True, False])
async def test_a_refusing_server_is_not_dialled_again(code: int, close: bool) -> None:
    error = await failure(refusing(code, "No such application", close=close))
    assert isinstance(error, Refused)
    assert error.code == code


@pytest.mark.parametrize("status", [200, 302, 404, 503])
async def test_an_upgrade_may_be_answered_with_any_status(status: int) -> None:
    error = await failure(answering(status, "sorry", {"Location": "/", "Retry-After": "5"}))
    assert isinstance(error, Unreachable)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    ("script", "options"), [(silent, {"connect_timeout": 0.5}), (hanging_up, {})]
)
async def test_a_server_that_says_nothing_is_given_up(script: Script, options: Any) -> None:
    assert isinstance(await failure(script, **options), Unreachable | ConnectionLost)


async def test_half_a_handshake_can_be_sent() -> None:
    async def half(dial: Dial) -> None:
        dial.send_bytes((await dial.request())[:40])

    assert isinstance(await failure(half), Unreachable | ConnectionLost)


async def test_every_dial_has_its_script_and_the_last_one_stays() -> None:
    scripts: Sequence[Script] = [hanging_up, answering(503), closing(4200), closing(), polite]
    async with FaultServer(scripts) as server, client(server) as ours:
        await until(lambda: ours.socket_id == "5.1")
        assert [dial.number for dial in server.dials] == [1, 2, 3, 4, 5]
        server.dials[-1].abort()
        await until(lambda: ours.socket_id == "6.1")


async def test_dials_without_a_script_are_led_by_the_test() -> None:
    async with FaultServer() as server:
        ours = client(server)
        connecting = asyncio.create_task(ours.connect())
        dial = await server.dial()
        assert await dial.greet("7.7", activity_timeout=30) == "7.7"
        await connecting
        assert ours.socket_id == "7.7"
        ours.subscribe("news")
        assert (await dial.subscribe(accept=False)) == {"channel": "news"}
        closing_ = asyncio.create_task(ours.close())
        ended = await dial.closed()
        assert ended.code == 1000
        await dial.hang_up()
        await closing_


async def test_a_wait_for_a_client_that_does_not_come_ends() -> None:
    async with FaultServer(timeout=0.01) as server:
        with pytest.raises(TimeoutError):
            await server.dial()


async def test_who_hangs_up_in_the_middle_of_a_script_fails_nothing() -> None:
    async with FaultServer(polite) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.close()
        await writer.wait_closed()


async def test_what_a_script_raises_is_raised_at_the_end() -> None:
    async def mistaken(dial: Dial) -> None:
        await dial.greet()
        await dial.event("pusher:signin")

    async def the_test() -> None:
        async with FaultServer(mistaken) as server, client(server, max_attempts=1) as ours:
            ours.subscribe("news")
            with pytest.raises(ConnectionFailed):
                await ours.wait_closed()

    with pytest.raises(AssertionError, match="should have said pusher:signin"):
        await the_test()


async def test_what_the_test_itself_raises_goes_before() -> None:
    async def mistaken(dial: Dial) -> None:
        raise ValueError("the script's")

    async def the_test() -> None:
        async with FaultServer(mistaken) as server:
            with pytest.raises(ConnectionFailed):
                await client(server, max_attempts=1).connect()
            raise KeyError("the test's")

    with pytest.raises(KeyError, match="the test's"):
        await the_test()


async def test_an_unmasked_frame_of_a_client_is_an_error() -> None:
    async with FaultServer() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        dial = await server.dial()
        await dial.upgrade()
        # The example of RFC 6455, 1.3.
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in await reader.readuntil(b"\r\n\r\n")
        writer.write(frame_bytes(1))
        with pytest.raises(AssertionError, match="masked"):
            await dial.frame()
        for size in (1, 200, 70_000):
            writer.write(frame_bytes(1, b"x" * size, masked=True))
            assert await dial.text() == "x" * size
        writer.write(frame_bytes(8, masked=True))
        with pytest.raises(ConnectionEnded) as ended:
            await dial.text()
        assert ended.value.code == 1005
        writer.close()
        await writer.wait_closed()
        assert (await dial.closed()).code is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, b"\x81\x02hi"),
        ({"fin": False, "rsv": 4}, b"\x41\x02hi"),
        ({"masked": True}, b"\x81\x82\0\0\0\0hi"),
    ],
)
def test_a_frame_is_made_right_or_wrong(options: Any, expected: bytes) -> None:
    assert frame_bytes(1, b"hi", **options) == expected


async def test_a_server_can_come_back_on_the_same_port() -> None:
    port = free_port()
    async with FaultServer(polite, port=port):
        pass
    async with FaultServer(polite, port=port) as server, client(server) as ours:
        assert server.port == port
        assert ours.socket_id == "1.1"

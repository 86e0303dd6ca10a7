"""The HTTP side of the port, with an application of a few lines behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from antiphon.errors import SettingsError
from antiphon.server import HttpServer
from antiphon.server.http import MAX_HEAD

from .wire import TIMEOUT, http

pytestmark = pytest.mark.asyncio(loop_scope="module")

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Tells how many bytes of body it got."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{event}"
            await send({"type": f"lifespan.{event}.complete"})
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def unable(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """An application that fails when it starts."""
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.failed", "message": "no database"})


@pytest_asyncio.fixture(loop_scope="module")
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer(application, host="127.0.0.1") as server:
        yield server


@contextlib.asynccontextmanager
async def dial(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request(body: bytes = b"", padding: int = 0) -> bytes:
    head = f"POST / HTTP/1.1\r\nHost: x\r\nCookie: {'c' * padding}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def test_it_tells_its_address(server: HttpServer) -> None:
    assert server.url == f"http://127.0.0.1:{server.port}"
    assert await http(server.port, request(b"12345")) == (200, b"5")


async def test_without_a_websocket_side_an_upgrade_is_an_ordinary_request(
    server: HttpServer,
) -> None:
    upgrade = b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    status, _ = await http(server.port, request().replace(b"Host: x\r\n", upgrade))
    assert status == 200


async def test_an_application_that_does_not_start_is_told_of() -> None:
    server = HttpServer(unable, host="127.0.0.1")
    with pytest.raises(SettingsError, match="did not start"):
        await server.start()
    await server.stop()


async def test_starting_may_be_cancelled() -> None:
    async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        begun.set()
        await receive()
        await application(scope, receive, send)

    begun = asyncio.Event()
    server = HttpServer(slow, host="127.0.0.1")
    starting = asyncio.create_task(server.start())
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(ConnectionError):
        await http(server.port or 1, request())


# How large and how slow a request may be


@pytest.mark.parametrize("padding", [1_000, 10_000, MAX_HEAD - 200])
@pytest.mark.parametrize("size", [0, 1_000, 200_000])
async def test_a_large_head_and_a_large_body_are_taken(
    server: HttpServer, padding: int, size: int
) -> None:
    answer = await http(server.port, request(b"x" * size, padding))
    assert answer == (200, str(size).encode())


async def test_a_head_that_is_too_large_is_refused(server: HttpServer) -> None:
    status, _ = await http(server.port, request(padding=MAX_HEAD + 1))
    assert status == 400


def pieces(raw: bytes, *cuts: int) -> Iterator[bytes]:
    for begin, end in zip((0, *cuts), (*cuts, len(raw)), strict=True):
        yield raw[begin:end]


@pytest.mark.parametrize("cut", [1, 20, 40, 60])
async def test_a_head_may_come_in_parts_and_its_end_with_a_large_body(
    server: HttpServer, cut: int
) -> None:
    """As networks deliver it: the second read brings the head's end and the body at once."""
    async with dial(server.port) as (reader, writer):
        for piece in pieces(request(b"x" * 100_000), cut):
            writer.write(piece)
            for _ in range(20):  # let the server read it
                await asyncio.sleep(0)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
        assert b" 200 " in head.splitlines()[0]


async def test_a_head_without_end_is_refused_however_slowly_it_comes(server: HttpServer) -> None:
    async with dial(server.port) as (reader, writer):
        answer = asyncio.create_task(reader.read())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        sent = 0
        while not answer.done() and sent < 100:
            sent += 1
            writer.write(b"X-More: " + b"x" * 1_000 + b"\r\n")
            for _ in range(20):
                await asyncio.sleep(0)
        assert sent < 100, "100 kB of head were read"
        # Who is still sending when the answer comes may not get to see it.
        with contextlib.suppress(ConnectionError):
            assert b" 400 " in await answer


@pytest.mark.parametrize(
    "beginning",
    [b"", b"GET", b"POST / HTTP/1.1\r\nHost: x\r\n", request(b"x" * 10)[:-1]],
    ids=["nothing", "a word", "half a head", "half a body"],
)
async def test_a_request_that_does_not_end_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr("antiphon.server.http.REQUEST_TIMEOUT", 0.05)
    async with (
        HttpServer(application, host="127.0.0.1") as server,
        dial(server.port) as (reader, writer),
    ):
        writer.write(beginning)
        with contextlib.suppress(ConnectionError):  # it was not even read in time
            assert b" 200 " not in await asyncio.wait_for(reader.read(), TIMEOUT)


async def test_between_requests_a_connection_may_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.server.http.REQUEST_TIMEOUT", 2.0)
    async with (
        HttpServer(application, host="127.0.0.1") as server,
        dial(server.port) as (reader, writer),
    ):
        for _ in range(2):
            writer.write(request(b"12345"))
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n5"), TIMEOUT)
            # Longer than a request may take; nothing tells that a timer has not fired.
            await asyncio.sleep(2.1)

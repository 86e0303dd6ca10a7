"""Strangers in great numbers, slow ones, and such as talk nonsense.

What happens when no descriptor is left is in `test_listener.py`; 100 000 connections come and go in
`benchmarks/server_churn.py`, and an hour of ordinary life is in `benchmarks/server_soak.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.protocol.signing import sign_request
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import Settings
from tests.conftest import Connect, Serve

from .wire import BINARY, CONTINUATION, PING, TEXT, TIMEOUT, Wire, frame_bytes, http

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="a server's memory is read from /proc"),
]

SLOW: Final = 1_000
COMING: Final = 5_000
LORIS: Final = 300
PATIENCE: Final = 60.0
MIB: Final = 1024 * 1024
UPGRADE: Final = (
    b"GET /app/%s?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


# A server in a process of its own, which tells what it uses


CHILD: Final = """
import asyncio, gc, json, os, resource, socket, sys
from pathlib import Path

import antiphon.server.transport
from antiphon.server import Server
from antiphon.settings import App

antiphon.server.transport.CLOSE_TIMEOUT = 1.0

def kib(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

async def main():
    async with Server(App(id="1", key="k", secret="s")) as server:
        # The system would keep megabytes of each connection before the server has to.
        listening = server._http._uvicorn.listener._socket
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        (hub,) = server._hubs.values()
        print(server.port, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            gc.collect()
            print(json.dumps({
                "peak": kib("VmHWM:") * 1024,
                "fds": len(os.listdir("/proc/self/fd")),
                "tasks": len(asyncio.all_tasks()),
                "objects": len(gc.get_objects()),
                "sockets": len(hub.sockets),
                "slow": hub.traffic.slow,
                "unread": server._websockets.unread.size,
            }), flush=True)

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
asyncio.run(main())
"""


class Child:
    """The process."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.settings = Settings(
            app_key="k", app_id="1", app_secret="s", host="127.0.0.1", port=port, scheme="http"
        )

    async def usage(self) -> dict[str, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        async with asyncio.timeout(PATIENCE):
            usage: dict[str, int] = json.loads(await self.process.stdout.readline())
        return usage

    async def settled(self, **expected: int) -> dict[str, int]:
        """What it uses as soon as that is no more than is expected, or in the end."""
        give_up = time.monotonic() + PATIENCE
        while True:
            usage = await self.usage()
            if all(usage[name] <= most for name, most in expected.items()):
                return usage
            if time.monotonic() > give_up:
                return usage
            await asyncio.sleep(0.1)


@pytest_asyncio.fixture(loop_scope="module")
async def child() -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield Child(process, int(await process.stdout.readline()))
        _, errors = await asyncio.wait_for(process.communicate(b""), PATIENCE)
        assert errors == b"", "nothing was logged"
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Some 2 000 descriptors, where the usual limit is 1 024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4_096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Who does not read


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_slow_readers_take_bounded_memory_and_harm_nobody(child: Child) -> None:
    async with contextlib.AsyncExitStack() as stack:
        healthy = [
            await stack.enter_async_context(await Wire.connect(child.port)) for _ in range(5)
        ]
        for wire in healthy:
            await wire.subscribe("news")
        for _ in range(SLOW):
            wire = await stack.enter_async_context(await Wire.connect(child.port, narrow=True))
            await wire.subscribe("news")
            wire.stop_reading()
        before = await child.usage()
        assert before["sockets"] == SLOW + len(healthy)
        largest = 0
        async with Publisher(child.settings) as publisher:
            for number in range(300):  # 3 MB, to everybody
                await publisher.trigger("news", "e", f"{number:04}".ljust(10_000, "x"))
                for wire in healthy:
                    assert (await wire.event("e"))["data"].startswith(f"{number:04}x")
                if number % 10 == 0:
                    largest = max(largest, (await child.usage())["unread"])
        after = await child.settled(sockets=len(healthy))
        assert 16 * MIB < largest <= 64 * MIB
        assert after["peak"] - before["peak"] < 150 * MIB
        assert (after["slow"], after["sockets"], after["unread"]) == (SLOW, len(healthy), 0)
        for wire in healthy:
            await wire.ping()
        left = before["fds"] - SLOW + 1  # the publisher's
        assert (await child.settled(fds=left))["fds"] <= left, "they do not have to agree"


# Who sends slowly


LORIS_SENDS: Final = {
    "nothing": (b"", b""),
    "a head without end": (b"GET /up HTTP/1.1\r\nX-", b"a"),
    "an upgrade without end": (UPGRADE[:-2] % b"k" + b"X-", b"a"),
    "a body without end": (
        b"POST /apps/1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n",
        b" ",
    ),
}


@pytest.mark.parametrize("name", LORIS_SENDS)
async def test_who_sends_a_byte_now_and_then_is_hung_up_on_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, serve: Serve, connect: Connect, name: str
) -> None:
    monkeypatch.setattr("antiphon.server.http.REQUEST_TIMEOUT", 3.0)
    server = await serve()
    witness = await connect(server)
    first, more = LORIS_SENDS[name]
    closed = 0

    async def loris() -> None:
        nonlocal closed
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(first)
        ended = asyncio.create_task(reader.read())
        while not ended.done():
            writer.write(more)
            await asyncio.wait([ended], timeout=0.25)  # oftener, they alone would keep it busy
        closed += 1
        with contextlib.suppress(ConnectionError):
            await ended
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(LORIS):
            group.create_task(loris())
        meanwhile = 0
        while closed < LORIS:
            await witness.ping()
            status, _ = await http(server.port, b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status == 200
            await (await connect(server)).hang_up()
            meanwhile += closed < LORIS
            await asyncio.sleep(0.01)
    assert meanwhile, "others were served while they were there"


# Who comes and goes


async def visit(port: int, way: int) -> None:
    """Connect and leave in one of the ways there are."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        if way == 0:  # with not even a byte
            return
        if way == 1:
            await loop.sock_sendall(sock, UPGRADE[:60])
            return
        await loop.sock_sendall(sock, UPGRADE % (b"unknown" if way == 2 else b"k"))
        greeting = b""
        while b"pusher:" not in greeting:
            read = await loop.sock_recv(sock, 4_096)
            assert read
            greeting += read
        if way == 3:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif way >= 5:
            joined = frame_bytes(TEXT, b'{"event":"pusher:subscribe","data":{"channel":"c"}}')
            await loop.sock_sendall(sock, joined)
        if way == 6:
            await loop.sock_sendall(sock, frame_bytes(0x8, b"\x03\xe8"))
            with contextlib.suppress(ConnectionError):
                while await loop.sock_recv(sock, 4_096):
                    pass


async def come_and_go(port: int, count: int) -> None:
    numbers = iter(range(count))

    async def visitor() -> None:
        for number in numbers:
            await visit(port, number % 7)

    async with asyncio.timeout(PATIENCE * 3), asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(visitor())


async def test_thousands_who_come_and_go_leave_nothing_behind(child: Child) -> None:
    async with await Wire.connect(child.port) as witness:
        await witness.subscribe("c")
        await come_and_go(child.port, 500)  # what is made once is there now
        await asyncio.sleep(0.2)
        before = await child.settled(sockets=1)
        await come_and_go(child.port, COMING)
        after = await child.settled(sockets=1, fds=before["fds"], objects=before["objects"])
        await witness.ping()
    assert after["sockets"] == 1
    assert after["fds"] <= before["fds"]
    assert after["tasks"] <= before["tasks"]
    assert after["objects"] - before["objects"] < 100, (
        "not one for each of them, nor for every 50th"
    )


# Who talks nonsense


class Complaints(logging.Handler):
    """Keeps what must not be logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.records.append(self.format(record))


@pytest.fixture(scope="module")
def complaints() -> Iterator[Complaints]:
    handler = Complaints()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def witness(server: Server) -> AsyncIterator[Wire]:
    """A healthy connection that is there all the time."""
    async with await Wire.connect(server.port) as wire:
        await wire.subscribe("news")
        yield wire


async def unharmed(server: Server, witness: Wire, complaints: Complaints) -> None:
    (hub,) = server._hubs.values()
    number = random.randrange(1_000_000)
    await witness.ping()  # all the tests together may last longer than it may be silent
    hub.trigger("news", "still-here", str(number))
    assert (await witness.event("still-here"))["data"] == number
    assert complaints.records == []


async def until_the_end(server: Server, raw: bytes) -> bytes:
    """Send bytes, say that they were all, and read what comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answer = b""
    try:
        async with asyncio.timeout(TIMEOUT):
            with contextlib.suppress(ConnectionError):
                writer.write(raw)
                await writer.drain()
                writer.write_eof()
                while read := await reader.read(65_536):
                    answer += read
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answer


FUZZ: Final = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TALK: Final = b"".join(
    frame_bytes(TEXT, text)
    for text in (
        b'{"event":"pusher:ping","data":{}}',
        b'{"event":"pusher:subscribe","data":{"channel":"abuse"}}',
        b'{"event":"pusher:subscribe","data":{"channel":"private-a","auth":"k:00"}}',
        b'{"event":"pusher:signin","data":{"auth":"k:00","user_data":"{\\"id\\":\\"1\\"}"}}',
        b'{"event":"client-e","channel":"private-a","data":{"a":[1,2,3]}}',
        b'{"event":"pusher:unsubscribe","data":{"channel":"abuse"}}',
    )
) + b"".join(
    (
        frame_bytes(TEXT, b'{"event":"pusher', fin=False),
        frame_bytes(PING, b"between"),
        frame_bytes(CONTINUATION, b':ping"}'),
        frame_bytes(BINARY, b"\xfe" * 20),
    )
)
FRAMES: Final = st.builds(
    frame_bytes,
    st.integers(0, 15),
    st.binary(max_size=200),
    fin=st.booleans(),
    rsv=st.integers(0, 7) | st.just(0),
    masked=st.booleans() | st.just(True),
)
EDIT: Final = st.tuples(st.integers(0, 2), st.integers(0, 10_000), st.binary(max_size=4))


def edited(raw: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Bytes with others put in, put over them, or taken out."""
    for kind, place, piece in edits:
        at = place % (len(raw) + 1)
        raw = raw[:at] + (b"" if kind == 2 else piece) + raw[at + (len(piece) if kind else 0) :]
    return raw


@FUZZ
@given(raw=st.binary(max_size=2_000))
async def test_any_bytes_instead_of_frames(
    server: Server, witness: Wire, complaints: Complaints, raw: bytes
) -> None:
    await until_the_end(server, UPGRADE % b"k" + raw)
    await unharmed(server, witness, complaints)


@FUZZ
@given(frames=st.lists(FRAMES, max_size=10))
async def test_any_frames(
    server: Server, witness: Wire, complaints: Complaints, frames: list[bytes]
) -> None:
    await until_the_end(server, UPGRADE % b"k" + b"".join(frames))
    await unharmed(server, witness, complaints)


@FUZZ
@given(edits=st.lists(EDIT, max_size=5))
async def test_frames_that_were_right_once(
    server: Server, witness: Wire, complaints: Complaints, edits: list[tuple[int, int, bytes]]
) -> None:
    answer = await until_the_end(server, UPGRADE % b"k" + edited(TALK, edits))
    assert b" 101 " in answer
    await unharmed(server, witness, complaints)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS: Final = st.sampled_from(
    ["event", "data", "channel", "auth", "channel_data", "user_data", "user_id", "name"]
)
DEEP: Final = st.integers(1, 5_000).map(lambda depth: "[" * depth + "]" * depth)
TEXTS: Final = st.one_of(
    JSON.map(json.dumps),
    st.dictionaries(FIELDS, JSON | st.text(max_size=20)).map(json.dumps),
    DEEP,
    DEEP.map(lambda deep: '{"event":"pusher:subscribe","data":' + deep + "}"),
    st.text(max_size=50),
)


@FUZZ
@given(texts=st.lists(TEXTS, max_size=5))
async def test_any_json(
    server: Server, witness: Wire, complaints: Complaints, texts: list[str]
) -> None:
    raw = b"".join(frame_bytes(TEXT, text.encode("utf-8", "replace")) for text in texts)
    await until_the_end(server, UPGRADE % b"k" + raw)
    await unharmed(server, witness, complaints)


ROUTES: Final = (
    *("/", "/up", "/ready", "/metrics", "/console", "/app/{}", "/apps/{}/events"),
    *("/apps/1/events", "/apps/1/batch_events", "/apps/1/channels", "/apps/1/channels/{}"),
    *("/apps/1/channels/{}/users", "/apps/1/connections", "/users/{}/terminate_connections"),
    *("/apps/1/users/{}/terminate_connections", "/apps/1/channels/{}/users/{}/kick"),
    "/apps/1/channels/{}/sockets/{}/kick",
)
BODIES: Final = st.one_of(
    st.binary(max_size=100),
    JSON.map(json.dumps).map(str.encode),
    DEEP.map(str.encode),
    st.dictionaries(
        st.sampled_from(["name", "data", "channel", "channels", "socket_id", "info", "batch"]),
        JSON | st.lists(st.dictionaries(st.sampled_from(["name", "channel", "data"]), JSON)),
    ).map(lambda body: json.dumps(body).encode()),
)
NAMES: Final = st.text(max_size=12) | st.sampled_from(["presence-a", "#server-to-user-1", "a/b"])
FIELD: Final = st.text("\x21\x7f\x80\xff:;,=abc ", max_size=20).map(lambda t: t.encode("latin-1"))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A whole request to one of the routes, signed or not."""
    route: str = draw(st.sampled_from(ROUTES))
    method: str = draw(st.sampled_from(["GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "BREW"]))
    path = route.format(*(quote(draw(NAMES), safe="") for _ in range(2)))
    query = dict(draw(st.lists(st.tuples(NAMES, NAMES), max_size=3)))
    body = draw(BODIES)
    if draw(st.booleans()):
        signature: dict[str, Any] = sign_request(
            "k", "s", method, path, timestamp=int(time.time()), body=body
        )
        query = signature | (query if draw(st.booleans()) else {})
    head = f"{method} {path}?{urlencode(query)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    more = b"X-Any: " + draw(FIELD) + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head.encode() + more + body


@FUZZ
@given(request=requests())
async def test_any_request_to_any_route(
    server: Server, witness: Wire, complaints: Complaints, request: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request)
        async with asyncio.timeout(TIMEOUT):
            answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    status = int(answer.split(b" ", 2)[1])
    assert 200 <= status < 500, answer
    await unharmed(server, witness, complaints)


@FUZZ
@given(request=requests(), edits=st.lists(EDIT, min_size=1, max_size=5))
async def test_requests_that_were_right_once(
    server: Server,
    witness: Wire,
    complaints: Complaints,
    request: bytes,
    edits: list[tuple[int, int, bytes]],
) -> None:
    await until_the_end(server, edited(request, edits))
    await unharmed(server, witness, complaints)


@FUZZ
@given(edits=st.lists(EDIT, min_size=1, max_size=5))
async def test_handshakes_that_were_right_once(
    server: Server, witness: Wire, complaints: Complaints, edits: list[tuple[int, int, bytes]]
) -> None:
    await until_the_end(server, edited(UPGRADE % b"k", edits) + TALK)
    await unharmed(server, witness, complaints)


async def test_nobody_of_them_is_still_there(server: Server, witness: Wire) -> None:
    (hub,) = server._hubs.values()
    async with asyncio.timeout(TIMEOUT):
        while len(hub.sockets) > 1:  # noqa: ASYNC110 - the last ones are on their way out
            await asyncio.sleep(0.01)
    assert list(hub.channels) == ["news"]
    await witness.ping()

"""The WebSocket side of the port, spoken to by strangers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.server.metrics import Traffic
from antiphon.server.transport import MAX_UNREAD, MAX_WRITE_BUFFER, Link, Unread, text_frame
from tests.conftest import Connect, Serve

from .wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    TIMEOUT,
    Closed,
    Frame,
    HandshakeRefused,
    Wire,
    frame_bytes,
    http,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PING_EVENT = b'{"event":"pusher:ping"}'
LIMIT = 65_536


# The handshake


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "upgrade", "Upgrade": "WebSocket"},
        {"Connection": "keep-alive, Upgrade"},  # Firefox
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
        {"User-Agent": "x" * 4_000},
    ],
    ids=["other capitals", "Firefox", "an extension", "long headers"],
)
async def test_what_browsers_send_to_connect_is_understood(
    connect: Connect, headers: dict[str, str]
) -> None:
    wire = await connect(headers=headers)
    await wire.ping()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Version": "12"}, 426),
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Sec-WebSocket-Key": "dG9vIHNob3J0"}, 400),
    ],
)
async def test_a_handshake_that_is_none_is_refused(
    server: Server, connect: Connect, headers: dict[str, str], status: int
) -> None:
    with pytest.raises(HandshakeRefused) as refused:
        await Wire.open(server.port, headers=headers)
    assert refused.value.status == status
    await (await connect()).ping()


async def test_an_error_of_our_own_is_logged_and_not_told(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(request: object) -> None:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(server._websockets, "_accept", fails)
    with pytest.raises(HandshakeRefused) as refused:
        await Wire.open(server.port)
    assert refused.value.status == 500
    assert "secret" not in str(refused.value)
    assert "a secret of ours" in caplog.text


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Sec-WebSocket-Version: 13\xcd", 426),
        (b"Sec-WebSocket-Key: \xcd", 400),
        (b"Origin: http://\xcd", 101),
        (b"X-Forwarded-For: \xcd", 101),
    ],
)
async def test_a_header_that_is_no_text_is_nothing_to_complain_about_in_the_log(
    server: Server, caplog: pytest.LogCaptureFixture, header: bytes, status: int
) -> None:
    await until(lambda: not server._websockets._open)  # other tests' have gone
    lines = {
        b"Host": b"x",
        b"Upgrade": b"websocket",
        b"Connection": b"Upgrade",
        b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version": b"13",
    }
    name, _, value = header.partition(b": ")
    lines[name] = value
    head = b"".join(b"%s: %s\r\n" % line for line in lines.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with Wire(reader, writer) as wire:
        wire.send_bytes(b"GET /app/k HTTP/1.1\r\n" + head + b"\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
    await until(lambda: not server._websockets._open)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_headers_that_are_too_large_are_refused(server: Server, connect: Connect) -> None:
    with pytest.raises(HandshakeRefused) as refused:
        await Wire.open(server.port, headers={"Cookie": "x" * 40_000})
    assert refused.value.status in (400, 431)
    await (await connect()).ping()


async def test_the_socket_of_an_http_request_may_be_upgraded_afterwards(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with Wire(reader, writer) as wire:
        wire.send_bytes(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        assert await reader.readexactly(len('{"health":"OK"}'))
        wire.send_bytes(
            b"GET /app/k HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, "the answer of RFC 6455, 1.3"
        await wire.event("pusher:connection_established")
        await wire.ping()


async def test_a_handshake_that_comes_byte_by_byte_is_read(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with Wire(reader, writer) as wire:
        for byte in (
            b"GET /app/k HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ):
            wire.send_bytes(bytes([byte]))
            await asyncio.sleep(0)
        await reader.readuntil(b"\r\n\r\n")
        await wire.event("pusher:connection_established")


async def test_http_is_answered_on_the_same_port_while_sockets_are_open(
    server: Server, connect: Connect
) -> None:
    wire = await connect()
    status, body = await http(server.port, b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, json.loads(body)) == (200, {"health": "OK"})
    await wire.ping()


# Messages, whole and in parts


@pytest.mark.parametrize(
    "raw",
    [
        frame_bytes(TEXT, PING_EVENT),
        frame_bytes(TEXT, PING_EVENT[:5], fin=False) + frame_bytes(CONTINUATION, PING_EVENT[5:]),
        frame_bytes(TEXT, b"", fin=False)
        + frame_bytes(CONTINUATION, PING_EVENT, fin=False)
        + frame_bytes(CONTINUATION, b""),
        b"".join(
            frame_bytes(CONTINUATION if n else TEXT, bytes([byte]), fin=n == len(PING_EVENT) - 1)
            for n, byte in enumerate(PING_EVENT)
        ),
        frame_bytes(TEXT, PING_EVENT + b" " * (LIMIT - len(PING_EVENT))),
        frame_bytes(TEXT, PING_EVENT + b" " * 1_000),
    ],
    ids=["whole", "two parts", "empty parts", "a part a byte", "as large as allowed", "16-bit"],
)
async def test_a_text_message_is_read_however_it_is_cut(connect: Connect, raw: bytes) -> None:
    wire = await connect()
    wire.send_bytes(raw)
    await wire.event("pusher:pong")
    await wire.ping()


async def test_a_character_may_be_cut_between_two_parts(connect: Connect) -> None:
    wire = await connect()
    await wire.join("private-room")
    other = await connect()
    await other.join("private-room")
    text = '{"event":"client-e","channel":"private-room","data":"дело 🎉"}'.encode()
    for n in range(1, len(text), 3):
        other.send_frame(TEXT if n == 1 else CONTINUATION, text[max(0, n - 3) : n], fin=False)
    cut = range(1, len(text), 3)[-1]
    other.send_frame(CONTINUATION, text[cut:])
    assert (await wire.event("client-e"))["data"] == "дело 🎉"


async def test_a_mask_is_taken_off(connect: Connect) -> None:
    wire = await connect()
    mask = b"\x12\x34\x56\x78"
    masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(PING_EVENT))
    wire.send_bytes(bytes([0x81, 0x80 | len(masked)]) + mask + masked)
    await wire.event("pusher:pong")


async def test_a_frame_may_come_byte_by_byte_and_many_at_once(connect: Connect) -> None:
    wire = await connect()
    for byte in frame_bytes(TEXT, PING_EVENT):
        wire.send_bytes(bytes([byte]))
        await asyncio.sleep(0)
    await wire.event("pusher:pong")
    wire.send_bytes(frame_bytes(TEXT, PING_EVENT) * 500)
    for _ in range(500):
        await wire.event("pusher:pong")


async def test_control_frames_may_come_between_the_parts_of_a_message(connect: Connect) -> None:
    wire = await connect()
    wire.send_frame(TEXT, PING_EVENT[:5], fin=False)
    wire.send_frame(PING, b"are you there?")
    wire.send_frame(PONG)
    assert await wire.frame() == Frame(PONG, b"are you there?")
    wire.send_frame(CONTINUATION, PING_EVENT[5:])
    await wire.event("pusher:pong")


@pytest.mark.parametrize("payload", [b"", b"\x00\xff", b"x" * 125])
async def test_a_websocket_ping_is_answered_with_its_payload(
    connect: Connect, payload: bytes
) -> None:
    wire = await connect()
    wire.send_frame(PING, payload)
    assert await wire.frame() == Frame(PONG, payload)


@pytest.mark.parametrize(
    "raw",
    [
        frame_bytes(BINARY, PING_EVENT),
        frame_bytes(BINARY, b"\xff" * 1_000),
        frame_bytes(BINARY, b"a", fin=False) + frame_bytes(CONTINUATION, b"b"),
        frame_bytes(TEXT),
    ],
    ids=["JSON", "no text", "in parts", "nothing"],
)
async def test_a_message_that_is_no_text_is_an_error_in_band(connect: Connect, raw: bytes) -> None:
    wire = await connect()
    wire.send_bytes(raw)
    assert await wire.error() == 4200
    await wire.ping()


# What breaks the WebSocket protocol ends the connection, with the code that says why


VIOLATIONS: dict[str, tuple[int, bytes]] = {
    "unmasked": (1002, frame_bytes(TEXT, PING_EVENT, masked=False)),
    "unmasked ping": (1002, frame_bytes(PING, masked=False)),
    "reserved bit 1": (1002, frame_bytes(TEXT, PING_EVENT, rsv=4)),
    "reserved bit 2": (1002, frame_bytes(TEXT, PING_EVENT, rsv=2)),
    "reserved bit 3": (1002, frame_bytes(TEXT, PING_EVENT, rsv=1)),
    "reserved bit of a ping": (1002, frame_bytes(PING, rsv=4)),
    "reserved bit of a part": (1002, frame_bytes(TEXT, b"{", fin=False, rsv=4)),
    "reserved data opcode": (1002, frame_bytes(0x3, PING_EVENT)),
    "reserved control opcode": (1002, frame_bytes(0xB)),
    "a part of nothing": (1002, frame_bytes(CONTINUATION, b"}")),
    "a message inside another": (1002, frame_bytes(TEXT, b"{", fin=False) * 2),
    "a binary message inside another": (
        1002,
        frame_bytes(TEXT, b"{", fin=False) + frame_bytes(BINARY, b"x"),
    ),
    "a ping in parts": (1002, frame_bytes(PING, b"x", fin=False)),
    "a long ping": (1002, frame_bytes(PING, b"x" * 126)),
    "a length in more bytes than needed": (1002, b"\x81\xfe\x00\x05\0\0\0\0hello"),
    "a negative length": (1002, b"\x81\xff" + (2**63).to_bytes(8) + b"\0\0\0\0"),
    "HTTP": (1002, b"GET / HTTP/1.1\r\n\r\n"),
    "invalid UTF-8": (1007, frame_bytes(TEXT, b'{"event":"\xff\xfe"}')),
    "a cut-off character": (1007, frame_bytes(TEXT, "é".encode()[:1])),
    "a surrogate": (1007, frame_bytes(TEXT, "\ud800".encode("utf-8", "surrogatepass"))),
    "invalid UTF-8 in parts": (
        1007,
        frame_bytes(TEXT, b"\xc3", fin=False) + frame_bytes(CONTINUATION, b"\xc3"),
    ),
    "too large": (1009, frame_bytes(TEXT, b"x" * (LIMIT + 1))),
    "too large, binary": (1009, frame_bytes(BINARY, b"x" * (LIMIT + 1))),
    "too large in parts": (
        1009,
        frame_bytes(TEXT, b"x" * LIMIT, fin=False) + frame_bytes(CONTINUATION, b"x"),
    ),
    "too large to be true": (1009, b"\x81\xff" + (2**62).to_bytes(8) + b"\0\0\0\0"),
    "a close frame with half a code": (1002, frame_bytes(CLOSE, b"\x03")),
    "a close frame with a code for nobody": (1002, frame_bytes(CLOSE, (1005).to_bytes(2))),
    "a close frame with a code out of range": (1002, frame_bytes(CLOSE, (999).to_bytes(2))),
    "a close frame with a reason that is no text": (
        1007,
        frame_bytes(CLOSE, (1000).to_bytes(2) + b"\xff"),
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_breaking_the_websocket_protocol_is_answered_with_its_close_code(
    connect: Connect, name: str
) -> None:
    code, raw = VIOLATIONS[name]
    wire, other = await connect(), await connect()
    wire.send_bytes(raw)
    with pytest.raises(Closed) as closed:
        await wire.message()
    assert closed.value.code == code
    assert closed.value.reason, "a person reads this"
    wire.send_close(code)
    await wire.end()
    await other.ping()


async def test_a_limit_of_its_own_holds_for_each_application(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(max_message_size=100)
    wire = await connect(server)
    wire.send_text('{"event":"pusher:ping"}'.ljust(100))
    await wire.event("pusher:pong")
    wire.send_text('{"event":"pusher:ping"}'.ljust(101))
    closed = await wire.closed()
    assert closed.code == 1009


async def test_nothing_is_written_after_a_close_frame(server: Server, connect: Connect) -> None:
    wire = await connect()
    await wire.subscribe("news")
    wire.send_bytes(frame_bytes(TEXT, PING_EVENT, masked=False))
    assert (await wire.closed()).code == 1002
    # picows hangs up a moment after its close frame; an event may fall into that moment.
    (hub,) = server._hubs.values()
    hub.deliver("news", b'{"event":"late"}')
    with pytest.raises(Closed) as closed:
        await wire.frame()
    assert closed.value.code is None


# Closing


@pytest.mark.parametrize(
    ("payload", "answer"),
    [(b"", 1000), (b"\x03\xe8bye", 1000), (b"\x03\xe9", 1001), (b"\x0f\xa0", 4000)],
)
async def test_a_client_that_closes_gets_its_code_back(
    connect: Connect, payload: bytes, answer: int
) -> None:
    wire = await connect()
    wire.send_frame(CLOSE, payload)
    assert (await wire.closed()).code == answer
    await wire.end()


async def test_a_client_that_is_closed_and_says_nothing_is_hung_up_on(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.server.transport.CLOSE_TIMEOUT", 0.01)
    server = await serve(max_message_size=10)
    wire = await connect(server)
    wire.send_text("x" * 11)
    assert (await wire.closed()).code == 1009
    await wire.end()


async def test_after_a_close_frame_nothing_more_is_read(connect: Connect) -> None:
    wire, other = await connect(), await connect()
    await other.join("private-room")
    await wire.join("private-room")
    whisper = b'{"event":"client-%d","channel":"private-room","data":{}}'
    wire.send_bytes(
        frame_bytes(TEXT, whisper % 1)
        + frame_bytes(TEXT, b"\xff")
        + frame_bytes(TEXT, whisper % 2)
        + frame_bytes(CLOSE, b"\x03\xe8")
    )
    assert (await wire.closed()).code == 1007
    await other.event("client-1")
    await other.ping()


class FakeTransport:
    """Stands in for picows's transport: keeps what it is told."""

    request = SimpleNamespace()
    response = SimpleNamespace()

    def __init__(self) -> None:
        self.closed_with: list[tuple[int, bytes]] = []
        self.is_close_frame_sent = False
        self.underlying_transport: Any = self

    def write(self, frames: bytes) -> None:
        raise AssertionError("nothing is to be written")

    def send_close(self, code: int, reason: bytes = b"") -> None:
        self.closed_with.append((code, reason))
        self.is_close_frame_sent = True

    def disconnect(self, graceful: bool = True) -> None:
        pass

    def set_write_buffer_limits(self, high: int) -> None:
        pass


async def test_a_long_reason_is_cut_between_characters_to_what_a_close_frame_holds() -> None:
    link, transport = Link(LIMIT, Traffic()), FakeTransport()
    link.on_ws_connected(transport)  # type: ignore[arg-type]
    link.close(4001, "я" * 100)
    link.close(4200, "once is enough")
    assert transport.closed_with == [(4001, ("я" * 61).encode())]
    link.write(b"after the end")


async def test_a_link_that_is_not_connected_yet_closes_silently() -> None:
    Link(LIMIT, Traffic()).close(4001, "too early")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
async def test_a_text_frame_has_the_length_in_the_shortest_form(size: int) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(text_frame(b"x" * size))
    reader.feed_eof()
    wire = Wire(reader, None)  # type: ignore[arg-type]  # only read from
    assert await wire.frame() == Frame(TEXT, b"x" * size)
    assert await reader.read() == b""
    head = 2 if size < 126 else 4 if size < 65_536 else 10
    assert len(text_frame(b"x" * size)) == head + size


# Strangers who take more than their share


async def test_a_slow_reader_is_closed_with_4100_and_the_others_go_on(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(max_event_size=200_000)
    slow, other = await connect(server), await connect(server)
    await slow.subscribe("news")
    await other.subscribe("news")
    (hub,) = server._hubs.values()
    link = hub.sockets[slow.socket_id]._link  # type: ignore[attr-defined]
    transport = link._transport.underlying_transport
    slow.stop_reading()
    largest = 0
    async with Publisher(server.settings()) as publisher:
        for _ in range(200):
            await publisher.trigger("news", "large", "x" * 100_000)
            await other.event("large")
            largest = max(largest, transport.get_write_buffer_size())
        assert largest < 2 * MAX_WRITE_BUFFER, "20 MB are not kept for who reads nothing"
        slow.resume_reading()
        assert (await slow.closed()).code == 4100
        await publisher.trigger("news", "goes-on", "")
        await other.event("goes-on")


class SlowTransport(FakeTransport):
    """Takes what is written, and says when that is too much, as asyncio does."""

    def __init__(self, link: Link, room: int) -> None:
        super().__init__()
        self.link = link
        self.room = room
        self.written = b""

    def write(self, frames: bytes) -> None:
        assert not self.closed_with, "nothing follows a close frame"
        self.written += frames
        self.room -= len(frames)
        if self.room < 0:
            self.link.pause_writing()

    def read(self, room: int) -> None:
        """The peer has read everything, and has room for so much more."""
        self.room = room
        self.link.resume_writing()


def slow_link(unread: Unread, room: int = 0) -> tuple[Link, SlowTransport]:
    link = Link(LIMIT, Traffic())
    link.unread = unread
    transport = SlowTransport(link, room)
    link.on_ws_connected(transport)  # type: ignore[arg-type]
    return link, transport


async def test_what_waits_for_a_slow_reader_goes_out_in_order_as_it_reads() -> None:
    unread = Unread(MAX_UNREAD)
    link, transport = slow_link(unread)
    sent = b""
    for number in range(50):
        frame = b"%02d" % number * (1 if number % 3 else 20_000)
        sent += frame
        link.write(frame)
    assert transport.written == sent[:40_000]
    assert unread.links == {link}
    steps = 0
    while transport.written != sent:
        before = len(transport.written)
        transport.read(room=1)
        steps += 1
        assert 0 < len(transport.written) - before <= 65_536, "the loop's queue stays short"
        assert unread.size == link.unread_size >= len(sent) - len(transport.written)
    assert 10 <= steps < 20
    transport.read(room=100)
    assert (unread.size, unread.links) == (0, set())
    link.write(b"at once")
    assert transport.written.endswith(b"at once")


async def test_a_reader_that_catches_up_at_once_gets_everything() -> None:
    unread = Unread(MAX_UNREAD)
    link, transport = slow_link(unread)
    for number in range(1_000):
        link.write(b"%03d" % number)
    transport.read(room=1_000_000)
    assert transport.written == b"".join(b"%03d" % number for number in range(1_000))
    assert (unread.size, unread.links) == (0, set())


async def test_when_all_together_leave_too_much_who_is_furthest_behind_is_closed_first() -> None:
    unread = Unread(100_000)
    behind = [slow_link(unread) for _ in range(10)]
    for link, _ in behind:
        link.write(b"first, which the system takes")
    for number, (link, _) in enumerate(behind):
        for _ in range(number):
            link.write(b"x" * 2_000)
    assert unread.size == 45 * 2_064
    behind[0][0].write(b"x" * 7_056)
    assert unread.size == unread.limit
    assert not any(transport.closed_with for _, transport in behind)
    behind[1][0].write(b"")
    closed = [number for number, (_, transport) in enumerate(behind) if transport.closed_with]
    assert closed == [8, 9], "with these two a quarter is free"
    assert [transport.closed_with[0][0] for _, transport in behind[8:]] == [4100, 4100]
    assert behind[9][0]._traffic.slow == 1
    assert unread.size == sum(link.unread_size for link, _ in behind) <= 75_000
    assert unread.links == {link for link, _ in behind[:8]}
    assert behind[9][1].written == b"first, which the system takes", "the rest is forgotten"


async def test_small_frames_count_with_what_it_costs_to_keep_them() -> None:
    link, transport = slow_link(Unread(MAX_UNREAD))
    link.write(b"first")
    pongs = 0
    while not transport.closed_with:
        link.write(b"\x8a\0")
        pongs += 1
    assert 10_000 < pongs < 20_000, "not half a million"


@pytest.mark.parametrize("how", ["close", "disconnect", "fail", "peer closes"])
async def test_who_is_gone_counts_no_more(how: str) -> None:
    unread = Unread(MAX_UNREAD)
    link, transport = slow_link(unread)
    link.write(b"first")
    link.write(b"second")
    match how:
        case "close":
            link.close(4200, "Going down")
            assert transport.written == b"firstsecond", "what was meant for it is said before"
        case "disconnect":
            link.on_ws_disconnected(transport)  # type: ignore[arg-type]
        case "fail":
            transport.is_close_frame_sent = True  # picows has found a violation
            assert link.has_failed()
            assert not link.has_failed(), "once is enough"
            assert transport.written == b"first", "nothing follows a close frame"
        case "peer closes":
            link.on_ws_frame(transport, _close_frame())  # type: ignore[arg-type]
    assert (unread.size, unread.links) == (0, set())
    transport.closed_with.clear()
    transport.read(room=100)
    link.pause_writing()
    link.write(b"third")
    assert (unread.size, unread.links) == (0, set())
    assert b"third" not in transport.written


def _close_frame() -> Any:
    class CloseFrame:
        msg_type = CLOSE
        rsv1 = rsv2 = rsv3 = False
        payload_size = 0

    return CloseFrame()


async def test_the_readers_of_a_server_together_have_room_for_so_much(
    monkeypatch: pytest.MonkeyPatch, serve: Serve, connect: Connect
) -> None:
    monkeypatch.setattr("antiphon.server.transport.MAX_UNREAD", 500_000)
    server = await serve(max_event_size=200_000)
    other, *slow = [await connect(server, narrow=n > 0) for n in range(6)]
    (hub,) = server._hubs.values()
    for wire in (other, *slow):
        await wire.subscribe("news")
        link = hub.sockets[wire.socket_id]._link  # type: ignore[attr-defined]
        at = link._transport.underlying_transport.get_extra_info("socket")
        at.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    for wire in slow:
        wire.stop_reading()
    unread, largest = server._websockets.unread, 0
    async with Publisher(server.settings()) as publisher:
        for _ in range(30):
            await publisher.trigger("news", "large", "x" * 50_000)
            await other.event("large")
            largest = max(largest, unread.size)
        assert 300_000 < largest <= 500_000
        slow[0].resume_reading()
        ends = [wire async for wire in _closed_among(slow)]
        assert len(ends) == 5, "1.5 MB are more than there is room for, for each of them"
        await until(lambda: not unread.size)
        await publisher.trigger("news", "goes-on", "")
        await other.event("goes-on")


async def _closed_among(wires: list[Wire]) -> AsyncIterator[Wire]:
    for wire in wires:
        wire.resume_reading()
        if (await wire.closed()).code in (4100, None):
            yield wire


async def test_who_is_still_sending_learns_why_it_was_closed(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.server.transport.CLOSE_TIMEOUT", 600.0)
    (hub,) = server._hubs.values()
    wire = await connect()
    wire.send_bytes(b"\x81\xff" + (2**30).to_bytes(8) + bytes(4))
    await until(lambda: wire.socket_id not in hub.sockets)
    for _ in range(10):  # longer than picows gives it
        wire.send_bytes(b"x" * 65_536)
        await wire.drained()
        await asyncio.sleep(0.01)
    assert (await wire.closed()).code == 1009
    await wire.end()


async def test_a_violation_of_one_that_does_not_read_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, server: Server, connect: Connect
) -> None:
    monkeypatch.setattr("antiphon.server.transport.CLOSE_TIMEOUT", 0.2)
    (hub,) = server._hubs.values()
    wire = await connect(narrow=True)
    await wire.subscribe("of-one")
    link = hub.sockets[wire.socket_id]._link  # type: ignore[attr-defined]
    transport = link._transport.underlying_transport
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    wire.stop_reading()
    while not link.unread_size:
        hub.deliver("of-one", b" " * 50_000)
        await asyncio.sleep(0)
    wire.send_frame(0xB)
    await until(lambda: wire.socket_id not in hub.sockets)
    assert "of-one" not in hub.channels, "it has left at once"
    assert not link.unread_size
    await until(lambda: transport.get_extra_info("socket").fileno() < 0)


FLOODS = {
    "pusher:ping": frame_bytes(TEXT, PING_EVENT) * 4_000,
    "errors": frame_bytes(TEXT, b"x") * 4_000,
    "long pings": frame_bytes(PING, b"x" * 125) * 1_000,
    "empty pings": frame_bytes(PING) * 4_000,
}


@pytest.mark.parametrize("name", FLOODS)
async def test_the_answers_that_a_slow_reader_provokes_are_bounded_too(
    server: Server, connect: Connect, name: str
) -> None:
    (hub,) = server._hubs.values()
    wire, other = await connect(narrow=True), await connect()
    link = hub.sockets[wire.socket_id]._link  # type: ignore[attr-defined]
    transport = link._transport.underlying_transport
    # The two systems would keep some 6 MB on their own before the server has to.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    wire.stop_reading()
    sent = largest = 0
    longest = 0.0
    while sent < 5_000_000:
        wire.send_bytes(FLOODS[name])
        sent += len(FLOODS[name])
        started = time.process_time()
        with contextlib.suppress(ConnectionError, TimeoutError):
            await wire.drained()
        await other.ping()
        longest = max(longest, time.process_time() - started)
        largest = max(largest, transport.get_write_buffer_size())
        assert largest < 2 * MAX_WRITE_BUFFER, "memory is not for strangers to take"
        # From Python 3.12 on, asyncio adds its queue of writes up at every write.
        assert longest < 2, "nor is everybody's time"
        if transport.is_closing():
            break


async def test_a_message_in_very_many_parts_holds_nobody_up(connect: Connect) -> None:
    wire, other = await connect(), await connect()
    parts = 30_000
    started = time.process_time()
    wire.send_bytes(
        frame_bytes(TEXT, b" ", fin=False)
        + frame_bytes(CONTINUATION, b" ", fin=False) * parts
        + frame_bytes(CONTINUATION, PING_EVENT)
    )
    await wire.drained()
    await other.ping()
    await wire.event("pusher:pong")
    # Read in linear time this takes a tenth of a second.
    assert time.process_time() - started < 2


async def test_parts_without_content_are_not_kept_for_ever(connect: Connect) -> None:
    wire, other = await connect(), await connect()
    wire.send_bytes(frame_bytes(TEXT, fin=False))
    empty = frame_bytes(CONTINUATION, fin=False) * 10_000
    for _ in range(3):
        wire.send_bytes(empty)
        await wire.drained()
    await other.ping()
    wire.send_frame(CONTINUATION, PING_EVENT)
    wire.send_close()
    assert (await wire.closed()).code in (1000, 1002, 1008, 1009, 4100), "taken or refused"


async def test_hanging_up_at_any_moment_leaves_nothing_behind(
    server: Server, connect: Connect
) -> None:
    (hub,) = server._hubs.values()
    request = (
        b"GET /app/k HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    conversation = request + frame_bytes(
        TEXT, b'{"event":"pusher:subscribe","data":{"channel":"c"}}'
    )
    await until(lambda: not hub.sockets)  # other tests' have gone
    for length in range(0, len(conversation), 7):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(conversation[:length])
        writer.close()
        await writer.wait_closed()
    witness = await connect()
    await witness.ping()
    await until(lambda: len(hub.sockets) == 1)
    assert "c" not in hub.channels

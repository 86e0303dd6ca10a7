"""Dialling, in all the ways in which it can fail, and frames in and out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from antiphon.client import transport
from antiphon.client.transport import Link, dial
from antiphon.errors import Unreachable
from antiphon.protocol.frames import Event
from antiphon.server import Server
from antiphon.settings import App
from tests.server.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, TIMEOUT, until

from .linked import soon
from .peer import Dial, Peer, server_tls, trusting_tls


class Recorder:
    """Keeps what a link says."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.signs_of_life = 0
        self.link: Link | None = None
        self.ends: list[tuple[int | None, str]] = []

    def receive(self, payload: bytes, now: float) -> None:
        self.got.append(payload)

    def deliver(self, event: Event) -> None:
        raise AssertionError(event)

    def handle(self, received: object) -> None:
        assert received is None

    def connected(self, link: Link) -> None:
        assert self.link is None
        self.link = link

    def alive(self) -> None:
        self.signs_of_life += 1

    def disconnected(self, code: int | None, reason: str) -> None:
        self.ends.append((code, reason))


class Line:
    """A link, what it says, and the peer's end."""

    def __init__(self, link: Link, recorder: Recorder, dial: Dial) -> None:
        self.link = link
        self.recorder = recorder
        self.peer = dial

    async def ended(self) -> tuple[int | None, str]:
        await until(lambda: self.recorder.ends)
        (end,) = self.recorder.ends
        return end

    async def got(self, count: int) -> list[bytes]:
        await until(lambda: len(self.recorder.got) >= count)
        return self.recorder.got


@contextlib.asynccontextmanager
async def a_line(at: Peer | None = None, **options: Any) -> AsyncIterator[Line]:
    async with contextlib.AsyncExitStack() as stack:
        peer = Peer() if at is None else at
        if at is None:
            await stack.enter_async_context(peer)
        recorder = Recorder()
        url = peer.settings().websocket_url
        dialling = asyncio.ensure_future(dial(url, recorder, timeout=5, **options))
        end = await peer.dial()
        await end.upgrade()
        link = await soon(dialling)
        try:
            yield Line(link, recorder, end)
        finally:
            link.abort()
            await until(lambda: recorder.ends)


async def failure(url: str, timeout: float = 5, **options: Any) -> Unreachable:
    recorder = Recorder()
    with pytest.raises(Unreachable) as caught:
        await dial(url, recorder, timeout=timeout, **options)
    assert recorder.ends == [], "what never was does not end"
    text = str(caught.value)
    assert text.isprintable(), f"one clear line: {text!r}"
    return caught.value


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that answers no SYN: its queue is full, and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


# Dialling


async def test_the_upgrade_asks_for_the_path_and_query_and_brings_the_headers() -> None:
    async with Peer() as peer, a_line(peer, headers={"X-Request-ID": "7", "Origin": "x"}) as line:
        assert line.peer.path.startswith("/app/k?protocol=7&client=antiphon-python&version=")
        assert line.peer.headers["x-request-id"] == "7"
        assert line.peer.headers["origin"] == "x"
        assert line.peer.headers["host"] == f"127.0.0.1:{peer.port}"
        assert "sec-websocket-protocol" not in line.peer.headers
        assert "sec-websocket-extensions" not in line.peer.headers


async def test_a_server_is_reached_over_ipv6() -> None:
    async with Server(App(id="1", key="k", secret="s"), host="::1") as server:
        recorder = Recorder()
        link = await dial(server.settings().websocket_url, recorder, timeout=5)
        await until(lambda: recorder.got)
        link.close()
        await until(lambda: recorder.ends)


async def test_a_server_is_reached_over_tls() -> None:
    async with Peer(tls=server_tls()) as peer, a_line(peer, ssl_context=trusting_tls()) as line:
        line.peer.send_text("over TLS")
        assert await line.got(1) == [b"over TLS"]
        line.link.send(b"and back")
        assert await line.peer.text() == "and back"


async def test_a_certificate_that_is_not_trusted_is_told() -> None:
    async with Peer(tls=server_tls()) as peer:
        error = await failure(peer.settings().websocket_url)
        assert f"The certificate of 127.0.0.1:{peer.port} is not trusted" in str(error)


async def test_a_certificate_for_another_name_is_told() -> None:
    context = trusting_tls()
    async with Peer(tls=server_tls()) as peer:
        url = peer.settings(host="127.0.0.2").websocket_url
        with pytest.raises(Unreachable, match=r"Nothing listens|not trusted"):
            await dial(url, Recorder(), timeout=5, ssl_context=context)
    assert context.check_hostname


async def test_a_server_without_tls_is_told_from_one_with() -> None:
    async def plain(end: Dial) -> None:
        end.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with Peer(plain) as peer:
        error = await failure(peer.settings(scheme="https").websocket_url)
        assert "does not speak TLS" in str(error)
        assert "is the scheme http" in str(error)


async def test_a_tls_server_that_is_not_asked_for_tls_is_told() -> None:
    async def alert(end: Dial) -> None:
        end.send_bytes(b"\x15\x03\x03\x00\x02\x02\x46")  # what OpenSSL says to plain HTTP

    async with Peer(alert) as peer:
        error = await failure(peer.settings().websocket_url)
        assert "is the scheme right" in str(error)


async def test_a_port_where_nobody_listens_is_told(closed_port: int) -> None:
    error = await failure(f"ws://127.0.0.1:{closed_port}/app/k")
    assert f"Nothing listens on 127.0.0.1:{closed_port}" in str(error)
    assert error.code is None


async def test_a_name_with_several_addresses_where_nobody_listens_is_told(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    error = await failure(f"ws://both.test:{closed_port}/app/k")
    assert f"Nothing listens on both.test:{closed_port}" in str(error)


async def test_the_second_address_of_a_name_is_tried_when_the_first_does_not_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Peer() as peer:

        def both(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", peer.port, 0, 0)),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", peer.port)),
            ]

        monkeypatch.setattr(socket, "getaddrinfo", both)
        async with a_line(peer) as line:
            line.peer.send_text("here")
            assert await line.got(1) == [b"here"]


async def test_a_name_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = await failure("ws://no-such-host.invalid:80/app/k")
    assert "The name no-such-host.invalid cannot be found" in str(error)


async def test_a_network_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unreachable(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr(transport, "ws_connect", unreachable)
    error = await failure("ws://192.0.2.1:80/app/k")
    assert "192.0.2.1:80 cannot be reached" in str(error)
    assert "unreachable" in str(error)


async def test_a_firewall_that_swallows_everything_is_not_waited_for_long(
    black_hole: int,
) -> None:
    error = await failure(f"ws://127.0.0.1:{black_hole}/app/k", timeout=0.1)
    assert f"127.0.0.1:{black_hole} did not answer in 0.1 seconds" in str(error)
    assert "firewall" in str(error)


async def test_a_server_that_says_nothing_is_not_waited_for_long() -> None:
    async with Peer() as peer:
        error = await failure(peer.settings().websocket_url, timeout=0.1)
        assert "did not answer in 0.1 seconds" in str(error)
        await (await peer.dial()).end()


async def test_half_an_answer_is_not_waited_for_long() -> None:
    async def half(end: Dial) -> None:
        head = await end.request()
        end.send_bytes(head[:40])
        await end.end()

    async with Peer(half) as peer:
        error = await failure(peer.settings().websocket_url, timeout=0.1)
        assert "did not answer in 0.1 seconds" in str(error)


async def test_tls_that_is_never_begun_is_not_waited_for_long() -> None:
    async with Peer() as peer:
        error = await failure(peer.settings(scheme="https").websocket_url, timeout=0.1)
        assert "did not answer in 0.1 seconds" in str(error)


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (200, "is it a Pusher server"),
        (301, "is the scheme https there"),
        (302, "it redirects"),
        (401, "credentials"),
        (403, "a proxy or firewall forbids it"),
        (404, "is the path right"),
        (407, "is it a Pusher server"),
        (426, "is it a Pusher server"),
        (500, "is it a Pusher server"),
        (502, "no server behind it"),
        (503, "not ready"),
        (504, "is it a Pusher server"),
    ],
)
async def test_plain_http_is_told_with_its_status_and_what_it_may_mean(
    status: int, hint: str
) -> None:
    async def answer(end: Dial) -> None:
        await end.answer(status, "<html>", Location="http://127.0.0.1:1/elsewhere")

    async with Peer(answer) as peer:
        error = await failure(peer.settings().websocket_url)
        assert error.code == status
        assert f"127.0.0.1:{peer.port} answered {status} instead of a WebSocket" in str(error)
        assert hint in str(error)
        assert len(peer.dials) == 1, "a redirect is not followed"


async def test_a_status_that_only_one_proxy_knows_is_told_too() -> None:
    async def answer(end: Dial) -> None:
        await end.answer(521)

    async with Peer(answer) as peer:
        assert "521" in str(await failure(peer.settings().websocket_url))


async def test_a_question_is_not_ended_with_a_full_stop() -> None:
    async def answer(end: Dial) -> None:
        await end.answer(404)

    async with Peer(answer) as peer:
        assert not str(await failure(peer.settings().websocket_url)).endswith("?.")


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00\x01\x02\xff\r\n\r\n",
        b"two\nlines \x1b[31mand colour\r\n\r\n",
        b"HTTP/1.1 101\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 101 S\r\nno colon\r\n\r\n",
        b"HTTP/1.1 101 S\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"x" * 40_000,
    ],
    ids=lambda raw: repr(raw[:24]),
)
async def test_garbage_is_told_in_one_line(raw: bytes) -> None:
    async def garbage(end: Dial) -> None:
        await end.request()
        end.send_bytes(raw)
        await end.end()

    async with Peer(garbage) as peer:
        error = await failure(peer.settings().websocket_url)
        assert f"127.0.0.1:{peer.port} is no WebSocket server" in str(error)
        assert len(str(error)) < 250


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 101 Switching", b"SSH-2.0-OpenSSH\r\n"])
async def test_a_server_that_hangs_up_during_the_upgrade_is_told(raw: bytes) -> None:
    async def hang_up(end: Dial) -> None:
        await end.request()
        end.send_bytes(raw)

    async with Peer(hang_up) as peer:
        error = await failure(peer.settings().websocket_url)
        assert "hung up instead of answering" in str(error)


async def test_a_server_that_resets_the_connection_is_told() -> None:
    async def reset(end: Dial) -> None:
        await end.request()
        end.abort()

    async with Peer(reset) as peer:
        assert f"127.0.0.1:{peer.port}" in str(await failure(peer.settings().websocket_url))


async def test_a_header_cannot_smuggle_in_another() -> None:
    async with Peer() as peer:
        headers = {"X-One": "1\r\nX-Two: 2"}
        url = peer.settings().websocket_url
        dialling = asyncio.ensure_future(dial(url, Recorder(), timeout=5, headers=headers))
        done, _ = await asyncio.wait([dialling], timeout=0.05)
        if not done:
            end = await peer.dial()
            await end.upgrade()
            (await soon(dialling)).abort()
            assert "x-two" not in end.headers
        else:
            assert isinstance(dialling.exception(), Unreachable | ValueError)


@pytest.mark.parametrize("step", ["connecting", "upgrading", "in TLS"])
async def test_a_dial_that_is_cancelled_lets_go_of_its_socket_at_once(step: str) -> None:
    async with Peer() as peer:
        settings = peer.settings(scheme="https" if step == "in TLS" else "http")
        dialling = asyncio.ensure_future(dial(settings.websocket_url, Recorder(), timeout=60))
        if step == "connecting":
            await asyncio.sleep(0)
        else:
            end = await peer.dial()
            if step == "upgrading":
                await end.request()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        if step != "connecting":
            async with asyncio.timeout(TIMEOUT):
                await end.end()


async def test_a_dial_that_was_given_up_does_not_come_alive_later() -> None:
    async with Peer() as peer:
        recorder = Recorder()
        dialling = asyncio.ensure_future(dial(peer.settings().websocket_url, recorder, timeout=60))
        end = await peer.dial()
        head = await end.request()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        end.send_bytes(head)
        end.send_text("too late")
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(0.1):
                await end.end()
        assert recorder.got == []


# What comes in


async def test_text_comes_in_whole_and_in_order() -> None:
    async with a_line() as line:
        for text in ("one", "", "drei äöü 🎵"):
            line.peer.send_text(text)
        assert await line.got(3) == [b"one", b"", "drei äöü 🎵".encode()]


async def test_a_message_in_parts_comes_in_whole() -> None:
    async with a_line() as line:
        line.peer.send_frame(TEXT, b"one ", fin=False)
        line.peer.send_frame(CONTINUATION, b"two ", fin=False)
        line.peer.send_frame(PING, b"?")
        line.peer.send_frame(CONTINUATION, b"three")
        line.peer.send_text("next")
        assert await line.got(2) == [b"one two three", b"next"]


@pytest.mark.parametrize("size", [2, 125, 126, 200])
async def test_a_binary_message_is_taken_as_text(size: int) -> None:
    async with a_line() as line:
        line.peer.send_frame(BINARY, b"x" * size)
        line.peer.send_frame(BINARY, b"y" * size, fin=False)
        line.peer.send_frame(CONTINUATION, b"z" * size)
        line.peer.send_text("text")
        assert await line.got(3) == [b"x" * size, b"y" * size + b"z" * size, b"text"]


async def test_a_ping_is_answered_and_a_sign_of_life() -> None:
    async with a_line() as line:
        line.peer.send_frame(PING, b"are you there")
        assert await line.peer.frame() == (PONG, b"are you there")
        line.peer.send_frame(PONG)
        await until(lambda: line.recorder.signs_of_life == 2)


async def test_a_continuation_of_nothing_is_a_protocol_error() -> None:
    async with a_line() as line:
        line.peer.send_frame(CONTINUATION, b"of what")
        assert (await line.peer.closed()).code == 1002


async def test_a_message_that_grows_beyond_all_bounds_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "MAX_MESSAGE_SIZE", 1000)
    async with a_line() as line:
        line.peer.send_frame(TEXT, b"x" * 600, fin=False)
        line.peer.send_frame(CONTINUATION, b"x" * 600, fin=False)
        assert (await line.peer.closed()).code == 1009
        assert line.recorder.got == []


async def test_a_frame_that_is_too_large_is_not_even_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "MAX_MESSAGE_SIZE", 1000)
    async with a_line() as line:
        line.peer.send_frame(TEXT, b"x" * 1001)
        assert (await line.peer.closed()).code == 1009
        assert line.recorder.got == []


@pytest.mark.parametrize(
    "frame",
    [
        {"opcode": TEXT, "payload": b"masked", "masked": True},
        {"opcode": 0x3, "payload": b"reserved opcode"},
        {"opcode": PING, "payload": b"x" * 126},
        {"opcode": PING, "payload": b"x", "fin": False},
        {"opcode": CLOSE, "payload": b"\x03"},
        {"opcode": CLOSE, "payload": b"\x00\x05not a code"},
        {"opcode": CLOSE, "payload": b"\x03\xe8\xff\xfe"},
    ],
    ids=str,
)
async def test_a_frame_that_breaks_the_rules_ends_the_connection_and_nothing_else(
    frame: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with a_line() as line:
        line.peer.send_frame(frame.pop("opcode"), **frame)
        assert (await line.peer.closed()).code in (1002, 1007)
        await line.peer.hang_up()
        await line.ended()
    assert not [
        record for record in caplog.records if record.exc_info and "antiphon" in record.name
    ]


async def test_a_peer_that_breaks_the_rules_is_not_complained_of_by_asyncio() -> None:
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
    async with a_line() as line:
        line.peer.send_frame(TEXT, b"masked", masked=True)
        await line.peer.closed()
        await line.peer.hang_up()
        await line.ended()
        link = weakref.ref(line.link)
    del line
    # A future whose exception nobody has looked at says so when it goes, after the socket.
    await until(lambda: gc.collect() >= 0 and link() is None)
    await until(lambda: gc.collect() >= 0 and transport_timers() == [])
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize("splits", [1, 2, 3, 7])
async def test_frames_may_be_cut_anywhere(splits: int) -> None:
    from tests.server.wire import frame_bytes

    texts = [b"a", b"b" * 125, b"c" * 126, b"d" * 300]
    raw = b"".join(frame_bytes(TEXT, text, masked=False) for text in texts)
    async with a_line() as line:
        for start in range(0, len(raw), splits):
            line.peer.send_bytes(raw[start : start + splits])
            if start % 50 == 0:
                await asyncio.sleep(0)
        assert await line.got(4) == texts


# The end


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        (1000, "bye", (1000, "bye")),
        (1001, "", (1001, "")),
        (1011, "äöü", (1011, "äöü")),
        (3000, "", (3000, "")),
        (4001, "Application does not exist", (4001, "Application does not exist")),
        (4200, "", (4200, "")),
        (4999, "x" * 123, (4999, "x" * 123)),
        (None, "", (None, "")),
    ],
)
async def test_the_peers_close_code_and_words_are_told(
    code: int | None, reason: str, told: tuple[int | None, str]
) -> None:
    async with a_line() as line:
        line.peer.send_close(code, reason)
        assert (await line.peer.closed()).code in (1000, code), "it is answered"
        assert await line.ended() == told


async def test_an_end_without_a_close_frame_has_no_code() -> None:
    async with a_line() as line:
        await line.peer.hang_up()
        assert await line.ended() == (None, "")


async def test_a_reset_has_no_code() -> None:
    async with a_line() as line:
        line.peer.abort()
        assert await line.ended() == (None, "")


async def test_closing_says_goodbye_and_waits_for_the_answer() -> None:
    async with a_line() as line:
        line.link.close(1000, "bye")
        line.link.close(1001, "only once")
        closed = await line.peer.closed()
        assert (closed.code, closed.reason) == (1000, "bye")
        assert line.recorder.ends == []
        line.peer.send_close(1000)
        await line.ended()


async def test_a_peer_that_does_not_answer_goodbye_is_left_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "CLOSE_TIMEOUT", 0.05)
    async with a_line() as line:
        line.link.close()
        assert await line.ended() == (None, "")


async def test_words_that_are_too_long_for_a_close_frame_are_cut() -> None:
    async with a_line() as line:
        line.link.close(1000, "ä" * 100)
        opcode, payload = await line.peer.frame()
        assert opcode == CLOSE
        assert len(payload) <= 125
        assert "ä" * 50 in payload[2:].decode("utf-8", "strict")


async def test_nothing_is_sent_and_nothing_fails_once_the_connection_is_gone() -> None:
    async with a_line() as line:
        await line.peer.hang_up()
        await line.ended()
        line.link.send(b"into the void")
        line.link.read(False)
        line.link.read(True)
        line.link.close()
        line.link.abort()


async def test_no_timer_outlives_a_connection_that_was_closed() -> None:
    async with a_line() as line:
        line.link.close()
        await line.peer.closed()
        line.peer.send_close(1000)
        await line.ended()
        assert transport_timers() == []


def transport_timers() -> list[Any]:
    """Timers that hold on to a picows transport or a link."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return [
        handle
        for handle in scheduled
        if not handle.cancelled() and "picows" in repr(handle._callback)
    ]


# Reading


async def test_a_link_that_does_not_read_lets_the_peer_wait() -> None:
    async with a_line() as line:
        line.link.read(False)
        line.peer.send_text("later")
        line.peer.send_bytes(b"")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await line.got(1)
        line.link.read(True)
        assert await line.got(1) == [b"later"]


async def test_a_link_that_does_not_read_sees_the_answer_to_its_goodbye() -> None:
    async with a_line() as line:
        line.link.read(False)
        line.link.close(1000)
        await line.peer.closed()
        line.peer.send_close(1000)
        async with asyncio.timeout(TIMEOUT):
            await line.ended()


def test_the_usual_context_checks_certificates() -> None:
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED

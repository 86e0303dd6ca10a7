"""WebSocket connections: picows under uvicorn.

uvicorn answers HTTP and hands every upgrade request to `WebSockets`; from there on the socket is
picows's. `WSProtocol` is the one name that picows does not export at top level: it is
used here and nowhere else, `pyproject.toml` pins its version, and a test covers it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from urllib.parse import unquote

from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # not in its stubs

if TYPE_CHECKING:
    from .metrics import Traffic

__all__ = ["Link", "Receiver", "Request", "WebSockets", "text_frame"]

log = logging.getLogger("antiphon.server")

HANDSHAKE_TIMEOUT: Final = 10.0
CLOSE_TIMEOUT: Final = 5.0
MAX_WRITE_BUFFER: Final = 1024 * 1024
"""Bytes that one connection may leave unread."""
MAX_UNREAD: Final = 64 * 1024 * 1024
"""Bytes that all connections of a server may leave unread together."""
_VERSION: Final = "13"
_READ_BUFFER: Final = 2048
_WRITE_QUEUE: Final = 4096
_PART: Final = 64 * 1024
_OBJECT: Final = 64  # what bytes in a queue take beside their content
_NO_CLOSE_CODES: Final = (0, 1006)  # picows lets them pass, and all above 4999
_UNIX: Final = getattr(socket, "AF_UNIX", None)
_BAD_REQUEST: Final = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 11\r\n\r\nBad Request"
)
_CONNECTION: Final = re.compile(rb"\r\nconnection:[^\r]*\r\n", re.IGNORECASE)


class Request:
    """What a client asked for when it connected."""

    __slots__ = ("forwarded", "origin", "path", "peer", "query")

    def __init__(
        self, path: str, query: str, origin: str | None, peer: str = "", forwarded: str = ""
    ) -> None:
        self.path = path
        self.query = query
        self.origin = origin
        self.peer = peer  # the address at the other end; a Unix socket has none
        self.forwarded = forwarded  # what proxies say of the client's address


class Receiver(Protocol):
    """What a connection's owner does with what arrives."""

    def connected(self) -> None:
        """The connection is open and can be written to."""

    def received(self, text: str) -> None:
        """A text message has arrived."""

    def received_binary(self) -> None:
        """A binary message has arrived."""

    def alive(self) -> None:
        """A WebSocket ping or pong has arrived, or a part of a message."""

    def disconnected(self) -> None:
        """The connection is gone."""


class Link(WSListener):
    """One WebSocket connection.

    Messages larger than `max_message_size` bytes close it with 1009; a peer that leaves more
    than 1 MiB unread is closed with 4100. What is written with `write` is counted by who writes.

    Attributes:
        unread: What the server's connections leave unread together; whoever accepts it, sets it.
    """

    unread: Unread

    __slots__ = (
        "_backlog",
        "_closing",
        "_fragments",
        "_hangup",
        "_is_text",
        "_traffic",
        "_transport",
        "_write",
        "max_message_size",
        "receiver",
        "unread",
    )

    def __init__(self, max_message_size: int, traffic: Traffic) -> None:
        self.max_message_size = max_message_size
        self.receiver: Receiver | None = None
        self._traffic = traffic
        self._transport: WSTransport | None = None
        self._write: Callable[[bytes], None] = _drop
        self._fragments: bytearray | None = None
        self._is_text = True
        self._backlog: _Backlog | None = None
        self._closing = False
        self._hangup: asyncio.TimerHandle | None = None

    # Going out

    def send(self, message: bytes) -> None:
        """Send one text message."""
        frame = text_frame(message)
        self._traffic.sent += 1
        self._traffic.sent_bytes += len(frame)
        self.write(frame)

    def write(self, frames: bytes) -> None:
        """Send what `text_frame` made: one frame or several joined."""
        # `_is_closing` written out: this is done once for each delivery.
        transport = self._transport
        if self._closing or transport is None or transport.is_close_frame_sent:
            return
        backlog = self._backlog
        if backlog is None:
            self._write(frames)
            return
        self.unread.size += backlog.add(frames)
        if backlog.size > MAX_WRITE_BUFFER:
            self.give_up()
        elif self.unread.size > self.unread.limit:
            self.unread.make_room()

    @property
    def unread_size(self) -> int:
        """Bytes that wait for the peer to read."""
        return 0 if self._backlog is None else self._backlog.size

    def give_up(self) -> None:
        """Close a connection that does not read with 4100, and forget what waits for it."""
        self._take_backlog()
        self._traffic.slow += 1
        self.close(4100, "This connection does not read what it is sent")

    def close(self, code: int, reason: str) -> None:
        """Close with a code; the peer has 5 seconds to agree.

        Args:
            code: Close code.
            reason: Words, cut at the 123 bytes a close frame has room for.
        """
        transport = self._transport
        if transport is None or self._is_closing():
            return
        self._closing = True
        backlog = self._take_backlog()
        if backlog is not None and backlog.frames:
            self._write(b"".join(backlog.frames))
        words = reason.encode()[:123].decode("utf-8", "ignore")
        # picows takes any code; its stubs know only RFC 6455's own.
        transport.send_close(cast("WSCloseCode", code), words.encode())
        self._hang_up_soon(transport)
        # Not at once: it may be a fan-out's write that has found out.
        asyncio.get_running_loop().call_soon(self._leave)

    def _is_closing(self) -> bool:
        # picows closes by itself on what RFC 6455 forbids, a moment before it hangs up.
        transport = self._transport
        return self._closing or transport is None or transport.is_close_frame_sent

    # Coming in: what picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The upgrade is done."""
        self._transport = transport
        # picows keeps both for as long as the connection lasts, and nobody reads them: 1.4 kB.
        for kept in (transport.request, transport.response):
            kept.headers = None  # type: ignore[assignment]
        self._traffic.connections += 1
        self._write = transport.underlying_transport.write
        # From Python 3.12 on asyncio adds up its queue at every write: what a slow reader leaves
        # waits in `_backlog`, where its size is known, and asyncio's queue stays short.
        transport.underlying_transport.set_write_buffer_limits(high=_WRITE_QUEUE)
        if self.receiver is not None:
            self.receiver.connected()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame has arrived."""
        kind = frame.msg_type
        if kind != WSMsgType.CLOSE and self._is_closing():
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(1002, "Reserved bits are set")
        elif kind == WSMsgType.TEXT and frame.fin and self._fragments is None:
            if frame.payload_size > self.max_message_size:
                self._too_big()
            else:
                self._received(frame.get_payload_as_bytes())
        elif kind == WSMsgType.PING:
            self.write(pong_frame(frame.get_payload_as_bytes()))
            self._alive()
        elif kind == WSMsgType.PONG:
            self._alive()
        elif kind == WSMsgType.CLOSE:
            self._closed(transport, frame)
        else:
            self._fragment(kind, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is closed."""
        self._closing = True
        self._write = _drop
        self._take_backlog()
        if self._hangup is not None:
            self._hangup.cancel()
        self._transport = None
        self._leave()

    def pause_writing(self) -> None:
        """The peer reads more slowly than it is written to."""
        if self._is_closing():
            return
        if self._backlog is None:
            self._backlog = _Backlog()
            self.unread.links.add(self)
        self._backlog.is_paused = True

    def resume_writing(self) -> None:
        """The peer has read what was written; what waits goes out as long as it reads on."""
        backlog = self._backlog
        if backlog is None:
            return
        backlog.is_paused = False
        while backlog.frames and not backlog.is_paused:
            before = backlog.size
            part = backlog.take()
            self.unread.size -= before - backlog.size
            self._write(part)
        if not backlog.is_paused:
            self._take_backlog()

    def has_failed(self) -> bool:
        """Whether picows has just sent a close frame because of what came in; then it is over.

        One that does not read could keep picows waiting for ever: it is hung up on.
        """
        transport = self._transport
        if self._closing or transport is None or not transport.is_close_frame_sent:
            return False
        self._closing = True
        self._take_backlog()  # nothing may follow a close frame
        self._hang_up_soon(transport)
        self._leave()
        return True

    # Messages in parts

    def _fragment(self, kind: WSMsgType, frame: WSFrame) -> None:
        """Take a fragment, or a message that is not text."""
        begins = kind != WSMsgType.CONTINUATION
        if begins == (self._fragments is not None):
            self.close(1002, "Fragments out of order")
            return
        if self._fragments is None:
            self._fragments, self._is_text = bytearray(), kind == WSMsgType.TEXT
        self._fragments += frame.get_payload_as_memoryview()
        if len(self._fragments) > self.max_message_size:
            self._fragments = None
            self._too_big()
        elif frame.fin:
            payload, self._fragments = bytes(self._fragments), None
            if self._is_text:
                self._received(payload)
            elif self.receiver is not None:
                self.receiver.received_binary()
        elif not frame.payload_size:
            self._alive()  # only these come without end

    def _received(self, payload: bytes) -> None:
        self._traffic.received += 1
        self._traffic.received_bytes += len(payload)
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            self.close(1007, "A text message must be UTF-8")
            return
        if self.receiver is not None:
            self.receiver.received(text)

    def _alive(self) -> None:
        if self.receiver is not None:
            self.receiver.alive()

    def _closed(self, transport: WSTransport, frame: WSFrame) -> None:
        """Answer the peer's close frame, or take its answer to ours."""
        if not self._is_closing():
            code = cast("int", frame.get_close_code()) if frame.payload_size else 1000
            self._take_backlog()
            if code in _NO_CLOSE_CODES or code >= 5000:
                self.close(1002, f"{code} is no close code")
            else:
                self._closing = True
                transport.send_close(cast("WSCloseCode", code))
        self._leave()
        self._hang_up_soon(transport)  # what it has not read may never be read
        transport.disconnect()

    def _hang_up_soon(self, transport: WSTransport) -> None:
        if self._hangup is None:
            loop = asyncio.get_running_loop()
            self._hangup = loop.call_later(CLOSE_TIMEOUT, transport.disconnect, False)

    def _take_backlog(self) -> _Backlog | None:
        """What has waited for the peer; from now on nothing does."""
        backlog, self._backlog = self._backlog, None
        if backlog is not None:
            self.unread.size -= backlog.size
            self.unread.links.discard(self)
        return backlog

    def _leave(self) -> None:
        """Tell the owner, once, that nothing more comes."""
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.disconnected()

    def _too_big(self) -> None:
        self.close(1009, f"A message may have {self.max_message_size} bytes")


class _Backlog:
    """What waits for a peer that reads slowly: whole frames, as they were written.

    Many wait for the same bytes, which are there once; they count for each of them.
    """

    __slots__ = ("frames", "is_paused", "size")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.is_paused = True
        self.size = 0

    def add(self, frames: bytes) -> int:
        """Append frames; the bytes that they take."""
        size = len(frames) + _OBJECT
        self.frames.append(frames)
        self.size += size
        return size

    def take(self) -> bytes:
        """Take out the first frames: one write's, or several small ones."""
        part = self.frames.popleft()
        self.size -= len(part) + _OBJECT
        if not self.frames or len(part) + len(self.frames[0]) > _PART:
            return part
        joined = bytearray(part)
        while self.frames and len(joined) + len(self.frames[0]) <= _PART:
            part = self.frames.popleft()
            self.size -= len(part) + _OBJECT
            joined += part
        return bytes(joined)


class Unread:
    """What all connections of a server leave unread together.

    Args:
        limit: Bytes above which those that are furthest behind are closed.

    Attributes:
        size: Bytes that wait.
        links: The connections that are behind.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.links: set[Link] = set()

    def make_room(self) -> None:
        """Close who is furthest behind, until a quarter is free.

        So much, because everybody is looked at: that is paid for by many writes.
        """
        enough = self.limit * 3 // 4
        for link in sorted(self.links, key=lambda link: link.unread_size, reverse=True):
            if self.size <= enough:
                break
            link.give_up()


def pong_frame(payload: bytes) -> bytes:
    """A whole unmasked pong."""
    return b"\x8a" + len(payload).to_bytes(1) + payload


def text_frame(message: bytes) -> bytes:
    """A whole unfragmented, unmasked WebSocket text frame (RFC 6455, 5.2).

    Made once per broadcast and written as it is to every subscriber.
    """
    size = len(message)
    if size < 126:
        return b"\x81" + size.to_bytes(1) + message
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2) + message
    return b"\x81\x7f" + size.to_bytes(8) + message


class WebSockets:
    """What uvicorn makes of each upgrade request: its `ws` setting.

    Args:
        accept: Gives the connection for a request, or the HTTP status to refuse it with.
        max_message_size: Bytes above which no frame is even read.
    """

    def __init__(
        self, accept: Callable[[Request], Link | HTTPStatus], max_message_size: int
    ) -> None:
        self._accept = accept
        self.max_message_size = max_message_size
        self.peer = ""  # of the request that is looked at
        self.unread = Unread(MAX_UNREAD)
        self._open: set[_Transport] = set()
        self._empty = asyncio.Event()

    def __call__(self, **_uvicorn: Any) -> asyncio.BaseProtocol:
        """A protocol for one connection."""
        return _WebSocketProtocol(
            self,
            None,
            None,
            False,
            self._listener,
            _LOG,
            True,
            HANDSHAKE_TIMEOUT,
            False,
            0,
            0,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # pings are answered here, because they also prove that the peer lives
            self.max_message_size,
            None,
            _READ_BUFFER,
        )

    async def close(self, timeout: float) -> None:
        """Wait for connections that are closing, then hang up on whoever is still there.

        Args:
            timeout: Seconds to wait for the peers' agreement.
        """
        await self._emptied(timeout)
        for transport in tuple(self._open):
            transport.abort()
        await self._emptied(CLOSE_TIMEOUT)

    def opened(self, transport: _Transport) -> None:
        """A connection is there."""
        self._open.add(transport)
        self._empty.clear()

    def closed(self, transport: _Transport) -> None:
        """A connection is gone."""
        self._open.discard(transport)
        if not self._open:
            self._empty.set()

    async def _emptied(self, timeout: float) -> None:
        if self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), timeout)

    def _listener(self, request: WSUpgradeRequest) -> Link | WSUpgradeResponseWithListener:
        headers = request.headers
        if headers.get("Sec-WebSocket-Version") != _VERSION:
            return _refusal(HTTPStatus.UPGRADE_REQUIRED)
        path, _, query = request.path.decode("latin-1").partition("?")
        origin = headers.get("Origin")
        forwarded = _text(",".join(headers.getall("X-Forwarded-For", ())))
        asked = Request(
            unquote(path), query, None if origin is None else _text(origin), self.peer, forwarded
        )
        try:
            answer = self._accept(asked)
        except Exception:
            # picows would tell the stranger what is wrong, and nobody else.
            log.exception("a connection could not be accepted")
            answer = HTTPStatus.INTERNAL_SERVER_ERROR
        if isinstance(answer, Link):
            answer.unread = self.unread
            return answer
        return _refusal(answer)


def _refusal(status: HTTPStatus) -> WSUpgradeResponseWithListener:
    words = f"{status.value} {status.phrase}".encode()
    # RFC 6455, 4.4: who speaks another version is told which one to speak.
    more = {"Sec-WebSocket-Version": _VERSION} if status == HTTPStatus.UPGRADE_REQUIRED else None
    refusal = WSUpgradeResponse.create_error_response(status, words, more)
    return WSUpgradeResponseWithListener(refusal, None)


def _text(value: str) -> str:
    """A header's value without the surrogates that stand for bytes that are no text."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class _WebSocketProtocol(WSProtocol):  # type: ignore[misc]  # not in picows's stubs
    """Takes the upgrade request, which uvicorn has read already, as if it had come in."""

    def __init__(self, everyone: WebSockets, *settings: Any) -> None:
        super().__init__(*settings)
        self._everyone = everyone
        self._mine: _Transport | None = None
        self._has_failed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        is_unix = transport.get_extra_info("socket").family == _UNIX
        self._mine = _WithoutTcp(transport) if is_unix else _Transport(transport)
        self._everyone.opened(self._mine)
        super().connection_made(self._mine)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._mine is not None:
            self._everyone.closed(self._mine)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Firefox says "keep-alive, Upgrade", which picows does not understand. uvicorn has seen
        # to it that an upgrade is asked for.
        data = _CONNECTION.sub(b"\r\nconnection: Upgrade\r\n", data)
        assert self._mine is not None
        peer = self._mine.get_extra_info("peername")
        self._everyone.peer = peer[0] if isinstance(peer, tuple) else ""
        while data:
            room = self.get_buffer(-1)
            count = min(len(room), len(data))
            room[:count] = data[:count]
            try:
                self.buffer_updated(count)
            except UnicodeError:  # picows repeats what it refuses, which is no text
                self._mine.write(_BAD_REQUEST)
                self._mine.close()
                return
            data = data[count:]

    def buffer_updated(self, count: int) -> None:
        if self._has_failed:
            return  # what follows is neither looked at nor kept
        super().buffer_updated(count)
        if self.transport.is_close_frame_sent and self.listener.has_failed():
            self._has_failed = True
            if self._mine is not None:
                self._mine.lingers = True


class _Transport:
    """A connection's transport as picows gets it: the real one, which closes less hastily.

    After a violation picows closes at once. A peer that is still sending would be told by TCP that
    its bytes are not wanted, and might never see the close frame that says why.
    """

    __slots__ = ("_real", "lingers")

    def __init__(self, real: asyncio.BaseTransport) -> None:
        self._real = real
        self.lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def close(self) -> None:
        """Close; who lingers sends no more, and reads until the peer ends or is hung up on."""
        real = cast("asyncio.Transport", self._real)
        if not self.lingers or real.is_closing() or not real.can_write_eof():
            real.close()
            return
        with contextlib.suppress(OSError):  # it is gone already, which is told in its turn
            real.write_eof()


class _WithoutTcp(_Transport):
    """A Unix socket's transport, and its socket: picows sets TCP's options on any that it gets."""

    __slots__ = ("fileno",)

    def __init__(self, real: asyncio.BaseTransport) -> None:
        super().__init__(real)
        self.fileno = real.get_extra_info("socket").fileno

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else self._real.get_extra_info(name, default)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        pass

    def getsockopt(self, level: int, option: int) -> int:
        return 0


class _Silent:
    """Stands in for a logger: picows makes a child logger per connection of a real one.

    What it would say (accepted, disconnected, malformed frames) is a stranger's doing and not
    worth a line each. Only what must never happen, an error of our own, is logged.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        return False

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        pass

    debug = info = warning = error = log = _nothing

    def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        log.exception(message, *args)


_LOG: Final = _Silent()


def _drop(frames: bytes) -> None:
    pass

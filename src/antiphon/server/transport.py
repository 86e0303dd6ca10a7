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
from collections.abc import Callable
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote

from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # not in its stubs

__all__ = ["Link", "Receiver", "Request", "WebSockets", "text_frame"]

log = logging.getLogger("antiphon.server")

HANDSHAKE_TIMEOUT: Final = 10.0
CLOSE_TIMEOUT: Final = 5.0
MAX_WRITE_BUFFER: Final = 1024 * 1024
_READ_BUFFER: Final = 2048
_WRITE_QUEUE: Final = 4096
_CONNECTION: Final = re.compile(rb"\r\nconnection:[^\r]*\r\n", re.IGNORECASE)


class Request:
    """What a client asked for when it connected."""

    __slots__ = ("origin", "path", "query")

    def __init__(self, path: str, query: str, origin: str | None) -> None:
        self.path = path
        self.query = query
        self.origin = origin


class Receiver(Protocol):
    """What a connection's owner does with what arrives."""

    def connected(self) -> None:
        """The connection is open and can be written to."""

    def received(self, text: str) -> None:
        """A text message has arrived."""

    def received_binary(self) -> None:
        """A binary message has arrived."""

    def alive(self) -> None:
        """A WebSocket ping or pong has arrived."""

    def disconnected(self) -> None:
        """The connection is gone."""


class Link(WSListener):
    """One WebSocket connection.

    Messages larger than `max_message_size` bytes close it with 1009; a peer that leaves more
    than 1 MiB unread is closed with 4100.
    """

    __slots__ = (
        "_backlog",
        "_closing",
        "_fragments",
        "_hangup",
        "_is_text",
        "_transport",
        "_write",
        "max_message_size",
        "receiver",
    )

    def __init__(self, max_message_size: int) -> None:
        self.max_message_size = max_message_size
        self.receiver: Receiver | None = None
        self._transport: WSTransport | None = None
        self._write: Callable[[bytes], None] = _drop
        self._fragments: bytearray | None = None
        self._is_text = True
        self._backlog: bytearray | None = None
        self._closing = False
        self._hangup: asyncio.TimerHandle | None = None

    # Going out

    def send(self, message: bytes) -> None:
        """Send one text message."""
        self.write(text_frame(message))

    def write(self, frames: bytes) -> None:
        """Send what `text_frame` made: one frame or several joined."""
        if self._is_closing():
            return
        if self._backlog is None:
            self._write(frames)
            return
        self._backlog += frames
        if len(self._backlog) > MAX_WRITE_BUFFER:
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
        self.resume_writing()
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
        if self._hangup is not None:
            self._hangup.cancel()
        self._transport = None
        self._leave()

    def pause_writing(self) -> None:
        """The peer reads more slowly than it is written to."""
        self._backlog = bytearray()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        backlog, self._backlog = self._backlog, None
        if backlog:
            self._write(bytes(backlog))

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

    def _received(self, payload: bytes) -> None:
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
            self._closing = True
            code = frame.get_close_code()
            transport.send_close(code if code != WSCloseCode.NO_INFO else WSCloseCode.OK)
        self._leave()
        self._hang_up_soon(transport)  # what it has not read may never be read
        transport.disconnect()

    def _hang_up_soon(self, transport: WSTransport) -> None:
        if self._hangup is None:
            loop = asyncio.get_running_loop()
            self._hangup = loop.call_later(CLOSE_TIMEOUT, transport.disconnect, False)

    def _leave(self) -> None:
        """Tell the owner, once, that nothing more comes."""
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.disconnected()

    def _too_big(self) -> None:
        self.close(1009, f"A message may have {self.max_message_size} bytes")


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
        accept: Gives the connection for a request, or None to answer 404.
        max_message_size: Bytes above which no frame is even read.
    """

    def __init__(self, accept: Callable[[Request], Link | None], max_message_size: int) -> None:
        self._accept = accept
        self._max_message_size = max_message_size
        self._open: set[asyncio.BaseTransport] = set()
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
            self._max_message_size,
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
            cast("asyncio.Transport", transport).abort()
        await self._emptied(CLOSE_TIMEOUT)

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """A connection is there."""
        self._open.add(transport)
        self._empty.clear()

    def closed(self, transport: asyncio.BaseTransport) -> None:
        """A connection is gone."""
        self._open.discard(transport)
        if not self._open:
            self._empty.set()

    async def _emptied(self, timeout: float) -> None:
        if self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), timeout)

    def _listener(self, request: WSUpgradeRequest) -> Link | None:
        path, _, query = request.path.decode("latin-1").partition("?")
        return self._accept(Request(unquote(path), query, request.headers.get("Origin")))


class _WebSocketProtocol(WSProtocol):  # type: ignore[misc]  # not in picows's stubs
    """Takes the upgrade request, which uvicorn has read already, as if it had come in."""

    def __init__(self, everyone: WebSockets, *settings: Any) -> None:
        super().__init__(*settings)
        self._everyone = everyone
        self._mine: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._mine = transport
        self._everyone.opened(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._mine is not None:
            self._everyone.closed(self._mine)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Firefox says "keep-alive, Upgrade", which picows does not understand. uvicorn has seen
        # to it that an upgrade is asked for.
        data = _CONNECTION.sub(b"\r\nconnection: Upgrade\r\n", data)
        while data:
            room = self.get_buffer(-1)
            count = min(len(room), len(data))
            room[:count] = data[:count]
            self.buffer_updated(count)
            data = data[count:]


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

"""WebSocket connections: picows under uvicorn.

uvicorn answers HTTP and hands every upgrade request to `websocket_protocol`; from there on the
socket is picows's. `WSProtocol` is the one name that picows does not export at top level: it is
used here and nowhere else, `pyproject.toml` pins its version, and a test covers it.
"""

from __future__ import annotations

import asyncio
import logging
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

__all__ = ["Link", "Receiver", "Request", "text_frame", "websocket_protocol"]

log = logging.getLogger("antiphon.server")

HANDSHAKE_TIMEOUT: Final = 10.0
CLOSE_TIMEOUT: Final = 5.0
MAX_WRITE_BUFFER: Final = 1024 * 1024
_READ_BUFFER: Final = 2048


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
        "_closing",
        "_congested",
        "_fragments",
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
        self._fragments: list[bytes] | None = None
        self._congested = False
        self._closing = False

    # Going out

    def send(self, message: bytes) -> None:
        """Send one text message."""
        self.write(text_frame(message))

    def write(self, frames: bytes) -> None:
        """Send what `text_frame` made: one frame or several joined."""
        if self._closing:
            return
        if self._congested and self._buffered() > MAX_WRITE_BUFFER:
            self.close(4100, "This connection does not read what it is sent", at_once=True)
            return
        self._write(frames)

    def close(self, code: int, reason: str, *, at_once: bool = False) -> None:
        """Close with a code; the peer has 5 seconds to agree.

        Args:
            code: Close code.
            reason: Words, cut at the 123 bytes a close frame has room for.
            at_once: Do not wait for the peer, nor for what is still unsent.
        """
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        words = reason.encode()[:123].decode("utf-8", "ignore")
        # picows takes any code; its stubs know only RFC 6455's own.
        transport.send_close(cast("WSCloseCode", code), words.encode())
        if at_once:
            transport.disconnect(False)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(CLOSE_TIMEOUT, transport.disconnect, False)

    # Coming in: what picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The upgrade is done."""
        self._transport = transport
        self._write = transport.underlying_transport.write
        if self.receiver is not None:
            self.receiver.connected()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame has arrived."""
        kind = frame.msg_type
        if self._closing and kind != WSMsgType.CLOSE:
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(1002, "Reserved bits are set")
        elif kind == WSMsgType.TEXT and frame.fin and self._fragments is None:
            if frame.payload_size > self.max_message_size:
                self._too_big()
            else:
                self._received(frame.get_payload_as_bytes())
        elif kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
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
        receiver, self.receiver = self.receiver, None
        self._transport = None
        if receiver is not None:
            receiver.disconnected()

    def pause_writing(self) -> None:
        """The peer reads more slowly than it is written to."""
        self._congested = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._congested = False

    # Messages in parts

    def _fragment(self, kind: WSMsgType, frame: WSFrame) -> None:
        """Take a fragment, or a message that is not text."""
        begins = kind != WSMsgType.CONTINUATION
        if begins == (self._fragments is not None):
            self.close(1002, "Fragments out of order")
            return
        if begins:
            # The first byte tells whether the message is text.
            self._fragments = [b"t" if kind == WSMsgType.TEXT else b"b"]
        fragments = self._fragments or []
        fragments.append(frame.get_payload_as_bytes())
        if sum(map(len, fragments)) - 1 > self.max_message_size:
            self._too_big()
        elif frame.fin:
            self._fragments = None
            if fragments[0] == b"t":
                self._received(b"".join(fragments[1:]))
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
        if not self._closing:
            self._closing = True
            code = frame.get_close_code()
            transport.send_close(code if code != WSCloseCode.NO_INFO else WSCloseCode.OK)
        transport.disconnect()

    def _too_big(self) -> None:
        self.close(1009, f"A message may have {self.max_message_size} bytes")

    def _buffered(self) -> int:
        assert self._transport is not None
        return self._transport.underlying_transport.get_write_buffer_size()


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


def websocket_protocol(
    accept: Callable[[Request], Link | None], max_message_size: int
) -> Callable[..., asyncio.BaseProtocol]:
    """What uvicorn makes of each upgrade request: its `ws` setting.

    Args:
        accept: Gives the connection for a request, or None to answer 404.
        max_message_size: Bytes above which no frame is even read.
    """

    def listener(request: WSUpgradeRequest) -> Link | None:
        path, _, query = request.path.decode("latin-1").partition("?")
        return accept(Request(unquote(path), query, request.headers.get("Origin")))

    def protocol(**_uvicorn: Any) -> asyncio.BaseProtocol:
        return _WebSocketProtocol(
            None,
            None,
            False,
            listener,
            _LOG,
            True,
            HANDSHAKE_TIMEOUT,
            False,
            0,
            0,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # pings are answered here, because they also prove that the peer lives
            max_message_size,
            None,
            _READ_BUFFER,
        )

    return protocol


class _WebSocketProtocol(WSProtocol):  # type: ignore[misc]  # as above
    """Takes the upgrade request, which uvicorn has read already, as if it had come in."""

    def data_received(self, data: bytes) -> None:
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

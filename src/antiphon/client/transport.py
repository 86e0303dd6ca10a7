"""The socket: picows, named here and nowhere else on this side.

Dialling turns every way in which it can fail into one `Unreachable` that says what to try.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection
from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSParsedURL,
    WSTransport,
    ws_connect,
)

from antiphon.errors import Unreachable

__all__ = ["Link", "Receiver", "dial"]

MAX_MESSAGE_SIZE: Final = 10 * 1024 * 1024
CLOSE_TIMEOUT: Final = 1.0
HAPPY_EYEBALLS_DELAY: Final = 0.25

# picows logs each connection at INFO; that is ours to tell, under antiphon.connection.
_log = logging.getLogger("antiphon.picows")
_log.setLevel(logging.WARNING)


class Receiver(Protocol):
    """What a connection's owner does with what arrives."""

    def received(self, payload: memoryview | bytes) -> None:
        """A text message has arrived; a view is valid during the call only."""

    def received_binary(self) -> None:
        """A binary message has arrived."""

    def alive(self) -> None:
        """A WebSocket ping or pong has arrived."""

    def disconnected(self, code: int | None, reason: str) -> None:
        """The connection is gone, with the peer's close code if it gave one."""


class Link(WSListener):
    """One WebSocket connection."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: WSTransport | None = None
        self._hangup: asyncio.TimerHandle | None = None
        self._farewell: asyncio.Task[None] | None = None
        self._fragments: bytearray | None = None
        self._is_text = True

    # Going out

    def send(self, message: bytes) -> None:
        """Send one text message; on a closed connection it is dropped."""
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, message)

    def read(self, on: bool) -> None:
        """Go on reading the socket, or let the peer wait."""
        if self._transport is None:
            return
        underlying = self._transport.underlying_transport
        if on:
            underlying.resume_reading()
        else:
            underlying.pause_reading()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye; the peer has a second to agree."""
        transport = self._transport
        if transport is None or transport.is_close_frame_sent:
            return
        words = reason.encode()[:123].decode("utf-8", "ignore")  # no half character
        # picows takes any code; its stubs know only RFC 6455's own.
        transport.send_close(cast("WSCloseCode", code), words.encode())
        self.read(True)  # the peer's answer must be seen
        loop = asyncio.get_running_loop()
        self._hangup = loop.call_later(CLOSE_TIMEOUT, transport.disconnect, False)

    def abort(self) -> None:
        """End the connection without a word."""
        if self._transport is not None:
            self._transport.disconnect(False)

    # Coming in: what picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The upgrade is done."""
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame has arrived."""
        kind = frame.msg_type
        if kind == WSMsgType.TEXT and frame.fin:
            self._receiver.received(frame.get_payload_as_memoryview())
        elif kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self._receiver.alive()
        elif kind == WSMsgType.PONG:
            self._receiver.alive()
        elif kind == WSMsgType.CLOSE:
            if not transport.is_close_frame_sent:
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        else:
            self._fragment(kind, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is closed."""
        self._transport = None
        if self._hangup is not None:
            self._hangup.cancel()
        self._farewell = asyncio.get_running_loop().create_task(_hear_out(transport))
        # Without any close frame there is no handshake, which picows's stubs do not say.
        told = getattr(transport.close_handshake, "recv", None)
        if told is None or told.code == WSCloseCode.NO_INFO:
            self._receiver.disconnected(None, "")
        else:
            self._receiver.disconnected(int(told.code), told.reason or "")

    def pause_writing(self) -> None:
        """The peer reads more slowly than it is written to; client events are small."""

    def resume_writing(self) -> None:
        """The peer has caught up."""

    def _fragment(self, kind: WSMsgType, frame: WSFrame) -> None:
        """Take a part of a message, or a message that is not text."""
        if kind != WSMsgType.CONTINUATION:
            self._fragments, self._is_text = bytearray(), kind == WSMsgType.TEXT
        if self._fragments is None:
            self.close(1002, "A continuation without a beginning")
            return
        self._fragments += frame.get_payload_as_memoryview()
        if len(self._fragments) > MAX_MESSAGE_SIZE:
            self.close(1009, "The message is too large")
        elif frame.fin:
            payload, self._fragments = bytes(self._fragments), None
            if self._is_text:
                self._receiver.received(payload)
            else:
                self._receiver.received_binary()


async def _hear_out(transport: WSTransport) -> None:
    """Take the exception with which picows ends on a protocol error; it was logged there."""
    with contextlib.suppress(Exception):
        await transport.wait_disconnected()


async def dial(
    url: str,
    receiver: Receiver,
    *,
    timeout: float,
    ssl_context: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
) -> Link:
    """Open a WebSocket connection.

    Args:
        url: A `ws://` or `wss://` address.
        receiver: What gets the messages.
        timeout: Seconds it may take.
        ssl_context: Stands in for the usual one.
        headers: Further headers of the upgrade request.

    Raises:
        Unreachable: It did not come about; the text says why and what to try.
    """
    if not all(f"{name}{value}".isprintable() for name, value in (headers or {}).items()):
        raise Unreachable("A header of the upgrade request holds a line break or the like.")
    sockets: list[socket.socket] = []

    async def connect(parsed: WSParsedURL) -> socket.socket:
        sockets.append(await _connect(parsed.host, parsed.port))
        return sockets[0]

    try:
        async with asyncio.timeout(timeout):
            _, listener = await ws_connect(
                lambda: Link(receiver),
                url,
                ssl_context=ssl_context,
                disconnect_on_exception=False,
                websocket_handshake_timeout=timeout,
                logger_name=_log,
                enable_auto_pong=False,  # pings also prove that the peer lives
                max_frame_size=MAX_MESSAGE_SIZE,
                extra_headers=dict(headers or {}),
                max_redirects=0,
                socket_factory=connect,
            )
    except BaseException as exc:
        # What was begun must not come alive later: picows keeps the socket until it sees the end.
        for opened in sockets:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        if isinstance(exc, WSError | OSError | ValueError | AssertionError):
            raise Unreachable(_explain(url, exc, timeout), code=_status(exc)) from exc
        raise
    link = cast("Link | None", listener)
    if link is None:  # picows's word for a peer that hangs up during the upgrade
        parts = urlsplit(url)
        raise Unreachable(
            f"{parts.hostname}:{parts.port} hung up instead of answering:"
            " is it a Pusher server, and is the scheme right?"
        )
    return link


async def _connect(host: str, port: int) -> socket.socket:
    """A connected socket: every address of the host, the families in turn (RFC 8305)."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return await start_connection(addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY)


def _status(exc: Exception) -> int | None:
    response = exc.response if isinstance(exc, WSInvalidStatusError) else None
    if response is not None:
        return int(response.status)
    # picows reads no status that Python has no name for, such as Cloudflare's 520.
    odd = re.search(r"HTTP/1\.\d ([2-9]\d\d)", str(exc)) if isinstance(exc, WSError) else None
    return None if odd is None else int(odd[1])


def _explain(url: str, exc: Exception, timeout: float) -> str:
    """Why a dial failed, in one line: what, where, and what to try."""
    parts = urlsplit(url)
    where = f"{parts.hostname}:{parts.port}"
    status = _status(exc)
    if status is not None:
        return f"{where} answered {status} instead of a WebSocket: {_hint(status)}"
    match exc:
        case TimeoutError():
            return f"{where} did not answer in {timeout:g} seconds: is a firewall in between?"
        case ssl.SSLCertVerificationError():
            return f"The certificate of {where} is not trusted: {exc.verify_message}."
        case ssl.SSLError():
            return f"{where} does not speak TLS ({exc.reason}): is the scheme http there?"
        case socket.gaierror():
            return f"The name {parts.hostname} cannot be found: check the host, or the network."
        case ConnectionRefusedError():
            return f"Nothing listens on {where}: is the server running there?"
        case WSError():
            return f"{where} is no WebSocket server: {str(exc)[:120]}."
    return f"{where} cannot be reached: {exc.__class__.__name__}: {str(exc)[:120]}."


def _hint(status: int) -> str:
    if 300 <= status < 400:
        return "it redirects; is the scheme https there?"
    return {
        401: "a proxy wants credentials.",
        403: "a proxy or firewall forbids it.",
        404: "is the path right, and is it a Pusher server?",
        502: "the proxy there has no server behind it.",
        503: "the server there is not ready.",
    }.get(status, "is it a Pusher server?")

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
from collections.abc import Callable, Mapping
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection
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

from antiphon.errors import SettingsError, Unreachable
from antiphon.protocol.client import Received
from antiphon.protocol.frames import Event

from .clock import monotonic

__all__ = ["Link", "Receive", "Receiver", "Traffic", "check_proxy", "dial"]

Receive = Callable[[bytes, float], Received | None]
"""Takes a text message, and the monotonic time of the read in which it came."""

_MAX_CONTROL_SIZE: Final = 125
"""Bytes (RFC 6455, section 5.5); picows ends a connection that exceeds it."""

MAX_MESSAGE_SIZE: Final = 10 * 1024 * 1024
RECEIVE_BUFFER: Final = 256 * 1024
"""Bytes that the system keeps of what is not read, and so of what one read can bring.

Left to itself it keeps up to 32 MB. picows takes all of that in one read, which no valve can stop.
"""
CLOSE_TIMEOUT: Final = 1.0
_PROXIES: Final = ("http", "https", "socks4", "socks5")
HAPPY_EYEBALLS_DELAY: Final = 0.25

# picows logs each connection at INFO; that is ours to tell, under antiphon.connection.
_log = logging.getLogger("antiphon.picows")
_log.setLevel(logging.WARNING)


class Receiver(Protocol):
    """What a connection's owner does with what arrives."""

    @property
    def receive(self) -> Receive:
        """What a text message means."""

    @property
    def deliver(self) -> Callable[[Event], None]:
        """Gets each event of a channel."""

    def handle(self, received: Received | None) -> None:
        """Gets everything else that a message means."""

    def connected(self, link: Link) -> None:
        """The upgrade is done; messages may arrive before `dial` returns."""

    def alive(self) -> None:
        """A WebSocket ping or pong has arrived."""

    def disconnected(self, code: int | None, reason: str) -> None:
        """The connection is gone, with the peer's close code if it gave one."""


class Traffic:
    """Counts text messages, and the bytes of their payloads."""

    __slots__ = ("bytes_received", "bytes_sent", "frames_received", "frames_sent")

    def __init__(self) -> None:
        self.frames_received = self.bytes_received = 0
        self.frames_sent = self.bytes_sent = 0


class Link(WSListener):
    """One WebSocket connection."""

    # Measured: attributes in a dictionary cost more here, because picows's base has none.
    __slots__ = (
        "_begins_read",
        "_deliver",
        "_farewell",
        "_fragments",
        "_handle",
        "_hangup",
        "_has_left",
        "_now",
        "_peer_reads",
        "_receiver",
        "_traffic",
        "_transport",
        "_wants_to_read",
        "receive",
    )

    def __init__(self, receiver: Receiver, traffic: Traffic) -> None:
        self._receiver = receiver
        self._traffic = traffic
        self.receive = receiver.receive
        self._deliver = receiver.deliver
        self._handle = receiver.handle
        self._now = monotonic()
        self._begins_read = True
        self._wants_to_read = True
        self._peer_reads = True
        self._has_left = False
        self._transport: WSTransport | None = None
        self._hangup: asyncio.TimerHandle | None = None
        self._farewell: asyncio.Task[None] | None = None
        self._fragments: bytearray | None = None

    @property
    def is_open(self) -> bool:
        """Whether the upgrade is done, and the socket not closed yet."""
        return self._transport is not None

    @property
    def is_closing(self) -> bool:
        """Whether this end has said goodbye, or the socket is closed."""
        return self._transport is None or self._transport.is_close_frame_sent

    # Going out

    def send(self, message: bytes) -> None:
        """Send one text message; on a closed connection it is dropped."""
        if self._transport is not None:
            self._traffic.frames_sent += 1
            self._traffic.bytes_sent += len(message)
            self._transport.send(WSMsgType.TEXT, message)

    def read(self, on: bool) -> None:
        """Go on reading the socket, or let the peer wait."""
        self._wants_to_read = on
        self._turn()

    def _turn(self) -> None:
        if self._transport is None:
            return
        underlying = self._transport.underlying_transport
        if self._wants_to_read and self._peer_reads:
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
        self._fragments, self._has_left = None, True
        self.read(True)  # the peer's answer must be seen
        self._arm_hangup(transport)

    def _arm_hangup(self, transport: WSTransport) -> None:
        if self._hangup is None:
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
        self._receiver.connected(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A frame has arrived."""
        # Measured: picows makes an enum member of `msg_type` at each look, which costs as much as
        # all the rest here; a frame of more than 125 bytes is no control frame. One look at the
        # clock for each read, not for each frame in it. Bytes are decoded faster than a view is
        # made.
        if self._begins_read:
            self._now = monotonic()
        self._begins_read = frame.last_in_buffer
        size = frame.payload_size
        if _MAX_CONTROL_SIZE < size <= MAX_MESSAGE_SIZE and frame.fin and self._fragments is None:
            traffic = self._traffic
            traffic.frames_received += 1
            traffic.bytes_received += size
            received = self.receive(frame.get_payload_as_bytes(), self._now)
            if type(received) is Event:
                self._deliver(received)
            else:
                self._handle(received)
            return
        kind = frame.msg_type
        if kind is WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self._receiver.alive()
        elif kind is WSMsgType.PONG:
            self._receiver.alive()
        elif kind is WSMsgType.CLOSE:
            if not transport.is_close_frame_sent:
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            self._arm_hangup(transport)  # a peer that reads no more would keep it open
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
        """The peer reads more slowly than it is written to: it gets no answers for a while."""
        self._peer_reads = False
        self._turn()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._peer_reads = True
        self._turn()

    def _fragment(self, kind: WSMsgType, frame: WSFrame) -> None:
        """Take a short message, or a part of one."""
        if self._has_left:
            return  # what still comes is not kept
        if kind is not WSMsgType.CONTINUATION:
            self._fragments = bytearray()
        if self._fragments is None:
            self.close(1002, "A continuation without a beginning")
            return
        self._fragments += frame.get_payload_as_memoryview()
        if len(self._fragments) > MAX_MESSAGE_SIZE:
            self.close(1009, "The message is too large")
        elif frame.fin:
            payload, self._fragments = bytes(self._fragments), None
            self._traffic.frames_received += 1
            self._traffic.bytes_received += len(payload)
            received = self.receive(payload, self._now)
            if type(received) is Event:
                self._deliver(received)
            else:
                self._handle(received)


async def _hear_out(transport: WSTransport) -> None:
    """Take the exception with which picows ends on a protocol error; it was logged there."""
    with contextlib.suppress(Exception):
        await transport.wait_disconnected()


def check_proxy(address: str) -> None:
    """See to it that an address is one of a proxy.

    Raises:
        SettingsError: It is none. The text does not show it: there may be a password in it.
    """
    try:
        parts = urlsplit(address)
        is_proxy = parts.scheme in _PROXIES and parts.hostname and parts.port != 0
    except ValueError:  # an impossible host or port
        is_proxy = False
    if not is_proxy:
        raise SettingsError(
            "The address of a proxy starts with http://, https://, socks4:// or socks5:// and a"
            " host; the one given does not."
        )


async def dial(
    url: str,
    receiver: Receiver,
    *,
    timeout: float,
    traffic: Traffic | None = None,
    ssl_context: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
    proxy: str | None = None,
    source_address: str | None = None,
) -> Link:
    """Open a WebSocket connection.

    Args:
        url: A `ws://` or `wss://` address.
        receiver: What gets the messages.
        timeout: Seconds it may take.
        traffic: Counts what goes over it.
        ssl_context: Stands in for the usual one.
        headers: Further headers of the upgrade request.
        proxy: Address of a proxy to go through: `http://`, `https://`, `socks4://` or
            `socks5://`, with `user:password@` if it wants them.
        source_address: Address of this machine to dial from.

    Raises:
        Unreachable: It did not come about; the text says why and what to try.
    """
    if not all(f"{name}{value}".isprintable() for name, value in (headers or {}).items()):
        raise Unreachable("A header of the upgrade request holds a line break or the like.")
    sockets: list[socket.socket] = []
    new = Link(receiver, traffic or Traffic())

    async def connect(parsed: WSParsedURL) -> socket.socket:
        # With a proxy these are the proxy's.
        sockets.append(await _connect(parsed.host, parsed.port, source_address))
        return sockets[0]

    try:
        async with asyncio.timeout(timeout):
            _, listener = await ws_connect(
                lambda: new,
                url,
                ssl_context=ssl_context,
                disconnect_on_exception=False,
                websocket_handshake_timeout=timeout,
                logger_name=_log,
                enable_auto_pong=False,  # pings also prove that the peer lives
                max_frame_size=MAX_MESSAGE_SIZE,
                extra_headers=dict(headers or {}),
                max_redirects=0,
                proxy=proxy,
                socket_factory=connect,
            )
    except BaseException as exc:
        # What was begun must not come alive later: picows keeps the socket until it sees the end.
        # After the upgrade it is the receiver's, who may still have something to say.
        for opened in [] if new.is_open else sockets:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        if not isinstance(exc, Exception):
            raise
        raise Unreachable(_explain(url, proxy, exc, timeout), code=_status(exc)) from exc
    link = cast("Link | None", listener)
    if link is None:  # picows's word for a peer that hangs up during the upgrade
        raise Unreachable(
            f"{_place(url)} hung up instead of answering:"
            " is it a Pusher server, and is the scheme right?"
        )
    return link


async def _connect(host: str, port: int, source_address: str | None) -> socket.socket:
    """A connected socket: every address of the host, the families in turn (RFC 8305)."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    local = None
    if source_address is not None:
        try:
            local = await loop.getaddrinfo(source_address, 0, type=socket.SOCK_STREAM)
        except socket.gaierror:
            raise OSError(f"{source_address} is no address to dial from") from None
        families = {family for family, *_ in local}
        addresses = [address for address in addresses if address[0] in families]
        if not addresses:
            raise OSError(f"{host} has no address of the kind of {source_address}")
    try:
        return await start_connection(
            addresses,
            local_addr_infos=local,
            happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY,
            socket_factory=_socket,
        )
    except OSError as exc:
        # aiohappyeyeballs keeps it in a local: its traceback would hold the frame that holds it.
        raise exc.with_traceback(None) from None


def _socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)  # before it connects
    return made


def _status(exc: Exception) -> int | None:
    response = exc.response if isinstance(exc, WSInvalidStatusError) else None
    if response is not None:
        return int(response.status)
    # picows reads no status that Python has no name for, such as Cloudflare's 520.
    odd = re.search(r"HTTP/1\.\d ([2-9]\d\d)", str(exc)) if isinstance(exc, WSError) else None
    return None if odd is None else int(odd[1])


def _explain(url: str, proxy: str | None, exc: Exception, timeout: float) -> str:
    """Why a dial failed, in one line: what, where, and what to try."""
    there = _place(url)
    # The first hop is the proxy's; what it says of the second it says in its own words.
    hop = there if proxy is None else f"the proxy {_place(proxy)}"
    status = _status(exc)
    if status is not None and type(exc).__name__ != "ProxyError":
        return f"{there} answered {status} instead of a WebSocket: {_hint(status)}"
    match exc:
        case TimeoutError():
            return f"{hop} did not answer in {timeout:g} seconds: is a firewall in between?"
        case ssl.SSLCertVerificationError():
            return f"The certificate of {there} is not trusted: {exc.verify_message}."
        case ssl.SSLError():
            return f"{there} does not speak TLS ({exc.reason}): is the scheme http there?"
        case socket.gaierror():
            name = urlsplit(proxy or url).hostname
            return f"The name {name} cannot be found: check the host, or the network."
        case ConnectionRefusedError():
            return f"Nothing listens on {hop}: is the server running there?"
        case WSError() if proxy is None:
            return f"{there} is no WebSocket server: {str(exc)[:120]}."
    if proxy is not None:
        reason = str(exc).replace(proxy, hop)[:120]
        return f"{there} cannot be reached through {hop}: {type(exc).__name__}: {reason}."
    return f"{there} cannot be reached: {type(exc).__name__}: {str(exc)[:120]}."


def _place(url: str) -> str:
    """Host and port of an address, without user and password."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return "that address"


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

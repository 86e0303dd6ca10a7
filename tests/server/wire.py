"""A WebSocket client that hides nothing: it sends any bytes and shows every frame.

Real client libraries mask, fragment and close correctly; strangers do not. Every wait here ends
after `TIMEOUT` seconds, so a server that says nothing fails a test and does not hang it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from antiphon.protocol.signing import channel_auth
from antiphon.testing import ConnectionEnded as Closed

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "TIMEOUT",
    "Closed",
    "Frame",
    "HandshakeRefused",
    "Wire",
    "frame_bytes",
    "http",
    "until",
]

TIMEOUT: Final = 30.0

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

QUERY: Final = "protocol=7&client=js&version=8.6.0&flash=false"


class Frame(NamedTuple):
    """One frame from the server."""

    opcode: int
    payload: bytes


class HandshakeRefused(Exception):
    """The upgrade was answered with plain HTTP."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body[:200]!r}")
        self.status = status
        self.body = body


class Wire:
    """One raw connection; an async context manager that hangs up at its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.socket_id = ""

    # Coming and going

    @classmethod
    async def open(
        cls,
        port: int,
        path: str = "/app/k",
        *,
        query: str = QUERY,
        headers: Mapping[str, str] | None = None,
        narrow: bool = False,
    ) -> Self:
        """Shake hands, and no more.

        Args:
            port: The server's port.
            path: What to ask for.
            query: What follows the path.
            headers: More headers, or others than usual.
            narrow: Whether the system is to keep little of what is not read.

        Raises:
            HandshakeRefused: The server did not switch protocols.
        """
        dialled = socket.socket()
        dialled.setblocking(False)
        if narrow:  # before the window is told: a window that shrinks later loses packets
            dialled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        try:
            await asyncio.get_running_loop().sock_connect(dialled, ("127.0.0.1", port))
        except BaseException:
            dialled.close()
            raise
        reader, writer = await asyncio.open_connection(sock=dialled)
        wire = cls(reader, writer)
        lines = {
            "Host": f"127.0.0.1:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
            **(headers or {}),
        }
        request = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET {path}?{query} HTTP/1.1\r\n{request}\r\n".encode())
        try:
            async with asyncio.timeout(TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                if status != 101:
                    raise HandshakeRefused(status, await reader.read())
        except BaseException:
            await wire.hang_up()
            raise
        return wire

    @classmethod
    async def connect(cls, port: int, path: str = "/app/k", **options: Any) -> Self:
        """Shake hands and read the server's greeting."""
        wire = await cls.open(port, path, **options)
        try:
            greeting = await wire.event("pusher:connection_established")
        except BaseException:
            await wire.hang_up()
            raise
        wire.socket_id = greeting["data"]["socket_id"]
        return wire

    async def hang_up(self) -> None:
        """Close the socket without a word."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.hang_up()

    # Going out

    def send_bytes(self, raw: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(raw)

    def send_frame(self, opcode: int, payload: bytes = b"", **bits: Any) -> None:
        """Send one frame; `bits` as for `frame_bytes`."""
        self.send_bytes(frame_bytes(opcode, payload, **bits))

    def send_text(self, text: str) -> None:
        """Send a text message."""
        self.send_frame(TEXT, text.encode())

    def send(self, event: str, data: Any = None, channel: str | None = None) -> None:
        """Send an event."""
        frame = {"event": event, "data": data, "channel": channel}
        self.send_text(json.dumps({k: v for k, v in frame.items() if v is not None}))

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame."""
        self.send_frame(CLOSE, code.to_bytes(2) + reason.encode())

    async def drained(self) -> None:
        """Wait until the system has taken what was sent."""
        async with asyncio.timeout(TIMEOUT):
            await self._writer.drain()

    # Coming in

    def stop_reading(self) -> None:
        """Leave what comes in to the system, whose buffers fill up."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def resume_reading(self) -> None:
        """Read on."""
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    async def frame(self) -> Frame:
        """The next frame, whatever it is.

        Raises:
            Closed: The server hung up without a close frame.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                head = await self._reader.readexactly(2)
                assert not head[1] & 0x80, "a server must not mask"
                assert head[0] & 0x80, "this server does not fragment"
                assert not head[0] & 0x70, "no extension was agreed on"
                size = head[1] & 0x7F
                if size == 126:
                    size = int.from_bytes(await self._reader.readexactly(2))
                elif size == 127:
                    size = int.from_bytes(await self._reader.readexactly(8))
                return Frame(head[0] & 0x0F, await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise Closed(None, type(exc).__name__) from exc

    async def message(self) -> dict[str, Any]:
        """The next text message, with `data` decoded where it is a string holding JSON.

        Raises:
            Closed: The connection has ended.
        """
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                code = int.from_bytes(payload[:2]) if payload else 1005
                raise Closed(code, payload[2:].decode())
            if opcode == TEXT:
                message: dict[str, Any] = json.loads(payload)
                if isinstance(message.get("data"), str):
                    with contextlib.suppress(ValueError):
                        message["data"] = json.loads(message["data"])
                return message

    async def event(self, name: str) -> dict[str, Any]:
        """The next message, which must be this event."""
        message = await self.message()
        assert message["event"] == name, message
        return message

    async def error(self) -> int:
        """The next message, which must be an error in-band; its code."""
        return int((await self.event("pusher:error"))["data"]["code"])

    async def closed(self) -> Closed:
        """How the connection ends; what comes before is passed over."""
        while True:
            try:
                await self.message()
            except Closed as closed:
                return closed

    async def end(self) -> None:
        """Wait for the end of the TCP connection."""
        async with asyncio.timeout(TIMEOUT):
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(65_536):
                    pass

    # What nearly every test does

    async def ping(self) -> None:
        """Ask whether the server still answers on this connection."""
        self.send("pusher:ping", {})
        await self.event("pusher:pong")

    async def subscribe(
        self, channel: str, auth: str | None = None, channel_data: str | None = None
    ) -> dict[str, Any]:
        """Join a channel; the data of the success."""
        fields = {"channel": channel, "auth": auth, "channel_data": channel_data}
        self.send("pusher:subscribe", {k: v for k, v in fields.items() if v is not None})
        answer = await self.event("pusher_internal:subscription_succeeded")
        assert answer["channel"] == channel
        data: dict[str, Any] = answer["data"]
        return data

    async def join(
        self, channel: str, user_id: object = None, info: Any = None, *, secret: str = "s"
    ) -> dict[str, Any]:
        """Join a private channel of the application `k`, or with an id a presence channel."""
        channel_data = None
        if user_id is not None:
            channel_data = json.dumps({"user_id": user_id, "user_info": info})
        auth = channel_auth("k", secret, self.socket_id, channel, channel_data)
        return await self.subscribe(channel, auth, channel_data)


def frame_bytes(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """A client's frame as bytes, right or wrong."""
    size = len(payload)
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65_536:
        head += bytes([mask_bit | 126]) + size.to_bytes(2)
    else:
        head += bytes([mask_bit | 127]) + size.to_bytes(8)
    # A mask of zeros is a mask: the payload stays readable in a dump.
    return head + (b"\0\0\0\0" if masked else b"") + payload


async def http(port: int, request: bytes) -> tuple[int, bytes]:
    """Send raw bytes to the port and read one answer: status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(TIMEOUT):
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(
                line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
            )
            length = fields.get(b"content-length")
            body = await (reader.read() if length is None else reader.readexactly(int(length)))
        return int(head.split(b" ", 2)[1]), body
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nobody tells us about.

    Raises:
        TimeoutError: It has not come true.
    """
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110 - nothing sets an event
            await asyncio.sleep(0.005)

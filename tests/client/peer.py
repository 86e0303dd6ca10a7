"""A WebSocket server that does what a test tells it to, right or wrong.

Each connection is a `Dial`. A test either gives a script, which every dial runs through, or takes
the dials as they come with `await peer.dial()`. Every wait here ends after `TIMEOUT` seconds.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from antiphon.settings import Settings
from tests.server.wire import CLOSE, PING, PONG, TEXT, TIMEOUT, Closed, Frame, frame_bytes

__all__ = [
    "CERTIFICATE",
    "Dial",
    "Peer",
    "Script",
    "event_text",
    "polite",
    "server_tls",
    "trusting_tls",
]

CERTIFICATE: Final = Path(__file__).with_name("certificate.pem")
"""Self-signed, for 127.0.0.1 and localhost, with its key."""

_ACCEPT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Script = Callable[["Dial"], Awaitable[None]]


class Dial:
    """One connection that a client has opened; nothing has been said on it yet."""

    def __init__(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.number = number
        self.path = ""
        self.headers: dict[str, str] = {}
        self._reader = reader
        self._writer = writer

    # The upgrade

    async def request(self) -> bytes:
        """Read the upgrade request; the head of the answer that agrees to it.

        Raises:
            Closed: The client hung up instead.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise Closed(None, type(exc).__name__) from exc
        first, *lines = head.rstrip().split("\r\n")
        self.path = first.split(" ")[1]
        self.headers = {
            name.lower(): value for name, _, value in (x.partition(": ") for x in lines)
        }
        key = self.headers["sec-websocket-key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + _ACCEPT).digest()).decode()
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ).encode()

    async def upgrade(self) -> None:
        """Agree to speak WebSocket."""
        self.send_bytes(await self.request())

    async def answer(self, status: int, body: str = "", **headers: str) -> None:
        """Answer the upgrade request with plain HTTP."""
        await self.request()
        fields = {"Content-Length": str(len(body.encode())), **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send_bytes(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n{body}".encode())

    async def greet(self, socket_id: str = "", activity_timeout: float = 120) -> str:
        """Agree to speak WebSocket and say `connection_established`; the socket id."""
        await self.upgrade()
        socket_id = socket_id or f"{self.number}.1"
        self.establish(socket_id, activity_timeout)
        return socket_id

    # Going out

    def establish(self, socket_id: str = "1.1", activity_timeout: float = 120) -> None:
        """Say `connection_established`."""
        data = {"socket_id": socket_id, "activity_timeout": activity_timeout}
        self.send("pusher:connection_established", data)

    def send(self, event: str, data: Any = None, channel: str | None = None) -> None:
        """Send an event, its data as JSON in a string."""
        self.send_text(event_text(event, data, channel))

    def error(self, code: int, message: str) -> None:
        """Send an error in-band."""
        self.send("pusher:error", {"code": code, "message": message})

    def accept(self, channel: str, data: Any = None) -> None:
        """Say that a subscription has succeeded."""
        self.send("pusher_internal:subscription_succeeded", data or {}, channel)

    def send_text(self, text: str) -> None:
        """Send a text message."""
        self.send_frame(TEXT, text.encode())

    def send_frame(self, opcode: int, payload: bytes = b"", **bits: Any) -> None:
        """Send one frame; `bits` as for `frame_bytes`."""
        self.send_bytes(frame_bytes(opcode, payload, **{"masked": False, **bits}))

    def send_bytes(self, raw: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(raw)

    def send_close(self, code: int | None = None, reason: str = "") -> None:
        """Send a close frame."""
        self.send_frame(CLOSE, b"" if code is None else code.to_bytes(2) + reason.encode())

    async def close(self, code: int | None = None, reason: str = "") -> None:
        """Close as one should: say so, wait for the answer, hang up."""
        self.send_close(code, reason)
        await self.closed()
        await self.hang_up()

    async def drained(self) -> None:
        """Wait until the system has taken what was sent."""
        async with asyncio.timeout(TIMEOUT):
            await self._writer.drain()

    def squeeze(self) -> None:
        """Let the system hold little of what the client does not read."""
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536
        )

    @property
    def unsent(self) -> int:
        """Bytes that the system has not taken yet, because the client does not read."""
        return self._writer.transport.get_write_buffer_size()

    async def hang_up(self) -> None:
        """End the TCP connection."""
        self._writer.close()
        # Shielded: who is cancelled while it waits would cancel all who ever wait for this.
        ended = asyncio.ensure_future(self._writer.wait_closed())
        ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        with contextlib.suppress(OSError):
            await asyncio.shield(ended)

    def abort(self) -> None:
        """Reset the TCP connection."""
        with contextlib.suppress(AttributeError):  # what is gone for good has no loop any more
            self._writer.transport.abort()

    # Coming in

    async def frame(self) -> Frame:
        """The next frame, whatever it is, unmasked.

        Raises:
            Closed: The client hung up.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                head = await self._reader.readexactly(2)
                assert head[1] & 0x80, "a client must mask"
                size = head[1] & 0x7F
                if size == 126:
                    size = int.from_bytes(await self._reader.readexactly(2))
                elif size == 127:
                    size = int.from_bytes(await self._reader.readexactly(8))
                mask = await self._reader.readexactly(4)
                masked = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise Closed(None, type(exc).__name__) from exc
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))
        return Frame(head[0] & 0x0F, payload)

    async def text(self) -> str:
        """The next text message; WebSocket pings and pongs are passed over.

        Raises:
            Closed: The client has closed the connection, or hung up.
        """
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                code = int.from_bytes(payload[:2]) if payload else 1005
                raise Closed(code, payload[2:].decode())
            if opcode not in (PING, PONG):
                return payload.decode()

    async def message(self) -> dict[str, Any]:
        """The next message, decoded."""
        message: dict[str, Any] = json.loads(await self.text())
        return message

    async def event(self, name: str) -> Any:
        """The data of the next message, which must be this event."""
        message = await self.message()
        assert message["event"] == name, message
        return message.get("data")

    async def subscribe(self, *, accept: bool = True) -> dict[str, Any]:
        """The data of the next message, which must be a subscribe; it is granted."""
        data: dict[str, Any] = await self.event("pusher:subscribe")
        if accept:
            self.accept(data["channel"])
        return data

    async def serve(self) -> None:
        """Be a good server from here on: grant subscribes, answer pings, agree to part."""
        try:
            while True:
                message = await self.message()
                match message["event"]:
                    case "pusher:subscribe":
                        self.accept(message["data"]["channel"])
                    case "pusher:ping":
                        self.send("pusher:pong", {})
        except Closed as closed:
            self.send_close(closed.code or 1000)
            await self.hang_up()

    async def closed(self) -> Closed:
        """How the client ends the connection; what comes before is passed over."""
        while True:
            try:
                await self.text()
            except Closed as closed:
                return closed

    async def end(self) -> None:
        """Wait for the end of the TCP connection."""
        async with asyncio.timeout(TIMEOUT):
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(65_536):
                    pass


class Peer:
    """A server on a free port, up while its context lasts.

    Args:
        script: What each dial runs through; when it returns, the connection is ended. Without
            one, connections stay open until the test or the peer ends them.
        tls: Speak TLS from the beginning.
        port: A port to listen on again.
    """

    def __init__(
        self, script: Script | None = None, *, tls: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        self.port = port
        self.dials: list[Dial] = []
        self._script = script
        self._tls = tls
        self._arrived: asyncio.Queue[Dial] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._server: asyncio.Server | None = None

    def settings(self, **fields: Any) -> Settings:
        """What a client needs to dial."""
        scheme = "http" if self._tls is None else "https"
        base = {"app_key": "k", "app_secret": "s", "host": "127.0.0.1", "scheme": scheme}
        return Settings(**{**base, "port": self.port, **fields})

    async def dial(self) -> Dial:
        """The next connection that a client opens."""
        async with asyncio.timeout(TIMEOUT):
            return await self._arrived.get()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls, limit=1 << 24
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for dial in self.dials:
            dial.abort()
            await dial.hang_up()
        await self._server.wait_closed()
        if self._failures and exc is None:
            raise self._failures[0]

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dial = Dial(len(self.dials) + 1, reader, writer)
        self.dials.append(dial)
        if self._script is None:
            self._arrived.put_nowait(dial)
            return
        task = asyncio.get_running_loop().create_task(self._run(self._script, dial))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, script: Script, dial: Dial) -> None:
        try:
            await script(dial)
        except (Closed, ConnectionError):
            pass  # the client has left in the middle of the script
        except Exception as exc:
            self._failures.append(exc)
        finally:
            await dial.hang_up()


async def polite(dial: Dial) -> None:
    """The script of a server that does nothing wrong."""
    await dial.greet()
    await dial.serve()


def event_text(event: str, data: Any = None, channel: str | None = None) -> str:
    """A frame's text, its data as JSON in a string."""
    frame = {"event": event, "channel": channel, "data": None if data is None else json.dumps(data)}
    return json.dumps({name: value for name, value in frame.items() if value is not None})


def server_tls() -> ssl.SSLContext:
    """The server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def trusting_tls() -> ssl.SSLContext:
    """A client's side of TLS that trusts the certificate."""
    return ssl.create_default_context(cafile=str(CERTIFICATE))

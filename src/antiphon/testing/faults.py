"""A WebSocket server that does what a test tells it to, right or wrong.

Each connection is a `Dial`. A test either gives scripts, which the dials run through, or takes the
dials as they come with `await server.dial()`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from antiphon.protocol.frames import encode
from antiphon.settings import Settings

__all__ = [
    "ConnectionEnded",
    "Dial",
    "FaultServer",
    "Frame",
    "Script",
    "answering",
    "closing",
    "event_text",
    "frame_bytes",
    "hanging_up",
    "polite",
    "refusing",
    "silent",
]

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_NO_CODE: Final = 1005
_ACCEPT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_READ_LIMIT: Final = 1 << 24

Script = Callable[["Dial"], Awaitable[None]]
"""What a connection goes through: a coroutine function that is given the `Dial`."""


class Frame(NamedTuple):
    """One WebSocket frame as it was received, unmasked."""

    opcode: int
    payload: bytes


class ConnectionEnded(Exception):
    """The other end has closed the connection, or is gone.

    Attributes:
        code: Of the close frame; 1005 if it had none, None if there was no close frame at all.
        reason: Its words.
    """

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(f"ended with {code}: {reason}")
        self.code = code
        self.reason = reason


class FaultServer:
    """A WebSocket server on a free port of loopback, faulty to order.

    An asynchronous context manager, for asyncio. It knows nothing of channels and signatures:
    scripts say what it does, and `polite`, `silent`, `hanging_up`, `closing(code)`,
    `refusing(code, message)` and `answering(status)` are ready-made ones.

    Args:
        script: What every dial runs through, or one script for each dial in turn, of which the
            last one stays. When a script returns, the connection is ended. Without a script
            connections stay open, and `dial()` gives them to the test.
        timeout: Seconds that `dial()`, and each wait of a dial for the client, lasts at most.
        tls: Speaks TLS from the beginning.
        port: A port to listen on again.

    Attributes:
        port: The port it listens on.
        dials: Every connection that was ever opened, oldest first.

    Raises:
        Exception: When the context ends, the first one that a script has raised.
    """

    def __init__(
        self,
        script: Script | Sequence[Script] | None = None,
        *,
        timeout: float = 5.0,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.port = port
        self.dials: list[Dial] = []
        self._scripts = [script] if callable(script) else list(script or ())
        self._timeout = timeout
        self._tls = tls
        self._arrived: asyncio.Queue[Dial] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self._server: asyncio.Server | None = None

    @property
    def settings(self) -> Settings:
        """What a client needs to dial; key, id and secret are any."""
        return Settings(
            app_key="test-key",
            app_id="test",
            app_secret="test-secret",  # noqa: S106
            host="127.0.0.1",
            port=self.port,
            scheme="http" if self._tls is None else "https",
        )

    async def dial(self) -> Dial:
        """The next connection that a client opens, on a server without scripts.

        Raises:
            TimeoutError: None came in time.
        """
        async with asyncio.timeout(self._timeout):
            return await self._arrived.get()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls, limit=_READ_LIMIT
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
        dial = Dial(len(self.dials) + 1, reader, writer, self._timeout)
        self.dials.append(dial)
        if not self._scripts:
            self._arrived.put_nowait(dial)
            return
        script = self._scripts[min(dial.number, len(self._scripts)) - 1]
        task = asyncio.get_running_loop().create_task(self._run(script, dial))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, script: Script, dial: Dial) -> None:
        try:
            await script(dial)
        except (ConnectionEnded, ConnectionError):
            pass  # the client has left in the middle of the script
        except Exception as exc:
            self._failures.append(exc)
        finally:
            await dial.hang_up()


class Dial:
    """One connection that a client has opened; nothing has been said on it yet.

    What waits for the client raises `ConnectionEnded` when the client has left instead, and
    `TimeoutError` when it says nothing for as long as the server's `timeout`.

    Attributes:
        number: 1 for the first dial of a server.
        path: What the client asked for, with the query, once `request` or `upgrade` is done.
        headers: The request's headers, names in small letters.
    """

    def __init__(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        timeout: float,
    ) -> None:
        self.number = number
        self.path = ""
        self.headers: dict[str, str] = {}
        self._reader = reader
        self._writer = writer
        self._timeout = timeout

    # The upgrade

    async def request(self) -> bytes:
        """Read the upgrade request; gives the head of the answer that agrees to it.

        Half a handshake is `dial.send_bytes((await dial.request())[:40])`.

        Raises:
            ConnectionEnded: The client hung up instead.
        """
        try:
            async with asyncio.timeout(self._timeout):
                head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise ConnectionEnded(None, type(exc).__name__) from exc
        first, *lines = head.rstrip().split("\r\n")
        self.path = first.split(" ")[1]
        self.headers = {
            name.lower(): value for name, _, value in (x.partition(": ") for x in lines)
        }
        key = self.headers["sec-websocket-key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + _ACCEPT).digest()).decode()  # noqa: S324
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ).encode()

    async def upgrade(self) -> None:
        """Agree to speak WebSocket, and say nothing yet."""
        self.send_bytes(await self.request())

    async def answer(self, status: int, body: str = "", **headers: str) -> None:
        """Answer the upgrade request with plain HTTP.

        Args:
            status: The HTTP status.
            body: The body.
            **headers: Further headers: `Location="/"`, `**{"Retry-After": "5"}`.
        """
        await self.request()
        fields = {"Content-Length": str(len(body.encode())), **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send_bytes(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n{body}".encode())

    async def greet(self, socket_id: str = "", activity_timeout: float = 120) -> str:
        """Agree to speak WebSocket and say `connection_established`; gives the socket id."""
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
        """Send a text message as it is."""
        self.send_frame(_TEXT, text.encode())

    def send_frame(self, opcode: int, payload: bytes = b"", **bits: Any) -> None:
        """Send one frame; `bits` as for `frame_bytes`."""
        self.send_bytes(frame_bytes(opcode, payload, **bits))

    def send_bytes(self, raw: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(raw)

    def send_close(self, code: int | None = None, reason: str = "") -> None:
        """Send a close frame, with a code or without."""
        self.send_frame(_CLOSE, b"" if code is None else code.to_bytes(2) + reason.encode())

    async def close(self, code: int | None = None, reason: str = "") -> None:
        """Close as one should: say so, wait for the answer, hang up."""
        self.send_close(code, reason)
        await self.closed()
        await self.hang_up()

    async def drained(self) -> None:
        """Wait until the system has taken what was sent."""
        async with asyncio.timeout(self._timeout):
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
        """End the TCP connection without a close frame."""
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
        """The next frame, whatever it is."""
        async with asyncio.timeout(self._timeout):
            return await self._read_frame()

    async def text(self) -> str:
        """The next text message; WebSocket pings and pongs are passed over."""
        async with asyncio.timeout(self._timeout):
            return await self._read_text()

    async def message(self) -> dict[str, Any]:
        """The next message, decoded: `event`, and with most of them `data` and `channel`."""
        message: dict[str, Any] = json.loads(await self.text())
        return message

    async def event(self, name: str) -> Any:
        """The data of the next message.

        Raises:
            AssertionError: It is another event than this.
        """
        message = await self.message()
        if message["event"] != name:
            raise AssertionError(f"The client should have said {name}, and said {message}.")
        return message.get("data")

    async def subscribe(self, *, accept: bool = True) -> dict[str, Any]:
        """The data of the next message, which must be a subscribe; it is granted.

        Args:
            accept: Whether it is granted.

        Raises:
            AssertionError: It is another event.
        """
        data: dict[str, Any] = await self.event("pusher:subscribe")
        if accept:
            self.accept(data["channel"])
        return data

    async def serve(self) -> None:
        """Be a good server from here on: grant subscribes, answer pings, agree to part.

        Returns when the client has left, however long that takes.
        """
        try:
            while True:
                message = json.loads(await self._read_text())
                match message["event"]:
                    case "pusher:subscribe":
                        self.accept(message["data"]["channel"])
                    case "pusher:ping":
                        self.send("pusher:pong", {})
        except ConnectionEnded as ended:
            self.send_close(ended.code if ended.code not in (None, _NO_CODE) else 1000)
            await self.hang_up()

    async def closed(self) -> ConnectionEnded:
        """How the client ends the connection; what comes before is passed over."""
        while True:
            try:
                await self.text()
            except ConnectionEnded as ended:
                return ended

    async def end(self) -> None:
        """Wait for the end of the TCP connection."""
        async with asyncio.timeout(self._timeout):
            await self._read_all()

    async def _read_text(self) -> str:
        while True:
            opcode, payload = await self._read_frame()
            if opcode == _CLOSE:
                code = int.from_bytes(payload[:2]) if payload else _NO_CODE
                raise ConnectionEnded(code, payload[2:].decode())
            if opcode not in (_PING, _PONG):
                return payload.decode()

    async def _read_frame(self) -> Frame:
        try:
            head = await self._reader.readexactly(2)
            if not head[1] & 0x80:
                raise AssertionError("The client has not masked a frame (RFC 6455, 5.1).")
            size = head[1] & 0x7F
            if size == 126:
                size = int.from_bytes(await self._reader.readexactly(2))
            elif size == 127:
                size = int.from_bytes(await self._reader.readexactly(8))
            mask = await self._reader.readexactly(4)
            masked = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as exc:
            raise ConnectionEnded(None, type(exc).__name__) from exc
        return Frame(head[0] & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked)))

    async def _read_all(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65_536):
                pass


# Scripts


async def polite(dial: Dial) -> None:
    """A server that does nothing wrong: greets, grants every subscribe, answers pings."""
    await dial.greet()
    await dial.serve()


async def silent(dial: Dial) -> None:
    """A server that agrees to speak WebSocket and never says a word."""
    await dial.upgrade()
    await dial._read_all()


async def hanging_up(dial: Dial) -> None:
    """A server that accepts the connection, and hangs up before the handshake."""


def closing(code: int | None = None, reason: str = "") -> Script:
    """A server that greets, and then closes with a code, or with none."""

    async def script(dial: Dial) -> None:
        await dial.greet()
        await dial.close(code, reason)

    return script


def refusing(code: int, message: str = "Refused", *, close: bool = True) -> Script:
    """A server that says `pusher:error` instead of its greeting.

    Args:
        code: Such as 4001, application does not exist.
        message: Words for people.
        close: Whether it then closes with the same code, as the protocol asks; Reverb leaves
            the connection open.
    """

    async def script(dial: Dial) -> None:
        await dial.upgrade()
        dial.error(code, message)
        if close:
            await dial.close(code, message)
        else:
            await dial._read_all()

    return script


def answering(status: int, body: str = "", headers: Mapping[str, str] | None = None) -> Script:
    """A server, or a proxy before it, that answers the upgrade with plain HTTP."""

    async def script(dial: Dial) -> None:
        await dial.answer(status, body, **(headers or {}))

    return script


# Bytes


def event_text(event: str, data: Any = None, channel: str | None = None) -> str:
    """A message's text, its data as JSON in a string, as servers send it."""
    text = None if data is None else json.dumps(data)
    return encode(event, text, channel).decode()


def frame_bytes(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = False
) -> bytes:
    """A WebSocket frame as bytes, right or wrong (RFC 6455, 5.2).

    Args:
        opcode: 0 continuation, 1 text, 2 binary, 8 close, 9 ping, 10 pong.
        payload: The payload.
        fin: Whether the message ends here.
        rsv: The three reserved bits as a number.
        masked: Whether it has a mask, as a client's must and a server's must not.
    """
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

"""Whom a command may meet on the network besides our own server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "ESTABLISHED",
    "Gate",
    "Handler",
    "answering",
    "http_server",
    "kept_port",
    "saying",
    "self_signed",
    "tcp_server",
]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ESTABLISHED: Final = (
    r'{"event":"pusher:connection_established",'
    r'"data":"{\"socket_id\":\"1.2\",\"activity_timeout\":30}"}'
)


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A port at which nobody listens, and which only those get who ask for it by its number."""
    with socket.socket() as holder:
        # Who listens with this option, too, gets a port that is bound already, one after the other.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        if sys.platform != "linux":  # elsewhere they do not
            holder.close()
        yield port


@contextlib.asynccontextmanager
async def tcp_server(
    say: bytes, *, answer: bool = True, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Says something to whoever comes (after they have spoken), and hangs up; its port."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            if answer:
                await reader.read(65_536)
            writer.write(say)
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def http_server(handle: Handler) -> AsyncIterator[int]:
    """Answers every request as a handler says; its port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def answering(status: int, body: str = "", **headers: str) -> Handler:
    """A handler that always answers the same."""

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, text=body, headers=headers)

    return handle


def saying(*messages: str, close: int | None = None) -> Handler:
    """A WebSocket server that says this and then listens, or closes with a code."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for message in messages:
            await socket.send_str(message)
        if close is not None:
            await socket.close(code=close)
        async for _ in socket:
            pass
        return socket

    return handle


def self_signed(folder: Path) -> ssl.SSLContext:
    """TLS for 127.0.0.1 with a certificate that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    path = folder / "self-signed.pem"
    path.write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class Gate:
    """Passes connections on to a port, and counts them."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self.port = 0
        self._to = port

    async def __aenter__(self) -> Gate:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()
        await writer.wait_closed()

"""A crowd of subscribers in a process of its own: `python -m benchmarks.loader PORT …`.

It counts bytes, not frames: what a client makes of them is another benchmark.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from antiphon.protocol.frames import encode

CHANNEL = "room"
DATA = "x" * 208
FRAME = encode("event", DATA, CHANNEL)
FRAME_SIZE = len(FRAME) + 4
_UPGRADE = (
    b"GET /app/bench-key?protocol=7 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def masked(message: bytes) -> bytes:
    """A client's text frame; masked with zeros, which changes nothing."""
    assert len(message) < 126
    return bytes([0x81, 0x80 | len(message)]) + b"\0\0\0\0" + message


class Subscriber(asyncio.BufferedProtocol):
    """One connection: upgrades, subscribes, then reports how much arrives."""

    buffer = bytearray(1 << 18)

    def __init__(self, ready: Callable[[], None], received: Callable[[int], None]) -> None:
        self._ready = ready
        self._received = received
        self._early = b""
        self._is_ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(_UPGRADE)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        if self._is_ready:
            self._received(count)
            return
        before, self._early = self._early, self._early + bytes(self.buffer[:count])
        if b"connection_established" in self._early and b"connection_established" not in before:
            subscribe = encode("pusher:subscribe", {"channel": CHANNEL})
            self._transport.write(masked(subscribe))
        if b"subscription_succeeded" in self._early:
            self._is_ready = True
            self._early = b""
            self._ready()


async def crowd(port: int, size: int, received: Callable[[int], None]) -> list[Subscriber]:
    """`size` subscribers of the channel, all of them ready."""
    loop = asyncio.get_running_loop()
    everyone: list[Subscriber] = []
    left = size
    ready = asyncio.Event()

    def one_more() -> None:
        nonlocal left
        left -= 1
        if not left:
            ready.set()

    for _ in range(size):
        _, subscriber = await loop.create_connection(
            lambda: Subscriber(one_more, received), "127.0.0.1", port
        )
        everyone.append(subscriber)
    async with asyncio.timeout(120):
        await ready.wait()
    return everyone

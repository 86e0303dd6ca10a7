"""A crowd of subscribers in a loop of its own, and what all loads send.

It counts bytes, not frames: what a client makes of them is another benchmark.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast
from urllib.parse import urlencode

from antiphon.protocol.frames import encode
from antiphon.protocol.signing import sign_request

CHANNEL = "room"
DATA = "x" * 213  # frames of 261 bytes
FRAME = encode("event", DATA, CHANNEL)
FRAME_SIZE = len(FRAME) + 4
UPGRADE = (
    b"GET /app/bench-key?protocol=7 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_AT_ONCE = 128
_PATIENCE = 120

Reader = Callable[[memoryview], None]
"""Takes a read's bytes, which are there until it returns."""


def masked(message: bytes) -> bytes:
    """A client's text frame; masked with zeros, which changes nothing."""
    assert len(message) < 126
    return bytes([0x81, 0x80 | len(message)]) + b"\0\0\0\0" + message


def subscribe(channel: str) -> bytes:
    """The frame that asks for a channel."""
    return masked(encode("pusher:subscribe", {"channel": channel}))


def publish(channel: str, data: str) -> bytes:
    """A whole signed request that publishes one event."""
    path = "/apps/bench/events"
    body = json.dumps({"name": "event", "channels": [channel], "data": data}).encode()
    now = int(time.time())
    query = sign_request("bench-key", "bench-secret", "POST", path, timestamp=now, body=body)
    head = (
        f"POST {path}?{urlencode(query)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def allow_many_files() -> None:
    """Raise this process's limit of open files as far as it goes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Subscriber(asyncio.BufferedProtocol):
    """One connection: upgrades, subscribes, then hands on what arrives.

    Args:
        channels: What it subscribes to.
        ready: Called when it is in all of them.
        received: Takes what arrives then.
    """

    buffer = memoryview(bytearray(1 << 18))

    def __init__(
        self,
        channels: Sequence[str],
        ready: Callable[[], None],
        received: Reader,
    ) -> None:
        self._channels = channels
        self._ready = ready
        self._received = received
        self._early = b""
        self._is_ready = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(UPGRADE)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        if self._is_ready:
            self._received(self.buffer[:count])
            return
        before, self._early = self._early, self._early + bytes(self.buffer[:count])
        if b"connection_established" in self._early and b"connection_established" not in before:
            self.transport.write(b"".join(map(subscribe, self._channels)))
        if self._early.count(b"subscription_succeeded") == len(self._channels):
            self._is_ready = True
            self._early = b""
            self._ready()


async def crowd(
    port: int,
    size: int,
    reader: Callable[[], Reader] = lambda: _ignore,
    channels: Callable[[int], Sequence[str]] = lambda number: (CHANNEL,),
) -> list[Subscriber]:
    """So many subscribers, all of them ready.

    Args:
        port: Where they connect.
        size: How many.
        reader: Makes what takes the bytes of one of them.
        channels: What the nth of them subscribes to.
    """
    loop = asyncio.get_running_loop()
    left = size
    all_ready = asyncio.Event()
    connecting = asyncio.Semaphore(_AT_ONCE)

    def one_more() -> None:
        nonlocal left
        left -= 1
        connecting.release()
        if not left:
            all_ready.set()

    everyone: list[Subscriber] = []
    async with asyncio.timeout(_PATIENCE):
        for number in range(size):
            await connecting.acquire()
            subscriber = Subscriber(channels(number), one_more, reader())
            await loop.create_connection(partial(_same, subscriber), "127.0.0.1", port)
            everyone.append(subscriber)
        await all_ready.wait()
    return everyone


def _same(subscriber: Subscriber) -> Subscriber:
    return subscriber


def _ignore(read: memoryview) -> None:
    pass

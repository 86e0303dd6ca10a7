"""Publishes at fixed times, whether or not those before are answered, in a process of its own.

`python -m benchmarks.publishing PORT BEGINS PER_SECOND COUNT CHANNEL`. Each event's data begins
with the nanosecond at which it was to be published (CLOCK_MONOTONIC, which all processes of a
machine share): an event that is published late is not flattered.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import cast

import uvloop

from .loader import DATA, publish

STAMP = 20  # digits


def stamped(nanosecond: int) -> str:
    """The data of the event that is published then; as long as all others."""
    return f"{nanosecond:0{STAMP}d}".ljust(len(DATA), "x")


class Connection(asyncio.Protocol):
    """One connection to the HTTP API, with one request at a time.

    Args:
        free: Called when it is connected, and at each answer.
    """

    def __init__(self, free: Callable[[Connection], None]) -> None:
        self.is_open = True
        self._free = free

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._free(self)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
            sys.exit(f"A publish was refused: {data!r}")
        if data.endswith(b"}"):
            self._free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False  # the server keeps none that is not used for some seconds

    def send(self, request: bytes) -> None:
        self._transport.write(request)


async def main(port: int, begins: int, per_second: int, count: int, channel: str) -> None:
    loop = asyncio.get_running_loop()
    free: list[Connection] = []
    for number in range(count):
        due = begins + number * 1_000_000_000 // per_second
        request = publish(channel, stamped(due))
        delay = (due - time.monotonic_ns()) / 1e9
        # The loop's clock has milliseconds; the rest is slept out to the point.
        await asyncio.sleep(max(0.0, delay - 0.002))
        time.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))  # noqa: ASYNC251
        while free and not free[-1].is_open:
            free.pop()
        if not free:  # all wait for an answer, which nobody here waits for
            await loop.create_connection(lambda: Connection(free.append), "127.0.0.1", port)
        free.pop().send(request)
    await asyncio.sleep(60)  # the last answers; who started this ends it


if __name__ == "__main__":
    port, begins, per_second, count = map(int, sys.argv[1:5])
    uvloop.run(main(port, begins, per_second, count, sys.argv[5]))

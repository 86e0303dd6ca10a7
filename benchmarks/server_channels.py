"""What a publish to one channel costs among 10 channels and among 10 000.

`python -m benchmarks.server_channels`. 1 000 connections are held each time, and each channel has
10 subscribers: with 10 000 channels that is 100 subscriptions for each connection, 100 000 in all.
One publish is in flight. They go to 10 channels in turn, or else to thousands of them, so that
nothing stays in the CPU's cache.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import uvloop

from .latency import percentile
from .loader import FRAME_SIZE, Reader, crowd, publish
from .measure import asked, ratios, rounds, table
from .native import STAMP_AT
from .publishing import STAMP, Connection, stamped
from .serving import Process, server

CONNECTIONS = 1_000
SUBSCRIBERS = 10
PUBLISHES = 4_000


class Case(NamedTuple):
    channels: int
    published_to: int


CASES = {
    "10 channels": Case(10, 10),
    "10 000 channels": Case(10_000, 10),
    "10 000, published to all": Case(10_000, 10_000),
}


def named(channel: int) -> str:
    return f"{channel:04d}"


def subscribed(channels: int, connection: int) -> Sequence[str]:
    """What a connection subscribes to: each ten of them share their channels."""
    groups = CONNECTIONS // SUBSCRIBERS
    return [named(channel) for channel in range(connection // SUBSCRIBERS, channels, groups)]


class Arrivals:
    """The delays of what arrives, in nanoseconds."""

    def __init__(self, expected: int) -> None:
        self.delays: list[int] = []
        self._left = expected
        self.done = asyncio.Event()

    def reader(self) -> Reader:
        """Takes one connection's bytes."""
        rest = b""

        def received(read: memoryview) -> None:
            nonlocal rest
            now = time.monotonic_ns()
            data = rest + bytes(read)
            whole = len(data) // FRAME_SIZE * FRAME_SIZE
            rest = data[whole:]
            for start in range(STAMP_AT, whole, FRAME_SIZE):
                self.delays.append(now - int(data[start : start + STAMP]))
            self._left -= whole // FRAME_SIZE
            if self._left <= 0:
                self.done.set()

        return received


async def publishes(process: Process, case: Case) -> dict[str, float]:
    arrivals = Arrivals(PUBLISHES * SUBSCRIBERS)
    everyone = await crowd(
        process.port, CONNECTIONS, arrivals.reader, partial(subscribed, case.channels)
    )
    answered = asyncio.Event()
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(lambda connection: answered.set()), "127.0.0.1", process.port
    )
    before = process.cpu()
    for number in range(PUBLISHES):
        answered.clear()
        channel = named(number % case.published_to)
        connection.send(publish(channel, stamped(time.monotonic_ns())))
        await answered.wait()
    async with asyncio.timeout(60):
        await arrivals.done.wait()
    server_cpu = process.cpu() - before
    for subscriber in everyone:
        subscriber.transport.abort()
    return {
        "µs of the server's CPU": server_cpu / PUBLISHES * 1e6,
        "µs to a subscriber, p50": percentile(sorted(arrivals.delays), 0.5) / 1e3,
    }


def measure(case: Case) -> dict[str, float]:
    """One run with a fresh server."""
    with server() as process:
        return uvloop.run(publishes(process, case))


def main() -> None:
    figures = rounds({name: partial(measure, case) for name, case in CASES.items()})
    few, many, _ = CASES
    for unit, values in figures.items():
        table(f"Server: a publish to {SUBSCRIBERS} subscribers", unit, values, few)
    cpu = figures["µs of the server's CPU"]
    asked("CPU × that among 10 channels", ratios(cpu[many], cpu[few]), at_most=1.1)


if __name__ == "__main__":
    main()

"""Deliveries per second from one server process: 1 000 subscribers, signed publishes over HTTP.

`python -m benchmarks.server_fanout`. The loader has the other core, and shares it with the
publisher; the bare loop does no more than write the same frame to the same sockets.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from antiphon import Publisher, Settings

from .loader import CHANNEL, DATA, FRAME_SIZE, crowd
from .measure import in_turn, python, table

SUBSCRIBERS = 1_000
PUBLISHES = {1: 300, 64: 1_500}


async def load(port: int, in_flight: int) -> float:
    """Publish with so many requests in flight; deliveries per second until all have arrived."""
    publishes = PUBLISHES[in_flight]
    expected = publishes * SUBSCRIBERS * FRAME_SIZE
    arrived = 0
    done = asyncio.Event()

    def received(count: int) -> None:
        nonlocal arrived
        arrived += count
        if arrived >= expected:
            done.set()

    everyone = await crowd(port, SUBSCRIBERS, received)
    settings = Settings(
        app_key="bench-key",
        app_id="bench",
        app_secret="bench-secret",
        host="127.0.0.1",
        port=port,
        scheme="http",
    )
    numbers = iter(range(publishes))
    async with Publisher(settings) as publisher:

        async def worker() -> None:
            for _ in numbers:
                await publisher.trigger(CHANNEL, "event", DATA)

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        async with asyncio.timeout(60):
            await done.wait()
        took = time.perf_counter() - began
    assert len(everyone) == SUBSCRIBERS
    return publishes * SUBSCRIBERS / took


def main() -> None:
    servers = {
        name: subprocess.Popen(python("server_process", kind), stdout=subprocess.PIPE, text=True)
        for name, kind in {"antiphon": "antiphon", "bare write loop": "bare"}.items()
    }
    try:
        ports = {name: int(p.stdout.readline()) for name, p in servers.items() if p.stdout}
        for in_flight in PUBLISHES:
            figures = in_turn(
                {n: python("server_fanout", port, in_flight) for n, port in ports.items()}
            )
            title = f"Server: {SUBSCRIBERS:,} subscribers, {in_flight} publishes in flight"
            table(title, "deliveries/s", figures, "bare write loop")
    finally:
        for process in servers.values():
            process.terminate()
            process.wait()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print(asyncio.run(load(int(sys.argv[1]), int(sys.argv[2]))))

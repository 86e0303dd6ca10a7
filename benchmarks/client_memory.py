"""Whether a client grows: resident memory after 100 000 events, and after 1 000 000.

`python -m benchmarks.client_memory`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from antiphon import Client, Settings
from antiphon.chat import MessageSentEvent

from .feeder import CHANNEL, EVENT
from .measure import python

COUNT = 1_000_000
EARLY = 100_000


def resident() -> int:
    """Bytes, as the kernel counts them (Linux): the second number of statm is pages."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


class Counter:
    """Counts events, and looks at the memory twice."""

    def __init__(self) -> None:
        self.received = 0
        self.early = 0
        self.growth: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()

    def __call__(self, event: object) -> None:
        self.received += 1
        if self.received == EARLY:
            self.early = resident()
        elif self.received == COUNT:
            self.growth.set_result((self.early, resident()))


async def handler(pusher: Client) -> tuple[int, int]:
    counter = Counter()
    pusher.subscribe(CHANNEL).bind(EVENT, counter, type=MessageSentEvent)
    return await counter.growth


async def stream(pusher: Client) -> tuple[int, int]:
    counter = Counter()
    async for message in pusher.subscribe(CHANNEL).stream(EVENT, MessageSentEvent):
        counter(message)
        if counter.growth.done():
            break
    return await counter.growth


async def measure(kind: str, port: int) -> None:
    async with Client(Settings(app_key="k", host="127.0.0.1", port=port, scheme="http")) as pusher:
        early, late = await {"handler": handler, "stream": stream}[kind](pusher)
    print(early, late)


def main() -> None:
    print(f"\nClient: resident memory (bytes; after {EARLY:,} events, after {COUNT:,}, growth)")
    feeder = subprocess.Popen(python("feeder", COUNT), stdout=subprocess.PIPE, text=True)
    assert feeder.stdout is not None
    try:
        port = int(feeder.stdout.readline())
        for kind, name in {"handler": "typed handler", "stream": "async iterator"}.items():
            command = python("client_memory", kind, port)
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
            early, late = map(int, done.stdout.split())
            print(f"  {f'antiphon, {name}':<28} {early:>12,}   {late:>12,}   {late - early:>+12,}")
    finally:
        feeder.terminate()
        feeder.wait()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        asyncio.run(measure(sys.argv[1], int(sys.argv[2])))

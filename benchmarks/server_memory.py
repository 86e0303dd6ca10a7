"""Resident memory per subscribed connection: `python -m benchmarks.server_memory`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import uvloop

from .loader import allow_many_files, crowd
from .measure import asked, rounds, table
from .serving import Process, server

CONNECTIONS = (5_000, 10_000)
KINDS = {"antiphon": "antiphon", "bare asyncio protocol": "bare"}


def resident(pid: int) -> int:
    """Bytes, as the kernel counts them (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


async def each(process: Process, connections: int) -> float:
    # The first connections also pay for what all of them share.
    early = await crowd(process.port, 200)
    before = resident(process.pid)
    everyone = await crowd(process.port, connections)
    after = resident(process.pid)
    for subscriber in early + everyone:
        subscriber.transport.abort()
    return (after - before) / connections


def measure(kind: str, connections: int) -> dict[str, float]:
    """One run with a fresh server."""
    with server(kind) as process:
        return {"bytes": uvloop.run(each(process, connections))}


def main() -> None:
    allow_many_files()
    for connections in CONNECTIONS:
        figures = rounds({n: partial(measure, kind, connections) for n, kind in KINDS.items()})
        title = f"Server: memory of each of {connections:,} subscribed connections"
        table(title, "bytes", figures["bytes"], "bare asyncio protocol")
        asked("bytes", figures["bytes"]["antiphon"], at_most=10 * 1024)


if __name__ == "__main__":
    main()

"""Resident memory per subscribed connection: `python -m benchmarks.server_memory`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from .loader import crowd
from .measure import in_turn, python, table

CONNECTIONS = 4_000


def resident(pid: int) -> int:
    """Bytes, as the kernel counts them (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


async def load(port: int, pid: int) -> float:
    # The first connections also pay for what all of them share.
    early = await crowd(port, 200, lambda count: None)
    before = resident(pid)
    everyone = await crowd(port, CONNECTIONS, lambda count: None)
    after = resident(pid)
    assert len(early) + len(everyone) == CONNECTIONS + 200
    return (after - before) / CONNECTIONS


def measure(kind: str) -> float:
    process = subprocess.Popen(python("server_process", kind), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        return asyncio.run(load(int(process.stdout.readline()), process.pid))
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    kinds = {"antiphon": "antiphon", "bare asyncio protocol": "bare"}
    figures = in_turn({name: python("server_memory", kind) for name, kind in kinds.items()})
    title = f"Server: memory of each of {CONNECTIONS:,} subscribed connections"
    table(title, "bytes", figures, "bare asyncio protocol")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print(measure(sys.argv[1]))

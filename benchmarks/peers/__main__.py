"""`python -m benchmarks.peers`: what the Python clients make of a server's and a network's faults.

Every client runs in a process of its own against a scripted server on loopback; a cell says
whether it did what the Pusher protocol and common sense ask of it, and how if not. The clients of
others are installed in `.venv-peers`, exactly as `requirements/peers.lock` says, at the first run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

from .battery import FAULTS, Fault, Start, Verdict
from .environment import peers_python

CLIENTS = {
    "asyncpusher": "asyncpusher 0.2.5",
    "pysher": "pysher 1.0.8",
    "sockudo": "sockudo-python 2.2.0",
    "antiphon": "antiphon",
}
AT_ONCE = 4
AT_ONCE_ALONE = 12  # nobody else's hot loops are in the way


async def cell(fault: Fault, start: Start, turns: asyncio.Semaphore) -> Verdict:
    if start.client in fault.lacking:
        return Verdict(None, fault.lacking[start.client])
    async with turns:
        try:
            async with asyncio.timeout(90):
                return await fault.ask(start)
        except Exception as exc:
            return Verdict(False, f"the battery itself failed: {exc!r}")


def text(verdict: Verdict) -> str:
    mark = {True: "✓", False: "✗", None: "n/a"}[verdict.passed]
    return f"{mark} {verdict.words}".strip()


def row(cells: Sequence[str], widths: Sequence[int]) -> str:
    filled = [text.ljust(width) for text, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join(filled)} |"


async def run(clients: Sequence[str], faults: Sequence[Fault]) -> int:
    """Fill the table; the number of antiphon's failures."""
    turns = asyncio.Semaphore(AT_ONCE if len(clients) > 1 else AT_ONCE_ALONE)
    pythons = {name: sys.executable if name == "antiphon" else peers_python() for name in clients}
    began = time.monotonic()
    columns = await asyncio.gather(
        *(
            asyncio.gather(*(cell(fault, Start(name, pythons[name]), turns) for fault in faults))
            for name in clients
        )
    )
    rows = [["fault", *(CLIENTS[name] for name in clients)]]
    rows += [
        [fault.name, *(text(column[n]) for column in columns)] for n, fault in enumerate(faults)
    ]
    passed = [sum(v.passed is True for v in column) for column in columns]
    asked = [sum(v.passed is not None for v in column) for column in columns]
    rows.append(["passed", *(f"{p} of {a}" for p, a in zip(passed, asked, strict=True))])
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    print(row(rows[0], widths))
    print(row(["-" * width for width in widths], widths))
    for cells in rows[1:]:
        print(row(cells, widths))
    print(
        f"\n{len(faults)} faults in {time.monotonic() - began:.0f} s; ✗ says what happened instead"
    )
    return sum(
        a - p for name, p, a in zip(clients, passed, asked, strict=True) if name == "antiphon"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", action="append", choices=CLIENTS, help="this client only")
    parser.add_argument("--fault", help="only the faults with this in their name")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if (options.fault or "") in fault.name]
    sys.exit(1 if asyncio.run(run(options.only or list(CLIENTS), faults)) else 0)


if __name__ == "__main__":
    main()

"""How long an event takes to each subscriber at 20 000 deliveries a second, in an open loop.

`python -m benchmarks.server_latency`. Publishes go out at fixed times over the signed HTTP API,
from a process of their own. The subscribers are native and read five times a millisecond: woken by
each frame, they would slow down the server as no machine of their own does. Beside it a bare
asyncio loop that writes the same events to the same sockets.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from .latency import delays, percentile
from .loader import allow_many_files
from .measure import asked, rounds, table
from .native import Native, compiled
from .serving import server

SECONDS = 6


class Case(NamedTuple):
    subscribers: int
    per_second: int
    idle: int
    p50: float | None  # milliseconds, at most
    p99: float


CASES = (
    Case(1_000, 20, 0, 6, 20),
    Case(100, 200, 0, 6, 20),
    Case(1_000, 20, 9_000, None, 250),
    Case(10_000, 2, 0, None, 250),
)
KINDS = {"antiphon": "antiphon", "bare write loop": "bare"}


def measure(native: Native, kind: str, case: Case) -> dict[str, float]:
    """One run with a fresh server."""
    with server(kind) as process:
        found = delays(
            native,
            process.port,
            process.port,
            subscribers=case.subscribers,
            per_second=case.per_second,
            seconds=SECONDS,
            idle=case.idle,
        )
    return {"p50 in ms": percentile(found, 0.5), "p99 in ms": percentile(found, 0.99)}


def main() -> None:
    allow_many_files()
    with compiled() as native:
        if native is None:
            return
        for case in CASES:
            held = case.subscribers + case.idle
            figures = rounds(
                {name: partial(measure, native, kind, case) for name, kind in KINDS.items()}
            )
            title = (
                f"Server: {case.per_second} publishes/s to {case.subscribers:,} subscribers,"
                f" {held:,} connections held"
            )
            for unit, values in figures.items():
                table(title, unit, values, "bare write loop")
            if case.p50 is not None:
                asked("p50 in ms", figures["p50 in ms"]["antiphon"], at_most=case.p50)
            asked("p99 in ms", figures["p99 in ms"]["antiphon"], at_most=case.p99)


if __name__ == "__main__":
    main()

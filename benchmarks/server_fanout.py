"""Deliveries per second from one server process: 1 000 subscribers, signed publishes over HTTP.

`python -m benchmarks.server_fanout`. The load is a native process: it has the other core, and costs
less than any server here. The bare loops do no more than write the same 261 bytes to the same
sockets, one with asyncio's `transport.write` (on uvloop), one with C's `send`.
"""

from __future__ import annotations

from functools import partial

from .loader import FRAME_SIZE
from .measure import asked, ratios, rounds, table
from .native import Native, compiled
from .serving import Serve, server

SUBSCRIBERS = 1_000
PUBLISHES = {1: 300, 64: 2_000}


def measure(native: Native, serve: Serve, in_flight: int) -> dict[str, float]:
    """One run with a fresh server."""
    publishes = PUBLISHES[in_flight]
    deliveries = publishes * SUBSCRIBERS
    with (
        serve() as process,
        native.crowd([process.port], SUBSCRIBERS, in_flight, publishes) as crowd,
    ):
        before = process.cpu()
        seconds, load_cpu = crowd.publish()
        server_cpu = process.cpu() - before
    return {
        "deliveries/s": deliveries / seconds,
        "µs of the server's CPU for a delivery": server_cpu / deliveries * 1e6,
        "µs of the load's CPU for a delivery": load_cpu / deliveries * 1e6,
    }


def main() -> None:
    with compiled() as native:
        if native is None:
            return
        servers: dict[str, Serve] = {
            "antiphon": server,
            "bare write loop": partial(server, "bare"),
            "C send loop": native.send_loop,
        }
        for in_flight in PUBLISHES:
            figures = rounds(
                {n: partial(measure, native, serve, in_flight) for n, serve in servers.items()}
            )
            title = (
                f"Server: {SUBSCRIBERS:,} subscribers, frames of {FRAME_SIZE} bytes,"
                f" {in_flight} publishes in flight"
            )
            for unit, values in figures.items():
                bases = () if "load" in unit else ("bare write loop", "C send loop")
                table(title, unit, values, *bases)
            rates = figures["deliveries/s"]
            if in_flight == 1:
                asked("deliveries/s", rates["antiphon"], at_least=110_000)
                of_bare = ratios(rates["antiphon"], rates["bare write loop"])
                asked("× the bare write loop", of_bare, at_least=0.8)
            else:
                asked("deliveries/s", rates["antiphon"], at_least=700_000)


if __name__ == "__main__":
    main()

"""Connections made and subscribed per second: `python -m benchmarks.server_connect`.

128 at a time are on their way between the dial and the confirmed subscription.
"""

from __future__ import annotations

from functools import partial

from .measure import asked, rounds, table
from .native import Native, compiled
from .serving import Serve, server

CONNECTIONS = (5_000, 10_000)


def measure(native: Native, serve: Serve, connections: int) -> dict[str, float]:
    """One run with a fresh server."""
    with serve() as process:
        before = process.cpu()
        with native.crowd([process.port], connections) as crowd:
            server_cpu = process.cpu() - before
            return {
                "connected and subscribed/s": connections / crowd.seconds,
                "µs of the server's CPU for each": server_cpu / connections * 1e6,
            }


def main() -> None:
    with compiled() as native:
        if native is None:
            return
        servers: dict[str, Serve] = {
            "antiphon": server,
            "bare asyncio protocol": partial(server, "bare"),
            "C": native.send_loop,
        }
        for connections in CONNECTIONS:
            figures = rounds(
                {n: partial(measure, native, serve, connections) for n, serve in servers.items()}
            )
            for unit, values in figures.items():
                table(f"Server: {connections:,} connections", unit, values, "bare asyncio protocol")
            asked("each second", figures["connected and subscribed/s"]["antiphon"], at_least=3_000)


if __name__ == "__main__":
    main()

"""Two servers over Redis beside one: `python -m benchmarks.server_nodes`.

1 000 subscribers and 256 publishes in flight, half of both at each node; then 1 000 publishes a
second at one node, and how long they take to 10 subscribers at the other.

Two nodes, Redis and the load share two cores. How many deliveries the nodes make in a second of
their own CPU is therefore told too: times the nodes, it is what they make where each has a core.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from redis import Redis

from .latency import delays, percentile
from .measure import asked, ratios, rounds, table
from .native import Native, compiled
from .serving import Process, server

REDIS = os.environ.get("ANTIPHON_TEST_REDIS", "redis://127.0.0.1:6379/0")
PREFIX = f"antiphon-bench-{os.getpid()}"
SUBSCRIBERS = 1_000
IN_FLIGHT = 256  # with fewer the nodes wait for the load
PUBLISHES = 20_000
FEW_SUBSCRIBERS = 10
PER_SECOND = 1_000
SECONDS = 8

ALONE, ONE, TWO = "one server, no Redis", "one node over Redis", "two nodes over Redis"


@contextmanager
def nodes(count: int) -> Iterator[list[Process]]:
    """So many servers as one; their keys are gone afterwards."""
    with ExitStack() as stack:
        try:
            yield [stack.enter_context(server("antiphon", REDIS, PREFIX)) for _ in range(count)]
        finally:
            stack.close()
            with Redis.from_url(REDIS) as redis:
                for key in redis.scan_iter(f"{{{PREFIX}*"):
                    redis.delete(key)


@contextmanager
def alone() -> Iterator[list[Process]]:
    with server() as process:
        yield [process]


def redis_cpu() -> float:
    """Seconds of CPU that Redis has used, for whomever."""
    with Redis.from_url(REDIS) as redis:
        used = redis.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def fan_out(native: Native, servers: Sequence[Process]) -> dict[str, float]:
    deliveries = PUBLISHES * SUBSCRIBERS
    ports = [process.port for process in servers]
    with native.crowd(ports, SUBSCRIBERS, IN_FLIGHT, PUBLISHES) as crowd:
        before, redis_before = sum(process.cpu() for process in servers), redis_cpu()
        seconds, load_cpu = crowd.publish()
        nodes_cpu, in_redis = sum(p.cpu() for p in servers) - before, redis_cpu() - redis_before
    return {
        "deliveries/s": deliveries / seconds,
        "deliveries/s of the nodes' CPU, × nodes": deliveries / nodes_cpu * len(servers),
        "µs of the nodes' CPU for a publish": nodes_cpu / PUBLISHES * 1e6,
        "% of a core for the nodes": nodes_cpu / seconds * 100,
        "% of a core for Redis": in_redis / seconds * 100,
        "% of a core for the load": load_cpu / seconds * 100,
    }


def latency(native: Native, count: int) -> dict[str, float]:
    """From the first node to the last one."""
    with nodes(count) as servers:
        found = delays(
            native,
            servers[-1].port,
            servers[0].port,
            subscribers=FEW_SUBSCRIBERS,
            per_second=PER_SECOND,
            seconds=SECONDS,
        )
    return {"p50 in ms": percentile(found, 0.5), "p99 in ms": percentile(found, 0.99)}


def measure(native: Native, count: int) -> dict[str, float]:
    """One run with fresh servers."""
    with nodes(count) if count else alone() as servers:
        return fan_out(native, servers)


def main() -> None:
    with compiled() as native:
        if native is None:
            return
        cases = {ALONE: 0, ONE: 1, TWO: 2}
        figures = rounds({name: partial(measure, native, n) for name, n in cases.items()})
        title = f"Nodes: {SUBSCRIBERS:,} subscribers, {IN_FLIGHT} publishes in flight"
        for unit, values in figures.items():
            bases = () if unit.startswith("%") else (ALONE, ONE)
            table(title, unit, values, *bases)
        for unit in list(figures)[:2]:
            of_one = ratios(figures[unit][TWO], figures[unit][ALONE])
            asked(f"two nodes' {unit}, × one server's", of_one, at_least=1.6)
        cases = {"the same node": 1, "the other node": 2}
        figures = rounds({name: partial(latency, native, n) for name, n in cases.items()})
        for unit, values in figures.items():
            table(f"Nodes: {PER_SECOND:,} publishes/s, to a subscriber on", unit, values)
        asked("p99 in ms to the other node", figures["p99 in ms"]["the other node"], at_most=20)


if __name__ == "__main__":
    main()

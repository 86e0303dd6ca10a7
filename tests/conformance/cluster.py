"""Two servers that are one over a Redis, and a clock for servers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio

from antiphon.server import Server
from antiphon.settings import App
from tests.server.cluster import REDIS, needs_redis
from tests.server.wire import until

__all__ = ["Clock", "cluster"]


class Clock:
    """Stands in for the `time` module: stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1e6

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def turn(self, seconds: float, server: Server) -> None:
        """Let time pass, and the server look at its connections."""
        self.now += seconds
        server._liveness.sweep(self.now)


@contextlib.asynccontextmanager
async def cluster(*apps: App, **options: Any) -> AsyncIterator[list[Server]]:
    """Two nodes with these applications, which know of each other; nothing of them stays."""
    await needs_redis()
    prefix = f"antiphon-test-{os.urandom(6).hex()}"
    try:
        async with (
            Server(apps, redis=REDIS, redis_prefix=prefix, **options) as first,
            Server(apps, redis=REDIS, redis_prefix=prefix, **options) as second,
        ):
            nodes = [first, second]
            brokers = [node._broker for node in nodes]
            await until(lambda: all(broker is not None and broker.is_live for broker in brokers))
            yield nodes
    finally:
        async with redis.asyncio.Redis.from_url(REDIS) as client:
            keys = [key async for key in client.scan_iter(f"*{prefix}*")]
            if keys:
                await client.delete(*keys)

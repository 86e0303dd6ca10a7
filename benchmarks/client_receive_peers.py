"""The other Python clients at receiving: `python -m benchmarks.client_receive_peers CLIENT PORT …`.

Runs in `.venv-peers`, so it imports nothing of this project. Each client has the handler that its
documentation shows; the time runs from the first event to the last, for the whole process.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Handler = Callable[[Any], None]


class Counter:
    """Counts events; knows the CPU time per event from the first to the last."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.left = count
        self.began = 0.0
        self.figure = 0.0
        self.done = threading.Event()

    def __call__(self, data: Any) -> None:
        if self.left == self.count:
            self.began = time.process_time()
        self.left -= 1
        if not self.left:
            self.figure = self.count / (time.process_time() - self.began)
            self.done.set()

    async def wait(self) -> None:
        await asyncio.to_thread(self.done.wait)


async def asyncpusher(port: int, channel: str, event: str, counter: Counter) -> None:
    from asyncpusher import Pusher  # type: ignore[import-not-found, unused-ignore]

    pusher = Pusher("k", secure=False, custom_host="127.0.0.1", custom_port=port)

    async def handle(data: Any) -> None:
        counter(data)

    await pusher.connect()
    # Bound before any event is read: nothing in between waits for the socket.
    (await pusher.subscribe(channel)).bind(event, handle)
    await counter.wait()


async def pysher(port: int, channel: str, event: str, counter: Counter) -> None:
    from pysher import Pusher  # type: ignore[import-not-found, unused-ignore]

    pusher = Pusher(
        "k", secure=False, custom_host="127.0.0.1", port=port, log_level=logging.WARNING
    )

    def connected(data: Any) -> None:
        pusher.subscribe(channel).bind(event, counter)

    pusher.connection.bind("pusher:connection_established", connected)
    pusher.connect()
    await counter.wait()


async def sockudo(port: int, channel: str, event: str, counter: Counter) -> None:
    from sockudo_python import (  # type: ignore[import-not-found, unused-ignore]
        SockudoClient,
        SockudoOptions,
        SockudoTransport,
    )

    client = SockudoClient(
        "k",
        SockudoOptions(
            cluster="local",
            protocol_version=1,
            force_tls=False,
            enabled_transports=[SockudoTransport.WS],
            ws_host="127.0.0.1",
            ws_port=port,
        ),
    )
    client.subscribe(channel).bind(event, lambda data, metadata: counter(data))
    await client.connect()
    await counter.wait()


async def main() -> None:
    client, port, count, channel, event = sys.argv[1:]
    counter = Counter(int(count))
    run = {"asyncpusher": asyncpusher, "pysher": pysher, "sockudo": sockudo}[client]
    await run(int(port), channel, event, counter)
    print(counter.figure, flush=True)


if __name__ == "__main__":
    asyncio.run(main())

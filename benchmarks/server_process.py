"""The servers that are measured, each in a process of its own: prints its port.

`python -m benchmarks.server_process antiphon` is ours, alone or, with the address of a Redis and
a prefix for its keys, as one of several nodes; `bare` upgrades every connection and then, at each
POST, writes its event to all of them with plain `transport.write`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

from antiphon.cli.serve import tune_collector
from antiphon.protocol.frames import encode
from antiphon.server import Server
from antiphon.server.transport import text_frame
from antiphon.settings import App

from .loader import CHANNEL, allow_many_files

APP = App(id="bench", key="bench-key", secret="bench-secret", max_presence_members=100_000)


async def antiphon(redis: str = "", prefix: str = "") -> None:
    tune_collector()  # as the command does it
    async with Server(APP, redis=redis, redis_prefix=prefix) as server:
        print(server.port, flush=True)
        await asyncio.sleep(600)


class Bare(asyncio.Protocol):
    everyone: set[asyncio.Transport]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.everyone.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET"):
            self.transport.write(b"HTTP/1.1 101 -\r\n\r\nconnection_established")
        elif data.startswith(b"POST"):
            event = json.loads(data[data.index(b"\r\n\r\n") :])
            frame = text_frame(encode(event["name"], event["data"], CHANNEL))
            for transport in self.everyone:
                transport.write(frame)
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        elif data.startswith(b"\x81"):
            if CHANNEL.encode() in data:
                self.everyone.add(self.transport)
            self.transport.write(b"subscription_succeeded " + CHANNEL.encode())


async def bare() -> None:
    Bare.everyone = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Bare, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(600)


if __name__ == "__main__":
    allow_many_files()
    uvloop.run({"antiphon": antiphon, "bare": bare}[sys.argv[1]](*sys.argv[2:]))

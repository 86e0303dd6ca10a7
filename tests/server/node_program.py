"""One node of a cluster as a process: `python -m tests.server.node_program REDIS PREFIX`."""

from __future__ import annotations

import asyncio
import sys

from antiphon.server import Server
from antiphon.settings import App


async def main(url: str, prefix: str) -> None:
    """Serve until the standard input ends; the port is the first line that is printed."""
    app = App(id="1", key="k", secret="s", client_events_per_second=0)
    async with Server(app, redis=url, redis_prefix=prefix) as server:
        print(server.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

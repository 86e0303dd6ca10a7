"""Pysher 1.0.8: threads; it subscribes in the handler of the connection, as its README does."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import Any

from pysher import Pusher  # type: ignore[import-not-found, unused-ignore]

from .telling import EVENT, SLOW, say, say_event, task, watch


async def main() -> None:
    todo = task()
    pusher = Pusher(
        "k",
        secure=False,
        custom_host="127.0.0.1",
        port=todo.port,
        auth_endpoint=todo.auth_url,
        reconnect_interval=1,  # 10 by default: nothing would be seen
        log_level=logging.CRITICAL,
    )
    if todo.timeout is not None:
        pusher.connection.ping_interval = todo.timeout
        pusher.connection.pong_timeout = todo.timeout

    def handle(name: str, data: Any) -> None:
        if todo.slow:
            time.sleep(SLOW)
        say_event(name, data)

    def connected(data: Any) -> None:
        for name in todo.channels:
            try:
                channel = pusher.subscribe(name)
            except Exception as exc:
                say(error=repr(exc))
            else:
                channel.bind(EVENT, functools.partial(handle, name))

    pusher.connection.bind("pusher:connection_established", connected)
    pusher.connection.bind("pusher:error", lambda data: say(error=str(data)))
    pusher.connect()
    await watch(lambda: str(pusher.connection.state))


asyncio.run(main())

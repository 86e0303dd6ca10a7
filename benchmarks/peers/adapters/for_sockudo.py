"""sockudo-python 2.2.0, speaking Pusher's protocol 7; its handlers are synchronous only."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from sockudo_python import (  # type: ignore[import-not-found, unused-ignore]
    ChannelAuthorizationOptions,
    SockudoClient,
    SockudoOptions,
    SockudoTransport,
)

from .telling import EVENT, say, say_event, task, watch


async def main() -> None:
    todo = task()
    timeouts = {}
    if todo.timeout is not None:
        names = ("activity_timeout", "pong_timeout", "unavailable_timeout")
        timeouts = dict.fromkeys(names, todo.timeout)
    client = SockudoClient(
        "k",
        SockudoOptions(
            cluster="local",
            protocol_version=1,
            force_tls=False,
            enabled_transports=[SockudoTransport.WS],
            ws_host="127.0.0.1",
            ws_port=todo.port,
            channel_authorization=ChannelAuthorizationOptions(endpoint=todo.auth_url),
            **timeouts,
        ),
    )

    def handle(name: str, data: Any, metadata: Any) -> None:
        say_event(name, data)

    client.bind("error", lambda data, metadata: say(error=repr(data)))
    for name in todo.channels:
        client.subscribe(name).bind(EVENT, functools.partial(handle, name))
    watching = asyncio.create_task(watch(lambda: str(client.connection_state.value)))
    try:
        await client.connect()
    except Exception as exc:
        say(error=repr(exc))
    await watching


asyncio.run(main())

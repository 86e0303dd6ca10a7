"""antiphon, with an asynchronous handler."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon import Client, HttpAuthorizer, Settings
from antiphon.errors import AntiphonError

from .telling import EVENT, SLOW, say, say_event, task, watch


async def main() -> None:
    todo = task()
    timeouts: dict[str, float] = {}
    if todo.timeout is not None:
        names = ("activity_timeout", "pong_timeout", "connect_timeout")
        timeouts = dict.fromkeys(names, todo.timeout)
    client = Client(
        Settings(app_key="k", host="127.0.0.1", port=todo.port, scheme="http"),
        authorizer=HttpAuthorizer(todo.auth_url),
        **timeouts,  # type: ignore[arg-type, unused-ignore]
    )

    def observe(what: object) -> None:
        if isinstance(what, AntiphonError):
            say(error=f"{type(what).__name__}: {what}")

    def handler(name: str) -> Any:
        async def handle(event: Any) -> None:
            if todo.slow:
                await asyncio.sleep(SLOW)
            say_event(name, event.data)

        return handle

    client.observe(observe)
    for name in todo.channels:
        client.subscribe(name).bind(EVENT, handler(name))
    watching = asyncio.create_task(watch(lambda: str(client.state)))
    try:
        await client.connect()
    except AntiphonError as exc:
        say(error=repr(exc))
    await watching


asyncio.run(main())

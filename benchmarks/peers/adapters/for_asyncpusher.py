"""asyncpusher 0.2.5: asynchronous handlers, the program's own authenticator, `auto_sub`."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from asyncpusher import Pusher  # type: ignore[import-not-found, unused-ignore]

from .telling import EVENT, SLOW, say, say_event, task, watch


async def main() -> None:
    todo = task()

    async def authenticate(data: dict[str, str]) -> Any:
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            answer = await session.post(todo.auth_url, data=data)
            return await answer.json()

    pusher = Pusher(
        "k",
        secure=False,
        custom_host="127.0.0.1",
        custom_port=todo.port,
        channel_authenticator=authenticate,
        auto_sub=True,
    )

    async def told(data: Any) -> None:
        say(error=str(data))

    def handler(name: str) -> Any:
        async def handle(data: Any) -> None:
            if todo.slow:
                await asyncio.sleep(SLOW)
            say_event(name, data)

        return handle

    pusher.connection.bind("pusher:error", told)
    watching = asyncio.create_task(watch(lambda: str(pusher.connection.state.name)))
    try:
        await pusher.connect()
        for name in todo.channels:
            try:
                channel = await pusher.subscribe(name)
            except Exception as exc:
                say(error=repr(exc))
            else:
                channel.bind(EVENT, handler(name))
    except Exception as exc:
        say(error=repr(exc))
    await watching


asyncio.run(main())

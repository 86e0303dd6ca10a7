"""What the app's benchmark measures, each in a process of its own.

`house` is a Pusher server, a chat backend and people who are logged in; told a rate and a number on
its standard input, it sends so many messages to the first of them. `app` is the chat app with
those people as guests; it prints its address.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import uvloop

if TYPE_CHECKING:
    from antiphon.server.hub import Hub

CLIENTS = 20


async def house() -> None:
    # Not above: what the app does not need is not to count as its memory.
    from argon2 import PasswordHasher

    from antiphon.backend import BackendConfig, Store, create_app
    from antiphon.chat import RestClient
    from antiphon.server import HttpServer, Server
    from antiphon.settings import App

    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("benchmark")
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'chat.sqlite3'}"
        async with Store(url) as store:
            for number in range(CLIENTS + 1):
                user = await store.users.create(
                    first_name="User",
                    last_name=str(number),
                    email=f"user{number}@example.com",
                    password_hash=cheap,
                )
                assert user is not None
            for number in range(2, CLIENTS + 2):
                await store.conversations.create([1, number])
        async with Server(App(id="bench", key="bench-key", secret="bench-secret")) as server:
            config = BackendConfig(settings=server.settings(), database_url=url)
            async with HttpServer(create_app(config), host="127.0.0.1") as backend:
                tokens = []
                for number in range(1, CLIENTS + 1):
                    async with RestClient(backend.url) as api:
                        login = await api.login(f"user{number}@example.com", "benchmark")
                        await api.send((await api.conversations())[0].id, "Hello!")
                        tokens.append([login.token, login.user.id])
                print(json.dumps([server.port, backend.url, tokens]), flush=True)
                (hub,) = server._hubs.values()
                await publish_when_told(hub)


async def publish_when_told(hub: Hub) -> None:
    from antiphon.protocol.frames import encode

    next_id, channel = 1_000_000, "private-user.2"
    while line := await asyncio.to_thread(sys.stdin.readline):
        rate, count = json.loads(line)
        begin = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
            next_id += 1
            message = {
                "id": str(next_id),
                "chat_id": "1",
                "sender_id": "1",
                "sender_name": "User 0",
                # The page compares it with its own clock, which is the same.
                "content": f"Sent at {time.time() * 1000:.3f} on a machine that is not in a hurry.",
                "sent_at": "2026-11-23T10:31:00Z",
                "status": "sent",
            }
            data = msgspec.json.encode({"message": message}).decode()
            hub.deliver(channel, encode(r"App\Events\MessageSent", data, channel))
        print("done", flush=True)


async def app(port: int, backend: str, tokens: list[tuple[str, int]]) -> None:
    import antiphon.cli.chat  # noqa: F401 - as that command has it
    from antiphon.app import ChatApp
    from antiphon.chat import Login, User
    from antiphon.settings import Settings

    settings = Settings(app_key="bench-key", port=port, scheme="http", api_url=backend)
    guests = {
        f"u{id_}": Login(token=token, user=User(id=id_, first_name="User", last_name=str(id_ - 1)))
        for token, id_ in tokens
    }
    async with ChatApp(settings, guests=guests).serve() as served:
        print(served.url, flush=True)
        await asyncio.sleep(600)


if __name__ == "__main__":
    what = house() if sys.argv[1] == "house" else app(*msgspec.json.decode(sys.argv[2]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the commands do
        runner.run(what)

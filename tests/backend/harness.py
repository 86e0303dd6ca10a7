"""A backend under test: the application in process, its database, and a server that records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self, cast

import httpx
import msgspec
from aiohttp import web
from argon2 import PasswordHasher
from litestar import Litestar

from antiphon.backend import BackendConfig, Store, User, create_app
from antiphon.backend.accounts import Accounts
from antiphon.protocol.signing import verify_request
from antiphon.settings import Settings

APP_ID, APP_KEY, APP_SECRET = "3", "app-key", "app-secret"
PASSWORD = "correct horse"
# Cheap on purpose: what it costs stands in the hash, and verifying follows it.
PASSWORD_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


class Publication(msgspec.Struct):
    """One request to the HTTP API, as it came."""

    name: str
    channels: list[str]
    data: str
    socket_id: str | None = None


class Recorder:
    """A Pusher server's HTTP API: it checks signatures and remembers."""

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.status = 200
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.port = 0

    async def _events(self, request: web.Request) -> web.Response:
        body = await request.read()
        query = list(request.query.items())
        verify_request(APP_KEY, APP_SECRET, "POST", request.path, query, body, now=time.time())
        self.publications.append(msgspec.json.decode(body, type=Publication))
        await self.go_on.wait()
        return web.json_response({}, status=self.status)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        app = web.Application()
        app.router.add_post(f"/apps/{APP_ID}/events", self._events)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            self.go_on.set()
            await runner.cleanup()

    def settings(self) -> Settings:
        return Settings(
            app_id=APP_ID, app_key=APP_KEY, app_secret=APP_SECRET, scheme="http", port=self.port
        )


@dataclass
class Caller:
    """A user with a token, calling the backend."""

    user: User
    token: str
    http: httpx.AsyncClient

    @property
    def id(self) -> int:
        return self.user.id

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.http.get(path, params=params or None, headers=self._headers())

    async def post(
        self, path: str, json: Any = None, *, socket_id: str | None = None, **kwargs: Any
    ) -> httpx.Response:
        headers = self._headers() | ({"X-Socket-ID": socket_id} if socket_id else {})
        return await self.http.post(path, json=json, headers=headers, **kwargs)

    async def say(self, conversation_id: int, content: str = "Hello!", **body: Any) -> int:
        body["content"] = content
        answer = await self.post(f"/api/conversations/{conversation_id}/messages", body)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["message"]["id"])

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Backend:
    """The application, running, with a second door into its database."""

    app: Litestar
    store: Store
    http: httpx.AsyncClient
    recorder: Recorder
    _count: int = field(default=0)

    async def user(self, first_name: str = "Ali", last_name: str = "Vali") -> Caller:
        self._count += 1
        user = await self.store.users.create(
            first_name=first_name,
            last_name=last_name,
            email=f"{first_name}.{self._count}@example.com",
            password_hash=PASSWORD_HASH,
        )
        assert user is not None
        return Caller(user, await self.token(user), self.http)

    async def token(self, user: User, *, lifetime: timedelta = timedelta(days=1)) -> str:
        session = await Accounts(self.store, lifetime).log_in(user.email, PASSWORD)
        assert session is not None
        return session.token

    async def conversation(self, *members: Caller, title: str | None = None) -> int:
        ids = [member.id for member in members]
        return (await self.store.conversations.create(ids, title=title))[0]


@asynccontextmanager
async def running_backend(
    database_url: str, recorder: Recorder, **config: Any
) -> AsyncIterator[Backend]:
    settings = config.pop("settings", None) or recorder.settings()
    # A machine that stands still for a moment publishes all the same.
    config = {"publish_timeout": 30.0, **config}
    app = create_app(BackendConfig(settings=settings, database_url=database_url, **config))
    async with app.lifespan(), Store(database_url) as store, calling(app) as http:
        yield Backend(app, store, http, recorder)


def calling(app: Litestar) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(cast(Any, app))
    return httpx.AsyncClient(transport=transport, base_url="http://backend")

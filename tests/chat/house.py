"""A whole chat on this machine: our server, our backend on it, and people with passwords."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher

from antiphon.backend import BackendConfig, Store, User, create_app
from antiphon.chat import RestClient
from antiphon.server import HttpServer
from antiphon.settings import Settings
from tests.cli.strangers import kept_port

__all__ = ["PASSWORD", "House", "open_house"]

PASSWORD: Final = "correct-horse-battery"
# Cheap on purpose: what it costs stands in the hash, and verifying follows it.
_HASH: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


class House:
    """The backend's address, and who lives there.

    Attributes:
        api_url: The backend's address.
        ali: Talks with John.
        john: Talks with Ali.
        eve: Talks with nobody.
        conversation: Ali's and John's.
    """

    def __init__(
        self,
        config: BackendConfig,
        store: Store,
        users: list[User],
        conversation: int,
        port: int,
    ) -> None:
        self.settings = config.settings
        self.store = store
        self.ali, self.john, self.eve = users
        self.conversation = conversation
        self.restarts = 0
        self._config = config
        self._backend: HttpServer | None = None
        self._port = port

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start the backend, on the port it had before."""
        app = create_app(self._config)
        self._backend = HttpServer(app, host="127.0.0.1", port=self._port)
        await self._backend.start()

    async def stop(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.stop()

    async def restart(self) -> None:
        await self.stop()
        await self.start()
        self.restarts += 1

    async def everything(self) -> list[str]:
        """What was said in the conversation, as the database has it."""
        said: list[str] = []
        after = 0
        while True:
            page = await self.store.conversations.messages(
                self.conversation, limit=100, after_id=after
            )
            said += [message.content for message in page.messages]
            if not page.has_more:
                return said
            after = int(page.messages[-1].id)

    @contextlib.asynccontextmanager
    async def as_(self, user: User) -> AsyncIterator[RestClient]:
        """The backend as a user sees it who has logged in."""
        async with RestClient(self.api_url) as api:
            await api.login(user.email, PASSWORD)
            yield api


@contextlib.asynccontextmanager
async def open_house(
    settings: Settings, folder: Path, *, token_lifetime: timedelta = timedelta(days=1)
) -> AsyncIterator[House]:
    """A backend with its people, publishing on a server."""
    database = f"sqlite:///{folder / 'chat.sqlite3'}"
    config = BackendConfig(
        settings=settings,
        database_url=database,
        token_lifetime=token_lifetime,
        publish_timeout=30.0,  # a machine that stands still for a moment loses no event
    )
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store(database))
        port = stack.enter_context(kept_port())
        users = []
        for first_name, last_name in (("Ali", "Qo'chqorov"), ("John", "Doe"), ("Eve", "Stranger")):
            user = await store.users.create(
                first_name=first_name,
                last_name=last_name,
                email=f"{first_name.lower()}@example.com",
                password_hash=_HASH,
            )
            assert user is not None
            users.append(user)
        conversation, _ = await store.conversations.create([users[0].id, users[1].id])
        house = House(config, store, users, conversation, port)
        await house.start()
        try:
            yield house
        finally:
            await house.stop()

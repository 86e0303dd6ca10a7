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

    def __init__(self, api_url: str, store: Store, users: list[User], conversation: int) -> None:
        self.api_url = api_url
        self.store = store
        self.ali, self.john, self.eve = users
        self.conversation = conversation

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
    config = BackendConfig(settings=settings, database_url=database, token_lifetime=token_lifetime)
    async with (
        Store(database) as store,
        HttpServer(create_app(config), host="127.0.0.1") as backend,
    ):
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
        yield House(backend.url, store, users, conversation)

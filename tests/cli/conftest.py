"""A server, a chat backend on it, and ways to listen to them with the real command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest
import pytest_asyncio

from antiphon.server import Server
from antiphon.settings import App
from tests.chat.house import House, open_house

from .command import Command, environment
from .warm import kept_warm

SECRET: Final = "secret-never-to-be-printed"


@pytest.fixture(scope="session", autouse=True)
def warm() -> Iterator[None]:
    with kept_warm(environment({})) as path:
        Command.warm = path
        yield
        Command.warm = None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with Server(App(id="1", key="k", secret=SECRET)) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    async with open_house(server.settings(), folder) as house:
        yield house

"""The whole app on this machine: server, backend, the app itself, and a browser to look at it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from antiphon.app import ChatApp
from antiphon.backend import User
from antiphon.chat import RestClient
from antiphon.server import Server
from antiphon.settings import App, Settings
from tests.chat.house import PASSWORD, House, open_house

from .browser import DESKTOP, chromium, tab


def public(server: Server, house: House) -> Settings:
    """What the app may know of the server: neither id nor secret."""
    settings = server.settings()
    return Settings(
        app_key=settings.app_key,
        host=settings.host,
        port=settings.port,
        scheme=settings.scheme,
        api_url=house.api_url,
    )


class Place:
    """A chat app that is up, its server and backend, and a browser.

    Attributes:
        url: The app's address.
        server: The Pusher server; a test may stop it, and starts it again.
        house: The backend and its people.
        folder: Where the app keeps what is not sent.
    """

    def __init__(
        self, url: str, server: Server, house: House, browser: Browser, folder: Path
    ) -> None:
        self.url = url
        self.server = server
        self.house = house
        self.folder = folder
        self._browser = browser

    @contextlib.asynccontextmanager
    async def looking(
        self,
        user: User | None = None,
        path: str = "/",
        size: tuple[int, int] = DESKTOP,
        *,
        dark: bool = False,
        expected_errors: str | None = None,
    ) -> AsyncIterator[Page]:
        """A fresh browser profile at an address of the app, logged in if a user is given."""
        async with tab(self._browser, size, dark=dark, expected_errors=expected_errors) as page:
            await page.goto(self.url + path)
            if user is not None:
                await log_in(page, user.email)
                # On a phone an open conversation hides it.
                await expect(page.get_by_placeholder("Search")).to_be_attached()
            yield page


async def log_in(page: Page, email: str, password: str = PASSWORD) -> None:
    """Fill in the log-in screen and press Enter."""
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Password", exact=True).fill(password)
    await page.keyboard.press("Enter")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for a module; each test has a profile of its own in it."""
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """The app with its server and backend, for a whole module."""
    folder = tmp_path_factory.mktemp("app")
    async with (
        Server(App(id="1", key="k", secret="s")) as server,
        open_house(server.settings(), folder) as house,
    ):
        guests = {}
        for user in (house.ali, house.john):
            async with RestClient(house.api_url) as rest:
                guests[user.first_name.lower()] = await rest.login(user.email, PASSWORD)
        app = ChatApp(public(server, house), data_folder=folder / "kept", guests=guests)
        async with app.serve() as served:
            yield Place(served.url, server, house, browser, folder)


@pytest.fixture(autouse=True)
def nothing_went_wrong_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """NiceGUI catches what a handler raises, and only logs it."""
    yield
    errors = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.ERROR
        and record.name in ("nicegui", "asyncio", "antiphon.chat")
    ]
    assert not errors, errors

"""The log-in screen of an app that does not know its server; test_chat_app.py has the other."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from antiphon.app import ChatApp
from antiphon.server import Server
from antiphon.settings import App
from tests.chat.house import House, open_house

from .browser import tab
from .conftest import log_in

pytestmark = pytest.mark.asyncio(loop_scope="module")


@contextlib.asynccontextmanager
async def asked(browser: Browser, folder: Path) -> AsyncIterator[tuple[Page, Server, House]]:
    """The log-in screen, with all but the scheme filled in."""
    async with (
        Server(App(id="1", key="the-key", secret="s")) as server,
        open_house(server.settings(), folder) as house,
        ChatApp(None, max_attempts=1).serve() as served,
        tab(browser) as page,
    ):
        await page.goto(f"{served.url}/login?next=/connection")
        await page.get_by_label("Backend address").fill(house.api_url)
        await page.get_by_label("Port").fill(str(server.port))
        await page.get_by_label("App key").fill("the-key")
        yield page, server, house


async def test_an_app_without_a_server_asks_for_one(browser: Browser, tmp_path: Path) -> None:
    async with asked(browser, tmp_path) as (page, server, house):
        await page.get_by_label("Port").fill("port")
        await log_in(page, house.ali.email)
        await expect(page.get_by_role("alert")).to_contain_text("The port is a number")
        await page.get_by_label("Port").fill(str(server.port))
        await page.get_by_label("Backend address").fill(" ")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("Enter the backend's address")
        await page.get_by_label("Backend address").fill(house.api_url)
        await page.keyboard.press("Enter")
        await expect(page.locator(".cn-state")).to_contain_text("Connected")


async def test_the_scheme_that_is_chosen_is_used(browser: Browser, tmp_path: Path) -> None:
    async with asked(browser, tmp_path) as (page, server, house):
        await page.get_by_label("Scheme").select_option("https")
        await log_in(page, house.ali.email)
        facts = page.locator(".cn-facts")
        await expect(facts).to_contain_text(f"wss://127.0.0.1:{server.port}")
        await expect(page.locator(".cn-state")).to_contain_text("does not offer one")

"""The chat app as a whole: its doors and guests; test_talk.py and its neighbours do the rest."""

from __future__ import annotations

import re
import sqlite3
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from antiphon.app import ChatApp
from antiphon.errors import SettingsError

from .browser import SLOW_HANDSHAKE
from .conftest import Place, log_in

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_password_can_be_looked_at(place: Place) -> None:
    async with place.looking() as page:
        password = page.get_by_label("Password", exact=True)
        await expect(password).to_have_attribute("type", "password")
        await page.get_by_role("button", name="Show password").click()
        await expect(password).to_have_attribute("type", "text")


async def test_a_backend_that_is_down_is_explained_at_the_log_in(place: Place) -> None:
    async with place.looking() as page:
        await place.house.stop()
        try:
            await log_in(page, place.house.ali.email)
            await expect(page.get_by_role("alert")).to_contain_text("backend")
        finally:
            await place.house.start()
        await page.keyboard.press("Enter")
        await expect(page.get_by_placeholder("Search")).to_be_visible()


async def test_who_is_faster_than_the_connection_is_logged_in_all_the_same(place: Place) -> None:
    async with place.looking() as page:
        await page.add_init_script(SLOW_HANDSHAKE)
        await page.goto(place.url)
        await log_in(page, place.house.ali.email)
        await page.wait_for_function("'shakeHands' in window")
        await page.evaluate("shakeHands()")
        await expect(page.get_by_placeholder("Search")).to_be_visible()


async def test_logging_out_shows_the_log_in_in_every_tab(place: Place) -> None:
    async with place.looking(place.house.ali) as page:
        other = await page.context.new_page()
        await other.goto(place.url)
        await expect(other.get_by_placeholder("Search")).to_be_visible()
        await page.get_by_role("button", name="Menu").click()
        await page.get_by_text("Log out").click()
        await expect(page.get_by_label("E-mail")).to_be_visible()
        await expect(other.get_by_label("E-mail")).to_be_visible()
        await page.goto(place.url + "/settings")
        await expect(page).to_have_url(re.compile("/login"))


async def test_an_address_that_leads_nowhere_says_so_and_leads_back(place: Place) -> None:
    async with place.looking(place.house.ali) as page:
        async with place.looking(path="/nonsense", expected_errors="404") as lost:
            await expect(lost.get_by_role("heading", name="There is nothing here")).to_be_visible()
            await lost.get_by_role("link", name="Back to the chats").click()
            await expect(lost.get_by_label("E-mail")).to_be_visible()
        answer = await page.request.get(place.url + "/settings/nonsense?as=john")
        assert answer.status == 404
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
        file = await page.request.get(place.url + "/_nicegui/no-such-file")
        assert file.status == 404
        assert "<html" not in await file.text()


@pytest.mark.parametrize("goal", ["//elsewhere.example/", "https://elsewhere.example/", "/\\e.x"])
async def test_the_log_in_leads_nowhere_else(place: Place, goal: str) -> None:
    async with place.looking(path=f"/login?next={quote(goal)}") as page:
        await log_in(page, place.house.eve.email)
        await expect(page.get_by_placeholder("Search")).to_be_visible()
        await expect(page).to_have_url(place.url + "/")


async def test_guests_talk_side_by_side(place: Place) -> None:
    async with place.looking(path="/demo") as page:
        ali, john = page.frame_locator("iframe >> nth=0"), page.frame_locator("iframe >> nth=1")
        await expect(ali.locator(".hm-my-name")).to_have_text("Ali Qo'chqorov")
        await expect(john.locator(".hm-my-name")).to_have_text("John Doe")
        # Their only conversation is open already.
        await expect(ali.locator(".ch-title")).to_have_text("John Doe")
        await expect(john.locator(".ch-title")).to_have_text("Ali Qo'chqorov")
        await ali.get_by_role("textbox", name="Message").fill("Across the page")
        await ali.get_by_role("textbox", name="Message").press("Enter")
        heard = john.locator(".ml-message").filter(has_text="Across the page")
        await expect(heard).to_be_visible()


async def test_no_page_holds_a_token_or_can_be_framed_elsewhere(place: Place) -> None:
    async with place.looking(place.house.ali) as page:
        with sqlite3.connect(place.folder / "chat.sqlite3") as database:
            columns = [name for _, name, *_ in database.execute("PRAGMA table_info(tokens)")]
        database.close()
        assert columns
        answer = await page.request.get(place.url)
        assert "Bearer" not in await answer.text()
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'self'" in policy
        (cookie,) = [c for c in await page.context.cookies() if c["name"].startswith("antiphon-")]
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Lax"


async def test_a_second_app_in_the_process_is_refused(place: Place) -> None:
    with pytest.raises(SettingsError, match="serves a chat app already"):
        async with ChatApp(None).serve():
            pass  # pragma: no cover

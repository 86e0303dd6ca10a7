"""The details of the connection, and the inspector."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from antiphon.app.connection import server_address
from antiphon.settings import Settings

from .browser import PHONE
from .corner import Corner, open_corner

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def corner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Corner]:
    async with open_corner(tmp_path_factory.mktemp("corner")) as corner:
        yield corner


def rows(page: Page) -> Locator:
    return page.locator(".cn-row")


def search(page: Page) -> Locator:
    return page.get_by_role("searchbox", name="Filter by name, channel or text")


async def copied(page: Page, button: Locator) -> Any:
    await page.context.grant_permissions(["clipboard-read"])
    # It says so for two seconds only.
    await asyncio.gather(page.get_by_role("button", name="Copied").wait_for(), button.click())
    return json.loads(await page.evaluate("navigator.clipboard.readText()"))


async def test_it_tells_where_the_connection_leads_and_how_it_does(corner: Corner) -> None:
    async with corner.tab("/connection") as page:
        facts = dict(
            await page.locator(".cn-facts > div").evaluate_all(
                "all => all.map(e => [e.querySelector('dt').innerText,"
                " e.querySelector('dd').innerText])"
            )
        )
        assert facts["Server"].startswith("ws://127.0.0.1:")
        assert facts["App key"] == "public-key"
        assert facts["Encrypted"] == "No"
        assert facts["Reconnects"] == "0"
        assert "frames" in facts["Received"]
        number, _, rest = facts["Socket id"].partition(".")
        assert number.isdecimal()
        assert rest.isdecimal()
        assert "app-secret" not in await page.content()
        await expect(page.locator(".cn-state")).to_contain_text("Connected")
        await expect(page.locator(".cn-channels")).to_contain_text("private-user.1")


async def test_an_event_appears_with_its_data_and_can_be_found_and_copied(corner: Corner) -> None:
    async with corner.tab("/connection", size=PHONE) as page:
        await corner.do(page, "publish", "note.one", {"html": "<b>bold</b>", "n": [1, 2]}, 1)
        await corner.do(page, "publish", "note.two", {"html": "plain"}, 1)
        await search(page).fill("BOLD")
        await expect(rows(page)).to_have_count(1)
        row = rows(page).first
        await expect(row).to_contain_text("note.one")
        await expect(row).to_contain_text("private-user.1")
        await row.press("Enter")
        await expect(row).to_have_attribute("aria-expanded", "true")
        data = page.get_by_label("Data of note.one")
        assert json.loads(await data.inner_text()) == {"html": "<b>bold</b>", "n": [1, 2]}
        one = await copied(page, page.get_by_role("button", name="Copy", exact=True))
        assert one["name"] == "note.one"
        assert one["channel"] == "private-user.1"
        assert one["data"] == {"html": "<b>bold</b>", "n": [1, 2]}
        age = datetime.now(UTC) - datetime.fromisoformat(one["time"])
        assert abs(age.total_seconds()) < 60
        await search(page).fill("note.")
        await expect(rows(page)).to_have_count(2)
        both = await copied(page, page.get_by_role("button", name="Copy all"))
        assert [event["name"] for event in both] == ["note.two", "note.one"]
        await search(page).press("Escape")
        await expect(search(page)).to_have_value("")


async def test_arrows_walk_through_the_events(corner: Corner) -> None:
    async with corner.tab("/connection") as page:
        await rows(page).nth(0).focus()
        await page.keyboard.press("ArrowDown")
        await expect(rows(page).nth(1)).to_be_focused()
        await page.keyboard.press("ArrowUp")
        await page.keyboard.press("ArrowUp")
        await expect(rows(page).nth(0)).to_be_focused()


async def test_what_is_paused_stands_still_and_loses_nothing(corner: Corner) -> None:
    async with corner.tab("/connection") as page:
        await search(page).fill("note.paused")
        await page.get_by_role("button", name="Pause").click()
        await corner.do(page, "publish", "note.paused", {}, 3)
        await expect(page.locator(".cn-count")).to_contain_text("paused, 3 new")
        await expect(rows(page)).to_have_count(0)
        await page.get_by_role("button", name="Resume").click()
        await expect(rows(page)).to_have_count(3)


async def test_a_flood_is_gathered_and_only_the_last_hundred_stay(corner: Corner) -> None:
    async with corner.tab("/connection") as page:
        await page.evaluate(
            "() => { window.changes = 0; new MutationObserver(() => window.changes++)"
            ".observe(document.querySelector('.cn-list'), { childList: true }); }"
        )
        start = time.monotonic()
        await corner.do(page, "publish", "note.flood", {"text": "x" * 200}, 150)
        await corner.do(page, "publish", "note.last", {}, 1)
        await expect(rows(page).first).to_contain_text("note.last")
        await expect(rows(page)).to_have_count(100)
        # Four a second, and one more whenever the page asks, every five seconds.
        most = 4.2 * (time.monotonic() - start) + 2
        assert await page.evaluate("window.changes") < most


async def test_secrets_are_not_shown(corner: Corner) -> None:
    async with corner.tab("/connection") as page:
        data = {"deep": [{"auth": 'key:zec"ret', "shared_secret": "zecret"}], "fine": "shown"}
        await corner.do(page, "publish", "note.secret", data, 1)
        await search(page).fill("note.secret")
        await rows(page).first.click()
        await expect(page.get_by_label("Data of note.secret")).to_contain_text("shown")
        assert "zec" not in await page.locator(".cn").inner_html()
        await corner.open(page, "/connection")
        assert "zec" not in await page.content()


async def test_long_data_is_cut_and_says_so(corner: Corner) -> None:
    async with corner.tab("/connection") as page:
        await corner.do(page, "publish", "note.long", {"text": "ü" * 15_000}, 1)
        await search(page).fill("note.long")
        await expect(rows(page)).to_have_count(1)
        await rows(page).first.click()
        data = page.get_by_label("Data of note.long")
        await expect(data).to_contain_text(re.compile(r"üüü\s*… 3011 more characters$"))
        one = await copied(page, page.get_by_role("button", name="Copy", exact=True))
        assert len(one["data"]) == 12_000


async def test_what_is_cleared_does_not_come_back_with_a_reload(corner: Corner) -> None:
    async with corner.tab("/connection") as page:
        await page.get_by_role("button", name="Clear").click()
        await expect(page.get_by_text("Nothing has happened yet.")).to_be_visible()
        await corner.do(page, "listen")
        await corner.do(page, "publish", "note.after", {}, 1)
        await expect(rows(page)).to_have_count(1)
        await corner.open(page, "/connection")
        await expect(rows(page)).to_have_count(1)


async def test_a_lost_connection_can_be_retried_from_here(corner: Corner) -> None:
    async with corner.tab("/connection") as page:
        await corner.do(page, "stop")
        state = page.locator(".cn-state")
        await expect(state).to_contain_text("Reconnecting")
        await expect(state.get_by_role("button", name="Retry now")).to_be_visible()
        await corner.bring_back(page, ".cn-state", "Connected")
        await expect(state.get_by_role("button")).to_have_count(0)


async def test_an_address_is_written_as_people_write_it() -> None:
    secure = Settings(app_key="k", host="chat.example.com")
    assert server_address(secure) == "wss://chat.example.com:443"
    local = Settings(app_key="k", host="::1", port=8080, scheme="http", path="ws")
    assert server_address(local) == "ws://[::1]:8080/ws"

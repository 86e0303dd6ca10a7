"""The banner against a server that goes and comes back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from .browser import PHONE
from .corner import PATIENCE, Corner, open_corner

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def corner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Corner]:
    async with open_corner(tmp_path_factory.mktemp("corner")) as corner:
        yield corner


def banner(page: Page) -> Locator:
    return page.locator(".ap-banner")


async def back(corner: Corner, page: Page) -> None:
    """The server is up again, and the session knows it."""
    await corner.bring_back(page, ".ap-banner", "Back online")
    await expect(banner(page)).to_be_empty(timeout=PATIENCE * 1000)


async def test_it_takes_no_room_while_all_is_well(corner: Corner) -> None:
    async with corner.tab("/chat") as page:
        await expect(banner(page)).to_have_text("")
        box = await banner(page).bounding_box()
        assert box is not None
        assert box["height"] == 0


async def test_it_counts_down_in_the_browser_and_can_be_hurried(corner: Corner) -> None:
    async with corner.tab("/chat", size=PHONE) as page:
        frames: list[object] = []
        await corner.do(page, "stop")
        count = banner(page).locator(".ap-banner-count")
        await expect(count).to_have_text(re.compile(r"Trying again in \d+ s, attempt \d of 4"))
        await expect(banner(page)).to_have_role("status")
        page.on("websocket", lambda socket: frames.append(socket))
        shown = await count.inner_text()
        await expect(count).not_to_have_text(shown)  # a second later, or the attempt has begun
        assert frames == []
        await back(corner, page)


async def test_when_the_attempts_are_used_up_it_stays_and_offers_another(corner: Corner) -> None:
    async with corner.tab("/chat") as page:
        await corner.do(page, "stop")
        failed = banner(page).get_by_text("Not connected")
        await failed.wait_for(timeout=PATIENCE * 2000)
        await expect(banner(page)).to_contain_text("What you write is kept and sent later.")
        await expect(banner(page).get_by_role("button", name="Retry")).to_be_visible()
        async with corner.tab("/chat") as late:  # a page that is opened now says so, too
            await expect(banner(late)).to_contain_text("Not connected")
        await back(corner, page)


async def test_who_is_logged_out_is_led_to_the_log_in(corner: Corner) -> None:
    async with corner.tab("/chat") as page:
        await corner.do(page, "renew")
        await banner(page).get_by_text("You are logged out.").wait_for(timeout=PATIENCE * 2000)
        await banner(page).get_by_role("button", name="Log in").click()
        await corner.hears(page, lambda heard: ["login"] in heard)

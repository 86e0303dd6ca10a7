"""Title, icon and notifications, for who looks elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from .browser import SLOW_HANDSHAKE
from .corner import Corner, open_corner

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def corner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Corner]:
    async with open_corner(tmp_path_factory.mktemp("corner")) as corner:
        yield corner


# A headless page has the focus always, and shows no notifications.
STAND_INS = """
window.shown = [];
window.Notification = class {
  static permission = "granted";
  constructor(title, options) {
    window.shown.push(this);
    Object.assign(this, { title, ...options });
  }
  close() { this.closed = true; }
};
window.looksAway = (away) => {
  document.hasFocus = () => !away;
  window.dispatchEvent(new Event(away ? "blur" : "focus"));
};
"""


async def looks_away(page: Page, away: bool = True) -> None:
    await page.evaluate("away => window.looksAway(away)", away)


async def test_the_server_hears_once_when_the_reader_looks_away_or_back(corner: Corner) -> None:
    async with corner.tab("/settings") as page:
        await page.add_init_script(STAND_INS)
        before = len(await corner.heard(page))
        await corner.open(page, "/chat")
        await corner.hears(page, lambda heard: len(heard) > before)
        for away in (True, True, False, False, True):
            await looks_away(page, away)
        await corner.hears(page, lambda heard: len(heard) >= before + 4)
        looks = [["look", True], ["look", False], ["look", True], ["look", False]]
        assert (await corner.heard(page))[before:] == looks


async def test_what_changes_while_the_page_connects_is_told_as_it_ended(corner: Corner) -> None:
    async with corner.tab("/settings") as page:
        await page.add_init_script(STAND_INS + SLOW_HANDSHAKE)
        before = len(await corner.heard(page))
        await page.goto(f"{corner.url}/chat")
        await page.wait_for_function("'shakeHands' in window")
        for away in (True, False, True):
            await looks_away(page, away)
        await page.evaluate("shakeHands()")
        await corner.hears(page, lambda heard: len(heard) > before)
        await looks_away(page, False)
        await corner.hears(page, lambda heard: heard[-1] == ["look", True])
        assert (await corner.heard(page))[before:] == [["look", False], ["look", True]]


async def test_the_title_and_the_icon_tell_how_much_is_unread(corner: Corner) -> None:
    async with corner.tab("/chat") as page:
        icon = page.locator("link[rel~=icon]")
        await expect(page).to_have_title("antiphon")
        quiet = await icon.get_attribute("href")
        await corner.do(page, "unread/3")
        await expect(page).to_have_title("(3) antiphon")
        await expect(icon).not_to_have_attribute("href", quiet or "")
        await corner.do(page, "unread/1000")
        await expect(page).to_have_title("(99+) antiphon")
        await corner.do(page, "unread/0")
        await expect(page).to_have_title("antiphon")
        await expect(icon).to_have_attribute("href", quiet or "")


async def test_a_notification_comes_only_to_who_wants_it_and_looks_elsewhere(
    corner: Corner,
) -> None:
    async with corner.tab("/settings") as page:
        await page.add_init_script(STAND_INS)
        before = len(await corner.heard(page))
        await corner.open(page, "/chat")
        await corner.hears(page, lambda heard: len(heard) > before)
        await looks_away(page)
        await corner.hears(page, lambda heard: heard[before:][-1:] == [["look", False]])
        await corner.do(page, "notify", "John", "not wanted", "1")
        await page.evaluate("localStorage.setItem('antiphon.notifications', 'on')")
        await corner.do(page, "notify", "John", "<b>Hi</b>" + "x" * 300, "conversation-1")
        await looks_away(page, False)
        await corner.hears(page, lambda heard: heard[-1] == ["look", True])
        await corner.do(page, "notify", "John", "seen anyway", "1")
        assert await page.evaluate("window.shown.map(n => [n.title, n.tag, n.body.length])") == [
            ["John", "conversation-1", 200]
        ]
        await page.evaluate("window.shown[0].onclick()")
        await corner.hears(page, lambda heard: heard[-1] == ["open", "conversation-1"])
        assert await page.evaluate("window.shown[0].closed")

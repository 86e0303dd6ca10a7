"""The settings, which the browser keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from antiphon import __version__

from .browser import PHONE
from .corner import Corner, open_corner

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def corner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Corner]:
    async with open_corner(tmp_path_factory.mktemp("corner")) as corner:
        yield corner


DARK = "document.body.classList.contains('body--dark')"


async def test_a_theme_holds_at_once_and_after_a_reload(corner: Corner) -> None:
    async with corner.tab("/settings", size=PHONE) as page:
        system = page.get_by_role("radio", name="System")
        await expect(system).to_be_checked()
        assert not await page.evaluate(DARK)
        await page.locator("label", has_text="Dark").click()
        await page.wait_for_function(DARK)
        await corner.open(page, "/avatars")
        assert await page.evaluate(DARK)
        await corner.open(page, "/settings")
        await expect(page.get_by_role("radio", name="Dark")).to_be_checked()
        await page.keyboard.press("Tab")
        await page.get_by_role("radio", name="Dark").press("ArrowRight")
        await expect(system).to_be_checked()
        await page.wait_for_function(f"!{DARK}")
        await page.emulate_media(color_scheme="dark")
        await page.wait_for_function(DARK)


async def test_notifications_are_asked_for_by_a_click_and_kept(corner: Corner) -> None:
    async with corner.tab("/settings") as page:
        await page.add_init_script("Notification.requestPermission = async () => 'granted'")
        await page.context.grant_permissions(["notifications"])
        await corner.open(page, "/settings")
        switch = page.get_by_role("switch", name="Desktop notifications")
        await expect(switch).not_to_be_checked()
        await switch.click()
        await expect(switch).to_be_checked()
        await expect(page.get_by_text("New messages are shown")).to_be_visible()
        await corner.open(page, "/settings")
        await expect(switch).to_be_checked()
        await switch.click()
        await corner.open(page, "/settings")
        await expect(switch).not_to_be_checked()


async def test_what_the_browser_has_blocked_is_explained(corner: Corner) -> None:
    async with corner.tab("/settings") as page:
        await page.add_init_script(
            "Object.defineProperty(Notification, 'permission', { get: () => 'denied' })"
        )
        await corner.open(page, "/settings")
        await expect(page.get_by_role("switch")).to_be_disabled()
        await expect(page.get_by_text("Blocked in the browser.")).to_be_visible()


async def test_who_says_no_to_the_browser_is_not_left_with_a_switch_that_is_on(
    corner: Corner,
) -> None:
    async with corner.tab("/settings") as page:
        await page.add_init_script(
            "Object.defineProperty(Notification, 'permission', { get: () => 'default' });"
            "Notification.requestPermission = async () => 'denied'"
        )
        await corner.open(page, "/settings")
        switch = page.get_by_role("switch")
        await switch.click()
        await expect(page.get_by_text("Blocked in the browser.")).to_be_visible()
        await expect(switch).not_to_be_checked()


async def test_it_tells_what_the_app_is_set_up_with(corner: Corner) -> None:
    async with corner.tab("/settings") as page:
        text = await page.locator(".ap-screen-column").inner_text()
        assert "ws://127.0.0.1:" in text
        assert "public-key" in text
        assert f"Version {__version__}" in text
        assert "app-secret" not in await page.content()
        await page.get_by_role("link", name="Connection details").click()
        await page.wait_for_url("**/connection")

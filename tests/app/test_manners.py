"""How the app behaves towards people: keyboard, colours, sizes, windows elsewhere, and axe-core."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from .browser import DESKTOP, PHONE
from .conftest import Place, log_in
from .people import (
    ON_THE_WAY,
    alis_channel,
    box,
    bubble,
    comes_back,
    findings,
    group,
    looks_away,
    row,
    say,
    saying,
    tick,
    wait_for_chat,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_BOTH_SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])


async def fits(page: Page) -> None:
    """Nothing sticks out of the window, so that nobody has to scroll sideways."""
    over = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert over <= 0, f"{page.url} is {over} px too wide"


async def is_dark(page: Page) -> bool:
    """Whether the page's background is nearer to black, judged as one sees it."""
    color = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = (int(part) for part in re.findall(r"\d+", color)[:3])
    return red + green + blue < 3 * 128


@pytest.mark.parametrize(
    ("size", "dark"), [(DESKTOP, False), (PHONE, True)], ids=["desktop-light", "phone-dark"]
)
async def test_every_screen_fits_and_axe_finds_nothing_serious(
    place: Place, size: tuple[int, int], dark: bool
) -> None:
    conversation, empty = await group(place, "Judged"), await group(place, "Empty")
    await saying(place, conversation, "https://example.com and more", "مرحبا", "😄")

    async def judge(page: Page) -> None:
        assert not await findings(page)
        await fits(page)

    async with place.looking(size=size, dark=dark) as page:
        assert await is_dark(page) is dark
        await judge(page)
        await log_in(page, "no address", "x")
        await expect(page.get_by_text("This is not an e-mail address.")).to_be_visible()
        await judge(page)
        await log_in(page, place.house.ali.email)
        await expect(row(page, "Judged").first).to_be_visible()
        await judge(page)
        await page.get_by_role("button", name="Menu").click()
        await expect(page.get_by_text("Log out")).to_be_visible()
        await judge(page)
        await page.keyboard.press("Escape")
        await expect(page.get_by_text("Log out")).to_be_hidden()
        await page.get_by_placeholder("Search").fill("nothing like it")
        await expect(page.get_by_text("Nothing found")).to_be_visible()
        await judge(page)
        await page.get_by_placeholder("Search").fill("")
        await page.get_by_role("button", name="New conversation").click()
        dialog = page.get_by_role("dialog")
        for name in ("Eve Stranger", "John Doe"):
            await dialog.get_by_text(name).click()
        await expect(dialog.get_by_label("Title of the group")).to_be_visible()
        await judge(page)
        await dialog.get_by_role("button", name="Cancel").click()
        await expect(dialog).to_be_hidden()
        await row(page, "Judged").first.click()
        await expect(page.get_by_text("New messages")).to_be_visible()
        await say(page, "Mine")
        await expect(tick(page, "Mine")).to_have_attribute("aria-label", ON_THE_WAY)
        await judge(page)
        await expect(box(page)).to_be_in_viewport(ratio=1)
        await page.get_by_role("button", name="Emoji").click()
        await expect(page.get_by_role("menu", name="Emoji")).to_be_visible()
        await judge(page)
        await page.keyboard.press("Escape")
        await page.goto(f"{place.url}/c/{empty}")
        await expect(page.get_by_text("What you write appears here.")).to_be_visible()
        await judge(page)
        await page.goto(place.url + "/connection")
        await page.locator(".cn-row").first.click()
        await expect(page.locator(".cn-data")).to_be_visible()
        await judge(page)
        await page.goto(place.url + "/settings")
        await expect(page.get_by_role("heading", name="Appearance")).to_be_visible()
        await judge(page)


async def test_everything_is_done_with_the_keyboard_alone(place: Place) -> None:
    conversation = await group(place, "By hand")
    await saying(place, conversation, "A word for the keyboard")
    async with place.looking() as page:
        keys = page.keyboard

        async def tab_to(name: str) -> None:
            """Press Tab until something of this name has the focus."""
            for _ in range(40):
                await keys.press("Tab")
                here = await page.evaluate(
                    "document.activeElement === document.body ? ''"
                    " : document.activeElement.getAttribute('aria-label')"
                    " ?? document.activeElement.textContent"
                )
                if name in (here or ""):
                    return
            pytest.fail(f"Tab does not lead to {name!r}")

        await expect(page.get_by_label("E-mail")).to_be_focused()
        await keys.type(place.house.ali.email)
        await keys.press("Tab")
        await keys.type("correct-horse-battery")
        await keys.press("Enter")
        await expect(row(page, "By hand")).to_be_visible()

        await tab_to("New conversation")
        await keys.press("Enter")
        dialog = page.get_by_role("dialog")
        await expect(dialog.get_by_label("Search people")).to_be_focused()
        await keys.press("Escape")
        await expect(dialog).to_be_hidden()
        await expect(page.get_by_role("button", name="New conversation")).to_be_focused()

        await tab_to("Menu")
        await keys.press("Enter")
        await expect(page.get_by_text("Log out")).to_be_visible()
        await keys.press("Escape")
        await expect(page.get_by_text("Log out")).to_be_hidden()

        await tab_to("Search conversations")
        await keys.type("keyboard")
        await keys.press("ArrowDown")
        await expect(page.get_by_role("listbox")).to_be_focused()
        await keys.press("Enter")
        await expect(bubble(page, "A word for the keyboard")).to_be_visible()
        await expect(box(page)).to_be_focused()
        await keys.type("Typed")
        await keys.press("Shift+Enter")
        await keys.type("in two lines")
        await keys.press("Enter")
        await expect(tick(page, "Typed\nin two lines")).to_have_attribute("aria-label", ON_THE_WAY)

        # From the box back to the messages, and up.
        await keys.press("Shift+Tab")
        await keys.press("Shift+Tab")
        focused = "document.activeElement.closest('.ml-message')?.innerText ?? ''"
        for _ in range(3):
            if "Typed" in await page.evaluate(focused):
                break
            await keys.press("Shift+Tab")
        await keys.press("ArrowUp")
        await page.wait_for_function(f"({focused}).includes('A word')")

        await page.get_by_role("button", name="Menu").focus()
        await keys.press("Enter")
        await expect(page.get_by_text("Settings", exact=True)).to_be_visible()
        await page.wait_for_function(
            "document.querySelector('[role=menu]').contains(document.activeElement)"
        )
        for item in ("Connection", "Settings", "Log out", "Connection", "Settings"):
            await keys.press("ArrowDown")
            await expect(page.get_by_role("menuitem", name=item)).to_be_focused()
        await keys.press("Enter")
        await expect(page).to_have_url(place.url + "/settings")
        await expect(page.get_by_role("link", name="Back")).to_be_visible()
        await tab_to("Back")
        await keys.press("Enter")
        await expect(page).to_have_url(place.url + "/")
        await expect(row(page, "By hand")).to_be_visible()
        # What has the focus is seen to have it.
        await page.get_by_placeholder("Search").focus()
        await tab_to("Conversations")
        marked = page.locator(".cl-row.marked")
        assert await marked.evaluate("(row) => getComputedStyle(row).outlineStyle") == "solid"
        await keys.press("Enter")
        await expect(box(page)).to_be_focused()


async def test_the_theme_is_chosen_kept_and_there_from_the_first_paint(place: Place) -> None:
    async with place.looking(place.house.ali) as page:
        await page.goto(place.url + "/settings")
        assert not await is_dark(page)
        await page.locator("label", has_text="Dark").click()
        await page.wait_for_function("document.body.classList.contains('body--dark')")
        assert await is_dark(page)
        await page.reload()
        assert await is_dark(page)
        assert "#11131a" in await (await page.request.get(place.url)).text()
        await page.goto(place.url + "/")
        await expect(page.get_by_placeholder("Search")).to_be_visible()
        assert await is_dark(page)
        await page.goto(place.url + "/settings")
        await page.locator("label", has_text="System").click()
        await page.wait_for_function("!document.body.classList.contains('body--dark')")
        await page.emulate_media(color_scheme="dark")
        await page.wait_for_function("document.body.classList.contains('body--dark')")
        await page.reload()
        await expect(page.get_by_role("radio", name="System")).to_be_checked()
        assert await is_dark(page)
        await page.locator("label", has_text="Light").click()
        await page.wait_for_function("!document.body.classList.contains('body--dark')")
        await page.reload()
        assert not await is_dark(page)


NOTIFICATIONS = """
window.shown = [];
window.Notification = class {
  static permission = "granted";
  static requestPermission = async () => "granted";
  constructor(title, options) {
    window.shown.push({ title, body: options.body });
    this.open = () => this.onclick();
    window.last = this;
  }
  close() {}
};
"""


async def test_who_looks_elsewhere_is_called_by_the_title_and_a_notification(place: Place) -> None:
    conversation = await group(place, "Calls")
    async with place.looking(place.house.ali) as page:
        # A headless browser shows none itself.
        await page.context.add_init_script(NOTIFICATIONS)
        await page.goto(place.url + "/settings")
        await page.get_by_role("switch", name="Desktop notifications").check()
        await page.goto(place.url + "/")
        await expect(row(page, "Calls")).to_be_visible()
        await looks_away(page)
        await saying(place, conversation, "Are you <b>there</b>?")
        await page.wait_for_function("window.shown.length > 0")
        assert await page.evaluate("window.shown") == [
            {"title": "Calls", "body": "Are you <b>there</b>?"}
        ]
        await expect(page).to_have_title(re.compile(r"^\(\d+\) "))
        await comes_back(page)
        await page.evaluate("window.last.open()")
        await expect(bubble(page, "Are you <b>there</b>?")).to_be_visible()
        await expect(page).to_have_url(f"{place.url}/c/{conversation}")
        await saying(place, conversation, "Good")
        await expect(bubble(page, "Good")).to_be_visible()
        assert len(await page.evaluate("window.shown")) == 1  # one sees it already


@AT_BOTH_SIZES
async def test_the_details_of_the_connection_can_be_read_filtered_and_copied(
    place: Place, size: tuple[int, int]
) -> None:
    conversation = await group(place, "Wire")
    async with place.looking(place.house.ali, "/", size) as page:
        await expect(row(page, "Wire").first).to_be_visible()
        await saying(place, conversation, "Over the wire")
        await expect(row(page, "Wire").first).to_contain_text("Over the wire")
        await page.goto(place.url + "/connection")
        facts = page.locator(".cn-facts")
        await expect(page.locator(".cn-state")).to_contain_text("Connected")
        await expect(facts).to_contain_text(re.compile(r"Socket id\s*\d+\.\d+"))
        await expect(facts).to_contain_text(f"127.0.0.1:{place.server.port}")
        await expect(page.locator(".cn-channels")).to_contain_text(alis_channel(place))
        shown = page.locator(".cn-row")
        await expect(shown.first).to_be_visible()
        every = await shown.count()
        await page.get_by_placeholder("Filter by name").fill("over the WIRE")
        await expect(shown).to_have_count(1)
        assert every > 1
        await shown.first.click()
        await expect(page.locator(".cn-data pre")).to_contain_text('"content": "Over the wire"')
        await page.evaluate(
            "document.addEventListener('copy', () => (window.copied = String(getSelection())"
            " || document.activeElement.value))"
        )
        await page.locator(".cn-data").get_by_role("button", name="Copy").click()
        copied: dict[str, Any] = json.loads(await page.evaluate("window.copied"))
        assert copied["data"]["message"]["content"] == "Over the wire"
        assert copied["channel"] == alis_channel(place)
        text = await page.locator("body").inner_text()
        assert '"auth": "k:' not in text
        await page.get_by_placeholder("Filter by name").fill("")
        await page.get_by_role("button", name="Pause").click()
        await saying(place, conversation, "While paused")
        await expect(page.locator(".cn-count")).to_contain_text("1 new")
        await page.get_by_role("button", name="Resume").click()
        await expect(shown.first).to_contain_text("While paused")


async def test_motion_is_left_out_for_those_who_want_none(place: Place) -> None:
    conversation = await group(place)
    async with place.looking(place.house.ali, f"/c/{conversation}") as page:
        await page.emulate_media(reduced_motion="reduce")
        await wait_for_chat(page)
        await page.get_by_role("button", name="New conversation").click()
        await expect(page.get_by_role("dialog")).to_be_visible()
        slow = await page.evaluate(
            "document.getAnimations().filter((a) => a.effect.getComputedTiming().duration > 400"
            " && a.effect.getComputedTiming().duration < 3000).length"
        )
        assert slow == 0

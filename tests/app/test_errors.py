"""The error dialog and the snackbar, as a reader meets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from nicegui import Client, ui
from playwright.async_api import Locator, Page, expect

from antiphon.app import show_error_snackbar

from .browser import PHONE
from .conftest import Place
from .corner import Corner, open_corner

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def corner(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Corner]:
    async with open_corner(tmp_path_factory.mktemp("corner")) as corner:
        yield corner


def dialog(page: Page) -> Locator:
    return page.get_by_role("alertdialog", name="No connection")


async def press(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name, exact=True).click()


@pytest.mark.parametrize("path", ["/errors", "/errors?themed=false"])
async def test_a_dialog_tells_what_has_happened_as_text_and_folds_the_rest(
    corner: Corner, path: str
) -> None:
    async with corner.tab(path, size=PHONE, dark=True) as page:
        await press(page, "Connection")
        shown = dialog(page)
        await expect(shown).to_be_visible()
        await expect(shown).to_contain_text("The server <b>does not</b> answer.")
        await expect(shown).to_contain_text("Check the network.")
        await expect(shown).to_have_accessible_description("The server <b>does not</b> answer.")
        await expect(shown.locator(".ap-error-icon")).to_have_text("wifi_off")
        detail = shown.get_by_text("Unreachable: refused")
        await expect(detail).to_be_hidden()
        await shown.get_by_text("Technical details").click()
        await expect(detail).to_be_visible()
        panel = await shown.locator(".ap-error-panel").bounding_box()
        assert panel is not None
        assert panel["x"] >= 0
        assert panel["x"] + panel["width"] <= PHONE[0]


async def test_the_keyboard_stays_in_the_dialog_and_finds_back(corner: Corner) -> None:
    async with corner.tab("/errors") as page:
        button = page.get_by_role("button", name="Connection")
        await button.focus()
        await page.keyboard.press("Enter")
        await expect(dialog(page).get_by_role("button", name="Retry")).to_be_focused()
        for _ in range(3):  # while it still moves, too
            await page.keyboard.press("Tab")
        await page.locator(".q-dialog__inner--animating").wait_for(state="detached")
        await page.wait_for_function("document.activeElement.closest('.ap-error')")
        for _ in range(8):
            await page.keyboard.press("Tab")
            assert await page.evaluate(
                "document.querySelector('.ap-error').contains(document.activeElement)"
                " || document.activeElement === document.body"
            )
        before = (await corner.heard(page)).count(["dismiss"])
        await page.keyboard.press("Escape")
        await expect(dialog(page)).to_have_count(0)
        await expect(button).to_be_focused()
        await corner.hears(page, lambda heard: heard.count(["dismiss"]) == before + 1)


async def test_retry_is_called_once_and_is_no_dismissal(corner: Corner) -> None:
    async with corner.tab("/errors") as page:
        before = await corner.heard(page)
        await press(page, "Connection")
        await dialog(page).get_by_role("button", name="Retry").dblclick()
        await expect(dialog(page)).to_have_count(0)
        await corner.hears(page, lambda heard: len(heard) > len(before))
        assert (await corner.heard(page))[len(before) :] == [["retry"]]


async def test_there_is_no_retry_where_it_cannot_help(corner: Corner) -> None:
    async with corner.tab("/errors") as page:
        await press(page, "Forbidden")
        await expect(dialog(page).locator(".ap-error-icon")).to_have_text("lock")
        await expect(dialog(page).get_by_role("button", name="Retry")).to_have_count(0)
        await expect(dialog(page).get_by_role("button", name="Log in")).to_have_count(0)
        await expect(dialog(page).get_by_role("button", name="Dismiss")).to_be_focused()


async def test_who_has_to_log_in_is_led_there(corner: Corner) -> None:
    async with corner.tab("/errors") as page:
        await press(page, "Login")
        await dialog(page).get_by_role("button", name="Log in").click()
        await corner.hears(page, lambda heard: ["login"] in heard)
        await expect(dialog(page)).to_have_count(0)


async def test_one_problem_has_one_dialog_at_a_time(corner: Corner) -> None:
    async with corner.tab("/errors") as page:
        for _ in range(2):  # and a new one after it was dismissed
            await press(page, "Twice")
            await expect(dialog(page)).to_be_visible()
            await expect(page.locator(".ap-error")).to_have_count(1)
            await dialog(page).get_by_role("button", name="Dismiss").click()
            await expect(page.locator(".ap-error")).to_have_count(0)


async def test_the_details_are_copied_whole(corner: Corner) -> None:
    async with corner.tab("/errors") as page:
        await page.context.grant_permissions(["clipboard-read"])
        await press(page, "Connection")
        await page.get_by_text("Technical details").click()
        # It says so for two seconds only.
        await asyncio.gather(
            page.get_by_role("button", name="Copied").wait_for(),
            press(page, "Copy technical details"),
        )
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied.strip() == "Unreachable: refused\ncode: none"
        await expect(page.get_by_role("button", name="Copy technical details")).to_be_visible()


async def test_a_program_s_own_text_is_enough_for_a_dialog(corner: Corner) -> None:
    async with corner.tab("/errors?themed=false") as page:
        await press(page, "Text")
        shown = page.get_by_role("alertdialog", name="Something went wrong")
        await expect(shown).to_contain_text("Only a text.")
        await expect(shown.get_by_text("Technical details")).to_have_count(0)
        await expect(shown.get_by_role("button", name="Retry")).to_be_visible()


async def test_of_many_troubles_the_two_newest_are_on_the_screen(place: Place) -> None:
    async with place.looking() as page:
        await expect(page.get_by_label("E-mail")).to_be_visible()
        *_, client = Client.instances.values()
        snackbars = page.get_by_role("alert").and_(page.locator(".ap-snackbar"))
        for _ in range(2):  # what had to go can come back
            with client:
                for number in range(1, 6):
                    show_error_snackbar(f"Trouble {number}")
            await expect(snackbars.filter(has_text="Trouble 5")).to_have_count(1)
            await expect(snackbars).to_have_count(2)
            await expect(snackbars.filter(has_text="Trouble 4")).to_have_count(1)
            with client:
                show_error_snackbar("Trouble 6")
            await expect(snackbars.filter(has_text="Trouble 6")).to_have_count(1)
            await expect(snackbars).to_have_count(2)
            await expect(snackbars.filter(has_text="Trouble 4")).to_have_count(0)
        async with asyncio.timeout(10):  # the app hears of the last one's end after the page
            while len([e for e in client.elements.values() if isinstance(e, ui.notification)]) > 2:
                await page.evaluate("new Promise(requestAnimationFrame)")


async def test_a_snackbar_can_be_answered_and_says_a_thing_once(corner: Corner) -> None:
    async with corner.tab("/errors") as page:
        before = (await corner.heard(page)).count(["retry"])
        await press(page, "Snack")
        snackbar = page.get_by_role("alert")
        await expect(snackbar).to_contain_text("The server <b>does not</b> answer.")
        await snackbar.get_by_role("button", name="Retry").click()
        await expect(snackbar).to_have_count(0)
        await corner.hears(page, lambda heard: heard.count(["retry"]) == before + 1)
        await press(page, "Snacks")
        await expect(snackbar).to_have_count(1)
        await expect(snackbar.get_by_role("button", name="Retry")).to_have_count(0)
        await snackbar.get_by_role("button", name="Dismiss").click()
        await expect(snackbar).to_have_count(0)
        await press(page, "Snacks")
        await expect(snackbar).to_have_count(1)

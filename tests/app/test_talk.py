"""People talk: two browsers, a real server and backend, and what each of them sees."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from playwright.async_api import Page, expect

from antiphon.app.screens import chat as chat_screen
from antiphon.chat import RestClient
from antiphon.chat.pace import IDLE_AFTER, Keystrokes

from .browser import DESKTOP, PHONE
from .conftest import Place, log_in
from .people import (
    ON_THE_WAY,
    box,
    bubble,
    bubbles,
    comes_back,
    group,
    header_line,
    looks_away,
    newcomer,
    row,
    say,
    saying,
    texts,
    tick,
    wait_for_chat,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_BOTH_SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])


async def in_database(place: Place, conversation: int) -> list[str]:
    """What was said in a conversation, as the backend has it."""
    page = await place.house.store.conversations.messages(conversation, limit=100)
    return [message.content for message in page.messages]


@AT_BOTH_SIZES
async def test_a_wrong_password_is_said_in_words_and_the_right_one_lets_in(
    place: Place, size: tuple[int, int]
) -> None:
    async with place.looking(size=size) as page:
        await expect(page).to_have_url(re.compile("/login"))
        await log_in(page, place.house.ali.email, "wrong")
        await expect(page.get_by_text("E-mail or password is wrong.")).to_be_visible()
        await expect(page.get_by_label("E-mail")).to_have_value(place.house.ali.email)
        await log_in(page, place.house.ali.email)
        await expect(page.get_by_placeholder("Search")).to_be_visible()
        await expect(page).to_have_url(place.url + "/")


@AT_BOTH_SIZES
async def test_two_people_talk_both_ways(place: Place, size: tuple[int, int]) -> None:
    house, conversation = place.house, await group(place)
    path = f"/c/{conversation}"
    async with (
        place.looking(house.ali, path, size) as ali,
        place.looking(house.john, path, size) as john,
    ):
        for page in (ali, john):
            await wait_for_chat(page)
        for number in range(3):
            await say(ali, f"Ali's {number}\nand a second line")
            await expect(bubble(john, f"Ali's {number}")).to_be_visible()
            await say(john, f"John's {number}")
            await expect(bubble(ali, f"John's {number}")).to_be_visible()
        said = [
            text
            for number in range(3)
            for text in (f"Ali's {number}\nand a second line", f"John's {number}")
        ]
        assert await texts(ali) == await texts(john) == await in_database(place, conversation)
        assert await texts(ali) == said
        for page, own in ((ali, "Ali's 0"), (john, "John's 0")):
            width = size[0]
            mine = await bubble(page, own).locator(".ml-bubble").bounding_box()
            theirs = (
                await bubbles(page)
                .filter(has_not=page.locator(".ml-tick"))
                .first.locator(".ml-bubble")
                .bounding_box()
            )
            assert mine is not None
            assert theirs is not None
            assert theirs["x"] < mine["x"] or mine["width"] > width / 2
            assert mine["x"] + mine["width"] > theirs["x"] + theirs["width"]
        await expect(ali.locator(".ml-name").first).to_have_text("John Doe")


@contextlib.asynccontextmanager
async def types_on(page: Page) -> AsyncIterator[None]:
    """Somebody types for as long as the block lasts; after a second's pause it is over."""
    is_over = False

    async def press() -> None:
        while not is_over:
            await box(page).press_sequentially("on ", delay=150)

    typist = asyncio.create_task(press())
    try:
        yield
    finally:
        is_over = True
        await typist


async def test_typing_is_shown_and_gone(place: Place) -> None:
    house, conversation = place.house, await group(place, "Typists")
    path = f"/c/{conversation}"
    async with (
        place.looking(house.ali, path) as ali,
        place.looking(house.john, path, PHONE) as john,
        place.looking(house.eve, path) as eve,
    ):
        for page in (ali, john, eve):
            await wait_for_chat(page)
        await expect(header_line(ali)).to_have_text("3 members, 3 online")
        async with types_on(john):
            await expect(header_line(ali)).to_contain_text("John is typing")
            await expect(row(ali, "Typists")).to_contain_text("John is typing…")
            async with types_on(eve):
                # Who has paused on the way stands last.
                both = re.compile("(John and Eve|Eve and John) are typing")
                await expect(header_line(ali)).to_contain_text(both)
        # Both pause: the line goes without a word.
        await expect(header_line(ali)).to_have_text("3 members, 3 online")
        async with types_on(john):
            await expect(header_line(ali)).to_contain_text("John is typing")
        await say(john, "I was about to say more of it")
        await expect(bubble(ali, "I was about to say more of it")).to_be_visible()
        await expect(header_line(ali)).to_have_text("3 members, 3 online")
        await expect(row(ali, "Typists")).to_contain_text("John: I was about to say more of it")
        await expect(header_line(john)).not_to_contain_text("typing")


async def test_who_types_on_is_shown_as_typing_all_the_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pressed: list[float] = []
    press = Keystrokes.press

    def press_and_note(self: Keystrokes, now: float) -> bool:
        pressed.append(now)
        return press(self, now)

    monkeypatch.setattr(Keystrokes, "press", press_and_note)
    house, conversation = place.house, await group(place, "Novel")
    path = f"/c/{conversation}"
    async with place.looking(house.ali, path) as ali, place.looking(house.john, path) as john:
        for page in (ali, john):
            await wait_for_chat(page)
        await expect(header_line(ali)).to_contain_text(re.compile("[23] online"))
        await box(john).press_sequentially("Once")
        await expect(header_line(ali)).to_contain_text("John is typing")
        await ali.evaluate(
            """() => {
              const line = document.querySelector(".ch-line");
              window.shown = [];
              new MutationObserver(() => window.shown.push(line.textContent)).observe(
                line, { characterData: true, childList: true, subtree: true });
            }"""
        )
        await box(john).press_sequentially(" upon a time there", delay=180)
        shown = await ali.evaluate("window.shown")
        pressed.append(asyncio.get_running_loop().time())
        # A machine that stands still makes a pause, of which Ali is told.
        has_paused = max(b - a for a, b in pairwise(pressed)) > 0.9 * IDLE_AFTER
        assert has_paused or not [line for line in shown if "John" not in line]


async def test_ticks_go_from_sent_over_delivered_to_read(place: Place) -> None:
    # Somebody of whom no earlier test has left a session behind.
    house, zoe = place.house, await newcomer(place, "Zoe")
    conversation, _ = await house.store.conversations.create([house.ali.id, zoe.id])
    async with place.looking(house.ali, f"/c/{conversation}") as ali:
        await say(ali, "Are you there?")
        await expect(tick(ali, "Are you there?")).to_have_attribute("aria-label", "Sent")
        async with place.looking(zoe, "/", PHONE) as theirs:
            await expect(row(theirs, "Ali")).to_be_visible()
            await expect(tick(ali, "Are you there?")).to_have_attribute("aria-label", "Delivered")
            await row(theirs, "Ali").click()
            await expect(tick(ali, "Are you there?")).to_have_attribute("aria-label", "Read")
            await expect(row(ali, "Zoe").get_by_role("img", name="Read")).to_be_visible()
            await looks_away(theirs)
            await say(ali, "Still there?")
            await expect(tick(ali, "Still there?")).to_have_attribute("aria-label", "Delivered")
            await expect(bubble(theirs, "Still there?")).to_be_visible()
            await comes_back(theirs)
            await expect(tick(ali, "Still there?")).to_have_attribute("aria-label", "Read")


@AT_BOTH_SIZES
async def test_what_is_unread_is_counted_marked_and_cleared_by_reading(
    place: Place, size: tuple[int, int]
) -> None:
    conversation = await group(place, "Unread")
    await saying(place, conversation, "one", "two", "three")
    async with place.looking(place.house.ali, "/", size) as page:
        unread = page.locator(".cl-row", has_text="Unread").first.locator(".cl-unread")
        await expect(unread).to_have_text("3 unread")
        await expect(page).to_have_title(re.compile(r"^\(\d+\) "))
        await saying(place, conversation, "four")
        await expect(unread).to_have_text("4 unread")
        await row(page, "Unread").first.click()
        line = page.locator(".ml-row", has_text="New messages")
        await expect(line.locator(".ml-text")).to_contain_text("one")
        await expect(unread).to_have_count(0)
        async with asyncio.timeout(10):  # the backend hears of it too
            while await unread_by_ali(place, conversation):
                pass
        await page.reload()
        await expect(bubble(page, "four")).to_be_visible()
        await expect(page.get_by_text("New messages")).to_have_count(0)
        await expect(unread).to_have_count(0)


async def unread_by_ali(place: Place, conversation: int) -> int:
    """How much Ali has not read of a conversation, as the backend counts."""
    store = place.house.store.conversations
    (found,) = await store.of(place.house.ali.id, only=conversation)
    return found.unread_count


@AT_BOTH_SIZES
async def test_history_comes_by_scrolling_up_until_its_beginning(
    place: Place, size: tuple[int, int]
) -> None:
    conversation = await group(place, "Long")
    store, john = place.house.store.conversations, place.house.john
    for number in range(300):
        message, _ = await store.add_message(conversation, john.id, f"Number {number}")
    await store.mark_read(conversation, place.house.ali.id, int(message.id))
    async with place.looking(place.house.ali, f"/c/{conversation}", size) as page:
        await expect(bubble(page, "Number 299")).to_be_in_viewport()
        assert await bubbles(page).count() < 300
        beginning = page.get_by_text("Beginning of the conversation")
        async with asyncio.timeout(30):
            while not await beginning.count():
                before = await bubbles(page).count()
                await page.locator(".ml-scroll").evaluate("(list) => list.scrollTo(0, 0)")
                await page.wait_for_function(
                    "(n) => document.querySelectorAll('.ml-message').length > n"
                    " || document.querySelector('.ml-top').textContent.trim()",
                    arg=before,
                )
        assert await texts(page) == [f"Number {number}" for number in range(300)]
        await page.get_by_role("button", name="To the latest").click()
        await expect(bubble(page, "Number 299")).to_be_in_viewport()


async def test_the_place_one_reads_at_does_not_move_when_older_ones_come(place: Place) -> None:
    conversation = await group(place, "Steady")
    store, john = place.house.store.conversations, place.house.john
    for number in range(120):
        message, _ = await store.add_message(conversation, john.id, f"Number {number}")
    await store.mark_read(conversation, place.house.ali.id, int(message.id))
    async with place.looking(place.house.ali, f"/c/{conversation}") as page:
        await expect(bubble(page, "Number 119")).to_be_in_viewport()
        top = "(key) => document.querySelector(`[data-key='${key}']`).getBoundingClientRect().top"
        # In one step with the scrolling, before anything can have come.
        key, before, count = await page.evaluate(
            """() => {
              const list = document.querySelector(".ml-scroll");
              list.scrollTop = 300;
              const messages = [...document.querySelectorAll(".ml-message")];
              const shown = messages.find((m) => m.getBoundingClientRect().top > 100);
              return [shown.dataset.key, shown.getBoundingClientRect().top, messages.length];
            }"""
        )
        await page.wait_for_function(
            "(n) => document.querySelectorAll('.ml-message').length > n", arg=count
        )
        assert abs(await page.evaluate(top, key) - before) <= 2


def delay(monkeypatch: pytest.MonkeyPatch, method: str, seconds: float) -> None:
    """Make something that the backend is asked take longer."""
    ask = getattr(RestClient, method)

    async def late(self: RestClient, *args: Any, **options: Any) -> Any:
        await asyncio.sleep(seconds)
        return await ask(self, *args, **options)

    monkeypatch.setattr(RestClient, method, late)


@pytest.mark.parametrize(
    "as_before",
    [
        test_what_is_unread_is_counted_marked_and_cleared_by_reading,
        test_history_comes_by_scrolling_up_until_its_beginning,
    ],
    ids=["unread", "history"],
)
async def test_a_backend_that_is_slow_changes_nothing(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    as_before: Callable[[Place, tuple[int, int]], Awaitable[None]],
) -> None:
    delay(monkeypatch, "_exchange", 2 * chat_screen.PATIENCE)
    await as_before(place, DESKTOP)


async def test_a_conversation_is_not_missing_while_the_list_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await group(place, "Somewhere")
    await saying(place, conversation, "Here it is")
    monkeypatch.setattr(chat_screen, "FIRST_PATIENCE", 1.0)
    delay(monkeypatch, "conversations", 2.5)
    async with place.looking(place.house.ali, f"/c/{conversation}") as page:
        await expect(bubble(page, "Here it is")).to_be_visible()
        await expect(row(page, "Somewhere")).to_be_visible()
        await expect(page).to_have_url(f"{place.url}/c/{conversation}")


async def test_two_tabs_of_one_user_show_the_same_once(place: Place) -> None:
    conversation = await group(place, "Tabs")
    path = f"/c/{conversation}"
    async with place.looking(place.house.ali, path) as page:
        other = await page.context.new_page()
        await other.goto(place.url + path)
        await wait_for_chat(other)
        await say(page, "From one tab")
        await expect(bubble(other, "From one tab")).to_be_visible()
        await say(other, "From the other")
        await expect(bubble(page, "From the other")).to_be_visible()
        await saying(place, conversation, "From John")
        for tab in (page, other):
            await expect(bubble(tab, "From John")).to_be_visible()
            assert await texts(tab) == ["From one tab", "From the other", "From John"]
        await other.close()
        await say(page, "Alone again")
        await expect(tick(page, "Alone again")).to_have_attribute("aria-label", ON_THE_WAY)
        assert await in_database(place, conversation) == await texts(page)


async def test_back_forward_and_reload_show_the_conversation_of_the_address(place: Place) -> None:
    first, second = await group(place, "First"), await group(place, "Second")
    await saying(place, first, "In the first")
    await saying(place, second, "In the second")
    async with place.looking(place.house.ali, "/", PHONE) as page:
        await row(page, "First").click()
        await expect(bubble(page, "In the first")).to_be_visible()
        await page.get_by_role("button", name="Back to the conversations").click()
        await expect(row(page, "Second")).to_be_visible()
        await expect(page).to_have_url(place.url + "/")
        await row(page, "Second").click()
        await expect(bubble(page, "In the second")).to_be_visible()
        await expect(page).to_have_url(f"{place.url}/c/{second}")
        await page.reload()
        await expect(bubble(page, "In the second")).to_be_visible()
        await page.go_back()
        await expect(row(page, "First")).to_be_visible()
        await expect(box(page)).to_be_hidden()
        await page.go_forward()
        await expect(bubble(page, "In the second")).to_be_visible()


async def test_a_reload_while_sending_loses_nothing_and_doubles_nothing(place: Place) -> None:
    conversation = await group(place, "Reload")
    said = [f"Message {number}" for number in range(9)]
    async with place.looking(place.house.ali, f"/c/{conversation}") as page:
        await wait_for_chat(page)
        for number, text in enumerate(said):
            await say(page, text)
            if number % 3 == 2:
                # At once: nothing of it may have left the page.
                await page.reload()
                await wait_for_chat(page)
        await box(page).fill("A draft, not sent")
        await page.reload()
        await expect(box(page)).to_have_value("A draft, not sent")
        for text in said:
            await expect(tick(page, text)).to_have_attribute("aria-label", ON_THE_WAY)
        assert await texts(page) == said
    assert await in_database(place, conversation) == said


async def test_what_others_say_to_each_other_is_not_shown(place: Place) -> None:
    house = place.house
    secret, _ = await house.store.conversations.create([house.ali.id, house.john.id])
    await saying(place, secret, "Between us")
    async with place.looking(house.eve, f"/c/{secret}") as eve:
        await expect(eve.locator(".ap-snackbar, [role=alertdialog]").first).to_be_visible()
        await expect(eve.get_by_text("Between us")).to_have_count(0)
        await saying(place, secret, "Still between us")
        public = await group(place, "Public")
        await saying(place, public, "For all")
        await expect(row(eve, "Public")).to_contain_text("John: For all")
        await expect(eve.get_by_text("between us")).to_have_count(0)


async def test_one_logs_out_and_somebody_else_in_on_the_same_browser(place: Place) -> None:
    house = place.house
    pair, _ = await house.store.conversations.create([house.ali.id, house.john.id])
    await saying(place, pair, "For Ali's eyes")
    async with place.looking(house.ali) as page:
        await expect(row(page, "John Doe")).to_contain_text("For Ali's eyes")
        await page.get_by_role("button", name="Menu").click()
        await page.get_by_text("Log out").click()
        await log_in(page, house.eve.email)
        await expect(page.locator(".hm-my-name")).to_have_text("Eve Stranger")
        await expect(page.get_by_text("For Ali's eyes")).to_have_count(0)


@AT_BOTH_SIZES
async def test_a_conversation_is_started_with_one_and_a_group_with_several(
    place: Place, size: tuple[int, int]
) -> None:
    async def start(page: Page, *names: str, title: str = "") -> None:
        await page.get_by_role("button", name="New conversation").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog.get_by_role("button", name="Start")).to_be_disabled()
        for name in names:
            await dialog.get_by_label("Search people").fill(name)
            # Those listed before go, and what is chosen among them as they go is not heard.
            await expect(dialog.locator(".nc-person")).to_have_count(1)
            await dialog.get_by_text(name).first.click()
        if title:
            await dialog.get_by_label("Title of the group").fill(title)
        await dialog.get_by_role("button", name="Start").click()
        await expect(dialog).to_be_hidden()

    async with (
        place.looking(place.house.eve, "/", size) as eve,
        place.looking(place.house.john) as john,
    ):
        await start(eve, "John Doe")
        await expect(eve.locator(".ch-title")).to_have_text("John Doe")
        await say(eve, f"Hello from {size[0]} pixels")
        await expect(row(john, "Eve Stranger").first).to_contain_text(f"from {size[0]} pixels")
        if size == PHONE:
            await eve.get_by_role("button", name="Back to the conversations").click()
        title = f"Trip {size[0]}"
        await start(eve, "John Doe", "Ali Qo'chqorov", title=title)
        await expect(eve.locator(".ch-title")).to_have_text(title)
        await expect(header_line(eve)).to_contain_text("3 members")
        await say(eve, "Who comes?")
        await expect(row(john, title)).to_contain_text("Eve: Who comes?")


async def test_a_conversation_in_which_nothing_was_said_stands_last_until_it_begins(
    place: Place,
) -> None:
    spoken, silent = await group(place, "Spoken"), await group(place, "Silent")
    await saying(place, spoken, "Something")
    async with place.looking(place.house.ali) as page:
        await expect(page.get_by_role("option").first).to_contain_text("Spoken")
        search = page.get_by_placeholder("Search")
        await search.fill("Silent")  # it may stand below what fits into the list
        await expect(row(page, "Silent")).to_be_visible()
        await search.fill("")
        await expect(page.get_by_role("option").first).to_contain_text("Spoken")
        await saying(place, silent, "At last")
        await expect(page.get_by_role("option").first).to_contain_text("Silent")


async def test_the_search_finds_by_title_name_and_last_message(place: Place) -> None:
    conversation = await group(place, "Überraschung")
    await saying(place, conversation, "A needle, well hidden")
    async with place.looking(place.house.ali) as page:
        search = page.get_by_placeholder("Search")
        for word in ("needle", "uberrasch", "ÜBERRASCHUNG", "hidden needle"):
            await search.fill(word)
            await expect(row(page, "Überraschung")).to_be_visible()
            await expect(page.get_by_role("option")).to_have_count(1)
        await search.fill("no such thing")
        await expect(page.get_by_text("Nothing found")).to_be_visible()
        await search.press("Escape")
        await expect(search).to_have_value("")
        await expect(row(page, "Überraschung")).to_be_visible()

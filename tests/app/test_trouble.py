"""What goes wrong, and what comes in wrong: it is said, it is mended, and nothing is lost."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from antiphon.publisher import Publisher

from .browser import DESKTOP, PHONE
from .conftest import Place, log_in
from .people import (
    ON_THE_WAY,
    Paced,
    alis_channel,
    box,
    bubble,
    findings,
    group,
    header_line,
    paced,
    row,
    say,
    saying,
    texts,
    tick,
    wait_for_chat,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SENT = r"App\Events\MessageSent"


@pytest.fixture(autouse=True)
def pace() -> Iterator[type[Paced]]:
    """A failure that takes half a minute takes a moment here."""
    with paced() as pace:
        yield pace


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def publisher(place: Place) -> AsyncIterator[Publisher]:
    """Says on the server what the backend would not."""
    async with Publisher(place.server.settings()) as publisher:
        yield publisher


async def in_database(place: Place, conversation: int) -> list[str]:
    """What was said in a conversation, as the backend has it."""
    page = await place.house.store.conversations.messages(conversation, limit=100)
    return [message.content for message in page.messages]


# The backend is gone


@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, False), (PHONE, True)])
async def test_what_fails_is_marked_and_goes_out_once_by_retry(
    place: Place, size: tuple[int, int], dark: bool
) -> None:
    conversation = await group(place)
    async with place.looking(place.house.ali, f"/c/{conversation}", size, dark=dark) as page:
        await wait_for_chat(page)
        await place.house.stop()
        try:
            await say(page, "Stubborn")
            await say(page, "Patient")
            await say(page, "Regretted")
            await expect(page.locator(".ml-failed")).to_have_count(3, timeout=30_000)
            await expect(tick(page, "Stubborn")).to_have_attribute("aria-label", "Not sent")
            await expect(page.locator(".cl-row.current .cl-tick.failed")).to_be_attached()
            assert not await findings(page)
            regretted = page.locator(".ml-row", has_text="Regretted")
            await regretted.get_by_role("button", name="Discard").click()
            await expect(regretted).to_have_count(0)
        finally:
            await place.house.start()
        await (
            page.locator(".ml-row", has_text="Stubborn").get_by_role("button", name="Retry").click()
        )
        for text in ("Stubborn", "Patient"):
            await expect(tick(page, text)).to_have_attribute("aria-label", ON_THE_WAY)
        await expect(page.locator(".ml-failed")).to_have_count(0)
        await page.reload()
        await expect(bubble(page, "Patient")).to_be_visible()
        assert await texts(page) == ["Stubborn", "Patient"]
    assert await in_database(place, conversation) == ["Stubborn", "Patient"]


async def test_older_messages_that_cannot_be_had_are_a_passing_trouble(place: Place) -> None:
    conversation = await group(place)
    store, ali = place.house.store.conversations, place.house.ali
    for number in range(80):
        await store.add_message(conversation, ali.id, f"Number {number}")
    async with place.looking(ali, f"/c/{conversation}") as page:
        await expect(bubble(page, "Number 79")).to_be_in_viewport()
        # A snackbar goes by itself; here it waits until it has been judged.
        await page.evaluate(
            """() => {
              const soon = window.setTimeout;
              window.setTimeout = (then, wait, ...words) =>
                wait > 5_000 ? 0 : soon(then, wait, ...words);
            }"""
        )
        await place.house.stop()
        try:
            await page.locator(".ml-scroll").evaluate("(list) => list.scrollTo(0, 0)")
            snackbar = page.locator(".ap-snackbar").first
            await expect(snackbar).to_be_visible()
            assert not await findings(page)
            await snackbar.get_by_role("button", name="Dismiss").press("Enter")
            await expect(snackbar).to_be_hidden()
        finally:
            await place.house.start()
        await page.locator(".ml-scroll").evaluate("(list) => list.scrollBy(0, 50)")
        await page.locator(".ml-scroll").evaluate("(list) => list.scrollTo(0, 0)")
        await expect(bubble(page, "Number 0").first).to_be_attached()


# The server is gone


@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, True), (PHONE, False)])
async def test_a_server_that_is_gone_is_told_waited_for_and_caught_up_with(
    place: Place, pace: type[Paced], size: tuple[int, int], dark: bool
) -> None:
    conversation = await group(place)
    pace.seconds = 60.0
    async with place.looking(place.house.ali, f"/c/{conversation}", size, dark=dark) as page:
        await say(page, "Before")
        await expect(tick(page, "Before")).to_have_attribute("aria-label", ON_THE_WAY)
        banner = page.locator(".ap-banner")
        await place.server.stop()
        try:
            await expect(banner).to_contain_text(
                re.compile(r"Trying again in \d+ s, attempt \d of 5")
            )
            assert not await findings(page)
            await banner.get_by_role("button", name="Retry now").click()
            await expect(banner).to_contain_text(re.compile("attempt [2-5] of 5"))
            await saying(place, conversation, "Missed", "Missed too")
            await say(page, "Written meanwhile")
            await expect(tick(page, "Written meanwhile")).to_have_attribute(
                "aria-label", ON_THE_WAY
            )
            pace.seconds = 0.2
            await banner.get_by_role("button", name="Retry now").click()
            dialog = page.get_by_role("alertdialog")
            await expect(dialog).to_be_visible(timeout=20_000)
            await dialog.get_by_text("Technical details").click()
            assert not await findings(page)
            await page.keyboard.press("Escape")
            await expect(dialog).to_be_hidden()
            await expect(banner).to_contain_text("Not connected")
            await page.reload()
            await expect(dialog).to_be_visible()
        finally:
            await place.server.start()
        await dialog.get_by_role("button", name="Retry").click()
        await expect(bubble(page, "Missed too")).to_be_visible()
        await expect(banner).not_to_contain_text("Not connected")
        await expect(dialog).to_be_hidden()
        await page.reload()
        await expect(bubble(page, "Missed too")).to_be_visible()
        assert sorted(await texts(page)) == sorted(await in_database(place, conversation))
        await saying(place, conversation, "Live again")
        await expect(bubble(page, "Live again")).to_be_visible()


# The token is gone


async def test_a_token_that_expires_leads_to_the_log_in_and_what_was_written_goes_out(
    place: Place,
) -> None:
    conversation = await group(place)
    async with place.looking(place.house.ali, f"/c/{conversation}") as page:
        await wait_for_chat(page)
        with contextlib.closing(sqlite3.connect(place.folder / "chat.sqlite3")) as database:
            database.execute("DELETE FROM tokens WHERE user_id = ?", (place.house.ali.id,))
            database.commit()
        # At one stroke: the dialog must not come, by the typing notice, before the key.
        await box(page).evaluate(
            """e => {
                e.value = "Not lost";
                e.dispatchEvent(new Event("input", { bubbles: true }));
                e.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
            }"""
        )
        dialog = page.get_by_role("alertdialog")
        await expect(dialog).to_be_visible()
        assert not await findings(page)
        await dialog.get_by_role("button", name="Log in").click()
        await log_in(page, place.house.ali.email)
        await expect(page).to_have_url(f"{place.url}/c/{conversation}")
        await expect(tick(page, "Not lost")).to_have_attribute("aria-label", ON_THE_WAY)
        assert await texts(page) == ["Not lost"]
        await saying(place, conversation, "Heard again")
        await expect(bubble(page, "Heard again")).to_be_visible()
    assert await in_database(place, conversation) == ["Not lost", "Heard again"]


# What is written is wrong


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_what_is_empty_or_too_long_is_not_sent_and_not_lost(
    place: Place, size: tuple[int, int]
) -> None:
    conversation = await group(place)
    async with place.looking(place.house.ali, f"/c/{conversation}", size) as page:
        await wait_for_chat(page)
        send = page.get_by_role("button", name="Send")
        for blank in ("", "   ", "\n\n", "\u200b\u00a0"[1:]):
            await box(page).fill(blank)
            await box(page).press("Enter")
            await expect(send).to_be_disabled()
        await box(page).fill("x" * 4_001)
        await expect(page.get_by_role("alert")).to_have_text("This is too long by 1 characters.")
        await box(page).press("Enter")
        await expect(box(page)).to_have_value("x" * 4_001)
        await box(page).fill("€" * 2_700)  # 8 100 bytes
        await expect(page.get_by_role("alert")).to_have_text("This is too long by 100 bytes.")
        await box(page).fill("I had this")
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.evaluate("navigator.clipboard.writeText('y'.repeat(10_000_000))")
        await box(page).press("Control+v")
        await expect(page.get_by_role("alert")).to_contain_text("That is too long")
        await expect(box(page)).to_have_value("I had this")
        await box(page).press("Enter")
        await expect(tick(page, "I had this")).to_have_attribute("aria-label", ON_THE_WAY)
        assert await texts(page) == ["I had this"]
        # The longest there is, in quotes and line breaks that take more room on the way.
        await box(page).fill("y" * 4_000)
        await box(page).press("Enter")
        await expect(tick(page, "yyyy")).to_have_attribute("aria-label", ON_THE_WAY)
    assert await in_database(place, conversation) == ["I had this", "y" * 4_000]


STRANGE = {
    "script": "<script>window.hacked = 1</script>",
    "handler": '<img src=x onerror="window.hacked = 2"><b>bold</b>',
    "template": "{{ constructor.constructor('window.hacked = 3')() }} ${window.hacked = 4}",
    "link": 'javascript:window.hacked=5 https://example.com/"onmouseover=window.hacked=6',
    "entity": "&lt;i&gt; &amp; &#x3c;script&#x3e;",
    "right to left": "\u202eمرحبا\u202c שלום and back",
    "controls": "bell\u0007 escape\u001b[31m null-less \u0001\u007f end",
    "marks": "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334 \u200d\ufeff end",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈 family and flag",
    "wide": "W" * 3_000,
    "lines": "\n".join(f"line {number}" for number in range(60)),
}


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_strange_text_is_shown_as_the_text_it_is(place: Place, size: tuple[int, int]) -> None:
    house, conversation = place.house, await group(place, STRANGE["handler"])
    async with (
        place.looking(house.ali, f"/c/{conversation}", size) as ali,
        place.looking(house.john, f"/c/{conversation}") as john,
    ):
        for text in STRANGE.values():
            await say(ali, text)
        for page in (ali, john):
            await expect(page.locator(".ml-message")).to_have_count(len(STRANGE))
        sent = await texts(ali)
        assert sent == await texts(john) == await in_database(place, conversation)
        assert sent == list(STRANGE.values())
        await expect(ali.locator(".ml-failed")).to_have_count(0)
        for page in (ali, john):
            assert await page.evaluate("window.hacked") is None
            await expect(page.locator(".ch-title")).to_have_text(STRANGE["handler"])
            wide = "document.documentElement.scrollWidth > innerWidth"
            assert not await page.evaluate(wide)
            over = await page.locator(".ml-scroll").evaluate("(l) => l.scrollWidth - l.clientWidth")
            assert over <= 0
        hrefs = await john.locator(".ml-text a").evaluate_all("all => all.map((a) => a.protocol)")
        assert set(hrefs) <= {"http:", "https:"}


# What comes is wrong


NONSENSE: Final[tuple[Any, ...]] = (
    None, [], 7, "text", {}, {"message": None}, {"message": {"id": {}}},
    {"type": "message"}, {"type": "message", "data": "x"}, {"type": [], "data": {}},
    {"conversation_id": "9" * 400, "user": {"id": "<b>"}},
    {"conversation_id": 1, "reader_id": None, "message_ids": "all"},
    {"message": {"id": "x" * 5_000, "chat_id": "", "sender_id": "", "content": ""}},
)  # fmt: skip


async def test_nonsense_on_the_users_channel_does_no_harm(
    place: Place, publisher: Publisher
) -> None:
    conversation = await group(place, "Sane")
    channel = alis_channel(place)
    async with place.looking(place.house.ali, f"/c/{conversation}") as page:
        await saying(place, conversation, "Before")
        await expect(bubble(page, "Before")).to_be_visible()
        for name in (SENT, r"App\Events\UserIsTyping", "messages.read", "no.such.event"):
            for data in NONSENSE:
                await publisher.trigger([channel], name, data)
        await saying(place, conversation, "After")
        await expect(bubble(page, "After")).to_be_visible()
        assert await texts(page) == ["Before", "After"]
        await expect(page.get_by_role("alertdialog")).to_have_count(0)
        await say(page, "And it works")
        await expect(tick(page, "And it works")).to_have_attribute("aria-label", ON_THE_WAY)


async def test_messages_of_a_wrong_clock_are_shown_in_the_order_they_came(
    place: Place, publisher: Publisher
) -> None:
    conversation = await group(place, "Clocks")
    await saying(place, conversation, "Right")
    dates = (
        "2050-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        None,
        "yesterday",
        "",
        "0001-01-01T00:00:00Z",
    )
    async with place.looking(place.house.ali, f"/c/{conversation}") as page:
        await expect(bubble(page, "Right")).to_be_visible()
        for number, date in enumerate(dates):
            message = {
                "id": str(900_000 + number),
                "chat_id": str(conversation),
                "sender_id": str(place.house.john.id),
                "sender_name": "John Doe",
                "content": f"Clock {number}",
                "sent_at": date,
                "status": "sent",
            }
            if date is None:
                del message["sent_at"]
            await publisher.trigger([alis_channel(place)], SENT, {"message": message})
        await expect(bubble(page, "Clock 2")).to_be_visible()
        await say(page, "On time")
        await expect(tick(page, "On time")).to_have_attribute("aria-label", ON_THE_WAY)
        shown = await texts(page)
        # A date that is none may be refused; the others stand in the order they came.
        assert [t for t in shown if t in ("Right", "Clock 0", "Clock 1", "Clock 2")] == [
            "Right", "Clock 0", "Clock 1", "Clock 2",
        ]  # fmt: skip
        assert "On time" in shown
        assert "Invalid" not in await page.locator(".hm").inner_text()
        assert "NaN" not in await page.locator(".hm").inner_text()


# There is too much


async def test_three_thousand_conversations_are_a_list_like_any_other(place: Place) -> None:
    house = place.house
    with contextlib.closing(sqlite3.connect(place.folder / "chat.sqlite3")) as database:
        (last,) = database.execute("SELECT max(id) FROM conversations").fetchone()
        ids = range(last + 1, last + 3_001)
        now = "2026-11-23 08:00:00.000000"
        database.executemany(
            "INSERT INTO conversations (id, title, created_at) VALUES (?, ?, ?)",
            [(id_, f"Many {id_ - last}", now) for id_ in ids],
        )
        database.executemany(
            "INSERT INTO members (conversation_id, user_id) VALUES (?, ?)",
            [(id_, user.id) for id_ in ids for user in (house.eve, house.john)],
        )
        database.executemany(
            "INSERT INTO messages (conversation_id, sender_id, content, sent_at)"
            " VALUES (?, ?, 'Hello', ?)",
            [(id_, house.john.id, now) for id_ in ids],
        )
        database.commit()
    async with place.looking(house.eve, "/", PHONE) as page:
        await expect(page.get_by_role("option").first).to_be_visible(timeout=30_000)
        begin = time.perf_counter()
        await page.reload()
        await expect(page.get_by_role("option").first).to_be_visible()
        paint = await page.wait_for_function(
            "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        )
        painted = await paint.json_value()
        took = time.perf_counter() - begin
        assert painted < 2_000
        assert took < 10
        assert await page.get_by_role("option").count() < 40
        await page.get_by_placeholder("Search").fill("many 2777")
        await expect(page.get_by_role("option")).to_have_count(1)
        await row(page, "Many 2777").click()
        await expect(bubble(page, "Hello")).to_be_visible()
        await expect(header_line(page)).to_contain_text("")
        await say(page, "Found you")
        await expect(tick(page, "Found you")).to_have_attribute("aria-label", ON_THE_WAY)


async def test_a_conversation_that_is_not_there_is_said_to_be_so(place: Place) -> None:
    async def told(page: Page) -> None:
        await expect(page.locator(".ap-snackbar, [role=alertdialog]").first).to_be_visible()

    async with place.looking(place.house.ali, "/c/999999999") as page:
        await told(page)
        for path in ("/c/%3Cscript%3E", "/c/" + "9" * 300):
            await page.goto(place.url + path)
            await told(page)
            await expect(page.get_by_placeholder("Search")).to_be_visible()

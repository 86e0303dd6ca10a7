"""The message list and the message box in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.async_api import Browser, Page, expect

from antiphon import app

from .browser import DESKTOP, PHONE, chromium, tab

pytestmark = pytest.mark.asyncio(loop_scope="module")

THEME = Path(app.__file__).with_name("theme.css")
NOON = datetime(2024, 10, 25, 12, 0, tzinfo=UTC)

VISIBLE = """() => {
  const list = document.querySelector('.ml-scroll').getBoundingClientRect();
  return [...document.querySelectorAll('.ml-message')].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.bottom > list.top && box.top < list.bottom;
  }).map((e) => [e.dataset.key, Math.round(e.getBoundingClientRect().top)]);
}"""


class Parts:
    """A tab with the two parts, and the way to them from Python's side."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.messages = page.locator(".ml-message")
        self.scroller = page.locator(".ml-scroll")
        self.box = page.get_by_role("textbox", name="Message")

    async def open(self, query: str = "") -> None:
        await self.page.goto(f"{self.address}/{query}")
        await self.page.wait_for_function("window.did_handshake")

    async def do(self, method: str, *args: Any, part: str = "list", **options: Any) -> None:
        """Call a method of a part, and wait until the browser has what it sent."""
        data = json.dumps([part, method, args, options])
        answer = await self.page.request.post(f"{self.address}/do", data=data)
        assert answer.ok, await answer.text()

    async def show(self, items: list[dict[str, Any]], **options: Any) -> None:
        await self.do("show", items, **{"has_older": False, **options})
        if items:
            await self.row(items[-1]["key"]).wait_for(state="attached")

    async def heard(self, kind: str) -> list[Any]:
        answer = await self.page.request.get(f"{self.address}/heard")
        return [rest for name, *rest in await answer.json() if name == kind]

    async def hears(self, kind: str, done: Callable[[list[Any]], object] = bool) -> list[Any]:
        """What was heard of a kind, once it is what one waits for."""
        async with asyncio.timeout(10):
            while not done(calls := await self.heard(kind)):
                await self.frame()
        return calls

    async def sends(self, count: int = 1) -> list[list[str]]:
        """Texts and ids of what was sent, once there are so many.

        What nobody has taken for five seconds is offered again; here it stands once.
        """

        def once(calls: list[Any]) -> list[list[str]]:
            return [call for n, call in enumerate(calls) if call not in calls[:n]]

        return once(await self.hears("send", lambda calls: len(once(calls)) >= count))

    async def mode(self, mode: str) -> None:
        await self.page.request.post(f"{self.address}/mode/{mode}")

    async def copies(self, key: str, act: Awaitable[None]) -> None:
        """Do it, and see a message say that it was copied, which it does for a moment only."""
        copied = self.row(key).get_by_role("button", name="Copied")
        await asyncio.gather(copied.wait_for(), act)

    def row(self, key: str) -> Any:
        return self.page.locator(f'[data-key="{key}"]')

    async def keys(self) -> list[str]:
        return list(await self.messages.evaluate_all("all => all.map(e => e.dataset.key)"))

    async def texts(self) -> list[str]:
        """What each message says, without its time."""
        return list(
            await self.page.locator(".ml-text").evaluate_all(
                "all => all.map(e => [...e.childNodes].slice(0, -1)"
                ".map(n => n.textContent).join(''))"
            )
        )

    async def scroll_to(self, top: int) -> None:
        await self.scroller.evaluate("(e, top) => { e.scrollTop = top; }", top)
        await self.frame()

    async def frame(self) -> None:
        """Two frames later a scroll has been told and answered."""
        await self.page.evaluate(
            "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
        )

    async def is_at_end(self) -> bool:
        return bool(
            await self.scroller.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight < 2")
        )


def item(number: int, text: str | None = None, **other: Any) -> dict[str, Any]:
    return {
        "key": f"m{number:05}",
        "own": False,
        "sender": "Ann Lee",
        "sender_id": "7",
        "text": text if text is not None else f"message {number}",
        "at": (NOON + timedelta(seconds=number)).isoformat(),
        **other,
    }


def own(number: int, status: str = "sent", **other: Any) -> dict[str, Any]:
    return item(number, own=True, sender="Bob", sender_id="8", status=status, **other)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.app.parts_page", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest_asyncio.fixture(loop_scope="module")
async def parts(browser: Browser, address: str) -> AsyncIterator[Parts]:
    async with tab(browser) as page:
        parts = Parts(page, address)
        await parts.mode("take")
        await parts.open()
        yield parts


# What a conversation looks like.


async def test_a_conversation_opens_at_its_end(parts: Parts) -> None:
    await parts.show([item(n) for n in range(100)])
    assert await parts.keys() == [f"m{n:05}" for n in range(100)]
    await expect(parts.row("m00099")).to_be_in_viewport(ratio=1)
    assert await parts.is_at_end()


async def test_messages_of_one_sender_stand_together_for_five_minutes(parts: Parts) -> None:
    await parts.show([item(0), item(60), own(61), own(62), item(70), item(371), item(372)])
    starts = await parts.messages.evaluate_all(
        "all => all.map(e => e.classList.contains('starts'))"
    )
    assert starts == [True, False, True, False, True, True, False]
    assert await parts.page.locator(".ml-name").all_inner_texts() == ["Ann Lee"] * 3
    assert await parts.page.locator(".ml-avatar span").all_inner_texts() == ["AL"] * 3


async def test_days_are_those_of_the_readers_zone(parts: Parts) -> None:
    now = datetime.now(UTC)
    await parts.show(
        [
            item(1, at="2024-10-25T21:59:00Z"),
            item(2, at="2024-10-25T22:01:00Z"),  # midnight in Berlin is between them
            item(3, at=(now - timedelta(days=1)).isoformat()),
            item(4, at=now.timestamp() * 1000),
        ]
    )
    days = await parts.page.locator(".ml-day").all_inner_texts()
    assert days == ["25 October 2024", "26 October 2024", "Yesterday", "Today"]
    times = await parts.page.locator("time").all_inner_texts()
    assert times[:2] == ["23:59", "00:01"]


@pytest.mark.parametrize("at", ["nonsense", "", None, 1e300, "2024-13-45T99:00:00Z"])
async def test_a_message_without_a_usable_date_shows_no_time(parts: Parts, at: Any) -> None:
    await parts.show([item(1), item(2, at=at), item(3)])
    assert await parts.page.locator("time").count() == 2
    assert await parts.page.locator(".ml-day").count() == 1
    assert await parts.texts() == ["message 1", "message 2", "message 3"]


async def test_own_messages_say_how_far_they_have_come(parts: Parts) -> None:
    statuses = ["sending", "sent", "delivered", "read", "failed"]
    await parts.show([own(n, status) for n, status in enumerate(statuses)])
    labels = await parts.page.locator(".ml-tick").evaluate_all("all => all.map(e => e.ariaLabel)")
    assert labels == ["Sending", "Sent", "Delivered", "Read", "Not sent"]
    label = await parts.row("m00003").get_attribute("aria-label")
    assert label == "You, message 3, 14:00, Read"


async def test_html_and_script_show_as_text(parts: Parts) -> None:
    hostile = "<b>bold</b><script>window.broken = 1</script><img src=x onerror='window.broken=1'>"
    await parts.show([item(1, hostile, sender=hostile), own(2, "failed", error=hostile)])
    assert (await parts.texts())[0] == hostile
    assert await parts.page.evaluate("window.broken") is None
    assert await parts.page.locator(".ml b, .ml img").count() == 0


async def test_addresses_become_links_and_nothing_else_does(parts: Parts) -> None:
    text = (
        "See https://example.com/a?b=1&c=2#d, (http://example.org/x_(y)) or "
        "HTTPS://EXAMPLE.NET. Not javascript:alert(1), ftp://example.com, https:// or example.com"
    )
    await parts.show([item(1, text)])
    links = parts.page.locator(".ml-text a")
    assert await links.all_inner_texts() == [
        "https://example.com/a?b=1&c=2#d",
        "http://example.org/x_(y)",
        "HTTPS://EXAMPLE.NET",
    ]
    for link in await links.all():
        assert await link.get_attribute("rel") == "noopener noreferrer"
        assert await link.get_attribute("target") == "_blank"
    assert await parts.texts() == [text]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.text() | st.from_regex(r"https?://\S{0,20}[).,]{0,3} .{0,9}", fullmatch=True),
        min_size=1,
        max_size=40,
    )
)
async def test_whatever_is_said_is_shown_as_it_was_said(parts: Parts, said: list[str]) -> None:
    example = uuid.uuid4().hex
    await parts.show([item(n, text, key=f"{example}.{n}") for n, text in enumerate(said)])
    assert await parts.texts() == said


async def test_names_and_keys_may_be_anything(parts: Parts) -> None:
    keys = ["__proto__", "constructor", "", '"]', "a b", "\u2028", "</script>"]
    names = ["", "   ", "!!!", "😀", "\u202eevil", "x" * 5000, "Ann"]
    await parts.do(
        "show",
        [item(1, key=key, sender=name) for key, name in zip(keys, names, strict=True)],
        has_older=False,
    )
    await expect(parts.messages).to_have_count(len(keys))
    assert await parts.keys() == keys
    width = await parts.page.evaluate("document.documentElement.scrollWidth")
    assert width <= DESKTOP[0]


async def test_a_monstrous_message_is_cut(parts: Parts) -> None:
    await parts.show([item(1, "x" * 10_000_000)])
    (text,) = await parts.texts()
    assert text.endswith("… (9,980,000 more characters)")
    assert len(text) < 21_000


async def test_only_a_few_emoji_alone_are_large(parts: Parts) -> None:
    texts = ["😀", "❤️ 👍🏽", "👩‍👩‍👧🎉🚀", "😀😀😀😀", "ok 😀", "123"]
    await parts.show([item(n, text) for n, text in enumerate(texts)])
    large = await parts.page.locator(".ml-bubble").evaluate_all(
        "all => all.map(e => e.classList.contains('large'))"
    )
    assert large == [True, True, True, False, False, False]


async def test_text_from_right_to_left_begins_at_the_right(parts: Parts) -> None:
    await parts.show([item(1, "مرحبا"), item(2, "hello")])
    directions = await parts.page.locator(".ml-text").evaluate_all(
        "all => all.map(e => getComputedStyle(e).direction)"
    )
    assert directions == ["rtl", "ltr"]


async def test_an_empty_conversation_says_so_until_something_comes(parts: Parts) -> None:
    await parts.show([])
    await expect(parts.page.get_by_text("No messages yet")).to_be_visible()
    await parts.do("put", [item(1)])
    await expect(parts.row("m00001")).to_be_visible()
    await expect(parts.page.get_by_text("No messages yet")).to_be_hidden()


# What comes while one reads.


async def test_a_message_that_comes_twice_is_shown_once(parts: Parts) -> None:
    await parts.show([item(n) for n in range(3)])
    await parts.do("put", [item(3), item(3), item(1)])
    await expect(parts.row("m00003")).to_be_visible()
    assert await parts.keys() == ["m00000", "m00001", "m00002", "m00003"]


async def test_an_update_changes_what_it_names_and_never_the_place(parts: Parts) -> None:
    await parts.show([own(1, "sending"), item(2)])
    await parts.do("put", [{"key": "m00001", "status": "read", "after": "m00002"}])
    await expect(parts.page.get_by_label("Read", exact=True)).to_be_visible()
    assert await parts.keys() == ["m00001", "m00002"]
    assert await parts.texts() == ["message 1", "message 2"]


async def test_a_new_message_stands_where_it_belongs(parts: Parts) -> None:
    await parts.show([item(1), item(5)])
    await parts.do(
        "put",
        [
            item(3, after="m00001"),
            item(4, after="m00003"),
            item(0, after=None),
            item(6),
            item(7, after="of one that was removed"),
        ],
    )
    await expect(parts.messages).to_have_count(7)
    assert await parts.keys() == [f"m{n:05}" for n in (0, 1, 3, 4, 5, 6, 7)]


async def test_a_message_older_than_the_page_waits_for_its_page(parts: Parts) -> None:
    await parts.show([item(n) for n in range(50, 100)], has_older=True)
    await parts.do("put", [item(10, after="m00009"), item(100, after="of one that was removed")])
    await parts.row("m00100").wait_for()
    assert await parts.keys() == [f"m{n:05}" for n in range(50, 101)]


async def test_a_reader_at_the_end_sees_what_comes(parts: Parts) -> None:
    await parts.show([item(n) for n in range(50)])
    await parts.do("put", [item(50, "several\nlines\n" * 10)])
    await expect(parts.row("m00050")).to_be_in_viewport()
    assert await parts.is_at_end()


async def test_a_reader_further_up_is_not_moved_and_told(parts: Parts) -> None:
    await parts.show([item(n) for n in range(200)])
    await parts.scroll_to(2000)
    before = await parts.page.evaluate(VISIBLE)
    await parts.do("put", [item(n) for n in range(200, 205)])
    await parts.do("put", [item(0, key="early", after="m00000", text="high\n" * 30)])
    await parts.do("remove", "m00001")
    button = parts.page.get_by_role("button", name="To the latest, 6 new")
    await button.wait_for()
    await parts.row("early").wait_for(state="attached")
    assert await parts.page.evaluate(VISIBLE) == before
    await button.click()
    await expect(parts.row("m00204")).to_be_in_viewport()
    await expect(parts.page.locator(".ml-jump")).to_be_hidden()


async def test_a_reader_further_up_sees_what_they_send(parts: Parts) -> None:
    await parts.show([item(n) for n in range(200)])
    await parts.scroll_to(0)
    await parts.do("put", [own(200, "sending")])
    await expect(parts.row("m00200")).to_be_in_viewport()


async def test_a_box_that_grows_hides_no_message(parts: Parts) -> None:
    await parts.show([item(n) for n in range(50)])
    await parts.do("conversation", "c", part="box")
    await parts.box.fill("a\nb\nc\nd")
    await parts.frame()
    await expect(parts.row("m00049")).to_be_in_viewport(ratio=1)
    assert await parts.is_at_end()


async def test_new_messages_stand_below_their_line(parts: Parts) -> None:
    await parts.show([item(n) for n in range(300)], unread_from="m00100")
    line = parts.page.get_by_text("New messages")
    await expect(line).to_be_in_viewport()
    await expect(parts.row("m00100")).to_be_in_viewport()
    await expect(parts.row("m00299")).not_to_be_in_viewport()
    box = await line.bounding_box()
    assert box is not None
    assert box["y"] < DESKTOP[1] / 2
    await parts.do("put", [own(300, "sending")])
    await expect(line).to_have_count(0)


async def test_another_conversation_replaces_all(parts: Parts) -> None:
    await parts.show([item(n) for n in range(300)])
    await parts.scroll_to(0)
    await parts.show([own(1000)])
    await expect(parts.messages).to_have_count(1)
    await expect(parts.page.locator(".ml-jump")).to_be_hidden()


# History.


async def test_older_messages_come_in_front_and_move_nothing(parts: Parts) -> None:
    await parts.show([item(n) for n in range(100, 150)], has_older=True)
    await parts.scroll_to(0)
    assert await parts.hears("older") == [["m00100"]]
    await expect(parts.page.get_by_label("Loading older messages")).to_be_visible()
    before = await parts.page.evaluate(VISIBLE)
    await parts.do("older", [item(n) for n in range(50, 100)], True, before="m00100")
    await parts.row("m00050").wait_for(state="attached")
    after = await parts.page.evaluate(VISIBLE)
    assert [place for place in after if place in before] == before[1:]  # it lost its day and name
    await parts.scroll_to(0)
    assert await parts.hears("older", lambda asked: len(asked) > 1) == [["m00100"], ["m00050"]]
    await parts.do("older", [item(n) for n in range(50)], False, before="m00050")
    await parts.row("m00000").wait_for(state="attached")
    assert await parts.keys() == [f"m{n:05}" for n in range(150)]
    await parts.scroll_to(0)
    await expect(parts.page.get_by_text("Beginning of the conversation")).to_be_in_viewport()
    assert len(await parts.heard("older")) == 2


async def test_history_that_could_not_be_had_is_asked_for_by_scrolling(parts: Parts) -> None:
    await parts.show([item(n) for n in range(100)], has_older=True)
    await parts.scroll_to(0)
    await parts.hears("older")
    await parts.do("older", [], True, before="m00000")
    await expect(parts.page.get_by_label("Loading older messages")).to_be_hidden()
    await parts.frame()
    assert len(await parts.heard("older")) == 1
    await parts.scroll_to(30)
    await parts.hears("older", lambda asked: len(asked) == 2)


async def test_history_that_was_asked_for_before_another_beginning_leaves_no_gap(
    parts: Parts,
) -> None:
    await parts.show([item(n) for n in range(50, 150)], has_older=True)
    await parts.scroll_to(0)
    await parts.hears("older")
    await parts.show([item(n) for n in range(100, 150)], has_older=True)
    await parts.do("older", [item(n) for n in range(50)], False, before="m00050")
    await parts.scroll_to(0)
    asked = await parts.hears("older", lambda asked: len(asked) > 1)
    assert asked == [["m00050"], ["m00100"]]
    # And one that comes in front of the first meanwhile.
    await parts.do("put", [{**item(99), "after": None}])
    await parts.do("older", [item(n) for n in range(50, 100)], True, before="m00100")
    asked = await parts.hears("older", lambda asked: len(asked) > 2)
    assert asked[2:] == [["m00099"]]
    await parts.do("older", [item(n) for n in range(99)], False, before="m00099")
    await parts.row("m00000").wait_for(state="attached")
    assert await parts.keys() == [f"m{n:05}" for n in range(150)]


async def test_a_conversation_without_a_first_page_asks_for_it(parts: Parts) -> None:
    await parts.show([], has_older=True)
    assert await parts.hears("older") == [[None]]
    await parts.do("older", [item(1)], False, before=None)
    await expect(parts.row("m00001")).to_be_visible()


async def test_the_page_stays_small_however_much_comes(parts: Parts) -> None:
    await parts.show([item(n) for n in range(50)])
    for start in range(50, 2050, 250):
        await parts.do("put", [item(n) for n in range(start, start + 250)])
    await parts.row("m02049").wait_for()
    assert await parts.messages.count() <= 600
    assert await parts.is_at_end()
    # Upwards everything is there again, in order, and the page does not grow by it.
    seen = set(await parts.keys())
    while "m00000" not in seen:
        await parts.scroll_to(0)
        keys = await parts.keys()
        assert len(keys) <= 600
        first = int(keys[0][1:])
        assert keys == [f"m{n:05}" for n in range(first, first + len(keys))]
        assert len(seen | set(keys)) > len(seen)
        seen |= set(keys)
    assert len(seen) == 2050
    # And downwards.
    async with asyncio.timeout(20):
        while not await parts.is_at_end() or (await parts.keys())[-1] != "m02049":
            await parts.scroll_to(1_000_000)
            assert await parts.messages.count() <= 600
    assert await parts.heard("older") == []


async def test_what_the_page_lets_go_of_comes_back_as_history(parts: Parts) -> None:
    await parts.show([item(n) for n in range(50)])
    for start in range(50, 3550, 500):
        await parts.do("put", [item(n) for n in range(start, start + 500)])
    await parts.row("m03549").wait_for()
    await parts.do("put", [own(1), item(3550)])  # an update of one that is gone is no new message
    await parts.row("m03550").wait_for()
    assert "m00001" not in await parts.keys()
    async with asyncio.timeout(20):
        while not (asked := await parts.heard("older")):
            await parts.scroll_to(0)
    ((oldest,),) = asked
    first = int(oldest[1:])
    assert first > 0
    await parts.do("older", [item(n) for n in range(first - 50, first)], True, before=oldest)
    await parts.row(f"m{first - 50:05}").wait_for(state="attached")
    keys = await parts.keys()
    assert keys == [f"m{n:05}" for n in range(first - 50, first - 50 + len(keys))]


# What is seen.


async def test_seen_is_what_is_before_the_readers_eyes(parts: Parts) -> None:
    await parts.show([item(n) for n in range(100)], unread_from="m00050")
    ((first,),) = await parts.hears("seen")
    assert "m00050" <= first < "m00099"
    await parts.scroll_to(0)  # what was seen before is no news
    await parts.scroll_to(1_000_000)
    assert (await parts.hears("seen", lambda seen: len(seen) > 1))[1:] == [["m00099"]]
    await parts.do("put", [own(100), item(101), own(102)])
    await parts.hears("seen", lambda seen: seen[-1] == ["m00101"])


async def test_nothing_is_seen_without_the_focus(parts: Parts) -> None:
    # A headless page always has the focus; a real one loses it to other windows.
    await parts.page.evaluate("document.hasFocus = () => false")
    await parts.show([item(n) for n in range(5)])
    await parts.page.evaluate("new Promise(r => setTimeout(r, 300))")
    assert await parts.heard("seen") == []
    await parts.page.evaluate("delete document.hasFocus; dispatchEvent(new Event('focus'))")
    assert await parts.hears("seen") == [["m00004"]]


async def test_what_comes_while_one_is_elsewhere_stands_below_a_line(parts: Parts) -> None:
    await parts.show([item(1)])
    await parts.hears("seen")
    await parts.page.evaluate("document.hasFocus = () => false")
    await parts.do("put", [item(2), item(3)])
    line = parts.page.locator(".ml-row", has_text="New messages")
    await expect(line.locator(".ml-message")).to_have_attribute("data-key", "m00002")
    await parts.page.evaluate("delete document.hasFocus; dispatchEvent(new Event('focus'))")
    await parts.hears("seen", lambda seen: seen[-1] == ["m00003"])
    await parts.do("put", [item(4)])
    await parts.row("m00004").wait_for()
    await expect(line.locator(".ml-message")).to_have_attribute("data-key", "m00002")
    await parts.hears("seen", lambda seen: seen[-1] == ["m00004"])
    await parts.page.evaluate("document.hasFocus = () => false")
    await parts.do("put", [item(5)])
    await expect(line.locator(".ml-message")).to_have_attribute("data-key", "m00005")


# Acting on a message.


async def test_a_failed_message_says_why_and_can_be_sent_again_or_discarded(parts: Parts) -> None:
    await parts.show([own(1, "failed", error="The server is away."), own(2, "failed")])
    await expect(parts.page.get_by_text("The server is away.")).to_be_visible()
    await expect(parts.page.get_by_text("This message could not be sent.")).to_be_visible()
    await parts.page.get_by_role("button", name="Retry").first.click()
    assert await parts.hears("retry") == [["m00001"]]
    await parts.page.get_by_role("button", name="Discard").last.click()
    assert await parts.hears("discard") == [["m00002"]]
    await parts.do("put", [{"key": "m00001", "status": "sending", "error": ""}])
    await parts.do("remove", "m00002")
    await expect(parts.messages).to_have_count(1)
    await expect(parts.page.get_by_role("button", name="Retry")).to_have_count(0)


async def test_the_list_is_one_stop_and_arrows_move_within_it(parts: Parts) -> None:
    await parts.show([item(n) for n in range(300)])
    focused = "document.activeElement.dataset.key"
    await parts.page.keyboard.press("Tab")
    assert await parts.page.evaluate(focused) == "m00299"
    await parts.page.keyboard.press("ArrowUp")
    await parts.page.keyboard.press("ArrowUp")
    await parts.page.wait_for_function(f"{focused} === 'm00297'")
    await parts.page.keyboard.press("ArrowDown")
    await parts.page.wait_for_function(f"{focused} === 'm00298'")
    await parts.page.keyboard.press("Home")
    await parts.page.wait_for_function(f"{focused} < 'm00200'")
    await parts.page.keyboard.press("End")
    await parts.page.wait_for_function(f"{focused} === 'm00299'")
    await expect(parts.row("m00299")).to_be_in_viewport(ratio=1)
    assert await parts.page.locator(".ml-scroll [tabindex='0']").count() == 2


@pytest.mark.parametrize("is_allowed", [True, False])
async def test_a_message_is_copied_by_button_and_by_keyboard(
    parts: Parts, is_allowed: bool
) -> None:
    page = parts.page
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    if not is_allowed:
        await page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject())")
    await parts.show([item(1, "first\nwith a break"), item(2)])
    await parts.row("m00001").hover()
    copy = parts.row("m00001").get_by_role("button", name="Copy message")
    await parts.copies("m00001", copy.click())
    assert await page.evaluate("navigator.clipboard.readText()") == "first\nwith a break"
    await parts.row("m00002").focus()
    await parts.copies("m00002", page.keyboard.press("Control+c"))
    assert await page.evaluate("navigator.clipboard.readText()") == "message 2"


# How it looks.

CONTRASTS = """() => {
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (...layers) => {
    for (const layer of layers) { context.fillStyle = layer; context.fillRect(0, 0, 1, 1); }
    return context.getImageData(0, 0, 1, 1).data;
  };
  const light = (data) => [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => {
    const c = data[i] / 255;
    return sum + share * (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  }, 0);
  const worst = {};
  for (const element of document.querySelectorAll('.ml *, .mc *')) {
    const style = getComputedStyle(element);
    const isIcon = element.matches('i, [data-icon]');
    const says = isIcon || [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!says || element.closest('[disabled], .ml-empty i') || !element.offsetParent) continue;
    const layers = [];
    for (let e = element; e; e = e.parentElement)
      layers.unshift(getComputedStyle(e).backgroundColor);
    const back = rgb('#fff', ...layers), front = rgb('#fff', ...layers, style.color);
    const [a, b] = [light(back), light(front)].sort((x, y) => y - x);
    const name = element.className + (isIcon ? ' icon' : ' text');
    worst[name] = Math.min(worst[name] ?? 99, (a + 0.05) / (b + 0.05));
  }
  return worst;
}"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("primary", ["#1b66c9", "#ffeb3b", "#00e676", "theme"])
async def test_everything_can_be_read_whatever_the_primary_colour(
    browser: Browser, address: str, dark: bool, primary: str
) -> None:
    async with tab(browser, dark=dark) as page:
        parts = Parts(page, address)
        if primary == "theme":
            await parts.open()
            await page.add_style_tag(path=THEME)
        else:
            await parts.open(f"?primary=%23{primary[1:]}")
        people = [item(n, sender=f"P{n}", sender_id=f"u{n}") for n in range(40)]
        link = "https://example.com"
        statuses = ["sending", "sent", "delivered", "read", "failed"]
        mine = [own(50 + n, status, text=link) for n, status in enumerate(statuses)]
        await parts.show([*people, *mine, item(60, link)], unread_from="m00060")
        await parts.do("conversation", "c", part="box")
        await parts.box.fill("x" * 4010)
        await page.locator(".mc-trouble").wait_for()
        contrasts = await page.evaluate(CONTRASTS)
        assert len(contrasts) > 10
        bad = {
            name: round(ratio, 2)
            for name, ratio in contrasts.items()
            if ratio < (3 if name.endswith("icon") else 4.5)
        }
        assert not bad


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
async def test_nothing_is_wider_than_the_screen(
    browser: Browser, address: str, size: tuple[int, int]
) -> None:
    async with tab(browser, size) as page:
        parts = Parts(page, address)
        await parts.open()
        await parts.show([item(1, "x" * 3000), own(2, text="https://example.com/" + "y" * 500)])
        await parts.do("put", [own(3, "failed", error="z" * 500)])
        await parts.row("m00003").wait_for()
        assert await parts.scroller.evaluate("e => e.scrollWidth <= e.clientWidth")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_500_messages_in_5_seconds_neither_reload_the_page_nor_freeze_it(
    parts: Parts,
) -> None:
    page = parts.page
    await page.evaluate(
        """() => {
          window.same = true; window.long = [];
          new PerformanceObserver((list) => long.push(...list.getEntries().map((e) => e.duration)))
            .observe({ entryTypes: ["longtask"] });
        }"""
    )
    for _ in range(3):  # another program may hold up the browser once, or twice
        await parts.show([])
        await page.evaluate("long.length = 0")
        await page.request.post(f"{parts.address}/burst", data="[500, 5]")
        await parts.row("b499").wait_for()
        assert await parts.keys() == [f"b{n}" for n in range(500)]
        assert await parts.is_at_end()
        assert await page.evaluate("window.same")
        too_long = [task for task in await page.evaluate("long") if task > 200]
        if not too_long:
            break
    assert too_long == []


# The box.


async def test_enter_sends_and_shift_enter_breaks_the_line(parts: Parts) -> None:
    await parts.do("conversation", "c", part="box")
    await parts.box.press_sequentially("one")
    await parts.box.press("Shift+Enter")
    await parts.box.press_sequentially("two")
    await parts.box.press("Enter")
    ((text, id_),) = await parts.sends()
    assert text == "one\ntwo"
    assert len(id_) == 32
    await expect(parts.box).to_have_value("")
    await parts.box.press("Enter")
    await parts.box.fill("  \n ")
    await parts.box.press("Enter")
    await expect(parts.page.get_by_role("button", name="Send")).to_be_disabled()
    assert len(await parts.sends()) == 1


async def test_enter_within_an_input_method_sends_nothing(parts: Parts) -> None:
    await parts.do("conversation", "c", part="box")
    await parts.box.fill("にほ")
    await parts.box.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    await expect(parts.box).to_have_value("にほ")
    await parts.box.press("Enter")
    assert [text for text, _ in await parts.sends()] == ["にほ"]


async def test_a_box_of_no_conversation_takes_nothing(parts: Parts) -> None:
    await expect(parts.box).to_be_disabled()
    await parts.do("conversation", "c", part="box")
    await expect(parts.box).to_be_enabled()
    await parts.do("conversation", None, part="box")
    await expect(parts.box).to_be_disabled()


async def test_each_conversation_keeps_its_draft_also_over_a_reload(parts: Parts) -> None:
    await parts.do("conversation", "a", part="box")
    await parts.box.fill("for a\nin two lines")
    await parts.do("conversation", "b", part="box")
    await expect(parts.box).to_have_value("")
    await parts.box.fill("for b")
    await parts.do("conversation", "a", part="box")
    await expect(parts.box).to_have_value("for a\nin two lines")
    await parts.open()
    await expect(parts.box).to_have_value("")
    await parts.do("conversation", "b", part="box")
    await expect(parts.box).to_have_value("for b")
    await parts.box.fill("")
    await parts.do("conversation", "a", part="box")
    await expect(parts.box).to_have_value("for a\nin two lines")
    keys = await parts.page.evaluate("Object.keys(sessionStorage).filter(k => k.match('antiphon'))")
    assert keys == ["antiphon.composer.a"]


async def test_what_nobody_took_is_offered_again_under_its_id_and_in_order(parts: Parts) -> None:
    await parts.mode("hold")
    await parts.do("conversation", "c", part="box")
    for text in ("one", "two", "three"):
        await parts.box.fill(text)
        await parts.box.press("Enter")
    ((first, id_),) = await parts.sends()
    assert first == "one"
    await parts.open()
    await parts.do("conversation", "c", part="box")
    assert await parts.sends() == [["one", id_]]
    await parts.mode("take")
    sent = await parts.sends(3)
    assert [text for text, _ in sent] == ["one", "two", "three"]
    assert len({id_ for _, id_ in sent}) == 3
    await parts.page.wait_for_function("!sessionStorage['antiphon.composer.c']")


async def test_what_is_taken_late_is_not_offered_again(parts: Parts) -> None:
    await parts.mode("hold")
    await parts.do("conversation", "a", part="box")
    await parts.box.fill("one")
    await parts.box.press("Enter")
    await parts.hears("send")
    await parts.do("conversation", "b", part="box")
    await expect(parts.page.locator(".mc-trouble")).to_have_count(0)
    await parts.mode("take")
    await parts.page.wait_for_function("!sessionStorage['antiphon.composer.a']")


async def test_what_is_refused_is_back_in_the_box(parts: Parts) -> None:
    await parts.mode("refuse")
    await parts.do("conversation", "c", part="box")
    await parts.box.fill("one")
    await parts.box.press("Enter")
    await expect(parts.page.get_by_role("alert")).to_contain_text("could not be sent")
    await expect(parts.box).to_have_value("one")
    await parts.mode("take")
    await parts.box.press("Enter")
    await parts.sends(2)
    await expect(parts.box).to_have_value("")


@pytest.mark.parametrize(
    ("char", "room"), [("x", 4000), ("€", 2666), ("😀", 2000)], ids=["ascii", "euro", "emoji"]
)
async def test_the_box_counts_down_and_says_what_is_too_long(
    parts: Parts, char: str, room: int
) -> None:
    await parts.do("conversation", "c", part="box")
    send = parts.page.get_by_role("button", name="Send")
    await parts.box.fill(char * (room // 2))
    await expect(parts.page.locator(".mc-left")).to_have_count(0)
    await parts.box.fill(char * room)
    await expect(parts.page.locator(".mc-left")).to_have_text("0")
    await expect(send).to_be_enabled()
    await parts.box.fill(char * (room + 1))
    await expect(parts.page.get_by_role("alert")).to_contain_text("too long by")
    await expect(send).to_be_disabled()
    await parts.box.press("Enter")
    await parts.box.fill(char * room)
    await parts.box.press("Enter")
    assert [text for text, _ in await parts.sends()] == [char * room]


async def test_ten_megabytes_pasted_change_nothing_and_go_nowhere(parts: Parts) -> None:
    page = parts.page
    frames: list[int] = []
    page.on("websocket", lambda ws: ws.on("framesent", lambda data: frames.append(len(data))))
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await parts.open()
    await parts.do("conversation", "c", part="box")
    await parts.box.fill("kept")
    await page.evaluate("navigator.clipboard.writeText('x '.repeat(5 * 1024 * 1024))")
    # From the moment the box hears of it; what the clipboard takes is another's time.
    await parts.box.evaluate(
        """e => e.addEventListener("beforeinput", () => {
          const began = performance.now();
          setTimeout(() => { window.took = performance.now() - began; });
        }, { capture: true, once: true })"""
    )
    await parts.box.press("Control+v")
    await expect(page.get_by_role("alert")).to_contain_text("10,485,760 characters")
    await page.wait_for_function("'took' in window")
    assert await page.evaluate("took") < 2000
    await expect(parts.box).to_have_value("kept")
    await parts.box.press("Enter")
    assert [text for text, _ in await parts.sends()] == ["kept"]
    assert frames
    assert max(frames) < 10_000


async def test_a_browser_that_lies_is_not_believed(parts: Parts) -> None:
    await parts.do("conversation", "c", part="box")
    await parts.page.evaluate(
        """() => {
          const [id, box] = Object.entries(mounted_app.elements)
            .find(([, element]) => element.tag.includes('composer'));
          const { listener_id } = box.events.find(({ type }) => type === 'send');
          const say = (...args) => socket.emit('event', {
            id: +id, client_id: clientId, listener_id, args: args.map((a) => JSON.stringify(a)),
          });
          say('c', 'id', 'x'.repeat(4001));
          say('c', 'id', '   ');
          say('c', 'x'.repeat(65), 'text');
          say('other', 'id', 'text');
          say('c', 7, 'text');
          say('c');
          say();
          say('c', 'id', 'half a pair \\ud800');
          say('c', 'id', 'text');
        }"""
    )
    assert await parts.hears("send") == [["text", "id"]]


async def test_half_an_emoji_is_no_trap(parts: Parts) -> None:
    await parts.do("conversation", "c", part="box")
    await expect(parts.box).to_be_enabled()
    await parts.box.evaluate(
        "e => { e.value = 'half \\ud83d'; e.dispatchEvent(new Event('input')) }"
    )
    await parts.box.press("Enter")
    assert [text for text, _ in await parts.sends()] == ["half \ufffd"]
    await parts.page.wait_for_function("!sessionStorage['antiphon.composer.c']")


async def test_a_person_who_types_is_heard_twice_a_second(parts: Parts) -> None:
    await parts.do("conversation", "c", part="box")
    await expect(parts.box).to_be_enabled()
    start = await parts.page.evaluate("performance.now()")
    await parts.box.press_sequentially("typed at once")
    passed = (await parts.page.evaluate("performance.now()") - start) / 1000
    heard = await parts.hears("keystroke")
    assert 1 <= len(heard) <= 1 + int(2 * passed)


async def test_emoji_are_picked_with_the_keyboard(parts: Parts) -> None:
    await parts.do("conversation", "c", part="box")
    await parts.box.fill("ab")
    await parts.box.press("ArrowLeft")
    await parts.page.get_by_role("button", name="Emoji").press("Enter")
    await expect(parts.page.get_by_role("menuitem", name="grinning")).to_be_focused()
    await parts.page.keyboard.press("ArrowRight")
    await parts.page.keyboard.press("ArrowDown")
    await expect(parts.page.get_by_role("menuitem", name="kiss")).to_be_focused()
    await parts.page.keyboard.press("Enter")
    await expect(parts.box).to_have_value("a😘b")
    await expect(parts.box).to_be_focused()
    await parts.page.get_by_role("button", name="Emoji").click()
    await parts.page.keyboard.press("Escape")
    await expect(parts.page.get_by_role("menu")).to_have_count(0)
    await expect(parts.box).to_be_focused()


async def test_the_box_grows_to_six_lines(parts: Parts) -> None:
    await parts.do("conversation", "c", part="box")
    heights = []
    for lines in (1, 2, 6, 7, 50):
        await parts.box.fill("\n".join("x" * lines))
        await parts.frame()
        heights.append(await parts.box.evaluate("e => e.clientHeight"))
    assert heights[0] < heights[1] < heights[2]
    assert heights[2:] == [heights[2]] * 3


async def test_the_box_takes_the_focus_when_asked(parts: Parts) -> None:
    await parts.do("conversation", "c", part="box")
    await parts.do("focus", part="box")
    await expect(parts.box).to_be_focused()

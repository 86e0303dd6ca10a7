"""The console in a real browser: what is seen, and what pressing a button does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from antiphon import Client, Event
from antiphon.server import Server
from antiphon.settings import App
from tests.app.browser import DESKTOP, PHONE, chromium, tab
from tests.app.people import findings
from tests.conftest import Connect

from .cluster import REDIS, free_port, needs_redis
from .wire import TIMEOUT, Wire, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD: Final = "correct horse battery"
APPS: Final = (App(id="shop", key="k", secret="s"), App(id="other", key="k2", secret="s2"))
SIZES: Final = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
HOSTILE: Final = "<img src=x onerror=document.title='hit'><script>document.title='hit'</script>"
HIT: Final = "hit"
AXE: Final = Path(__file__).parents[1] / "js" / "node_modules" / "axe-core" / "axe.min.js"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def shop() -> AsyncIterator[Server]:
    async with Server(APPS, console_password=PASSWORD) as server:
        yield server


@contextlib.asynccontextmanager
async def console(
    browser: Browser, server: Server, size: tuple[int, int] = DESKTOP, **options: Any
) -> AsyncIterator[Page]:
    """A page of somebody who has logged in; it is judged at the end (`tab`)."""
    async with tab(browser, size, **options) as page:
        await page.goto(f"{server.url}/console")
        await log_in(page)
        yield page


async def log_in(page: Page, password: str = PASSWORD) -> None:
    await page.get_by_label("Password").fill(password)
    await page.keyboard.press("Enter")
    if password == PASSWORD:
        await expect(page.locator("#live[data-state=live]")).to_be_attached()


async def go(page: Page, screen: str) -> None:
    await page.get_by_role("link", name=screen).click()
    await expect(page.get_by_role("heading", level=1, name=screen)).to_be_visible()


def rows(page: Page) -> Any:
    """What the stream shows."""
    return page.locator("#events-list > li")


async def sideways(page: Page) -> int:
    """By how many pixels the page is wider than the screen."""
    return int(
        await page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
    )


# Coming and going


async def test_an_address_that_names_no_screen_leads_to_the_overview(
    browser: Browser, shop: Server
) -> None:
    for screen in ("nothing", "constructor", "__proto__", "toString"):
        async with tab(browser, DESKTOP) as page:
            await page.goto(f"{shop.url}/console#{screen}/shop")
            await log_in(page)
            await page.goto(f"{shop.url}/console#{screen}/other")
            await expect(page.locator("#app")).to_have_value("other")
            await expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()


@SIZES
async def test_who_logs_in_sees_the_console_and_who_logs_out_does_not(
    browser: Browser, shop: Server, size: tuple[int, int]
) -> None:
    async with tab(browser, size, expected_errors="status of 401") as page:
        await page.goto(f"{shop.url}/console")
        await expect(page.get_by_label("Password")).to_be_focused()
        await log_in(page, "a wrong password")
        await expect(page.get_by_role("alert")).to_have_text("The password is wrong.")
        await log_in(page)
        await expect(page).to_have_url(re.compile("/console$"))
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("Password")).to_be_visible()
        await page.goto(f"{shop.url}/console#events/shop")
        await expect(page.get_by_label("Password")).to_be_visible()


async def test_a_session_that_has_ended_leads_back_to_the_log_in_screen(
    browser: Browser, shop: Server
) -> None:
    async with console(browser, shop, expected_errors="status of 401") as page:
        assert shop._console is not None
        shop._console._door._seats.clear()
        await expect(page.get_by_label("Password")).to_be_visible()


async def test_a_console_comes_back_when_its_server_does(browser: Browser) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with Server(APPS, port=free_port(), console_password=PASSWORD) as server:
            errors = "ERR_|status of 401"
            page = await stack.enter_async_context(console(browser, server, expected_errors=errors))
        await expect(page.locator("#live")).to_have_text("Connection lost")
        async with Server(APPS, port=server.port, console_password=PASSWORD):
            await expect(page.get_by_label("Password")).to_be_visible()  # it knows nobody


# What is seen


@SIZES
async def test_a_connection_appears_and_its_details_lead_to_its_end(
    browser: Browser, shop: Server, connect: Connect, size: tuple[int, int]
) -> None:
    async with console(browser, shop, size) as page:
        await go(page, "Connections")
        await expect(page.get_by_text("Nobody is connected.")).to_be_visible()
        ali = await connect(shop, headers={"Origin": "https://shop.example.com"})
        await ali.join("presence-room", 7, {"name": "Ali"})
        row = page.get_by_role("row").filter(has_text=ali.socket_id)
        await expect(row).to_contain_text("https://shop.example.com")
        await expect(row).to_contain_text("127.0.0.1")
        await page.get_by_role("searchbox", name="Search connections").fill("no such thing")
        await expect(page.get_by_text("Nothing is like that.")).to_be_visible()
        await page.get_by_role("searchbox", name="Search connections").fill("shop.example")
        await page.get_by_role("button", name=ali.socket_id).click()
        details = page.get_by_role("dialog")
        await expect(details).to_contain_text("presence-room")
        await expect(details).to_contain_text("as user 7")
        await details.get_by_role("button", name="Terminate connection").click()
        await ali.ping()  # it was asked once more
        await details.get_by_role("button", name="Really terminate?").click()
        assert (await ali.closed()).code == 4009
        await expect(details).to_be_hidden()
        await expect(page.get_by_text(f"{ali.socket_id} was terminated.")).to_be_visible()
        await expect(page.get_by_text("Nothing is like that.")).to_be_visible()


@SIZES
async def test_members_of_a_channel_are_shown_and_taken_out(
    browser: Browser, shop: Server, connect: Connect, size: tuple[int, int]
) -> None:
    ali, john = await connect(shop), await connect(shop)
    await ali.join("presence-room", 7, {"name": "Ali"})
    await john.join("presence-room", 8, {"name": "John"})
    await ali.event("pusher_internal:member_added")
    # A channel that is gone while it is looked at is a 404, which the browser tells as well.
    async with console(browser, shop, size, expected_errors="status of 404") as page:
        await go(page, "Channels")
        row = page.get_by_role("row").filter(has_text="presence-room")
        await expect(row).to_contain_text("presence")
        await page.get_by_role("button", name="presence-room").click()
        details = page.get_by_role("dialog")
        member = details.get_by_role("listitem").filter(has_text='{"name":"John"}')
        await member.get_by_role("button", name="Take out").click()
        await member.get_by_role("button", name="Really take out?").click()
        assert (await john.event("pusher:subscription_error"))["data"]["status"] == 403
        await ali.event("pusher_internal:member_removed")
        await expect(details.get_by_text('{"name":"John"}')).to_have_count(0)
        subscriber = details.get_by_role("listitem").filter(has_text=ali.socket_id)
        await subscriber.get_by_role("button", name="Take out").click()
        await subscriber.get_by_role("button", name="Really take out?").click()
        await ali.event("pusher:subscription_error")
        await expect(details.get_by_text("Nobody on this node is in this channel")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(details).to_be_hidden()


async def test_thousands_are_shown_a_page_at_a_time(
    browser: Browser, shop: Server, connect: Connect
) -> None:
    ali = await connect(shop)
    for number in range(120):
        await ali.subscribe(f"room-{number:03}")
    async with console(browser, shop) as page:
        await go(page, "Channels")
        await expect(page.locator("#channels-table tbody tr")).to_have_count(50)
        await expect(page.locator("#channels-count")).to_have_text("120 occupied")
        await page.get_by_role("button", name="Next").click()
        await page.get_by_role("button", name="Next").click()
        await expect(page.get_by_text("Page 3 of 3")).to_be_visible()
        await expect(page.locator("#channels-table tbody tr")).to_have_count(20)
        await expect(page.get_by_role("button", name="Next")).to_be_disabled()
        ali.send_close()
        await expect(page.get_by_text("Nobody is in a channel.")).to_be_visible()


async def test_the_graphs_move(browser: Browser, shop: Server, connect: Connect) -> None:
    async with console(browser, shop) as page:
        card = page.locator("article").filter(has_text="Connections")
        await expect(card.locator(".value")).to_have_text("0")
        before = await card.locator(".stroke").get_attribute("d")
        wires = [await connect(shop) for _ in range(3)]
        await expect(card.locator(".value")).to_have_text("3")
        await expect(card.get_by_role("img")).to_have_attribute(
            "aria-label", re.compile("Connections, last five minutes: now 3, least 0, most 3")
        )
        assert await card.locator(".stroke").get_attribute("d") != before
        received = page.locator("article").filter(has_text="Messages in")
        for wire in wires:
            wire.send("pusher:ping", {})
        await expect(received.locator(".more")).not_to_have_text("peak 0.0/s")


async def test_applications_are_told_apart(
    browser: Browser, shop: Server, connect: Connect
) -> None:
    mine, other = await connect(shop), await connect(shop, "/app/k2")
    async with console(browser, shop) as page:
        await go(page, "Connections")
        await expect(page.get_by_role("button", name=mine.socket_id)).to_be_visible()
        await page.get_by_label("Application").select_option("other")
        await expect(page.get_by_role("button", name=other.socket_id)).to_be_visible()
        await expect(page.get_by_role("button", name=mine.socket_id)).to_have_count(0)
        await page.reload()
        await expect(page.get_by_role("button", name=other.socket_id)).to_be_visible()
        await page.go_back()
        await expect(page.get_by_role("button", name=mine.socket_id)).to_be_visible()


async def test_in_a_cluster_the_page_says_whose_figures_it_shows(browser: Browser) -> None:
    await needs_redis()
    options: dict[str, Any] = {"redis": REDIS, "redis_prefix": f"console-{secrets.token_hex(8)}"}
    async with (
        Server(APPS, console_password=PASSWORD, **options) as one,
        Server(APPS, **options) as two,
        await Wire.connect(two.port) as ali,
        console(browser, one) as page,
    ):
        await ali.subscribe("news")
        card = page.locator("article").filter(has_text="Connections")
        await expect(card.locator(".value")).to_have_text("0")
        await expect(page.locator("#cluster")).to_have_text(
            "All nodes: 1 connection, 1 channel, 1 subscription. The graphs show this node."
        )
        await go(page, "Connections")
        await expect(page.get_by_text("These are this node’s")).to_be_visible()


# The stream


@SIZES
async def test_events_are_shown_filtered_and_paused(
    browser: Browser, shop: Server, connect: Connect, size: tuple[int, int]
) -> None:
    async with console(browser, shop, size) as page:
        await go(page, "Events")
        await expect(page.locator("#events-empty")).to_be_visible()
        ali = await connect(shop)
        await ali.subscribe("orders")
        await expect(rows(page)).to_have_count(2)
        await expect(rows(page).first).to_contain_text("Subscribed")
        hub = shop._hubs["k"]
        for number in range(3):
            hub.trigger("orders", "Shipped", json.dumps({"order": {"id": 4000 + number}}))
        hub.trigger("other", "Paid", "{}")
        await expect(rows(page)).to_have_count(6)

        await page.get_by_role("button", name="Published").click()
        await expect(rows(page)).to_have_count(4)
        await page.get_by_role("searchbox", name="Filter by channel").fill("ORDERS")
        await expect(rows(page)).to_have_count(3)
        await page.get_by_role("searchbox", name="Filter by text").fill("4001")
        await expect(rows(page)).to_have_count(1)
        await expect(page.locator("#events-count")).to_have_text("1 of 6")
        hub.trigger("orders", "Returned", '{"order":{"id":4001}}')
        hub.trigger("orders", "Returned", '{"order":{"id":4002}}')
        await expect(page.locator("#events-count")).to_have_text("2 of 8")

        await rows(page).first.locator("summary").click()
        await expect(rows(page).first.locator("pre")).to_have_text(
            '{\n  "order": {\n    "id": 4001\n  }\n}'
        )
        await expect(rows(page).first).to_contain_text("1 on this node")

        await page.get_by_role("button", name="Pause").click()
        hub.trigger("orders", "Lost", '{"order":{"id":4001}}')
        await expect(page.locator("#events-count")).to_have_text("2 of 8 · paused, 1 new")
        await page.get_by_role("button", name="Go on").click()
        await expect(rows(page).first).to_contain_text("Lost")
        await expect(page.locator("#events-count")).to_have_text("3 of 9")

        await page.get_by_role("button", name="Clear").click()
        await expect(rows(page)).to_have_count(0)


async def test_what_is_shown_is_copied_as_json(
    browser: Browser, shop: Server, connect: Connect
) -> None:
    async with console(browser, shop) as page:
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await go(page, "Events")
        shop._hubs["k"].trigger("orders", "Shipped", '{"id":1}')
        shop._hubs["k"].trigger("orders", "Note", "plain text")
        await expect(rows(page)).to_have_count(2)
        await page.get_by_role("button", name="Copy as JSON").click()
        await expect(page.get_by_text("2 events were copied.")).to_be_visible()
        copied = json.loads(await page.evaluate("navigator.clipboard.readText()"))
        assert [(row["event"], row["data"]) for row in copied] == [
            ("Shipped", {"id": 1}),
            ("Note", "plain text"),
        ]
        # Without TLS, away from this machine, there is no such clipboard.
        await page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        await page.get_by_role("button", name="Clear").click()
        await page.get_by_role("button", name="Copy as JSON").click()
        await expect(page.get_by_text("0 events were copied.")).to_be_visible()


async def test_a_flood_is_cut_to_the_newest_and_what_is_missing_is_told(
    browser: Browser, shop: Server
) -> None:
    async with console(browser, shop) as page:
        await go(page, "Events")
        hub = shop._hubs["k"]
        for number in range(20_000):
            hub.trigger("flood", f"drop-{number}", "{}")
            if number % 50 == 49:
                await asyncio.sleep(0.001)
        await expect(rows(page).first).to_contain_text("drop-19999")
        assert await rows(page).count() <= 500
        shown = int((await page.locator("#events-count").inner_text()).replace(",", ""))
        assert shown <= 500
        await expect(page.locator("#events-dropped")).to_contain_text("more happened than can be")
        await go(page, "Channels")  # and the page lives
        await expect(page.get_by_text("Nobody is in a channel.")).to_be_visible()


# The form


@SIZES
async def test_what_is_published_reaches_a_client(
    browser: Browser, shop: Server, size: tuple[int, int]
) -> None:
    heard: list[Event] = []
    async with Client(shop.settings()) as client, console(browser, shop, size) as page:
        channel = client.subscribe("orders")
        channel.bind("Shipped", heard.append)
        await until(lambda: "orders" in shop._hubs["k"].channels)
        await go(page, "Publish")
        form = page.locator("#publish-form")
        send = form.get_by_role("button", name="Publish")
        await send.click()
        await expect(form.get_by_text("Which channel?")).to_be_visible()
        await expect(form.locator("#publish-channel")).to_be_focused()
        await form.locator("#publish-channel").fill("orders")
        await form.locator("#publish-event").fill("Shipped")
        await form.locator("#publish-data").fill('{"id": 4017')
        await send.click()
        await expect(form.locator("#publish-data-error")).to_contain_text("This is no JSON")
        await form.locator("#publish-data").fill('{"id": 4017}')
        await form.get_by_role("button", name="Format").click()
        await expect(form.locator("#publish-data")).to_have_value('{\n  "id": 4017\n}')
        await form.locator("#publish-socket").fill("not an id")
        await send.click()
        await expect(form.locator("#publish-socket-error")).to_contain_text("two numbers")
        await form.locator("#publish-socket").fill("")
        await send.click()
        await expect(form.get_by_text("1 subscriber on this node.")).to_be_visible()
        async with asyncio.timeout(TIMEOUT):
            await until(lambda: heard)
        assert [event.data for event in heard] == [{"id": 4017}]
        await form.locator("#publish-socket").fill(str(client.socket_id))
        await send.click()
        await form.locator("#publish-socket").fill("")
        await form.locator("#publish-data").fill('"last"')
        await send.click()
        await until(lambda: heard[-1].data == "last")
        assert len(heard) == 2  # not the one in between
    # What the server refuses is an error for the browser as well.
    async with console(browser, shop, size, expected_errors="status of 400") as page:
        await go(page, "Publish")
        await page.locator("#publish-channel").fill("private-encrypted-x")
        await page.locator("#publish-event").fill("x")
        await page.locator("#publish-form").get_by_role("button", name="Publish").click()
        await expect(page.get_by_text("Only your backend has the key")).to_be_visible()


# Strangers' words


async def test_what_strangers_write_is_text(
    browser: Browser, shop: Server, connect: Connect
) -> None:
    async with console(browser, shop) as page:
        await go(page, "Events")
        ali = await connect(shop, headers={"Origin": f"https://x/{HOSTILE}"})
        await ali.join("presence-room", HOSTILE, {"name": HOSTILE})
        name = f"#server-to-user-{HOSTILE}"
        shop._hubs["k"].trigger(name, HOSTILE, json.dumps({"text": HOSTILE}))
        shop._hubs["k"].trigger("room", HOSTILE, HOSTILE)
        shop._hubs["k"].join(shop._hubs["k"].sockets[ali.socket_id], name, None)
        ali.send(f"client-{HOSTILE}", {"text": HOSTILE}, "presence-room")
        ali.send(HOSTILE, {})
        await expect(page.locator(".kind.error")).to_be_visible()
        for row in await rows(page).all():
            await row.locator("summary").click()
        await go(page, "Connections")
        await page.get_by_role("button", name=ali.socket_id).click()
        await expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
        await page.keyboard.press("Escape")
        await go(page, "Channels")
        await page.get_by_role("button", name="presence-room").click()
        await expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="#server-to-user-").click()
        await expect(page.get_by_role("heading", name=name)).to_be_visible()
        await page.keyboard.press("Escape")
        await go(page, "Publish")
        assert HIT not in await page.title()
        assert await page.locator("img[src=x], section script, dialog script").count() == 0


# Manners


@SIZES
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_every_screen_fits_and_axe_finds_nothing_serious(
    browser: Browser, shop: Server, connect: Connect, size: tuple[int, int], dark: bool
) -> None:
    ali = await connect(shop, headers={"Origin": "https://a-rather-long-name.shop.example.com"})
    await ali.join("presence-room", 7, {"name": "Ali", "about": "x" * 300})
    await ali.subscribe("a-very-long-name-of-a-channel-" * 6)
    await ali.subscribe("cache-rates")
    async with tab(browser, size, dark=dark) as page:
        await page.goto(f"{shop.url}/console")
        assert await audited(page) == []
        await log_in(page)
        for screen in ("Overview", "Connections", "Channels", "Events", "Publish"):
            await go(page, screen)
            if screen == "Overview":
                await expect(page.locator(".value").first).to_have_text("1")
            if screen == "Events":
                hub = shop._hubs["k"]
                hub.trigger("cache-rates", "Rate", json.dumps({"usd": "1" * 400}))
                ali.send("client-typing", {}, "presence-room")
                ali.send("odd", {})
                guest = await connect(shop)
                guest.send("pusher:subscribe", {"channel": "private-x", "auth": "k:0"})
                await expect(page.locator(".kind.subscription_refused")).to_be_visible()
                await rows(page).filter(has_text="Rate").locator("summary").click()
                await page.get_by_role("button", name="Pause").click()
            if screen == "Publish":
                await page.locator("#publish-form").get_by_role("button", name="Publish").click()
            assert await sideways(page) == 0, screen
            assert await audited(page) == [], screen
        for screen, name in (("Connections", ali.socket_id), ("Channels", "presence-room")):
            await go(page, screen)
            await page.get_by_role("button", name=name).click()
            await expect(page.get_by_role("dialog").get_by_role("listitem").first).to_be_visible()
            await page.get_by_role("button", name="Take out").first.click()
            assert await sideways(page) == 0, screen
            assert await audited(page) == [], screen
            await page.keyboard.press("Escape")


async def audited(page: Page) -> list[str]:
    """What axe-core finds serious; the page's policy lets in no script, but the debugger may."""
    if not await page.evaluate("'axe' in window"):
        debugger = await page.context.new_cdp_session(page)
        await debugger.send("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
    return await findings(page)


async def test_it_is_all_there_for_the_keyboard(
    browser: Browser, shop: Server, connect: Connect
) -> None:
    ali = await connect(shop)
    await ali.subscribe("orders")
    async with console(browser, shop) as page:
        await page.get_by_role("link", name="Connections").focus()
        await page.keyboard.press("Enter")
        row = page.get_by_role("button", name=ali.socket_id)
        await expect(row).to_be_visible()
        for _ in range(20):
            await page.keyboard.press("Tab")
            if await row.evaluate("(element) => element === document.activeElement"):
                break
        await expect(row).to_be_focused()
        await page.keyboard.press("Enter")
        details = page.get_by_role("dialog")
        await expect(details).to_be_visible()
        end = details.get_by_role("button", name="Terminate connection")
        await expect(end).to_be_visible()
        await end.focus()
        await page.keyboard.press("Enter")
        await expect(details.get_by_role("button", name="Really terminate?")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(details).to_be_hidden()
        await expect(row).to_be_focused()
        await ali.ping()

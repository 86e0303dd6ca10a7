"""`make screenshots`: every screen and state of the app, with people who have something to say.

Takes the names of states, or none for all of them; `--to FOLDER` writes them elsewhere, with the
dark ones of every state. A machine without fonts for emoji and Arabic shows boxes in their place:
install some first (fonts-noto-color-emoji, fonts-noto-core).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import logging
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, Page, expect

from antiphon.app import ChatApp
from antiphon.backend import User
from antiphon.chat import ChatSession, RestClient
from antiphon.server import Server
from antiphon.settings import App
from tests.chat.house import PASSWORD, House, open_house

from .browser import DESKTOP, PHONE, chromium, tab
from .conftest import Place, log_in, public
from .people import Paced, box, bubble, header_line, paced, row, say, wait_for_chat

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
MAX_BYTES: Final = 120_000
SIZES: Final = {"desktop": DESKTOP, "phone": PHONE}
PEOPLE: Final = (
    ("Sofia", "Rossi"),
    ("Kenji", "Tanaka"),
    ("Amira", "Haddad"),
    ("Grace", "Okafor"),
    ("Lukas", "Weber"),
    ("Maya", "Cohen"),
    ("Tom", "Becker"),
    ("Noor", "Nobody"),
)

Talk = tuple[tuple[float, str, str], ...]
"""Minutes ago, who, and what."""

DAY: Final = 24 * 60.0
LAUNCH: Final[Talk] = (
    (DAY + 94, "sofia", "The new product photos are in the shared folder."),
    (DAY + 93, "sofia", "I like the third one best: the light is softer."),
    (DAY + 90, "ali", "Agreed, the third one. Can we have it in 1600 × 900 for the front page?"),
    (DAY + 84, "kenji", "Resized and uploaded: https://photos.example.com/launch/3"),
    (DAY + 60, "john", "👏"),
    (52, "john", "Good news: the press release goes out today."),
    (
        51,
        "john",
        "Could somebody read it once more?\n\n– the first paragraph\n– the prices\n– both links",
    ),
    (44, "ali", "I have it open. Two typos in the second paragraph, otherwise it reads well."),
    (43, "ali", "Fixed both, and the price for schools is correct now."),
    (31, "kenji", "Checkout is tested with all three cards. Refunds too."),
    (9, "sofia", "Then we are ready 🎉"),
    (8, "sofia", "Who is ordering lunch?"),
    (3, "ali", "I am. The usual place?"),
)
AMIRA: Final[Talk] = (
    (DAY + 40, "amira", "مرحبا علي! هل وصلتك التصاميم الجديدة؟"),
    (DAY + 35, "ali", "Yes, thank you! They look great in both languages."),
    (
        DAY + 30,
        "amira",
        "رائع. سأرسل النسخة النهائية غداً، مع رابط المعاينة: https://example.com/preview",
    ),
    (
        72,
        "amira",
        "The Arabic one is at https://example.com/ar?page=2#prices (right-to-left), please check.",
    ),
    (70, "ali", "السعر في السطر الثاني 1.250 وليس 1.520"),
    (66, "amira", "😄🙏"),
    (65, "ali", "👍"),
    (26, "amira", "تم التصحيح، شكراً لك!"),
)
HIKE: Final[Talk] = (
    (DAY * 2 + 300, "grace", "Who is coming along?"),
    (DAY * 2 + 290, "ali", "Me!"),
    (DAY * 2 + 280, "lukas", "Me too, and I’ll bring the coffee ☕"),
    (135, "grace", "The forecast says sun until four."),
    (134, "grace", "Shall we take the early train, 8:12?"),
    (120, "lukas", "8:12 works. There are still seats on the right side, with the lake."),
    (118, "grace", "Booked four. Platform 6."),
    (104, "lukas", "Does anyone have a spare headlamp? Mine has given up."),
    (101, "grace", "I have two."),
)
SHORT: Final[dict[str, Talk]] = {
    "john": (
        (DAY + 200, "ali", "Are you in the office tomorrow?"),
        (DAY + 190, "john", "From nine on."),
        (DAY + 188, "john", "I’ll bring the adapter for the big screen, too."),
        (DAY + 180, "ali", "Great. Then we can go through the slides before the call."),
        (DAY + 179, "john", "👍"),
        (95, "john", "The slides are up, and the adapter works."),
        (93, "ali", "Coming over. Two coffees?"),
        (92, "john", "Yes, please!"),
        (16, "john", "Have you seen the numbers from this morning?"),
        (15, "john", "Twice as many sign-ups as last week."),
    ),
    "sofia": (
        (180, "sofia", "I can take over the newsletter, if you like."),
        (22, "ali", "That would help a lot, thank you!"),
    ),
    "kenji": (
        (DAY + 320, "kenji", "The invoices for October are done."),
        (DAY + 300, "ali", "Perfect, I’ll forward them to the accountant."),
    ),
    "grace": ((DAY * 3 + 100, "grace", "See you at the climbing hall?"),),
    "lukas": (
        (DAY * 5, "ali", "Happy birthday! 🎂"),
        (DAY * 5 - 60, "lukas", "Thank you! Cake in the kitchen."),
    ),
    "maya": ((DAY * 9, "maya", "תודה רבה על העזרה!"),),
    "tom": ((DAY * 40, "tom", "Here is the address: Lindenstraße 12, second floor."),),
}
EARLIER: Final = (
    "The banner is too wide on small screens.",
    "I have moved it below the title.",
    "Looks good now.",
    "Shall we keep the old address for a while?",
    "Yes, it forwards until the end of the year.",
    "The translation is back: two strings are longer than their buttons.",
    "Shortened them.",
    "Thanks!",
)


class Stage:
    """The app with its people, for all pictures."""

    def __init__(
        self,
        place: Place,
        browser: Browser,
        people: dict[str, User],
        conversations: dict[str, int],
    ) -> None:
        self.place = place
        self.browser = browser
        self.people = people
        self.conversations = conversations
        self.folder = IMAGES
        self.variant = ""
        self.too_big: list[str] = []

    async def open(self, page: Page, path: str = "/") -> None:
        """Go to an address of the app, on a page that knows nothing yet."""
        await page.goto("about:blank")
        await page.goto(self.place.url + path)

    async def enter(self, page: Page, name: str = "ali", path: str = "/") -> None:
        """Be there as somebody."""
        await self.open(page, path)
        if await page.get_by_label("E-mail").count():
            await log_in(page, self.people[name].email)
        await expect(page.get_by_placeholder("Search")).to_be_attached()

    async def chat(self, page: Page, conversation: str) -> None:
        """Be in a conversation as Ali."""
        await self.enter(page, path=f"/c/{self.conversations[conversation]}")
        await wait_for_chat(page)
        await expect(page.locator(".ml-message, .ml-empty").first).to_be_visible()

    async def as_seeded(self, page: Page) -> None:
        """Have Ali come anew, with everything unread that was unread in the beginning."""
        await page.context.clear_cookies()
        mark(self.place.folder, self.conversations)

    async def types(self, name: str, conversation: str) -> None:
        """Have somebody type."""
        async with self.place.house.as_(self.people[name]) as rest:
            await rest.typing(self.conversations[conversation])

    async def picture(self, page: Page, state: str) -> None:
        """Take one, once nothing moves any more."""
        await page.mouse.move(0, 0)
        await page.evaluate("document.fonts.ready")
        await page.evaluate(
            "Promise.allSettled(document.getAnimations()"
            ".filter((a) => a.effect?.getComputedTiming().iterations !== Infinity)"
            ".map((a) => a.finished))"
        )
        await page.evaluate("new Promise((done) => setTimeout(done, 250))")  # the list's last batch
        path = self.folder / f"{state}-{self.variant}.png"
        taken = await page.screenshot(animations="disabled", caret="hide")
        path.write_bytes(await with_palette(page, taken))
        size = path.stat().st_size
        print(f"{path.name}: {size / 1000:.0f} kB", flush=True)
        if size > MAX_BYTES:
            self.too_big.append(path.name)


async def with_palette(page: Page, png: bytes) -> bytes:
    """The same picture in 256 colours, which is a third of the bytes and looks no different."""
    width, height, palette, pixels = await page.evaluate(
        """async (data) => {
          const image = new Image();
          image.src = "data:image/png;base64," + data;
          await image.decode();
          const { width, height } = image;
          const canvas = new OffscreenCanvas(width, height).getContext("2d");
          canvas.drawImage(image, 0, 0);
          const rgba = canvas.getImageData(0, 0, width, height).data;
          const colors = new Uint32Array(width * height).map(
            (_, i) => (rgba[4 * i] << 16) | (rgba[4 * i + 1] << 8) | rgba[4 * i + 2]);
          const counts = new Map();
          for (const color of colors) counts.set(color, (counts.get(color) ?? 0) + 1);
          const often = (a, b) => counts.get(b) - counts.get(a);
          const palette = [...counts.keys()].sort(often).slice(0, 256);
          const far = (a, b) => [16, 8, 0].reduce(
            (sum, shift) => sum + (((a >> shift) & 255) - ((b >> shift) & 255)) ** 2, 0);
          const nearest = new Map([...counts.keys()].map((color) =>
            [color, palette.reduce((best, one, i) =>
              far(one, color) < far(palette[best], color) ? i : best, 0)]));
          const pixels = Uint8Array.from(colors, (color) => nearest.get(color));
          const blob = new Blob([pixels]);
          const url = await new Promise((done) => {
            const reader = new FileReader();
            reader.onload = () => done(reader.result);
            reader.readAsDataURL(blob);
          });
          return [width, height, palette, url.split(",")[1]];
        }""",
        base64.b64encode(png).decode(),
    )
    rows = base64.b64decode(pixels)
    lines = b"".join(b"\0" + rows[at : at + width] for at in range(0, len(rows), width))
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),
        b"PLTE": b"".join(color.to_bytes(3, "big") for color in palette),
        b"IDAT": zlib.compress(lines, 9),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


State = Callable[[Stage, Page], AbstractAsyncContextManager[None]]
states: Final[dict[str, State]] = {}


def state(show: Callable[[Stage, Page], AsyncIterator[None]]) -> Callable[..., AsyncIterator[None]]:
    """What brings a page into a state, and out of it behind its `yield`."""
    states[show.__name__.strip("_").replace("_", "-")] = contextlib.asynccontextmanager(show)
    return show


@state
async def login(stage: Stage, page: Page) -> AsyncIterator[None]:
    await page.context.clear_cookies()
    await stage.open(page)
    await page.get_by_label("E-mail").fill("ali@example.com")
    yield


@state
async def login_error(stage: Stage, page: Page) -> AsyncIterator[None]:
    await page.context.clear_cookies()
    await stage.open(page)
    await log_in(page, "ali@example.com", "a wrong one")
    await expect(page.get_by_text("E-mail or password is wrong.")).to_be_visible()
    yield


@state
async def login_no_backend(stage: Stage, page: Page) -> AsyncIterator[None]:
    await page.context.clear_cookies()
    await stage.open(page)
    await stage.place.house.stop()
    try:
        await log_in(page, "ali@example.com")
        await expect(page.get_by_role("alert")).to_contain_text("backend")
        yield
    finally:
        await stage.place.house.start()


@state
async def no_conversations(stage: Stage, page: Page) -> AsyncIterator[None]:
    await page.context.clear_cookies()
    await stage.enter(page, "noor")
    await expect(page.get_by_text("No conversations yet")).to_be_visible()
    yield
    await page.context.clear_cookies()


@state
async def list_(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.as_seeded(page)
    await stage.enter(page)
    await expect(row(page, "John Doe").locator(".ap-online")).to_be_visible()
    await stage.types("sofia", "sofia")
    await expect(page.get_by_text("typing…")).to_be_visible()
    yield


@state
async def search(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.enter(page)
    await page.get_by_placeholder("Search").fill("the")
    await expect(row(page, "Lukas")).to_be_visible()
    yield


@state
async def search_nothing(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.enter(page)
    await page.get_by_placeholder("Search").fill("zebra")
    await expect(page.get_by_text("Nothing found")).to_be_visible()
    yield


@state
async def menu(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.enter(page)
    await page.get_by_role("button", name="Menu").click()
    await expect(page.get_by_text("Log out")).to_be_visible()
    yield


@state
async def new_messages(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.as_seeded(page)
    await stage.chat(page, "hike")
    await expect(page.get_by_text("New messages")).to_be_visible()
    yield


@state
async def chat(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.as_seeded(page)
    await stage.chat(page, "launch")
    await expect(header_line(page)).to_contain_text("online")
    await stage.types("sofia", "sofia")
    yield


@state
async def typing(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "launch")
    await stage.types("sofia", "launch")
    await stage.types("kenji", "launch")
    await expect(header_line(page)).to_contain_text("Kenji are typing")
    await box(page).fill("Lunch is ordered:\n– two bowls with rice\n– one without")
    yield
    await box(page).fill("")


@state
async def right_to_left(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "amira")
    await expect(bubble(page, "تم التصحيح")).to_be_visible()
    yield


@state
async def emoji(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "amira")
    await page.get_by_role("button", name="Emoji").click()
    await expect(page.get_by_role("menu", name="Emoji")).to_be_visible()
    yield


@state
async def empty_chat(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "book")
    await expect(page.get_by_text("No messages yet").last).to_be_visible()
    yield


@state
async def too_long(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "sofia")
    await box(page).fill("A long story, told in full. " * 150)
    await expect(page.get_by_text("This is too long")).to_be_visible()
    yield
    await box(page).fill("")


@state
async def reading_back(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "launch")
    await page.locator(".ml-scroll").evaluate("(list) => list.scrollBy(0, -900)")
    await expect(page.get_by_role("button", name="To the latest")).to_be_visible()
    yield


@state
async def beginning(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "kenji")
    await expect(page.get_by_text("Beginning of the conversation")).to_be_visible()
    yield


@state
async def new_conversation(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.enter(page)
    await page.get_by_role("button", name="New conversation").click()
    dialog = page.get_by_role("dialog")
    for name in ("Grace Okafor", "Lukas Weber"):
        await dialog.get_by_text(name).click()
    await dialog.get_by_label("Title of the group").fill("Chalk and rope")
    await expect(dialog.get_by_role("button", name="Start")).to_be_enabled()
    yield


@state
async def failed(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "john")
    await stage.place.house.stop()
    try:
        await say(page, "Yes! And most of them came from the newsletter.")
        await expect(page.locator(".ml-failed")).to_be_visible(timeout=30_000)
        yield
    finally:
        await stage.place.house.start()
        await page.locator(".ml-failed").get_by_role("button", name="Discard").click()
        await expect(page.locator(".ml-failed")).to_be_hidden()


@state
async def snackbar(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "launch")
    await stage.place.house.stop()
    try:
        await page.locator(".ml-scroll").evaluate("(list) => list.scrollTo(0, 0)")
        await expect(page.locator(".ap-snackbar").first).to_be_visible()
        yield
    finally:
        await stage.place.house.start()


@state
async def banner(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "launch")
    Paced.seconds = 8.0
    await stage.place.server.stop()
    try:
        await expect(page.get_by_text("Trying again in")).to_be_visible()
        yield
    finally:
        await stage.place.server.start()
        await page.get_by_role("button", name="Retry now").click()
        await expect(page.get_by_text("Back online")).to_be_visible()


@state
async def back_online(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "launch")
    Paced.seconds = 4.0
    await stage.place.server.stop()
    try:
        await expect(page.get_by_text("Trying again in")).to_be_visible()
    finally:
        await stage.place.server.start()
    await page.get_by_role("button", name="Retry now").click()
    await expect(page.get_by_text("Back online")).to_be_visible()
    yield


@state
async def dialog(stage: Stage, page: Page) -> AsyncIterator[None]:
    async with _given_up(stage, page):
        yield


@state
async def dialog_details(stage: Stage, page: Page) -> AsyncIterator[None]:
    async with _given_up(stage, page):
        await page.get_by_text("Technical details").click()
        yield


@contextlib.asynccontextmanager
async def _given_up(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.chat(page, "launch")
    Paced.seconds = 0.05
    await stage.place.server.stop()
    dialog = page.get_by_role("alertdialog")
    try:
        await expect(dialog).to_be_visible(timeout=30_000)
        yield
    finally:
        await stage.place.server.start()
        await dialog.get_by_role("button", name="Retry").click()
        await expect(page.get_by_text("Back online")).to_be_visible()


@state
async def connection(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.enter(page)
    await stage.types("kenji", "kenji")
    await expect(page.get_by_text("typing…")).to_be_visible()
    await page.goto(stage.place.url + "/connection")
    await expect(page.locator(".cn-row").filter(has_text="UserIsTyping").first).to_be_attached()
    yield


@state
async def inspector(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.enter(page)
    await page.goto(stage.place.url + "/connection")
    await page.get_by_placeholder("Filter by name").fill("user")
    await page.locator(".cn-row").filter(has_text="UserIsTyping").first.click()
    await expect(page.locator(".cn-data")).to_be_visible()
    await page.get_by_role("region", name="Inspector").evaluate("(all) => all.scrollIntoView()")
    yield


@state
async def settings(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.enter(page)
    await page.goto(stage.place.url + "/settings")
    await expect(page.get_by_role("heading", name="Appearance")).to_be_visible()
    yield


@state
async def demo(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.as_seeded(page)
    await stage.open(page, "/demo")
    for number in (0, 1):
        frame = page.frame_locator(f"iframe >> nth={number}")
        await expect(frame.get_by_placeholder("Search")).to_be_attached()
        await expect(frame.get_by_role("option").first).to_be_attached()
    ali = page.frame_locator("iframe >> nth=0")
    john = page.frame_locator("iframe >> nth=1")
    for frame, name in ((ali, "John Doe"), (john, "Ali Qo'chqorov")):
        title = frame.locator(".cl-title", has_text=name)
        await frame.get_by_role("option").filter(has=title).click()
    for frame in (ali, john):
        await expect(frame.locator(".ml-message").last).to_be_visible()
    await john.get_by_role("textbox", name="Message", exact=True).press_sequentially("And the")
    await expect(ali.locator(".ch-line")).to_contain_text("typing")
    yield


@state
async def nothing_here(stage: Stage, page: Page) -> AsyncIterator[None]:
    await stage.open(page, "/nonsense")
    await expect(page.get_by_role("heading", name="There is nothing here")).to_be_visible()
    yield


IN_DARK: Final = (
    "login", "list", "chat", "right-to-left", "new-conversation", "failed", "banner",
    "dialog-details", "connection", "settings",
)  # fmt: skip
"""The states that are kept in dark, too."""


@contextlib.asynccontextmanager
async def open_stage(folder: Path) -> AsyncIterator[Stage]:
    """Server, backend, people, what they have said, and the app."""
    async with (
        Server(App(id="1", key="launch-key", secret="s")) as server,
        open_house(server.settings(), folder) as house,
        chromium() as browser,
    ):
        people = {"ali": house.ali, "john": house.john}
        with contextlib.closing(sqlite3.connect(folder / "chat.sqlite3")) as database:
            (password_hash,) = database.execute("SELECT password_hash FROM users").fetchone()
            # Nobody in a picture is called a stranger.
            database.execute("UPDATE users SET last_name = 'Summers' WHERE first_name = 'Eve'")
            database.commit()
        for first_name, last_name in PEOPLE:
            user = await house.store.users.create(
                first_name=first_name,
                last_name=last_name,
                email=f"{first_name.lower()}@example.com",
                password_hash=password_hash,
            )
            assert user is not None
            people[first_name.lower()] = user
        conversations = await seed(folder, house, people)
        async with contextlib.AsyncExitStack() as stack:
            guests = {}
            for name in ("ali", "john"):
                rest = await stack.enter_async_context(RestClient(house.api_url))
                guests[name] = await rest.login(people[name].email, PASSWORD)
            # Others are there too, and their programs have what was written to them.
            for name in ("john", "kenji", "amira"):
                rest = await stack.enter_async_context(RestClient(house.api_url))
                login = await rest.login(people[name].email, PASSWORD)
                session = ChatSession(
                    public(server, house),
                    token=login.token,
                    user_id=login.user.id,
                    presence=20,
                    max_attempts=None,
                )
                await stack.enter_async_context(session)
            app = ChatApp(public(server, house), guests=guests)
            served = await stack.enter_async_context(app.serve())
            place = Place(served.url, server, house, browser, folder)
            yield Stage(place, browser, people, conversations)


async def seed(folder: Path, house: House, people: dict[str, User]) -> dict[str, int]:
    """Let them have talked; the conversations by their short names."""
    store = house.store
    groups = {
        "launch": ("Launch week", ("ali", "john", "sofia", "kenji")),
        "hike": ("Weekend hike", ("ali", "grace", "lukas", "tom")),
        "book": ("Book club", ("ali", "maya", "grace", "eve")),
    }
    people = {**people, "eve": house.eve}
    conversations = {}
    for name, (title, members) in groups.items():
        ids = [people[member].id for member in members]
        conversations[name], _ = await store.conversations.create(ids, title=title)
    for name in ("amira", *SHORT):
        ids = [people["ali"].id, people[name].id]
        conversations[name], _ = await store.conversations.create(ids)
    old = tuple(
        (DAY * (6 - n // 24) + 300 - 7 * (n % 24), ("john", "kenji", "sofia", "ali")[n % 4], text)
        for n, text in enumerate(EARLIER * 15)
    )
    talks = {"launch": old + LAUNCH, "amira": AMIRA, "hike": HIKE, **SHORT}
    said = sorted(
        ((minutes, name, who, text) for name, talk in talks.items() for minutes, who, text in talk),
        reverse=True,
    )
    now = datetime.now(UTC)
    moments = []
    for minutes, name, who, text in said:
        message, _ = await store.conversations.add_message(
            conversations[name], people[who].id, text
        )
        at = now - timedelta(minutes=minutes)
        moments.append((f"{at:%Y-%m-%d %H:%M:%S}.000000", message.id))
    with contextlib.closing(sqlite3.connect(folder / "chat.sqlite3")) as database:
        database.executemany("UPDATE messages SET sent_at = ? WHERE id = ?", moments)
        database.commit()
    mark(folder, conversations)
    return conversations


def mark(folder: Path, conversations: dict[str, int]) -> None:
    """Have everything read that is not to be seen as new."""
    # By each conversation, how many of its newest messages are unread: Ali's, and everybody else's.
    unread = {"hike": (6, 0), "john": (2, 0), "sofia": (0, 1), "launch": (0, 1), "kenji": (0, 0)}
    with contextlib.closing(sqlite3.connect(folder / "chat.sqlite3")) as database:
        for name, id_ in conversations.items():
            for condition, count in zip(("= 1", "> 1"), unread.get(name, (0, 0)), strict=True):
                database.execute(
                    "UPDATE members SET last_read = coalesce((SELECT id FROM messages"
                    " WHERE conversation_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?), 0)"
                    f" WHERE conversation_id = ? AND user_id {condition}",
                    (id_, count, id_),
                )
        database.commit()


async def main() -> None:
    logging.getLogger("antiphon").setLevel(logging.ERROR)  # servers are stopped on purpose
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="STATE", help=", ".join(states))
    parser.add_argument("--to", type=Path, help="another folder, which gets all of them")
    options = parser.parse_args()
    if unknown := set(options.names) - set(states):
        parser.error(f"no such state: {', '.join(sorted(unknown))}")
    folder = options.to or IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    with tempfile.TemporaryDirectory() as data, paced():
        async with open_stage(Path(data)) as stage:
            stage.folder = folder
            for size_name, size in SIZES.items():
                for dark in (False, True):
                    stage.variant = size_name + ("-dark" if dark else "")
                    # A browser reports the answer to an unknown address as an error, too.
                    errors = "status of 404"
                    async with tab(stage.browser, size, dark=dark, expected_errors=errors) as page:
                        for name, show in states.items():
                            if options.names and name not in options.names:
                                continue
                            if dark and not options.to and name not in IN_DARK:
                                continue
                            try:
                                async with show(stage, page):
                                    await stage.picture(page, name)
                            except Exception as exc:
                                missing.append(f"{name}-{stage.variant}: {exc}")
    missing += [f"{name} has more than {MAX_BYTES:,} bytes" for name in stage.too_big]
    if missing:
        raise SystemExit("\n".join(missing))


if __name__ == "__main__":
    asyncio.run(main())

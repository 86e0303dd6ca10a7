"""What people do on the app's pages, and what they see there."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from unittest.mock import patch

from nicegui import Client
from playwright.async_api import Locator, Page, expect

from antiphon.backend import User
from antiphon.protocol.backoff import Backoff
from antiphon.protocol.closing import Action

from .conftest import Place

__all__ = [
    "ON_THE_WAY",
    "Paced",
    "alis_channel",
    "box",
    "bubble",
    "bubbles",
    "comes_back",
    "findings",
    "group",
    "header_line",
    "is_heard",
    "looks_away",
    "newcomer",
    "paced",
    "row",
    "say",
    "saying",
    "texts",
    "tick",
    "wait_for_chat",
]

ON_THE_WAY: Final = re.compile("Sent|Delivered|Read")
"""What a tick says of a message that the backend has."""

_AXE: Final = Path(__file__).parents[1] / "js" / "node_modules" / "axe-core" / "axe.min.js"


def row(page: Page, title: str | re.Pattern[str]) -> Locator:
    """A conversation in the list."""
    return page.get_by_role("option").filter(has_text=title)


def bubbles(page: Page) -> Locator:
    """All messages of the open conversation that are in the page."""
    return page.locator(".ml-message")


def bubble(page: Page, text: str) -> Locator:
    """A message of the open conversation."""
    return bubbles(page).filter(has_text=text)


def tick(page: Page, text: str) -> Locator:
    """The mark of one's own message."""
    return bubble(page, text).locator(".ml-tick")


def box(page: Page) -> Locator:
    """The message box."""
    return page.get_by_role("textbox", name="Message", exact=True)


def header_line(page: Page) -> Locator:
    """What stands below the name of the open conversation."""
    return page.locator(".ch-line")


async def wait_for_chat(page: Page) -> None:
    """Wait until an open conversation can be written in."""
    await expect(box(page)).to_be_enabled()


async def say(page: Page, text: str) -> None:
    """Write a message and press Enter."""
    await box(page).fill(text)
    await box(page).press("Enter")


async def texts(page: Page) -> list[str]:
    """What the messages in the page say, without times and marks."""
    found: list[str] = await page.locator(".ml-text").evaluate_all(
        """all => all.map((text) => {
          const copy = text.cloneNode(true);
          copy.querySelector(".ml-meta").remove();
          return copy.textContent;
        })"""
    )
    return found


async def looks_away(page: Page) -> None:
    """Give the focus to another window; a headless page has it always."""
    await page.evaluate("document.hasFocus = () => false; dispatchEvent(new Event('blur'))")
    await is_heard(page)


async def comes_back(page: Page) -> None:
    """Take the focus again."""
    await page.evaluate("delete document.hasFocus; dispatchEvent(new Event('focus'))")
    await is_heard(page)


async def is_heard(page: Page) -> None:
    """Wait until the app has heard what the page has said; it answers in the same order."""
    await page.wait_for_function("window.did_handshake")
    client = Client.instances[await page.evaluate("clientId")]
    await client.run_javascript("0", timeout=20)


async def group(place: Place, title: str = "Talk") -> int:
    """A new conversation of Ali's, John's and Eve's."""
    people = [place.house.ali.id, place.house.john.id, place.house.eve.id]
    id_, _ = await place.house.store.conversations.create(people, title=title)
    return id_


def alis_channel(place: Place) -> str:
    """Where Ali hears of everything."""
    return f"private-user.{place.house.ali.id}"


async def newcomer(place: Place, first_name: str) -> User:
    """Somebody who is new, with everybody's password."""
    with contextlib.closing(sqlite3.connect(place.folder / "chat.sqlite3")) as database:
        (password_hash,) = database.execute("SELECT password_hash FROM users").fetchone()
    user = await place.house.store.users.create(
        first_name=first_name,
        last_name="Newcomer",
        email=f"{first_name.lower()}@example.com",
        password_hash=password_hash,
    )
    assert user is not None, f"{first_name} is here already"
    return user


async def saying(place: Place, conversation: int, *words: str) -> None:
    """Have John say something over REST."""
    async with place.house.as_(place.house.john) as rest:
        for text in words:
            await rest.send(conversation, text)


async def findings(page: Page) -> list[str]:
    """What axe-core finds serious or critical in the page as it is."""
    # Colours are judged where they have arrived, and not halfway.
    await page.evaluate(
        "Promise.allSettled(document.getAnimations()"
        ".filter((a) => a.effect?.getComputedTiming().iterations !== Infinity)"
        ".map((a) => a.finished))"
    )
    if not await page.evaluate("'axe' in window"):
        await page.add_script_tag(content=_AXE.read_text(encoding="utf-8"))
    result = await page.evaluate("axe.run()")
    return [
        f"{found['id']}: {found['nodes'][0]['html'][:200]} {found['nodes'][0]['failureSummary']}"
        for found in result["violations"]
        if found["impact"] in ("serious", "critical")
    ]


class Paced(Backoff):
    """Attempts to connect at a steady pace, in place of delays that grow to half a minute."""

    seconds = 1.0

    def next_delay(self, action: Action) -> float | None:
        """The pace, as long as there are attempts left."""
        return None if super().next_delay(action) is None else self.seconds


@contextlib.contextmanager
def paced() -> Iterator[type[Paced]]:
    """Who logs in meanwhile waits `seconds` between two attempts, and little between two sends."""
    with (
        patch("antiphon.client.client.Backoff", Paced),
        patch("antiphon.chat.outbox.FIRST_DELAY", 0.02),
        patch("antiphon.chat.link.FIRST_DELAY", 0.1),
        patch("antiphon.chat.inbox.FIRST_DELAY", 0.1),
    ):
        try:
            yield Paced
        finally:
            Paced.seconds = 1.0

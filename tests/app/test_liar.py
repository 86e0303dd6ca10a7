"""Backends that lie, hang, or say what no page can show; and a disk that fails."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from antiphon.app import ChatApp
from antiphon.chat import store
from antiphon.server import Server
from antiphon.settings import App
from tests.chat.gate import Gate, open_gate
from tests.chat.house import House, open_house

from .browser import tab
from .conftest import log_in, public
from .people import box, bubble, row, say

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVIL = (
    '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    "{{constructor.constructor('window.hacked=1')()}}\u202egnp.exe\x00\x1b[31m`${1}`"
)
LIST = "GET /api/conversations$"
MESSAGES = "GET /api/conversations/[^/]+/messages"


class Liar:
    """The app, and what stands between it and a good backend."""

    def __init__(self, url: str, gate: Gate, house: House, kept: Path, browser: Browser) -> None:
        self.url = url
        self.gate = gate
        self.house = house
        self.kept = kept
        self._browser = browser

    @contextlib.asynccontextmanager
    async def looking(self, path: str = "/") -> AsyncIterator[Page]:
        """A fresh profile at the log-in; afterwards the backend is an honest one again."""
        async with tab(self._browser) as page:
            try:
                await page.goto(self.url + path)
                yield page
            finally:
                self.gate.open()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def liar(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Liar]:
    folder = tmp_path_factory.mktemp("liar")
    async with (
        Server(App(id="1", key="k", secret="s")) as server,
        open_house(server.settings(), folder) as house,
        open_gate(lambda: house.api_url) as gate,
    ):
        settings = msgspec.structs.replace(public(server, house), api_url=gate.api_url)
        app = ChatApp(settings, data_folder=folder / "kept")
        async with app.serve() as served:
            yield Liar(served.url, gate, house, folder / "kept", browser)


def user(id_: object, name: str) -> dict[str, Any]:
    return {"id": id_, "firstName": name, "lastName": "", "email": f"{name}@example.com"}


def message(id_: object, chat: object, content: str, sender: str = EVIL) -> dict[str, Any]:
    return {
        "id": id_,
        "chat_id": chat,
        "sender_id": 2,
        "sender_name": sender,
        "content": content,
        "sent_at": "2026-01-01T00:00:00Z",
        "status": "sent",
    }


def conversation(id_: object, title: str | None, **more: Any) -> dict[str, Any]:
    return {"id": id_, "title": title, "members": [], "last_message": None, **more}


async def test_what_a_backend_says_is_text_however_odd_and_large(liar: Liar) -> None:
    many = [user(5, "Same"), user(5, "Same again"), *(user(n, f"N{n}") for n in range(10, 3_000))]
    answer = [
        conversation(1, EVIL, members=[user(2, EVIL)], last_message=message(9, 1, EVIL)),
        conversation(2, "T" * 1_000_000, unread_count=10**30, members=[user(2, "B" * 1_000_000)]),
        conversation(3, None, members=many, unread_count=-5),
        conversation("__proto__", "An odd id"),
        conversation("constructor", "Another one"),
        conversation("../../x?y#z", "A path"),
    ]
    liar.gate.answer(LIST, {"data": answer})
    liar.gate.answer(
        MESSAGES,
        {
            "data": [
                message(1, 1, EVIL),
                message(2, 1, "z" * 1_000_000),
                message("__proto__", 1, "Of a strange id"),
                message(5, 1, "The last one"),
            ],
            "has_more": False,
        },
    )
    async with liar.looking("/c/1") as page:
        await log_in(page, liar.house.ali.email)
        await expect(bubble(page, "The last one")).to_be_visible()
        await expect(page.locator(".ch-title")).to_contain_text("</script>{{constructor")
        await expect(bubble(page, "Of a strange id")).to_be_attached()
        await expect(row(page, "TTTT").locator(".cl-unread")).to_have_text("99+ unread")
        assert len(await row(page, "TTTT").inner_text()) < 300
        for title in ("An odd id", "Another one", "A path", "TTTT"):
            await row(page, title).first.click()
            await expect(page.locator(".ch-title")).to_contain_text(title)
        await row(page, "A path").click()
        await expect(page.locator(".ch-title")).to_contain_text("A path")
        await expect(page).to_have_url(re.compile(r"/c/\.\."))
        await page.reload()
        await expect(page.locator(".ch-title")).to_contain_text("A path")
        assert len(await page.title()) < 300
        assert await page.evaluate("window.hacked") is None
        assert len(json.dumps(await page.content())) < 1_000_000


async def test_a_list_that_cannot_be_read_is_told_and_not_called_empty(liar: Liar) -> None:
    liar.gate.answer(LIST, {"data": [{"id": {}, "title": 7}]})
    async with liar.looking() as page:
        await log_in(page, liar.house.john.email)
        dialog = page.get_by_role("alertdialog")
        await expect(dialog).to_contain_text("something else than the chat expects")
        await expect(page.get_by_text("No conversations yet")).to_have_count(0)


async def test_a_log_in_that_hangs_can_be_left_and_tried_again(liar: Liar) -> None:
    held = liar.gate.hold("POST /api/login")
    async with liar.looking() as page:
        await log_in(page, liar.house.eve.email)
        await expect(page.locator(".lg-submit .q-spinner")).to_be_visible()
        await page.reload()
        await expect(page.locator(".lg-submit .q-spinner")).to_have_count(0)
        held.set()
        liar.gate.open()
        await log_in(page, liar.house.eve.email)
        await expect(page.get_by_text("No conversations yet")).to_be_visible()


async def test_a_message_that_no_disk_takes_is_back_in_the_box_with_the_reason(
    liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    async with liar.looking(f"/c/{liar.house.conversation}") as page:
        await log_in(page, liar.house.ali.email)
        await expect(box(page)).to_be_enabled()
        others = [
            sqlite3.connect(path, isolation_level=None) for path in liar.kept.glob("*.sqlite3")
        ]
        try:
            for other in others:
                other.execute("BEGIN IMMEDIATE")
            await say(page, "Not lost")
            await expect(page.locator(".mc-trouble")).to_contain_text("cannot be kept")
            await expect(box(page)).to_have_value("Not lost")
        finally:
            for other in others:
                other.close()
        await box(page).press("Enter")
        await expect(bubble(page, "Not lost")).to_be_visible()

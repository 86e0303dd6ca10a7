"""A browser, and the process of `corner_page.py` that it looks at."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page

from .browser import chromium, tab

__all__ = ["Corner", "open_corner"]

PATIENCE = 15.0


class Corner:
    """The pages' address, and a browser to look at them.

    Attributes:
        url: The address.
        browser: The browser.
    """

    def __init__(self, url: str, browser: Browser) -> None:
        self.url = url
        self.browser = browser

    @contextlib.asynccontextmanager
    async def tab(self, path: str, **options: Any) -> AsyncIterator[Page]:
        """A page with a fresh profile that is ready to be used."""
        async with tab(self.browser, **options) as page:
            await self.open(page, path)
            yield page

    async def open(self, page: Page, path: str) -> None:
        await page.goto(f"{self.url}{path}")
        await page.wait_for_function("window.did_handshake")

    async def do(self, page: Page, what: str, *data: Any) -> None:
        """Command the process."""
        answer = await page.request.post(
            f"{self.url}/do/{what}", data=list(data), timeout=PATIENCE * 4000
        )
        assert answer.ok, await answer.text()

    async def bring_back(self, page: Page, where: str, word: str) -> None:
        """Start the server again, and hurry with the button in `where` until there is a word."""
        await self.do(page, "start")
        # An attempt that comes by itself, at any moment, takes the button away.
        await page.wait_for_function(
            """([where, word]) => {
              const place = document.querySelector(where);
              place.querySelector("button")?.click();
              return place.textContent.includes(word);
            }""",
            arg=[where, word],
            polling=500,
            timeout=PATIENCE * 2000,
        )

    async def heard(self, page: Page) -> list[list[Any]]:
        """What the pages' handlers were called with since the process began."""
        answer = await page.request.get(f"{self.url}/heard")
        return list(await answer.json())

    async def hears(self, page: Page, done: Callable[[list[list[Any]]], object]) -> None:
        """Wait until what was heard is what one waits for."""
        async with asyncio.timeout(PATIENCE):
            while not done(await self.heard(page)):
                await page.evaluate("new Promise(requestAnimationFrame)")


@contextlib.asynccontextmanager
async def open_corner(folder: Path) -> AsyncIterator[Corner]:
    """Start both; they end with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.app.corner_page",
        str(folder),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with chromium() as browser:
            assert process.stdout is not None
            async with asyncio.timeout(PATIENCE * 4):
                port = int(await process.stdout.readline())
            yield Corner(f"http://127.0.0.1:{port}", browser)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()

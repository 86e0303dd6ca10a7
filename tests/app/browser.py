"""A real Chromium for tests, watched: no request leaves this machine, no error stays unseen."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    WebError,
    async_playwright,
    expect,
)

__all__ = ["DESKTOP", "PHONE", "SLOW_HANDSHAKE", "chromium", "tab"]

DESKTOP = (1280, 800)
PHONE = (390, 844)

# The machine may be busy with other things.
expect.set_options(timeout=10_000)

SLOW_HANDSHAKE = """
let shaken = false, late = [];
const soon = window.setTimeout;
window.setTimeout = (then, wait, ...words) =>
  wait === 10 && !shaken ? late.push(then) : soon(then, wait, ...words);
Object.defineProperty(window, "did_handshake", {
  get: () => shaken,
  set: (value) => {
    if (value) window.shakeHands = () => {
      shaken = true;
      for (const then of late.splice(0).reverse()) then();
    };
  },
});
"""
"""Script of a page whose handshake is over only with `shakeHands()`, once there is such a thing.

NiceGUI looks every 10 ms whether an event can be sent now, for each event by itself, so that one
can overtake another. Here they do, always.
"""


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser of this machine, headless, for as long as the block lasts."""
    path = os.environ.get("ANTIPHON_TEST_CHROMIUM") or shutil.which("chromium")
    assert path, "no Chromium found: install one, or name it in ANTIPHON_TEST_CHROMIUM"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                # Names resolve to nothing, so that a request outwards fails and is seen below.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def tab(
    browser: Browser,
    size: tuple[int, int] = DESKTOP,
    *,
    dark: bool = False,
    locale: str = "en-GB",
    timezone: str = "Europe/Berlin",
    expected_errors: str | None = None,
) -> AsyncIterator[Page]:
    """One page with a fresh profile, which is judged when the block ends.

    Args:
        browser: What `chromium()` gave.
        size: Width and height in pixels; a phone's gets touch.
        dark: What the page hears the system prefers.
        locale: The browser's language.
        timezone: The browser's zone.
        expected_errors: Pattern of console errors that belong to the test.

    Raises:
        AssertionError: When the block ends well: a request went to another host than 127.0.0.1,
            or the page wrote an error that was not expected.
    """
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        locale=locale,
        timezone_id=timezone,
        has_touch=size == PHONE,
    )
    outside: list[str] = []
    errors: list[str] = []

    def requested(request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and url.hostname != "127.0.0.1":
            outside.append(request.url)

    def said(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    def raised(error: WebError) -> None:
        errors.append(str(error.error))

    context.on("request", requested)
    context.on("console", said)
    context.on("weberror", raised)
    context.set_default_timeout(10_000)
    try:
        yield await context.new_page()
    finally:
        await context.close()
    assert not outside, f"requests left this machine: {outside}"
    unexpected = [e for e in errors if not (expected_errors and re.search(expected_errors, e))]
    assert not unexpected, f"the page wrote errors: {unexpected}"

"""Pictures of the console with something to see: `python -m tests.server.console_screenshots`.

Writes docs/images/console-desktop.png; `--to FOLDER` writes every screen there, in both sizes,
light and dark.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import time
from pathlib import Path
from typing import Final
from unittest.mock import patch

from playwright.async_api import Page, expect

from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.server.console import watch
from antiphon.settings import App
from tests.app.browser import DESKTOP, PHONE, chromium, tab

from .wire import Wire

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
PASSWORD: Final = "correct horse battery"  # of a server that lives for this
ORIGINS: Final = ("https://shop.example.com", "https://admin.example.com", "")
PEOPLE: Final = ("Ali", "Sofia", "Kenji", "Amira", "Grace", "Lukas", "Maya", "Tom")
SCREENS: Final = ("Overview", "Connections", "Channels", "Events", "Publish")
SPAN: Final = 300.0


class Quick:
    """A clock that five minutes pass on in fifteen seconds, up to now."""

    speed = 20.0

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first = time.time() - SPAN

    def monotonic(self) -> float:
        return (time.monotonic() - self._began) * self.speed

    def time(self) -> float:
        return min(self._first + self.monotonic(), time.time())


async def come(server: Server, number: int) -> Wire:
    """Somebody opens a page of the shop."""
    origin = ORIGINS[0 if number % 5 else number // 5 % 3]
    wire = await Wire.connect(server.port, headers={"Origin": origin} if origin else {})
    await wire.subscribe("products")
    await wire.join(f"private-user.{100 + number}")
    if number % 3 == 0:
        await wire.join("presence-chat.45", 100 + number, {"name": PEOPLE[number % 8]})
    if number % 7 == 0:
        await wire.subscribe("cache-rates")
    return wire


async def trade(server: Server, wires: list[Wire], turns: float = math.inf) -> None:
    """People come, orders are shipped, in waves."""
    async with Publisher(server.settings()) as publisher:
        for turn in itertools.takewhile(lambda turn: turn < turns, itertools.count()):
            for number in range(2 + round(1.6 * math.sin(turn / 80) + 0.7 * math.sin(turn / 17))):
                order = {"id": 4017 + turn * 3 + number, "total": 18.5, "currency": "EUR"}
                channel = f"private-user.{100 + turn % 30}"
                await publisher.trigger(channel, "OrderShipped", {"order": order})
            if turn % 8 == 0:
                price = {"sku": "A-17", "price": 12.9 + turn % 3}
                await publisher.trigger("products", "PriceChanged", price)
            if turn % 16 == 0:
                wires.append(await come(server, len(wires)))
            if turn % 2 == 0:
                wires[0].send("client-typing", {"typing": turn % 4 == 0}, "presence-chat.45")
            if turn % 48 == 47:
                await wires.pop().hang_up()
            await asyncio.sleep(0.015)


async def enter(page: Page, server: Server) -> None:
    """Log in."""
    await page.goto(f"{server.url}/console")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.locator("#live[data-state=live]")).to_be_attached()


async def picture(page: Page, path: Path) -> None:
    """Take one, of what is in view."""
    await page.mouse.move(0, 0)
    await page.wait_for_timeout(400)
    await page.screenshot(path=path)


async def show_all(page: Page, server: Server, wires: list[Wire], folder: Path, kind: str) -> None:
    """Every screen, as somebody who logs in sees it."""
    await page.goto(f"{server.url}/console")
    await picture(page, folder / f"login-{kind}.png")
    await enter(page, server)
    for screen in SCREENS:
        await page.get_by_role("link", name=screen).click()
        if screen == "Overview":
            await page.wait_for_timeout(1200)
        if screen == "Events":
            wires[0].send("pusher:subscribe", {"channel": "private-user.1", "auth": "k:00"})
            await trade(server, wires, 8)
            await page.get_by_text("PriceChanged").first.click()
        if screen == "Publish":
            await page.get_by_label("Channel", exact=True).fill("products")
            await page.get_by_label("Event", exact=True).fill("PriceChanged")
            data = page.get_by_label("Data, as JSON")
            await data.fill('{\n  "sku": "A-17",\n  "price": 12.9\n}')
            await page.get_by_role("button", name="Publish").click()
        await picture(page, folder / f"{screen.lower()}-{kind}.png")
    for screen, found in (("Connections", wires[3].socket_id), ("Channels", "presence-chat.45")):
        await page.get_by_role("link", name=screen).click()
        await page.get_by_role("searchbox", name=f"Search {screen.lower()}").fill(found)
        await page.get_by_role("button", name=found).click()
        await picture(page, folder / f"{screen.lower()}-details-{kind}.png")
        await page.get_by_role("button", name="Close").click()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, help="a folder, which gets every screen")
    folder = parser.parse_args().to
    apps = (App(id="shop", key="k", secret="s"), App(id="chat", key="k2", secret="s2"))
    async with (
        Server(apps, console_password=PASSWORD) as server,
        chromium() as browser,
        tab(browser) as page,
    ):
        wires = [await come(server, number) for number in range(30)]
        with patch.object(watch, "time", Quick()), patch.object(watch, "_TICK", 1 / Quick.speed):
            await enter(page, server)
            trading = asyncio.create_task(trade(server, wires))
            await asyncio.sleep(SPAN / Quick.speed)
            if folder is None:
                await picture(page, IMAGES / "console-desktop.png")
            trading.cancel()
            await asyncio.wait([trading])
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for size, name in ((DESKTOP, "desktop"), (PHONE, "phone")):
                for dark in (False, True):
                    kind = name + ("-dark" if dark else "")
                    async with tab(browser, size, dark=dark) as other:
                        await show_all(other, server, wires, folder, kind)
        for wire in wires:
            await wire.hang_up()


if __name__ == "__main__":
    asyncio.run(main())

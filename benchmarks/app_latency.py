"""The chat app, from a published event to the page: `python -m benchmarks.app_latency`.

The Pusher server and the backend, the app, and a headless Chromium are processes of their own on
this machine. The time of publishing stands in each message; a `MutationObserver` takes the time at
which it stands in the page. So the figure holds the server's fan-out, the WebSocket, the session,
NiceGUI and the browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from .app_process import CLIENTS
from .measure import RUNS, python
from .server_memory import resident

CHROMIUM = os.environ.get("ANTIPHON_TEST_CHROMIUM") or shutil.which("chromium") or ""
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
WATCH = """() => {
    window.lags = []; window.tasks = [];
    const take = (node) => {
        const sent = /Sent at ([0-9.]+) /.exec(node.textContent || '');
        if (sent) window.lags.push(performance.timeOrigin + performance.now() - sent[1]);
    };
    new MutationObserver((changes) => {
        for (const change of changes) for (const node of change.addedNodes) take(node);
    }).observe(document.body, {childList: true, subtree: true});
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.tasks.push(entry.duration);
    }).observe({entryTypes: ['longtask']});
}"""


@contextlib.asynccontextmanager
async def process(*arguments: object) -> AsyncIterator[tuple[Process, str]]:
    """A process of ours, and the line it prints when it is ready."""
    running = await asyncio.create_subprocess_exec(
        *python("app_process", *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert running.stdout is not None
    try:
        yield running, (await running.stdout.readline()).decode()
    finally:
        running.terminate()
        await running.wait()


async def published(house: Process, rate: int, count: int) -> None:
    assert house.stdin is not None
    assert house.stdout is not None
    house.stdin.write(json.dumps([rate, count]).encode() + b"\n")
    assert await house.stdout.readline() == b"done\n"


async def lags(house: Process, page: Page, rate: int, count: int) -> dict[str, Any]:
    """Milliseconds from publishing to the page, and the longest task of the page."""
    await page.evaluate("() => { window.lags.length = 0; window.tasks.length = 0; }")
    await published(house, rate, count)
    await page.wait_for_function(f"() => window.lags.length >= {count}", timeout=30_000)
    found: list[float] = await page.evaluate("() => window.lags")
    tasks: list[float] = await page.evaluate("() => window.tasks")
    assert len(found) == count, "each message once, and no reload"
    found.sort()
    return {
        "p50": statistics.median(found),
        "p95": found[int(count * 0.95)],
        "longest task": max(tasks, default=0.0),
    }


async def opened(browser: Browser, url: str, guest: str, conversation: int) -> Page:
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    await page.goto(f"{url}/c/{conversation}?as={guest}")
    await page.get_by_role("log").get_by_text("Hello!").first.wait_for()
    return page


async def measure() -> None:
    async with contextlib.AsyncExitStack() as stack:
        house, told = await stack.enter_async_context(process("house"))
        app, line = await stack.enter_async_context(process("app", told.strip()))
        url = line.strip()
        driver = await stack.enter_async_context(async_playwright())
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        stack.push_async_callback(browser.close)
        page = await opened(browser, url, "u2", 1)
        await page.bring_to_front()
        await page.evaluate(WATCH)
        await lags(house, page, 20, 40)  # until all code is warm
        for name, rate, count in (("10 events/s", 10, 50), ("500 in 5 s", 100, 500)):
            rounds = [await lags(house, page, rate, count) for _ in range(RUNS)]
            print(f"App: event to page, {name} (median of {RUNS})")
            for key in rounds[0]:
                values = [each[key] for each in rounds]
                print(
                    f"  {key:<28} {statistics.median(values):>8.1f} ms"
                    f"   {min(values):>8.1f} - {max(values):>8.1f}"
                )
        for number in range(1, CLIENTS):
            await opened(browser, url, f"u{number + 2}", number + 1)
        await asyncio.sleep(1)
        print(
            f"App: memory of the process with {CLIENTS} clients: {resident(app.pid) / 1e6:.0f} MB"
        )


def main() -> None:
    asyncio.run(measure())


if __name__ == "__main__":
    main()

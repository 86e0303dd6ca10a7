"""A page with the message list and the message box, and a way in for tests; a process of its own.

NiceGUI keeps its state in module globals, so that one process serves one set of pages. It prints
its port; `POST /do` calls a method of a part, `GET /heard` tells what the parts called.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from nicegui import ui

from antiphon.app.composer import Composer
from antiphon.app.message_list import MessageList

api = FastAPI()
parts: dict[str, Any] = {}
heard: list[list[Any]] = []
mode = "take"
changed = asyncio.Event()


async def on_send(text: str, id_: str) -> None:
    heard.append(["send", text, id_])
    if mode == "refuse":
        raise RuntimeError("refused, as the test asked")
    if mode == "hold":
        await changed.wait()


@ui.page("/")
def page(primary: str = "#1b66c9") -> None:
    heard.clear()
    ui.colors(primary=primary)
    ui.dark_mode(None)
    ui.query(".nicegui-content").style("padding:0")
    with ui.element("div").style("width:100vw;height:100dvh;display:flex;flex-direction:column"):
        parts["list"] = MessageList(
            on_older=lambda key: heard.append(["older", key]),
            on_seen=lambda key: heard.append(["seen", key]),
            on_retry=lambda key: heard.append(["retry", key]),
            on_discard=lambda key: heard.append(["discard", key]),
        )
        parts["box"] = Composer(on_send=on_send, on_keystroke=lambda: heard.append(["keystroke"]))


@api.post("/do")
async def do(request: Request) -> None:
    part, method, args, options = await request.json()
    getattr(parts[part], method)(*args, **options)
    # What was sent before is there when this is answered.
    await parts[part].client.run_javascript("0", timeout=20)


@api.post("/mode/{new}")
async def set_mode(new: str) -> None:
    """What `on_send` does: `take`, `refuse`, or `hold` until the next change."""
    global mode
    mode = new
    changed.set()
    changed.clear()


@api.get("/heard")
async def what_was_heard() -> list[list[Any]]:
    return heard


@api.post("/burst")
async def burst(request: Request) -> None:
    """Messages one by one, evenly over some seconds; each begins with the ms it was put at."""
    count, seconds = await request.json()
    start = time.monotonic()
    for number in range(count):
        wait = start + number * seconds / count - time.monotonic()
        await asyncio.sleep(max(0.0, wait))
        now = time.time() * 1000
        text = f"{now:.3f} is when message {number} was put"
        item = {"key": f"b{number}", "sender": "Ann", "sender_id": "7", "text": text, "at": now}
        parts["list"].put([item])


if __name__ == "__main__":
    ui.run_with(api, tailwind=False, reconnect_timeout=30, show_welcome_message=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(api, ws="wsproto", log_level="critical")
        uvicorn.Server(config).run(sockets=[listening])

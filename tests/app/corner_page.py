"""Small pages with the app's parts around a real session; a process of its own.

It has a server, a backend and Ali, who is logged in. It prints its port; a test commands it with
`POST /do/{what}`, and `GET /heard` tells what the pages' handlers were called with.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from nicegui import ui

from antiphon.app.banner import ConnectionBanner
from antiphon.app.connection import connection_screen
from antiphon.app.errors import show_error_dialog, show_error_snackbar
from antiphon.app.message_list import MessageList
from antiphon.app.notify import FAVICON, Attention
from antiphon.app.seats import Seats, View
from antiphon.app.settings_page import settings_screen
from antiphon.app.theme import apply_theme, avatar
from antiphon.chat.problems import Problem
from antiphon.errors import Unreachable
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App, Settings
from tests.chat.house import PASSWORD, House, open_house

APP = App(id="1", key="public-key", secret="app-secret", max_event_size=40_000)

heard: list[list[Any]] = []
parts: dict[str, Any] = {}
stack = contextlib.AsyncExitStack()
server: Server
house: House
seats: Seats


@contextlib.asynccontextmanager
async def life(_: FastAPI) -> AsyncIterator[None]:
    global server, house, seats
    server = Server(APP)
    await server.start()
    folder = Path(sys.argv[1])
    house = await stack.enter_async_context(open_house(server.settings(), folder))
    settings = Settings(app_key=APP.key, port=server.port, scheme="http", api_url=house.api_url)
    seats = Seats(settings, max_attempts=4)
    seat = (await ali()).seat
    await seat.log_in("ali@example.com", PASSWORD)
    assert seat.chat is not None
    await seat.chat.ready()
    parts["publisher"] = await stack.enter_async_context(Publisher(server.settings()))
    yield
    await seats.close()
    await server.stop()
    await stack.aclose()


api = FastAPI(lifespan=life)


async def ali() -> View:
    return await seats.view("browser")


@ui.page("/errors")
def errors(themed: bool = True) -> None:
    if themed:
        apply_theme()

    def problem(**other: Any) -> Problem:
        given: dict[str, Any] = {
            "kind": "connection",
            "title": "No connection",
            "explanation": "The server <b>does not</b> answer.",
            "advice": "Check the network.",
            "can_retry": True,
            "detail": "Unreachable: refused\ncode: none",
            "error": Unreachable("refused"),
        }
        return Problem(**{**given, **other})

    async def retried() -> None:
        heard.append(["retry"])

    def dialog(shown: Problem | str) -> None:
        show_error_dialog(
            shown,
            on_retry=retried,
            on_login=lambda: heard.append(["login"]),
            on_dismiss=lambda: heard.append(["dismiss"]),
        )

    def twice() -> None:
        dialog(problem())
        dialog(problem(detail="Another detail."))

    cases: dict[str, Any] = {
        "Connection": lambda: dialog(problem()),
        "Twice": twice,
        "Forbidden": lambda: dialog(problem(kind="subscription", can_retry=False)),
        "Login": lambda: dialog(problem(kind="subscription", can_retry=False, needs_login=True)),
        "Text": lambda: dialog("Only a text."),
        "Snack": lambda: show_error_snackbar(problem(kind="event"), on_retry=retried),
        "Snacks": lambda: [show_error_snackbar(problem()) for _ in range(3)],
    }
    for name, case in cases.items():
        ui.button(name, on_click=case)


@ui.page("/chat", favicon=FAVICON)
async def chat() -> None:
    view = await ali()
    apply_theme()
    assert view.seat.chat is not None
    ConnectionBanner(view.seat.chat, on_login=lambda: heard.append(["login"]))
    parts["attention"] = Attention(
        "antiphon",
        on_look=lambda looks: heard.append(["look", looks]),
        on_open=lambda tag: heard.append(["open", tag]),
    )


@ui.page("/avatars")
def avatars() -> None:
    apply_theme()
    for number in (1, 2, 77, 4711):
        avatar(f"User {number}", number).classes("other")
    avatar("Ünal Öz", "01J9Z3K8-é", 56, online=True)
    with ui.element("div").style("height: 400px; display: flex; flex-direction: column"):
        parts["list"] = MessageList(
            on_older=lambda key: None,
            on_seen=lambda key: None,
            on_retry=lambda key: None,
            on_discard=lambda key: None,
        )
    parts["list"].show(
        [
            {"key": f"{n}", "sender": f"User {n}", "sender_id": f"{n}", "text": "Hello"}
            for n in (1, 2, 77, 4711)
        ],
        has_older=False,
    )


@ui.page("/connection")
async def connection() -> None:
    view = await ali()
    parts["client"] = ui.context.client
    apply_theme()
    connection_screen(view)


@ui.page("/settings")
async def settings() -> None:
    view = await ali()
    apply_theme()
    settings_screen(view)


@api.post("/do/stop")
async def stop_server() -> None:
    await server.stop()


@api.post("/do/start")
async def start_server() -> None:
    global server
    server = Server(APP, port=server.port)
    await server.start()


@api.post("/do/renew")
async def renew() -> None:
    """The token is good no more, as after an administrator's word; the server says good-bye."""
    chat = (await ali()).seat.chat
    assert chat is not None
    await chat.rest.logout()
    await stop_server()
    await start_server()


@api.post("/do/listen")
async def listen() -> None:
    """What the newest page with details has said before is heard when this is answered."""
    await parts["client"].run_javascript("0", timeout=20)


@api.post("/do/publish")
async def publish(request: Request) -> None:
    """Events on Ali's channel: name, data, and how many."""
    name, data, times = await request.json()
    for _ in range(times):
        await parts["publisher"].trigger("private-user.1", name, data)


@api.post("/do/unread/{number}")
async def unread(number: int) -> None:
    parts["attention"].unread(number)


@api.post("/do/notify")
async def notify(request: Request) -> None:
    title, body, tag = await request.json()
    parts["attention"].notify(title, body, tag=tag)
    # It is there when this is answered.
    await parts["attention"].client.run_javascript("0", timeout=20)


@api.get("/heard")
async def what_was_heard() -> list[list[Any]]:
    return heard


if __name__ == "__main__":
    ui.run_with(
        api,
        dark=None,
        language="en-US",
        tailwind=False,
        reconnect_timeout=30,
        show_welcome_message=False,
        binding_refresh_interval=None,
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(
            api, ws="wsproto", log_level="critical", timeout_graceful_shutdown=1
        )
        asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))

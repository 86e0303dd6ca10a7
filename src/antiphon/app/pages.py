"""The addresses of the app, and what each one shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse
from nicegui import Client, app, ui
from nicegui.page import page as page_settings
from starlette.responses import Response

from antiphon.errors import AntiphonError

from .connection import connection_screen
from .screens.home import Home
from .screens.login import login_screen
from .seats import NoSeatFree, Seats, View
from .settings_page import settings_screen
from .theme import apply_theme, text

__all__ = ["register_pages"]

MAX_ARRIVING: Final = 200
"""Pages whose browser is not there yet; of more, the oldest are let go of."""
_CSS: Final = (Path(__file__).parent / "screens" / "screens.css").read_text(encoding="utf-8")


def register_pages(seats: Seats, *, title: str) -> None:
    """Show these seats' screens; what was registered before is replaced.

    Args:
        seats: Who sits at the app.
        title: The app's name.
    """

    async def sit(request: Request, client: Client) -> View | Response:
        """The tab's view; or what to answer instead."""
        _arrive(client)
        try:
            view = await seats.view(
                request.scope["state"]["browser"], request.query_params.get("as", "")
            )
        except NoSeatFree as exc:
            return Response(str(exc), status_code=503, media_type="text/plain")
        except AntiphonError as exc:
            return Response(str(exc), status_code=500, media_type="text/plain")
        client.on_delete(view.leave)
        if client.is_deleted:  # meanwhile
            view.leave()
        return view

    async def enter(request: Request, client: Client) -> View | Response:
        """The view of somebody who has logged in; or the way to the log-in."""
        view = await sit(request, client)
        if isinstance(view, View) and view.seat.chat is None:
            view.leave()
            return RedirectResponse(f"/login?next={quote(request.url.path)}", 303)
        return view

    @ui.page("/login", title=f"Log in - {title}")
    async def login(request: Request, client: Client) -> Response | None:
        view = await sit(request, client)
        if isinstance(view, Response):
            return view
        goal = _own_path(request.query_params.get("next", "/"))
        chat = view.seat.chat
        if chat is not None and not view.seat.needs_login:
            view.leave()
            return RedirectResponse(goal + view.seat.query, 303)
        _begin_page()
        login_screen(view.seat, title=title, on_done=lambda: ui.navigate.to(goal))
        return None

    async def home(request: Request, client: Client, conversation_id: str = "") -> Response | None:
        view = await enter(request, client)
        if isinstance(view, Response):
            return view
        _begin_page()
        Home(view, title=title, conversation_id=conversation_id or None)
        return None

    ui.page("/", title=title)(home)

    @ui.page("/c/{conversation_id:path}", title=title)
    async def conversation(
        request: Request, client: Client, conversation_id: str
    ) -> Response | None:
        return await home(request, client, conversation_id)

    def register(path: str, name: str, build: Callable[[View], None]) -> None:
        @ui.page(path, title=f"{name} - {title}")
        async def page(request: Request, client: Client) -> Response | None:
            view = await enter(request, client)
            if isinstance(view, Response):
                return view
            _begin_page()
            build(view)
            return None

    register("/connection", "Connection", connection_screen)
    register("/settings", "Settings", settings_screen)

    @ui.page("/demo", title=f"{title} demo")
    def demo(client: Client) -> Response | None:
        if not seats.guests:
            return RedirectResponse("/", 303)
        _arrive(client)
        _begin_page()
        with ui.element("main").classes("dm-page"):
            for name in seats.guests:
                frame = ui.element("iframe").classes("dm-frame")
                frame.props["src"] = f"/?as={quote(name)}"
                frame.props["title"] = f"{title} as {name}"
        return None

    app.exception_handler(404)(_no_such_page)


def _no_such_page(request: Request, _: Exception) -> Response:
    """What an address gets that leads nowhere."""
    if request.url.path.startswith("/_nicegui"):  # a file; no person looks at it
        return Response("There is no such file.", status_code=404, media_type="text/plain")
    with Client(page_settings("", title="Nothing here"), request=request) as client:
        _arrive(client)
        _begin_page()
        with ui.element("div").classes("hm-nothing alone"):
            ui.icon("explore_off").props('aria-hidden="true"')
            text("There is nothing here", "h1").classes("hm-nothing-title")
            ui.label("Check the address, or go back to your chats.").classes("ap-muted")
            guest = quote(request.query_params.get("as", ""))
            back = ui.button("Back to the chats").props("unelevated no-caps")
            back.props["href"] = f"/?as={guest}" if guest else "/"  # which makes it a link
    return client.build_response(request, 404)


_arriving: Final[dict[str, Client]] = {}


def _arrive(client: Client) -> None:
    """Wait for the page's browser; who only fetches pages is not to fill the memory."""
    _arriving[client.id] = client
    client.on_connect(lambda: _arriving.pop(client.id, None))
    client.on_delete(lambda: _arriving.pop(client.id, None))
    while len(_arriving) > MAX_ARRIVING:
        next(iter(_arriving.values())).delete()


def _begin_page() -> None:
    apply_theme()
    ui.add_head_html(f"<style>{_CSS}</style>")


def _own_path(path: str) -> str:
    """A path of this app; anything else is the start."""
    is_own = path.startswith("/") and not path.startswith(("//", "/\\", "/login"))
    return path if is_own and path.isprintable() else "/"

"""The console of a server: who may look, its page, and the stream of what happens.

Whoever has no session gets the log-in screen and the files of the page, which tell nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import html
import logging
import os
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary

import msgspec
from litestar import Request, Response, Router
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.handlers import BaseRouteHandler
from litestar.response import Redirect, Stream

from antiphon.server.hub import ClusterAway, Hub

from .door import Door, Seat, TooManyTries
from .routes import MAX_FORM, asking, doing, entering
from .watch import KEPT, PACE, Sample, Watch

__all__ = ["Console"]

log = logging.getLogger("antiphon.server.console")

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with no-referrer a form's Origin is "null"
    "X-Content-Type-Options": "nosniff",
}
TOKEN_HEADER: Final = "X-Console-Token"  # noqa: S105 - a header's name
MAX_FIELDS: Final = 4
_HERE: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Asked = Request[Any, Any, Any]


class Console:
    """The debug console of a server.

    Args:
        hubs: The applications', by id, as they are at the moment.
        path: Prefix of all the server's routes.
        password: Who knows it may look, and do what the console offers.
        lag: Tells by how many seconds the event loop is late.

    Raises:
        SettingsError: The password is too short.
    """

    def __init__(
        self, hubs: Mapping[str, Hub], path: str, password: str, lag: Callable[[], float]
    ) -> None:
        self.hubs = hubs
        self._lag = lag
        self._watches: dict[Hub, Watch] = {}  # while a console is open
        # An application that is gone takes along what was seen of it.
        self._seen: WeakKeyDictionary[Hub, deque[Sample]] = WeakKeyDictionary()
        self._door = Door(password)
        self._path = f"{path}/console"
        self._files = {
            file.name: file.read_bytes() for file in _HERE.iterdir() if file.suffix in _TYPES
        }
        self._page = (_HERE / "page.html").read_text(encoding="utf-8")
        self._login = (_HERE / "login.html").read_text(encoding="utf-8")

    def close(self) -> None:
        """End what is being told to open consoles: a server that stops would wait for it."""
        for watch in self._watches.values():
            watch.close_all()

    def routes(self) -> Router:
        """Everything under `/console`."""

        # Not the method itself: Litestar copies deeply what it is given.
        def guard(request: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
            self._guard(request)

        inside = Router("/", guards=[guard], route_handlers=[*asking(self), *doing(self)])
        return Router(
            "/console",
            route_handlers=[*entering(self), inside],
            response_headers=HEADERS,
            exception_handlers={HTTPException: _refuse, ClusterAway: _cluster_away},
        )

    # Who asks

    def seat(self, request: ASGIConnection[Any, Any, Any, Any]) -> Seat | None:
        """The session of who asks, which has 12 hours again."""
        now = time.monotonic()
        seat = self._door.find(request.cookies.get(_cookie_name(request), ""), now)
        if seat is not None:
            seat.seen = now
        return seat

    def _guard(self, request: ASGIConnection[Any, Any, Any, Any]) -> None:
        seat = self.seat(request)
        if seat is None:
            raise HTTPException("Log in first", status_code=401)
        if not isinstance(request, Request) or request.method == "GET":
            return
        token = request.headers.get(TOKEN_HEADER, "").encode()
        if not hmac.compare_digest(token, seat.token.encode()) or not _is_from_here(request):
            raise HTTPException("Reload the console: its token is not valid", status_code=403)

    # Coming and going

    def page(self, seat: Seat) -> Response[str]:
        """The console, for who is in."""
        return _html(self._page, {"path": self._path, "token": seat.token})

    def login(self, complaint: str = "", status: int = 200, **headers: str) -> Response[str]:
        """The log-in screen."""
        values = {"path": self._path, "complaint": complaint}
        return _html(self._login, values, status, headers)

    async def enter(self, request: Asked) -> Response[Any]:
        """Let somebody in who knows the password."""
        if not _is_from_here(request):
            return self.login("Log in from this page.", 403)
        # Strangers send it, and as often as they like: it must cost little.
        try:
            body = (await request.body()).decode("utf-8", "replace")
            form = parse_qs(body, max_num_fields=MAX_FIELDS)
        except RequestEntityTooLarge:
            return self.login(f"A form has {MAX_FORM} bytes at most.", 413)
        except ValueError:
            return self.login("The form has too many fields.", 400)
        try:
            cookie = self._door.enter(form.get("password", [""])[0], time.monotonic())
        except TooManyTries as exc:
            return self.login(str(exc), 429, **{"Retry-After": str(exc.retry_after)})
        if cookie is None:
            log.warning("a wrong password from %s", request.client and request.client.host)
            return self.login("The password is wrong.", 401)
        log.info("somebody has logged in from %s", request.client and request.client.host)
        return Redirect(
            self._path,
            status_code=303,
            cookies=[
                Cookie(
                    key=_cookie_name(request),
                    value=cookie,
                    path=self._path,
                    httponly=True,
                    samesite="strict",
                    secure=_is_over_tls(request),
                )
            ],
        )

    def leave(self, request: Asked) -> None:
        """End the session of who asks."""
        self._door.leave(request.cookies.get(_cookie_name(request), ""))

    def file(self, name: str) -> Response[bytes]:
        """A file of the page."""
        if name not in self._files:
            raise HTTPException("Not Found", status_code=404)
        return Response(self._files[name], media_type=_TYPES[Path(name).suffix])

    # What happens

    def hub(self, app_id: str) -> Hub:
        """An application's.

        Raises:
            HTTPException: There is none with this id.
        """
        if app_id not in self.hubs:
            raise HTTPException(f"There is no application with id {app_id!r}", status_code=404)
        return self.hubs[app_id]

    def stream(self, request: Asked, app_id: str) -> Stream:
        """What happens in an application, from now on.

        Raises:
            HTTPException: There is none with this id.
        """
        cookie = request.cookies.get(_cookie_name(request), "")
        return Stream(
            self._told(self.hub(app_id), cookie),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},  # nginx would hold it back
        )

    async def _told(self, hub: Hub, cookie: str) -> AsyncIterator[bytes]:
        """What happens, as server-sent events, until session, application or server ends."""
        watch = self._watches.get(hub)
        if watch is None:
            samples = self._seen.setdefault(hub, deque(maxlen=KEPT))
            watch = self._watches[hub] = Watch(hub, self._lag, samples)
        view = watch.open()
        app_id = hub.app.id
        try:
            while True:
                news = await view.news()
                is_in = self._door.find(cookie, time.monotonic()) is not None
                if view.is_closed or not is_in or self.hubs.get(app_id) is not hub:
                    return
                yield b"data: " + msgspec.json.encode(news) + b"\n\n"
                await asyncio.sleep(PACE)  # what comes meanwhile goes together
        finally:
            watch.close(view)
            if not watch.is_watched:
                del self._watches[hub]


def _cookie_name(request: ASGIConnection[Any, Any, Any, Any]) -> str:
    """Cookies know no ports: two servers on one machine would log each other's people out."""
    server = request.scope.get("server")
    if server is not None and server[1] is None:  # a Unix socket, by its path
        return f"antiphon-console-unix-{zlib.crc32(os.fsencode(server[0])):08x}"
    return f"antiphon-console-{server[1] if server else 0}"


def _is_over_tls(request: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Whether the browser speaks TLS, as far as is known.

    uvicorn believes a proxy that comes from 127.0.0.1 or ::1. Through a Unix socket none comes but
    a proxy, or a tunnel, which says nothing.
    """
    server = request.scope.get("server")
    is_unix = server is not None and server[1] is None
    told = request.headers.get("x-forwarded-proto", "").strip()
    return request.scope["scheme"] == "https" or (is_unix and told == "https")


def _is_from_here(request: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Whether a request comes from the console's own page, as far as the browser tells.

    Old browsers, and all without TLS but on this machine, send no `Sec-Fetch-Site`; all send an
    `Origin`. Its port is not looked at: proxies leave it out of `Host`.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or _host(origin) == _host(f"//{request.headers.get('host', '')}")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _html(
    page: str, values: Mapping[str, str], status: int = 200, headers: dict[str, str] | None = None
) -> Response[str]:
    for name, value in values.items():
        page = page.replace(f"{{{name}}}", html.escape(value))
    return Response(page, status_code=status, media_type="text/html", headers=headers)


def _refuse(request: Asked, exc: HTTPException) -> Response[dict[str, str]]:
    headers = {**HEADERS, **(exc.headers or {})}
    return Response({"error": exc.detail}, status_code=exc.status_code, headers=headers)


def _cluster_away(request: Asked, exc: ClusterAway) -> Response[dict[str, str]]:
    return Response({"error": str(exc)}, status_code=503, headers=HEADERS)

"""The server: one port for WebSocket and HTTP, in this process."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

from antiphon.errors import SettingsError
from antiphon.protocol.closing import Code
from antiphon.protocol.frames import encode
from antiphon.settings import App, Settings

from .api import create_api
from .apps import check_apps
from .http import HttpServer
from .hub import Hub
from .liveness import Liveness
from .session import Session
from .transport import Link, Request, WebSockets

__all__ = ["Server"]

log = logging.getLogger("antiphon.server")

CLOSE_PATIENCE: Final = 1.0
_MAX_ID: Final = 1_000_000_000
_PROTOCOLS: Final = ("5", "6", "7")


class Server:
    """A Pusher-compatible server.

    Use it as an async context manager, or `start` and `stop` it.

    Args:
        apps: The applications it serves.
        host: Address to listen on.
        port: TCP port; 0 takes a free one, which `port` then tells.
        path: Prefix of all routes, for a server behind a proxy.

    Raises:
        SettingsError: There is no application, or two share an id or a key.
    """

    def __init__(
        self,
        apps: Iterable[App] | App,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "",
    ) -> None:
        apps = (apps,) if isinstance(apps, App) else tuple(apps)
        check_apps(apps)
        self.host = host
        self.port = port
        self._path = "/" + path.strip("/") if path.strip("/") else ""
        self._hubs = {app.key: Hub(app) for app in apps}
        self._liveness = Liveness()
        self._http: HttpServer | None = None

    def settings(self, app_id: str | None = None) -> Settings:
        """What a client or a publisher needs to use one application, the first by default.

        Raises:
            SettingsError: No application has this id.
        """
        for hub in self._hubs.values():
            if app_id in (None, hub.app.id):
                return Settings(
                    app_key=hub.app.key,
                    app_id=hub.app.id,
                    app_secret=hub.app.secret,
                    host=self.host,
                    port=self.port,
                    scheme="http",
                    path=self._path,
                )
        raise SettingsError(f"This server has no application with id {app_id!r}.")

    # Life

    async def start(self) -> None:
        """Listen; returns when connections are accepted.

        Raises:
            SettingsError: The address cannot be listened on.
        """
        limit = max(hub.app.max_message_size for hub in self._hubs.values())
        self._websockets = WebSockets(self._accept, limit)
        http = HttpServer(
            create_api({hub.app.id: hub for hub in self._hubs.values()}, self._path),
            host=self.host,
            port=self.port,
            websocket=self._websockets,
        )
        self._http = http
        try:
            await http.start()
        except BaseException:
            self._http = None
            raise
        self.port = http.port
        self._liveness.start()
        log.info("listening on %s:%d", self.host, self.port)

    async def stop(self) -> None:
        """Close every connection with 4200, so that clients look for another node, and end."""
        http, self._http = self._http, None
        if http is None:
            return
        # Who is sent away must not come straight back.
        http.stop_accepting()
        self._liveness.stop()
        for hub in self._hubs.values():
            for session in list(hub.sockets.values()):
                assert isinstance(session, Session)
                session.close(Code.RECONNECT, "The server is going down; reconnect")
        # Before uvicorn ends: from Python 3.12 on, a listener waits for its connections.
        await self._websockets.close(CLOSE_PATIENCE)
        await http.stop()
        await self._websockets.close(0)  # who was upgrading meanwhile
        log.info("stopped")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # Connections

    def _accept(self, request: Request) -> Link | None:
        """The connection for an upgrade request; None for a path that is none of ours."""
        if self._http is None:
            return None  # on its way down
        prefix = f"{self._path}/app/"
        key = request.path.removeprefix(prefix)
        if not request.path.startswith(prefix) or not key or "/" in key:
            return None
        hub = self._hubs.get(key)
        if hub is None:
            return _refusal(Code.UNKNOWN_APP, "Application does not exist")
        if not _origin_allowed(request.origin, hub.app.allowed_origins):
            return _refusal(Code.UNAUTHORIZED, "Origin not allowed")
        version = parse_qs(request.query).get("protocol", ["7"])[0]
        if version not in _PROTOCOLS:
            known = ", ".join(_PROTOCOLS)
            return _refusal(Code.BAD_PROTOCOL, f"Unsupported protocol version; known are {known}")
        if 0 < hub.app.max_connections <= len(hub.sockets):
            return _refusal(Code.OVER_QUOTA, "Application is over connection quota")
        link = Link(hub.app.max_message_size)
        link.receiver = Session(link, hub, self._liveness, _new_socket_id(hub))
        return link


class _Refusal:
    """Tells a client that it may not connect, in-band and with the close code.

    The protocol asks for the code; clients of Reverb look at the message.
    """

    def __init__(self, link: Link, code: Code, reason: str) -> None:
        self._link = link
        self._code = code
        self._reason = reason

    def connected(self) -> None:
        """Say why, and close."""
        error = {"code": int(self._code), "message": self._reason}
        self._link.send(encode("pusher:error", error))
        self._link.close(self._code, self._reason)

    def received(self, text: str) -> None:
        """Nothing a refused client says matters."""

    def received_binary(self) -> None:
        """Nothing a refused client says matters."""

    def alive(self) -> None:
        """Nothing a refused client says matters."""

    def disconnected(self) -> None:
        """Nothing was kept."""


def _refusal(code: Code, reason: str) -> Link:
    link = Link(max_message_size=1024)
    link.receiver = _Refusal(link, code, reason)
    return link


def _origin_allowed(origin: str | None, patterns: tuple[str, ...]) -> bool:
    """Whether a page's host matches one of the globs; programs send no Origin and may connect."""
    if not patterns or origin is None:
        return True
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        return False
    return any(fnmatchcase(host, pattern.lower()) for pattern in patterns)


def _new_socket_id(hub: Hub) -> str:
    while True:
        socket_id = f"{1 + secrets.randbelow(_MAX_ID)}.{1 + secrets.randbelow(_MAX_ID)}"
        if socket_id not in hub.sockets:
            return socket_id

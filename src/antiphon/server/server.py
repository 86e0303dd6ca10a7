"""The server: one port for WebSocket and HTTP, in this process."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Iterable
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import parse_qs, urlsplit

import msgspec

from antiphon.errors import SettingsError
from antiphon.http import HttpClient
from antiphon.protocol.closing import Code
from antiphon.protocol.frames import encode
from antiphon.settings import App, Settings

from .addresses import Addresses, Proxies
from .api import create_api
from .apps import check_apps
from .console import Console
from .http import HttpServer
from .hub import Hub
from .listener import load_certificate
from .liveness import Liveness
from .metrics import Siblings, Traffic, exposition
from .session import Session
from .transport import Link, Request, WebSockets
from .webhooks import Webhooks

if TYPE_CHECKING:
    from .redis_broker import RedisBroker

__all__ = ["Server"]

log = logging.getLogger("antiphon.server")

CLOSE_PATIENCE: Final = 1.0
TELL_EVERY: Final = 2.0
"""Seconds after which other processes at this address are told the metrics again."""
_GOING_DOWN: Final = "The server is going down; reconnect"
_MAX_ID: Final = 1_000_000_000
_PROTOCOLS: Final = ("5", "6", "7")


class Server:
    """A Pusher-compatible server.

    Use it as an async context manager, or `start` and `stop` it.

    Args:
        apps: The applications it serves.
        host: Address to listen on; `::` for IPv6 and IPv4.
        port: TCP port; 0 takes a free one, which `port` then tells.
        path: Prefix of all routes, for a server behind a proxy.
        unix: Path of a Unix socket to listen on, instead of host and port; its owner and its group
            may connect.
        listening: A socket that listens already, instead of all these; it stays open.
        tls: PEM files of the certificate and its key, to speak TLS; `reload_tls` reads them again.
        metrics_token: The Bearer token that `/metrics` asks for; without one there are no metrics.
        siblings: Other processes at this address, whose metrics it tells along.
        console_password: Opens the debug console at `/console`; 12 characters or more. Without one
            there is no console.
        trusted_proxies: Addresses or networks of the proxies whose `X-Forwarded-For` is believed;
            one at the other end of a Unix socket always is.
        max_connections_per_address: Open connections from one address; 0 for no limit.
        max_connects_per_minute: New connections from one address in a minute; 0 for no limit.
        drain: Seconds over which `stop` spreads the closing of connections.
        redis: The Redis through which this server and others are one, such as
            `redis://127.0.0.1:6379/0`; needs the extra `redis`. Without it this one is alone.
        redis_prefix: Begins all its keys there, so that several installations can share a Redis.

    Raises:
        SettingsError: There is no application, or two share an id or a key; a trusted proxy is no
            address; the console's password is too short; or `redis` is given and the extra is not
            installed.
    """

    def __init__(
        self,
        apps: Iterable[App] | App,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "",
        unix: str | Path = "",
        listening: socket.socket | None = None,
        tls: tuple[str | Path, str | Path] | None = None,
        metrics_token: str = "",
        siblings: Siblings | None = None,
        console_password: str = "",
        trusted_proxies: Iterable[str] = (),
        max_connections_per_address: int = 0,
        max_connects_per_minute: int = 0,
        drain: float = 0.0,
        redis: str = "",
        redis_prefix: str = "antiphon",
    ) -> None:
        apps = (apps,) if isinstance(apps, App) else tuple(apps)
        check_apps(apps)
        self.host = host
        self.port = port
        self._unix = str(unix)
        self._listening = listening
        self._tls = tls
        self._metrics_token = metrics_token
        self._siblings = siblings
        self._proxies = Proxies(trusted_proxies)
        self._addresses = Addresses(max_connections_per_address, max_connects_per_minute)
        self._drain = drain
        self._path = "/" + path.strip("/") if path.strip("/") else ""
        self._webhook_client = HttpClient(timeout=15.0, max_answer=64 * 1024)
        self._hubs = {app.key: Hub(app) for app in apps}
        self._by_id = {hub.app.id: hub for hub in self._hubs.values()}
        self._broker = _broker(redis, self._hubs.values(), redis_prefix) if redis else None
        self._liveness = Liveness()
        self._console: Console | None = None
        if console_password:
            self._console = Console(self._by_id, self._path, console_password, self._lag)
        self._http: HttpServer | None = None
        self._telling: asyncio.Task[None] | None = None

    def settings(self, app_id: str | None = None) -> Settings:
        """What a client or a publisher needs to use one application, the first by default.

        Raises:
            SettingsError: No application has this id, or the server listens on a Unix socket.
        """
        if self._unix:
            raise SettingsError("A server on a Unix socket has no address but its proxy's.")
        for hub in self._hubs.values():
            if app_id in (None, hub.app.id):
                return Settings(
                    app_key=hub.app.key,
                    app_id=hub.app.id,
                    app_secret=hub.app.secret,
                    host=self.host,
                    port=self.port,
                    scheme="http" if self._tls is None else "https",
                    path=self._path,
                )
        raise SettingsError(f"This server has no application with id {app_id!r}.")

    @property
    def url(self) -> str:
        """The address it listens on."""
        return f"unix:{self._unix}" if self._unix else self.settings().http_url

    # Life

    async def start(self) -> None:
        """Listen; returns when connections are accepted.

        Raises:
            SettingsError: The address cannot be listened on, or the certificate cannot be used.
        """
        for hub in self._hubs.values():
            self._open(hub)
        self._websockets = WebSockets(self._accept, self._largest_message())
        http = HttpServer(
            create_api(
                self._by_id,
                self._path,
                is_ready=lambda: self._http is not None,
                metrics=self._metrics,
                metrics_token=self._metrics_token,
                more=() if self._console is None else (self._console.routes(),),
            ),
            host=self.host,
            port=self.port,
            unix=self._unix,
            listening=self._listening,
            tls=None if self._tls is None else load_certificate(*self._tls),
            websocket=self._websockets,
        )
        self._http = http
        try:
            await http.start()
        except BaseException:
            self._http = None
            raise
        self.port = http.port
        if self._broker is not None:
            try:
                await self._broker.start()
            except BaseException:
                await self.stop()
                raise
        self._liveness.start()
        if self._siblings is not None and self._metrics_token:
            self._telling = asyncio.create_task(self._tell_siblings(self._siblings))
        if self._listening is not None:
            log.info("serving")
        elif self._unix:
            log.info("listening on %s", self._unix)
        else:
            log.info("listening on %s:%d", self.host, self.port)

    def _open(self, hub: Hub) -> None:
        hub.webhooks = Webhooks(hub.app, self._webhook_client)
        hub.webhooks.is_one_of_many = self._broker is not None
        hub.addresses = self._addresses

    def _largest_message(self) -> int:
        return max(hub.app.max_message_size for hub in self._hubs.values())

    async def change_apps(self, apps: Iterable[App]) -> None:
        """Serve these applications from now on, in place of those from before.

        Who is connected stays, with the new limits from its next message on (that of a message's
        size stays), unless its application is gone (4001) or disabled (4003). An application is the
        same as long as its id is.

        Args:
            apps: All applications there are to be.

        Raises:
            SettingsError: There is none, or two share an id or a key; those from before go on.
        """
        apps = tuple(apps)
        check_apps(apps)
        hubs = [self._by_id.get(app.id) or Hub(app) for app in apps]
        gone = [hub for hub in self._by_id.values() if hub not in hubs]
        replaced: list[Webhooks] = []
        for hub, app in zip(hubs, apps, strict=True):
            if hub.app.id not in self._by_id:
                self._begin(hub)
            elif hub.app != app:
                is_same = _webhooks_of(hub.app) == _webhooks_of(app)
                hub.change(app)
                if not is_same:
                    replaced.append(hub.webhooks)
                    self._open(hub)
        self._hubs.clear()
        self._hubs.update((hub.app.key, hub) for hub in hubs)
        self._by_id.clear()  # the HTTP API has the same
        self._by_id.update((hub.app.id, hub) for hub in hubs)
        if self._http is not None:
            self._websockets.max_message_size = self._largest_message()
        for hub in gone:
            _send_away(hub, Code.UNKNOWN_APP, "Application does not exist")
            hub.close()
            replaced.append(hub.webhooks)
        for hub in hubs:
            if not hub.app.enabled:
                _send_away(hub, Code.APP_DISABLED, "Application disabled")
        try:
            if self._broker is not None:
                await asyncio.gather(*(self._broker.remove(hub) for hub in gone))
        finally:
            await asyncio.gather(*(webhooks.close() for webhooks in replaced))

    def _begin(self, hub: Hub) -> None:
        """Serve one more application."""
        self._open(hub)
        if self._broker is not None:
            self._broker.add(hub)

    def reload_tls(self) -> None:
        """Read the certificate and its key again, for who connects from now on; others stay.

        Raises:
            SettingsError: They cannot be used; those from before go on.
        """
        if self._tls is not None and self._http is not None:
            self._http.exchange_tls(load_certificate(*self._tls))
            log.info("the certificate was read again")

    async def stop(self) -> None:
        """Close every connection with 4200, so that clients look for another node, and end.

        The closing is spread over `drain` seconds, in which HTTP is answered, `/ready` with 503,
        and nobody is let in. Who cancels this has the rest closed at once; it still ends well.
        """
        http, self._http = self._http, None
        if http is None:
            return
        if not self._drain:
            http.stop_accepting()  # who is sent away must not come straight back
        try:
            await self._send_away()
        finally:
            http.stop_accepting()
            if self._telling is not None:
                self._telling.cancel()
            self._liveness.stop()
            if self._console is not None:
                self._console.close()
            for hub in self._hubs.values():
                hub.close()
                _send_away(hub, Code.RECONNECT, _GOING_DOWN)
            try:
                await self._websockets.close(CLOSE_PATIENCE)
            finally:
                await http.stop()
                await self._websockets.close(0)  # who was upgrading meanwhile
                if self._broker is not None:
                    await self._broker.stop()
                for hub in self._hubs.values():
                    await hub.webhooks.close()
                await self._webhook_client.close()
                log.info("stopped")

    async def _send_away(self) -> None:
        """Close who is connected, one after the other, evenly over the drain."""
        everyone = [
            (hub, socket_id, session)
            for hub in self._hubs.values()
            for socket_id, session in hub.sockets.items()
        ]
        if self._drain and everyone:
            log.info("closing %d connections within %g s", len(everyone), self._drain)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, (hub, socket_id, session) in enumerate(everyone):
            if socket_id not in hub.sockets:
                continue  # it has gone by itself
            delay = began + self._drain * number / len(everyone) - loop.time()
            if delay > 0:
                await asyncio.sleep(delay)
            hub.fanout.flush()  # what was published before
            session.close(Code.RECONNECT, _GOING_DOWN)

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

    def _lag(self) -> float:
        return self._liveness.lag

    def _metrics(self) -> str:
        own = self._own_metrics()
        return own if self._siblings is None else self._siblings.merged(own)

    def _own_metrics(self) -> str:
        unread = self._websockets.unread.size
        return exposition(self._hubs.values(), self._liveness.lag, self._http is not None, unread)

    async def _tell_siblings(self, siblings: Siblings) -> None:
        while True:
            try:
                siblings.tell(self._own_metrics())
            except OSError as exc:
                log.warning("the other workers do not know this one's metrics: %s", exc)
            await asyncio.sleep(TELL_EVERY)

    def _accept(self, request: Request) -> Link | HTTPStatus:
        """The connection for an upgrade request, or the status to refuse it with."""
        if self._http is None:
            return HTTPStatus.SERVICE_UNAVAILABLE  # on its way down
        prefix = f"{self._path}/app/"
        key = request.path.removeprefix(prefix)
        if not request.path.startswith(prefix) or not key or "/" in key:
            return HTTPStatus.NOT_FOUND
        hub = self._hubs.get(key)
        address = self._proxies.client(request.peer, request.forwarded)
        reason = self._addresses.refusal(address)
        if reason is not None:
            return _refusal(Code.OVER_CAPACITY, reason, hub, request)
        if hub is None:
            return _refusal(Code.UNKNOWN_APP, "Application does not exist")
        if not hub.app.enabled:
            return _refusal(Code.APP_DISABLED, "Application disabled", hub, request)
        if not _origin_allowed(request.origin, hub.app.allowed_origins):
            return _refusal(Code.UNAUTHORIZED, "Origin not allowed", hub, request)
        version = parse_qs(request.query).get("protocol", ["7"])[0]
        if version not in _PROTOCOLS:
            known = ", ".join(_PROTOCOLS)
            words = f"Unsupported protocol version; known are {known}"
            return _refusal(Code.BAD_PROTOCOL, words, hub, request)
        if hub.is_full:
            words = "Application is over connection quota"
            return _refusal(Code.OVER_QUOTA, words, hub, request)
        link = Link(hub.app.max_message_size, hub.traffic)
        link.receiver = Session(
            link, hub, self._liveness, _new_socket_id(hub), address, request.origin
        )
        return link


def _broker(url: str, hubs: Iterable[Hub], prefix: str) -> RedisBroker:
    try:
        from .redis_broker import RedisBroker  # only who has other nodes pays for it
    except ModuleNotFoundError as exc:
        raise SettingsError(
            "A server with other nodes needs the extra redis: pip install 'antiphon[redis]'."
        ) from exc
    return RedisBroker(url, hubs, prefix=prefix)


def _webhooks_of(app: App) -> object:
    """What an application's webhooks depend on."""
    return app.webhooks, app.key, app.secret


def _send_away(hub: Hub, code: Code, reason: str) -> None:
    hub.fanout.flush()  # what was published before
    for session in list(hub.sockets.values()):
        session.close(code, reason)


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


def _refusal(
    code: Code, reason: str, hub: Hub | None = None, request: Request | None = None
) -> Link:
    if hub is not None:
        hub.traffic.refused += 1
    if hub is not None and hub.tap is not None:
        origin = None if request is None else request.origin
        why = {"code": int(code), "reason": reason, "origin": origin}
        hub.tap.note("refused", data=msgspec.json.encode(why).decode())
    link = Link(1024, Traffic())  # not the application's
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

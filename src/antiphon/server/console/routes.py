"""The console's routes: what everybody may ask, what is told, and what is done.

Who may ask what, `Console` has found out before.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.params import FromPath
from litestar.response import Stream

from antiphon.errors import InvalidName
from antiphon.protocol.channels import Access, access_of, check_channel_name, check_event_name
from antiphon.protocol.closing import Code
from antiphon.server.api import NO_SOCKET_ID, is_socket_id
from antiphon.server.hub import Hub
from antiphon.server.session import Session

from .tables import channel_details, channel_page, connection_details, connection_page

if TYPE_CHECKING:
    from .console import Console

__all__ = ["asking", "doing", "entering"]

log = logging.getLogger("antiphon.server.console")

MAX_SEARCH: Final = 200
MAX_PAGE: Final = 999_999_999
MAX_FORM: Final = 4096

Asked = Request[Any, Any, Any]


def entering(console: Console) -> list[Any]:
    """The routes for everybody."""

    @get("/", sync_to_thread=False)
    def page(request: Asked) -> Response[str]:
        seat = console.seat(request)
        return console.login() if seat is None else console.page(seat)

    @post("/login", request_max_body_size=MAX_FORM)
    async def login(request: Asked) -> Response[Any]:
        return await console.enter(request)

    @get("/files/{name:str}", sync_to_thread=False)
    def file(name: FromPath[str]) -> Response[bytes]:
        return console.file(name)

    return [page, login, file]


def asking(console: Console) -> list[Any]:
    """The routes that only tell."""

    @get("/apps", sync_to_thread=False)
    def apps() -> list[dict[str, Any]]:
        return [
            {
                "id": hub.app.id,
                "key": hub.app.key,
                "enabled": hub.app.enabled,
                "cluster": hub.broker is not None,
            }
            for hub in console.hubs.values()
        ]

    @get("/apps/{app_id:str}/stream")
    async def stream(request: Asked, app_id: FromPath[str]) -> Stream:
        return console.stream(request, app_id)

    @get("/apps/{app_id:str}/cluster")
    async def cluster(app_id: FromPath[str]) -> dict[str, int]:
        hub = console.hub(app_id)
        counts = await hub.counts()
        return {
            "connections": await hub.connections(),
            "channels": len(counts),
            "subscriptions": sum(counts.values()),
        }

    @get("/apps/{app_id:str}/connections")
    async def connections(request: Asked, app_id: FromPath[str]) -> dict[str, Any]:
        return await connection_page(console.hub(app_id), *_wanted(request))

    @get("/apps/{app_id:str}/connections/{socket_id:str}", sync_to_thread=False)
    def connection(app_id: FromPath[str], socket_id: FromPath[str]) -> dict[str, Any]:
        return connection_details(_session(console.hub(app_id), socket_id))

    @get("/apps/{app_id:str}/channels")
    async def channels(request: Asked, app_id: FromPath[str]) -> dict[str, Any]:
        return await channel_page(console.hub(app_id), *_wanted(request))

    # The name is no part of the path: that of a user's channel may have a slash in it.
    @get("/apps/{app_id:str}/channel", sync_to_thread=False)
    def channel(request: Asked, app_id: FromPath[str]) -> dict[str, Any]:
        details = channel_details(console.hub(app_id), _query(request, "name"))
        if details is None:
            raise HTTPException("Nobody on this node is in this channel", status_code=404)
        return details

    return [apps, stream, cluster, connections, connection, channels, channel]


class _Publication(msgspec.Struct):
    channel: str
    event: str
    data: str
    socket_id: str = ""


class _Kick(msgspec.Struct):
    channel: str
    user_id: str = ""
    socket_id: str = ""


def doing(console: Console) -> list[Any]:
    """The routes that change something."""

    @post("/logout", status_code=204)
    async def logout(request: Asked) -> None:
        console.leave(request)

    @post("/apps/{app_id:str}/connections/{socket_id:str}/terminate", status_code=204)
    async def terminate(app_id: FromPath[str], socket_id: FromPath[str]) -> None:
        session = _session(console.hub(app_id), socket_id)
        session.close(Code.UNAUTHORIZED, "The connection was terminated")
        log.info("application %s: connection %s was terminated", app_id, socket_id)

    @post("/apps/{app_id:str}/kick", status_code=204)
    async def kick(request: Asked, app_id: FromPath[str]) -> None:
        who = await _body(request, _Kick)
        if not who.user_id and not who.socket_id:
            raise HTTPException("Name a user or a connection", status_code=400)
        hub = console.hub(app_id)
        hub.kick(who.channel, user_id=who.user_id, socket_id=who.socket_id)
        log.info(
            "application %s: user %r, connection %r was taken out of %r",
            app_id,
            who.user_id,
            who.socket_id,
            who.channel,
        )

    @post("/apps/{app_id:str}/publish", status_code=200)
    async def publish(request: Asked, app_id: FromPath[str]) -> dict[str, int]:
        publication = await _body(request, _Publication)
        hub = console.hub(app_id)
        began = time.perf_counter()
        _check(publication, hub)
        channel = publication.channel
        hub.trigger(channel, publication.event, publication.data, publication.socket_id or None)
        hub.traffic.publish(1, time.perf_counter() - began)
        log.info("application %s: %r was published on %r", app_id, publication.event, channel)
        return {"subscribers": hub.count_here(channel)}

    return [logout, terminate, kick, publish]


def _check(publication: _Publication, hub: Hub) -> None:
    """Refuse what the HTTP API refuses, and what is no JSON."""
    if access_of(publication.channel) is Access.ENCRYPTED:
        raise HTTPException(
            "Only your backend has the key of an encrypted channel: publish there from it",
            status_code=400,
        )
    if publication.socket_id and not is_socket_id(publication.socket_id):
        raise HTTPException(NO_SOCKET_ID, status_code=400)
    try:
        check_channel_name(publication.channel, hub.app.max_channel_name)
        check_event_name(publication.event)
        msgspec.json.decode(publication.data)
    except InvalidName as exc:
        raise HTTPException(str(exc), status_code=400) from exc
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise HTTPException(f"The data is no JSON: {exc}", status_code=400) from exc
    size, limit = len(publication.data.encode()), hub.app.max_event_size
    if size > limit:
        reason = f"The event's data has {size} bytes; {limit} are allowed"
        raise HTTPException(reason, status_code=413)


def _session(hub: Hub, socket_id: str) -> Session:
    session = hub.sockets.get(socket_id)
    if not isinstance(session, Session):
        raise HTTPException("This node has no such connection (any more)", status_code=404)
    return session


def _wanted(request: Asked) -> tuple[str, int]:
    """What a table is to show: what to search for, and which page."""
    page = _query(request, "page")
    if len(page) > len(str(MAX_PAGE)):  # Python refuses to read thousands of digits
        raise HTTPException(f"There is no page after {MAX_PAGE}", status_code=400)
    return _query(request, "search")[:MAX_SEARCH], int(page) if page.isdecimal() else 0


def _query(request: Asked, name: str) -> str:
    return str(request.query_params.get(name, ""))


async def _body(request: Asked, type_: type[Any]) -> Any:
    try:
        return msgspec.json.decode(await request.body(), type=type_)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise HTTPException(f"The body cannot be used: {exc}", status_code=400) from exc

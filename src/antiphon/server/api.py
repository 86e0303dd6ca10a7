"""The HTTP API: what a backend may ask of the server. Pusher documentation, *REST API*.

Every request but `/up` is signed. Errors are `{"error": …}` with the status Pusher documents.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from antiphon.errors import InvalidName
from antiphon.protocol.channels import Access, access_of, check_channel_name, check_event_name
from antiphon.protocol.frames import encode
from antiphon.protocol.signing import RequestSignatureInvalid, verify_request

from .hub import Channel, Hub

__all__ = ["create_api"]

T = TypeVar("T")

MAX_CHANNELS: Final = 100
MAX_BATCH: Final = 10
MAX_BODY: Final = 1024 * 1024


def create_api(hubs: Mapping[str, Hub], path: str) -> Litestar:
    """The HTTP API of a server.

    Args:
        hubs: The applications' hubs, by application id.
        path: Prefix of all routes; signatures leave it out.
    """

    async def authenticated_hub(request: Request[Any, Any, Any], app_id: FromPath[str]) -> Hub:
        hub = hubs.get(app_id)
        if hub is None:
            raise HTTPException(f"There is no application with id {app_id!r}", status_code=404)
        await _verify(request, hub, path)
        return hub

    return Litestar(
        route_handlers=[up, events, batch_events, channels, channel, channel_users],
        path=path or "/",
        dependencies={"hub": Provide(authenticated_hub)},
        exception_handlers={HTTPException: _refuse},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=MAX_BODY,
    )


async def _verify(request: Request[Any, Any, Any], hub: Hub, prefix: str) -> None:
    scope = request.scope
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    try:
        verify_request(
            hub.app.key,
            hub.app.secret,
            scope["method"],
            scope["raw_path"].decode("latin-1").removeprefix(prefix),
            query,
            await request.body(),
            now=time.time(),
        )
    except RequestSignatureInvalid as exc:
        raise HTTPException(f"The request is not signed rightly: {exc}", status_code=401) from exc


@get("/up", sync_to_thread=False)
def up() -> dict[str, str]:
    """Whether the server runs; unsigned, as Reverb has it."""
    return {"health": "OK"}


# Publishing


class _Publication(msgspec.Struct):
    name: str
    data: Any
    channel: str | None = None
    channels: list[str] = msgspec.field(default_factory=list)
    socket_id: str | None = None
    info: str | None = None

    def targets(self) -> list[str]:
        return self.channels or ([self.channel] if self.channel else [])


class _Batch(msgspec.Struct):
    batch: list[_Publication]


@post("/apps/{app_id:str}/events", status_code=200)
async def events(request: Request[Any, Any, Any], hub: NamedDependency[Hub]) -> dict[str, Any]:
    """Publish one event to up to 100 channels."""
    publication = _body(await request.body(), _Publication)
    _check(publication, hub)
    _publish(publication, hub)
    if publication.info is None:
        return {}
    return {
        "channels": {name: _info(hub, name, publication.info) for name in publication.targets()}
    }


@post("/apps/{app_id:str}/batch_events", status_code=200)
async def batch_events(
    request: Request[Any, Any, Any], hub: NamedDependency[Hub]
) -> dict[str, Any]:
    """Publish up to 10 events, in order; all or none."""
    batch = _body(await request.body(), _Batch).batch
    if not 1 <= len(batch) <= MAX_BATCH:
        raise HTTPException(f"A batch holds 1 to {MAX_BATCH} events", status_code=400)
    for publication in batch:
        _check(publication, hub)
    for publication in batch:
        _publish(publication, hub)
    if all(publication.info is None for publication in batch):
        return {}
    return {"batch": [_info(hub, p.targets()[0], p.info or "") for p in batch]}


def _check(publication: _Publication, hub: Hub) -> None:
    """Refuse what may not be published, before any of it is."""
    targets = publication.targets()
    if not 1 <= len(targets) <= MAX_CHANNELS:
        raise HTTPException(f"An event goes to 1 to {MAX_CHANNELS} channels", status_code=400)
    encrypted = [name for name in targets if access_of(name) is Access.ENCRYPTED]
    if encrypted and len(targets) > 1:
        raise HTTPException("An encrypted channel must be published to alone", status_code=400)
    try:
        check_event_name(publication.name)
        for name in targets:
            check_channel_name(name, hub.app.max_channel_name)
    except InvalidName as exc:
        raise HTTPException(str(exc), status_code=400) from exc
    if not isinstance(publication.data, str):
        # The documents want a string; an object is what people mean who send one.
        publication.data = msgspec.json.encode(publication.data).decode()
    size = len(publication.data.encode())
    if size > hub.app.max_event_size:
        limit = hub.app.max_event_size
        raise HTTPException(
            f"The event's data has {size} bytes; {limit} are allowed", status_code=413
        )


def _publish(publication: _Publication, hub: Hub) -> None:
    for name in publication.targets():
        message = encode(publication.name, publication.data, name)
        hub.publish(name, message, publication.socket_id)


# Asking


@get("/apps/{app_id:str}/channels")
async def channels(request: Request[Any, Any, Any], hub: NamedDependency[Hub]) -> dict[str, Any]:
    """The occupied channels, by name."""
    prefix, info = _query(request, "filter_by_prefix"), _query(request, "info")
    if "user_count" in info.split(",") and not prefix.startswith("presence-"):
        raise HTTPException(
            "user_count is known for presence channels only: filter_by_prefix=presence-",
            status_code=400,
        )
    names = [name for name in hub.channels if name.startswith(prefix)]
    return {"channels": {name: _info(hub, name, info) for name in names}}


@get("/apps/{app_id:str}/channels/{name:str}")
async def channel(
    request: Request[Any, Any, Any], hub: NamedDependency[Hub], name: FromPath[str]
) -> dict[str, Any]:
    """Whether one channel is occupied, and what else was asked."""
    return {"occupied": name in hub.channels, **_info(hub, name, _query(request, "info"))}


@get("/apps/{app_id:str}/channels/{name:str}/users")
async def channel_users(hub: NamedDependency[Hub], name: FromPath[str]) -> dict[str, Any]:
    """The users in one presence channel."""
    if access_of(name) is not Access.PRESENCE:
        raise HTTPException("Only presence channels know their users", status_code=400)
    found = hub.channels.get(name)
    return {"users": [{"id": id_} for id_ in found.members] if found is not None else []}


def _info(hub: Hub, name: str, info: str) -> dict[str, int]:
    """The attributes asked for, as far as the channel has them."""
    asked = info.split(",")
    known: dict[str, int] = {}
    found = hub.channels.get(name) or Channel(name)
    if "user_count" in asked and found.is_presence:
        known["user_count"] = len(found.members)
    if "subscription_count" in asked and not found.is_presence:
        known["subscription_count"] = len(found.subscribers)
    return known


def _query(request: Request[Any, Any, Any], name: str) -> str:
    return str(request.query_params.get(name, ""))


def _body(raw: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise HTTPException(f"The body cannot be used: {exc}", status_code=400) from exc


def _refuse(request: Request[Any, Any, Any], exc: HTTPException) -> Response[dict[str, str]]:
    return Response({"error": exc.detail}, status_code=exc.status_code, headers=exc.headers)

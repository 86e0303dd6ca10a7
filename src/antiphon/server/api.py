"""The HTTP API: what a backend may ask of the server. Pusher documentation, *REST API*.

Every request but `/up`, `/ready` and `/metrics` is signed. Errors are `{"error": …}` with the
status Pusher documents.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from hmac import compare_digest
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import HttpMethod, Litestar, Request, Response, Router, get, post, route
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.params import FromPath
from litestar.types import ASGIApp, HTTPScope, Receive, Send

from antiphon.errors import InvalidName
from antiphon.protocol.channels import Access, access_of, check_channel_name, check_event_name
from antiphon.protocol.signing import RequestSignatureInvalid, verify_request

from .hub import ClusterAway, Hub
from .metrics import CONTENT_TYPE

__all__ = ["NO_SOCKET_ID", "create_api", "is_socket_id"]

T = TypeVar("T")

MAX_CHANNELS: Final = 100
MAX_BATCH: Final = 10
MAX_BODY: Final = 1024 * 1024
MAX_SOCKET_ID: Final = 40
NO_SOCKET_ID: Final = "The socket_id is none: it has two numbers with a dot between, as in 123.456"
_ALLOW: Final = {"Allow": "OPTIONS, POST"}
_RETRY: Final = {"Retry-After": "2"}
# Load balancers ask with HEAD too.
_HEALTH: Final = (HttpMethod.GET, HttpMethod.HEAD)


def create_api(
    hubs: Mapping[str, Hub],
    path: str,
    *,
    is_ready: Callable[[], bool],
    metrics: Callable[[], str],
    metrics_token: str,
    more: Sequence[Router] = (),
) -> ASGIApp:
    """The HTTP API of a server.

    Args:
        hubs: The applications' hubs, by application id.
        path: Prefix of all routes; signatures leave it out.
        is_ready: Whether the server accepts connections.
        metrics: What Prometheus reads.
        metrics_token: What Prometheus must know to read it; without one there is nothing to read.
        more: Further routes below the prefix, which answer for themselves who may ask.
    """

    @route("/ready", http_method=_HEALTH, sync_to_thread=False)
    def ready() -> Response[dict[str, bool]]:
        return Response({"ready": is_ready()}, status_code=200 if is_ready() else 503)

    # No address is trusted instead of the token: behind a proxy strangers come from this machine.
    @get("/metrics", sync_to_thread=False)
    def read_metrics(request: Request[Any, Any, Any]) -> Response[str]:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if not metrics_token:
            raise HTTPException("Not Found", status_code=404)
        if scheme.lower() != "bearer" or not compare_digest(
            given.strip().encode(), metrics_token.encode()
        ):
            raise HTTPException(
                "The metrics token is missing or wrong",
                status_code=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        return Response(metrics(), media_type=CONTENT_TYPE)

    def hub_of(app_id: str) -> Hub:
        hub = hubs.get(app_id)
        if hub is None:
            raise HTTPException(f"There is no application with id {app_id!r}", status_code=404)
        return hub

    async def authenticated_hub(request: Request[Any, Any, Any], app_id: FromPath[str]) -> Hub:
        hub = hub_of(app_id)
        _verify(request.scope, await request.body(), hub, path)
        return hub

    # PyPI's `pusher` (3.3) leaves the application's id out of this one path.
    @post("/users/{user_id:str}/terminate_connections", status_code=200)
    async def terminate_by_key(
        request: Request[Any, Any, Any], user_id: FromPath[str]
    ) -> dict[str, Any]:
        key = _query(request, "auth_key")
        hub = next((hub for hub in hubs.values() if hub.app.key == key), None)
        if hub is None:
            raise HTTPException("There is no application with this auth_key", status_code=401)
        _verify(request.scope, await request.body(), hub, path)
        hub.terminate(user_id)
        return {}

    others = Litestar(
        route_handlers=[
            up,
            ready,
            read_metrics,
            channels,
            channel,
            channel_users,
            connections,
            terminate,
            terminate_by_key,
            kick_user,
            kick_socket,
            *more,
        ],
        path=path or "/",
        dependencies={"hub": Provide(authenticated_hub)},
        exception_handlers={HTTPException: _refuse, ClusterAway: _cluster_away},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=MAX_BODY,
    )
    publish = {"events": _events, "batch_events": _batch_events}
    publishing = re.compile(rf"{re.escape(path)}/+apps/+([^/]+)/+({'|'.join(publish)})/*")

    # Publishing is what servers are asked all day; without the framework it takes half the time.
    async def api(scope: Any, receive: Receive, send: Send) -> None:
        match = publishing.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if match is None:
            await others(scope, receive, send)
            return
        app_id, what = match.groups()
        if scope["method"] == "OPTIONS":
            await _answer(send, None, 204, _ALLOW)
            return
        try:
            if scope["method"] != "POST":
                raise HTTPException("Method Not Allowed", status_code=405, headers=_ALLOW)
            hub = hub_of(app_id)
            body = await _read(scope, receive)
            _verify(scope, body, hub, path)
            answer = await publish[what](hub, body)
        except HTTPException as exc:
            await _answer(send, {"error": exc.detail}, exc.status_code, exc.headers)
        except ClusterAway as exc:
            await _answer(send, {"error": str(exc)}, 503, _RETRY)
        else:
            await _answer(send, answer)

    return api


async def _read(scope: HTTPScope, receive: Receive) -> bytes:
    """A request's body; one that is announced as too large is not waited for."""
    size = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
    body, goes_on = b"", True
    while goes_on and size <= MAX_BODY:
        message = await receive()
        if message["type"] != "http.request":
            raise HTTPException("The request has ended too early", status_code=400)
        body += message["body"]  # mostly the only part, which this does not copy
        size, goes_on = max(size, len(body)), message["more_body"]
    if size > MAX_BODY:
        raise HTTPException(f"A body has up to {MAX_BODY} bytes", status_code=413)
    return body


async def _answer(
    send: Send, answer: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> None:
    body, pairs = b"", dict(headers or {})
    if answer is not None:
        body = msgspec.json.encode(answer)
        pairs |= {"content-type": "application/json", "content-length": str(len(body))}
    raw = [(name.lower().encode(), value.encode()) for name, value in pairs.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _verify(scope: HTTPScope, body: bytes, hub: Hub, prefix: str) -> None:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    try:
        verify_request(
            hub.app.key,
            hub.app.secret,
            scope["method"],
            scope["raw_path"].decode("latin-1").removeprefix(prefix),
            query,
            body,
            now=time.time(),
        )
    except RequestSignatureInvalid as exc:
        raise HTTPException(f"The request is not signed rightly: {exc}", status_code=401) from exc
    if not hub.app.enabled:
        raise HTTPException("The application is disabled", status_code=403)


@route("/up", http_method=_HEALTH, sync_to_thread=False)
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


async def _events(hub: Hub, body: bytes) -> dict[str, Any]:
    """Publish one event to up to 100 channels."""
    began = time.perf_counter()
    publication = _body(body, _Publication)
    _check(publication, hub)
    _publish(publication, hub)
    hub.traffic.publish(1, time.perf_counter() - began)
    if publication.info is None:
        return {}
    return {"channels": await _infos(hub, publication.targets(), publication.info)}


async def _batch_events(hub: Hub, body: bytes) -> dict[str, Any]:
    """Publish up to 10 events, in order; all or none."""
    began = time.perf_counter()
    batch = _body(body, _Batch).batch
    if not 1 <= len(batch) <= MAX_BATCH:
        raise HTTPException(f"A batch holds 1 to {MAX_BATCH} events", status_code=400)
    for publication in batch:
        _check(publication, hub)
    for publication in batch:
        _publish(publication, hub)
    hub.traffic.publish(len(batch), time.perf_counter() - began)
    if all(publication.info is None for publication in batch):
        return {}
    return {"batch": [await _info(hub, p.targets()[0], p.info or "") for p in batch]}


def _check(publication: _Publication, hub: Hub) -> None:
    """Refuse what may not be published, before any of it is."""
    targets = publication.targets()
    if not 1 <= len(targets) <= MAX_CHANNELS:
        raise HTTPException(f"An event goes to 1 to {MAX_CHANNELS} channels", status_code=400)
    encrypted = [name for name in targets if access_of(name) is Access.ENCRYPTED]
    if encrypted and len(targets) > 1:
        raise HTTPException("An encrypted channel must be published to alone", status_code=400)
    if publication.socket_id and not is_socket_id(publication.socket_id):
        raise HTTPException(NO_SOCKET_ID, status_code=400)
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


def is_socket_id(text: str) -> bool:
    """Whether a connection may have this id: two numbers with a dot between."""
    return len(text) <= MAX_SOCKET_ID and re.fullmatch(r"[0-9]+\.[0-9]+", text) is not None


def _publish(publication: _Publication, hub: Hub) -> None:
    for name in publication.targets():
        hub.trigger(name, publication.name, publication.data, publication.socket_id)


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
    names = [name for name in await hub.counts() if name.startswith(prefix)]
    return {"channels": await _infos(hub, names, info)}


@get("/apps/{app_id:str}/channels/{name:str}")
async def channel(
    request: Request[Any, Any, Any], hub: NamedDependency[Hub], name: FromPath[str]
) -> dict[str, Any]:
    """Whether one channel is occupied, and what else was asked."""
    is_occupied = await hub.count(name) > 0
    return {"occupied": is_occupied, **await _info(hub, name, _query(request, "info"))}


@get("/apps/{app_id:str}/channels/{name:str}/users")
async def channel_users(hub: NamedDependency[Hub], name: FromPath[str]) -> dict[str, Any]:
    """The users in one presence channel."""
    if access_of(name) is not Access.PRESENCE:
        raise HTTPException("Only presence channels know their users", status_code=400)
    return {"users": [{"id": id_} for id_ in await hub.members(name)]}


@get("/apps/{app_id:str}/connections")
async def connections(hub: NamedDependency[Hub]) -> dict[str, int]:
    """How many connections the application has; Reverb's addition."""
    return {"connections": await hub.connections()}


# Users


@post("/apps/{app_id:str}/users/{user_id:str}/terminate_connections", status_code=200)
async def terminate(hub: NamedDependency[Hub], user_id: FromPath[str]) -> dict[str, Any]:
    """End all of a user's connections."""
    hub.terminate(user_id)
    return {}


@post("/apps/{app_id:str}/channels/{name:str}/users/{user_id:str}/kick", status_code=200)
async def kick_user(
    hub: NamedDependency[Hub], name: FromPath[str], user_id: FromPath[str]
) -> dict[str, Any]:
    """Take a user out of one channel; antiphon's addition."""
    hub.kick(name, user_id=user_id)
    return {}


@post("/apps/{app_id:str}/channels/{name:str}/sockets/{socket_id:str}/kick", status_code=200)
async def kick_socket(
    hub: NamedDependency[Hub], name: FromPath[str], socket_id: FromPath[str]
) -> dict[str, Any]:
    """Take one connection out of one channel; antiphon's addition."""
    hub.kick(name, socket_id=socket_id)
    return {}


async def _infos(hub: Hub, names: list[str], info: str) -> dict[str, dict[str, Any]]:
    """Of each channel the attributes asked for."""
    return {name: await _info(hub, name, info) if info else {} for name in names}


async def _info(hub: Hub, name: str, info: str) -> dict[str, Any]:
    """The attributes asked for, as far as the channel has them."""
    asked = info.split(",")
    is_presence = access_of(name) is Access.PRESENCE
    known: dict[str, Any] = {}
    if "user_count" in asked and is_presence:
        known["user_count"] = len(await hub.members(name))
    if "subscription_count" in asked and not is_presence:
        known["subscription_count"] = await hub.count(name)
    if "cache" in asked and (kept := await hub.kept(name)) is not None:
        known["cache"] = {"data": kept[0], "ttl": round(kept[1])}
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


def _cluster_away(request: Request[Any, Any, Any], exc: ClusterAway) -> Response[dict[str, str]]:
    return Response({"error": str(exc)}, status_code=503, headers=_RETRY)

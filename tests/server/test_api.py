"""The HTTP API, asked by a client that can sign wrongly."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from yarl import URL

from antiphon.protocol.signing import channel_auth, sign_request, user_auth
from antiphon.server import Server
from antiphon.settings import App
from tests.conftest import Connect, Serve

from .wire import Wire, http

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "s-3cr3t"
APPS = (App(id="1", key="k", secret=SECRET), App(id="2", key="k2", secret="another"))


class Answer(NamedTuple):
    status: int
    body: Any


class Api:
    """Signs and sends requests; `how` changes what `sign_request` is told."""

    def __init__(self, session: aiohttp.ClientSession, server: Server, path: str = "") -> None:
        self._session = session
        self._server = server
        self._prefix = path

    async def get(self, resource: str, query: dict[str, str] | None = None, **how: Any) -> Answer:
        return await self.request("GET", resource, query=query, **how)

    async def post(self, resource: str, body: Any, **how: Any) -> Answer:
        return await self.request("POST", resource, body, **how)

    async def request(
        self,
        method: str,
        resource: str,
        body: Any = b"",
        *,
        query: dict[str, str] | None = None,
        tamper: Callable[[dict[str, str]], object] | None = None,
        signed_body: bytes | None = None,
        sent: bytes | None = None,
        **how: Any,
    ) -> Answer:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        path = f"/apps/1/{resource}"
        words = {"key": "k", "secret": SECRET, "timestamp": int(time.time()), **how}
        words["body"] = payload if signed_body is None else signed_body
        signed = sign_request(method=method, path=path, query=query, **words)
        if tamper is not None:
            tamper(signed)
        return await self.send(method, path, signed, payload if sent is None else sent)

    async def send(
        self, method: str, path: str, query: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        address = (
            f"http://127.0.0.1:{self._server.port}{self._prefix}{path}?{urlencode(query or {})}"
        )
        async with self._session.request(
            method, URL(address, encoded=True), data=io.BytesIO(body) if body else None
        ) as response:
            text = await response.text()
            return Answer(response.status, json.loads(text) if text else None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with Server(APPS) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def api(session: aiohttp.ClientSession, server: Server) -> Api:
    return Api(session, server)


async def member(wire: Wire, channel: str, user_id: str) -> Wire:
    await wire.join(channel, user_id, secret=SECRET)
    return wire


def event(**fields: Any) -> dict[str, Any]:
    return {"name": "e", "channels": ["news"], "data": "{}", **fields}


# The signature


def later(seconds: int) -> str:
    return str(int(time.time()) + seconds)


FORGERIES: dict[str, dict[str, Any]] = {
    "no key": {"tamper": lambda q: q.pop("auth_key")},
    "an unknown key": {"key": "stranger"},
    "another application's key and secret": {"key": "k2", "secret": "another"},
    "a key that is not ASCII": {"key": "ключ"},
    "another secret": {"secret": "guess"},
    "no signature": {"tamper": lambda q: q.pop("auth_signature")},
    "an empty signature": {"tamper": lambda q: q.update(auth_signature="")},
    "a signature that is not ASCII": {"tamper": lambda q: q.update(auth_signature="é" * 64)},
    "a signature in capitals": {
        "tamper": lambda q: q.update(auth_signature=q["auth_signature"].upper())
    },
    "a cut signature": {"tamper": lambda q: q.update(auth_signature=q["auth_signature"][:-1])},
    "no version": {"tamper": lambda q: q.pop("auth_version")},
    "another version": {"tamper": lambda q: q.update(auth_version="2.0")},
    "no time": {"tamper": lambda q: q.pop("auth_timestamp")},
    "a time that is none": {"tamper": lambda q: q.update(auth_timestamp="now")},
    "another time than signed": {"tamper": lambda q: q.update(auth_timestamp=later(5))},
    "an old time": {"timestamp": int(time.time()) - 700},
    "a time to come": {"timestamp": int(time.time()) + 7_000},
    "a time before all time": {"timestamp": -(10**18)},
    "a time beyond numbers": {"timestamp": "9" * 400},
    "a time beyond digits": {"timestamp": "9" * 5_000},
    "a time that is no number": {"timestamp": "nan"},
    "another body": {"sent": b'{"name":"e","channels":["news"],"data":"changed"}'},
    "no digest": {"tamper": lambda q: q.pop("body_md5")},
    "no digest, signed so": {"signed_body": b""},
    "another digest": {"tamper": lambda q: q.update(body_md5="0" * 32)},
    "another parameter": {"tamper": lambda q: q.update(info="user_count")},
}


@pytest.mark.parametrize("how", FORGERIES)
async def test_a_request_that_is_not_signed_rightly_is_refused(
    api: Api, connect: Connect, how: str
) -> None:
    wire = await connect()
    await wire.subscribe("news")
    answer = await api.post("events", event(), **FORGERIES[how])
    assert answer.status == 401
    assert set(answer.body) == {"error"}
    assert SECRET not in answer.body["error"]
    right = sign_request("k", SECRET, "POST", "/apps/1/events", timestamp=int(time.time()))
    assert right["auth_signature"] not in answer.body["error"]
    await wire.ping()  # nothing was published


async def test_a_signature_holds_for_one_method_and_path(api: Api) -> None:
    now = int(time.time())
    for method, path in (("POST", "/apps/1/channels"), ("GET", "/apps/1/channels/news")):
        signed = sign_request("k", SECRET, method, path, timestamp=now)
        assert (await api.send("GET", "/apps/1/channels", signed)).status == 401
    signed = sign_request("k", SECRET, "GET", "/apps/1/channels", timestamp=now)
    assert (await api.send("GET", "/apps/1/channels", signed)).status == 200


async def test_a_request_without_any_signature_is_refused(api: Api) -> None:
    assert (await api.send("GET", "/apps/1/channels")).status == 401
    assert (await api.send("POST", "/apps/1/events", body=b"{}")).status == 401
    assert (await api.send("GET", "/apps/1/channels/presence-room/users")).status == 401


@pytest.mark.parametrize("seconds", [-590, 590])
async def test_clocks_may_differ_by_ten_minutes(api: Api, seconds: int) -> None:
    timestamp = int(time.time()) + seconds
    assert (await api.get("channels", timestamp=timestamp)).status == 200


async def test_the_digest_of_no_body_may_be_signed_too(api: Api) -> None:
    """As PyPI `pusher` does with every GET."""
    nothing = hashlib.md5(b"").hexdigest()
    assert (await api.get("channels", {"body_md5": nothing})).status == 200
    assert (await api.get("channels", {"body_md5": "0" * 32})).status == 401


async def test_parameters_may_stand_in_any_order_and_their_values_unescaped(
    server: Server, session: aiohttp.ClientSession
) -> None:
    query = {"filter_by_prefix": "presence-a b", "info": "user_count,subscription_count"}
    path = "/apps/1/channels"
    signed = sign_request("k", SECRET, "GET", path, timestamp=int(time.time()), query=query)
    shuffled = urlencode(sorted(signed.items(), reverse=True)).replace("%2C", ",")
    address = f"http://127.0.0.1:{server.port}{path}?{shuffled}"
    async with session.get(URL(address, encoded=True)) as response:
        assert response.status == 200, await response.text()


async def test_an_application_that_does_not_exist_is_not_found(api: Api) -> None:
    for path in ("/apps/3/channels", "/apps//channels", "/apps/k/channels"):
        signed = sign_request("k", SECRET, "GET", path, timestamp=int(time.time()))
        assert (await api.send("GET", path, signed)).status == 404


async def test_an_application_is_asked_with_its_own_key_only(api: Api) -> None:
    path, now = "/apps/2/channels", int(time.time())
    signed = sign_request("k", SECRET, "GET", path, timestamp=now)
    assert (await api.send("GET", path, signed)).status == 401
    signed = sign_request("k2", "another", "GET", path, timestamp=now)
    assert (await api.send("GET", path, signed)).status == 200


# Paths and methods


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/up", 200),
        ("GET", "/", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/app/k", 404),
        ("GET", "/apps/1", 404),
        ("GET", "/apps/1/nothing", 404),
        ("GET", "/apps/1/channels/a/nothing", 404),
        ("GET", "/schema", 404),
        ("POST", "/up", 405),
        ("GET", "/apps/1/events", 405),
        ("POST", "/apps/1/channels", 405),
        ("PUT", "/apps/1/events", 405),
        ("OPTIONS", "/apps/1/events", 204),
        ("PUT", "//apps/1//events/", 405),
        ("GET", "/apps/1/batch_events/", 405),
        ("DELETE", "/apps/1/channels/a", 405),
    ],
)
async def test_each_path_has_its_methods(api: Api, method: str, path: str, status: int) -> None:
    answer = await api.send(method, path)
    assert answer.status == status
    if status == 204:
        assert answer.body is None
        return
    assert isinstance(answer.body, dict)
    assert ("error" in answer.body) is (status >= 400)


async def test_whether_the_server_runs_may_be_asked_without_signature(api: Api) -> None:
    assert await api.send("GET", "/up") == (200, {"health": "OK"})


# Publishing one event


async def test_an_event_is_published_to_all_its_channels(api: Api, connect: Connect) -> None:
    ali, john = await connect(), await connect()
    await ali.subscribe("a")
    await ali.subscribe("b")
    await john.subscribe("b")
    assert await api.post("events", event(channels=["a", "b", "empty"])) == (200, {})
    assert [(await ali.event("e"))["channel"] for _ in range(2)] == ["a", "b"]
    assert (await john.event("e"))["channel"] == "b"
    await john.ping()


async def test_one_channel_may_be_named_as_such(api: Api, connect: Connect) -> None:
    wire = await connect()
    await wire.subscribe("news")
    body = {"name": "e", "channel": "news", "data": "{}"}
    assert await api.post("events", body) == (200, {})
    await wire.event("e")


@pytest.mark.parametrize(
    "data", ['{"a":1}', '"text"', "no JSON", "", "дело 🎉", 'quote " and \\ and \u2028', "\x00"]
)
async def test_data_arrives_as_the_string_it_was(api: Api, connect: Connect, data: str) -> None:
    wire = await connect()
    await wire.subscribe("news")
    assert await api.post("events", event(data=data)) == (200, {})
    assert json.loads((await wire.frame()).payload)["data"] == data


@pytest.mark.parametrize("data", [{"a": [1, 2.5]}, ["b"], 7, True, None])
async def test_data_that_is_no_string_is_made_one(api: Api, connect: Connect, data: Any) -> None:
    wire = await connect()
    await wire.subscribe("news")
    assert await api.post("events", event(data=data)) == (200, {})
    arrived = json.loads((await wire.frame()).payload)["data"]
    assert isinstance(arrived, str)
    assert json.loads(arrived) == data


async def test_the_connection_named_is_left_out(api: Api, connect: Connect) -> None:
    sender, other = await connect(), await connect()
    await sender.subscribe("news")
    await other.subscribe("news")
    assert await api.post("events", event(socket_id=sender.socket_id)) == (200, {})
    await other.event("e")
    await sender.ping()
    for stranger in ("1.1", "123.456"):
        assert await api.post("events", event(socket_id=stranger)) == (200, {})
        await sender.event("e")


async def test_info_tells_of_each_channel_what_it_has(api: Api, connect: Connect) -> None:
    ali, phone = await connect(), await connect()
    await ali.subscribe("news")
    for wire in (ali, phone):
        await member(wire, "presence-room", "ali")
    channels = ["news", "presence-room", "empty", "presence-empty"]
    expected: dict[str, list[dict[str, int]]] = {
        "user_count": [{}, {"user_count": 1}, {}, {"user_count": 0}],
        "subscription_count": [
            {"subscription_count": 1},
            {},
            {"subscription_count": 0},
            {},
        ],
        "user_count,subscription_count": [
            {"subscription_count": 1},
            {"user_count": 1},
            {"subscription_count": 0},
            {"user_count": 0},
        ],
        "nonsense": [{}, {}, {}, {}],
    }
    for info, attributes in expected.items():
        answer = await api.post("events", event(channels=channels, info=info))
        assert answer == (200, {"channels": dict(zip(channels, attributes, strict=True))})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"name":"e","channels":["news"],"data":"\\ud800"}',
        b'{"name":"e","channels":["news"],"data":"{}"} trailing',
        {"channels": ["news"], "data": "{}"},
        {"name": "e", "channels": ["news"]},
        {"name": "e", "data": "{}"},
        event(name=""),
        event(name=7),
        event(name="x" * 201),
        event(name="pusher:e"),
        event(name="pusher_internal:member_added"),
        event(channels=[]),
        event(channels=None),
        event(channels="news"),
        event(channels=[7]),
        event(channels=["news", ""]),
        event(channels=["news", "a b"]),
        event(channels=["x" * 201]),
        event(channels=["ключ"]),
        event(channels=[f"c{n}" for n in range(101)]),
        event(channels=["news", "private-encrypted-a"]),
        event(socket_id=1.1),
        event(info=["user_count"]),
        {"name": "e", "channel": "", "data": "{}"},
        {"name": "e", "channel": 7, "data": "{}"},
    ],
    ids=lambda body: repr(body)[:60],
)
async def test_what_cannot_be_published_is_refused_in_words(
    api: Api, connect: Connect, body: Any
) -> None:
    wire = await connect()
    await wire.subscribe("news")
    answer = await api.post("events", body)
    assert answer.status == 400
    assert answer.body["error"]
    await wire.ping()  # not even to the channels that were right


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "x" * 200},
        {"name": "client-typing"},
        {"channels": ["x" * 200]},
        {"channels": ["A-z_0=@,.;9"]},
        {"channels": ["#server-to-user-7"]},
        {"channels": ["private-encrypted-a"]},
        {"channels": [f"c{n}" for n in range(100)]},
    ],
    ids=lambda fields: repr(fields)[:40],
)
async def test_what_is_just_allowed_is_taken(api: Api, fields: dict[str, Any]) -> None:
    assert await api.post("events", event(**fields)) == (200, {})


@pytest.mark.parametrize(
    ("data", "status"),
    [("x" * 10_240, 200), ("x" * 10_241, 413), ("я" * 5_120, 200), ("я" * 5_121, 413)],
)
async def test_data_is_measured_in_bytes(
    api: Api, connect: Connect, data: str, status: int
) -> None:
    wire = await connect()
    await wire.subscribe("news")
    assert (await api.post("events", event(data=data))).status == status
    if status == 200:
        await wire.event("e")
    await wire.ping()


async def test_a_body_that_is_far_too_large_is_not_read(api: Api) -> None:
    assert (await api.post("events", b"x" * 1_100_000)).status == 413


@pytest.mark.parametrize(
    ("app_id", "headers", "status"),
    [
        ("1", "Content-Length: 99999999", 413),
        ("1", "Content-Length: 99999999\r\nExpect: 100-continue", 413),
        ("none", "Content-Length: 9", 404),
    ],
)
async def test_what_cannot_be_published_is_refused_before_its_body_comes(
    server: Server, app_id: str, headers: str, status: int
) -> None:
    head = f"POST /apps/{app_id}/events HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n"
    answer, body = await http(server.port, head.encode())
    assert answer == status
    assert b"error" in body


async def test_limits_are_the_applications_own(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(secret=SECRET, max_event_size=5, max_channel_name=3)
    api = Api(session, server)
    assert (await api.post("events", event(channels=["abc"], data="12345"))).status == 200
    assert (await api.post("events", event(channels=["abc"], data="123456"))).status == 413
    assert (await api.post("events", event(channels=["abcd"], data="12345"))).status == 400


# Publishing several


def batch(*events: dict[str, Any]) -> dict[str, Any]:
    return {
        "batch": [
            {"name": f"e{n}", "channel": "news", "data": "{}", **fields}
            for n, fields in enumerate(events)
        ]
    }


async def test_a_batch_is_published_in_order(api: Api, connect: Connect) -> None:
    wire, other = await connect(), await connect()
    for channel in ("news", "weather"):
        await wire.subscribe(channel)
        await other.subscribe(channel)
    answer = await api.post(
        "batch_events",
        batch({}, {"channel": "weather"}, {"socket_id": wire.socket_id}, {"data": {"a": 1}}),
    )
    assert answer == (200, {})
    for name in ("e0", "e1", "e3"):
        await wire.event(name)
    for name in ("e0", "e1", "e2", "e3"):
        await other.event(name)


async def test_a_batch_tells_what_was_asked_of_each_event(api: Api, connect: Connect) -> None:
    wire = await connect()
    await wire.subscribe("news")
    await member(wire, "presence-room", "ali")
    answer = await api.post(
        "batch_events",
        batch(
            {"info": "subscription_count"},
            {},
            {"channel": "presence-room", "info": "user_count,subscription_count"},
        ),
    )
    assert answer == (200, {"batch": [{"subscription_count": 1}, {}, {"user_count": 1}]})


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"channel": "a b"}, 400),
        ({"channel": ""}, 400),
        ({"name": "pusher:e"}, 400),
        ({"name": 7}, 400),
        ({"data": "x" * 10_241}, 413),
    ],
)
async def test_a_batch_is_published_whole_or_not_at_all(
    api: Api, connect: Connect, wrong: dict[str, Any], status: int
) -> None:
    wire = await connect()
    await wire.subscribe("news")
    answer = await api.post("batch_events", batch({}, {}, wrong))
    assert answer.status == status
    await wire.ping()


@pytest.mark.parametrize(
    "body",
    [{}, {"batch": []}, {"batch": {}}, {"batch": None}, batch(*[{}] * 11), {"batch": [7]}, b"[]"],
    ids=lambda body: repr(body)[:40],
)
async def test_a_batch_that_is_none_is_refused(api: Api, body: Any) -> None:
    answer = await api.post("batch_events", body)
    assert answer.status == 400
    assert answer.body["error"]


async def test_a_batch_holds_ten_events_of_full_size(api: Api, connect: Connect) -> None:
    wire = await connect()
    await wire.subscribe("news")
    assert (await api.post("batch_events", batch(*[{"data": "x" * 10_240}] * 10))).status == 200
    for n in range(10):
        await wire.event(f"e{n}")


# Asking


async def test_the_occupied_channels_are_listed(api: Api, connect: Connect) -> None:
    ali, phone = await connect(), await connect()
    await ali.subscribe("news")
    await phone.subscribe("news")
    await ali.subscribe("weather")
    await ali.join("private-room", secret=SECRET)
    for wire in (ali, phone):
        await member(wire, "presence-room", "ali")
    await api.post("events", event(channels=["never-occupied"]))
    assert await api.get("channels") == (
        200,
        {"channels": {"news": {}, "weather": {}, "private-room": {}, "presence-room": {}}},
    )
    assert await api.get("channels", {"filter_by_prefix": "p"}) == (
        200,
        {"channels": {"private-room": {}, "presence-room": {}}},
    )
    assert await api.get("channels", {"info": "subscription_count"}) == (
        200,
        {
            "channels": {
                "news": {"subscription_count": 2},
                "weather": {"subscription_count": 1},
                "private-room": {"subscription_count": 1},
                "presence-room": {},
            }
        },
    )
    assert await api.get("channels", {"filter_by_prefix": "presence-", "info": "user_count"}) == (
        200,
        {"channels": {"presence-room": {"user_count": 1}}},
    )
    assert await api.get("channels", {"filter_by_prefix": "nothing-like-it"}) == (
        200,
        {"channels": {}},
    )
    ali.send("pusher:unsubscribe", {"channel": "weather"})
    await ali.ping()
    assert "weather" not in (await api.get("channels")).body["channels"]


@pytest.mark.parametrize("prefix", [None, "", "p", "presence", "private-"])
async def test_users_are_counted_on_presence_channels_only(api: Api, prefix: str | None) -> None:
    query = {"info": "subscription_count,user_count"}
    if prefix is not None:
        query["filter_by_prefix"] = prefix
    answer = await api.get("channels", query)
    assert answer.status == 400
    assert "filter_by_prefix" in answer.body["error"]


async def test_one_channel_may_be_asked_about(api: Api, connect: Connect) -> None:
    ali, phone, john = await connect(), await connect(), await connect()
    await ali.subscribe("news")
    await john.subscribe("news")
    for wire in (ali, phone):
        await member(wire, "presence-room", "ali")
    await member(john, "presence-room", "john")
    everything = {"info": "user_count,subscription_count,nonsense"}
    for name, query, expected in (
        ("news", None, {"occupied": True}),
        ("news", everything, {"occupied": True, "subscription_count": 2}),
        ("presence-room", everything, {"occupied": True, "user_count": 2}),
        ("empty", None, {"occupied": False}),
        ("empty", everything, {"occupied": False, "subscription_count": 0}),
        ("presence-empty", everything, {"occupied": False, "user_count": 0}),
    ):
        assert await api.get(f"channels/{name}", query) == (200, expected)


async def test_a_name_with_every_allowed_character_may_stand_in_a_path(
    api: Api, connect: Connect
) -> None:
    wire = await connect()
    name = "presence-A_z=@,.;9"
    await member(wire, name, "ali")
    for path in (name, quote(name, safe="")):
        assert await api.get(f"channels/{path}", {"info": "user_count"}) == (
            200,
            {"occupied": True, "user_count": 1},
        )
        assert await api.get(f"channels/{path}/users") == (200, {"users": [{"id": "ali"}]})


async def test_the_users_of_a_presence_channel_are_listed_once_each(
    api: Api, connect: Connect
) -> None:
    for user_id in ("ali", "john", "ali"):
        await member(await connect(), "presence-room", user_id)
    assert await api.get("channels/presence-room/users") == (
        200,
        {"users": [{"id": "ali"}, {"id": "john"}]},
    )
    assert await api.get("channels/presence-empty/users") == (200, {"users": []})


@pytest.mark.parametrize("name", ["news", "private-room", "presence", "#server-to-user-7"])
async def test_no_other_channel_has_users(api: Api, name: str) -> None:
    answer = await api.get(f"channels/{quote(name)}/users")
    assert answer.status == 400
    assert answer.body["error"]


# What is kept


async def test_a_cache_channel_sends_its_last_event_to_who_joins(
    api: Api, connect: Connect
) -> None:
    wire = await connect()
    await wire.subscribe("cache-a")
    assert await wire.event("pusher:cache_miss") == {
        "event": "pusher:cache_miss",
        "channel": "cache-a",
    }
    for data in ("1", "2"):
        await api.post("events", event(channels=["cache-a"], data=data))
        assert (await wire.event("e"))["data"] == int(data)
    later = await connect()
    await later.subscribe("cache-a")
    assert (await later.event("e"))["data"] == 2
    status, body = await api.get("channels/cache-a", {"info": "cache,subscription_count"})
    assert (status, body["occupied"], body["subscription_count"]) == (200, True, 2)
    assert body["cache"]["data"] == "2"
    assert 1_790 <= body["cache"]["ttl"] <= 1_800
    assert await api.get("channels/cache-b", {"info": "cache"}) == (200, {"occupied": False})


# Users


async def signed_in(wire: Wire, user_id: str, *watchlist: str) -> Wire:
    user_data = json.dumps({"id": user_id, "watchlist": watchlist})
    auth = user_auth("k", SECRET, wire.socket_id, user_data)
    wire.send("pusher:signin", {"auth": auth, "user_data": user_data})
    await wire.event("pusher:signin_success")
    return wire


@pytest.mark.parametrize("path", ["/apps/1/users/7/", "/users/7/"])
async def test_all_connections_of_a_user_are_ended(api: Api, connect: Connect, path: str) -> None:
    wire, other = await signed_in(await connect(), "7"), await signed_in(await connect(), "8")
    in_room = await member(await connect(), "presence-room", "7")
    resource = f"{path}terminate_connections"
    signed = sign_request("k", SECRET, "POST", resource, body=b"{}", timestamp=int(time.time()))
    assert await api.send("POST", resource, signed, b"{}") == (200, {})
    for ended in (wire, in_room):
        assert (await ended.closed()).code == 4009
    await other.ping()
    strange = {**signed, "auth_key": "stranger"}
    assert (await api.send("POST", resource, strange, b"{}")).status == 401


async def test_who_watches_is_told_who_comes_and_goes(connect: Connect) -> None:
    wire = await signed_in(await connect(), "7", "8", "9")
    told = await wire.event("pusher_internal:watchlist_events")
    assert told["data"] == {"events": [{"name": "offline", "user_ids": ["8", "9"]}]}
    other = await signed_in(await connect(), "8")
    told = await wire.event("pusher_internal:watchlist_events")
    assert told["data"] == {"events": [{"name": "online", "user_ids": ["8"]}]}
    await other.hang_up()
    told = await wire.event("pusher_internal:watchlist_events")
    assert told["data"] == {"events": [{"name": "offline", "user_ids": ["8"]}]}


async def test_a_user_is_taken_out_of_one_channel_for_good(api: Api, connect: Connect) -> None:
    wire = await connect()
    await wire.subscribe("news")
    await member(wire, "presence-room", "7")
    other = await member(await connect(), "presence-room", "8")
    await wire.event("pusher_internal:member_added")
    assert await api.post("channels/presence-room/users/7/kick", {}) == (200, {})
    refused = await wire.event("pusher:subscription_error")
    assert (refused["channel"], refused["data"]["status"]) == ("presence-room", 403)
    assert (await other.event("pusher_internal:member_removed"))["data"] == {"user_id": "7"}
    auth = channel_auth("k", SECRET, wire.socket_id, "presence-room", '{"user_id":"7"}')
    again = {"channel": "presence-room", "auth": auth, "channel_data": '{"user_id":"7"}'}
    wire.send("pusher:subscribe", again)
    assert (await wire.event("pusher:subscription_error"))["data"]["status"] == 403
    await api.post("events", event())
    await wire.event("e")  # it is still in its other channel
    assert await api.post(f"channels/news/sockets/{wire.socket_id}/kick", {}) == (200, {})
    assert (await wire.event("pusher:subscription_error"))["channel"] == "news"


async def test_the_connections_are_counted_once_each(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(APPS[0])
    api = Api(session, server)
    assert await api.get("connections") == (200, {"connections": 0})
    async with await Wire.connect(server.port) as wire:
        await wire.subscribe("a")
        await wire.subscribe("b")
        assert await api.get("connections") == (200, {"connections": 1})


async def test_an_application_that_is_disabled_serves_nobody(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(msgspec.structs.replace(APPS[0], enabled=False), APPS[1])
    assert (await Api(session, server).post("events", event())).status == 403
    assert (await Api(session, server).post("events", event(), secret="guess")).status == 401
    async with await Wire.open(server.port) as wire:
        assert await wire.error() == 4003
        assert (await wire.closed()).code == 4003


# Behind a proxy


async def test_the_prefix_of_a_path_is_not_signed(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(APPS[0], path="/chat/ws/")
    api = Api(session, server, "/chat/ws")
    assert await api.send("GET", "/up") == (200, {"health": "OK"})
    assert await api.post("events", event()) == (200, {})
    assert (await api.get("channels/a%20b")).status == 200
    assert (await Api(session, server).get("channels")).status == 404


async def test_an_answer_does_not_wait_for_the_last_one_to_be_acknowledged(api: Api) -> None:
    """With Nagle's algorithm on, every answer after the first few takes 40 ms."""
    times = []
    for _ in range(21):
        started = time.perf_counter()
        await api.send("GET", "/up")
        times.append(time.perf_counter() - started)
    assert sorted(times)[10] < 0.02

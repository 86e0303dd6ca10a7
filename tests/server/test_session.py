"""What one client may do and what it and the others are told, over real sockets."""

from __future__ import annotations

import json
import os
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.protocol.signing import channel_auth, sign_request, user_auth
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.server.session import Session
from antiphon.settings import App
from tests.conftest import Connect, Serve

from .wire import TEXT, Wire, frame_bytes, http, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = Path(__file__).parents[1] / "data"


# Greeting


async def test_a_client_is_greeted_with_its_socket_id_and_the_activity_timeout(
    serve: Serve,
) -> None:
    server = await serve(activity_timeout=45)
    async with await Wire.open(server.port) as wire:
        opcode, payload = await wire.frame()
        assert opcode == TEXT
        greeting = json.loads(payload)
        assert list(greeting) == ["event", "data"]
        assert isinstance(greeting["data"], str), "JSON inside JSON"
        data = json.loads(greeting["data"])
        assert data.pop("activity_timeout") == 45
        assert re.fullmatch(r"\d+\.\d+", data.pop("socket_id"))
        assert data == {}


async def test_no_two_connections_share_a_socket_id(connect: Connect) -> None:
    wires = [await connect() for _ in range(20)]
    assert len({wire.socket_id for wire in wires}) == 20


async def test_a_ping_is_answered(connect: Connect) -> None:
    wire = await connect()
    wire.send("pusher:ping")
    assert await wire.event("pusher:pong") == {"event": "pusher:pong", "data": {}}


async def test_a_pong_comes_after_all_that_was_published_before(
    serve: Serve, connect: Connect
) -> None:
    server = await serve()
    async with await Wire.open(server.port) as wire:
        await wire.event("pusher:connection_established")
        wire.send("pusher:subscribe", {"channel": "news"})
        await wire.event("pusher_internal:subscription_succeeded")
        (hub,) = server._hubs.values()
        (session,) = hub.sockets.values()
        hub.trigger("news", "e", "1")
        assert isinstance(session, Session)
        session.received('{"event":"pusher:ping"}')  # in the same turn
        names = [json.loads((await wire.frame())[1])["event"] for _ in range(2)]
        assert names == ["e", "pusher:pong"]


# Public channels


async def test_a_public_channel_takes_anyone(connect: Connect) -> None:
    wire = await connect()
    wire.send("pusher:subscribe", {"channel": "news"})
    assert json.loads((await wire.frame()).payload) == {
        "event": "pusher_internal:subscription_succeeded",
        "data": "{}",
        "channel": "news",
    }


async def test_a_public_channel_does_not_look_at_a_signature(connect: Connect) -> None:
    wire = await connect()
    await wire.subscribe("news", auth="k:nonsense", channel_data='{"user_id":"1"}')


async def test_the_data_of_a_subscription_may_be_a_json_string(connect: Connect) -> None:
    wire = await connect()
    wire.send("pusher:subscribe", '{"channel":"news"}')
    await wire.event("pusher_internal:subscription_succeeded")


async def test_an_event_reaches_those_who_are_subscribed_and_nobody_else(
    server: Server, connect: Connect
) -> None:
    ali, eve = await connect(), await connect()
    await ali.subscribe("news")
    async with Publisher(server.settings()) as publisher:
        await publisher.trigger("news", "headline", {"n": 1})
    raw = json.loads((await ali.frame()).payload)
    assert raw == {"event": "headline", "data": '{"n":1}', "channel": "news"}
    await eve.ping()


async def test_success_comes_before_the_first_event(server: Server, connect: Connect) -> None:
    ali = await connect()
    (hub,) = server._hubs.values()
    ali.send("pusher:subscribe", {"channel": "busy"})
    await until(lambda: "busy" in hub.channels)
    hub.deliver("busy", b'{"event":"first"}')
    await ali.event("pusher_internal:subscription_succeeded")
    await ali.event("first")


async def test_subscribing_twice_is_answered_twice_and_delivers_once(
    server: Server, connect: Connect
) -> None:
    ali = await connect()
    await ali.subscribe("news")
    await ali.subscribe("news")
    async with Publisher(server.settings()) as publisher:
        await publisher.trigger("news", "headline", 1)
    await ali.event("headline")
    await ali.ping()


async def test_after_unsubscribing_nothing_more_arrives_and_nothing_is_answered(
    server: Server, connect: Connect
) -> None:
    ali, john = await connect(), await connect()
    await ali.subscribe("news")
    await john.subscribe("news")
    ali.send("pusher:unsubscribe", {"channel": "news"})
    await ali.ping()
    async with Publisher(server.settings()) as publisher:
        await publisher.trigger("news", "headline", 1)
    await john.event("headline")
    await ali.ping()
    await ali.subscribe("news")


async def test_unsubscribing_from_elsewhere_is_ignored(connect: Connect) -> None:
    wire = await connect()
    wire.send("pusher:unsubscribe", {"channel": "nowhere"})
    await wire.ping()


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ключ", "x" * 201, "a\n", "#other", "a\ud800"])
async def test_a_name_that_is_none_is_refused_in_band(connect: Connect, name: str) -> None:
    wire = await connect()
    wire.send("pusher:subscribe", {"channel": name})
    assert await wire.error() == 4200
    await wire.ping()


@pytest.mark.parametrize("name", ["a", "x" * 200, "A-z_0=@,.;9"])
async def test_every_name_of_the_protocol_is_taken(connect: Connect, name: str) -> None:
    await (await connect()).subscribe(name)


async def test_a_connection_may_be_in_so_many_channels(serve: Serve, connect: Connect) -> None:
    wire = await connect(await serve(max_channels=2))
    await wire.subscribe("a")
    await wire.subscribe("b")
    await wire.subscribe("a")
    wire.send("pusher:subscribe", {"channel": "c"})
    refusal = await wire.event("pusher:subscription_error")
    assert (refusal["channel"], refusal["data"]["status"]) == ("c", 403)
    wire.send("pusher:unsubscribe", {"channel": "a"})
    await wire.subscribe("c")


# Private channels


@pytest.mark.parametrize(
    "channel", ["private-room", "private-encrypted-room", "private-cache-room"]
)
async def test_a_private_channel_takes_who_brings_its_signature(
    connect: Connect, channel: str
) -> None:
    assert await (await connect()).join(channel) == {}


async def test_the_data_of_the_signature_may_be_signed_too(connect: Connect) -> None:
    wire = await connect()
    auth = channel_auth("k", "s", wire.socket_id, "private-room", "anything")
    await wire.subscribe("private-room", auth, "anything")


def forgeries(socket_id: str) -> dict[str, Any]:
    right = channel_auth("k", "s", socket_id, "private-room")
    return {
        "none": None,
        "empty": "",
        "only the key": "k:",
        "only the signature": right.removeprefix("k:"),
        "another key": right.replace("k:", "x:"),
        "in capitals": "k:" + right.removeprefix("k:").upper(),
        "cut": right[:-1],
        "another secret": channel_auth("k", "guess", socket_id, "private-room"),
        "another socket": channel_auth("k", "s", "1.1", "private-room"),
        "another channel": channel_auth("k", "s", socket_id, "private-other"),
        "with channel_data": channel_auth("k", "s", socket_id, "private-room", "{}"),
        "not ASCII": "k:ключ",
        "a surrogate": "k:\ud800",
    }


@pytest.mark.parametrize("how", forgeries("1.2"))
async def test_a_private_channel_takes_nobody_without_its_own_signature(
    connect: Connect, how: str
) -> None:
    wire = await connect()
    auth = forgeries(wire.socket_id)[how]
    wire.send_text(
        json.dumps({"event": "pusher:subscribe", "data": {"channel": "private-room", "auth": auth}})
    )
    if how == "a surrogate":
        assert await wire.error() == 4200
    else:
        refusal = await wire.event("pusher:subscription_error")
        assert refusal["channel"] == "private-room"
        assert (refusal["data"]["type"], refusal["data"]["status"]) == ("AuthError", 401)
    await wire.join("private-room")


async def test_a_signature_is_of_no_use_on_the_next_connection(connect: Connect) -> None:
    first, second = await connect(), await connect()
    auth = channel_auth("k", "s", first.socket_id, "private-room")
    await first.subscribe("private-room", auth)
    second.send("pusher:subscribe", {"channel": "private-room", "auth": auth})
    await second.event("pusher:subscription_error")


# Presence channels


async def test_who_joins_is_told_the_members_and_the_members_are_told_who_joins(
    connect: Connect,
) -> None:
    ali, john = await connect(), await connect()
    assert (await ali.join("presence-room", "1", {"name": "Ali"}))["presence"] == {
        "ids": ["1"],
        "hash": {"1": {"name": "Ali"}},
        "count": 1,
    }
    assert (await john.join("presence-room", "2", {"name": "John"}))["presence"] == {
        "ids": ["1", "2"],
        "hash": {"1": {"name": "Ali"}, "2": {"name": "John"}},
        "count": 2,
    }
    added = await ali.event("pusher_internal:member_added")
    assert (added["channel"], added["data"]) == (
        "presence-room",
        {"user_id": "2", "user_info": {"name": "John"}},
    )
    await john.hang_up()
    removed = await ali.event("pusher_internal:member_removed")
    assert (removed["channel"], removed["data"]) == ("presence-room", {"user_id": "2"})
    await ali.ping()


async def test_a_user_comes_once_and_goes_once_however_many_connections_there_are(
    connect: Connect,
) -> None:
    ali, phone, laptop = await connect(), await connect(), await connect()
    await ali.join("presence-room", "ali")
    await phone.join("presence-room", "john")
    await ali.event("pusher_internal:member_added")
    assert (await laptop.join("presence-room", "john"))["presence"]["count"] == 2
    phone.send("pusher:unsubscribe", {"channel": "presence-room"})
    await phone.ping()
    await ali.ping()
    laptop.send("pusher:unsubscribe", {"channel": "presence-room"})
    await ali.event("pusher_internal:member_removed")


async def test_a_user_id_may_be_a_number_and_is_told_as_text(connect: Connect) -> None:
    wire = await connect()
    presence = (await wire.join("presence-room", 7))["presence"]
    assert presence == {"ids": ["7"], "hash": {"7": None}, "count": 1}


async def test_a_member_cannot_become_another_on_the_same_connection(connect: Connect) -> None:
    wire = await connect()
    await wire.join("presence-room", "ali")
    assert (await wire.join("presence-room", "eve"))["presence"]["ids"] == ["ali"]


async def test_a_full_presence_channel_says_so(serve: Serve, connect: Connect) -> None:
    server = await serve(max_presence_members=1)
    ali, phone, eve = await connect(server), await connect(server), await connect(server)
    await ali.join("presence-room", "ali")
    await phone.join("presence-room", "ali")
    data = '{"user_id":"eve"}'
    auth = channel_auth("k", "s", eve.socket_id, "presence-room", data)
    eve.send("pusher:subscribe", {"channel": "presence-room", "auth": auth, "channel_data": data})
    assert (await eve.event("pusher:subscription_error"))["data"]["status"] == 403
    await ali.ping()
    await ali.hang_up()
    await phone.hang_up()
    (hub,) = server._hubs.values()
    await until(lambda: not hub.channels)
    await eve.join("presence-room", "eve")


@pytest.mark.parametrize(
    ("channel_data", "status"),
    [
        ("{}", 422),
        ('{"user_id":""}', 422),
        ('{"user_id":null}', 422),
        ('{"user_id":true}', 422),
        ('{"user_id":{"a":1}}', 422),
        ("[]", 422),
        ("no JSON", 422),
        ("", 422),
        (json.dumps({"user_id": "1", "user_info": "x" * 2_048}), 413),
        (json.dumps({"user_id": "1", "user_info": "я" * 1_024}, ensure_ascii=False), 413),
        ("[" * 2_000, 422),
    ],
)
async def test_channel_data_that_names_nobody_is_refused(
    connect: Connect, channel_data: str, status: int
) -> None:
    wire = await connect()
    auth = channel_auth("k", "s", wire.socket_id, "presence-room", channel_data)
    wire.send(
        "pusher:subscribe",
        {"channel": "presence-room", "auth": auth, "channel_data": channel_data},
    )
    refusal = await wire.event("pusher:subscription_error")
    assert refusal["data"]["status"] == status
    await wire.ping()


async def test_channel_data_that_is_not_what_was_signed_is_refused(connect: Connect) -> None:
    wire = await connect()
    signed, sent = '{"user_id":"eve"}', '{"user_id":"ali"}'
    auth = channel_auth("k", "s", wire.socket_id, "presence-room", signed)
    fields = {"channel": "presence-room", "auth": auth, "channel_data": sent}
    wire.send("pusher:subscribe", fields)
    assert (await wire.event("pusher:subscription_error"))["data"]["status"] == 401


# Client events


async def test_a_client_event_reaches_the_other_members_as_it_was_sent(connect: Connect) -> None:
    ali, john, eve = await connect(), await connect(), await connect()
    await ali.join("private-room")
    await john.join("private-room")
    ali.send_text('{"event":"client-typing","channel":"private-room","data":{"b":1,"a":[1.0]}}')
    ali.send_text('{"event":"client-typing","channel":"private-room","data":"{\\"a\\":1}"}')
    ali.send_text('{"event":"client-typing","channel":"private-room"}')
    got = [json.loads((await john.frame()).payload) for _ in range(3)]
    assert got == [
        {"event": "client-typing", "channel": "private-room", "data": {"b": 1, "a": [1.0]}},
        {"event": "client-typing", "channel": "private-room", "data": '{"a":1}'},
        {"event": "client-typing", "channel": "private-room"},
    ]
    await ali.ping()
    await eve.ping()


async def test_on_a_presence_channel_a_client_event_tells_who_sent_it(connect: Connect) -> None:
    ali, john = await connect(), await connect()
    await ali.join("presence-room", "ali")
    await john.join("presence-room", "john")
    await ali.event("pusher_internal:member_added")
    # What a client says about itself is not believed.
    john.send_text(
        '{"event":"client-typing","channel":"presence-room","data":{},"user_id":"ali","extra":1}'
    )
    got = json.loads((await ali.frame()).payload)
    assert got == {
        "event": "client-typing",
        "data": {},
        "channel": "presence-room",
        "user_id": "john",
    }
    await john.ping()


async def test_another_connection_of_the_sender_gets_the_client_event(connect: Connect) -> None:
    phone, laptop = await connect(), await connect()
    await phone.join("presence-room", "ali")
    await laptop.join("presence-room", "ali")
    phone.send("client-typing", {}, "presence-room")
    assert (await laptop.event("client-typing"))["user_id"] == "ali"


async def test_client_events_are_only_for_members_of_private_channels(connect: Connect) -> None:
    wire, other = await connect(), await connect()
    await wire.subscribe("news")
    await other.subscribe("news")
    await wire.join("private-encrypted-room")
    await other.join("private-room")
    for channel in ("news", "private-encrypted-room", "private-room", "nowhere", None):
        wire.send("client-typing", {}, channel)
        assert await wire.error() == 4301
    await other.ping()


async def test_an_application_may_forbid_client_events(serve: Serve, connect: Connect) -> None:
    server = await serve(client_events=False)
    wire, other = await connect(server), await connect(server)
    await wire.join("private-room")
    await other.join("private-room")
    wire.send("client-typing", {}, "private-room")
    assert await wire.error() == 4301
    await other.ping()


async def test_a_client_event_that_is_too_large_is_refused(connect: Connect) -> None:
    wire, other = await connect(), await connect()
    await wire.join("private-room")
    await other.join("private-room")
    wire.send("client-large", "x" * (10_240 - 2), "private-room")
    await other.event("client-large")
    wire.send("client-large", "x" * (10_240 - 1), "private-room")
    assert await wire.error() == 4301
    wire.send(f"client-{'x' * 193}", {}, "private-room")
    await other.event(f"client-{'x' * 193}")
    wire.send(f"client-{'x' * 194}", {}, "private-room")
    assert await wire.error() == 4301
    await other.ping()


async def test_more_client_events_than_allowed_are_refused_and_the_connection_stays(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, other = await connect(), await connect()
    await wire.join("private-room")
    await other.join("private-room")
    clock = Clock()
    monkeypatch.setattr("antiphon.server.session.time", clock)
    for _ in range(11):
        wire.send("client-typing", {}, "private-room")
    assert await wire.error() == 4301
    await wire.ping()
    for _ in range(10):
        await other.event("client-typing")
    await other.ping()
    clock.now += 1.0
    wire.send("client-typing", {}, "private-room")
    await other.event("client-typing")


class Clock:
    """Stands in for the `time` module: stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1e9

    def monotonic(self) -> float:
        return self.now


# Users


def sign_in(wire: Wire, user_data: str, wrong: dict[str, str] | None = None) -> None:
    words = {"key": "k", "secret": "s", "socket_id": wire.socket_id, "user_data": user_data}
    auth = user_auth(**{**words, **(wrong or {})})
    wire.send("pusher:signin", {"auth": auth, "user_data": user_data})


async def test_a_user_who_signs_in_is_told_so_and_may_listen_to_the_users_own_channel(
    server: Server, connect: Connect
) -> None:
    wire, phone = await connect(), await connect()
    sign_in(wire, '{"id":"7","user_info":{"name":"Ali"}}')
    answer = await wire.event("pusher:signin_success")
    assert answer["data"] == {"user_data": '{"id":"7","user_info":{"name":"Ali"}}'}
    await wire.subscribe("#server-to-user-7")
    async with Publisher(server.settings()) as publisher:
        await publisher.trigger("#server-to-user-7", "note", 1)
    assert (await wire.event("note"))["channel"] == "#server-to-user-7"
    await phone.ping()


async def test_a_users_own_channel_takes_nobody_else(connect: Connect) -> None:
    wire = await connect()
    for channel in ("#server-to-user-7", "#server-to-user-8"):
        wire.send("pusher:subscribe", {"channel": channel})
        refusal = await wire.event("pusher:subscription_error")
        assert (refusal["channel"], refusal["data"]["status"]) == (channel, 401)
        if channel.endswith("7"):
            sign_in(wire, '{"id":"7"}')
            await wire.event("pusher:signin_success")
    await wire.subscribe("#server-to-user-7")


@pytest.mark.parametrize(
    ("user_data", "wrong"),
    [
        ('{"id":"7"}', {"secret": "guess"}),
        ('{"id":"7"}', {"key": "x"}),
        ('{"id":"7"}', {"socket_id": "1.1"}),
        ('{"id":"7"}', {"user_data": '{"id":"8"}'}),
        ('{"id":""}', {}),
        ('{"id":7}', {}),
        ("{}", {}),
        ("no JSON", {}),
        ("[" * 5_000, {}),
    ],
)
async def test_a_sign_in_that_is_not_signed_for_a_user_is_refused(
    connect: Connect, user_data: str, wrong: dict[str, str]
) -> None:
    wire = await connect()
    sign_in(wire, user_data, wrong)
    assert await wire.error() == 4009
    wire.send("pusher:subscribe", {"channel": "#server-to-user-7"})
    await wire.event("pusher:subscription_error")


async def test_a_connection_is_one_users_to_its_end(connect: Connect) -> None:
    wire = await connect()
    for _ in range(2):
        sign_in(wire, '{"id":"7"}')
        await wire.event("pusher:signin_success")
    sign_in(wire, '{"id":"9"}')
    assert await wire.error() == 4009
    await wire.subscribe("#server-to-user-7")


# Frames from strangers


ODD_FRAMES = [
    "",
    " ",
    "hello",
    "null",
    "0",
    "[]",
    "{}",
    "{",
    '"event"',
    '{"event":null}',
    '{"event":""}',
    '{"event":1}',
    '{"event":["pusher:ping"]}',
    '{"event":"pusher:ping","channel":1}',
    '{"event":"pusher:ping"}}',
    '{"event":"nobody-knows-this"}',
    '{"event":"pusher:nobody-knows-this"}',
    '{"event":"pusher_internal:subscription_succeeded","channel":"a"}',
    '{"event":"pusher:connection_established","data":"{}"}',
    '{"event":"pusher:subscribe","data":null}',
    '{"event":"pusher:subscribe","data":[]}',
    '{"event":"pusher:subscribe","data":"not JSON"}',
    '{"event":"pusher:subscribe","data":{"channel":null}}',
    '{"event":"pusher:subscribe","data":{"channel":"private-a","auth":1}}',
    '{"event":"pusher:subscribe","data":{"channel":"presence-a","auth":"a","channel_data":{}}}',
    '{"event":"pusher:unsubscribe","data":{"channel":7}}',
    '{"event":"pusher:signin","data":{"auth":"a","user_data":{}}}',
    '{"event":"client-\\ud800","channel":"a","data":"\\udfff"}',
    '{"event":"pusher:subscribe","data":{"channel":"\\ud800"}}',
    "[" * 60_000,
    '{"event":"client-a","data":' + "[" * 60_000,
    '{"event":"pusher:subscribe","data":' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "}",
    '{"event":"x","data":' + "9" * 60_000 + "}",
    '{"event":"x","data":1e999999}',
    '{"event":"' + "x" * 60_000 + '"}',
    "\x00",
    "\ufeff{}",
]


@pytest.mark.parametrize("text", ODD_FRAMES, ids=lambda text: repr(text)[:40])
async def test_a_malformed_frame_costs_an_error_in_band_and_nothing_more(
    connect: Connect, text: str
) -> None:
    wire, other = await connect(), await connect()
    wire.send_text(text)
    assert await wire.error() in (4009, 4200, 4301)
    await wire.ping()
    await other.ping()


def dangers() -> list[Any]:
    return [
        pytest.param(
            [json.loads(line) for line in path.read_text().splitlines()],
            id=path.stem.removeprefix("danger_"),
        )
        for path in sorted(DATA.glob("soketi*/danger_*.jsonl"))
    ]


async def test_every_recorded_danger_is_here() -> None:
    assert len(dangers()) == 12


@pytest.mark.parametrize("steps", dangers())
async def test_what_shut_soketi_down_leaves_this_server_serving(
    serve: Serve, connect: Connect, steps: list[dict[str, Any]]
) -> None:
    app = App(id="1001", key="peer-key", secret="peer-secret")
    auth_app = App(id="1002", key="peer-auth-key", secret="peer-secret")
    server = await serve(app, auth_app)
    witness = await connect(server, "/app/peer-key")
    wires: dict[str, Wire] = {}
    for step in steps:
        match step["dir"]:
            case "connect":
                path = step["url"].partition("?")[0]
                wires[step["conn"]] = await connect(server, path)
            case "send" if "raw" in step:
                wire = wires[step["conn"]]
                wire.send_text(_signed_anew(step["raw"], wire))
                # The same connection still answers: soketi closed it, with itself.
                wire.send("pusher:ping", {})
                while (await wire.message())["event"] != "pusher:pong":
                    pass
            case "send":
                wires[step["conn"]].send_close(step["code"])
            case "http_req":
                await _ask_anew(server, step)
        await witness.ping()


def _signed_anew(text: str, wire: Wire) -> str:
    """The frame, with its signature made for this connection's socket id."""
    frame = json.loads(text)
    data = frame.get("data")
    if isinstance(data, dict) and str(data.get("auth")).startswith("peer-auth-key:"):
        data["auth"] = user_auth("peer-auth-key", "peer-secret", wire.socket_id, data["user_data"])
    return json.dumps(frame)


async def _ask_anew(server: Server, step: dict[str, Any]) -> None:
    """The recorded request, signed for now; answered, if not with a yes."""
    method, target, _ = step["line"].split(" ")
    path, body = target.partition("?")[0], step.get("body", "").encode()
    query = ""
    if path != "/":
        key = re.search("auth_key=([a-z-]+)", target)
        assert key is not None
        signed = sign_request(
            key[1], "peer-secret", method, path, timestamp=int(time.time()), body=body
        )
        query = "?" + "&".join(f"{name}={value}" for name, value in signed.items())
    request = f"{method} {path}{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    status, answer = await http(server.port, request.encode() + body)
    if path == "/":
        assert status == 404
    elif b"#server-to-user" in body:
        assert (status, answer) == (200, b"{}")
    else:
        assert status == 400, answer


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
WORDS = st.sampled_from(
    ["pusher:subscribe", "pusher:unsubscribe", "pusher:signin", "client-x", "private-a", "a", "7"]
)
DATA_FIELDS = st.dictionaries(
    st.sampled_from(["channel", "auth", "channel_data", "user_data", "id"]), WORDS | JSON
)
HOSTILE = st.one_of(
    st.fixed_dictionaries(
        {"event": WORDS | JSON},
        optional={
            "data": DATA_FIELDS | DATA_FIELDS.map(json.dumps) | JSON,
            "channel": WORDS | JSON,
        },
    ).map(json.dumps),
    st.text(max_size=50),
    JSON.map(json.dumps),
).map(lambda text: frame_bytes(TEXT, text.encode("utf-8", "replace"))) | st.builds(
    frame_bytes, st.just(TEXT), st.binary(max_size=30)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(HOSTILE, min_size=1, max_size=20))
async def test_whatever_hypothesis_thinks_of_leaves_the_server_serving(
    server: Server, frames: list[bytes]
) -> None:
    async with await Wire.connect(server.port) as wire, await Wire.connect(server.port) as other:
        wire.send_bytes(b"".join(frames) + frame_bytes(TEXT, b"\xff"))
        assert (await wire.closed()).code == 1007
        await other.ping()


async def test_frames_damaged_at_random_leave_the_server_serving(
    server: Server, connect: Connect
) -> None:
    """10 000 of them; ANTIPHON_HOSTILE_FRAMES tells another number."""
    count = int(os.environ.get("ANTIPHON_HOSTILE_FRAMES", "10000"))
    dice = random.Random(20_241_025)
    witness = await connect()
    seeds = [text.encode() for text in ODD_FRAMES if len(text) < 200]
    sent = 0
    while sent < count:
        async with await Wire.connect(server.port) as wire:
            for _ in range(100):
                damaged = bytearray(dice.choice(seeds))
                for _ in range(dice.randrange(4)):
                    damaged.insert(dice.randrange(len(damaged) + 1), dice.randrange(256))
                raw = bytearray(frame_bytes(TEXT, bytes(damaged)))
                if dice.random() < 0.01:
                    raw[dice.randrange(len(raw))] = dice.randrange(256)
                wire.send_bytes(bytes(raw))
                sent += 1
            wire.send_close()
            await wire.closed()
        await witness.ping()
    (hub,) = server._hubs.values()
    await until(lambda: len(hub.sockets) == 1)

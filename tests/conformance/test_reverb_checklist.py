"""Reverb's own feature tests, line by line, as what they ask for holds here.

A test's id names Reverb's class and the line in it, numbered in the order of Reverb's file; a line
that Reverb runs over Redis runs here on two nodes. Where antiphon answers otherwise, the test says
what it answers, and `docs/conformance.md` why.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import pytest
import pytest_asyncio

import antiphon.protocol.server
from antiphon.protocol.signing import channel_auth, sign_request
from antiphon.server import Server
from antiphon.settings import App
from tests.server.wire import PING, PONG, TIMEOUT, Closed, HandshakeRefused, Wire

from .cluster import Clock, cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

LINES: Final[list[str]] = []
CHANNEL: Final = "test-channel"
PRIVATE: Final = "private-test-channel"
PRESENCE: Final = "presence-test-channel"
CACHES: Final = ("cache-test-channel", "private-cache-test-channel", "presence-cache-test-channel")


class Answer(NamedTuple):
    """An answer to a request."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


class Place:
    """One server, or two that are one, with the application `k`.

    Whoever connects `elsewhere` is on the other node, if there is one; requests go to the first.
    """

    def __init__(self, nodes: list[Server], stack: contextlib.AsyncExitStack) -> None:
        self.nodes = nodes
        self._stack = stack

    async def connect(self, path: str = "/app/k", node: int = 0, **options: Any) -> Wire:
        wire = await Wire.connect(self.nodes[node].port, path, **options)
        return await self._stack.enter_async_context(wire)

    async def refused(self, path: str = "/app/k", **options: Any) -> tuple[int, int | None]:
        """The error's code, and what the connection is closed with."""
        wire = await Wire.open(self.nodes[0].port, path, **options)
        async with wire:
            return await wire.error(), (await wire.closed()).code

    async def elsewhere(self) -> Wire:
        return await self.connect(node=-1)

    async def post(self, resource: str, body: Any, **how: Any) -> Answer:
        return await self.request("POST", resource, json.dumps(body).encode(), **how)

    async def get(self, resource: str, **query: str) -> Answer:
        return await self.request("GET", resource, query=query)

    async def request(
        self,
        method: str,
        resource: str,
        body: bytes = b"",
        *,
        query: Mapping[str, str] | None = None,
        app_id: str = "1",
        prefix: str = "",
        is_signed: bool = True,
    ) -> Answer:
        path = f"/apps/{app_id}/{resource}"
        signed: Mapping[str, str] = query or {}
        if is_signed:
            signed = sign_request(
                "k", "s", method, path, timestamp=int(time.time()), body=body, query=query
            )
        asked = "&".join(f"{name}={value}" for name, value in signed.items())
        head = f"{method} {prefix}{path}?{asked} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.nodes[0].port)
        try:
            writer.write(head.encode() + body)
            async with asyncio.timeout(TIMEOUT):
                said, _, content = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        first, *fields = said.decode().split("\r\n")
        headers = dict(field.lower().split(": ", 1) for field in fields)
        return Answer(int(first.split()[1]), headers, content)

    async def tells(self, body: Any, resource: str, **query: str) -> Answer:
        """Ask until this is answered: nodes hear of each other a moment later."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                answer = await self.get(resource, **query)
                if answer.status == 200 and answer.body == body:
                    return answer
                await asyncio.sleep(0.01)

    async def channels(self) -> dict[str, int]:
        """How many are in each channel of the first node."""
        return {
            name: len(channel.subscribers)
            for hub in self.nodes[0]._hubs.values()
            for name, channel in hub.channels.items()
        }


Open = Callable[..., Awaitable[Place]]


@pytest_asyncio.fixture(loop_scope="module")
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Starts what the line is tried on: `await opened(max_connections=1)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*more: App, path: str = "", **app: Any) -> Place:
            apps = (App(id="1", key="k", secret="s", **app), *more)
            if request.param == 1:
                nodes = [await stack.enter_async_context(Server(apps, path=path))]
            else:
                nodes = await stack.enter_async_context(cluster(*apps))
            return Place(nodes, stack)

        yield start


def checks(*lines: str, over_redis: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """The lines that a test is for, on one node and on two."""
    LINES.extend((*lines, *over_redis))
    one = [pytest.param(1, id=line) for line in lines]
    return pytest.mark.parametrize(
        "opened", [*one, *(pytest.param(2, id=line) for line in over_redis)], indirect=True
    )


async def said(wire: Wire) -> Any:
    """The next message as it stands, its data not decoded."""
    return json.loads((await wire.frame()).payload)


async def join(wire: Wire, channel: str, user_id: object = None, **info: Any) -> None:
    """Ask to join with whatever signature the channel needs; the answer is left to be read."""
    data = None if user_id is None else json.dumps({"user_id": user_id, "user_info": info})
    auth = channel_auth("k", "s", wire.socket_id, channel, data)
    fields = {"channel": channel, "auth": auth, "channel_data": data}
    wire.send("pusher:subscribe", {k: v for k, v in fields.items() if v is not None})


def success(channel: str, data: str = "{}") -> dict[str, str]:
    return {
        "event": "pusher_internal:subscription_succeeded",
        "data": data,
        "channel": channel,
    }


def presence(*members: tuple[str, Any]) -> str:
    told = {"ids": [id_ for id_, _ in members], "hash": dict(members), "count": len(members)}
    return json.dumps({"presence": told}, separators=(",", ":"))


def event(name: str = "App\\Events\\TestEvent", /, **fields: Any) -> dict[str, Any]:
    return {"name": name, "channel": CHANNEL, "data": json.dumps({"some": "data"}), **fields}


async def test_every_line_of_the_checklist_has_its_test() -> None:
    numbers = {
        "ServerTest": 48,
        "EventsControllerTest": 18,
        "EventsBatchControllerTest": 12,
        "ChannelsControllerTest": 11,
        "ChannelControllerTest": 13,
        "ChannelUsersControllerTest": 11,
        "ConnectionsControllerTest": 7,
        "UsersTerminateControllerTest": 4,
        "HealthCheckControllerTest": 2,
    }
    assert Counter(LINES) == Counter(
        f"{name}-{number}" for name, count in numbers.items() for number in range(1, count + 1)
    )


# ServerTest: joining and leaving


@checks("ServerTest-1")
async def test_each_application_has_its_connections(opened: Open) -> None:
    second = App(id="2", key="key-2", secret="s")
    third = App(id="3", key="key-3", secret="s", allowed_origins=("laravel.com",))
    place = await opened(second, third)
    await place.connect("/app/key-2")
    await place.connect("/app/key-3", headers={"Origin": "http://laravel.com"})


@checks("ServerTest-2")
async def test_a_public_channel_is_joined(opened: Open) -> None:
    place = await opened()
    wire = await place.connect()
    wire.send("pusher:subscribe", {"channel": CHANNEL})
    assert await said(wire) == success(CHANNEL)
    assert await place.channels() == {CHANNEL: 1}


@checks("ServerTest-3")
async def test_a_private_channel_is_joined(opened: Open) -> None:
    wire = await (await opened()).connect()
    await join(wire, PRIVATE)
    assert await said(wire) == success(PRIVATE)


@checks("ServerTest-4")
async def test_a_presence_channel_is_joined(opened: Open) -> None:
    wire = await (await opened()).connect()
    await join(wire, PRESENCE, 1, name="Test User")
    assert await said(wire) == success(PRESENCE, presence(("1", {"name": "Test User"})))


@checks("ServerTest-5")
async def test_a_cache_channel_is_joined(opened: Open) -> None:
    wire = await (await opened()).connect()
    wire.send("pusher:subscribe", {"channel": CACHES[0]})
    assert await said(wire) == success(CACHES[0])


@checks("ServerTest-6")
async def test_a_private_cache_channel_is_joined(opened: Open) -> None:
    wire = await (await opened()).connect()
    await join(wire, CACHES[1])
    assert await said(wire) == success(CACHES[1])


@checks("ServerTest-7")
async def test_a_presence_cache_channel_is_joined(opened: Open) -> None:
    wire = await (await opened()).connect()
    await join(wire, CACHES[2], 1, name="Test User")
    assert await said(wire) == success(CACHES[2], presence(("1", {"name": "Test User"})))


@checks("ServerTest-8")
async def test_members_see_another_one_join(opened: Open) -> None:
    """Reverb passes on the number; a user's id is text here, as in Pusher's documents."""
    place = await opened()
    first, second = await place.connect(), await place.connect()
    await first.join(PRESENCE, 1, {"name": "Test User 1"})
    await second.join(PRESENCE, 2, {"name": "Test User 2"})
    assert await said(first) == {
        "event": "pusher_internal:member_added",
        "data": '{"user_id":"2","user_info":{"name":"Test User 2"}}',
        "channel": PRESENCE,
    }


@checks("ServerTest-9")
async def test_members_see_another_one_leave(opened: Open) -> None:
    """The id is text here too."""
    place = await opened()
    first, third = await place.connect(), await place.connect()
    await first.join(PRESENCE, 1, {})
    await third.join(PRESENCE, 3, {})
    await first.event("pusher_internal:member_added")
    await third.hang_up()
    assert await said(first) == {
        "event": "pusher_internal:member_removed",
        "data": '{"user_id":"3"}',
        "channel": PRESENCE,
    }


# ServerTest: cache channels


async def joined_with_event(place: Place, channel: str) -> Wire:
    """Join a channel after something was published to it; the success is read."""
    first, wire = await place.connect(), await place.connect()
    await first.join(channel, "1" if "presence" in channel else None)
    answer = await place.post("events", event("App\\Events\\TestEvent", channel=channel))
    assert (answer.status, answer.body) == (200, {})
    await wire.join(channel, "2" if "presence" in channel else None)
    return wire


@checks("ServerTest-10")
async def test_the_last_event_is_sent_on_a_cache_channel(opened: Open) -> None:
    wire = await joined_with_event(await opened(), CACHES[0])
    assert await said(wire) == kept(CACHES[0])


@checks("ServerTest-11")
async def test_the_last_event_is_sent_on_a_private_cache_channel(opened: Open) -> None:
    wire = await joined_with_event(await opened(), CACHES[1])
    assert await said(wire) == kept(CACHES[1])


@checks("ServerTest-12")
async def test_the_last_event_is_sent_on_a_presence_cache_channel(opened: Open) -> None:
    wire = await joined_with_event(await opened(), CACHES[2])
    assert await said(wire) == kept(CACHES[2])


def kept(channel: str) -> dict[str, str]:
    return {"event": "App\\Events\\TestEvent", "data": '{"some": "data"}', "channel": channel}


async def missed(place: Place, channel: str) -> Any:
    wire = await place.connect()
    await wire.join(channel, "1" if "presence" in channel else None)
    return await said(wire)


@checks("ServerTest-13")
async def test_an_empty_cache_channel_says_so(opened: Open) -> None:
    told = await missed(await opened(), CACHES[0])
    assert told == {"event": "pusher:cache_miss", "channel": CACHES[0]}


@checks("ServerTest-14")
async def test_an_empty_private_cache_channel_says_so(opened: Open) -> None:
    told = await missed(await opened(), CACHES[1])
    assert told == {"event": "pusher:cache_miss", "channel": CACHES[1]}


@checks("ServerTest-15")
async def test_an_empty_presence_cache_channel_says_so(opened: Open) -> None:
    told = await missed(await opened(), CACHES[2])
    assert told == {"event": "pusher:cache_miss", "channel": CACHES[2]}


# ServerTest: events


@checks("ServerTest-16")
async def test_an_event_reaches_all_subscribers(opened: Open) -> None:
    place = await opened()
    wires = [await place.connect() for _ in range(3)]
    for wire in wires:
        await wire.subscribe(CHANNEL)
    assert (await place.post("events", event())).body == {}
    for wire in wires:
        assert await said(wire) == kept(CHANNEL)


@checks("ServerTest-17", over_redis=("ServerTest-29",))
async def test_an_event_reaches_a_presence_channel(opened: Open) -> None:
    place = await opened()
    wire = await place.elsewhere()
    await wire.join(PRESENCE, 1, {"name": "Test User 1"})
    assert (await place.post("events", event(channel=PRESENCE))).body == {}
    assert await said(wire) == kept(PRESENCE)


@checks("ServerTest-18")
async def test_a_ping_is_answered(opened: Open) -> None:
    """With the empty data of Pusher's documents; Reverb leaves it out."""
    wire = await (await opened()).connect()
    wire.send("pusher:ping")
    assert await said(wire) == {"event": "pusher:pong", "data": {}}


@checks("ServerTest-19", "ServerTest-46")
async def test_who_is_silent_is_pinged(opened: Open, clock: Clock) -> None:
    place = await opened(activity_timeout=1)
    wire = await place.connect()
    await wire.subscribe(CHANNEL)
    clock.turn(1, place.nodes[0])
    assert await said(wire) == {"event": "pusher:ping", "data": {}}


@checks("ServerTest-20")
async def test_who_does_not_answer_a_ping_is_gone(
    opened: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code is the close frame's: Pusher's documents have no message before it."""
    monkeypatch.setattr(antiphon.protocol.server, "PONG_TIMEOUT", 1.0)
    place = await opened(activity_timeout=1)
    wire = await place.connect()
    await wire.subscribe(CHANNEL)
    clock.turn(1, place.nodes[0])
    await wire.event("pusher:ping")
    clock.turn(1, place.nodes[0])
    with pytest.raises(Closed, match="Pong reply not received in time") as closed:
        await wire.message()
    assert closed.value.code == 4201
    assert await place.channels() == {}


@checks("ServerTest-21")
async def test_a_client_event_on_a_public_channel_is_refused(opened: Open) -> None:
    """Reverb passes it on; by Pusher's documents private and presence channels have them."""
    place = await opened()
    ali, john = await place.connect(), await place.connect()
    for wire in (ali, john):
        await wire.subscribe(CHANNEL)
        await wire.join(PRIVATE)
    ali.send("client-start-typing", {"id": 123}, CHANNEL)
    assert await ali.error() == 4301
    ali.send("client-start-typing", {"id": 123}, PRIVATE)
    assert await said(john) == {
        "event": "client-start-typing",
        "data": {"id": 123},
        "channel": PRIVATE,
    }


@checks("ServerTest-22")
async def test_one_connection_is_in_channels_of_all_kinds(opened: Open) -> None:
    place = await opened()
    wire = await place.connect()
    await wire.subscribe(CHANNEL)
    await wire.join(PRIVATE)
    await wire.join(PRESENCE, 1, {})
    await wire.subscribe(CACHES[0])
    assert await place.channels() == dict.fromkeys((CHANNEL, PRIVATE, PRESENCE, CACHES[0]), 1)


@checks("ServerTest-23")
async def test_two_connections_are_counted_in_each_channel(opened: Open) -> None:
    place = await opened()
    first, second = await place.connect(), await place.connect()
    await first.subscribe(CHANNEL)
    await second.subscribe(CHANNEL)
    await first.join(PRIVATE)
    await first.join(PRESENCE, 1, {})
    await second.join(PRESENCE, 2, {})
    await second.subscribe(CACHES[0])
    assert list((await place.channels()).values()) == [2, 1, 2, 1]


@checks("ServerTest-24", "ServerTest-25", "ServerTest-26", "ServerTest-27")
async def test_a_wrong_signature_is_refused(opened: Open, request: pytest.FixtureRequest) -> None:
    """With the channel's name and a status, as pusher-js expects; Reverb: error 4009."""
    channels = {"24": PRIVATE, "25": PRESENCE, "26": CACHES[1], "27": CACHES[2]}
    channel = next(name for line, name in channels.items() if f"-{line}]" in request.node.name)
    wire = await (await opened()).connect()
    data = {"channel": channel, "auth": "invalid-signature"}
    if "presence" in channel:
        data["channel_data"] = '{"user_id":"1"}'
    wire.send("pusher:subscribe", data)
    refusal = await wire.event("pusher:subscription_error")
    assert (refusal["channel"], refusal["data"]["status"]) == (channel, 401)


@checks("ServerTest-28")
async def test_an_unknown_key_is_refused(opened: Open) -> None:
    """In-band as Reverb, and then with the close code that Reverb leaves out."""
    assert await (await opened()).refused("/app/invalid-key") == (4001, 4001)


@checks(over_redis=("ServerTest-30",))
async def test_a_client_event_reaches_the_other_node(opened: Open) -> None:
    place = await opened()
    ali, john = await place.connect(), await place.elsewhere()
    for wire in (ali, john):
        await wire.join(PRIVATE)
    ali.send("client-start-typing", {"id": 123}, PRIVATE)
    assert (await john.event("client-start-typing"))["data"] == {"id": 123}
    await ali.ping()


# ServerTest: limits


@checks("ServerTest-31")
async def test_an_origin_that_is_not_allowed_is_refused(opened: Open) -> None:
    """And closed; Reverb leaves it open and usable."""
    place = await opened(allowed_origins=("laravel.com",))
    assert await place.refused(headers={"Origin": "http://example.com"}) == (4009, 4009)


@checks("ServerTest-32")
async def test_an_origin_that_is_allowed_connects(opened: Open) -> None:
    place = await opened(allowed_origins=("laravel.com",))
    await place.connect(headers={"Origin": "http://laravel.com"})


@checks("ServerTest-33")
async def test_one_connection_too_many_is_refused(opened: Open) -> None:
    """And closed. Every open connection counts; with Reverb, who is in a channel."""
    place = await opened(max_connections=1)
    await place.connect()
    assert await place.refused() == (4004, 4004)


@checks("ServerTest-34")
async def test_a_message_over_one_byte_is_too_large(opened: Open) -> None:
    wire = await (await opened(max_message_size=1)).connect()
    wire.send("pusher:subscribe", {"channel": CHANNEL})
    with pytest.raises(Closed, match="size") as closed:
        await wire.message()
    assert closed.value.code == 1009


@checks("ServerTest-35")
async def test_a_channel_goes_with_its_last_subscriber(opened: Open) -> None:
    place = await opened()
    wire = await place.connect()
    await wire.subscribe(CHANNEL)
    wire.send("pusher:unsubscribe", {"channel": CHANNEL})
    await wire.ping()
    assert await place.channels() == {}


@checks("ServerTest-36", "ServerTest-37")
async def test_no_signature_at_all_is_refused(opened: Open, request: pytest.FixtureRequest) -> None:
    channel = PRIVATE if "-36]" in request.node.name else PRESENCE
    wire = await (await opened()).connect()
    wire.send_text(
        json.dumps({"event": "pusher:subscribe", "data": {"channel": channel, "auth": None}})
    )
    refusal = await wire.event("pusher:subscription_error")
    assert (refusal["channel"], refusal["data"]["status"]) == (channel, 401)


@checks("ServerTest-38")
async def test_a_message_over_its_limit_is_too_large(opened: Open) -> None:
    wire = await (await opened(max_message_size=10_000)).connect()
    wire.send("pusher:subscribe", {"channel": CHANNEL, "pad": "a" * 10_100})
    assert (await wire.closed()).code == 1009


@checks("ServerTest-39")
async def test_a_message_within_a_larger_limit_is_read(opened: Open) -> None:
    wire = await (await opened(max_message_size=30_000)).connect()
    wire.send("pusher:subscribe", {"channel": CHANNEL, "pad": "a" * 20_000})
    assert await said(wire) == success(CHANNEL)


@checks("ServerTest-40")
async def test_a_large_request_is_read_whole(opened: Open) -> None:
    place = await opened(max_event_size=200_000)
    wire = await place.connect()
    await wire.subscribe(CHANNEL)
    answer = await place.post("events", event(data="a" * 150_000))
    assert (answer.status, answer.body) == (200, {})
    assert (await said(wire))["data"] == "a" * 150_000


@checks("ServerTest-41")
async def test_all_is_under_the_path_prefix(opened: Open) -> None:
    place = await opened(path="ws")
    wire = await place.connect("/ws/app/k")
    await wire.ping()


@checks("ServerTest-42")
async def test_nothing_is_outside_the_path_prefix(opened: Open) -> None:
    place = await opened(path="ws")
    with pytest.raises(HandshakeRefused) as refused:
        await place.connect("/app/k")
    assert refused.value.status == 404


@checks("ServerTest-43")
async def test_a_user_who_joins_twice_is_one_member(opened: Open) -> None:
    place = await opened()
    first, second = await place.connect(), await place.connect()
    for wire in (first, second):
        joined = await wire.join(PRESENCE, 1, {"name": "Test User"})
        assert (joined["presence"]["count"], joined["presence"]["ids"]) == (1, ["1"])
    await first.ping()  # and was told of nobody


# ServerTest: liveness


def due(place: Place, wire: Wire) -> float:
    """When the server will look at a connection."""
    session: Any = next(iter(place.nodes[0]._hubs.values())).sockets[wire.socket_id]
    return float(session.next_timer())


@checks("ServerTest-44")
async def test_a_ping_frame_is_answered_and_shows_life(opened: Open) -> None:
    place = await opened()
    wire = await place.connect()
    before = due(place, wire)
    wire.send_frame(PING, b"data")
    assert await wire.frame() == (PONG, b"data")
    assert due(place, wire) > before


@checks("ServerTest-45")
async def test_a_pong_frame_shows_life_and_is_not_answered(opened: Open) -> None:
    place = await opened()
    wire = await place.connect()
    before = due(place, wire)
    wire.send_frame(PONG, b"data")
    wire.send_frame(PING, b"next")
    assert await wire.frame() == (PONG, b"next")
    assert due(place, wire) > before


@checks("ServerTest-47")
async def test_who_sends_control_frames_is_pinged_as_everybody(opened: Open, clock: Clock) -> None:
    """With `pusher:ping`, which every client must answer; Reverb goes over to ping frames."""
    place = await opened(activity_timeout=1)
    wire = await place.connect()
    wire.send_frame(PING)
    assert (await wire.frame()).opcode == PONG
    clock.turn(1, place.nodes[0])
    assert await said(wire) == {"event": "pusher:ping", "data": {}}


@checks("ServerTest-48")
async def test_the_handshake_does_not_say_what_powers_it(opened: Open) -> None:
    """Reverb says X-Powered-By: Laravel Reverb."""
    place = await opened()
    reader, writer = await asyncio.open_connection("127.0.0.1", place.nodes[0].port)
    lines = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    writer.write(f"GET /app/k HTTP/1.1\r\nHost: x\r\n{lines}{key}\r\n".encode())
    async with asyncio.timeout(TIMEOUT):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"powered" not in head.lower()


# EventsControllerTest


@checks("EventsControllerTest-1")
async def test_an_event_is_published_to_a_channel(opened: Open) -> None:
    answer = await (await opened()).post("events", event())
    assert (answer.status, answer.body) == (200, {})


@checks("EventsControllerTest-2")
async def test_an_event_is_published_to_several_channels(opened: Open) -> None:
    body = {"name": "e", "channels": ["one", "two"], "data": "{}"}
    answer = await (await opened()).post("events", body)
    assert (answer.status, answer.body) == (200, {})


async def occupied(place: Place) -> None:
    """Somebody in `presence-one`, elsewhere, and somebody in `two`."""
    first, second = await place.elsewhere(), await place.connect()
    await first.join("presence-one", 1, {})
    await second.subscribe("two")
    await place.tells(
        {"occupied": True, "user_count": 1}, "channels/presence-one", info="user_count"
    )


@checks("EventsControllerTest-3", over_redis=("EventsControllerTest-4",))
async def test_publishing_tells_how_many_users_there_are(opened: Open) -> None:
    place = await opened()
    await occupied(place)
    body = {"name": "e", "channels": ["presence-one", "two"], "data": "{}", "info": "user_count"}
    answer = await place.post("events", body)
    assert answer.body == {"channels": {"presence-one": {"user_count": 1}, "two": {}}}


@checks("EventsControllerTest-5", over_redis=("EventsControllerTest-6",))
async def test_publishing_tells_how_many_subscribers_there_are(opened: Open) -> None:
    place = await opened()
    await occupied(place)
    body = {"name": "e", "channels": ["presence-one", "two"], "data": "{}"}
    answer = await place.post("events", {**body, "info": "subscription_count"})
    assert answer.body == {"channels": {"presence-one": {}, "two": {"subscription_count": 1}}}


@checks("EventsControllerTest-7", over_redis=("EventsControllerTest-8",))
async def test_the_sender_is_left_out(opened: Open) -> None:
    """On another node too: what is asked is that it is, not how Redis carries it."""
    place = await opened()
    sender, other = await place.elsewhere(), await place.connect()
    for wire in (sender, other):
        await wire.subscribe(CHANNEL)
    answer = await place.post("events", event("first", socket_id=sender.socket_id))
    assert (answer.status, answer.body) == (200, {})
    await place.post("events", event("second"))
    await other.event("first")
    await other.event("second")
    await sender.event("second")


@checks("EventsControllerTest-9")
async def test_an_unknown_sender_harms_nothing(opened: Open) -> None:
    place = await opened()
    wire = await place.connect()
    await wire.subscribe(CHANNEL)
    answer = await place.post("events", event("e", socket_id="123.456"))
    assert (answer.status, answer.body) == (200, {})
    await wire.event("e")


@checks("EventsControllerTest-10")
async def test_an_event_without_data_is_refused(opened: Open) -> None:
    """With 400, the status of Pusher's documents; Reverb: 422."""
    place = await opened()
    for where in ({"channel": CHANNEL}, {"channels": [CHANNEL]}):
        answer = await place.post("events", {"name": "e", **where})
        assert answer.status == 400
        assert "data" in answer.body["error"]


@checks("EventsControllerTest-11")
async def test_an_event_with_numbers_for_texts_is_refused(opened: Open) -> None:
    place = await opened()
    for field in ("socket_id", "info"):
        answer = await place.post("events", {**event(), field: 1234})
        assert answer.status == 400
        assert field in answer.body["error"]


@checks("EventsControllerTest-12")
async def test_data_over_its_limit_is_refused(opened: Open) -> None:
    answer = await (await opened()).post("events", event(data="a" * 10_241))
    assert answer.status == 413
    assert "10240" in answer.body["error"]


@checks("EventsControllerTest-13")
async def test_data_within_a_larger_limit_is_published(opened: Open) -> None:
    place = await opened(max_event_size=20_000)
    answer = await place.post("events", event(data="a" * 10_241))
    assert (answer.status, answer.body) == (200, {})


@checks("EventsControllerTest-14", "EventsBatchControllerTest-11")
async def test_a_body_of_null_is_refused(opened: Open, request: pytest.FixtureRequest) -> None:
    """It is the client's mistake and says so; Reverb: 500."""
    resource = "batch_events" if "Batch" in request.node.name else "events"
    answer = await (await opened()).request("POST", resource, b"null")
    assert answer.status == 400
    assert answer.body["error"].startswith("The body cannot be used")


@checks("EventsControllerTest-15")
async def test_an_unknown_application_is_refused(opened: Open) -> None:
    answer = await (await opened()).post("events", event(), app_id="no-such")
    assert answer.status == 404
    assert "no-such" in answer.body["error"]


@checks("EventsControllerTest-16")
async def test_an_answer_to_an_event_has_its_length(opened: Open) -> None:
    answer = await (await opened()).post("events", event())
    assert answer.headers["content-length"] == "2"


UNSIGNED: Final = {
    "EventsControllerTest-17": ("POST", "events"),
    "EventsBatchControllerTest-12": ("POST", "batch_events"),
    "ChannelsControllerTest-11": ("GET", "channels"),
    "ChannelControllerTest-13": ("GET", f"channels/{CHANNEL}"),
    "ChannelUsersControllerTest-11": ("GET", f"channels/{PRESENCE}/users"),
    "ConnectionsControllerTest-7": ("GET", "connections"),
    "UsersTerminateControllerTest-4": ("POST", "users/456/terminate_connections"),
}


@checks(*UNSIGNED)
async def test_who_does_not_sign_is_refused(opened: Open, request: pytest.FixtureRequest) -> None:
    """With a body that says what is missing, in JSON; Reverb: plain text."""
    method, resource = UNSIGNED[request.node.callspec.id]
    answer = await (await opened()).request(method, resource, is_signed=False)
    assert answer.status == 401
    assert "auth_key is missing" in answer.body["error"]


@checks("EventsControllerTest-18")
async def test_the_path_prefix_is_not_signed(opened: Open) -> None:
    answer = await (await opened(path="ws")).post("events", event(), prefix="/ws")
    assert (answer.status, answer.body) == (200, {})


# EventsBatchControllerTest


@checks("EventsBatchControllerTest-1", "EventsBatchControllerTest-2")
async def test_a_batch_is_published(opened: Open, request: pytest.FixtureRequest) -> None:
    """The answer is the documents' `{}`; Reverb: `{"batch":{}}`."""
    place = await opened()
    wire = await place.connect()
    await wire.subscribe(CHANNEL)
    count = int(request.node.callspec.id[-1])
    batch = [event(f"e{number}") for number in range(count)]
    answer = await place.post("batch_events", {"batch": batch})
    assert (answer.status, answer.body) == (200, {})
    for number in range(count):
        await wire.event(f"e{number}")


@checks("EventsBatchControllerTest-3", over_redis=("EventsBatchControllerTest-4",))
async def test_a_batch_tells_of_each_channel(opened: Open) -> None:
    place = await opened()
    await occupied(place)
    batch = [
        event(channel="presence-one", info="user_count"),
        event(channel="two", info="subscription_count"),
        event(channel="two", info="subscription_count,user_count"),
    ]
    answer = await place.post("batch_events", {"batch": batch})
    assert answer.body == {
        "batch": [{"user_count": 1}, {"subscription_count": 1}, {"subscription_count": 1}]
    }


@checks("EventsBatchControllerTest-5", over_redis=("EventsBatchControllerTest-6",))
async def test_a_batch_tells_of_some_channels(opened: Open) -> None:
    place = await opened()
    await occupied(place)
    batch = [event(channel="presence-one", info="user_count"), event(channel="two")]
    answer = await place.post("batch_events", {"batch": batch})
    assert answer.body == {"batch": [{"user_count": 1}, {}]}


@checks("EventsBatchControllerTest-7", over_redis=("EventsBatchControllerTest-8",))
async def test_an_answer_to_a_batch_has_its_length(opened: Open) -> None:
    """Of `{}`; Reverb's `{"batch":{}}` has 12."""
    answer = await (await opened()).post("batch_events", {"batch": [event()]})
    assert answer.headers["content-length"] == "2"


@checks("EventsBatchControllerTest-9", over_redis=("EventsBatchControllerTest-10",))
async def test_the_sender_of_a_batch_is_left_out(opened: Open) -> None:
    place = await opened()
    sender = await place.elsewhere()
    await sender.subscribe(CHANNEL)
    batch = [event("first", socket_id=sender.socket_id), event("second")]
    answer = await place.post("batch_events", {"batch": batch})
    assert (answer.status, answer.body) == (200, {})
    await sender.event("second")


# ChannelsControllerTest


@checks("ChannelsControllerTest-1", over_redis=("ChannelsControllerTest-2",))
async def test_the_channels_tell_how_many_users_there_are(opened: Open) -> None:
    """Only under the prefix `presence-`, as in Pusher's documents: 400 without it."""
    place = await opened()
    await occupied(place)
    both: Any = {"channels": {"presence-one": {}, "two": {}}}
    await place.tells(both, "channels")
    refused = await place.get("channels", info="user_count")
    assert refused.status == 400
    assert "filter_by_prefix=presence-" in refused.body["error"]


@checks("ChannelsControllerTest-3", over_redis=("ChannelsControllerTest-4",))
async def test_the_channels_are_filtered(opened: Open) -> None:
    place = await opened()
    await occupied(place)
    users = {"channels": {"presence-one": {"user_count": 1}}}
    await place.tells(users, "channels", filter_by_prefix="presence-", info="user_count")


@checks("ChannelsControllerTest-5", over_redis=("ChannelsControllerTest-6",))
async def test_the_channels_are_empty_objects_without_info(opened: Open) -> None:
    place = await opened()
    await occupied(place)
    await place.tells({"channels": {"presence-one": {}, "two": {}}}, "channels")


@checks("ChannelsControllerTest-7", over_redis=("ChannelsControllerTest-8",))
async def test_only_occupied_channels_are_told(opened: Open) -> None:
    place = await opened()
    first, second = await place.connect(), await place.elsewhere()
    await first.subscribe("one")
    await second.subscribe("two")
    await place.tells({"channels": {"one": {}, "two": {}}}, "channels")
    second.send("pusher:unsubscribe", {"channel": "two"})
    await place.tells({"channels": {"one": {}}}, "channels")


@checks("ChannelsControllerTest-9", over_redis=("ChannelsControllerTest-10",))
async def test_the_channels_have_their_length(opened: Open) -> None:
    place = await opened()
    await occupied(place)
    answer = await place.tells({"channels": {"presence-one": {}, "two": {}}}, "channels")
    assert int(answer.headers["content-length"]) == len(answer.raw)


# ChannelControllerTest


@checks("ChannelControllerTest-1", over_redis=("ChannelControllerTest-2",))
async def test_a_channel_tells_how_many_are_in_it(opened: Open) -> None:
    place = await opened()
    for wire in (await place.connect(), await place.elsewhere()):
        await wire.subscribe(CHANNEL)
    two = {"occupied": True, "subscription_count": 2}
    await place.tells(two, f"channels/{CHANNEL}", info="user_count,subscription_count,cache")


@checks("ChannelControllerTest-3", over_redis=("ChannelControllerTest-4",))
async def test_a_channel_that_nobody_is_in_says_so(opened: Open) -> None:
    """And that 0 are in it, where that is asked for; Reverb leaves the number out."""
    place = await opened()
    assert (await place.get(f"channels/{CHANNEL}")).body == {"occupied": False}
    counted = await place.get(f"channels/{CHANNEL}", info="subscription_count")
    assert counted.body == {"occupied": False, "subscription_count": 0}


@checks("ChannelControllerTest-5", over_redis=("ChannelControllerTest-6",))
async def test_a_channel_tells_what_it_keeps(opened: Open) -> None:
    """The data and the seconds left, as in Pusher's documents; Reverb tells the whole frame."""
    place = await opened()
    wire = await place.elsewhere()
    await wire.subscribe(CACHES[0])
    await wire.event("pusher:cache_miss")
    await place.post("events", event(channel=CACHES[0]))
    await wire.event("App\\Events\\TestEvent")
    async with asyncio.timeout(TIMEOUT):
        while True:
            asked = await place.get(f"channels/{CACHES[0]}", info="subscription_count,cache")
            if asked.body["subscription_count"] == 1 and "cache" in asked.body:
                break
            await asyncio.sleep(0.01)
    assert asked.body["occupied"]
    assert asked.body["cache"]["data"] == '{"some": "data"}'
    assert 1_790 <= asked.body["cache"]["ttl"] <= 1_800


@checks("ChannelControllerTest-7", over_redis=("ChannelControllerTest-8",))
async def test_a_presence_channel_tells_how_many_users_are_in_it(opened: Open) -> None:
    place = await opened()
    for wire in (await place.connect(), await place.elsewhere()):
        await wire.join(PRESENCE, 123, {})
    one = {"occupied": True, "user_count": 1}
    await place.tells(one, f"channels/{PRESENCE}", info="user_count,subscription_count,cache")


@checks("ChannelControllerTest-9", over_redis=("ChannelControllerTest-10",))
async def test_only_what_the_channel_has_is_told(opened: Open) -> None:
    place = await opened()
    await (await place.elsewhere()).join(PRESENCE, 123, {})
    users = {"occupied": True, "user_count": 1}
    await place.tells(users, f"channels/{PRESENCE}", info="user_count,subscription_count,cache")
    wire = await place.elsewhere()
    await wire.subscribe(CHANNEL)
    await place.tells({"occupied": True}, f"channels/{CHANNEL}", info="user_count,cache,nonsense")


@checks("ChannelControllerTest-11", over_redis=("ChannelControllerTest-12",))
async def test_a_channel_has_its_length(opened: Open) -> None:
    place = await opened()
    for wire in (await place.connect(), await place.elsewhere()):
        await wire.subscribe(CHANNEL)
    two = {"occupied": True, "subscription_count": 2}
    answer = await place.tells(two, f"channels/{CHANNEL}", info="subscription_count")
    assert answer.headers["content-length"] == "40"


# ChannelUsersControllerTest


@checks("ChannelUsersControllerTest-1", over_redis=("ChannelUsersControllerTest-2",))
async def test_only_presence_channels_know_their_users(opened: Open) -> None:
    place = await opened()
    await (await place.elsewhere()).subscribe(CHANNEL)
    answer = await place.get(f"channels/{CHANNEL}/users")
    assert answer.status == 400
    assert "presence" in answer.body["error"]


@checks("ChannelUsersControllerTest-3", over_redis=("ChannelUsersControllerTest-4",))
async def test_a_presence_channel_that_nobody_is_in_has_no_users(opened: Open) -> None:
    """Pusher's documents know no channel that does not exist; Reverb: 404."""
    answer = await (await opened()).get(f"channels/{PRESENCE}/users")
    assert (answer.status, answer.body) == (200, {"users": []})


@checks("ChannelUsersControllerTest-5", over_redis=("ChannelUsersControllerTest-6",))
async def test_the_users_are_told(opened: Open) -> None:
    place = await opened()
    for number, where in enumerate((place.connect, place.elsewhere, place.connect), 1):
        await (await where()).join(PRESENCE, number, {})
    users = [{"id": "1"}, {"id": "2"}, {"id": "3"}]
    async with asyncio.timeout(TIMEOUT):
        while True:
            answer = await place.get(f"channels/{PRESENCE}/users")
            if sorted(answer.body["users"], key=lambda user: user["id"]) == users:
                break
            await asyncio.sleep(0.01)


@checks("ChannelUsersControllerTest-7", over_redis=("ChannelUsersControllerTest-8",))
async def test_each_user_is_told_once_in_the_order_of_coming(opened: Open) -> None:
    place = await opened()
    for user, where in ((3, place.connect), (2, place.elsewhere), (3, place.elsewhere)):
        await (await where()).join(PRESENCE, user, {})
    await place.tells({"users": [{"id": "3"}, {"id": "2"}]}, f"channels/{PRESENCE}/users")


@checks("ChannelUsersControllerTest-9", over_redis=("ChannelUsersControllerTest-10",))
async def test_the_users_have_their_length(opened: Open) -> None:
    """Longer by the quotation marks: ids are text."""
    place = await opened()
    for number, where in enumerate((place.connect, place.elsewhere), 1):
        await (await where()).join(PRESENCE, number, {})
    users = {"users": [{"id": "1"}, {"id": "2"}]}
    answer = await place.tells(users, f"channels/{PRESENCE}/users")
    assert answer.headers["content-length"] == "33"


# ConnectionsControllerTest


@checks("ConnectionsControllerTest-1", over_redis=("ConnectionsControllerTest-2",))
async def test_the_connections_are_counted(opened: Open) -> None:
    place = await opened()
    await (await place.connect()).subscribe("one")
    await (await place.elsewhere()).subscribe("two")
    await place.tells({"connections": 2}, "connections")


@checks("ConnectionsControllerTest-3", over_redis=("ConnectionsControllerTest-4",))
async def test_a_connection_in_two_channels_is_one(opened: Open) -> None:
    place = await opened()
    wire = await place.elsewhere()
    for channel in ("one", "two"):
        await wire.subscribe(channel)
    await place.tells({"connections": 1}, "connections")


@checks("ConnectionsControllerTest-5", over_redis=("ConnectionsControllerTest-6",))
async def test_the_connections_have_their_length(opened: Open) -> None:
    place = await opened()
    await place.elsewhere()
    answer = await place.tells({"connections": 1}, "connections")
    assert answer.headers["content-length"] == "17"


# UsersTerminateControllerTest


@checks("UsersTerminateControllerTest-1")
async def test_a_path_that_is_none_is_not_found(opened: Open) -> None:
    answer = await (await opened()).post("users/not-a-user/terminate", {})
    assert answer.status == 404


@checks("UsersTerminateControllerTest-2", over_redis=("UsersTerminateControllerTest-3",))
async def test_a_users_connections_are_ended_and_no_others(opened: Open) -> None:
    """With the close code 4009, so that they stay away; Reverb only hangs up."""
    place = await opened()
    first, second = await place.connect(), await place.elsewhere()
    for wire, user in ((first, 123), (second, 456)):
        for channel in ("presence-one", "presence-two"):
            await wire.join(channel, user, {})
    answer = await place.post("users/456/terminate_connections", {})
    assert (answer.status, answer.body) == (200, {})
    assert answer.headers["content-length"] == "2"
    assert (await second.closed()).code == 4009
    for channel in ("presence-one", "presence-two"):
        await place.tells({"users": [{"id": "123"}]}, f"channels/{channel}/users")


# HealthCheckControllerTest


@checks("HealthCheckControllerTest-1")
async def test_a_server_that_is_not_there_does_not_answer(opened: Open) -> None:
    place = await opened()
    await place.nodes[0].stop()
    with pytest.raises(ConnectionRefusedError):
        await place.get("up")


@checks("HealthCheckControllerTest-2")
async def test_a_server_says_that_it_is_up(opened: Open) -> None:
    """To HEAD as well, which load balancers ask with; and that it is ready."""
    place = await opened()
    for path, body in (("/up", b'{"health":"OK"}'), ("/ready", b'{"ready":true}')):
        for method in ("GET", "HEAD"):
            reader, writer = await asyncio.open_connection("127.0.0.1", place.nodes[0].port)
            asked = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            writer.write(asked.encode())
            async with asyncio.timeout(TIMEOUT):
                head, _, said = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert head.startswith(b"HTTP/1.1 200 ")
            assert f"content-length: {len(body)}".encode() in head.lower()
            assert said == (body if method == "GET" else b"")

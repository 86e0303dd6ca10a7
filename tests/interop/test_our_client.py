"""Our client beside pusher-js 8.6, and behind an endpoint that signs with npm `pusher` 5.3."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio

from antiphon.client import (
    Channel,
    Client,
    ConnectionState,
    HttpAuthorizer,
    Observation,
    PresenceChannel,
    Reconnected,
)
from antiphon.errors import DecryptionFailed, Forbidden, Unauthorized, WebhookInvalid
from antiphon.protocol.frames import Event
from antiphon.publisher import BatchEvent, Publisher, WebhookEvent
from antiphon.server import Server
from antiphon.settings import Settings
from antiphon.testing import Dial as Dialled
from antiphon.testing import FaultServer
from tests.client.linked import impatient, watch
from tests.conftest import Serve
from tests.server.wire import TIMEOUT, until

from .conftest import (
    APP,
    MASTER_KEY,
    Dial,
    JsClient,
    Library,
    NpmPusher,
    npm_pusher_options,
)
from .node import Node

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENCRYPTED: Final = "private-encrypted-room"
KINDS: Final = (
    "room",
    "cache-room",
    "private-room",
    "private-cache-room",
    "presence-room",
    "presence-cache-room",
    ENCRYPTED,
    "private-encrypted-cache-room",
)
"""A channel of each kind; all but two of them are signed."""

VALUES: Final = [
    {"a": "дело 🎉 \u2028"},
    [1, 2.5, None],
    "plain text",
    "",
    'a "q" \\ text',
    None,
    5,
]


# The endpoint, and clients that ask it


class JsEndpoint:
    """The auth endpoint in JavaScript."""

    def __init__(self, program: Node, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._program = program

    async def use(self, settings: Settings, master_key: bytes = MASTER_KEY) -> None:
        """Sign for an application, with this master key from now on."""
        await self._program.call("use", options=npm_pusher_options(settings, master_key))

    async def asked(self, path: str = "/auth") -> list[tuple[str, list[str]]]:
        """What was asked of a path: by whom, and for which channels."""
        asked = await self._program.call("asked")
        return [(one["user"], one["channels"]) for one in asked if one["path"] == path]

    async def forget(self) -> None:
        await self._program.call("forget")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def js_endpoint() -> AsyncIterator[JsEndpoint]:
    async with Node("auth_endpoint.js") as program:
        yield JsEndpoint(program, await program.call("listen"))


@pytest_asyncio.fixture(loop_scope="module")
async def endpoint(server: Server, js_endpoint: JsEndpoint) -> JsEndpoint:
    """What pusher-js asks in this module, too."""
    await js_endpoint.use(server.settings())
    await js_endpoint.forget()
    return js_endpoint


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pusher_js() -> AsyncIterator[Node]:
    # Who finds no server dials again after 15 seconds.
    async with Node("pusher_client.js", speed=20) as program:
        yield program


class Ours:
    """A client of ours, and what it tells."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen: list[Observation] = watch(client)

    async def join(self, channel: str) -> Channel:
        joined = self.client.subscribe(channel)
        await joined.subscribed(TIMEOUT)
        return joined

    async def meet(self, channel: str) -> PresenceChannel:
        joined = await self.join(channel)
        assert isinstance(joined, PresenceChannel)
        return joined

    async def heard(self, name: str, channel: str | None = None) -> Event:
        """The next event of a name; each is given once."""
        await until(lambda: self.unheard(name, channel))
        event = self.unheard(name, channel)[0]
        self.seen.remove(event)
        return event

    def unheard(self, name: str, channel: str | None = None) -> list[Event]:
        """What was told under a name and not yet waited for."""
        events = [o for o in self.seen if isinstance(o, Event)]
        return [e for e in events if e.name == name and channel in (None, e.channel)]


Connect = Callable[..., Awaitable[Ours]]


@pytest_asyncio.fixture(loop_scope="module")
async def connect(server: Server, endpoint: JsEndpoint, dial: Dial) -> AsyncIterator[Connect]:
    """Connects a client of ours: `await connect("ali")`. It goes before pusher-js's clients do."""
    clients = []

    async def open_(user: str, *, to: Settings | None = None, **options: Any) -> Ours:
        authorizer = HttpAuthorizer(
            f"{endpoint.url}/{'batch' if options.get('batch') else 'auth'}",
            user_auth_url=f"{endpoint.url}/user-auth",
            token=user or None,
            **options,
        )
        client = impatient(to or server.settings(), authorizer=authorizer)
        clients.append(client)
        await client.connect()
        return Ours(client)

    yield open_
    for client in clients:
        await client.close()


async def joined(client: JsClient, channel: str, *events: str) -> None:
    await client.call("subscribe", channel=channel, events=events)
    await client.heard("channel", channel=channel, event="pusher:subscription_succeeded")


def info(user: str) -> dict[str, str]:
    """What the endpoint says of a user."""
    return {"name": f"{user} 🎉"}


# Presence and client events


async def test_members_on_both_sides_see_each_other_come_and_go(
    dial: Dial, connect: Connect
) -> None:
    room = "presence-room"
    ali, john = await dial("ali"), await connect("john")
    await joined(ali, room)
    there = await john.meet(room)
    assert {member.id: member.info for member in there.members} == {
        "ali": info("ali"),
        "john": info("john"),
    }
    assert there.members.me == there.members.get("john")
    added = await ali.heard("channel", event="pusher:member_added")
    assert added["data"] == {"id": "john", "info": info("john")}
    assert await ali.call("members", channel=room) == {
        "count": 2,
        "me": "ali",
        "members": {"ali": info("ali"), "john": info("john")},
    }
    assert await ali.call("member", channel=room, user="john") == added["data"]
    mary = await dial("mary")
    await joined(mary, room)
    assert (await john.heard("pusher:member_added")).data == {"id": "mary", "info": info("mary")}
    assert there.members.count == 3
    await ali.call("unsubscribe", channel=room)
    assert (await john.heard("pusher:member_removed")).data == {"id": "ali", "info": info("ali")}
    assert there.members.get("ali") is None
    assert "mary" in there.members
    there.unsubscribe()
    removed = await mary.heard("channel", event="pusher:member_removed", data=added["data"])
    assert removed["data"]["id"] == "john"
    assert await mary.call("member", channel=room, user="john") is None
    assert (await mary.call("members", channel=room))["count"] == 1


async def test_a_user_with_a_connection_of_each_kind_is_one_member(
    dial: Dial, connect: Connect
) -> None:
    laptop, bot = await dial("ali", name="laptop"), await connect("ali")
    watcher = await connect("john")
    there = await watcher.meet("presence-room")
    await joined(laptop, "presence-room")
    await watcher.heard("pusher:member_added")
    own = await bot.meet("presence-room")
    assert (own.members.count, there.members.count) == (2, 2)
    await laptop.call("disconnect")
    await laptop.heard("state", current="disconnected")
    own.unsubscribe()
    assert (await watcher.heard("pusher:member_removed")).data["id"] == "ali"
    assert watcher.unheard("pusher:member_added") == []
    assert watcher.unheard("pusher:member_removed") == []


async def test_client_events_go_both_ways_with_their_senders_id(
    dial: Dial, connect: Connect
) -> None:
    ali, john = await dial("ali"), await connect("john")
    for channel, sender in (("presence-room", "ali"), ("private-room", None)):
        await joined(ali, channel, "client-hi")
        there = await john.join(channel)
        for value in ({"a": "дело 🎉 \u2028"}, [1, 2.5, None], 'a "q" \\ text'):
            await ali.call("trigger", channel=channel, event="client-hi", data=value)
            event = await john.heard("client-hi")
            assert (event.channel, event.data, event.user_id) == (channel, value, sender)
            assert there.trigger("client-hi", value).status == "sent"
            heard = await ali.heard("event", channel=channel)
            assert (heard["data"], heard["user_id"]) == (value, sender and "john")


async def test_after_a_restart_both_are_back(
    serve: Serve, endpoint: JsEndpoint, dial: Dial, connect: Connect, port: int
) -> None:
    room = "presence-room"
    server = await serve(APP, options={"port": port})
    ali, john = await dial("ali", to=server.settings()), await connect("john", to=server.settings())
    await joined(ali, room, "client-hi")
    there = await john.meet(room)
    await ali.heard("channel", event="pusher:member_added")
    await endpoint.forget()
    await server.stop()
    await ali.heard("state", previous="connected", current="connecting")
    await until(lambda: john.client.state is ConnectionState.CONNECTING)
    assert there.members.count == 0
    await server.start()
    await ali.heard("channel", channel=room, event="pusher:subscription_succeeded")
    await there.subscribed(TIMEOUT)
    await until(lambda: there.members.count == 2)
    (back,) = (o for o in john.seen if isinstance(o, Reconnected))
    assert (back.channels, back.failed) == ((room,), ())
    assert sorted(await endpoint.asked()) == [("ali", [room]), ("john", [room])]
    there.trigger("client-hi", "again")
    assert (await ali.heard("event"))["user_id"] == "john"
    members = await ali.call("members", channel=room)
    assert members["members"] == {"ali": info("ali"), "john": info("john")}
    await ali.call("trigger", channel=room, event="client-hi", data="and you")
    assert (await john.heard("client-hi")).user_id == "ali"


# Authorization


async def test_every_kind_of_channel_is_joined_with_npm_pushers_signature(
    connect: Connect, endpoint: JsEndpoint, npm_pusher: NpmPusher
) -> None:
    ali = await connect("ali")
    channels = [await ali.join(name) for name in KINDS]
    assert await endpoint.asked() == [("ali", [name]) for name in KINDS[2:]]
    for channel in channels:
        await npm_pusher.trigger(channel.name, "e", {"for": channel.name})
        assert (await ali.heard("e", channel.name)).data == {"for": channel.name}


async def test_a_batch_endpoint_signs_all_channels_in_one_request(
    connect: Connect, endpoint: JsEndpoint, npm_pusher: NpmPusher
) -> None:
    ali = await connect("ali", batch=True)
    channels = [ali.client.subscribe(name) for name in (*KINDS, "private-x.john")]
    for channel in channels[:-1]:
        await channel.subscribed(TIMEOUT)
    with pytest.raises(Forbidden) as refused:
        await channels[-1].subscribed(TIMEOUT)
    assert (refused.value.channel, refused.value.code) == ("private-x.john", 403)
    assert await endpoint.asked("/batch") == [("ali", [*KINDS[2:], "private-x.john"])]
    presence = channels[KINDS.index("presence-room")]
    assert isinstance(presence, PresenceChannel)
    assert presence.members.me is not None
    assert presence.members.me.info == info("ali")
    await npm_pusher.trigger(ENCRYPTED, "e", "sealed")
    assert (await ali.heard("e", ENCRYPTED)).data == "sealed"  # others may be of the cache


async def test_who_may_not_join_or_sign_in_is_forbidden(
    connect: Connect, endpoint: JsEndpoint
) -> None:
    ali, nobody, stranger = await connect("ali"), await connect("nobody"), await connect("")
    await ali.join("private-x.ali")
    for kind in ("private", "presence", "private-encrypted"):
        with pytest.raises(Forbidden) as refused:
            await ali.join(f"{kind}-x.john")
        assert (refused.value.channel, refused.value.code) == (f"{kind}-x.john", 403)
    with pytest.raises(Forbidden):
        await nobody.client.signin().signed_in(TIMEOUT)
    with pytest.raises(Unauthorized):
        await stranger.join("private-room")
    for ours in (ali, nobody, stranger):
        assert ours.client.state is ConnectionState.CONNECTED
    assert [user for user, _ in await endpoint.asked("/user-auth")] == ["nobody"]


# Encryption


@pytest_asyncio.fixture(loop_scope="module")
async def publisher(server: Server) -> AsyncIterator[Publisher]:
    key = base64.b64encode(MASTER_KEY).decode()
    settings = msgspec.structs.replace(server.settings(), encryption_master_key=key)
    async with Publisher(settings) as publisher:
        yield publisher


async def test_what_both_libraries_encrypt_our_client_reads(
    connect: Connect, library: Library
) -> None:
    ali = await connect("ali")
    await ali.join(ENCRYPTED)
    for value in VALUES:
        await library.trigger(ENCRYPTED, "e", value)
        assert (await ali.heard("e")).data == value
    await library.trigger_batch([{"channel": ENCRYPTED, "name": "b", "data": {"n": 1}}])
    assert (await ali.heard("b")).data == {"n": 1}


@pytest.mark.parametrize("build", ["node", "with-encryption"])
async def test_what_our_publisher_encrypts_pusher_js_and_our_client_read(
    dial: Dial, connect: Connect, publisher: Publisher, build: str
) -> None:
    ali, john = await dial("ali", build=build), await connect("john")
    await joined(ali, ENCRYPTED, "e", "b")
    await john.join(ENCRYPTED)
    for value in VALUES:
        await publisher.trigger(ENCRYPTED, "e", value)
        # To pusher-js an empty text is as good as no data at all.
        assert (await ali.heard("event", event="e")).get("data") == (value or None)
        assert (await john.heard("e")).data == value
    await publisher.trigger_batch([BatchEvent(channel=ENCRYPTED, name="b", data={"n": 1})])
    assert (await ali.heard("event", event="b"))["data"] == {"n": 1}
    assert (await john.heard("b")).data == {"n": 1}


async def test_a_new_master_key_is_asked_for_once_and_all_go_on(
    server: Server,
    endpoint: JsEndpoint,
    dial: Dial,
    connect: Connect,
    npm_pusher: NpmPusher,
    publishing: Node,
) -> None:
    new_key = MASTER_KEY[::-1]
    rotated = NpmPusher(publishing)
    await rotated.open(server.settings(), new_key)
    ali, john = await dial("ali"), await connect("john")
    await joined(ali, ENCRYPTED, "e")
    await john.join(ENCRYPTED)
    await npm_pusher.trigger(ENCRYPTED, "e", "before")
    assert (await john.heard("e")).data == (await ali.heard("event"))["data"] == "before"
    await endpoint.forget()
    await endpoint.use(server.settings(), new_key)
    events = [{"channel": ENCRYPTED, "name": "e", "data": n} for n in range(10)]
    await rotated.trigger_batch(events)
    assert [(await john.heard("e")).data for _ in events] == list(range(10)), "all, and in order"
    await rotated.trigger(ENCRYPTED, "e", "after")
    assert (await john.heard("e")).data == "after"
    assert [asked for asked in await endpoint.asked() if asked[0] == "john"] == [
        ("john", [ENCRYPTED])
    ]
    await ali.heard("event", data="after")
    await npm_pusher.trigger(ENCRYPTED, "e", "with the old key")
    await until(lambda: any(isinstance(o, DecryptionFailed) for o in john.seen))
    await rotated.trigger(ENCRYPTED, "e", "still there")
    assert (await john.heard("e")).data == "still there"


# Users


async def test_what_is_sent_to_a_user_reaches_both_kinds_of_client(
    server: Server,
    dial: Dial,
    connect: Connect,
    endpoint: JsEndpoint,
    npm_pusher: NpmPusher,
    publisher: Publisher,
) -> None:
    ali, also_ali, john = await dial("ali"), await connect("ali"), await connect("john")
    await ali.call("signin")
    await ali.heard("global", event="pusher:signin_success")
    for ours in (also_ali, john):
        await ours.client.signin().signed_in(TIMEOUT)
    user = also_ali.client.user
    assert user is not None
    assert (user.id, user.data["user_info"]) == (await ali.call("signed_in"), info("ali"))
    assert len(await endpoint.asked("/user-auth")) == 3
    (hub,) = server._hubs.values()
    await until(
        lambda: (
            {name: len(channel.subscribers) for name, channel in hub.channels.items()}
            == {"#server-to-user-ali": 2, "#server-to-user-john": 1}
        )
    )
    for send in (publisher.send_to_user, npm_pusher.send_to_user):
        for value in ({"a": "дело 🎉"}, "plain text"):
            await send("ali", "note", value)
            assert (await ali.heard("user", event="note"))["data"] == value
            event = await also_ali.heard("note")
            assert (event.channel, event.data) == ("#server-to-user-ali", value)
        await send("john", "note", "for John")
        assert (await john.heard("note")).data == "for John"
    assert also_ali.unheard("note") == []
    assert ali.unheard("user", event="note") == []


async def test_the_watchlist_is_read_as_pusher_js_reads_it(
    dial: Dial, connect: Connect, endpoint: JsEndpoint
) -> None:
    changes = [
        [{"name": "online", "user_ids": ["john", "mary"]}],
        [{"name": "offline", "user_ids": ["mary"]}, {"name": "online", "user_ids": ["zoe"]}],
        [{"name": "offline", "user_ids": ["john"]}, {"name": "online", "user_ids": ["john"]}],
    ]

    async def hosted(dialled: Dialled) -> None:
        """Signs whoever asks in, and tells of the watchlist."""
        await dialled.greet()
        signed = await dialled.event("pusher:signin")
        dialled.send("pusher:signin_success", signed)
        await dialled.subscribe()
        for change in changes:
            dialled.send("pusher_internal:watchlist_events", {"events": change})
        await dialled.serve()

    async with FaultServer(hosted) as peer:
        settings = msgspec.structs.replace(peer.settings, app_key=APP.key)
        theirs, ours = await dial("ali", to=settings), await connect("ali", to=settings)
        user = ours.client.signin()
        told: list[tuple[str, Any]] = []
        user.watchlist.bind_all(lambda event: told.append((event.name, event.data)))
        await user.signed_in(TIMEOUT)
        await theirs.call("signin")
        their_online: set[str] = set()
        for _ in range(sum(map(len, changes))):
            heard = await theirs.heard("watchlist")
            ids = set(heard["data"]["user_ids"])
            their_online = their_online | ids if heard["event"] == "online" else their_online - ids
        await until(lambda: len(told) == 4)
        assert told == [
            ("online", {"user_ids": ["john", "mary"]}),
            ("online", {"user_ids": ["zoe"]}),
            ("offline", {"user_ids": ["mary"]}),
            ("online", {"user_ids": ["john"]}),
        ]
        assert user.watchlist.online == their_online == {"john", "zoe"}
        await theirs.call("disconnect")
        await ours.client.close()


# Webhooks


async def test_webhooks_of_every_kind_signed_as_npm_pusher_signs_are_read(
    server: Server, npm_pusher: NpmPusher, publishing: Node, publisher: Publisher
) -> None:
    room = "presence-комната"
    events: list[dict[str, Any]] = [
        {"name": "channel_occupied", "channel": room},
        {"name": "member_added", "channel": room, "user_id": "7"},
        {
            "name": "client_event",
            "channel": room,
            "event": "client-hi",
            "data": '{"a":"🎉"}',
            "socket_id": "1.2",
            "user_id": "7",
        },
        {"name": "cache_miss", "channel": "cache-room"},
        {"name": "subscription_count", "channel": "room", "subscription_count": 3},
        {"name": "member_removed", "channel": room, "user_id": "7"},
        {"name": "channel_vacated", "channel": room},
    ]
    body = json.dumps({"time_ms": int(time.time() * 1000), "events": events}, ensure_ascii=False)
    signature = await npm_pusher.sign_webhook(body)
    # What the library itself takes for genuine, ours does, and the other way round.
    assert await npm_pusher.validate_webhook(APP.key, signature, body) == json.loads(body)
    webhook = publisher.validate_webhook(APP.key, signature, body.encode())
    assert webhook.events == tuple(WebhookEvent(**event) for event in events)
    forger = NpmPusher(publishing)
    await forger.open(msgspec.structs.replace(server.settings(), app_secret="guess"))
    for key, signed, text in (
        (APP.key, await forger.sign_webhook(body), body),
        (APP.key, signature, body.replace("7", "8")),
        ("other", signature, body),
    ):
        assert await npm_pusher.validate_webhook(key, signed, text) is None
        with pytest.raises(WebhookInvalid):
            publisher.validate_webhook(key, signed, text.encode())

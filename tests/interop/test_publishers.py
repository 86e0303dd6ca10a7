"""npm `pusher` 5.3 and PyPI `pusher` 3.3 against the HTTP API, and as signers."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio

from antiphon.errors import WebhookInvalid
from antiphon.protocol.encryption import decrypt
from antiphon.protocol.frames import decode_data
from antiphon.protocol.signing import sign_webhook
from antiphon.publisher import BatchEvent, Publisher, WebhookEvent
from antiphon.server import Server
from tests.conftest import Connect
from tests.server.wire import Wire, until

from .conftest import APP, MASTER_KEY, Dial, Library, NpmPusher, OpenLibrary, Refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_both_are_told_what_they_ask(
    server: Server, connect: Connect, library: Library
) -> None:
    (hub,) = server._hubs.values()
    await until(lambda: not hub.channels)  # who was there in another test has hung up
    ali, phone, john = await connect(), await connect(), await connect()
    await ali.subscribe("news")
    await john.subscribe("news")
    for wire, user in ((ali, "ali"), (phone, "ali"), (john, "john")):
        await wire.join("presence-room", user)
    assert await library.channels_info("presence-", ["user_count"]) == {
        "channels": {"presence-room": {"user_count": 2}}
    }
    assert await library.channels_info("ne", []) == {"channels": {"news": {}}}
    assert await library.channels_info("nothing", []) == {"channels": {}}
    assert await library.channel_info("presence-room", ["user_count"]) == {
        "occupied": True,
        "user_count": 2,
    }
    assert await library.channel_info("news", ["subscription_count"]) == {
        "occupied": True,
        "subscription_count": 2,
    }
    assert await library.channel_info("empty", []) == {"occupied": False}
    assert await library.users_info("presence-room") == {"users": [{"id": "ali"}, {"id": "john"}]}


async def test_both_may_ask_about_a_name_with_every_allowed_character(
    connect: Connect, library: Library
) -> None:
    wire = await connect()
    name = "presence-A_z=@,.;9"
    await wire.join(name, "ali")
    assert (await library.channel_info(name, ["user_count"]))["user_count"] == 1
    assert await library.users_info(name) == {"users": [{"id": "ali"}]}


@pytest.mark.parametrize(
    "data",
    [{"a": "дело 🎉"}, [1, 2], "plain text", "", 'a "quoted" \\ text', None],
    ids=repr,
)
async def test_what_both_publish_arrives(connect: Connect, library: Library, data: Any) -> None:
    wire = await connect()
    await wire.subscribe("news")
    await library.trigger("news", "e", data)
    assert (await wire.event("e"))["data"] == data


async def test_both_publish_to_a_hundred_channels_and_in_tens(
    connect: Connect, library: Library
) -> None:
    wire = await connect()
    await wire.subscribe("c99")
    await library.trigger([f"c{n}" for n in range(100)], "e", 1)
    await wire.event("e")
    await library.trigger_batch(
        [{"channel": "c99", "name": f"b{n}", "data": {"n": n}} for n in range(10)]
    )
    for n in range(10):
        assert (await wire.event(f"b{n}"))["data"] == {"n": n}


@pytest.mark.parametrize(
    ("ask", "status", "words"),
    [
        (lambda library: library.trigger("news", "pusher:e", 1), 400, "pusher:e"),
        (lambda library: library.channels_info("ne", ["user_count"]), 400, "filter_by_prefix"),
        (lambda library: library.users_info("news"), 400, "presence"),
        (lambda library: library.trigger("news", "e", "x" * 10_300), 413, "10240"),
    ],
    ids=["an event of the protocol", "users everywhere", "users of all", "too large"],
)
async def test_both_are_told_why_they_are_refused(
    library: Library, ask: Callable[[Library], Awaitable[Any]], status: int, words: str
) -> None:
    with pytest.raises(Refused, match=words) as refused:
        await ask(library)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("change", "status"),
    [({"app_secret": "guess"}, 401), ({"app_key": "other"}, 401), ({"app_id": "9"}, 404)],
)
async def test_both_are_refused_with_wrong_credentials(
    server: Server, open_library: OpenLibrary, change: dict[str, str], status: int
) -> None:
    library = await open_library(msgspec.structs.replace(server.settings(), **change))
    with pytest.raises(Refused) as refused:
        await library.trigger("news", "e", 1)
    assert refused.value.status == status
    with pytest.raises(Refused) as refused:
        await library.channel_info("news", [])
    assert refused.value.status == status


async def test_what_both_sign_is_accepted(connect: Connect, library: Library) -> None:
    wire = await connect()
    signed = await library.authorize(wire.socket_id, "private-room")
    await wire.subscribe("private-room", signed["auth"])
    who = {"user_id": "ali", "user_info": {"name": "Қўчқоров"}}
    signed = await library.authorize(wire.socket_id, "presence-room", who)
    presence = (await wire.subscribe("presence-room", signed["auth"], signed["channel_data"]))[
        "presence"
    ]
    assert presence["hash"] == {"ali": {"name": "Қўчқоров"}}
    signed = await library.authorize(wire.socket_id, "private-encrypted-room")
    await wire.subscribe("private-encrypted-room", signed["auth"])
    await sign_in(wire, await library.authenticate(wire.socket_id, {"id": "7"}))


async def sign_in(wire: Wire, signed: dict[str, str]) -> None:
    wire.send("pusher:signin", {"auth": signed["auth"], "user_data": signed["user_data"]})
    await wire.event("pusher:signin_success")
    await wire.subscribe("#server-to-user-7")


# Our publisher beside theirs


ENCRYPTED: Final = "private-encrypted-room"
VALUES: Final = [{"a": "дело 🎉"}, [1, 2], "plain text", "", 'a "quoted" \\ text', None, 5]


@pytest_asyncio.fixture(loop_scope="module")
async def publisher(server: Server) -> AsyncIterator[Publisher]:
    key = base64.b64encode(MASTER_KEY).decode()
    settings = msgspec.structs.replace(server.settings(), encryption_master_key=key)
    async with Publisher(settings) as publisher:
        yield publisher


async def join_encrypted(wire: Wire, publisher: Publisher) -> bytes:
    """Subscribe, and give the channel's key."""
    signed = publisher.authorize_channel(wire.socket_id, ENCRYPTED)
    await wire.subscribe(ENCRYPTED, signed["auth"])
    return base64.b64decode(signed["shared_secret"])


@pytest.mark.parametrize("data", VALUES, ids=ascii)
async def test_what_both_encrypt_is_decrypted_here(
    connect: Connect, library: Library, publisher: Publisher, data: Any
) -> None:
    wire = await connect()
    key = await join_encrypted(wire, publisher)
    await library.trigger(ENCRYPTED, "e", data)
    await library.trigger_batch([{"channel": ENCRYPTED, "name": "b", "data": data}])
    for name in ("e", "b"):
        opened = decrypt(key, (await wire.event(name))["data"])
        assert opened is not None
        assert decode_data(opened) == data


@pytest.mark.parametrize("data", VALUES, ids=ascii)
async def test_what_is_encrypted_here_both_decrypt(
    connect: Connect, library: Library, publisher: Publisher, data: Any
) -> None:
    wire = await connect()
    await join_encrypted(wire, publisher)
    await publisher.trigger(ENCRYPTED, "e", data)
    await publisher.trigger_batch([BatchEvent(channel=ENCRYPTED, name="b", data=data)])
    for name in ("e", "b"):
        sealed = (await wire.event(name))["data"]
        assert decode_data(await library.decrypt(ENCRYPTED, **sealed)) == data


@pytest.mark.parametrize("data", [{"a": "дело 🎉"}, [1, 2], "plain text", 5], ids=ascii)
async def test_what_is_encrypted_here_pusher_js_decrypts(
    dial: Dial, publisher: Publisher, data: Any
) -> None:
    ali = await dial("ali")
    await ali.call("subscribe", channel=ENCRYPTED, events=["e"])
    await ali.heard("channel", channel=ENCRYPTED, event="pusher:subscription_succeeded")
    await publisher.trigger(ENCRYPTED, "e", data)
    assert (await ali.heard("event"))["data"] == data


async def test_both_sign_alike(library: Library, publisher: Publisher) -> None:
    socket_id, info = "1234.5678", {"name": "Қўчқоров"}
    for channel in ("private-room", ENCRYPTED, "private-encrypted-cache-room"):
        theirs = await library.authorize(socket_id, channel)
        # PyPI `pusher` gives the key as bytes.
        secret = theirs.get("shared_secret")
        if isinstance(secret, bytes):
            theirs["shared_secret"] = secret.decode()
        assert publisher.authorize_channel(socket_id, channel) == theirs
    theirs = await library.authorize(
        socket_id, "presence-room", {"user_id": "7", "user_info": info}
    )
    ours = publisher.authorize_channel(socket_id, "presence-room", "7", info)
    assert json.loads(ours["channel_data"]) == json.loads(theirs["channel_data"])
    theirs = await library.authenticate(socket_id, {"id": "7", "user_info": info})
    ours = publisher.authenticate_user(socket_id, {"id": "7", "user_info": info})
    assert json.loads(ours["user_data"]) == json.loads(theirs["user_data"])


async def test_npm_pusher_signs_to_the_letter_alike(
    npm_pusher: NpmPusher, publisher: Publisher
) -> None:
    socket_id, info = "1234.5678", {"name": "Қўчқоров"}
    assert publisher.authorize_channel(
        socket_id, "presence-room", "7", info
    ) == await npm_pusher.authorize(socket_id, "presence-room", {"user_id": "7", "user_info": info})
    user = {"id": "7", "user_info": info, "watchlist": ["8"]}
    assert publisher.authenticate_user(socket_id, user) == await npm_pusher.authenticate(
        socket_id, user
    )


# Webhooks


def webhook(age: float = 0) -> str:
    events = [
        {"name": "channel_occupied", "channel": "комната"},
        {"name": "member_added", "channel": "presence-room", "user_id": "7"},
    ]
    time_ms = int((time.time() - age) * 1000)
    return json.dumps({"time_ms": time_ms, "events": events}, ensure_ascii=False)


async def test_a_webhook_that_is_signed_here_is_valid_to_both(library: Library) -> None:
    body = webhook()
    signature = sign_webhook(APP.secret, body.encode())
    assert await library.validate_webhook(APP.key, signature, body) == json.loads(body)
    assert await library.validate_webhook(APP.key, signature, body + " ") is None
    assert await library.validate_webhook("other", signature, body) is None


async def test_a_webhook_that_is_signed_as_both_expect_is_valid_here(
    library: Library, publisher: Publisher
) -> None:
    body = webhook()
    signature = await library.sign_webhook(body)
    got = publisher.validate_webhook(APP.key, signature, body.encode())
    assert got.time == json.loads(body)["time_ms"] / 1000
    assert got.events == (
        WebhookEvent(name="channel_occupied", channel="комната"),
        WebhookEvent(name="member_added", channel="presence-room", user_id="7"),
    )
    with pytest.raises(WebhookInvalid):
        publisher.validate_webhook(APP.key, signature, body.encode() + b" ")
    old = webhook(age=400)
    with pytest.raises(WebhookInvalid, match="seconds old"):
        publisher.validate_webhook(APP.key, await library.sign_webhook(old), old.encode())

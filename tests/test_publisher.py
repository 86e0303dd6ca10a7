"""The publisher against our server, and against servers that behave as others do, or badly."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from antiphon.errors import (
    AuthorizationFailed,
    InvalidName,
    PublishFailed,
    SettingsError,
    WebhookInvalid,
)
from antiphon.protocol.encryption import decrypt
from antiphon.protocol.frames import decode_data
from antiphon.protocol.signing import sign_webhook
from antiphon.publisher import BatchEvent, Publisher, Webhook, WebhookEvent
from antiphon.server import Server
from antiphon.settings import App, Settings

from .conftest import Connect, Serve

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "never-print-this"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with Server(App(id="1", key="k", secret=SECRET)) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def publisher(server: Server) -> AsyncIterator[Publisher]:
    async with Publisher(server.settings()) as publisher:
        yield publisher


# Our server


@pytest.mark.parametrize(
    ("data", "arrives"),
    [
        ({"id": 1, "text": "дело 🎉"}, {"id": 1, "text": "дело 🎉"}),
        ([1, "two", None], [1, "two", None]),
        (7, 7),
        (None, None),
        ("plain text", "plain text"),
        ('{"already":"JSON"}', {"already": "JSON"}),
        ("", ""),
        (BatchEvent(channel="c", name="n", data=1), {"channel": "c", "name": "n", "data": 1}),
    ],
)
async def test_data_arrives_as_it_was_given(
    publisher: Publisher, connect: Connect, data: Any, arrives: Any
) -> None:
    wire = await connect()
    await wire.subscribe("news")
    assert await publisher.trigger("news", "e", data) == {}
    got = (await wire.event("e"))["data"]
    assert arrives == ({k: got[k] for k in arrives} if isinstance(arrives, dict) else got)


async def test_one_event_goes_to_many_channels(publisher: Publisher, connect: Connect) -> None:
    wire = await connect()
    names = [f"c{n}" for n in range(100)]
    await wire.subscribe("c0")
    await wire.subscribe("c99")
    assert await publisher.trigger(names, "e", {}) == {}
    assert [(await wire.event("e"))["channel"] for _ in range(2)] == ["c0", "c99"]
    assert await publisher.trigger(("c0", "c99"), "e", {}) == {}


async def test_the_sender_is_left_out(publisher: Publisher, connect: Connect) -> None:
    sender, other = await connect(), await connect()
    for wire in (sender, other):
        await wire.subscribe("news")
    await publisher.trigger("news", "e", 1, socket_id=sender.socket_id)
    await publisher.trigger_batch(
        [
            BatchEvent(channel="news", name="b1", data=1, socket_id=sender.socket_id),
            BatchEvent(channel="news", name="b2", data={"a": "b"}),
        ]
    )
    for name in ("e", "b1", "b2"):
        await other.event(name)
    await sender.event("b2")


async def test_attributes_are_told_where_they_are_asked_for(
    publisher: Publisher, connect: Connect
) -> None:
    wire = await connect()
    await wire.subscribe("news")
    await wire.join("presence-room", "ali", secret=SECRET)
    answer = await publisher.trigger(
        ["news", "presence-room"], "e", 1, info=("user_count", "subscription_count")
    )
    assert answer == {"news": {"subscription_count": 1}, "presence-room": {"user_count": 1}}
    news = BatchEvent(channel="news", name="e", data=1, info=["subscription_count"])
    room = BatchEvent(channel="presence-room", name="e", data=1, info="user_count")
    assert await publisher.trigger_batch([news, room]) == [
        {"subscription_count": 1},
        {"user_count": 1},
    ]
    assert await publisher.trigger_batch([BatchEvent(channel="news", name="e", data=1)]) == []
    assert await publisher.channels() == {"news": {}, "presence-room": {}}
    assert await publisher.channels(prefix="presence-", info=["user_count"]) == {
        "presence-room": {"user_count": 1}
    }
    assert await publisher.channels(prefix="nothing") == {}
    assert await publisher.channel("news", info=["subscription_count"]) == {
        "occupied": True,
        "subscription_count": 1,
    }
    assert await publisher.channel("empty") == {"occupied": False}
    assert await publisher.users("presence-room") == ["ali"]
    assert await publisher.users("presence-empty") == []


async def test_every_channel_name_may_be_asked_about(
    publisher: Publisher, connect: Connect
) -> None:
    wire = await connect()
    name = "presence-A_z=@,.;9"
    await wire.join(name, "ali", secret=SECRET)
    assert (await publisher.channel(name))["occupied"] is True
    assert await publisher.users(name) == ["ali"]
    assert list(await publisher.channels(prefix="presence-A_z=@,.;")) == [name]
    assert (await publisher.channel("no name? #e%20&x=1"))["occupied"] is False


async def test_a_server_behind_a_prefix_is_published_to(serve: Serve, connect: Connect) -> None:
    server = await serve(path="chat/ws")
    wire = await connect(server, "/chat/ws/app/k")
    await wire.subscribe("news")
    async with Publisher(server.settings()) as publisher:
        await publisher.trigger("news", "e", 1)
    await wire.event("e")


async def test_many_may_publish_at_once(publisher: Publisher, connect: Connect) -> None:
    wire = await connect()
    await wire.subscribe("news")
    await asyncio.gather(*(publisher.trigger("news", f"e{n}", n) for n in range(50)))
    assert sorted([(await wire.message())["data"] for _ in range(50)]) == list(range(50))


async def test_a_publisher_that_was_closed_opens_again(server: Server) -> None:
    publisher = Publisher(server.settings())
    await publisher.close()
    for _ in range(2):
        await publisher.trigger("news", "e", 1)
        await publisher.close()


@pytest.mark.parametrize(
    ("change", "code", "hint"),
    [
        ({"app_secret": "guess"}, 401, "app_secret"),
        ({"app_key": "other"}, 401, "app_key"),
        ({"app_id": "9"}, 404, "app_id"),
        ({"path": "/nowhere"}, 404, "path prefix"),
    ],
)
async def test_wrong_settings_are_named(
    server: Server, change: dict[str, str], code: int, hint: str
) -> None:
    settings = msgspec.structs.replace(server.settings(), **change)
    async with Publisher(settings) as publisher:
        with pytest.raises(PublishFailed, match=hint) as failed:
            await publisher.trigger("news", "e", 1)
    assert failed.value.code == code
    assert failed.value.kind == "event"
    assert_discreet(failed.value)


async def test_what_the_server_does_not_take_is_told_in_its_words(publisher: Publisher) -> None:
    for channels, event, data, code, words in (
        ("a b", "e", 1, 400, "'a b'"),
        ("news", "pusher:e", 1, 400, "pusher:e"),
        ("news", "", 1, 400, "name"),
        ("news", "e", "x" * 20_000, 413, "10240"),
    ):
        with pytest.raises(PublishFailed, match=words) as failed:
            await publisher.trigger(channels, event, data)
        assert failed.value.code == code
        assert_discreet(failed.value)
    with pytest.raises(PublishFailed, match="presence") as failed:
        await publisher.users("news")
    assert failed.value.code == 400


async def test_a_signed_in_user_is_sent_to_on_all_connections(
    publisher: Publisher, connect: Connect
) -> None:
    phone, laptop, other = await connect(), await connect(), await connect()
    for wire, user in ((phone, "ali"), (laptop, "ali"), (other, "john")):
        wire.send("pusher:signin", publisher.authenticate_user(wire.socket_id, {"id": user}))
        await wire.event("pusher:signin_success")
        await wire.subscribe(f"#server-to-user-{user}")
    await publisher.send_to_user("ali", "e", {"n": 1})
    await publisher.send_to_user("john", "last", {})
    for wire in (phone, laptop):
        assert (await wire.event("e"))["data"] == {"n": 1}
    assert (await other.message())["event"] == "last"


# Encrypted channels


ENCRYPTED = "private-encrypted-room"
MASTER_KEY = bytes(range(32))


def with_master_key(settings: Settings) -> Settings:
    key = base64.b64encode(MASTER_KEY).decode()
    return msgspec.structs.replace(settings, encryption_master_key=key)


@pytest.mark.parametrize(
    "data", [{"text": "дело 🎉"}, [1], "plain text", "", None, 5], ids=lambda data: ascii(data)
)
async def test_an_event_of_an_encrypted_channel_can_be_read_with_its_key_only(
    server: Server, connect: Connect, data: Any
) -> None:
    wire = await connect()
    async with Publisher(with_master_key(server.settings())) as publisher:
        signed = publisher.authorize_channel(wire.socket_id, ENCRYPTED)
        await wire.subscribe(ENCRYPTED, signed["auth"])
        await publisher.trigger(ENCRYPTED, "e", data)
        await publisher.trigger_batch([BatchEvent(channel=ENCRYPTED, name="b", data=data)])
        key = base64.b64decode(signed["shared_secret"])
        nonces = set()
        for name in ("e", "b"):
            sealed = (await wire.event(name))["data"]
            assert list(sealed) == ["nonce", "ciphertext"]
            assert decode_data(decrypt(key, sealed)) == data
            other = publisher.authorize_channel(wire.socket_id, ENCRYPTED + "2")["shared_secret"]
            assert decrypt(base64.b64decode(other), sealed) is None
            nonces.add(sealed["nonce"])
        assert len(nonces) == 2, "never one nonce twice"


async def test_nothing_that_should_be_encrypted_is_sent_in_clear(scripted: Scripted) -> None:
    bodies = []

    async def handle(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(text="{}")

    without = await scripted(handle)
    batch = [
        BatchEvent(channel="news", name="e", data=SECRET),
        BatchEvent(channel=ENCRYPTED, name="e", data=SECRET),
    ]
    with pytest.raises(PublishFailed, match="set encryption_master_key") as failed:
        await without.trigger(ENCRYPTED, "e", SECRET)
    assert_discreet(failed.value)
    with pytest.raises(PublishFailed, match="set encryption_master_key"):
        await without.trigger_batch(batch)
    async with Publisher(with_master_key(without._settings)) as publisher:
        for channels in (["news", ENCRYPTED], [ENCRYPTED, "news"], [ENCRYPTED] * 2):
            with pytest.raises(PublishFailed, match="alone") as failed:
                await publisher.trigger(channels, "e", SECRET)
            assert_discreet(failed.value)
        assert bodies == []
        await publisher.trigger(ENCRYPTED, "e", SECRET)
        await publisher.trigger(f"{ENCRYPTED[:18]}cache-room", "e", SECRET)
        await publisher.trigger_batch(batch[1:])
    assert len(bodies) == 3
    assert all(SECRET.encode() not in body for body in bodies)


@pytest.mark.parametrize("channel", ["news", ENCRYPTED, "private-encrypted-\ud800", "\ud800"])
@pytest.mark.parametrize("data", ["\ud800", {"a": "\ud800"}], ids=ascii)
async def test_half_a_character_is_refused_before_anything_is_sent(channel: str, data: Any) -> None:
    nobody = settings_for(1)
    async with Publisher(with_master_key(nobody)) as publisher:
        with pytest.raises(PublishFailed, match="half of a character"):
            await publisher.trigger(channel, "e", data)
        with pytest.raises(PublishFailed, match="half of a character"):
            await publisher.trigger_batch([BatchEvent(channel=channel, name="e", data=data)])


async def test_a_channels_name_may_be_half_a_character_too(publisher: Publisher) -> None:
    with pytest.raises(PublishFailed, match="half of a character"):
        await publisher.trigger("\ud800", "e", 1)
    assert (await publisher.channel("\ud800"))["occupied"] is False


async def test_without_pynacl_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl.secret", None)
    async with Publisher(with_master_key(settings_for(1))) as publisher:
        with pytest.raises(SettingsError, match=r"antiphon\[encryption\]"):
            await publisher.trigger(ENCRYPTED, "e", 1)


# Signing


def signer(**settings: Any) -> Publisher:
    return Publisher(settings_for(1, **settings))


SOCKET = "1234.1234"


async def test_a_channel_is_signed_as_pusher_documents_it() -> None:
    key, secret = "278d425bdf160c739803", "7ad3773142a6692b25b8"
    publisher = signer(app_key=key, app_secret=secret)
    assert publisher.authorize_channel(SOCKET, "private-foobar") == {
        "auth": f"{key}:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    }
    assert publisher.authenticate_user(SOCKET, {"id": "12345"}) == {
        "auth": f"{key}:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
        "user_data": '{"id":"12345"}',
    }


async def test_what_is_signed_is_accepted(server: Server, connect: Connect) -> None:
    wire = await connect()
    publisher = Publisher(with_master_key(server.settings()))
    info = {"name": "Қўчқоров"}
    signed = publisher.authorize_channel(wire.socket_id, "private-room", "ali", info)
    assert list(signed) == ["auth"]
    await wire.subscribe("private-room", signed["auth"])
    signed = publisher.authorize_channel(wire.socket_id, "presence-room", "ali", info)
    assert list(signed) == ["auth", "channel_data"]
    answer = await wire.subscribe("presence-room", signed["auth"], signed["channel_data"])
    assert answer["presence"]["hash"] == {"ali": info}
    signed = publisher.authorize_channel(wire.socket_id, "presence-hall", "ali")
    assert signed["channel_data"] == '{"user_id":"ali","user_info":null}'
    await wire.subscribe("presence-hall", signed["auth"], signed["channel_data"])
    signed = publisher.authorize_channel(wire.socket_id, ENCRYPTED)
    assert list(signed) == ["auth", "shared_secret"]
    await wire.subscribe(ENCRYPTED, signed["auth"])
    signed = publisher.authenticate_user(wire.socket_id, {"id": "7", "user_info": info})
    wire.send("pusher:signin", signed)
    await wire.event("pusher:signin_success")


@pytest.mark.parametrize(
    "socket_id",
    ["", "1", "1.", ".1", "a.b", "1.2.3", " 1.2", "1.2\n", "١.٢", "1.2:presence-x", "1.2::user"],
)
async def test_only_a_socket_id_is_signed(socket_id: str) -> None:
    publisher = signer()
    with pytest.raises(InvalidName, match="no socket id"):
        publisher.authorize_channel(socket_id, "private-room")
    with pytest.raises(InvalidName, match="no socket id"):
        publisher.authenticate_user(socket_id, {"id": "7"})


@pytest.mark.parametrize(
    ("channel", "kind"),
    [
        ("", InvalidName),
        ("private-a b", InvalidName),
        ('presence-room:{"user_id":"7"}', InvalidName),
        (":user::{}", InvalidName),
        ("private-" + "x" * 200, InvalidName),
        ("private-\ud800", InvalidName),
        ("news", AuthorizationFailed),
        ("#server-to-user-7", AuthorizationFailed),
        ("presence-room", AuthorizationFailed),
        (ENCRYPTED, AuthorizationFailed),
    ],
)
async def test_a_channel_that_cannot_be_signed_is_refused(
    channel: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        signer().authorize_channel(SOCKET, channel)


@pytest.mark.parametrize("user_data", [{}, {"id": ""}, {"id": 7}, {"id": None}, {"user_id": "7"}])
async def test_nobody_signs_in_without_an_id(user_data: dict[str, Any]) -> None:
    with pytest.raises(InvalidName, match="needs an id"):
        signer().authenticate_user(SOCKET, user_data)


# Webhooks


def webhook(body: Any, *, age: float = 0) -> tuple[str, str, bytes]:
    """Key, signature and body as a server sends them."""
    if isinstance(body, dict):
        body = msgspec.json.encode({"time_ms": int((time.time() - age) * 1000), **body})
    return "k", sign_webhook(SECRET, body), body


async def test_a_webhook_tells_what_has_happened() -> None:
    events = [
        {"name": "channel_occupied", "channel": "news"},
        {"name": "member_added", "channel": "presence-room", "user_id": "ali"},
        {"name": "member_removed", "channel": "presence-room", "user_id": 7},
        {
            "name": "client_event",
            "channel": "presence-room",
            "event": "client-typing",
            "data": '{"on":true}',
            "socket_id": "1.2",
            "user_id": "ali",
        },
        {"name": "subscription_count", "channel": "news", "subscription_count": 3},
        {"name": "of the future", "more": {}},
    ]
    body = msgspec.json.encode({"time_ms": (now := int(time.time())) * 1000, "events": events})
    got = signer().validate_webhook("k", sign_webhook(SECRET, body), body)
    assert got == Webhook(
        time=now,
        events=(
            WebhookEvent(name="channel_occupied", channel="news"),
            WebhookEvent(name="member_added", channel="presence-room", user_id="ali"),
            WebhookEvent(name="member_removed", channel="presence-room", user_id="7"),
            WebhookEvent(
                name="client_event",
                channel="presence-room",
                event="client-typing",
                data='{"on":true}',
                socket_id="1.2",
                user_id="ali",
            ),
            WebhookEvent(name="subscription_count", channel="news", subscription_count=3),
            WebhookEvent(name="of the future"),
        ),
    )


@pytest.mark.parametrize("age", [-290, 0, 290])
async def test_a_webhook_of_these_minutes_is_taken(age: float) -> None:
    key, signature, body = webhook({"events": []}, age=age)
    assert signer().validate_webhook(key, signature, body).events == ()


@pytest.mark.parametrize(
    ("age", "words"), [(310, "310 seconds old"), (-310, "seconds ahead"), (10**12, "old")]
)
async def test_an_old_webhook_is_invalid(age: float, words: str) -> None:
    with pytest.raises(WebhookInvalid, match=words) as caught:
        signer().validate_webhook(*webhook({"events": []}, age=age))
    assert_discreet(caught.value)


@pytest.mark.parametrize("key", [None, "", "K", "k ", "other", "ü", "\ud800"])
async def test_a_webhook_of_another_application_is_invalid(key: str | None) -> None:
    _, signature, body = webhook({"events": []})
    with pytest.raises(WebhookInvalid, match="X-Pusher-Key"):
        signer().validate_webhook(key, signature, body)


@pytest.mark.parametrize("signature", [None, "", "a" * 64, "ü", "\ud800", "upper", "body"])
async def test_a_webhook_that_is_signed_otherwise_is_invalid(signature: str | None) -> None:
    key, right, body = webhook({"events": []})
    if signature == "upper":
        signature = right.upper()
    elif signature == "body":
        signature, body = right, body + b" "
    with pytest.raises(WebhookInvalid, match="X-Pusher-Signature") as caught:
        signer().validate_webhook(key, signature, body)
    assert_discreet(caught.value)


async def test_what_is_not_signed_is_not_even_read() -> None:
    with pytest.raises(WebhookInvalid, match="X-Pusher-Signature"):
        signer().validate_webhook("k", "a" * 64, b"[" * 100_000)
    with pytest.raises(WebhookInvalid, match="X-Pusher-Key"):
        signer().validate_webhook("other", "a" * 64, b"")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b'{"events":[{"name":"\xff"}]}',
        b"[" * 100_000,
        b'{"events":[]}',
        b'{"time_ms":"1","events":[]}',
        b'{"time_ms":1e999,"events":[]}',
        b'{"time_ms":null,"events":[]}',
        b'{"time_ms":%d}' % (10**15),
        b'{"time_ms":1,"events":{}}',
        b'{"time_ms":1,"events":[1]}',
        b'{"time_ms":1,"events":[{}]}',
        b'{"time_ms":1,"events":[{"name":1}]}',
    ],
    ids=lambda body: ascii(body)[:40],
)
async def test_a_signed_body_that_is_no_webhook_is_invalid(body: bytes) -> None:
    with pytest.raises(WebhookInvalid, match="cannot be read"):
        signer().validate_webhook(*webhook(body))


# What is refused before anything is sent


@pytest.mark.parametrize("missing", ["app_id", "app_secret"])
async def test_who_publishes_needs_an_id_and_a_secret(missing: str) -> None:
    fields: dict[str, Any] = {"app_key": "k", "app_id": "1", "app_secret": SECRET}
    with pytest.raises(SettingsError, match="app_id and app_secret") as failed:
        Publisher(Settings(**{name: value for name, value in fields.items() if name != missing}))
    assert SECRET not in str(failed.value)


async def test_too_many_and_too_few_are_refused_without_a_request() -> None:
    nobody = Settings(app_key="k", app_id="1", app_secret=SECRET, port=1, scheme="http")
    event = BatchEvent(channel="news", name="e", data=1)
    async with Publisher(nobody) as publisher:
        with pytest.raises(PublishFailed, match="not 0"):
            await publisher.trigger([], "e", 1)
        with pytest.raises(PublishFailed, match="not 101"):
            await publisher.trigger(["c"] * 101, "e", 1)
        with pytest.raises(PublishFailed, match="not 0"):
            await publisher.trigger_batch([])
        with pytest.raises(PublishFailed, match="not 11"):
            await publisher.trigger_batch([event] * 11)
        with pytest.raises(PublishFailed, match="empty"):
            await publisher.terminate_user_connections("")


# Servers that are not ours


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Scripted = Callable[[Handler], Awaitable[Publisher]]


@pytest_asyncio.fixture(loop_scope="module")
async def scripted() -> AsyncIterator[Scripted]:
    """A publisher to a server that does what a function says."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler) -> Publisher:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(app, shutdown_timeout=0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            return await stack.enter_async_context(Publisher(settings_for(port), timeout=30))

        yield start


def settings_for(port: int, **fields: Any) -> Settings:
    words = {"app_key": "k", "app_id": "1", "app_secret": SECRET, "port": port, "scheme": "http"}
    return Settings(**{**words, **fields})


def answers(body: str, status: int = 200, **options: Any) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text=body, status=status, **options)

    return handle


def assert_discreet(error: BaseException, *more: str) -> None:
    """Neither the error's text nor its traceback tells the secret or a signature."""
    told = str(error) + repr(error) + "".join(traceback.format_exception(error))
    assert re.search("[0-9a-f]{64}", told) is None
    for secret in (SECRET, *more):
        assert secret not in told


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, '{"error":"no"}'),
        (401, "Authentication signature invalid."),
        (403, "Forbidden"),
        (404, ""),
        (413, "Payload Too Large"),
        (422, '{"data":["The data field is required."]}'),
        (500, "Internal server error."),
        (503, "<html>down</html>"),
        (201, "{}"),
        (204, ""),
    ],
)
async def test_any_status_but_200_and_202_is_a_failure(
    scripted: Scripted, status: int, body: str
) -> None:
    publisher = await scripted(answers(body, status))
    with pytest.raises(PublishFailed) as failed:
        await publisher.trigger("news", "e", 1)
    assert failed.value.code == status
    assert str(status) in str(failed.value)
    assert body[:20] in str(failed.value)
    assert_discreet(failed.value)


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize("body", ["{}", '{"ok":true}', "", '{"channels":{}}'])
async def test_every_servers_way_to_say_yes_is_understood(
    scripted: Scripted, status: int, body: str
) -> None:
    publisher = await scripted(answers(body, status))
    assert await publisher.trigger("news", "e", 1) == {}
    await publisher.trigger_batch([BatchEvent(channel="news", name="e", data=1)])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (f'{{"error":"no route for auth_signature={"a1" * 32}","code":404}}', 404),
        ('{"error":"The secret authentication failed","code":401}', 401),
        ('{"error":"The received data is incorrect","code":400}', 400),
        ('{"error":"The data should be less than 100KB.","code":413}', 413),
        ('{"code":500}', 500),
    ],
)
async def test_soketis_200_with_a_code_in_the_body_is_a_failure(
    scripted: Scripted, body: str, code: int
) -> None:
    publisher = await scripted(answers(body))
    with pytest.raises(PublishFailed, match="refused") as failed:
        await publisher.trigger("news", "e", 1)
    assert failed.value.code == code
    assert_discreet(failed.value)


@pytest.mark.parametrize(
    "body", ["hello", "<html></html>", "[]", "7", "null", '{"a":', "\x00", "[" * 9_999]
)
async def test_an_answer_that_is_no_json_object_is_a_failure(scripted: Scripted, body: str) -> None:
    publisher = await scripted(answers(body))
    with pytest.raises(PublishFailed, match="is this a Pusher server") as failed:
        await publisher.channels()
    assert failed.value.code == 200


async def test_reverbs_empty_list_of_channels_is_no_channel(scripted: Scripted) -> None:
    publisher = await scripted(answers('{"channels":[]}'))
    assert await publisher.channels() == {}
    assert await publisher.trigger("news", "e", 1) == {}


async def test_user_ids_that_are_numbers_become_text(scripted: Scripted) -> None:
    publisher = await scripted(answers('{"users":[{"id":7},{"id":"8"}]}'))
    assert await publisher.users("presence-room") == ["7", "8"]


@pytest.mark.parametrize(
    "body",
    [
        '{"channels":"many"}',
        '{"channels":[1]}',
        '{"channels":7}',
        '{"users":null}',
        '{"users":[1]}',
        '{"users":[{}]}',
        '{"users":7}',
        '{"batch":7}',
        '{"batch":{"a":1}}',
    ],
)
async def test_an_answer_of_another_shape_is_a_failure_too(scripted: Scripted, body: str) -> None:
    publisher = await scripted(answers(body))
    asks: dict[str, Callable[[], Awaitable[Any]]] = {
        "channels": publisher.channels,
        "users": lambda: publisher.users("presence-room"),
        "batch": lambda: publisher.trigger_batch([BatchEvent(channel="a", name="e", data=1)]),
    }
    with pytest.raises(PublishFailed, match="is this a Pusher server"):
        await asks[body.split('"')[1]]()


async def test_bytes_that_are_no_text_are_a_failure_too(scripted: Scripted) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=b'{"channels":"\xff"}')

    with pytest.raises(PublishFailed, match="is this a Pusher server"):
        await (await scripted(handle)).channels()


async def test_what_a_cache_channel_holds_is_told_as_it_is(scripted: Scripted) -> None:
    asked = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.query["info"])
        return web.Response(text='{"occupied":true,"cache":{"data":"{}","ttl":1799}}')

    publisher = await scripted(handle)
    answer = await publisher.channel("cache-news", info=["cache"])
    assert answer == {"occupied": True, "cache": {"data": "{}", "ttl": 1799}}
    await publisher.channel("cache-news", info="cache")
    assert asked == ["cache", "cache"]


async def test_a_redirect_is_not_followed_with_the_signature(scripted: Scripted) -> None:
    asked = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    publisher = await scripted(handle)
    with pytest.raises(PublishFailed) as failed:
        await publisher.trigger("news", "e", 1)
    assert failed.value.code == 302
    assert asked == ["/apps/1/events"]


async def test_a_server_that_repeats_the_request_does_not_make_us_tell_it(
    scripted: Scripted,
) -> None:
    signatures = []

    async def handle(request: web.Request) -> web.Response:
        signatures.append(request.query["auth_signature"])
        return web.Response(text=f"no route for {request.path_qs}", status=404)

    publisher = await scripted(handle)
    with pytest.raises(PublishFailed) as failed:
        await publisher.channels()
    assert_discreet(failed.value, *signatures)


async def test_a_server_that_does_not_answer_is_given_up(scripted: Scripted) -> None:
    over = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    settings = (await scripted(handle))._settings
    async with Publisher(settings, timeout=0.05) as publisher:
        with pytest.raises(PublishFailed, match="did not answer in time") as failed:
            await publisher.trigger("news", "e", 1)
    over.set()
    assert failed.value.code is None
    assert_discreet(failed.value)


async def test_a_server_that_hangs_up_is_a_failure(scripted: Scripted) -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    publisher = await scripted(handle)
    with pytest.raises(PublishFailed, match="could not be reached") as failed:
        await publisher.trigger("news", "e", 1)
    assert failed.value.code is None
    assert_discreet(failed.value)


async def test_a_port_where_nobody_listens_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with Publisher(settings_for(port)) as publisher:
        with pytest.raises(PublishFailed, match=rf"127\.0\.0\.1:{port}.*running") as failed:
            await publisher.trigger("news", "e", 1)
    assert failed.value.code is None
    assert_discreet(failed.value)


async def test_a_host_that_does_not_exist_is_named() -> None:
    async with Publisher(settings_for(80, host="no-such-host.invalid")) as publisher:
        with pytest.raises(PublishFailed, match=r"no-such-host\.invalid") as failed:
            await publisher.trigger("news", "e", 1)
    assert_discreet(failed.value)


async def test_tls_where_there_is_none_is_a_failure(server: Server) -> None:
    async with Publisher(settings_for(server.port, scheme="https")) as publisher:
        with pytest.raises(PublishFailed, match="https://") as failed:
            await publisher.trigger("news", "e", 1)
    assert_discreet(failed.value)


async def test_a_peer_that_speaks_no_http_is_a_failure() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await reader.read()
        writer.close()

    peer = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with peer, Publisher(settings_for(peer.sockets[0].getsockname()[1])) as publisher:
        with pytest.raises(PublishFailed, match="could not be reached") as failed:
            await publisher.trigger("news", "e", 1)
    assert_discreet(failed.value)


async def test_what_is_sent_is_what_other_servers_expect(scripted: Scripted) -> None:
    seen: list[tuple[str, str, dict[str, str], str, Any]] = []

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        query = {k: v for k, v in request.query.items() if not k.startswith(("auth", "body_md5"))}
        kind = request.headers["Content-Type"]
        seen.append(
            (request.method, request.path, query, kind, msgspec.json.decode(body or b"null"))
        )
        return web.Response(text="{}")

    publisher = await scripted(handle)
    await publisher.trigger(["a", "b"], "e", {"n": 1}, socket_id="1.2", info=["user_count"])
    await publisher.trigger_batch(
        [BatchEvent(channel="a", name="e", data=[1], socket_id="1.2", info=["user_count"])]
    )
    await publisher.send_to_user("7", "e", "text")
    await publisher.terminate_user_connections("a b/7@x")
    await publisher.channels(prefix="presence-", info=["user_count", "subscription_count"])
    await publisher.channel("a")
    kind = "application/json"
    assert seen == [
        (
            "POST",
            "/apps/1/events",
            {},
            kind,
            {
                "name": "e",
                "channels": ["a", "b"],
                "data": '{"n":1}',
                "socket_id": "1.2",
                "info": "user_count",
            },
        ),
        (
            "POST",
            "/apps/1/batch_events",
            {},
            kind,
            {
                "batch": [
                    {
                        "channel": "a",
                        "name": "e",
                        "data": "[1]",
                        "socket_id": "1.2",
                        "info": "user_count",
                    }
                ]
            },
        ),
        (
            "POST",
            "/apps/1/events",
            {},
            kind,
            {"name": "e", "channels": ["#server-to-user-7"], "data": "text"},
        ),
        ("POST", "/apps/1/users/a b/7@x/terminate_connections", {}, kind, {}),
        (
            "GET",
            "/apps/1/channels",
            {"filter_by_prefix": "presence-", "info": "user_count,subscription_count"},
            kind,
            None,
        ),
        ("GET", "/apps/1/channels/a", {}, kind, None),
    ]

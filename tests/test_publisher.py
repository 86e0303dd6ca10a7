"""The publisher against our server, and against servers that behave as others do, or badly."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from antiphon.errors import PublishFailed, SettingsError
from antiphon.publisher import BatchEvent, Publisher
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
        (["news", "private-encrypted-a"], "e", 1, 400, "encrypted"),
        ("news", "e", "x" * 20_000, 413, "10240"),
    ):
        with pytest.raises(PublishFailed, match=words) as failed:
            await publisher.trigger(channels, event, data)
        assert failed.value.code == code
        assert_discreet(failed.value)
    with pytest.raises(PublishFailed, match="presence") as failed:
        await publisher.users("news")
    assert failed.value.code == 400


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
            return await stack.enter_async_context(Publisher(settings_for(port), timeout=5))

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


@pytest.mark.parametrize("body", ["hello", "<html></html>", "[]", "7", "null", '{"a":', "\x00"])
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
    ],
)
async def test_an_answer_of_another_shape_is_a_failure_too(scripted: Scripted, body: str) -> None:
    publisher = await scripted(answers(body))
    ask = publisher.users("presence-room") if "users" in body else publisher.channels()
    with pytest.raises(PublishFailed):
        await ask


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

    publisher = await scripted(handle)
    publisher._timeout = 0.05
    with pytest.raises(PublishFailed, match="could not be reached") as failed:
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
    await publisher.trigger_batch([BatchEvent(channel="a", name="e", data=[1])])
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
            {"batch": [{"channel": "a", "name": "e", "data": "[1]"}]},
        ),
        (
            "GET",
            "/apps/1/channels",
            {"filter_by_prefix": "presence-", "info": "user_count,subscription_count"},
            kind,
            None,
        ),
        ("GET", "/apps/1/channels/a", {}, kind, None),
    ]

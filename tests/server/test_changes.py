"""Applications that come, change and go while the server serves."""

from __future__ import annotations

import pytest

from antiphon.errors import PublishFailed, SettingsError
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App, WebhookEndpoint
from tests.conftest import Connect, Serve

from .wire import Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE = App(id="1", key="k", secret="s")
TWO = App(id="2", key="second", secret="t")


async def refusal(server: Server, path: str = "/app/k") -> int:
    async with await Wire.open(server.port, path) as wire:
        return await wire.error()


async def test_an_application_may_come_while_the_server_serves(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(ONE)
    there = await connect(server)
    assert await refusal(server, "/app/second") == 4001
    await server.change_apps([ONE, TWO])
    later = await connect(server, "/app/second")
    await later.subscribe("news")
    async with Publisher(server.settings("2")) as publisher:
        await publisher.trigger("news", "said", 1)
    assert (await later.event("said"))["data"] == 1
    await there.ping()


async def test_an_application_may_go_and_its_clients_are_told(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(ONE, TWO)
    first, second = await connect(server), await connect(server, "/app/second")
    settings = server.settings("2")
    await server.change_apps([ONE])
    assert (await second.closed()).code == 4001
    await first.ping()
    assert await refusal(server, "/app/second") == 4001
    async with Publisher(settings) as publisher:
        with pytest.raises(PublishFailed, match="no application with id '2'"):
            await publisher.channels()


async def test_who_is_connected_stays_with_new_limits(serve: Serve, connect: Connect) -> None:
    server = await serve(ONE)
    wire = await connect(server)
    await wire.subscribe("one")
    await server.change_apps([App(id="1", key="k", secret="s", max_channels=1)])
    wire.send("pusher:subscribe", {"channel": "two"})
    refused = await wire.event("pusher:subscription_error")
    assert refused["data"]["error"] == "A connection may join 1 channels"
    await wire.ping()


async def test_who_connects_from_then_on_may_send_larger_messages(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(App(id="1", key="k", secret="s", max_message_size=1_000))
    large = "x" * 5_000
    before = await connect(server)
    await server.change_apps([ONE])
    after = await connect(server)
    after.send(f"nobody-{large}", {})
    assert await after.error() == 4200
    await after.ping()
    before.send(f"nobody-{large}", {})
    assert (await before.closed()).code == 1009


async def test_a_new_secret_signs_from_then_on(serve: Serve, connect: Connect) -> None:
    server = await serve(ONE)
    old, wire = server.settings(), await connect(server)
    await server.change_apps([App(id="1", key="k", secret="new")])
    await wire.join("private-room", secret="new")
    async with Publisher(old) as publisher:
        with pytest.raises(PublishFailed, match="not signed rightly"):
            await publisher.channels()
    async with Publisher(server.settings()) as publisher:
        assert list(await publisher.channels()) == ["private-room"]


async def test_a_new_key_is_connected_with_and_who_is_there_stays(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(ONE)
    wire = await connect(server)
    await wire.subscribe("news")
    await server.change_apps([App(id="1", key="other", secret="s")])
    assert await refusal(server) == 4001
    later = await connect(server, "/app/other")
    await later.subscribe("news")
    async with Publisher(server.settings()) as publisher:
        await publisher.trigger("news", "said", 1)
    for each in (wire, later):
        await each.event("said")


async def test_a_disabled_application_sends_its_clients_away_and_may_come_back(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(ONE)
    wire = await connect(server)
    await server.change_apps([App(id="1", key="k", secret="s", enabled=False)])
    assert (await wire.closed()).code == 4003
    assert await refusal(server) == 4003
    await server.change_apps([ONE])
    await (await connect(server)).ping()


async def test_webhooks_begin_and_end_with_their_application(serve: Serve) -> None:
    server = await serve(ONE)
    hub = server._hubs["k"]
    before = hub.webhooks
    await server.change_apps([App(id="1", key="k", secret="s", max_channels=7)])
    assert hub.webhooks is before, "what waits is not disturbed by another limit"
    endpoint = WebhookEndpoint(url="http://127.0.0.1:1/")
    await server.change_apps([App(id="1", key="k", secret="s", webhooks=(endpoint,))])
    assert hub.webhooks is not before
    hub.webhooks.occupied("news")
    assert hub.webhooks.queued == 1
    await server.change_apps([ONE])
    assert hub.webhooks.queued == 0


@pytest.mark.parametrize("apps", [[], [ONE, ONE], [ONE, App(id="2", key="k", secret="x")]])
async def test_what_cannot_be_served_changes_nothing(
    serve: Serve, connect: Connect, apps: list[App]
) -> None:
    server = await serve(ONE)
    wire = await connect(server)
    with pytest.raises(SettingsError):
        await server.change_apps(apps)
    await wire.ping()
    await (await connect(server)).ping()


async def test_applications_may_change_before_the_server_starts() -> None:
    server = Server(ONE)
    await server.change_apps([TWO])
    async with server:
        async with await Wire.connect(server.port, "/app/second") as wire:
            await wire.ping()
        assert await refusal(server) == 4001

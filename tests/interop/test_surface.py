"""What the other files here leave out of the libraries' public surface, and the whole of it.

`SURFACE` names each public method of the four libraries and the test that calls it on a client or a
publisher of our server. The names of the two publishers are asked of the libraries themselves: a
method that a new version brings is missed here.
"""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pusher
import pytest
import pytest_asyncio

from antiphon.protocol.signing import sign_webhook
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App, WebhookEndpoint
from tests.client.endpoint import Endpoint
from tests.conftest import Connect
from tests.server.wire import Wire, http, until

from .conftest import MASTER_KEY, Dial, DialEcho, JsClient, npm_pusher_options
from .node import Node

pytestmark = pytest.mark.asyncio(loop_scope="module")

SURFACE: Final = {
    "PyPI pusher": {
        "from_url": "test_pypi_pusher_is_made_from_a_url_and_from_the_environment",
        "from_env": "test_pypi_pusher_is_made_from_a_url_and_from_the_environment",
        "trigger": "test_what_both_publish_arrives",
        "send_to_user": "test_pypi_pusher_sends_to_a_user",
        "trigger_batch": "test_a_batch_arrives_in_order",
        "channels_info": "test_both_are_told_what_they_ask",
        "channel_info": "test_both_are_told_what_they_ask",
        "users_info": "test_both_are_told_what_they_ask",
        "terminate_user_connections": "test_a_users_connections_are_ended_and_stay_so",
        "authenticate": "test_what_both_sign_is_accepted",
        "authenticate_user": "test_what_both_sign_is_accepted",
        "validate_webhook": "test_webhooks_of_the_server_are_read_by_both_libraries",
    },
    "npm pusher": {
        "forURL": "test_npm_pusher_is_made_from_a_url_and_for_a_cluster",
        "forCluster": "test_npm_pusher_is_made_from_a_url_and_for_a_cluster",
        "authorizeChannel": "test_what_both_sign_is_accepted",
        "authenticate": "test_what_npm_pusher_signs_under_its_older_name_is_accepted",
        "authenticateUser": "test_what_both_sign_is_accepted",
        "sendToUser": "test_a_signed_in_user_gets_what_is_sent_to_the_user",
        "terminateUserConnections": "test_a_users_connections_are_ended_and_stay_so",
        "trigger": "test_what_both_publish_arrives",
        "triggerBatch": "test_a_batch_arrives_in_order",
        "post": "test_npm_pusher_posts_and_signs_requests_of_ones_own",
        "get": "test_both_are_told_what_they_ask",
        "webhook": "test_webhooks_of_the_server_are_read_by_both_libraries",
        "createSignedQueryString": "test_npm_pusher_posts_and_signs_requests_of_ones_own",
        "channelSharedSecret": "test_what_is_encrypted_here_both_decrypt",
    },
    "npm pusher's webhook": dict.fromkeys(
        ("isValid", "isContentTypeValid", "isBodyValid", "getData", "getEvents", "getTime"),
        "test_webhooks_of_the_server_are_read_by_both_libraries",
    ),
    "pusher-js": {
        "channel": "test_a_client_event_reaches_the_others_and_not_its_sender",
        "allChannels": "test_pusher_js_knows_its_channels_and_sends_on_them",
        "connect": "test_pusher_js_connects_again_after_it_has_disconnected",
        "disconnect": "test_pusher_js_connects_again_after_it_has_disconnected",
        "bind": "test_pusher_js_does_not_call_what_is_unbound",
        "unbind": "test_pusher_js_does_not_call_what_is_unbound",
        "bind_global": "test_pusher_js_does_not_call_what_is_unbound",
        "unbind_global": "test_pusher_js_does_not_call_what_is_unbound",
        "unbind_all": "test_pusher_js_does_not_call_what_is_unbound",
        "subscribe": "test_every_kind_of_channel_gets_events",
        "unsubscribe": "test_after_unsubscribing_nothing_more_arrives",
        "send_event": "test_pusher_js_knows_its_channels_and_sends_on_them",
        "shouldUseTLS": "test_pusher_js_knows_its_channels_and_sends_on_them",
        "signin": "test_a_signed_in_user_gets_what_is_sent_to_the_user",
        "user.bind_global": "test_a_signed_in_user_gets_what_is_sent_to_the_user",
        "user.watchlist.bind_global": "test_whom_one_watches_is_seen_coming_and_going",
        "connection.bind": "test_it_connects_and_knows_its_socket_id",
        "connection.state": "test_it_connects_and_knows_its_socket_id",
        "connection.socket_id": "test_it_connects_and_knows_its_socket_id",
        "channel.trigger": "test_a_client_event_reaches_the_others_and_not_its_sender",
        "channel.members.get": "test_members_are_seen_coming_and_going",
        "channel.members.each": "test_members_are_seen_coming_and_going",
    },
    "laravel-echo": {
        "channel": "test_every_kind_of_channel_gets_events",
        "private": "test_every_kind_of_channel_gets_events",
        "encryptedPrivate": "test_every_kind_of_channel_gets_events",
        "join": "test_every_kind_of_channel_gets_events",
        "listen": "test_echo_listens_to_all_and_to_nothing_any_more",
        "leave": "test_who_leaves_a_channel_hears_no_more_of_it",
        "leaveChannel": "test_echo_leaves_one_channel_and_all",
        "leaveAllChannels": "test_echo_leaves_one_channel_and_all",
        "connect": "test_every_kind_of_channel_gets_events",
        "disconnect": "test_every_kind_of_channel_gets_events",
        "socketId": "test_the_sender_is_left_out_by_its_socket_id",
        "connectionStatus": "test_at_a_wrong_key_it_gives_up_after_one_dial",
        "connector.signin": "test_echo_signs_in",
        "connector.onConnectionChange": "test_every_kind_of_channel_gets_events",
        "channel.listen": "test_every_kind_of_channel_gets_events",
        "channel.listenToAll": "test_echo_listens_to_all_and_to_nothing_any_more",
        "channel.stopListening": "test_echo_listens_to_all_and_to_nothing_any_more",
        "channel.stopListeningToAll": "test_echo_listens_to_all_and_to_nothing_any_more",
        "channel.on": "test_echo_listens_to_all_and_to_nothing_any_more",
        "channel.notification": "test_echo_is_notified",
        "channel.stopListeningForNotification": "test_echo_is_notified",
        "channel.listenForWhisper": "test_a_whisper_reaches_the_others_and_not_its_sender",
        "channel.stopListeningForWhisper": "test_echo_stops_listening_for_a_whisper",
        "channel.whisper": "test_a_whisper_reaches_the_others_and_not_its_sender",
        "channel.subscribed": "test_every_kind_of_channel_gets_events",
        "channel.error": "test_what_the_endpoint_refuses_is_told_as_an_error",
        "channel.here": "test_members_are_here_joining_and_leaving",
        "channel.joining": "test_members_are_here_joining_and_leaving",
        "channel.leaving": "test_members_are_here_joining_and_leaving",
    },
}


async def test_every_public_method_is_called_in_a_test(publishing: Node) -> None:
    tests = {
        node.name
        for path in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.AsyncFunctionDef)
    }
    named = set(itertools.chain.from_iterable(each.values() for each in SURFACE.values()))
    assert named <= tests
    public = {name for name in vars(pusher.Pusher) if not name.startswith("_")}
    assert SURFACE["PyPI pusher"].keys() == public
    npm = await publishing.call("surface")
    assert SURFACE["npm pusher"].keys() == {*npm["made"], *npm["pusher"]} - {"constructor"}
    assert SURFACE["npm pusher's webhook"].keys() == {*npm["webhook"]} - {"constructor"}


# PyPI pusher


async def test_pypi_pusher_is_made_from_a_url_and_from_the_environment(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = await connect()
    await wire.subscribe("news")
    # The library takes the port beside the address, and not in it.
    url = "http://k:s@127.0.0.1/apps/1"
    monkeypatch.setenv("PUSHER_URL", url)
    made = pusher.Pusher.from_url(url, port=server.port), pusher.Pusher.from_env(port=server.port)
    for number, client in enumerate(made):
        await asked(client, "trigger", "news", "e", {"n": number})
        assert (await wire.event("e"))["data"] == {"n": number}


async def test_pypi_pusher_sends_to_a_user(server: Server, connect: Connect) -> None:
    wire = await connect()
    client = pusher.Pusher("1", "k", "s", ssl=False, host="127.0.0.1", port=server.port)
    signed = client.authenticate_user(wire.socket_id, {"id": "7"})
    wire.send("pusher:signin", signed)
    await wire.event("pusher:signin_success")
    await wire.subscribe("#server-to-user-7")
    await asked(client, "send_to_user", "7", "hello", {"n": 1})
    assert (await wire.event("hello"))["data"] == {"n": 1}


async def asked(client: Any, method: str, *words: Any) -> Any:
    """Call a method of the library, which blocks."""
    try:
        return await asyncio.to_thread(getattr(client, method), *words)
    finally:
        client._pusher_client.http.session.close()


# npm pusher


@pytest.fixture
def url(server: Server) -> str:
    """The address that the library can be made from."""
    return f"http://k:s@127.0.0.1:{server.port}/apps/1"


async def test_npm_pusher_is_made_from_a_url_and_for_a_cluster(
    connect: Connect, publishing: Node, url: str
) -> None:
    wire = await connect()
    await wire.subscribe("news")
    await publishing.call("open_url", name="from url", url=url)
    words = {"channels": "news", "event": "e", "data": 1, "params": {}}
    await publishing.call("trigger", name="from url", **words)
    assert (await wire.event("e"))["data"] == 1
    # A cluster is an address of the hosted service: all there is to see is which.
    options = {"appId": "1", "key": "k", "secret": "s"}
    host = await publishing.call("cluster_host", cluster="eu", options=options)
    assert host == "api-eu.pusher.com"


async def test_npm_pusher_posts_and_signs_requests_of_ones_own(
    server: Server, connect: Connect, publishing: Node, url: str
) -> None:
    wire = await connect()
    await wire.subscribe("news")
    await publishing.call("open_url", name="own", url=url)
    body = {"name": "e", "channel": "news", "data": "{}"}
    answer = await publishing.call("post", name="own", path="/events", body=body)
    assert answer == {"status": 200, "body": {}}
    await wire.event("e")
    path = "/apps/1/channels"
    query = await publishing.call(
        "signed_query", name="own", method="GET", path=path, params={"filter_by_prefix": "ne"}
    )
    head = f"GET {path}?{query} HTTP/1.1\r\nHost: x\r\n\r\n"
    assert await http(server.port, head.encode()) == (200, b'{"channels":{"news":{}}}')


async def test_what_npm_pusher_signs_under_its_older_name_is_accepted(
    connect: Connect, publishing: Node, url: str
) -> None:
    wire = await connect()
    await publishing.call("open_url", name="older", url=url)
    words = {"socket_id": wire.socket_id, "channel": "private-room"}
    signed = await publishing.call("authenticate_channel", name="older", **words)
    await wire.subscribe("private-room", signed["auth"])


# Webhooks


async def test_webhooks_of_the_server_are_read_by_both_libraries(publishing: Node) -> None:
    """As the server sends them, and not as they are signed here."""
    async with Endpoint() as receiver:
        app = App(id="1", key="k", secret="s", webhooks=(WebhookEndpoint(url=receiver.url),))
        async with Server(app) as server, await Wire.connect(server.port) as wire:
            await wire.join("presence-room", "ali")
            await wire.subscribe("cache-news")
            wire.send("client-typing", {"a": "дело"}, "presence-room")
            names = {"member_added", "client_event", "cache_miss", "channel_occupied"}
            await until(lambda: names <= {event["name"] for event in told(receiver)})
            options = npm_pusher_options(server.settings(), MASTER_KEY)
            await publishing.call("open", name="hooked", options=options)
            python = pusher.Pusher("1", "k", "s")
            for asked in receiver.asked:
                sent = json.loads(asked.body)
                headers = {name.lower(): value for name, value in asked.headers.items()}
                words = {"name": "hooked", "headers": headers, "body": asked.body}
                assert await publishing.call("read_webhook", **words) == {
                    "valid": True,
                    "content_type": True,
                    "body": True,
                    "events": sent["events"],
                    "time": sent["time_ms"],
                }
                assert await publishing.call("validate_webhook", **words) == sent
                key, signature = headers["x-pusher-key"], headers["x-pusher-signature"]
                assert python.validate_webhook(key, signature, asked.body) == sent
                assert sign_webhook("s", asked.body.encode()) == signature


def told(receiver: Endpoint) -> list[dict[str, Any]]:
    return [event for asked in receiver.asked for event in json.loads(asked.body)["events"]]


# pusher-js


@pytest_asyncio.fixture(loop_scope="module")
async def publisher(server: Server) -> AsyncIterator[Publisher]:
    async with Publisher(server.settings()) as publisher:
        yield publisher


async def subscribed(client: JsClient, channel: str) -> None:
    await client.call("subscribe", channel=channel)
    await client.heard("channel", channel=channel, event="pusher:subscription_succeeded")


@pytest.mark.parametrize("on", ["news", None], ids=["a channel", "the client"])
async def test_pusher_js_does_not_call_what_is_unbound(
    dial: Dial, publisher: Publisher, on: str | None
) -> None:
    ali = await dial("ali")
    await subscribed(ali, "news")
    await subscribed(ali, "last")
    await ali.call("bind", channel="last", event="last", name="last")

    async def called() -> list[str]:
        """Who is called for one event; what comes last is on another channel."""
        await publisher.trigger("news", "e", 1)
        await publisher.trigger("last", "last", 1)
        await ali.heard("called", name="last")
        await ali.call("state")  # answered once all are called, also those of the client
        names = [found["name"] for found in ali.unheard("called")]
        for name in names:
            await ali.heard("called", name=name)
        return sorted(set(names) - {"all"}) + (["all"] if "all" in names else [])

    for name in ("one", "two"):
        await ali.call("bind", channel=on, event="e", name=name)
    await ali.call("bind_global", channel=on, name="all")
    assert await called() == ["one", "two", "all"]
    await ali.call("unbind", channel=on, event="e", name="one")
    assert await called() == ["two", "all"]
    await ali.call("unbind_global", channel=on, name="all")
    assert await called() == ["two"]
    await ali.call("unbind_all", channel=on)
    assert await called() == []


async def test_pusher_js_connects_again_after_it_has_disconnected(
    dial: Dial, publisher: Publisher
) -> None:
    ali = await dial("ali")
    await subscribed(ali, "private-room")
    first = ali.socket_id
    await ali.call("disconnect")
    await ali.heard("state", current="disconnected")
    assert await ali.call("state") == "disconnected"
    await ali.call("connect_again")
    await ali.connected()
    assert ali.socket_id != first
    await ali.heard("channel", channel="private-room", event="pusher:subscription_succeeded")
    await ali.call("bind", channel="private-room", event="e", name="heard")
    await publisher.trigger("private-room", "e", 1)
    assert (await ali.heard("called", name="heard"))["words"][0] == 1


async def test_pusher_js_knows_its_channels_and_sends_on_them(dial: Dial) -> None:
    ali, john = await dial("ali"), await dial("john")
    for client in (ali, john):
        await subscribed(client, "news")
        await subscribed(client, "private-room")
    assert sorted(await ali.call("channels")) == ["news", "private-room"]
    assert await ali.call("uses_tls") is False
    await john.call("bind", channel="private-room", event="client-hi", name="heard")
    sent = {"event": "client-hi", "data": {"n": 1}, "channel": "private-room"}
    assert await ali.call("send_event", **sent) is True
    assert (await john.heard("called", name="heard"))["words"][0] == {"n": 1}


# laravel-echo


async def echo_joined(client: JsClient, type_: str, channel: str, **words: Any) -> None:
    await client.call("join", type=type_, channel=channel, **words)
    await client.heard("subscribed", channel=channel)


async def test_echo_listens_to_all_and_to_nothing_any_more(
    dial_echo: DialEcho, publisher: Publisher
) -> None:
    ali = await dial_echo("ali", "reverb")
    await echo_joined(ali, "public", "news")
    await echo_joined(ali, "public", "last", events=[".last"])
    public = {"type": "public", "channel": "news"}
    await ali.call("act", method="listen", args=["news", ".e"], name="listening")
    await ali.call("act", **public, method="on", args=["e"], name="on")
    await ali.call("act", **public, method="listenToAll", name="all")

    async def called() -> set[str]:
        await publisher.trigger("news", "e", 1)
        await publisher.trigger("last", "last", 1)
        await ali.heard("event", event=".last")
        names = {found["name"] for found in ali.unheard("called")}
        for name in names:
            await ali.heard("called", name=name)
        return names

    assert await called() == {"listening", "on", "all"}
    await ali.call("act", **public, method="stopListening", args=[".e"], name="listening")
    assert await called() == {"on", "all"}
    await ali.call("act", **public, method="stopListening", args=[".e"])
    assert await called() == {"all"}
    # Given the callback, Echo finds nothing: it has bound one of its own.
    await ali.call("act", **public, method="stopListeningToAll")
    assert await called() == set()


async def test_echo_leaves_one_channel_and_all(server: Server, dial_echo: DialEcho) -> None:
    ali = await dial_echo("ali", "reverb")
    for type_, channel in (("public", "one"), ("private", "two"), ("presence", "three")):
        await echo_joined(ali, type_, channel)
    (hub,) = server._hubs.values()
    assert set(hub.channels) == {"one", "private-two", "presence-three"}
    await ali.call("act", method="leaveChannel", args=["private-two"])
    await until(lambda: set(hub.channels) == {"one", "presence-three"})
    await ali.call("act", method="leaveAllChannels")
    await until(lambda: not hub.channels)


async def test_echo_is_notified(dial_echo: DialEcho, publisher: Publisher) -> None:
    ali = await dial_echo("ali", "reverb")
    await echo_joined(ali, "private", "App.Models.User.1", events=[".last"])
    private = {"type": "private", "channel": "App.Models.User.1"}
    created = "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated"
    await ali.call("act", **private, method="notification", name="notified")
    await publisher.trigger("private-App.Models.User.1", created, {"id": "n1"})
    assert (await ali.heard("called", name="notified"))["words"][0] == {"id": "n1"}
    await ali.call("act", **private, method="stopListeningForNotification", name="notified")
    await publisher.trigger("private-App.Models.User.1", created, {"id": "n2"})
    await publisher.trigger("private-App.Models.User.1", "last", 1)
    await ali.heard("event", event=".last")
    assert ali.unheard("called") == []


async def test_echo_stops_listening_for_a_whisper(dial_echo: DialEcho) -> None:
    ali, john = await dial_echo("ali", "reverb"), await dial_echo("john", "reverb")
    for client in (ali, john):
        await echo_joined(client, "private", "room", whispers=["last"])
    room = {"type": "private", "channel": "room"}
    await john.call("act", **room, method="listenForWhisper", args=["typing"], name="typing")
    await ali.call("whisper", **room, event="typing", data={"n": 1})
    assert (await john.heard("called", name="typing"))["words"][0] == {"n": 1}
    await john.call("act", **room, method="stopListeningForWhisper", args=["typing"])
    await ali.call("whisper", **room, event="typing", data={"n": 2})
    await ali.call("whisper", **room, event="last", data={})
    await john.heard("whisper", event="last")
    assert john.unheard("called") == []


async def test_echo_signs_in(server: Server, dial_echo: DialEcho) -> None:
    ali = await dial_echo("ali", "reverb")
    await ali.call("sign_in")
    await until(lambda: next(iter(server._hubs.values())).users.is_here("ali"))

"""pusher-js 8.6, events from npm `pusher` 5.3 and PyPI `pusher` 3.3, and our server between."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App
from tests.conftest import Serve
from tests.server.wire import until

from .conftest import (
    APP,
    AuthEndpoint,
    Dial,
    Doorman,
    JsClient,
    Library,
    NpmPusher,
    pusher_js_options,
)
from .node import Node

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGE = {"id": 7, "text": "дело 🎉 \u2028", "nested": {"list": [1, None, 2.5]}}


async def subscribed(client: JsClient, channel: str, *events: str) -> Any:
    """Subscribe, and wait for the success; its data."""
    await client.call("subscribe", channel=channel, events=events)
    answer = await client.heard("channel", channel=channel, event="pusher:subscription_succeeded")
    return answer["data"]


# Connecting


async def test_it_connects_and_knows_its_socket_id(server: Server, dial: Dial) -> None:
    ali = await dial("ali", wait=False)
    state = await ali.heard("state", current="connected")
    assert state["previous"] == "connecting"
    (hub,) = server._hubs.values()
    assert list(hub.sockets) == [state["socket_id"]]
    assert ali.unheard("error") == []


async def test_it_connects_behind_a_path_prefix(serve: Serve, dial: Dial) -> None:
    server = await serve(APP, path="/chat/ws")
    await dial("ali", to=server.settings())


async def test_its_own_pings_are_answered(serve: Serve, dial: Dial) -> None:
    server = await serve(App(id="1", key="k", secret="s", activity_timeout=1))
    (hub,) = server._hubs.values()
    ali = await dial("ali", to=server.settings())
    session = hub.sockets[ali.socket_id]
    greeted = session.protocol._last_heard  # type: ignore[attr-defined]
    # After a second of silence it pings; unanswered it would dial anew.
    await until(lambda: session.protocol._last_heard > greeted)  # type: ignore[attr-defined]
    again = session.protocol._last_heard  # type: ignore[attr-defined]
    await until(lambda: session.protocol._last_heard > again)  # type: ignore[attr-defined]
    assert list(hub.sockets) == [ali.socket_id]


async def test_it_answers_the_servers_pings(
    serve: Serve, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("antiphon.server.session.time", clock)
    monkeypatch.setattr("antiphon.server.liveness.time", clock)
    server = await serve(App(id="1", key="k", secret="s", activity_timeout=120))
    (hub,) = server._hubs.values()
    ali = await dial("ali", to=server.settings())
    protocol = hub.sockets[ali.socket_id].protocol  # type: ignore[attr-defined]
    clock.now += 120
    server._liveness.sweep(clock.now)
    clock.now += 1
    await until(lambda: protocol._last_heard == clock.now)
    clock.now += 40
    server._liveness.sweep(clock.now)
    assert list(hub.sockets) == [ali.socket_id]


class Clock:
    """Stands in for the `time` module."""

    def __init__(self) -> None:
        self.now = 1e6

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


async def test_at_a_wrong_key_it_gives_up_after_one_dial(
    server: Server, endpoint: AuthEndpoint
) -> None:
    async with Doorman(server.port) as doorman, Node("pusher_client.js") as program:
        ali = JsClient(program, "ali")
        options = pusher_js_options(server.settings(), endpoint, "ali", wsPort=doorman.port)
        await ali.call("connect", key="nobody", options=options)
        error = (await ali.heard("error"))["error"]["error"]
        assert error["data"] == {"code": 4001, "message": "Application does not exist"}
        await ali.heard("state", current="disconnected")
        # Had it a timer left to dial again, node would not end.
        assert await program.ended() == 0
        assert doorman.count == 1


async def test_over_quota_it_gives_up_too(serve: Serve, endpoint: AuthEndpoint) -> None:
    server = await serve(App(id="1", key="k", secret="s", max_connections=1))
    async with Doorman(server.port) as doorman, Node("pusher_client.js") as program:
        first, second = JsClient(program, "first"), JsClient(program, "second")
        for client in (first, second):
            options = pusher_js_options(server.settings(), endpoint, "ali", wsPort=doorman.port)
            await client.call("connect", key="k", options=options)
            if client is first:
                await first.connected()
        error = (await second.heard("error"))["error"]["error"]
        assert error["data"]["code"] == 4004
        await second.heard("state", current="disconnected")
        await first.call("disconnect")
        assert await program.ended() == 0
        assert doorman.count == 2


# Events


async def test_an_event_arrives_as_it_was_published(dial: Dial, library: Library) -> None:
    ali = await dial("ali")
    await subscribed(ali, "news", "message", "text")
    await library.trigger("news", "message", MESSAGE)
    assert (await ali.heard("event", event="message"))["data"] == MESSAGE
    await library.trigger("news", "text", "plain text")
    assert (await ali.heard("event", event="text"))["data"] == "plain text"


@pytest.mark.parametrize("channel", ["news", "private-room", "presence-room"])
async def test_every_kind_of_channel_gets_events(
    dial: Dial, library: Library, channel: str
) -> None:
    ali, john = await dial("ali"), await dial("john")
    await subscribed(ali, channel, "e")
    await subscribed(john, channel, "e")
    await library.trigger(channel, "e", {"n": 1})
    for client in (ali, john):
        heard = await client.heard("event")
        assert (heard["channel"], heard["event"], heard["data"]) == (channel, "e", {"n": 1})


async def test_one_event_goes_to_several_channels(dial: Dial, library: Library) -> None:
    ali = await dial("ali")
    await subscribed(ali, "a", "e")
    await subscribed(ali, "private-b", "e")
    await library.trigger(["a", "private-b", "empty"], "e", 1)
    assert [(await ali.heard("event"))["channel"] for _ in range(2)] == ["a", "private-b"]


async def test_a_batch_arrives_in_order(dial: Dial, library: Library) -> None:
    ali = await dial("ali")
    await subscribed(ali, "a", "first", "third")
    await subscribed(ali, "b", "second")
    await library.trigger_batch(
        [
            {"channel": "a", "name": "first", "data": {"n": 1}},
            {"channel": "b", "name": "second", "data": {"n": 2}},
            {"channel": "a", "name": "third", "data": "three"},
        ]
    )
    heard = [await ali.heard("event") for _ in range(3)]
    assert [(h["channel"], h["event"], h["data"]) for h in heard] == [
        ("a", "first", {"n": 1}),
        ("b", "second", {"n": 2}),
        ("a", "third", "three"),
    ]


async def test_the_sender_is_left_out(dial: Dial, library: Library) -> None:
    ali, john = await dial("ali"), await dial("john")
    for client in (ali, john):
        await subscribed(client, "private-room", "e", "b", "end")
    await library.trigger("private-room", "e", 1, socket_id=ali.socket_id)
    await library.trigger_batch(
        [
            {"channel": "private-room", "name": "b", "data": 1, "socket_id": ali.socket_id},
            {"channel": "private-room", "name": "end", "data": 1},
        ]
    )
    assert [(await john.heard("event"))["event"] for _ in range(3)] == ["e", "b", "end"]
    assert (await ali.heard("event"))["event"] == "end", "and nothing before it"


async def test_after_unsubscribing_nothing_more_arrives(dial: Dial, library: Library) -> None:
    ali = await dial("ali")
    await subscribed(ali, "news", "e")
    await subscribed(ali, "weather", "e")
    await ali.call("unsubscribe", channel="news")
    await until_unoccupied(library, "news")
    await library.trigger(["news", "weather"], "e", 1)
    assert (await ali.heard("event"))["channel"] == "weather"
    await subscribed(ali, "news", "e")


async def until_unoccupied(library: Library, channel: str) -> None:
    while (await library.channel_info(channel, []))["occupied"]:
        pass


async def test_events_are_encrypted_from_end_to_end(dial: Dial, library: Library) -> None:
    ali, eve = await dial("ali"), await dial("eve")
    await subscribed(ali, "private-encrypted-room", "e")
    await library.trigger("private-encrypted-room", "e", MESSAGE)
    assert (await ali.heard("event"))["data"] == MESSAGE
    assert eve.unheard("event") == []


# Authorization


async def test_a_private_channel_is_authorized_with_the_socket_id(
    dial: Dial, endpoint: AuthEndpoint
) -> None:
    ali = await dial("ali")
    await subscribed(ali, "private-room")
    assert endpoint.asked == [("ali", ali.socket_id, "private-room")]


@pytest.mark.parametrize(("user", "status"), [("ali", 403), ("", 401)])
async def test_what_the_endpoint_refuses_is_no_subscription(
    dial: Dial, library: Library, user: str, status: int
) -> None:
    ali = await dial(user, name="ali")
    await ali.call("subscribe", channel="private-forbidden", events=["e"])
    refused = await ali.heard("channel", event="pusher:subscription_error")
    assert refused["data"]["status"] == status
    assert await library.channel_info("private-forbidden", []) == {"occupied": False}


async def test_a_signature_that_is_wrong_is_no_subscription(
    serve: Serve, dial: Dial, library: Library
) -> None:
    """The endpoint signs with another secret than the server checks with."""
    server = await serve(App(id="1", key="k", secret="another"))
    ali = await dial("ali", to=server.settings())
    for channel in ("private-room", "presence-room"):
        await ali.call("subscribe", channel=channel, events=[])
        refused = await ali.heard("channel", channel=channel, event="pusher:subscription_error")
        assert refused["data"]["status"] == 401
    assert await ali.call("state") == "connected"


# Client events


async def test_a_client_event_reaches_the_others_and_not_its_sender(
    dial: Dial, library: Library
) -> None:
    ali, john, eve = await dial("ali"), await dial("john"), await dial("eve")
    for client in (ali, john, eve):
        await subscribed(client, "private-room", "client-typing", "end")
    await ali.call("trigger", channel="private-room", event="client-typing", data=MESSAGE)
    for client in (john, eve):
        heard = await client.heard("event", event="client-typing")
        assert (heard["data"], heard["user_id"]) == (MESSAGE, None)
    await library.trigger("private-room", "end", 1)
    assert (await ali.heard("event"))["event"] == "end", "and nothing before it"


async def test_on_a_presence_channel_the_others_are_told_who_sent_it(dial: Dial) -> None:
    ali, john = await dial("ali"), await dial("john")
    for client in (ali, john):
        await subscribed(client, "presence-room", "client-typing")
    await ali.call("trigger", channel="presence-room", event="client-typing", data={})
    assert (await john.heard("event"))["user_id"] == "ali"
    assert ali.unheard("event") == []


async def test_a_client_event_that_is_refused_is_an_error_and_the_connection_stays(
    serve: Serve, dial: Dial
) -> None:
    server = await serve(App(id="1", key="k", secret="s", client_events=False))
    ali = await dial("ali", to=server.settings())
    await subscribed(ali, "private-room")
    await ali.call("trigger", channel="private-room", event="client-typing", data={})
    assert (await ali.heard("error"))["error"]["data"]["code"] == 4301
    assert await ali.call("state") == "connected"


# Presence


async def test_members_are_seen_coming_and_going(dial: Dial) -> None:
    ali, john = await dial("ali"), await dial("john")
    assert await subscribed(ali, "presence-room") == {
        "count": 1,
        "me": "ali",
        "members": {"ali": {"name": "Ali"}},
    }
    everyone = {"ali": {"name": "Ali"}, "john": {"name": "John"}}
    assert await subscribed(john, "presence-room") == {
        "count": 2,
        "me": "john",
        "members": everyone,
    }
    added = await ali.heard("channel", event="pusher:member_added")
    assert added["data"] == {"id": "john", "info": {"name": "John"}}
    assert await ali.call("members", channel="presence-room") == {
        "count": 2,
        "me": "ali",
        "members": everyone,
    }
    await john.call("unsubscribe", channel="presence-room")
    removed = await ali.heard("channel", event="pusher:member_removed")
    assert removed["data"] == {"id": "john", "info": {"name": "John"}}
    assert (await ali.call("members", channel="presence-room"))["count"] == 1


async def test_a_user_with_two_connections_comes_once_and_goes_with_the_last(dial: Dial) -> None:
    ali = await dial("ali")
    phone, laptop = await dial("john", name="phone"), await dial("john", name="laptop")
    await subscribed(ali, "presence-room")
    await subscribed(phone, "presence-room")
    await ali.heard("channel", event="pusher:member_added")
    assert (await subscribed(laptop, "presence-room"))["count"] == 2
    await phone.call("disconnect")
    await phone.heard("state", current="disconnected")
    third = await dial("third")
    await subscribed(third, "presence-room")
    added = await ali.heard("channel", event="pusher:member_added")
    assert added["data"]["id"] == "third"
    assert ali.unheard("channel", event="pusher:member_removed") == []
    assert ali.unheard("channel", event="pusher:member_added") == []
    await laptop.call("disconnect")
    removed = await ali.heard("channel", event="pusher:member_removed")
    assert removed["data"]["id"] == "john"


# Users


async def test_a_signed_in_user_gets_what_is_sent_to_the_user(
    server: Server, dial: Dial, npm_pusher: NpmPusher, endpoint: AuthEndpoint
) -> None:
    ali, phone, john = await dial("ali"), await dial("ali", name="phone"), await dial("john")
    for client in (ali, phone, john):
        await client.call("signin")
        await client.heard("global", event="pusher:signin_success")
    assert await ali.call("signed_in") == "ali"
    assert endpoint.asked[0] == ("ali", ali.socket_id, "")
    (hub,) = server._hubs.values()
    await until(
        lambda: (
            {name: len(channel.subscribers) for name, channel in hub.channels.items()}
            == {"#server-to-user-ali": 2, "#server-to-user-john": 1}
        )
    )
    await npm_pusher.send_to_user("ali", "note", MESSAGE)
    await npm_pusher.send_to_user("john", "note", "for John")
    for client in (ali, phone):
        assert (await client.heard("user", event="note"))["data"] == MESSAGE
    assert (await john.heard("user", event="note"))["data"] == "for John"


@pytest.mark.parametrize("user", ["nobody", "forger"])
async def test_a_sign_in_that_is_refused_is_told(dial: Dial, user: str) -> None:
    ali = await dial(user, name="ali")
    await ali.call("signin")
    if user == "nobody":
        refused = await ali.heard("user", event="pusher:signin_error")
        assert refused["data"]["status"] == 403
    else:
        assert (await ali.heard("error"))["error"]["data"]["code"] == 4009
    assert await ali.call("signed_in") is None


async def test_whom_one_watches_is_seen_coming_and_going(
    dial: Dial, endpoint: AuthEndpoint
) -> None:
    endpoint.watchlists["ali"] = ["john", "eve"]
    john = await dial("john")
    await john.call("signin")
    await john.heard("global", event="pusher:signin_success")
    ali = await dial("ali")
    await ali.call("signin")
    assert (await ali.heard("watchlist", event="online"))["data"]["user_ids"] == ["john"]
    assert (await ali.heard("watchlist", event="offline"))["data"]["user_ids"] == ["eve"]
    await john.call("disconnect")
    assert (await ali.heard("watchlist", event="offline"))["data"]["user_ids"] == ["john"]


async def test_who_is_signed_in_joins_a_presence_channel_under_that_name(dial: Dial) -> None:
    ali = await dial("ali")
    await ali.call("signin")
    await ali.heard("global", event="pusher:signin_success")
    assert await subscribed(ali, "presence-nameless") == {
        "count": 1,
        "me": "ali",
        "members": {"ali": {"name": "Ali"}},
    }


async def test_a_users_connections_are_ended_and_stay_so(dial: Dial, library: Library) -> None:
    ali, john = await dial("ali"), await dial("john")
    for client in (ali, john):
        await client.call("signin")
        await client.heard("global", event="pusher:signin_success")
    await library.terminate("ali")
    # 4009 is among the codes after which it does not connect again.
    await ali.heard("state", current="disconnected")
    assert await john.call("state") == "connected"


# What the server tells by itself


async def test_a_cache_channel_gives_the_last_event_or_says_that_there_is_none(
    dial: Dial, library: Library
) -> None:
    ali = await dial("ali")
    name = f"private-cache-{type(library).__name__}"
    await subscribed(ali, name, "e")
    await ali.heard("channel", channel=name, event="pusher:cache_miss")
    await library.trigger(name, "e", MESSAGE)
    john = await dial("john")
    await subscribed(john, name, "e")
    assert (await john.heard("event", channel=name, event="e"))["data"] == MESSAGE


async def test_subscribers_are_told_how_many_they_are(serve: Serve, dial: Dial) -> None:
    server = await serve(msgspec.structs.replace(APP, subscription_counts=True))
    ali = await dial("ali", to=server.settings())
    await subscribed(ali, "news")
    event = "pusher:subscription_count"
    told = await ali.heard("channel", channel="news", event=event)
    assert told["data"] == {"subscription_count": 1}
    john = await dial("john", to=server.settings())
    await subscribed(john, "news")
    told = await ali.heard("channel", channel="news", event=event)
    assert told["data"] == {"subscription_count": 2}


# Reconnecting


async def test_after_a_restart_it_comes_back_and_is_authorized_anew(
    endpoint: AuthEndpoint, port: int
) -> None:
    server = Server(APP, port=port)
    await server.start()
    (hub,) = server._hubs.values()
    async with Node("pusher_client.js", speed=20) as program:
        try:
            ali = JsClient(program, "ali")
            options = pusher_js_options(server.settings(), endpoint, "ali")
            await ali.call("connect", key="k", options=options)
            await ali.connected()
            await ali.call("signin")
            await until(lambda: "#server-to-user-ali" in hub.channels)
            await subscribed(ali, "private-room", "e")
            await subscribed(ali, "presence-room", "e")
            before = ali.socket_id
            endpoint.asked.clear()
            await server.stop()
            # `connecting` at once: 4200 says so.
            await ali.heard("state", previous="connected", current="connecting")
            await server.start()
            await ali.connected()
            assert ali.socket_id != before
            for channel in ("private-room", "presence-room"):
                await ali.heard("channel", channel=channel, event="pusher:subscription_succeeded")
            await until(lambda: "#server-to-user-ali" in hub.channels)
            assert sorted(endpoint.asked) == [
                ("ali", ali.socket_id, ""),
                ("ali", ali.socket_id, "presence-room"),
                ("ali", ali.socket_id, "private-room"),
            ]
            async with Publisher(server.settings()) as publisher:
                await publisher.trigger("private-room", "e", MESSAGE)
            assert (await ali.heard("event"))["data"] == MESSAGE
        finally:
            await server.stop()

"""What is asked of the server for each channel, and what its answers come to."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from antiphon.client import ChannelState, PresenceChannel, Subscribed
from antiphon.errors import (
    AuthorizationFailed,
    ClientClosed,
    InvalidName,
    SubscriptionFailed,
)
from antiphon.protocol.frames import Event
from tests.server.wire import until

from .linked import Signer, impatient, join, linked, meet, soon, watch
from .peer import Dial, Peer, polite


def events_of(seen: list[Any]) -> list[tuple[str, str | None, Any]]:
    return [(o.name, o.channel, o.data) for o in seen if isinstance(o, Event)]


def failures_of(seen: list[Any]) -> list[SubscriptionFailed]:
    return [o for o in seen if isinstance(o, SubscriptionFailed)]


# Asking


async def test_a_public_channel_is_asked_for_without_a_signature() -> None:
    async with linked() as (client, dial, _):
        channel = client.subscribe("news")
        assert channel.state is ChannelState.PENDING
        assert await dial.subscribe() == {"channel": "news"}
        await channel.subscribed(5)


async def test_a_private_channel_is_asked_for_with_a_signature_for_this_socket() -> None:
    signer = Signer()
    async with linked(authorizer=signer) as (client, dial, _):
        channel = client.subscribe("private-x")
        assert await dial.subscribe() == {
            "channel": "private-x",
            "auth": f"k:signed-{client.socket_id}-private-x",
        }
        await channel.subscribed(5)
        assert signer.asked == [("private-x", client.socket_id)]


async def test_a_presence_channel_is_asked_for_with_its_user_exactly_as_signed() -> None:
    signed = '{ "user_id" : 7,"user_info":{"name":"J\\u00fcrgen"} }'
    async with linked(authorizer=Signer(signed)) as (client, dial, _):
        channel = client.subscribe("presence-x")
        assert isinstance(channel, PresenceChannel)
        assert (await dial.subscribe(accept=False))["channel_data"] == signed
        dial.accept("presence-x", {"presence": {"ids": [7], "hash": {"7": None}, "count": 1}})
        await channel.subscribed(5)
        assert channel.members.my_id == "7"
        assert channel.members.me is not None


async def test_channels_held_before_there_is_a_connection_are_asked_for_when_it_stands() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        names = ["one", "two", "three"]
        channels = [client.subscribe(name) for name in names]
        assert {channel.state for channel in channels} == {ChannelState.PENDING}
        dial = await meet(client, peer)
        assert [(await dial.subscribe())["channel"] for _ in names] == names
        for channel in channels:
            await channel.subscribed(5)
        closing = asyncio.ensure_future(client.close())
        await dial.hang_up()
        await soon(closing)


async def test_a_name_that_no_channel_can_have_is_refused_and_not_kept() -> None:
    async with linked(authorizer=Signer()) as (client, _, _):
        for name in ("", "with space", "ünï", "x" * 201, "private-a/b"):
            with pytest.raises(InvalidName):
                client.subscribe(name)
        assert client.channels == {}


async def test_a_signed_channel_without_anyone_to_sign_is_refused_at_once() -> None:
    async with linked() as (client, _, _):
        for name in ("private-x", "presence-x", "private-encrypted-x"):
            with pytest.raises(SubscriptionFailed, match="needs a signature") as caught:
                client.subscribe(name)
            assert caught.value.channel == name
        assert client.channels == {}


async def test_the_order_of_subscribes_is_kept_where_signatures_come_at_once() -> None:
    async with linked(authorizer=Signer()) as (client, dial, _):
        names = [f"private-{n}" for n in range(40)]
        for name in names:
            client.subscribe(name)
        assert [(await dial.subscribe())["channel"] for _ in names] == names


# Holding and leaving


async def test_who_subscribes_again_gets_the_same_channel_and_the_wire_sees_one_of_each() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        assert client.subscribe("news") is channel
        assert client.channel("news") is channel
        channel.unsubscribe()
        assert channel.is_subscribed, "the other hold is still there"
        channel.unsubscribe()
        assert channel.state is ChannelState.UNSUBSCRIBED
        assert client.channel("news") is None
        assert await dial.message() == {
            "event": "pusher:unsubscribe",
            "data": {"channel": "news"},
        }
        client.subscribe("other")
        assert (await dial.subscribe())["channel"] == "other", "nothing came in between"


async def test_giving_back_more_than_was_taken_harms_nobody() -> None:
    async with linked() as (client, dial, _):
        first = await join(client, dial, "news")
        first.unsubscribe()
        await dial.event("pusher:unsubscribe")
        second = await join(client, dial, "news")
        first.unsubscribe()
        assert second.is_subscribed
        assert client.channel("news") is second


async def test_a_channel_that_was_left_can_be_joined_again_with_nothing_of_before() -> None:
    async with linked() as (client, dial, _):
        got: list[Event] = []
        first = await join(client, dial, "news")
        first.bind("e", got.append)
        first.unsubscribe()
        await dial.event("pusher:unsubscribe")
        second = await join(client, dial, "news")
        assert second is not first
        waiter = asyncio.ensure_future(second.wait_for("e"))
        await asyncio.sleep(0)
        dial.send("e", 1, "news")
        await soon(waiter)
        assert got == []


async def test_leaving_while_the_answer_is_on_its_way_is_honoured() -> None:
    async with linked() as (client, dial, _):
        seen = watch(client)
        channel = client.subscribe("news")
        waiting = asyncio.ensure_future(channel.subscribed())
        await dial.subscribe(accept=False)
        channel.unsubscribe()
        with pytest.raises(ClientClosed):
            await soon(waiting)
        assert await dial.event("pusher:unsubscribe") == {"channel": "news"}
        dial.accept("news")
        dial.send("pusher:ping")
        await dial.event("pusher:pong")
        assert channel.state is ChannelState.UNSUBSCRIBED
        assert Subscribed("news") not in seen


async def test_leaving_while_the_signature_is_made_asks_the_server_for_nothing() -> None:
    signer = Signer()
    signer.free.clear()
    async with linked(authorizer=signer) as (client, dial, _):
        channel = client.subscribe("private-x")
        await until(lambda: signer.at_once)
        channel.unsubscribe()
        signer.free.set()
        await until(lambda: not signer.at_once)
        client.subscribe("news")
        messages = [await dial.message()]
        while messages[-1]["data"]["channel"] != "news":
            messages.append(await dial.message())
        assert "pusher:subscribe" not in [m["event"] for m in messages[:-1]]


async def test_leaving_and_coming_back_while_the_signature_is_made_asks_once() -> None:
    signer = Signer()
    signer.free.clear()
    async with linked(authorizer=signer) as (client, dial, _):
        client.subscribe("private-x").unsubscribe()
        channel = client.subscribe("private-x")
        signer.free.set()
        await until(lambda: signer.asked and not signer.at_once)
        message = await dial.message()
        if message["event"] == "pusher:unsubscribe":
            message = await dial.message()
        assert message["event"] == "pusher:subscribe"
        dial.accept("private-x")
        await channel.subscribed(5)
        dial.send("pusher:ping")
        assert (await dial.message())["event"] == "pusher:pong", "nothing is asked for twice"


async def test_leaving_without_a_connection_needs_none() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings())
        client.subscribe("news").unsubscribe()
        assert client.channels == {}
        await client.close()


# Refusals


async def test_a_channel_the_authorizer_refuses_fails_alone() -> None:
    signer = Signer()
    signer.refuse("private-x")
    async with linked(authorizer=signer) as (client, dial, _):
        seen = watch(client)
        bad = client.subscribe("private-x")
        good = client.subscribe("private-y")
        assert (await dial.subscribe())["channel"] == "private-y"
        await good.subscribed(5)
        with pytest.raises(AuthorizationFailed) as caught:
            await bad.subscribed(5)
        assert bad.state is ChannelState.FAILED
        assert bad.error is caught.value
        assert failures_of(seen) == [caught.value], "told once"
        assert (
            "pusher:subscription_error",
            "private-x",
            {"type": "AuthorizationFailed", "error": "private-x is not yours.", "status": None},
        ) in events_of(seen)


async def test_an_authorizer_that_breaks_is_a_failure_of_its_channel_and_no_more() -> None:
    signer = Signer()
    signer.errors["private-x"] = ZeroDivisionError("in the authorizer")
    async with linked(authorizer=signer) as (client, dial, _):
        bad = client.subscribe("private-x")
        with pytest.raises(SubscriptionFailed, match="ZeroDivisionError") as caught:
            await bad.subscribed(5)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert caught.value.channel == "private-x"
        await join(client, dial, "private-y")


async def test_an_authorizer_that_is_cancelled_from_within_is_a_failure_of_its_channel() -> None:
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()

    class Breaking(Signer):
        async def authorize(self, channel: str, socket_id: str) -> Any:
            if channel == "private-x":
                await cancelled
            return await super().authorize(channel, socket_id)

    async with linked(authorizer=Breaking()) as (client, dial, _):
        bad = client.subscribe("private-x")
        with pytest.raises(SubscriptionFailed):
            await bad.subscribed(2)
        await join(client, dial, "private-y")


async def test_a_channel_the_server_refuses_fails_alone() -> None:
    async with linked(authorizer=Signer()) as (client, dial, _):
        seen = watch(client)
        bad = client.subscribe("private-x")
        await dial.subscribe(accept=False)
        data = {"type": "AuthError", "error": "The signature is not valid", "status": 401}
        dial.send("pusher:subscription_error", data, "private-x")
        with pytest.raises(SubscriptionFailed, match="The signature is not valid") as caught:
            await bad.subscribed(5)
        assert caught.value.code == 401
        assert [name for name, _, _ in events_of(seen)] == ["pusher:subscription_error"]
        await join(client, dial, "private-y")


async def test_a_refused_channel_is_left_without_telling_the_server() -> None:
    signer = Signer()
    signer.refuse("private-x")
    async with linked(authorizer=signer) as (client, dial, _):
        bad = client.subscribe("private-x")
        with pytest.raises(AuthorizationFailed):
            await bad.subscribed(5)
        bad.unsubscribe()
        client.subscribe("news")
        assert (await dial.subscribe())["channel"] == "news"


async def test_a_refusal_of_a_channel_that_was_left_is_nobodys_business() -> None:
    async with linked() as (client, dial, _):
        seen = watch(client)
        channel = client.subscribe("news")
        await dial.subscribe(accept=False)
        channel.unsubscribe()
        await dial.event("pusher:unsubscribe")
        dial.send("pusher:subscription_error", {"error": "no", "status": 401}, "news")
        dial.send("pusher:ping")
        await dial.event("pusher:pong")
        assert failures_of(seen) == []


# The next connection


async def test_every_channel_is_asked_for_again_with_a_signature_for_the_new_socket() -> None:
    signer = Signer()
    async with linked(authorizer=signer) as (client, dial, peer):
        seen = watch(client)
        names = ["private-x", "news", "presence-y"]
        channels = [await join(client, dial, name) for name in names]
        first = client.socket_id
        await dial.hang_up()
        again = await peer.dial()
        await until(lambda: {c.state for c in channels} == {ChannelState.PENDING})
        second = await again.greet()
        asked = [await again.subscribe() for _ in names]
        assert sorted(data["channel"] for data in asked) == sorted(names)
        for data in asked:
            if data["channel"] != "news":
                assert data["auth"] == f"k:signed-{second}-{data['channel']}"
        for channel in channels:
            await channel.subscribed(5)
        assert second != first
        assert signer.asked == [
            ("private-x", first),
            ("presence-y", first),
            ("private-x", second),
            ("presence-y", second),
        ]
        assert [o.channel for o in seen if isinstance(o, Subscribed)].count("news") == 2


async def test_a_signature_that_comes_too_late_is_not_used_on_the_next_connection() -> None:
    signer = Signer()
    async with linked(authorizer=signer) as (client, dial, peer):
        signer.free.clear()
        channel = client.subscribe("private-x")
        await until(lambda: signer.at_once == 1)
        await dial.hang_up()
        again = await peer.dial()
        second = await again.greet()
        await until(lambda: len(signer.asked) == 2)
        signer.free.set()
        data = await again.subscribe()
        assert data["auth"] == f"k:signed-{second}-private-x"
        await channel.subscribed(5)
        again.send("pusher:ping")
        await again.event("pusher:pong")


async def test_signatures_nobody_needs_any_more_do_not_hold_up_the_next_connection() -> None:
    stuck = asyncio.Event()

    class Slow(Signer):
        async def authorize(self, channel: str, socket_id: str) -> Any:
            if socket_id == "1.1":
                self.asked.append((channel, socket_id))
                await stuck.wait()
            return await super().authorize(channel, socket_id)

    signer = Slow()
    async with linked(authorizer=signer) as (client, dial, peer):
        for n in range(16):
            client.subscribe(f"private-{n}")
        await until(lambda: len(signer.asked) == 16)
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        try:
            async with asyncio.timeout(2):
                await again.subscribe()
        finally:
            stuck.set()


async def test_a_channel_that_was_refused_is_tried_again_on_the_next_connection() -> None:
    signer = Signer()
    signer.refuse("private-x")
    async with linked(authorizer=signer) as (client, dial, peer):
        channel = client.subscribe("private-x")
        with pytest.raises(AuthorizationFailed):
            await channel.subscribed(5)
        signer.errors.clear()
        await dial.hang_up()
        again = await peer.dial()
        await until(lambda: channel.state is ChannelState.PENDING)
        assert channel.error is None
        await again.greet()
        await again.subscribe()
        await channel.subscribed(5)


async def test_a_channel_that_was_refused_is_tried_again_when_it_is_asked_for_again() -> None:
    signer = Signer()
    signer.refuse("private-x")
    async with linked(authorizer=signer) as (client, dial, _):
        channel = client.subscribe("private-x")
        with pytest.raises(AuthorizationFailed):
            await channel.subscribed(5)
        signer.errors.clear()
        assert client.subscribe("private-x") is channel
        await dial.subscribe()
        await channel.subscribed(5)


async def test_handlers_outlive_the_connection() -> None:
    async with linked() as (client, dial, peer):
        got: list[Any] = []
        channel = await join(client, dial, "news")
        channel.bind("e", lambda e: got.append(e.data))
        dial.send("e", 1, "news")
        await until(lambda: got == [1])
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        await again.subscribe()
        again.send("e", 2, "news")
        await until(lambda: got == [1, 2])


async def test_a_channel_left_between_two_connections_is_not_asked_for_again() -> None:
    async with linked() as (client, dial, peer):
        channel = await join(client, dial, "news")
        await join(client, dial, "other")
        await dial.hang_up()
        again = await peer.dial()
        channel.unsubscribe()
        await again.greet()
        assert (await again.subscribe())["channel"] == "other"


async def test_a_thousand_channels_come_back() -> None:
    signer = Signer()
    first: list[Dial] = []

    async def script(dial: Dial) -> None:
        if not first:
            first.append(dial)
        await polite(dial)

    async with Peer(script) as peer, impatient(peer.settings(), authorizer=signer) as client:
        names = [f"{'private-' if n % 2 else ''}{n}" for n in range(1000)]
        channels = [client.subscribe(name) for name in names]
        for channel in channels:
            await channel.subscribed(5)
        first[0].abort()
        await until(lambda: not channels[-1].is_subscribed)
        for channel in channels:
            await channel.subscribed(5)
        assert signer.most_at_once <= 16
        assert len(signer.asked) == 1000


# What the server says of channels


async def test_a_subscription_is_told_before_its_event() -> None:
    async with linked() as (client, dial, _):
        seen = watch(client)
        got: list[Event] = []
        channel = client.subscribe("news")
        channel.bind("pusher:subscription_succeeded", got.append)
        await dial.subscribe()
        await channel.subscribed(5)
        kinds = [o for o in seen if isinstance(o, Subscribed | Event)]
        assert kinds[0] == Subscribed("news")
        assert kinds[1] == got[0]
        assert got[0].channel == "news"


async def test_members_who_come_and_go_are_told_in_pushers_own_words() -> None:
    me = json.dumps({"user_id": "1"})
    async with linked(authorizer=Signer(me)) as (client, dial, _):
        channel = client.subscribe("presence-x")
        assert isinstance(channel, PresenceChannel)
        got: list[tuple[str, Any]] = []
        channel.bind_all(lambda e: got.append((e.name, e.data)))
        await dial.subscribe(accept=False)
        members = {"ids": ["1", "2"], "hash": {"1": {"name": "Ann"}, "2": None}, "count": 2}
        dial.accept("presence-x", {"presence": members})
        await channel.subscribed(5)
        dial.send("pusher_internal:member_added", {"user_id": 3, "user_info": [1]}, "presence-x")
        dial.send("pusher_internal:member_removed", {"user_id": "2"}, "presence-x")
        dial.send("pusher_internal:member_removed", {"user_id": "99"}, "presence-x")
        await until(lambda: len(got) == 4)
        assert got == [
            ("pusher:subscription_succeeded", {"count": 2, "ids": ["1", "2"]}),
            ("pusher:member_added", {"id": "3", "info": [1]}),
            ("pusher:member_removed", {"id": "2", "info": None}),
            ("pusher:member_removed", {"id": "99", "info": None}),
        ]
        assert [member.id for member in channel.members] == ["1", "3"]
        assert channel.members.me is not None
        assert channel.members.me.info == {"name": "Ann"}


async def test_a_cache_channel_without_an_event_says_so() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "cache-x")
        waiter = asyncio.ensure_future(channel.wait_for("pusher:cache_miss"))
        await asyncio.sleep(0)
        dial.send("pusher:cache_miss", None, "cache-x")
        assert (await soon(waiter)).data is None


async def test_how_many_are_subscribed_is_told_and_kept() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        assert channel.subscription_count is None
        waiter = asyncio.ensure_future(channel.wait_for("pusher:subscription_count"))
        await asyncio.sleep(0)
        data = {"subscription_count": 3}
        dial.send("pusher_internal:subscription_count", data, "news")
        assert (await soon(waiter)).data == data
        assert channel.subscription_count == 3


async def test_what_is_said_of_a_channel_nobody_holds_breaks_nothing() -> None:
    async with linked() as (client, dial, _):
        for name in ("x", "presence-x", "private-x"):
            dial.accept(name)
            dial.send("pusher_internal:member_added", {"user_id": "1"}, name)
            dial.send("pusher_internal:member_removed", {"user_id": "1"}, name)
            dial.send("pusher_internal:subscription_count", {"subscription_count": 3}, name)
            dial.send("pusher:subscription_error", {"error": "no"}, name)
            dial.send("pusher:cache_miss", None, name)
        await join(client, dial, "news")
        assert set(client.channels) == {"news"}

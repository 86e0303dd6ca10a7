"""What is asked of the server for each channel, and what its answers come to."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from antiphon.client import ChannelState, PresenceChannel, Subscribed, subscriptions
from antiphon.errors import (
    AuthorizationFailed,
    AuthServerError,
    AuthTimeout,
    ClientClosed,
    Forbidden,
    InvalidName,
    MalformedAuthResponse,
    SettingsError,
    SubscriptionFailed,
    Unauthorized,
)
from antiphon.protocol.frames import Event
from tests.server.wire import TIMEOUT, until

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
        await channel.subscribed(TIMEOUT)


async def test_a_private_channel_is_asked_for_with_a_signature_for_this_socket() -> None:
    signer = Signer()
    async with linked(authorizer=signer) as (client, dial, _):
        channel = client.subscribe("private-x")
        assert await dial.subscribe() == {
            "channel": "private-x",
            "auth": f"k:signed-{client.socket_id}-private-x",
        }
        await channel.subscribed(TIMEOUT)
        assert signer.asked == [("private-x", client.socket_id)]


async def test_a_presence_channel_is_asked_for_with_its_user_exactly_as_signed() -> None:
    signed = '{ "user_id" : 7,"user_info":{"name":"J\\u00fcrgen"} }'
    async with linked(authorizer=Signer(signed)) as (client, dial, _):
        channel = client.subscribe("presence-x")
        assert isinstance(channel, PresenceChannel)
        assert (await dial.subscribe(accept=False))["channel_data"] == signed
        dial.accept("presence-x", {"presence": {"ids": [7], "hash": {"7": None}, "count": 1}})
        await channel.subscribed(TIMEOUT)
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
            await channel.subscribed(TIMEOUT)
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


async def test_a_channel_is_subscribed_as_what_it_is() -> None:
    async with linked(authorizer=Signer()) as (client, _, _):
        assert client.subscribe("presence-x", PresenceChannel).members.count == 0
        with pytest.raises(InvalidName, match="'private-x' names no PresenceChannel"):
            client.subscribe("private-x", PresenceChannel)
        assert client.channel("private-x") is None


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
        await channel.subscribed(TIMEOUT)
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
        await good.subscribed(TIMEOUT)
        with pytest.raises(AuthorizationFailed) as caught:
            await bad.subscribed(TIMEOUT)
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
            await bad.subscribed(TIMEOUT)
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
            await bad.subscribed(TIMEOUT)
        await join(client, dial, "private-y")


async def test_a_channel_the_server_refuses_fails_alone() -> None:
    async with linked(authorizer=Signer()) as (client, dial, _):
        seen = watch(client)
        bad = client.subscribe("private-x")
        await dial.subscribe(accept=False)
        data = {"type": "AuthError", "error": "The signature is not valid", "status": 401}
        dial.send("pusher:subscription_error", data, "private-x")
        with pytest.raises(SubscriptionFailed, match="The signature is not valid") as caught:
            await bad.subscribed(TIMEOUT)
        assert caught.value.code == 401
        assert [name for name, _, _ in events_of(seen)] == ["pusher:subscription_error"]
        await join(client, dial, "private-y")


async def test_a_refused_channel_is_left_without_telling_the_server() -> None:
    signer = Signer()
    signer.refuse("private-x")
    async with linked(authorizer=signer) as (client, dial, _):
        bad = client.subscribe("private-x")
        with pytest.raises(AuthorizationFailed):
            await bad.subscribed(TIMEOUT)
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
            await channel.subscribed(TIMEOUT)
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
        await channel.subscribed(TIMEOUT)
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
            async with asyncio.timeout(TIMEOUT):
                await again.subscribe()
        finally:
            stuck.set()


async def test_a_channel_that_was_refused_is_tried_again_on_the_next_connection() -> None:
    signer = Signer()
    signer.refuse("private-x")
    async with linked(authorizer=signer) as (client, dial, peer):
        channel = client.subscribe("private-x")
        with pytest.raises(AuthorizationFailed):
            await channel.subscribed(TIMEOUT)
        signer.errors.clear()
        await dial.hang_up()
        again = await peer.dial()
        await until(lambda: channel.state is ChannelState.PENDING)
        assert channel.error is None
        await again.greet()
        await again.subscribe()
        await channel.subscribed(TIMEOUT)


async def test_a_channel_that_was_refused_is_tried_again_when_it_is_asked_for_again() -> None:
    signer = Signer()
    signer.refuse("private-x")
    async with linked(authorizer=signer) as (client, dial, _):
        channel = client.subscribe("private-x")
        with pytest.raises(AuthorizationFailed):
            await channel.subscribed(TIMEOUT)
        signer.errors.clear()
        assert client.subscribe("private-x") is channel
        await dial.subscribe()
        await channel.subscribed(TIMEOUT)


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
            await channel.subscribed(TIMEOUT)
        first[0].abort()
        await until(lambda: not channels[-1].is_subscribed)
        for channel in channels:
            await channel.subscribed(TIMEOUT)
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
        await channel.subscribed(TIMEOUT)
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
        await channel.subscribed(TIMEOUT)
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


# The order of subscribes


class Turns(Signer):
    """Signs each channel when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._free: dict[str, asyncio.Event] = {}

    def turn(self, channel: str) -> asyncio.Event:
        """Set, it lets the channel be signed."""
        return self._free.setdefault(channel, asyncio.Event())

    async def authorize(self, channel: str, socket_id: str) -> Any:
        answer = await super().authorize(channel, socket_id)
        await self.turn(channel).wait()
        return answer


async def quiet(dial: Dial) -> None:
    """The client says nothing but what it is asked."""
    dial.send("pusher:ping")
    assert (await dial.message())["event"] == "pusher:pong"


async def test_the_order_of_subscribes_is_kept_though_signatures_come_back_in_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriptions, "ORDER_PATIENCE", 60.0)
    signer = Turns()
    async with linked(authorizer=signer) as (client, dial, _):
        names = [f"private-{n}" for n in range(5)]
        for name in names:
            client.subscribe(name)
        await until(lambda: len(signer.asked) == 5)
        for name in (names[3], names[1], names[4]):
            signer.turn(name).set()
        await quiet(dial)
        signer.turn(names[0]).set()
        assert [(await dial.subscribe())["channel"] for _ in range(2)] == names[:2]
        await quiet(dial)
        signer.turn(names[2]).set()
        assert [(await dial.subscribe())["channel"] for _ in range(3)] == names[2:]


async def test_a_signature_that_takes_too_long_is_overtaken_and_the_others_keep_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriptions, "ORDER_PATIENCE", 0.02)
    signer = Turns()
    async with linked(authorizer=signer) as (client, dial, _):
        names = [f"private-{n}" for n in range(6)]
        channels = [client.subscribe(name) for name in names]
        await until(lambda: len(signer.asked) == 6)
        for n in (5, 3, 1):
            signer.turn(names[n]).set()
        asked = [(await dial.subscribe())["channel"] for _ in range(3)]
        assert asked == [names[1], names[3], names[5]], "0, 2 and 4 are waited for no longer"
        await quiet(dial)
        signer.turn(names[4]).set()
        assert (await dial.subscribe())["channel"] == names[4]
        signer.turn(names[2]).set()
        signer.turn(names[0]).set()
        assert {(await dial.subscribe())["channel"] for _ in range(2)} == {names[0], names[2]}
        for channel in channels:
            await channel.subscribed(TIMEOUT)


async def test_who_stands_behind_the_last_signed_one_still_keeps_the_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriptions, "ORDER_PATIENCE", 0.02)
    signer = Turns()
    async with linked(authorizer=signer) as (client, dial, _):
        for name in ("private-a", "private-b", "private-c", "private-d"):
            client.subscribe(name)
        signer.turn("private-b").set()
        assert (await dial.subscribe())["channel"] == "private-b"
        monkeypatch.setattr(subscriptions, "ORDER_PATIENCE", 60.0)
        signer.turn("private-d").set()
        await quiet(dial)
        signer.turn("private-c").set()
        assert [(await dial.subscribe())["channel"] for _ in range(2)] == ["private-c", "private-d"]


@pytest.mark.parametrize("how", ["refused", "left"])
async def test_who_is_waited_for_and_drops_out_lets_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(subscriptions, "ORDER_PATIENCE", 60.0)
    signer = Turns()
    async with linked(authorizer=signer) as (client, dial, _):
        if how == "refused":
            signer.refuse("private-a")
            signer.free.clear()
        first = client.subscribe("private-a")
        client.subscribe("private-b")
        signer.turn("private-b").set()
        if how == "refused":
            signer.free.set()
        else:
            await until(lambda: len(signer.asked) == 2)
            await quiet(dial)
            first.unsubscribe()
        message = await dial.message()
        if message["event"] == "pusher:unsubscribe":
            message = await dial.message()
        assert (message["event"], message["data"]["channel"]) == ("pusher:subscribe", "private-b")


async def test_a_public_channel_waits_for_no_signature() -> None:
    signer = Turns()
    async with linked(authorizer=signer) as (client, dial, _):
        client.subscribe("private-x")
        client.subscribe("news")
        assert (await dial.subscribe())["channel"] == "news"
        signer.turn("private-x").set()
        assert (await dial.subscribe())["channel"] == "private-x"


async def test_the_order_is_kept_on_the_next_connection_too() -> None:
    signer = Signer()
    async with linked(authorizer=signer) as (client, dial, peer):
        names = [f"private-{n}" for n in range(10)]
        for name in names:
            await join(client, dial, name)
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        assert [(await again.subscribe())["channel"] for _ in names] == names


# What an authorizer may answer, and raise


@pytest.mark.parametrize("answer", [None, "k:sig", {"auth": "k:sig"}, 1, [], object()])
async def test_an_authorizer_that_answers_something_else_is_a_failure_of_its_channel(
    answer: Any,
) -> None:
    class Odd(Signer):
        async def authorize(self, channel: str, socket_id: str) -> Any:
            return await super().authorize(channel, socket_id) if channel != "private-x" else answer

    async with linked(authorizer=Odd()) as (client, dial, _):
        bad = client.subscribe("private-x")
        with pytest.raises(MalformedAuthResponse, match="no Authorization") as caught:
            await bad.subscribed(TIMEOUT)
        assert caught.value.channel == "private-x"
        assert "k:sig" not in str(caught.value)
        await join(client, dial, "private-y")


@pytest.mark.parametrize("named", ["", "private-y", "another"])
async def test_an_authorizer_that_names_another_channel_fails_the_one_it_was_asked_for(
    named: str,
) -> None:
    signer = Signer()
    signer.errors["private-x"] = AuthorizationFailed("Not yours.", channel=named)
    async with linked(authorizer=signer) as (client, dial, _):
        good = await join(client, dial, "private-y")
        bad = client.subscribe("private-x")
        with pytest.raises(AuthorizationFailed, match="Not yours"):
            await bad.subscribed(TIMEOUT)
        assert bad.state is ChannelState.FAILED
        assert good.is_subscribed


async def test_an_error_of_antiphon_that_is_not_about_channels_is_one_of_the_channel() -> None:
    signer = Signer()
    signer.errors["private-x"] = SettingsError("Signing needs app_secret.")
    async with linked(authorizer=signer) as (client, _, _):
        bad = client.subscribe("private-x")
        with pytest.raises(SubscriptionFailed, match="Signing needs app_secret") as caught:
            await bad.subscribed(TIMEOUT)
        assert caught.value.channel == "private-x"
        assert isinstance(caught.value.__cause__, SettingsError)


# Refused for the moment


@pytest.mark.parametrize(
    "error",
    [
        AuthTimeout("Late.", channel="private-x"),
        AuthServerError("Broken.", channel="private-x", code=500),
        AuthServerError("Asked too often.", channel="private-x", code=429),
        ZeroDivisionError(),
    ],
    ids=["timeout", "500", "429", "foreign"],
)
async def test_a_channel_that_is_refused_for_the_moment_is_asked_for_again_by_itself(
    error: Exception,
) -> None:
    signer = Signer()
    signer.errors["private-x"] = error
    async with linked(authorizer=signer) as (client, dial, _):
        channel = client.subscribe("private-x")
        seen = watch(client)
        await until(lambda: len(signer.asked) >= 3)
        assert {o.temporary for o in failures_of(seen)} == {True}
        signer.errors.clear()
        await dial.subscribe()
        await channel.subscribed(TIMEOUT)
        assert channel.error is None
        assert set(signer.asked) == {("private-x", client.socket_id)}


@pytest.mark.parametrize("name", ["news", "private-x"])
async def test_a_channel_the_server_refuses_for_the_moment_is_asked_for_again(name: str) -> None:
    async with linked(authorizer=Signer()) as (client, dial, _):
        channel = client.subscribe(name)
        for _ in range(3):
            await dial.subscribe(accept=False)
            error = {"type": "LimitReached", "error": "Full", "status": 4100}
            dial.send("pusher:subscription_error", error, name)
        await dial.subscribe()
        await channel.subscribed(TIMEOUT)


@pytest.mark.parametrize(
    "error",
    [
        Unauthorized("No.", channel="private-x", code=401),
        Forbidden("No.", channel="private-x", code=403),
        MalformedAuthResponse("No.", channel="private-x", code=200),
        AuthServerError("No such page.", channel="private-x", code=404),
    ],
)
async def test_a_channel_that_is_refused_for_good_is_not_asked_for_again_by_itself(
    error: Exception,
) -> None:
    signer = Signer()
    signer.errors["private-x"] = error
    async with linked(authorizer=signer, min_delay=0.0, max_delay=0.0) as (client, dial, peer):
        channel = client.subscribe("private-x")
        with pytest.raises(AuthorizationFailed):
            await channel.subscribed(TIMEOUT)
        # One refused for the moment goes through several rounds meanwhile.
        signer.errors["private-y"] = AuthTimeout("Late.", channel="private-y")
        client.subscribe("private-y").bind("pusher:subscription_error", lambda e: None)
        await until(lambda: [name for name, _ in signer.asked].count("private-y") >= 5)
        assert [name for name, _ in signer.asked].count("private-x") == 1
        signer.errors.clear()
        await dial.hang_up()
        again = await peer.dial()
        await again.greet()
        assert {(await again.subscribe())["channel"] for _ in range(2)} == {
            "private-x",
            "private-y",
        }
        await channel.subscribed(TIMEOUT)


async def test_a_channel_the_server_refuses_for_good_is_not_asked_for_again_by_itself() -> None:
    async with linked(min_delay=0.0, max_delay=0.0) as (client, dial, _):
        channel = client.subscribe("news")
        await dial.subscribe(accept=False)
        dial.send("pusher:subscription_error", {"error": "No", "status": 403}, "news")
        with pytest.raises(SubscriptionFailed):
            await channel.subscribed(TIMEOUT)
        other = client.subscribe("other")
        for _ in range(5):
            assert (await dial.subscribe(accept=False))["channel"] == "other"
            dial.send("pusher:subscription_error", {"error": "Full", "status": 4100}, "other")
        assert (await dial.subscribe())["channel"] == "other"
        await other.subscribed(TIMEOUT)
        assert channel.state is ChannelState.FAILED


async def test_leaving_a_channel_ends_the_attempts_for_it() -> None:
    signer = Signer()
    for name in ("private-x", "private-y"):
        signer.errors[name] = AuthTimeout("Late.", channel=name)
    async with linked(authorizer=signer) as (client, _, _):
        channel = client.subscribe("private-x")
        await until(lambda: len(signer.asked) >= 2)
        channel.unsubscribe()
        count = len(signer.asked)
        client.subscribe("private-y")
        await until(lambda: [name for name, _ in signer.asked].count("private-y") >= 4)
        assert [name for name, _ in signer.asked].count("private-x") == count


async def test_a_handler_of_the_refusal_may_leave_the_channel() -> None:
    signer = Signer()
    signer.errors["private-x"] = AuthTimeout("Late.", channel="private-x")
    async with linked(authorizer=signer) as (client, dial, _):
        channel = client.subscribe("private-x")
        channel.bind("pusher:subscription_error", lambda e: channel.unsubscribe())
        await until(lambda: channel.state is ChannelState.UNSUBSCRIBED)
        await join(client, dial, "private-y")
        assert [name for name, _ in signer.asked].count("private-x") == 1
        assert client._subscriptions._ends == {}


async def test_a_handler_of_the_refusal_may_ask_again_and_leaving_ends_what_it_asked() -> None:
    signer = Signer()
    signer.errors["private-x"] = AuthTimeout("Late.", channel="private-x")
    async with linked(authorizer=signer) as (client, dial, _):
        channel = client.subscribe("private-x")

        def again(_: Event) -> None:
            signer.errors.clear()
            signer.free.clear()
            client.subscribe("private-x")

        channel.bind("pusher:subscription_error", again)
        await until(lambda: len(signer.asked) == 2)
        assert client._subscriptions._backoffs == {}, "no further attempt is on its way"
        for _ in range(2):
            channel.unsubscribe()
        await until(lambda: not signer.at_once)
        signer.free.set()
        await join(client, dial, "private-y")  # and nothing of a channel never asked for


async def test_subscribing_again_does_not_wait_for_the_next_attempt() -> None:
    signer = Signer()
    signer.errors["private-x"] = AuthTimeout("Late.", channel="private-x")
    async with linked(authorizer=signer, min_delay=60.0, max_delay=60.0) as (client, dial, _):
        channel = client.subscribe("private-x")
        with pytest.raises(AuthTimeout):
            await channel.subscribed(TIMEOUT)
        signer.errors.clear()
        assert client.subscribe("private-x") is channel
        await dial.subscribe()
        await channel.subscribed(TIMEOUT)


async def test_attempts_for_a_channel_are_ever_further_apart_until_one_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    delays: list[float] = []
    signer = Signer()
    async with linked(authorizer=signer, min_delay=0.001, max_delay=0.02) as (client, dial, _):
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def noting(delay: float, work: Any, *args: Any, **options: Any) -> Any:
            if "_try_again" in getattr(work, "__qualname__", ""):
                delays.append(delay)
            return call_later(delay, work, *args, **options)

        monkeypatch.setattr(loop, "call_later", noting)
        channel = client.subscribe("news")
        for _ in range(6):
            await dial.subscribe(accept=False)
            dial.send("pusher:subscription_error", {"error": "Full", "status": 4100}, "news")
        await dial.subscribe()
        await channel.subscribed(TIMEOUT)
        assert delays == [0.002, 0.004, 0.008, 0.016, 0.02, 0.02]
        dial.send("pusher:subscription_error", {"error": "Full", "status": 4100}, "news")
        await dial.subscribe()
        await channel.subscribed(TIMEOUT)
        assert delays[-1] == 0.002, "success begins anew"


async def test_a_lost_connection_ends_the_attempts_and_the_next_begins_anew() -> None:
    signer = Signer()
    signer.errors["private-x"] = AuthTimeout("Late.", channel="private-x")
    async with linked(authorizer=signer) as (client, dial, peer):
        channel = client.subscribe("private-x")
        await until(lambda: len(signer.asked) >= 2)
        await dial.hang_up()
        again = await peer.dial()
        await until(lambda: channel.state is ChannelState.PENDING)
        count = len(signer.asked)
        assert client._subscriptions._ends == {}
        assert client._subscriptions._backoffs == {}
        await asyncio.sleep(0.12)  # more than twice the longest delay
        assert len(signer.asked) == count
        signer.errors.clear()
        await again.greet()
        await again.subscribe()
        await channel.subscribed(TIMEOUT)

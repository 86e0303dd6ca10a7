"""Channels as a program holds them: binding, waiting, triggering, members."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from antiphon.client import Channel, ChannelState, EncryptedChannel, PresenceChannel
from antiphon.client.channel import kind_of
from antiphon.errors import (
    ClientClosed,
    HandlerFailed,
    InvalidName,
    Refused,
    SubscriptionFailed,
)
from antiphon.protocol.frames import Event
from antiphon.protocol.presence import Member
from tests.server.wire import TIMEOUT, until

from .linked import FakeHost, Signer, join, linked, soon


class Message(msgspec.Struct):
    id: int


@pytest.fixture
async def host() -> AsyncIterator[FakeHost]:
    host = FakeHost()
    yield host
    await host.close()


@pytest.fixture
def channel(host: FakeHost) -> Channel:
    channel = Channel("private-x", host)
    channel.move(ChannelState.SUBSCRIBED)
    return channel


def give(channel: Channel, *raws: Any, name: str = "e") -> None:
    for raw in raws:
        channel.deliver(Event(name=name, channel=channel.name, raw=raw))


# Kinds


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("news", Channel),
        ("private-x", Channel),
        ("private-encrypted-x", EncryptedChannel),
        ("cache-x", Channel),
        ("presence-x", PresenceChannel),
        ("presence-cache-x", PresenceChannel),
        ("presence", Channel),
    ],
)
def test_the_kind_of_a_channel_is_told_by_its_name(name: str, kind: type[Channel]) -> None:
    assert kind_of(name) is kind


def test_a_channel_shows_its_name_and_where_it_stands(host: FakeHost) -> None:
    assert repr(PresenceChannel("presence-x", host)) == "<PresenceChannel presence-x pending>"


# Binding


async def test_a_handler_is_bound_by_a_call_or_by_decorating_it(channel: Channel) -> None:
    called: list[str] = []
    channel.bind("e", lambda e: called.append("called"))

    @channel.bind("e")
    def decorated(e: Event) -> None:
        called.append("decorated")

    @channel.bind("e", type=Message)
    def typed(message: Message) -> None:
        called.append(f"typed {message.id}")

    @channel.bind_all()
    def every(e: Event) -> None:
        called.append("every")

    @channel.bind("e")
    async def asynchronous(e: Event) -> None:
        called.append("asynchronous")

    channel.bind_all(lambda e: called.append("all"))
    give(channel, '{"id":1}')
    for _ in range(5):
        await asyncio.sleep(0)
    assert called == ["called", "decorated", "typed 1", "every", "all", "asynchronous"]
    decorated(Event(name="e"))
    assert called[-1] == "decorated", "the decorator gives the function back"


async def test_handlers_are_taken_off_by_what_bind_gave_or_by_name(channel: Channel) -> None:
    got: list[Event] = []
    binding = channel.bind("e", got.append)
    channel.bind("f", got.append)
    channel.bind_all(got.append)
    binding.unbind()
    channel.unbind("f")
    channel.unbind(handler=got.append)
    give(channel, "1")
    give(channel, "1", name="f")
    assert got == []


async def test_a_channel_is_iterated_over_from_now_on(channel: Channel) -> None:
    give(channel, "0")
    iterator = aiter(channel)
    give(channel, "1", "2")
    assert [(await soon(iterator.__anext__())).data for _ in range(2)] == [1, 2]


async def test_a_stream_of_a_type_gives_its_values(channel: Channel) -> None:
    with channel.stream("e", Message) as stream:
        give(channel, '{"id":1}')
        give(channel, '{"id":2}', name="f")
        give(channel, '{"id":3}')
        assert [(await soon(stream.__anext__())).id for _ in range(2)] == [1, 3]


async def test_a_stream_may_drop_what_is_not_read_in_time(channel: Channel) -> None:
    stream = channel.stream("e", limit=2, policy="drop_oldest")
    give(channel, "1", "2", "3")
    assert stream.dropped == 1
    assert (await soon(stream.__anext__())).data == 2


# Waiting for an event


async def waiting(work: Any) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return future


async def test_an_event_is_waited_for(channel: Channel) -> None:
    waiter = await waiting(channel.wait_for("e"))
    give(channel, "0", name="f")
    assert not waiter.done()
    give(channel, "1")
    assert (await soon(waiter)).data == 1


async def test_of_several_events_in_one_read_the_first_is_the_one_waited_for(
    channel: Channel,
) -> None:
    waiter = await waiting(channel.wait_for("e"))
    give(channel, "1", "2", "3")
    assert (await soon(waiter)).data == 1


async def test_an_event_is_waited_for_by_type_and_one_that_does_not_fit_is_passed_over(
    host: FakeHost, channel: Channel
) -> None:
    waiter = await waiting(channel.wait_for("e", Message))
    give(channel, "no")
    await asyncio.sleep(0)
    give(channel, '{"id":1}')
    assert (await soon(waiter)).id == 1
    assert len(host.errors) == 1


async def test_an_event_that_does_not_come_in_time_is_waited_for_no_longer(
    host: FakeHost, channel: Channel
) -> None:
    with pytest.raises(TimeoutError):
        await channel.wait_for("e", Message, timeout=0.01)
    give(channel, "does not fit")
    assert host.errors == [], "the handler is off again"
    assert host.reads()


async def test_who_is_cancelled_while_waiting_leaves_nothing_behind(
    host: FakeHost, channel: Channel
) -> None:
    waiter = await waiting(channel.wait_for("e", Message))
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    give(channel, "does not fit")
    assert host.errors == []


async def test_who_waits_for_an_event_is_told_when_the_channel_is_left(channel: Channel) -> None:
    waiter = await waiting(channel.wait_for("e"))
    channel.unsubscribe()
    with pytest.raises(ClientClosed, match="private-x"):
        await soon(waiter)


async def test_an_event_of_a_channel_that_was_left_is_not_waited_for(channel: Channel) -> None:
    channel.unsubscribe()
    with pytest.raises(ClientClosed):
        await channel.wait_for("e", timeout=2)


async def test_a_stream_of_a_channel_that_was_left_ends_at_once(channel: Channel) -> None:
    channel.unsubscribe()

    async def reading() -> list[Event]:
        return [e async for e in channel.stream("e")]

    async with asyncio.timeout(TIMEOUT):
        assert await reading() == []


async def test_a_handler_of_a_channel_that_was_left_makes_no_task(
    host: FakeHost, channel: Channel
) -> None:
    channel.unsubscribe()

    async def handler(e: Event) -> None:
        pass

    channel.bind("e", handler)
    await host.idle()
    assert not host.tasks


async def test_a_handler_that_waits_for_an_event_holds_the_valve_open(
    host: FakeHost, channel: Channel
) -> None:
    got: list[Any] = []

    async def handler(e: Event) -> None:
        got.append((await channel.wait_for("answer")).data)

    channel.bind("e", handler, limit=1)
    give(channel, "1")
    await host.idle()
    give(channel, "2", "3")
    assert host.reads(), "it must not wait for itself"
    give(channel, "4", name="answer")
    channel.unbind("e")
    await host.idle()
    assert got == [4]


async def test_who_waits_for_an_event_elsewhere_does_not_keep_a_full_inbox_from_shutting_the_valve(
    host: FakeHost, channel: Channel
) -> None:
    waiter = await waiting(channel.wait_for("never"))
    channel.bind("e", AsyncNothing(), limit=1)
    give(channel, "1")
    await host.idle()
    give(channel, "2", "3")
    assert not host.reads()
    waiter.cancel()


# Waiting for the subscription


async def test_a_channel_that_is_joined_is_not_waited_for(channel: Channel) -> None:
    await channel.subscribed()
    assert channel.is_subscribed


async def test_a_subscription_is_waited_for_by_as_many_as_want(channel: Channel) -> None:
    channel.lost()
    assert not channel.is_subscribed
    waiters = [await waiting(channel.subscribed()) for _ in range(3)]
    channel.joined({})
    for waiter in waiters:
        await soon(waiter)


async def test_the_valve_is_held_open_while_a_subscription_is_waited_for(
    host: FakeHost, channel: Channel
) -> None:
    channel.bind("e", AsyncNothing(), limit=1)
    give(channel, "1")
    assert not host.reads()
    channel.lost()
    waiter = await waiting(channel.subscribed())
    assert host.reads()
    channel.joined({})
    await soon(waiter)


class AsyncNothing:
    async def __call__(self, e: Event) -> None:
        await asyncio.Event().wait()


async def test_who_waits_for_a_subscription_is_told_that_it_was_refused(channel: Channel) -> None:
    channel.lost()
    error = SubscriptionFailed("not yours", channel=channel.name, code=403)
    waiter = await waiting(channel.subscribed())
    channel.move(ChannelState.FAILED, error)
    with pytest.raises(SubscriptionFailed) as caught:
        await soon(waiter)
    assert caught.value is error
    with pytest.raises(SubscriptionFailed):
        await channel.subscribed()
    assert channel.error is error


async def test_who_waits_for_a_subscription_is_told_that_the_channel_was_left(
    channel: Channel,
) -> None:
    channel.lost()
    waiter = await waiting(channel.subscribed())
    channel.unsubscribe()
    with pytest.raises(ClientClosed, match="private-x is unsubscribed"):
        await soon(waiter)
    with pytest.raises(ClientClosed):
        await channel.subscribed()


async def test_who_waits_for_a_subscription_is_told_that_no_connection_will_come(
    host: FakeHost, channel: Channel
) -> None:
    channel.lost()
    waiter = await waiting(channel.subscribed())
    host.ended = Refused("wrong key", code=4001)
    channel.give_up(host.ended)
    with pytest.raises(Refused):
        await soon(waiter)
    with pytest.raises(Refused):
        await soon(channel.subscribed())


async def test_a_subscription_that_is_not_answered_in_time_stays_pending(
    channel: Channel,
) -> None:
    channel.lost()
    with pytest.raises(TimeoutError):
        await channel.subscribed(0.01)
    assert channel.state is ChannelState.PENDING
    waiter = await waiting(channel.subscribed())
    channel.joined({})
    await soon(waiter)


async def test_a_channel_that_was_left_is_left_only_once(host: FakeHost, channel: Channel) -> None:
    channel.unsubscribe()
    channel.unsubscribe()
    assert host.left == ["private-x"]


async def test_leaving_a_channel_takes_its_handlers_and_streams_with_it(
    host: FakeHost, channel: Channel
) -> None:
    got: list[Event] = []
    channel.bind("e", got.append)
    channel.bind("e", AsyncNothing())
    stream = channel.stream("e")
    channel.unsubscribe()
    give(channel, "1")
    assert got == []
    assert [e async for e in stream] == []
    await host.idle()
    assert not host.tasks


# Client events


async def test_a_client_event_goes_out_on_a_joined_channel(
    host: FakeHost, channel: Channel
) -> None:
    channel.trigger("client-typing", {"user": 1})
    channel.trigger("client-typing")
    assert host.triggered == [
        ("private-x", "client-typing", {"user": 1}),
        ("private-x", "client-typing", None),
    ]


@pytest.mark.parametrize(
    "event", ["typing", "", "Client-typing", "pusher:x", "client", "client-" + "x" * 194]
)
async def test_a_name_that_no_client_event_can_have_is_refused(
    host: FakeHost, channel: Channel, event: str
) -> None:
    with pytest.raises(InvalidName):
        channel.trigger(event, {})
    assert host.triggered == []


@pytest.mark.parametrize("name", ["news", "private-encrypted-x", "cache-x"])
async def test_a_channel_that_takes_no_client_events_says_so(host: FakeHost, name: str) -> None:
    channel = kind_of(name)(name, host)
    channel.move(ChannelState.SUBSCRIBED)
    with pytest.raises(SubscriptionFailed, match="takes no client events") as caught:
        channel.trigger("client-x", {})
    assert caught.value.channel == name


@pytest.mark.parametrize("state", [ChannelState.FAILED, ChannelState.UNSUBSCRIBED])
async def test_a_client_event_on_a_channel_that_is_not_to_be_had_is_refused_and_says_why(
    host: FakeHost, channel: Channel, state: ChannelState
) -> None:
    channel.move(state)
    result = channel.trigger("client-x", {})
    assert not result
    assert result.status == "refused"
    assert "private-x" in result.reason
    assert host.triggered == []


async def test_data_that_is_no_json_is_the_callers_error_and_harms_nothing() -> None:
    async with linked(authorizer=Signer()) as (client, dial, _):
        channel = await join(client, dial, "private-x")
        with pytest.raises(TypeError):
            channel.trigger("client-x", object())
        channel.trigger("client-x", {"a": 1})
        assert await dial.message() == {
            "event": "client-x",
            "channel": "private-x",
            "data": {"a": 1},
        }


# Members


def members_of(channel: PresenceChannel) -> dict[str, Any]:
    return {member.id: member.info for member in channel.members}


def test_a_presence_channel_knows_who_is_there(host: FakeHost) -> None:
    channel = PresenceChannel("presence-x", host)
    assert list(channel.members) == []
    channel.members.my_id = "1"
    assert channel.members.me is None
    channel.joined({"1": Member("1", {"name": "Ann"}), "2": Member("2")})
    assert channel.is_subscribed
    assert members_of(channel) == {"1": {"name": "Ann"}, "2": None}
    assert channel.members.count == len(channel.members) == 2
    assert channel.members.get("1") == Member("1", {"name": "Ann"})
    assert channel.members.get("2") == Member("2")
    assert channel.members.get("3") is None
    assert "2" in channel.members
    assert "3" not in channel.members


def test_members_come_and_go(host: FakeHost) -> None:
    channel = PresenceChannel("presence-x", host)
    channel.joined({"1": Member("1")})
    channel.members.add(Member("2", "new"))
    channel.members.add(Member("2", "newer"))
    assert members_of(channel) == {"1": None, "2": "newer"}
    assert channel.members.remove("2") == Member("2", "newer")
    assert channel.members.remove("2") is None
    assert members_of(channel) == {"1": None}


def test_members_may_change_while_they_are_iterated_over(host: FakeHost) -> None:
    channel = PresenceChannel("presence-x", host)
    channel.joined({"1": Member("1"), "2": Member("2")})
    for member in channel.members:
        channel.members.remove(member.id)
    assert channel.members.count == 0


def test_nobody_is_known_to_be_there_once_the_connection_is_lost(host: FakeHost) -> None:
    channel = PresenceChannel("presence-x", host)
    channel.joined({"1": Member("1")})
    channel.lost()
    assert channel.members.count == 0
    assert channel.state is ChannelState.PENDING


# Streams over a socket


async def test_a_stream_that_is_dropped_lets_the_socket_be_read_again() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        stream = channel.stream("e", limit=2)
        for number in range(3):
            dial.send("e", number, "news")
        await until(lambda: not client._host.valve.is_open)
        assert (await soon(stream.__anext__())).data == 0
        del stream
        gc.collect()
        waiter = asyncio.ensure_future(channel.wait_for("after"))
        await asyncio.sleep(0)
        dial.send("after", 1, "news")
        assert (await soon(waiter)).data == 1
        assert client._host.valve.is_open


async def test_a_handler_may_subscribe_and_wait_though_its_own_inbox_is_full() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        joined: list[str] = []

        async def handler(e: Event) -> None:
            if not joined:
                other = client.subscribe("other")
                await other.subscribed()
                joined.append(other.name)

        channel.bind("e", handler, limit=1)
        for number in range(200):
            dial.send("e", number, "news")
        assert (await dial.subscribe())["channel"] == "other"
        await until(lambda: joined)


async def test_a_handler_of_a_real_channel_that_raises_breaks_nothing() -> None:
    async with linked() as (client, dial, _):
        channel = await join(client, dial, "news")
        errors = client.errors()

        def bad(e: Event) -> None:
            raise ValueError("no")

        channel.bind("e", bad)
        waiter = asyncio.ensure_future(channel.wait_for("f"))
        await asyncio.sleep(0)
        dial.send("e", 1, "news")
        dial.send("f", 2, "news")
        assert (await soon(waiter)).data == 2
        assert isinstance(await soon(errors.__anext__()), HandlerFailed)

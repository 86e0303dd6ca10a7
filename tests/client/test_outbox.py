"""Client events on their way out: in order, no faster than servers take them, none lost unsaid."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import msgspec
import pytest

from antiphon.client import Channel, ChannelState, SecretAuthorizer, TriggerResult, outbox
from antiphon.client.outbox import LIMIT, WINDOW, Outbox
from antiphon.errors import AntiphonError, QueueOverflow, Refused, SubscriptionFailed
from antiphon.protocol.frames import Event
from antiphon.server import Server
from antiphon.settings import App
from tests.server.wire import TIMEOUT, until

from .linked import FakeHost, Signer, impatient, join, linked, meet, part, soon, watch
from .peer import Peer


class Time:
    """Stands in for `monotonic`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(outbox, "monotonic", time)
    return time


class Sent:
    """An outbox whose channel is joined when the test says so, and what came out of it."""

    def __init__(self, *, joined: bool = True, sent_at: deque[float] | None = None) -> None:
        self.events: list[Any] = []
        self.is_joined = joined
        times = deque[float](maxlen=10) if sent_at is None else sent_at
        self.outbox = Outbox(self._take, lambda: self.is_joined, times)

    def _take(self, event: str, data: msgspec.Raw) -> None:
        self.events.append(json.loads(bytes(data)))

    def put(self, *data: Any) -> list[str]:
        return [self.outbox.put("client-x", item).status for item in data]


def overflows(seen: list[Any]) -> list[QueueOverflow]:
    return [o for o in seen if isinstance(o, QueueOverflow)]


# What becomes of an event


def test_a_result_is_true_unless_the_event_was_refused() -> None:
    assert TriggerResult("sent")
    assert TriggerResult("queued")
    assert not TriggerResult("refused")


def test_an_event_on_a_joined_channel_is_sent_at_once(time: Time) -> None:
    sent = Sent()
    assert sent.outbox.put("client-x", {"a": 1}) == TriggerResult("sent")
    assert sent.events == [{"a": 1}]


def test_an_event_before_the_channel_is_joined_waits_and_says_why(time: Time) -> None:
    sent = Sent(joined=False)
    result = sent.outbox.put("client-x", 1)
    assert result.status == "queued"
    assert "not joined" in result.reason
    assert sent.events == []
    sent.is_joined = True
    sent.outbox.flush()
    assert sent.events == [1]


def test_what_waits_is_what_was_given_and_not_what_became_of_it(time: Time) -> None:
    sent = Sent(joined=False)
    data = {"a": 1}
    sent.outbox.put("client-x", data)
    data["a"] = 2
    sent.is_joined = True
    sent.outbox.flush()
    assert sent.events == [{"a": 1}]


def test_a_hundred_events_wait_and_the_next_is_refused(time: Time) -> None:
    sent = Sent(joined=False)
    assert set(sent.put(*range(LIMIT))) == {"queued"}
    result = sent.outbox.put("client-x", LIMIT)
    assert result.status == "refused"
    assert "100 client events are waiting" in result.reason
    assert sent.outbox.close() == LIMIT
    assert sent.events == []


def test_data_that_is_no_json_takes_no_place(time: Time) -> None:
    sent = Sent(joined=False)
    with pytest.raises(TypeError):
        sent.outbox.put("client-x", object())
    assert sent.outbox.close() == 0


# The rate


async def test_no_more_than_ten_go_out_in_a_second(time: Time) -> None:
    sent = Sent()
    results = [sent.outbox.put("client-x", n) for n in range(12)]
    assert [r.status for r in results] == ["sent"] * 10 + ["queued"] * 2
    assert "10 client events a second" in results[-1].reason
    time.now += WINDOW - 0.01
    sent.outbox.flush()
    assert sent.events == list(range(10))
    time.now += 0.01
    sent.outbox.flush()
    assert sent.events == list(range(12))


async def test_the_second_is_one_that_slides(time: Time) -> None:
    sent = Sent()
    sent.put(*range(5))
    time.now += 0.6
    sent.put(*range(5, 15))
    assert sent.events == list(range(10)), "never eleven within any second"
    time.now += WINDOW - 0.599
    sent.outbox.flush()
    assert sent.events == list(range(15)), "the first five are a second old"
    assert sent.put(15) == ["queued"]
    time.now += 0.6
    sent.outbox.flush()
    assert sent.events == list(range(16))


async def test_who_comes_later_does_not_overtake_what_waits(time: Time) -> None:
    sent = Sent()
    sent.put(*range(11))
    time.now += 5.0
    assert sent.put(11) == ["queued"]
    sent.outbox.flush()
    assert sent.events == list(range(12))


async def test_what_waits_goes_out_by_itself_when_its_time_has_come(time: Time) -> None:
    sent = Sent()
    sent.put(*range(10))
    time.now += WINDOW - 0.001
    sent.put(10, 11)
    await asyncio.sleep(0.01)
    assert sent.events == list(range(10))
    time.now += 0.001
    await until(lambda: len(sent.events) == 12)
    assert sent.events == list(range(12))


async def test_an_outbox_that_is_closed_has_no_timer_left(time: Time) -> None:
    sent = Sent()
    sent.put(*range(10))
    time.now += WINDOW - 0.001
    sent.put(10)
    sent.is_joined = False
    sent.is_joined = True
    sent.outbox.flush()  # joined again, while a timer runs
    assert sent.outbox.close() == 1
    loop: Any = asyncio.get_running_loop()
    timers = [t for t in loop._scheduled if not t.cancelled() and "Outbox" in repr(t)]
    assert timers == []


async def test_channels_of_one_client_share_the_rate_as_servers_count_by_connection(
    time: Time,
) -> None:
    sent_at = deque[float](maxlen=10)
    one, other = Sent(sent_at=sent_at), Sent(sent_at=sent_at)
    assert set(one.put(*range(6))) == {"sent"}
    assert other.put(*range(6)) == ["sent"] * 4 + ["queued"] * 2
    assert one.put(6) == ["queued"]
    time.now += WINDOW
    other.outbox.flush()
    one.outbox.flush()
    assert (one.events, other.events) == (list(range(7)), list(range(6)))


async def test_a_real_server_takes_all_that_is_sent_though_it_is_much_at_once() -> None:
    async with Server(App(id="1", key="k", secret="s")) as server:
        settings = server.settings()
        signer = SecretAuthorizer(settings)
        async with (
            impatient(settings, authorizer=signer) as sender,
            impatient(settings, authorizer=signer) as receiver,
        ):
            seen = watch(sender)
            got: list[tuple[str, int]] = []
            for name in ("private-a", "private-b"):
                channel = receiver.subscribe(name)
                channel.bind("client-x", lambda e: got.append((e.channel or "", e.data)))
                await channel.subscribed(TIMEOUT)
            channels = [sender.subscribe(name) for name in ("private-a", "private-b")]
            for channel in channels:
                await channel.subscribed(TIMEOUT)
            results = [channel.trigger("client-x", n) for n in range(6) for channel in channels]
            assert [r.status for r in results] == ["sent"] * 10 + ["queued"] * 2
            await until(lambda: len(got) == 12)
            for channel in channels:
                assert [n for name, n in got if name == channel.name] == list(range(6))
            assert [o for o in seen if isinstance(o, AntiphonError)] == []


# On a channel


async def test_events_wait_in_order_for_the_channel_to_be_joined() -> None:
    async with linked(authorizer=Signer()) as (client, dial, _):
        channel = client.subscribe("private-x")
        assert [channel.trigger("client-x", n).status for n in range(3)] == ["queued"] * 3
        await dial.subscribe()
        assert [(await dial.message())["data"] for _ in range(3)] == [0, 1, 2]
        assert channel.trigger("client-x", 3).status == "sent"
        assert await dial.event("client-x") == 3


async def test_events_wait_through_a_reconnection_and_are_paced_after_it(time: Time) -> None:
    async with linked(authorizer=Signer()) as (client, dial, peer):
        channel = await join(client, dial, "private-x")
        for n in range(4):
            assert channel.trigger("client-x", n).status == "sent"
            await dial.event("client-x")
        await dial.hang_up()
        again = await peer.dial()
        results = [channel.trigger("client-x", n) for n in range(4, 14)]
        assert {(r.status, r.reason) for r in results} == {
            ("queued", "The channel is not joined yet.")
        }
        await again.greet()
        await again.subscribe()
        await channel.subscribed(TIMEOUT)
        assert [(await again.message())["data"] for _ in range(6)] == list(range(4, 10))
        again.send("pusher:ping")
        assert (await again.message())["event"] == "pusher:pong", "the others keep to the rate"
        time.now += WINDOW
        channel._outbox.flush()  # type: ignore[union-attr]
        assert [(await again.message())["data"] for _ in range(4)] == list(range(10, 14))


async def test_events_wait_while_the_program_has_disconnected() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), authorizer=Signer())
        dial = await meet(client, peer)
        channel = await join(client, dial, "private-x")
        leaving = asyncio.ensure_future(client.disconnect())
        await dial.close(1000)
        await soon(leaving)
        assert channel.trigger("client-x", 1).status == "queued"
        again = await meet(client, peer)
        await again.subscribe()
        assert await again.event("client-x") == 1
        await part(client, peer)


async def test_events_wait_for_the_first_connection_too() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), authorizer=Signer())
        channel = client.subscribe("private-x")
        assert channel.trigger("client-x", 1).status == "queued"
        dial = await meet(client, peer)
        await dial.subscribe()
        assert await dial.event("client-x") == 1
        await part(client, peer)


async def test_two_who_hold_one_channel_share_its_outbox() -> None:
    async with linked(authorizer=Signer()) as (client, dial, _):
        seen = watch(client)
        one, other = client.subscribe("private-x"), client.subscribe("private-x")
        one.trigger("client-x", 1)
        other.trigger("client-x", 2)
        other.unsubscribe()
        await dial.subscribe()
        assert [(await dial.message())["data"] for _ in range(2)] == [1, 2]
        assert overflows(seen) == [], "the other hold is still there"


async def test_what_waits_when_the_channel_is_left_is_reported_once() -> None:
    async with linked(authorizer=Signer()) as (client, _, _):
        seen = watch(client)
        channel = client.subscribe("private-x")
        for n in range(3):
            channel.trigger("client-x", n)
        channel.unsubscribe()
        (error,) = overflows(seen)
        assert error.channel == "private-x"
        assert "3 client events" in str(error)
        result = channel.trigger("client-x", 3)
        assert (result.status, result.reason) == ("refused", "private-x was left.")


async def test_a_channel_that_is_left_with_nothing_waiting_reports_nothing() -> None:
    async with linked(authorizer=Signer()) as (client, dial, _):
        seen = watch(client)
        channel = await join(client, dial, "private-x")
        channel.trigger("client-x", 1)
        channel.unsubscribe()
        assert overflows(seen) == []


async def test_what_waits_when_the_client_is_closed_reaches_who_reads_its_errors() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), authorizer=Signer())
        dial = await meet(client, peer)
        errors = client.errors()
        client.subscribe("private-x").trigger("client-x", 1)
        assert await dial.event("pusher:subscribe")
        await part(client, peer)
        told = [error async for error in errors]
        assert [type(error) for error in told] == [QueueOverflow]


async def test_what_waits_when_the_client_gives_up_is_reported_and_the_next_is_refused() -> None:
    async with linked(authorizer=Signer()) as (client, dial, peer):
        seen = watch(client)
        channel = await join(client, dial, "private-x")
        await dial.hang_up()
        again = await peer.dial()
        await until(lambda: channel.state is ChannelState.PENDING)
        channel.trigger("client-x", 1)
        await again.upgrade()
        again.error(4001, "No such app")
        with pytest.raises(Refused):
            await soon(client.wait_closed())
        (error,) = overflows(seen)
        assert error.channel == "private-x"
        result = channel.trigger("client-x", 2)
        assert result.status == "refused"
        assert "check the app key" in result.reason
        assert len(overflows(seen)) == 1


async def test_a_channel_that_is_refused_takes_nothing_and_says_why() -> None:
    signer = Signer()
    signer.refuse("private-x")
    async with linked(authorizer=signer) as (client, _, _):
        channel = client.subscribe("private-x")
        with pytest.raises(SubscriptionFailed):
            await channel.subscribed(TIMEOUT)
        result = channel.trigger("client-x", 1)
        assert result.status == "refused"
        assert result.reason == "private-x is refused: private-x is not yours."


async def test_a_channel_without_an_outbox_makes_none_by_being_left() -> None:
    host = FakeHost()
    channel = Channel("private-x", host)
    channel.unsubscribe()
    assert host.errors == []
    assert channel.trigger("client-x").status == "refused"


async def test_an_event_triggered_by_a_handler_is_sent_in_its_turn() -> None:
    async with linked(authorizer=Signer()) as (client, dial, _):
        channel = await join(client, dial, "private-x")

        def answer(event: Event) -> None:
            channel.trigger("client-answer", event.data)

        channel.bind("question", answer)
        for n in range(3):
            dial.send("question", n, "private-x")
        assert [(await dial.message())["data"] for _ in range(3)] == [0, 1, 2]

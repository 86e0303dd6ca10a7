"""One connection: what it hears, what it says, and when it takes the peer for dead."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest

from antiphon.client.connection import Connection
from antiphon.client.flow import Inbox, Valve
from antiphon.errors import MalformedFrame, SubscriptionFailed, Unreachable
from antiphon.protocol.client import ClientProtocol, Received
from antiphon.protocol.closing import Action
from antiphon.protocol.events import Closed as Ended
from antiphon.protocol.events import Connected, SubscriptionSucceeded
from antiphon.protocol.frames import Event
from tests.server.wire import PING, PONG, TEXT, TIMEOUT, Closed, frame_bytes, until

from .linked import soon
from .peer import Dial, Peer, event_text


def machine(
    activity_timeout: float = 120, pong_timeout: float = 30, handshake_timeout: float = 20
) -> ClientProtocol:
    return ClientProtocol(
        monotonic(),
        activity_timeout=activity_timeout,
        pong_timeout=pong_timeout,
        handshake_timeout=handshake_timeout,
    )


class Call:
    """A connection, what it has told, and the peer's end."""

    def __init__(self, peer: Peer, valve: Valve, **timeouts: float) -> None:
        self.events: list[Event] = []
        self.notices: list[Received] = []
        self.valve = valve
        self.connection = Connection(
            machine(**timeouts),
            self.events.append,
            self.notices.append,
            valve,
        )
        self._peer = peer

    async def open(self, timeout: float = 5) -> None:
        await self.connection.open(
            self._peer.settings().websocket_url, timeout=timeout, ssl_context=None, headers=None
        )

    async def dialled(self) -> Dial:
        opening = asyncio.ensure_future(self.open())
        self.peer = await self._peer.dial()
        await self.peer.upgrade()
        await soon(opening)
        return self.peer

    async def ended(self) -> Ended:
        return await soon(self.connection.closed)

    def data(self) -> list[Any]:
        return [event.data for event in self.events]


@contextlib.asynccontextmanager
async def calling(**timeouts: float) -> AsyncIterator[Call]:
    """A connection that nobody has opened."""
    async with Peer() as peer:
        call = Call(peer, Valve(), **timeouts)
        try:
            yield call
        finally:
            call.connection.drop()


@contextlib.asynccontextmanager
async def talking(**timeouts: float) -> AsyncIterator[Call]:
    """A connection that is open, the handshake done."""
    async with calling(**timeouts) as call:
        await call.dialled()
        call.peer.establish("1.1", 120)
        await until(lambda: call.notices)
        assert isinstance(call.notices.pop(), Connected)
        yield call


def text_bytes(event: str, data: Any, channel: str = "news") -> bytes:
    return frame_bytes(TEXT, event_text(event, data, channel).encode(), masked=False)


# Coming in


async def test_events_and_notices_go_their_own_ways_in_order() -> None:
    async with talking() as call:
        call.peer.send("e", 1, "news")
        call.peer.accept("news")
        call.peer.send_text("no JSON")
        call.peer.send("e", 2, "news")
        await until(lambda: len(call.events) == 2)
        assert call.data() == [1, 2]
        assert [type(notice) for notice in call.notices] == [SubscriptionSucceeded, MalformedFrame]


async def test_a_ping_of_the_protocol_is_answered_at_once() -> None:
    async with talking() as call:
        call.peer.send("pusher:ping", {})
        assert await call.peer.message() == {"event": "pusher:pong", "data": {}}
        assert call.notices == []


async def test_a_binary_message_that_is_no_json_is_reported_and_nothing_else_happens() -> None:
    async with talking() as call:
        call.peer.send_frame(0x2, b"\x00")
        await until(lambda: call.notices)
        assert isinstance(call.notices[0], MalformedFrame)
        assert not call.connection.closed.done()


async def test_frames_cut_at_every_byte_give_the_same_events() -> None:
    async with talking() as call:
        raw = b"".join(text_bytes("e", {"n": n, "text": "äöü"}) for n in range(3))
        for byte in raw:
            call.peer.send_bytes(bytes([byte]))
            await asyncio.sleep(0)
        await until(lambda: len(call.events) == 3)
        assert call.data() == [{"n": n, "text": "äöü"} for n in range(3)]


async def test_ten_thousand_frames_in_one_read_give_ten_thousand_events() -> None:
    async with talking() as call:
        call.peer.send_bytes(b"".join(text_bytes("e", n) for n in range(10_000)))
        await until(lambda: len(call.events) == 10_000)
        assert call.data() == list(range(10_000))


async def test_a_frame_of_a_megabyte_comes_in_whole() -> None:
    async with talking() as call:
        call.peer.send("e", "x" * 1_000_000, "news")
        await until(lambda: call.events)
        assert len(call.events[0].data) == 1_000_000


async def test_a_frame_of_eleven_megabytes_ends_the_connection() -> None:
    async with talking() as call:
        call.peer.send("e", "x" * 11_000_000, "news")
        assert (await call.peer.closed()).code == 1009
        await call.peer.hang_up()
        assert (await call.ended()).action is Action.BACK_OFF
        assert call.events == []


async def test_a_greeting_that_comes_with_the_upgrade_is_heard() -> None:
    async with calling() as call:
        opening = asyncio.ensure_future(call.open())
        peer = await call._peer.dial()
        greeting = event_text(
            "pusher:connection_established", {"socket_id": "1.1", "activity_timeout": 120}
        )
        peer.send_bytes(await peer.request() + frame_bytes(TEXT, greeting.encode(), masked=False))
        await soon(opening)
        assert [type(notice) for notice in call.notices] == [Connected]
        call.connection.subscribe("news", None, None)
        assert await peer.event("pusher:subscribe") == {"channel": "news"}


# Going out


async def test_what_the_client_asks_for_goes_out_as_frames() -> None:
    async with talking() as call:
        connection, peer = call.connection, call.peer
        connection.subscribe("news", None, None)
        connection.subscribe("presence-x", "k:sig", '{"user_id":"1"}')
        connection.trigger("presence-x", "client-x", {"a": 1})
        connection.unsubscribe("news")
        assert [await peer.message() for _ in range(4)] == [
            {"event": "pusher:subscribe", "data": {"channel": "news"}},
            {
                "event": "pusher:subscribe",
                "data": {
                    "channel": "presence-x",
                    "auth": "k:sig",
                    "channel_data": '{"user_id":"1"}',
                },
            },
            {"event": "client-x", "channel": "presence-x", "data": {"a": 1}},
            {"event": "pusher:unsubscribe", "data": {"channel": "news"}},
        ]


async def test_what_is_asked_for_as_the_greeting_arrives_goes_out() -> None:
    async with calling() as call:

        def notice(event: Received) -> None:
            call.connection.subscribe("news", None, None)

        call.connection._notify = notice
        opening = asyncio.ensure_future(call.open())
        peer = await call._peer.dial()
        greeting = event_text("pusher:connection_established", {"socket_id": "1.1"})
        peer.send_bytes(await peer.request() + frame_bytes(TEXT, greeting.encode(), masked=False))
        await soon(opening)
        assert await peer.event("pusher:subscribe") == {"channel": "news"}


# The end


async def test_the_peers_close_says_what_to_do_next() -> None:
    async with talking() as call:
        call.peer.send_close(4100, "full")
        end = await call.ended()
        assert (end.action, end.code, end.reason) == (Action.BACK_OFF, 4100, "full")
        assert end.opened
        assert end.clean
        assert call.notices == [end]


async def test_an_end_without_a_word_is_not_clean() -> None:
    async with talking() as call:
        await call.peer.hang_up()
        end = await call.ended()
        assert (end.action, end.code, end.clean) == (Action.BACK_OFF, None, False)
        assert end.reason == "The connection ended."


async def test_an_error_that_ends_it_makes_the_client_leave() -> None:
    async with talking() as call:
        call.peer.error(4001, "Application does not exist")
        end = await call.ended()
        assert (end.action, end.code) == (Action.STOP, 4001)
        assert (await call.peer.closed()).code == 1000, "the server has left the socket open"


async def test_an_error_in_place_of_the_greeting_is_heard_though_the_socket_ends_with_it() -> None:
    # Reverb sends all of it in one go, and it may be read in one go.
    for _ in range(10):
        async with calling() as call:
            opening = asyncio.ensure_future(call.open())
            peer = await call._peer.dial()
            error = event_text("pusher:error", {"code": 4001, "message": "no such app"})
            peer.send_bytes(await peer.request() + frame_bytes(TEXT, error.encode(), masked=False))
            await peer.hang_up()
            await soon(opening)
            end = await call.ended()
            assert (end.action, end.code, end.opened) == (Action.STOP, 4001, False)


async def test_closing_says_1000_and_waits_for_the_socket_to_end() -> None:
    async with talking() as call:
        closing = asyncio.ensure_future(call.connection.close())
        assert (await call.peer.closed()).code == 1000
        assert not closing.done()
        call.peer.send_close(1000)
        await soon(closing)
        await call.peer.end()


async def test_a_connection_that_was_never_opened_can_be_closed() -> None:
    async with calling() as call:
        await soon(call.connection.close())


async def test_dropping_lets_go_of_socket_and_timer_at_once() -> None:
    async with talking() as call:
        call.connection.drop()
        call.connection.drop()
        await call.peer.end()
        assert call.connection._timer is None


async def test_an_address_that_leads_nowhere_raises() -> None:
    async with calling() as call:
        call._peer = Peer()
        call._peer.port = 1
        with pytest.raises(Unreachable):
            await call.open()


@pytest.mark.parametrize(
    "first", ["no JSON", "[]", '{"event":"other"}', '{"event":"pusher:connection_established"}']
)
async def test_a_first_word_that_is_no_greeting_ends_it(first: str) -> None:
    async with calling() as call:
        await call.dialled()
        call.peer.send_text(first)
        end = await call.ended()
        assert (end.action, end.opened) == (Action.BACK_OFF, False)
        await call.peer.closed()


async def test_silence_in_place_of_a_greeting_is_not_waited_for_long() -> None:
    async with calling(handshake_timeout=0.1) as call:
        await call.dialled()
        end = await call.ended()
        assert (end.action, end.opened) == (Action.BACK_OFF, False)
        assert "connection_established in time" in end.reason


# Time


async def test_a_quiet_peer_is_pinged_after_the_activity_timeout() -> None:
    # The handshake's timer runs much longer, and must not be what the ping waits for.
    async with calling(activity_timeout=0.1) as call:
        await call.dialled()
        before = monotonic()
        call.peer.establish("1.1", 120)
        assert await call.peer.event("pusher:ping") == {}
        assert 0.05 < monotonic() - before < 15


async def test_the_smaller_of_both_activity_timeouts_counts() -> None:
    for own, servers, smaller in ((120, 30, 30), (20, 30, 20)):
        async with calling(activity_timeout=own) as call:
            await call.dialled()
            call.peer.establish("1.1", servers)
            await until(lambda: call.notices)
            assert call.notices == [Connected("1.1", smaller)]


async def test_a_quiet_peer_that_answers_is_kept_and_pinged_again_and_again() -> None:
    async with talking(activity_timeout=0.05, pong_timeout=30) as call:
        times = []
        for _ in range(4):
            await call.peer.event("pusher:ping")
            times.append(monotonic())
            call.peer.send("pusher:pong", {})
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert max(gaps) < 15, "at the activity timeout, and not at the pong timeout"
        assert not call.connection.closed.done()


async def test_a_quiet_connection_is_not_taken_for_dead_before_it_was_pinged() -> None:
    async with calling(handshake_timeout=4, activity_timeout=0.1, pong_timeout=2) as call:
        await call.dialled()
        await asyncio.sleep(0.01)
        call.peer.establish("1.1", 120)
        await call.peer.event("pusher:ping")
        call.peer.send("pusher:pong", {})
        await call.peer.event("pusher:ping")


async def test_a_peer_that_does_not_answer_a_ping_is_taken_for_dead() -> None:
    async with talking(activity_timeout=0.05, pong_timeout=0.05, handshake_timeout=5) as call:
        end = await call.ended()
        assert (end.action, end.code) == (Action.RECONNECT, 4201)
        assert not end.clean


@pytest.mark.parametrize("sign", ["an event", "a WebSocket ping", "a WebSocket pong", "binary"])
async def test_any_sign_of_life_is_an_answer_to_a_ping(sign: str) -> None:
    async with talking(activity_timeout=0.05, pong_timeout=30) as call:
        times = []
        for _ in range(3):
            await call.peer.event("pusher:ping")
            times.append(monotonic())
            match sign:
                case "an event":
                    call.peer.send("e", 1, "news")
                case "a WebSocket ping":
                    call.peer.send_frame(PING)
                case "a WebSocket pong":
                    call.peer.send_frame(PONG)
                case _:
                    call.peer.send_frame(0x2, b"x")
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert max(gaps) < 15, "at the activity timeout, and not at the pong timeout"
        assert not call.connection.closed.done()


# Reading


async def test_a_socket_that_is_not_read_is_not_taken_for_dead_and_hears_that_this_end_lives() -> (
    None
):
    # A server prunes who says nothing: its own pings lie unread behind the events.
    async with talking(activity_timeout=0.05, pong_timeout=1.5, handshake_timeout=5) as call:
        inbox: Inbox[int] = Inbox(call.valve)
        call.valve.mark(inbox, full=True)
        for number in range(40):  # longer than silence may last
            call.peer.send("e", number, "news")
            await call.peer.event("pusher:ping")
        assert not call.connection.closed.done()
        assert call.events == []
        call.valve.mark(inbox, full=False)
        await until(lambda: len(call.events) == 40)
        assert not call.connection.closed.done()


async def test_a_greeting_is_heard_though_the_valve_is_shut_and_nothing_else_is() -> None:
    async with calling() as call:
        inbox: Inbox[int] = Inbox(call.valve)
        call.valve.mark(inbox, full=True)
        await call.dialled()
        call.peer.establish()
        await until(lambda: call.notices)
        call.peer.send("e", 1, "news")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await until(lambda: call.events)
        call.valve.mark(inbox, full=False)
        await until(lambda: call.events)


async def test_a_server_that_wants_a_ping_every_moment_does_not_get_one() -> None:
    async with calling() as call:
        await call.dialled()
        call.peer.establish("1.1", 0.001)
        await until(lambda: call.notices)
        connected = call.notices[0]
        assert isinstance(connected, Connected)
        assert connected.activity_timeout >= 1


async def test_a_connection_that_does_not_read_can_be_closed() -> None:
    async with talking() as call:
        call.valve.mark(Inbox(call.valve), full=True)
        call.peer.send("e", 1, "news")
        closing = asyncio.ensure_future(call.connection.close())
        await call.peer.closed()
        call.peer.send_close(1000)
        async with asyncio.timeout(TIMEOUT):
            await closing


# What Reverb says without naming a channel


async def test_a_refusal_that_names_no_channel_is_told_as_the_pending_ones() -> None:
    async with talking() as call:
        call.connection.subscribe("news", None, None)
        call.connection.subscribe("private-x", "k:bad", None)
        call.peer.error(4009, "Connection is unauthorized")
        await until(lambda: call.notices)
        (error,) = call.notices
        assert isinstance(error, SubscriptionFailed)
        assert (error.channel, error.code) == ("private-x", 4009)


async def test_what_the_peer_hears_is_json() -> None:
    async with talking() as call:
        call.connection.trigger("private-x", "client-x", {"text": 'quote " and \u2028 and 🎵'})
        assert json.loads(await call.peer.text())["data"]["text"] == 'quote " and \u2028 and 🎵'
        with contextlib.suppress(Closed):
            call.connection.drop()
            await call.peer.text()

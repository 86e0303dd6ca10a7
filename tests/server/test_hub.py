"""Channels, members and fan-out, with subscribers that only keep what is written to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.protocol.frames import encode
from antiphon.protocol.presence import Member
from antiphon.server.hub import Channel, Hub
from antiphon.server.transport import text_frame
from antiphon.settings import App

APP = App(id="1", key="k", secret="s")


class Listener:
    """A subscriber that keeps each write."""

    def __init__(self, hub: Hub, socket_id: str = "1.1") -> None:
        self.channels: dict[str, Member | None] = {}
        self.writes: list[bytes] = []
        self.socket_id = socket_id
        self.closed = 0
        self.found: list[str] = []  # in the channel that was joined last
        self.refusal: tuple[str, str, int] | None = None
        self._hub = hub
        hub.sockets[socket_id] = self

    def write(self, frames: bytes) -> None:
        if not self.closed:
            self.writes.append(frames)

    def send(self, message: bytes) -> None:
        self.write(text_frame(message))

    def kick(self, channel: str) -> None:
        self.leave(channel)

    def change(self, app: App) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        self.closed = code
        self.hang_up()

    # What a session does around the hub's calls

    def join(self, channel: str, member: Member | None = None) -> Channel:
        self._hub.join(self, channel, member)
        return self._hub.channels[channel]

    def joined(self, channel: str, member: Member | None, members: Mapping[str, Member]) -> None:
        self.channels[channel] = member
        self.found = list(members)

    def refused(self, channel: str, reason: str, status: int) -> None:
        self.refusal = (channel, reason, status)

    def leave(self, channel: str) -> None:
        self._hub.leave(self, channel)
        self.channels.pop(channel, None)

    def hang_up(self) -> None:
        self._hub.disconnect(self, self.socket_id)
        self.channels.clear()

    # What was heard

    @property
    def heard(self) -> list[Any]:
        """The data of all events so far, in order."""
        return [data for write in self.writes for data in payloads(write)]

    @property
    def heard_by_write(self) -> list[list[Any]]:
        return [payloads(write) for write in self.writes]


def payloads(frames: bytes) -> list[Any]:
    """The decoded `data` of each of the joined frames."""
    found = []
    while frames:
        assert frames[0] == 0x81
        size, start = frames[1], 2
        if size == 126:
            size, start = int.from_bytes(frames[2:4]), 4
        found.append(json.loads(json.loads(frames[start : start + size])["data"]))
        frames = frames[start + size :]
    return found


def publish(hub: Hub, channel: str, data: object, except_socket: str | None = None) -> None:
    hub.deliver(channel, encode("e", json.dumps(data), channel), except_socket)


async def turn() -> None:
    """Let the event loop finish what is published in this turn and the next."""
    for _ in range(2):
        await asyncio.sleep(0)


# Fan-out


async def test_an_event_reaches_the_subscribers_of_its_channel_and_nobody_else() -> None:
    hub = Hub(APP)
    ali, john, eve = (Listener(hub, f"{n}.1") for n in (1, 2, 3))
    ali.join("news")
    john.join("news")
    eve.join("weather")
    publish(hub, "news", "hello")
    await turn()
    assert ali.heard == john.heard == ["hello"]
    assert eve.writes == []


async def test_an_event_is_written_as_one_whole_websocket_text_frame() -> None:
    hub = Hub(APP)
    ali = Listener(hub)
    ali.join("news")
    hub.deliver("news", b'{"event":"e"}')
    await turn()
    assert ali.writes == [b"\x81\x0d" + b'{"event":"e"}']


async def test_an_event_for_a_channel_that_nobody_is_in_goes_nowhere() -> None:
    hub = Hub(APP)
    ali = Listener(hub)
    publish(hub, "news", "lost")
    ali.join("news")
    await turn()
    assert ali.writes == []


async def test_the_events_of_a_turn_reach_a_subscriber_in_one_write() -> None:
    hub = Hub(APP)
    ali, john = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("news")
    john.join("news")
    for n in range(5):
        publish(hub, "news", n)
    await turn()
    assert ali.heard_by_write == john.heard_by_write == [[0, 1, 2, 3, 4]]


async def test_what_is_published_a_turn_later_is_in_the_same_write() -> None:
    hub = Hub(APP)
    ali = Listener(hub)
    ali.join("news")
    publish(hub, "news", 0)
    asyncio.get_running_loop().call_soon(publish, hub, "news", 1)
    await turn()
    assert ali.heard_by_write == [[0, 1]]


async def test_nothing_is_written_before_the_turn_ends_and_all_of_it_then() -> None:
    hub = Hub(APP)
    ali = Listener(hub)
    ali.join("news")
    publish(hub, "news", 1)
    assert ali.writes == []
    await turn()
    assert ali.heard == [1]


async def test_each_turn_makes_its_own_write() -> None:
    hub = Hub(APP)
    ali = Listener(hub)
    ali.join("news")
    for n in range(3):
        publish(hub, "news", n)
        await turn()
    await turn()
    assert ali.heard_by_write == [[0], [1], [2]]


async def test_events_of_several_channels_arrive_in_publish_order_in_one_write() -> None:
    hub = Hub(APP)
    both, one = Listener(hub, "1.1"), Listener(hub, "2.1")
    both.join("a")
    both.join("b")
    both.join("c")
    one.join("b")
    for n, channel in enumerate("abacba"):
        publish(hub, channel, n)
    await turn()
    assert both.heard_by_write == [[0, 1, 2, 3, 4, 5]]
    assert one.heard_by_write == [[1, 4]]


async def test_one_joined_batch_serves_all_who_are_in_one_active_channel_only() -> None:
    hub = Hub(APP)
    listeners = [Listener(hub, f"{n}.1") for n in range(1, 4)]
    for listener in listeners:
        listener.join("news")
    listeners[0].join("silent")
    publish(hub, "news", 1)
    publish(hub, "news", 2)
    await turn()
    first, *others = (listener.writes[0] for listener in listeners)
    assert all(write is first for write in others), "joined once, not once per subscriber"


# The sender


async def test_the_sender_is_left_out_and_the_others_are_not() -> None:
    hub = Hub(APP)
    ali, john = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("news")
    john.join("news")
    publish(hub, "news", "mine", except_socket="1.1")
    await turn()
    assert ali.writes == []
    assert john.heard == ["mine"]


async def test_who_is_left_out_of_one_event_gets_the_rest_of_the_turn_in_order() -> None:
    hub = Hub(APP)
    ali, john = Listener(hub, "1.1"), Listener(hub, "2.1")
    for listener in (ali, john):
        listener.join("a")
        listener.join("b")
    publish(hub, "a", 1)
    publish(hub, "b", 2, except_socket="1.1")
    publish(hub, "a", 3, except_socket="2.1")
    publish(hub, "b", 4)
    await turn()
    assert ali.heard_by_write == [[1, 3, 4]]
    assert john.heard_by_write == [[1, 2, 4]]


@pytest.mark.parametrize("stranger", ["9.9", "", "no id at all"])
async def test_leaving_out_a_connection_that_is_not_there_leaves_out_nobody(stranger: str) -> None:
    hub = Hub(APP)
    ali = Listener(hub, "1.1")
    ali.join("news")
    publish(hub, "news", 1, except_socket=stranger)
    await turn()
    assert ali.heard == [1]


async def test_leaving_out_a_connection_that_is_elsewhere_leaves_out_nobody() -> None:
    hub = Hub(APP)
    ali, eve = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("news")
    eve.join("weather")
    publish(hub, "news", 1, except_socket="2.1")
    await turn()
    assert ali.heard == [1]
    assert eve.writes == []


# Joining and leaving


async def test_who_joins_in_the_middle_of_a_turn_gets_what_comes_after() -> None:
    hub = Hub(APP)
    ali, late = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("news")
    publish(hub, "news", 1)
    late.join("news")
    publish(hub, "news", 2)
    await turn()
    assert ali.heard == [1, 2]
    assert late.heard == [2]


async def test_who_leaves_in_the_middle_of_a_turn_gets_what_came_before() -> None:
    hub = Hub(APP)
    ali, leaver = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("news")
    leaver.join("news")
    publish(hub, "news", 1)
    leaver.leave("news")
    publish(hub, "news", 2)
    await turn()
    assert ali.heard == [1, 2]
    assert leaver.heard == [1]


async def test_leaving_and_coming_back_within_a_turn_misses_what_came_between() -> None:
    hub = Hub(APP)
    ali, restless = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("news")
    restless.join("news")
    publish(hub, "news", 1)
    restless.leave("news")
    publish(hub, "news", 2)
    restless.join("news")
    publish(hub, "news", 3)
    await turn()
    assert restless.heard == [1, 3]
    assert ali.heard == [1, 2, 3]


async def test_a_channel_given_up_and_taken_anew_within_a_turn_is_another_channel() -> None:
    hub = Hub(APP)
    ali, john = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("news")
    publish(hub, "news", 1)
    ali.leave("news")
    john.join("news")
    publish(hub, "news", 2)
    await turn()
    assert ali.heard == [1]
    assert john.heard == [2]


async def test_joining_twice_is_joining_once() -> None:
    hub = Hub(APP)
    ali = Listener(hub)
    assert ali.join("news") is ali.join("news")
    publish(hub, "news", 1)
    await turn()
    assert ali.heard == [1]
    ali.leave("news")
    assert "news" not in hub.channels


async def test_leaving_a_channel_one_is_not_in_does_nothing() -> None:
    hub = Hub(APP)
    ali, eve = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("news")
    eve.leave("news")
    eve.leave("nowhere")
    publish(hub, "news", 1)
    await turn()
    assert ali.heard == [1]
    assert list(hub.channels) == ["news"]


async def test_a_channel_lives_as_long_as_somebody_is_in_it() -> None:
    hub = Hub(APP)
    ali, john = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("news")
    john.join("news")
    ali.leave("news")
    assert "news" in hub.channels
    john.leave("news")
    assert hub.channels == {}


async def test_a_connection_that_ends_leaves_everything() -> None:
    hub = Hub(APP)
    ali, john = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("news")
    ali.join("presence-room", Member("ali"))
    john.join("presence-room", Member("john"))
    ali.hang_up()
    publish(hub, "news", "lost")
    await turn()
    assert hub.sockets == {"2.1": john}
    assert list(hub.channels) == ["presence-room"]
    assert john.heard == [{"user_id": "ali"}]
    # Closing is told twice: by us, and by the socket when it has gone.
    ali.hang_up()
    await turn()
    assert john.heard == [{"user_id": "ali"}]


# Presence


async def test_a_users_first_connection_is_told_to_the_others_and_not_to_itself() -> None:
    hub = Hub(APP)
    ali, john = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("presence-room", Member("ali", {"name": "Ali"}))
    await turn()
    john.join("presence-room", Member("john", {"name": "John"}))
    await turn()
    assert ali.heard == [{"user_id": "john", "user_info": {"name": "John"}}]
    assert john.writes == []
    assert b"pusher_internal:member_added" in ali.writes[0]


async def test_a_users_last_connection_is_told_to_the_others_and_no_other_is() -> None:
    hub = Hub(APP)
    ali, phone, laptop = (Listener(hub, f"{n}.1") for n in (1, 2, 3))
    ali.join("presence-room", Member("ali"))
    phone.join("presence-room", Member("john"))
    await turn()
    ali.writes.clear()
    laptop.join("presence-room", Member("john"))
    await turn()
    assert ali.writes == phone.writes == [], "a second connection of a user is no news"
    phone.leave("presence-room")
    await turn()
    assert ali.writes == laptop.writes == [], "he is still here"
    laptop.leave("presence-room")
    await turn()
    assert ali.heard == [{"user_id": "john"}]
    assert b"pusher_internal:member_removed" in ali.writes[0]


async def test_both_connections_of_a_user_get_every_event() -> None:
    hub = Hub(APP)
    phone, laptop = Listener(hub, "1.1"), Listener(hub, "2.1")
    channel = phone.join("presence-room", Member("john"))
    laptop.join("presence-room", Member("john"))
    publish(hub, "presence-room", 1)
    publish(hub, "presence-room", 2, except_socket="1.1")
    await turn()
    assert phone.heard == [1]
    assert laptop.heard == [1, 2]
    assert list(channel.members) == ["john"]


async def test_what_the_first_connection_said_of_a_user_stands() -> None:
    hub = Hub(APP)
    phone, laptop = Listener(hub, "1.1"), Listener(hub, "2.1")
    phone.join("presence-room", Member("john", {"from": "phone"}))
    channel = laptop.join("presence-room", Member("john", {"from": "laptop"}))
    assert channel.members == {"john": Member("john", {"from": "phone"})}


async def test_a_user_who_comes_back_within_a_turn_is_seen_going_and_coming() -> None:
    hub = Hub(APP)
    ali, john = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("presence-room", Member("ali"))
    john.join("presence-room", Member("john", 1))
    await turn()
    ali.writes.clear()
    john.leave("presence-room")
    john.join("presence-room", Member("john", 2))
    await turn()
    assert ali.heard == [{"user_id": "john"}, {"user_id": "john", "user_info": 2}]
    assert john.writes == []


async def test_members_come_and_go_in_order_with_the_events_around_them() -> None:
    hub = Hub(APP)
    ali, john = Listener(hub, "1.1"), Listener(hub, "2.1")
    ali.join("presence-room", Member("ali"))
    publish(hub, "presence-room", "before")
    john.join("presence-room", Member("john"))
    publish(hub, "presence-room", "between")
    john.leave("presence-room")
    publish(hub, "presence-room", "after")
    await turn()
    added, removed = {"user_id": "john", "user_info": None}, {"user_id": "john"}
    assert ali.heard == ["before", added, "between", removed, "after"]
    assert john.heard == ["between"]


async def test_a_full_presence_channel_takes_no_new_user_but_more_of_those_it_has() -> None:
    hub = Hub(App(id="1", key="k", secret="s", max_presence_members=2))
    ali, john, eve, phone = (Listener(hub, f"{n}.1") for n in (1, 2, 3, 4))
    ali.join("presence-room", Member("ali"))
    john.join("presence-room", Member("john"))
    await turn()
    ali.writes.clear()
    eve.join("presence-room", Member("eve"))
    reason = "A presence channel has at most 2 users"
    assert eve.refusal == ("presence-room", reason, 403)
    assert not eve.channels
    publish(hub, "presence-room", "for members")
    await turn()
    assert ali.heard == ["for members"], "who was not let in is not announced"
    assert eve.writes == []
    channel = phone.join("presence-room", Member("john"))
    assert list(channel.members) == ["ali", "john"]
    ali.leave("presence-room")
    eve.join("presence-room", Member("eve"))
    assert list(channel.members) == ["john", "eve"]


async def test_only_presence_channels_know_their_users() -> None:
    hub = Hub(APP)
    ali = Listener(hub)
    assert ali.join("presence-room", Member("ali")).is_presence
    for name in ("news", "private-room", "private-encrypted-room", "#server-to-user-1"):
        channel = ali.join(name)
        assert not channel.is_presence
        assert channel.members == {}


# All of it against the plain way


class Publish(NamedTuple):
    channel: str
    excluded: int | None


class Join(NamedTuple):
    listener: int
    channel: str


class Leave(NamedTuple):
    listener: int
    channel: str


class Turn(NamedTuple):
    pass


PEOPLE = 4
CHANNELS = st.sampled_from(["a", "b", "c"])
LISTENERS = st.integers(0, PEOPLE - 1)
STEPS = st.lists(
    st.one_of(
        st.builds(Publish, CHANNELS, st.none() | LISTENERS),
        st.builds(Publish, CHANNELS, st.none()),
        st.builds(Join, LISTENERS, CHANNELS),
        st.builds(Leave, LISTENERS, CHANNELS),
        st.builds(Turn),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_batches_deliver_exactly_what_sending_each_event_at_once_would(steps: list[Any]) -> None:
    asyncio.run(_compare(steps))


async def _compare(steps: list[Any]) -> None:
    hub = Hub(APP)
    listeners = [Listener(hub, f"{n}.1") for n in range(PEOPLE)]
    expected: list[list[int]] = [[] for _ in listeners]
    for number, step in enumerate(steps):
        match step:
            case Publish(channel, excluded):
                publish(hub, channel, number, None if excluded is None else f"{excluded}.1")
                for n, listener in enumerate(listeners):
                    if channel in listener.channels and n != excluded:
                        expected[n].append(number)
            case Join(n, channel):
                listeners[n].join(channel)
            case Leave(n, channel):
                listeners[n].leave(channel)
            case Turn():
                await turn()
    await turn()
    assert [listener.heard for listener in listeners] == expected


# What is kept


async def test_a_cache_channel_gives_its_last_event_to_who_joins_later() -> None:
    hub = Hub(APP)
    hub.trigger("cache-a", "e", "1")
    hub.trigger("cache-a", "e", "2")
    ali = Listener(hub)
    ali.join("cache-a")
    assert b'{"event":"e","data":"2","channel":"cache-a"}' in ali.writes[0]
    ali.join("private-cache-a")
    ali.join("news")
    assert b'{"event":"pusher:cache_miss","channel":"private-cache-a"}' in ali.writes[1]
    assert len(ali.writes) == 2


async def test_what_members_send_each_other_is_not_kept() -> None:
    hub = Hub(APP)
    publish(hub, "private-cache-a", 1)
    ali = Listener(hub)
    ali.join("private-cache-a")
    assert b"cache_miss" in ali.writes[0]


# How many there are


async def test_subscribers_are_told_how_many_they_are_where_the_application_wants_it() -> None:
    hub = Hub(msgspec.structs.replace(APP, subscription_counts=True))
    listeners = [Listener(hub, f"{n}.1") for n in range(3)]
    for listener in listeners:
        listener.join("a")
    await turn()
    await turn()
    assert [listener.heard for listener in listeners] == [[{"subscription_count": 3}]] * 3
    listeners[0].leave("a")
    await turn()
    await turn()
    assert listeners[1].heard[1:] == [{"subscription_count": 2}]
    presence = Listener(hub, "9.1")
    presence.join("presence-a", Member("1"))
    await turn()
    await turn()
    assert presence.heard == []


# What a backend does to users


async def test_all_connections_of_a_user_are_ended_and_no_others() -> None:
    hub = Hub(APP)
    signed_in, member, other = (Listener(hub, f"{n}.1") for n in range(3))
    hub.users.sign_in(signed_in, "7", ())
    hub.users.sign_in(other, "8", ())
    member.join("presence-a", Member("7"))
    other.join("presence-a", Member("8"))
    hub.terminate("7")
    assert [each.closed for each in (signed_in, member, other)] == [4009, 4009, 0]
    assert list(hub.sockets.values()) == [other]
    hub.terminate("nobody")


async def test_who_is_sent_away_has_been_told_what_was_published_before() -> None:
    hub = Hub(APP)
    ali = Listener(hub)
    ali.join("presence-a", Member("7"))
    publish(hub, "presence-a", "before")
    hub.terminate("7")
    publish(hub, "presence-a", "after")
    await turn()
    assert ali.closed == 4009
    assert ali.heard == ["before"]


async def test_a_user_is_taken_out_of_one_channel_and_stays_in_the_others() -> None:
    hub = Hub(APP)
    signed_in, member, other = (Listener(hub, f"{n}.1") for n in range(3))
    hub.users.sign_in(signed_in, "7", ())
    for listener in (signed_in, other):
        listener.join("private-a")
    for listener, id_ in ((member, "7"), (other, "8")):
        listener.join("presence-a", Member(id_))
    hub.kick("private-a", user_id="7")
    hub.kick("presence-a", user_id="7")
    assert not signed_in.channels
    assert not member.channels
    assert set(other.channels) == {"private-a", "presence-a"}
    hub.kick("private-a", socket_id="2.1")
    hub.kick("private-a", socket_id="no such socket")
    assert set(other.channels) == {"presence-a"}

"""Time by hand, and a wire that loses, delays and breaks to order."""

from __future__ import annotations

import pytest

from antiphon.errors import ServerReportedError, SubscriptionFailed
from antiphon.protocol.client import ClientProtocol, State
from antiphon.protocol.closing import Action
from antiphon.protocol.events import (
    Closed,
    Connected,
    MemberAdded,
    MemberRemoved,
    SubscriptionSucceeded,
)
from antiphon.protocol.frames import Event
from antiphon.protocol.presence import Member
from antiphon.protocol.server import Close
from antiphon.settings import App
from antiphon.testing import Clock, Wire


def test_a_clock_alone_is_a_number_that_grows() -> None:
    clock = Clock(100.0)
    machine = ClientProtocol(clock.now, handshake_timeout=10.0)
    clock.advance(9.5)
    assert clock.now == 109.5
    assert machine.handle_timer(clock.now) is None
    clock.advance(0.5)
    assert isinstance(machine.handle_timer(clock.now), Closed)


def test_without_a_delay_everything_is_there_at_once() -> None:
    wire = Wire(Clock())
    wire.subscribe("private-room")
    wire.publish("private-room", "OrderShipped", {"id": 5})
    assert wire.news() == [
        Connected("1.1", 120.0),
        SubscriptionSucceeded("private-room", {}),
        Event(name="OrderShipped", channel="private-room", raw={"id": 5}),
    ]
    assert wire.news() == []


def test_a_delay_is_kept_to_the_moment_each_way() -> None:
    clock = Clock()
    wire = Wire(clock, delay=0.5)
    clock.advance(0.499)
    assert wire.news() == []
    clock.advance(0.001)
    assert wire.news() == [Connected("1.1", 120.0)]
    wire.subscribe("news")
    clock.advance(0.75)
    assert (list(wire.server.channels), wire.news()) == (["news"], [])
    clock.advance(0.25)
    assert wire.news() == [SubscriptionSucceeded("news", {})]


def test_a_frame_never_overtakes_one_that_was_sent_before() -> None:
    clock = Clock()
    wire = Wire(clock)
    wire.subscribe("news")
    wire.news()
    wire.delay = 2.0
    wire.publish("news", "first")
    wire.delay = 0.0
    wire.publish("news", "second")
    clock.advance(1.9)
    assert wire.news() == []
    clock.advance(0.1)
    assert [event.name for event in wire.news() if isinstance(event, Event)] == ["first", "second"]


def test_a_server_whose_greeting_takes_too_long_is_given_up() -> None:
    clock = Clock()
    wire = Wire(clock, delay=60.0, handshake_timeout=10.0)
    clock.advance(59.0)
    (closed,) = wire.news()
    assert isinstance(closed, Closed)
    assert (closed.action, closed.opened) == (Action.BACK_OFF, False)
    assert clock.now == 59.0


def test_pings_keep_a_slow_wire_open_for_a_week() -> None:
    clock = Clock()
    wire = Wire(clock, delay=9.0, handshake_timeout=10.0, activity_timeout=60.0, pong_timeout=30.0)
    clock.advance(7 * 24 * 3600)
    assert wire.news() == [Connected("1.1", 60.0)]
    assert wire.closed_by_server is None


def test_a_pong_that_is_later_than_allowed_ends_the_connection_at_that_moment() -> None:
    clock = Clock()
    wire = Wire(clock, activity_timeout=60.0, pong_timeout=5.0)
    wire.news()
    wire.delay = 2.6
    clock.advance(64.999)
    assert wire.news() == []
    clock.advance(0.001)
    (closed,) = wire.news()
    assert isinstance(closed, Closed)
    assert (closed.action, closed.code) == (Action.RECONNECT, 4201)


def test_the_next_frames_are_lost_and_no_more() -> None:
    wire = Wire(Clock())
    wire.subscribe("news")
    wire.news()
    wire.drop(2, to="client")
    for name in ("one", "two", "three"):
        wire.publish("news", name)
    assert [event.name for event in wire.news() if isinstance(event, Event)] == ["three"]


def test_frames_are_lost_one_way_until_the_wire_is_mended() -> None:
    wire = Wire(Clock())
    wire.drop(to="server")
    wire.subscribe("news")
    assert wire.server.channels == {}
    wire.send_to_client('{"event":"still","channel":"news"}')
    assert wire.news()[-1] == Event(name="still", channel="news")
    wire.drop(0)
    wire.subscribe("news")
    assert list(wire.server.channels) == ["news"]


def test_a_pulled_cable_is_noticed_by_each_end_for_itself() -> None:
    clock = Clock()
    app = App(id="1", key="k", secret="s", activity_timeout=30)
    wire = Wire(clock, app, pong_timeout=5.0)
    wire.news()
    wire.drop()
    clock.advance(34.9)
    assert (wire.news(), wire.closed_by_server) == ([], None)
    clock.advance(0.1)
    (closed,) = wire.news()
    assert isinstance(closed, Closed)
    clock.advance(24.9)
    assert wire.closed_by_server is None
    clock.advance(0.1)
    assert wire.closed_by_server == Close(4201, "Pong reply not received in time")


def test_a_server_learns_at_once_that_a_client_has_given_up() -> None:
    clock = Clock()
    ann = Wire(clock, pong_timeout=5.0)
    bob = ann.another()
    ann.subscribe("presence-room", '{"user_id":"ann"}')
    bob.subscribe("presence-room", '{"user_id":"bob"}')
    bob.news()
    ann.drop(to="client")
    clock.advance(125.0)
    assert isinstance(ann.news()[-1], Closed)
    assert bob.news() == [MemberRemoved("presence-room", "ann")]
    assert ann.closed_by_server is None


def test_a_cut_without_a_code_loses_what_is_on_its_way() -> None:
    clock = Clock()
    wire = Wire(clock)
    wire.subscribe("news")
    wire.news()
    wire.delay = 1.0
    wire.publish("news", "late")
    wire.cut()
    (closed,) = wire.news()
    assert isinstance(closed, Closed)
    assert (closed.action, closed.code, closed.clean) == (Action.BACK_OFF, None, False)
    clock.advance(1000)
    assert wire.news() == []
    assert wire.server.channels == {}


def test_a_close_with_a_code_arrives_behind_what_is_on_its_way() -> None:
    clock = Clock()
    wire = Wire(clock)
    wire.subscribe("news")
    wire.news()
    wire.delay = 1.0
    wire.publish("news", "last")
    wire.cut(4100, "Over capacity")
    assert wire.closed_by_server == Close(4100, "Over capacity")
    assert wire.news() == []
    clock.advance(1.0)
    event, closed = wire.news()
    assert event == Event(name="last", channel="news")
    assert closed == Closed(Action.BACK_OFF, 4100, "Over capacity", True, True)


def test_a_connection_ends_once() -> None:
    clock = Clock()
    wire = Wire(clock)
    wire.cut(4200)
    wire.cut(4000)
    wire.cut()
    clock.advance(1000)
    assert sum(isinstance(outcome, Closed) for outcome in wire.news()) == 1
    assert wire.closed_by_server == Close(4200, "")
    wire.send_to_server('{"event":"pusher:ping"}')
    assert wire.news() == []


@pytest.mark.parametrize("code", [None, 4200])
def test_users_meet_in_a_presence_channel_and_see_each_other_go(code: int | None) -> None:
    ann = Wire(Clock())
    bob, phone = ann.another(), ann.another()
    ann.subscribe("presence-room", '{"user_id":"ann"}')
    for wire in (bob, phone):
        wire.subscribe("presence-room", '{"user_id":"bob","user_info":{"name":"Bob"}}')
    member = Member("bob", {"name": "Bob"})
    assert ann.news()[-1] == MemberAdded("presence-room", member)
    assert phone.news()[-1] == SubscriptionSucceeded(
        "presence-room", {"ann": Member("ann"), "bob": member}
    )
    bob.cut(code)
    assert ann.news() == []
    phone.unsubscribe("presence-room")
    assert ann.news() == [MemberRemoved("presence-room", "bob")]


def test_a_client_event_reaches_the_others_with_their_delay() -> None:
    clock = Clock()
    ann = Wire(clock)
    bob = ann.another(delay=1.0)
    clock.advance(1.0)
    for wire in (ann, bob):
        wire.subscribe("private-room")
        clock.advance(2.0)
        wire.news()
    ann.trigger("private-room", "client-typing", {"on": True})
    clock.advance(0.9)
    assert bob.news() == []
    clock.advance(0.1)
    assert bob.news() == [Event(name="client-typing", channel="private-room", raw={"on": True})]
    assert ann.news() == []


def test_wires_of_different_servers_do_not_meet() -> None:
    clock = Clock()
    here, there = Wire(clock), Wire(clock)
    for wire in (here, there):
        wire.subscribe("news")
        wire.news()
    here.publish("news", "event")
    assert len(here.news()) == 1
    assert there.news() == []


def test_what_a_machine_is_asked_directly_goes_out_when_the_clock_advances() -> None:
    clock = Clock()
    wire = Wire(clock)
    wire.client.sign_in("k:wrong", '{"id":"ann"}')
    wire.client.subscribe("private-room", "k:wrong")
    assert len(wire.news()) == 1
    clock.advance()
    reported, failed = wire.news()
    assert isinstance(reported, ServerReportedError)
    assert isinstance(failed, SubscriptionFailed)
    assert wire.client.state is State.OPEN

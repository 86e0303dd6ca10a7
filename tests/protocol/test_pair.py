"""Both machines wired back to back: what one sends is what the other receives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.errors import MalformedFrame, ServerReportedError, SubscriptionFailed
from antiphon.protocol import signing
from antiphon.protocol.client import State
from antiphon.protocol.closing import Action
from antiphon.protocol.events import (
    Closed,
    Connected,
    MemberAdded,
    SignedIn,
    SubscriptionSucceeded,
)
from antiphon.protocol.frames import Event, encode
from antiphon.protocol.presence import Member
from antiphon.protocol.server import Close
from antiphon.settings import App
from antiphon.testing import Clock, Wire

from .hostile import FRAGMENTS


def wire(**options: Any) -> Wire:
    """A connection to an application with these limits, at the beginning of time."""
    return Wire(Clock(), App(id="1", key="key", secret="secret", **options))


def test_the_handshake_opens_both_ends() -> None:
    pair = wire(activity_timeout=30)
    assert pair.news() == [Connected("1.1", 30.0)]
    assert pair.client.state is State.OPEN
    assert pair.client.socket_id == pair.server.socket_id


@pytest.mark.parametrize("channel", ["news", "cache-news", "private-room", "private-encrypted-x"])
def test_a_channel_is_joined_and_left(channel: str) -> None:
    pair = wire()
    pair.subscribe(channel)
    assert pair.news()[1:] == [SubscriptionSucceeded(channel, {})]
    assert list(pair.server.channels) == [channel]
    pair.unsubscribe(channel)
    assert pair.news() == []
    assert pair.server.channels == {}


def test_two_users_see_each_other() -> None:
    ann = wire()
    bob = ann.another()
    ann.subscribe("presence-room", '{"user_id":"ann","user_info":{"name":"Ann"}}')
    bob.subscribe("presence-room", '{"user_id":7}')
    one, other = Member("ann", {"name": "Ann"}), Member("7")
    assert ann.news()[1:] == [
        SubscriptionSucceeded("presence-room", {"ann": one}),
        MemberAdded("presence-room", other),
    ]
    assert bob.news()[1:] == [SubscriptionSucceeded("presence-room", {"ann": one, "7": other})]


def test_a_client_event_reaches_the_others_and_names_its_sender() -> None:
    ann = wire()
    bob = ann.another()
    ann.subscribe("presence-room", '{"user_id":"ann"}')
    bob.subscribe("presence-room", '{"user_id":"bob"}')
    ann.news(), bob.news()
    ann.trigger("presence-room", "client-typing", {"on": True})
    assert ann.news() == []
    assert bob.news() == [
        Event(name="client-typing", channel="presence-room", raw={"on": True}, user_id="ann")
    ]


def test_a_user_signs_in_and_joins_the_own_channel() -> None:
    pair = wire()
    pair.subscribe("#server-to-user-ann")
    failed = pair.news()[-1]
    assert isinstance(failed, SubscriptionFailed)
    assert (failed.channel, failed.code) == ("#server-to-user-ann", 401)
    user_data = '{"id":"ann","watchlist":["bob"]}'
    pair.client.sign_in(signing.user_auth("key", "secret", "1.1", user_data), user_data)
    pair.flush()
    assert pair.news() == [SignedIn("ann", {"id": "ann", "watchlist": ["bob"]})]
    pair.subscribe("#server-to-user-ann")
    assert pair.news() == [SubscriptionSucceeded("#server-to-user-ann", {})]


def test_a_signature_for_the_last_connection_is_refused_on_the_next() -> None:
    first = wire()
    second = first.another()
    auth = signing.channel_auth("key", "secret", "1.1", "private-room")
    for pair in (first, second):
        pair.client.subscribe("private-room", auth)
        pair.flush()
    assert first.news()[-1] == SubscriptionSucceeded("private-room", {})
    failed = second.news()[-1]
    assert isinstance(failed, SubscriptionFailed)
    assert (failed.channel, failed.code) == ("private-room", 401)
    assert second.client.state is State.OPEN


def test_a_refused_client_event_leaves_the_connection_as_it_was() -> None:
    pair = wire(client_events=False)
    pair.subscribe("private-room")
    pair.trigger("private-room", "client-typing", {})
    reported = pair.news()[-1]
    assert isinstance(reported, ServerReportedError)
    assert reported.code == 4301
    assert pair.client.state is State.OPEN


def test_a_refused_sign_in_leaves_the_connection_open() -> None:
    pair = wire()
    pair.client.sign_in("key:wrong", '{"id":"ann"}')
    pair.flush()
    reported = pair.news()[-1]
    assert isinstance(reported, ServerReportedError)
    assert reported.code == 4009
    assert pair.client.state is State.OPEN


def test_a_refused_sign_in_fails_no_subscription() -> None:
    pair = wire()
    pair.client.sign_in("key:wrong", '{"id":"ann"}')
    auth = signing.channel_auth("key", "secret", "1.1", "private-room")
    pair.client.subscribe("private-room", auth)
    pair.flush()
    news = pair.news()
    assert SubscriptionSucceeded("private-room", {}) in news
    assert not any(isinstance(outcome, SubscriptionFailed) for outcome in news)


@pytest.mark.parametrize(("server", "client"), [(30, 120.0), (120, 20.0), (60, 60.0)])
def test_a_quiet_connection_stays_open_for_days(server: int, client: float) -> None:
    clock = Clock()
    app = App(id="1", key="key", secret="secret", activity_timeout=server)
    pair = Wire(clock, app, activity_timeout=client)
    clock.advance(3 * 24 * 3600)
    assert pair.news()[1:] == []
    assert pair.client.state is State.OPEN
    assert pair.closed_by_server is None


def test_a_broken_wire_is_noticed_by_both_ends() -> None:
    clock = Clock()
    app = App(id="1", key="key", secret="secret", activity_timeout=30)
    pair = Wire(clock, app, pong_timeout=5.0)
    clock.advance(10)
    pair.drop()
    clock.advance(35)
    (closed,) = pair.news()[1:]
    assert isinstance(closed, Closed)
    assert (closed.action, closed.code) == (Action.RECONNECT, 4201)
    clock.advance(60)
    assert pair.closed_by_server == Close(4201, "Pong reply not received in time")


def test_a_server_that_closes_says_what_to_do() -> None:
    pair = wire()
    pair.cut(4200, "Restarting")
    assert pair.news()[1:] == [Closed(Action.RECONNECT, 4200, "Restarting", True, True)]


@settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.sampled_from(FRAGMENTS), times=st.integers(1, 3))
def test_no_client_event_that_one_may_send_breaks_the_others(data: str, times: int) -> None:
    sender = wire()
    receiver = sender.another()
    for pair in (sender, receiver):
        pair.subscribe("private-room")
        pair.news()
    text = f'{{"event":"client-x","channel":"private-room","data":{data}}}'
    for _ in range(times):
        sender.send_to_server(text)
    assert all(isinstance(outcome, Event | MalformedFrame) for outcome in receiver.news())
    assert receiver.client.state is State.OPEN
    sender.trigger("private-room", "client-y", 1)
    assert receiver.news() == [Event(name="client-y", channel="private-room", raw=1)]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(derandomize=True, deadline=None)
@given(
    data=json_values,
    name=st.text(max_size=150).map("client-".__add__),
    user=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
)
def test_whatever_one_client_sends_the_other_receives(data: Any, name: str, user: str) -> None:
    ann = wire()
    bob = ann.another()
    member = encode("", {"user_id": user})[len('{"event":"","data":') : -1].decode()
    for pair in (ann, bob):
        pair.subscribe("presence-room", member)
    assert bob.news()[-1] == SubscriptionSucceeded("presence-room", {user: Member(user)})
    ann.trigger("presence-room", name, data)
    assert bob.news() == [Event(name=name, channel="presence-room", raw=data, user_id=user)]

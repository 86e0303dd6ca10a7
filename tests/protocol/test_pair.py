"""Both machines wired back to back: what one sends is what the other receives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.errors import MalformedFrame, ServerReportedError, SubscriptionFailed
from antiphon.protocol import signing
from antiphon.protocol.client import ClientProtocol, Received, State
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
from antiphon.protocol.server import (
    Close,
    Outcome,
    Relay,
    Reply,
    ServerProtocol,
    Subscribe,
    Unsubscribe,
)
from antiphon.settings import App

from .hostile import FRAGMENTS


class Pair:
    """A client and a server with a wire of length nothing between them."""

    def __init__(self, room: Room, socket_id: str, **options: float) -> None:
        self.room = room
        self.client = ClientProtocol(room.now, **options)  # type: ignore[arg-type]
        self.server = ServerProtocol(room.app, socket_id, room.now)
        self.received: list[Received] = []
        self.cut = False
        self.to_client(self.server.connection_established())

    def to_client(self, message: bytes) -> None:
        if self.cut:
            return
        outcome = self.client.receive_message(message, self.room.now)
        if outcome is not None:
            self.received.append(outcome)
        self.flush()

    def flush(self) -> None:
        """Hand over what the client has to send, and do what the server makes of it."""
        for message in self.client.data_to_send():
            if not self.cut:
                self.do(self.server.receive_message(message.decode(), self.room.now))

    def do(self, outcome: Outcome | None) -> None:
        match outcome:
            case Reply(message):
                self.to_client(message)
            case Subscribe():
                self.room.join(self, outcome)
            case Unsubscribe(channel):
                del self.server.channels[channel]
            case Relay(channel, message):
                self.room.publish(channel, message, but=self)
            case Close(code, reason):
                closed = self.client.receive_close(None if self.cut else code, reason)
                if closed is not None:
                    self.received.append(closed)

    def tick(self) -> None:
        """Let time act on both ends."""
        if self.client.state is State.CLOSED:
            return
        self.do(self.server.handle_timer(self.room.now))
        outcome = self.client.handle_timer(self.room.now)
        if outcome is not None:
            self.received.append(outcome)
        self.flush()

    def subscribe(self, channel: str, channel_data: str | None = None) -> None:
        auth = None
        if channel.startswith(("private-", "presence-")):
            app, socket_id = self.room.app, self.client.socket_id
            assert socket_id is not None
            auth = signing.channel_auth(app.key, app.secret, socket_id, channel, channel_data)
        self.client.subscribe(channel, auth, channel_data)
        self.flush()

    def trigger(self, channel: str, event: str, data: Any) -> None:
        self.client.trigger(channel, event, data)
        self.flush()

    def news(self) -> list[Received]:
        """What has been received since the last look."""
        news, self.received = self.received, []
        return news


class Room:
    """Several pairs at one application, and one clock for all."""

    def __init__(self, **limits: Any) -> None:
        self.app = App(id="1", key="key", secret="secret", **limits)
        self.now = 0.0
        self.pairs: list[Pair] = []

    def connect(self, **options: float) -> Pair:
        pair = Pair(self, f"{len(self.pairs) + 1}.5", **options)
        self.pairs.append(pair)
        return pair

    def join(self, pair: Pair, request: Subscribe) -> None:
        members: dict[str, Member] | None = None
        if request.member is not None:
            here = [other.server.channels.get(request.channel) for other in self.pairs]
            members = {member.id: member for member in [*here, request.member] if member}
            data = {"user_id": request.member.id, "user_info": request.member.info}
            added = encode("pusher_internal:member_added", data, request.channel)
            self.publish(request.channel, added, but=pair)
        pair.to_client(pair.server.accept(request, members))

    def publish(self, channel: str, message: bytes, but: Pair | None = None) -> None:
        for pair in self.pairs:
            if pair is not but and channel in pair.server.channels:
                pair.to_client(message)

    def wait(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / step)):
            self.now += step
            for pair in self.pairs:
                pair.tick()


def test_the_handshake_opens_both_ends() -> None:
    pair = Room(activity_timeout=30).connect()
    assert pair.news() == [Connected("1.5", 30.0)]
    assert pair.client.state is State.OPEN
    assert pair.client.socket_id == pair.server.socket_id


@pytest.mark.parametrize("channel", ["news", "cache-news", "private-room", "private-encrypted-x"])
def test_a_channel_is_joined_and_left(channel: str) -> None:
    pair = Room().connect()
    pair.subscribe(channel)
    assert pair.news()[1:] == [SubscriptionSucceeded(channel, {})]
    assert list(pair.server.channels) == [channel]
    pair.client.unsubscribe(channel)
    pair.flush()
    assert pair.news() == []
    assert pair.server.channels == {}


def test_two_users_see_each_other() -> None:
    room = Room()
    ann, bob = room.connect(), room.connect()
    ann.subscribe("presence-room", '{"user_id":"ann","user_info":{"name":"Ann"}}')
    bob.subscribe("presence-room", '{"user_id":7}')
    one, other = Member("ann", {"name": "Ann"}), Member("7")
    assert ann.news()[1:] == [
        SubscriptionSucceeded("presence-room", {"ann": one}),
        MemberAdded("presence-room", other),
    ]
    assert bob.news()[1:] == [SubscriptionSucceeded("presence-room", {"ann": one, "7": other})]


def test_a_client_event_reaches_the_others_and_names_its_sender() -> None:
    room = Room()
    ann, bob = room.connect(), room.connect()
    ann.subscribe("presence-room", '{"user_id":"ann"}')
    bob.subscribe("presence-room", '{"user_id":"bob"}')
    ann.news(), bob.news()
    ann.trigger("presence-room", "client-typing", {"on": True})
    assert ann.news() == []
    assert bob.news() == [
        Event(name="client-typing", channel="presence-room", raw={"on": True}, user_id="ann")
    ]


def test_a_user_signs_in_and_joins_the_own_channel() -> None:
    pair = Room().connect()
    pair.subscribe("#server-to-user-ann")
    failed = pair.news()[-1]
    assert isinstance(failed, SubscriptionFailed)
    assert (failed.channel, failed.code) == ("#server-to-user-ann", 401)
    user_data = '{"id":"ann","watchlist":["bob"]}'
    pair.client.sign_in(signing.user_auth("key", "secret", "1.5", user_data), user_data)
    pair.flush()
    assert pair.news() == [SignedIn("ann", {"id": "ann", "watchlist": ["bob"]})]
    pair.subscribe("#server-to-user-ann")
    assert pair.news() == [SubscriptionSucceeded("#server-to-user-ann", {})]


def test_a_signature_for_the_last_connection_is_refused_on_the_next() -> None:
    room = Room()
    first, second = room.connect(), room.connect()
    auth = signing.channel_auth("key", "secret", "1.5", "private-room")
    for pair in (first, second):
        pair.client.subscribe("private-room", auth)
        pair.flush()
    assert first.news()[-1] == SubscriptionSucceeded("private-room", {})
    failed = second.news()[-1]
    assert isinstance(failed, SubscriptionFailed)
    assert (failed.channel, failed.code) == ("private-room", 401)
    assert second.client.state is State.OPEN


def test_a_refused_client_event_leaves_the_connection_as_it_was() -> None:
    pair = Room(client_events=False).connect()
    pair.subscribe("private-room")
    pair.trigger("private-room", "client-typing", {})
    reported = pair.news()[-1]
    assert isinstance(reported, ServerReportedError)
    assert reported.code == 4301
    assert pair.client.state is State.OPEN


def test_a_refused_sign_in_leaves_the_connection_open() -> None:
    pair = Room().connect()
    pair.client.sign_in("key:wrong", '{"id":"ann"}')
    pair.flush()
    reported = pair.news()[-1]
    assert isinstance(reported, ServerReportedError)
    assert reported.code == 4009
    assert pair.client.state is State.OPEN


def test_a_refused_sign_in_fails_no_subscription() -> None:
    pair = Room().connect()
    pair.client.sign_in("key:wrong", '{"id":"ann"}')
    auth = signing.channel_auth("key", "secret", "1.5", "private-room")
    pair.client.subscribe("private-room", auth)
    pair.flush()
    news = pair.news()
    assert SubscriptionSucceeded("private-room", {}) in news
    assert not any(isinstance(outcome, SubscriptionFailed) for outcome in news)


@pytest.mark.parametrize(("server", "client"), [(30, 120.0), (120, 20.0), (60, 60.0)])
def test_a_quiet_connection_stays_open_for_days(server: int, client: float) -> None:
    room = Room(activity_timeout=server)
    pair = room.connect(activity_timeout=client)
    room.wait(6 * 3600, step=0.5)
    assert pair.news()[1:] == []
    assert pair.client.state is State.OPEN


def test_a_cut_wire_is_noticed_by_both_ends() -> None:
    room = Room(activity_timeout=30)
    pair = room.connect(pong_timeout=5.0)
    room.wait(10)
    pair.cut = True
    room.wait(35)
    (closed,) = pair.news()[1:]
    assert isinstance(closed, Closed)
    assert (closed.action, closed.code) == (Action.RECONNECT, 4201)
    outcomes = []
    for _ in range(200):
        room.now += 0.5
        outcomes.append(pair.server.handle_timer(room.now))
    ends = [outcome for outcome in outcomes if isinstance(outcome, Close)]
    assert ends[0] == Close(4201, "Pong reply not received in time")


def test_a_server_that_closes_says_what_to_do() -> None:
    pair = Room().connect()
    pair.do(Close(4200, "Restarting"))
    assert pair.news()[1:] == [Closed(Action.RECONNECT, 4200, "Restarting", True, True)]


@settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.sampled_from(FRAGMENTS), times=st.integers(1, 3))
def test_no_client_event_that_one_may_send_breaks_the_others(data: str, times: int) -> None:
    room = Room()
    sender, receiver = room.connect(), room.connect()
    for pair in (sender, receiver):
        pair.subscribe("private-room")
        pair.news()
    text = f'{{"event":"client-x","channel":"private-room","data":{data}}}'
    for _ in range(times):
        sender.do(sender.server.receive_message(text, room.now))
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
    room = Room()
    ann, bob = room.connect(), room.connect()
    member = encode("", {"user_id": user})[len('{"event":"","data":') : -1].decode()
    for pair in (ann, bob):
        pair.subscribe("presence-room", member)
    assert bob.news()[-1] == SubscriptionSucceeded("presence-room", {user: Member(user)})
    ann.trigger("presence-room", name, data)
    assert bob.news() == [Event(name=name, channel="presence-room", raw=data, user_id=user)]

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.protocol import signing
from antiphon.protocol.presence import Member
from antiphon.protocol.server import (
    Close,
    Outcome,
    Relay,
    Reply,
    ServerProtocol,
    SignIn,
    Subscribe,
    Unsubscribe,
    cache_miss,
    subscription_count,
    watchlist_events,
)
from antiphon.settings import App

from .hostile import LARGE, assembled_text, depths, hostile_text, nested
from .recordings import client_frames, names

APP = App(id="1", key="key", secret="secret")
SOCKET = "12.34"
PONG = Reply(b'{"event":"pusher:pong","data":{}}')
PING = Reply(b'{"event":"pusher:ping","data":{}}')
ANN = '{"user_id":"ann","user_info":{"name":"Ann"}}'


def server(now: float = 0.0, **limits: Any) -> ServerProtocol:
    return ServerProtocol(App(id="1", key="key", secret="secret", **limits), SOCKET, now)


def receive(machine: ServerProtocol, frame: Any, now: float = 1.0) -> Outcome | None:
    return machine.receive_message(json.dumps(frame), now)


def ask(
    machine: ServerProtocol,
    channel: Any,
    channel_data: Any = None,
    auth: Any = None,
) -> Outcome | None:
    """Ask to join a channel, well signed where no other `auth` is given."""
    data = {"channel": channel}
    if channel_data is not None:
        data["channel_data"] = channel_data
    if auth is not None:
        data["auth"] = auth
    elif str(channel).startswith(("private-", "presence-")):
        data["auth"] = signing.channel_auth("key", "secret", SOCKET, channel, channel_data)
    return receive(machine, {"event": "pusher:subscribe", "data": data})


def join(machine: ServerProtocol, channel: str, channel_data: str | None = None) -> None:
    outcome = ask(machine, channel, channel_data)
    assert isinstance(outcome, Subscribe)
    machine.accept(outcome)


def whisper(
    machine: ServerProtocol,
    channel: Any = "private-room",
    data: Any = None,
    event: str = "client-typing",
    now: float = 1.0,
) -> Outcome | None:
    return receive(machine, {"event": event, "channel": channel, "data": data}, now)


def read(outcome: Outcome | bytes | None) -> dict[str, Any]:
    """The frame in a reply, or a frame, its data decoded."""
    message = outcome.message if isinstance(outcome, Reply) else outcome
    assert isinstance(message, bytes)
    frame: dict[str, Any] = json.loads(message)
    if isinstance(frame.get("data"), str):
        frame["data"] = json.loads(frame["data"])
    return frame


def error(outcome: Outcome | bytes | None) -> tuple[int, str]:
    """Code and words of a `pusher:error`."""
    frame = read(outcome)
    assert frame["event"] == "pusher:error"
    assert set(frame) == {"event", "data"}
    assert set(frame["data"]) == {"code", "message"}
    return frame["data"]["code"], frame["data"]["message"]


def rejected(outcome: Outcome | bytes | None, channel: str) -> tuple[int, str]:
    """Status and words of a `pusher:subscription_error`."""
    frame = read(outcome)
    assert frame["event"] == "pusher:subscription_error"
    assert frame["channel"] == channel
    assert frame["data"]["type"] == "AuthError"
    return frame["data"]["status"], frame["data"]["error"]


# The beginning


def test_the_first_message_names_the_socket_and_the_timeout() -> None:
    assert server(activity_timeout=30).connection_established() == (
        b'{"event":"pusher:connection_established",'
        b'"data":"{\\"socket_id\\":\\"12.34\\",\\"activity_timeout\\":30}"}'
    )


def test_a_machine_is_small() -> None:
    # One lives in memory for every connection.
    assert not hasattr(server(), "__dict__")


@pytest.mark.parametrize(
    "ping", [{"event": "pusher:ping"}, {"event": "pusher:ping", "data": {}, "channel": "x"}]
)
def test_a_ping_is_answered(ping: Any) -> None:
    assert receive(server(), ping) == PONG


def test_a_pong_needs_no_answer() -> None:
    assert receive(server(), {"event": "pusher:pong", "data": {}}) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        '{"event":"pusher:ping"',
        "[]",
        "42",
        "null",
        "{}",
        '{"event":null}',
        '{"event":5}',
        '{"event":""}',
        '{"event":{"a":1}}',
        '{"event":"pusher:ping","channel":5}',
        '{"event":"\ud800"}',
        "[" * 1_000_000,
    ],
)
def test_a_message_that_is_no_frame_is_answered_with_4200_and_no_more(text: str) -> None:
    machine = server()
    code, message = error(machine.receive_message(text, 1.0))
    assert code == 4200
    assert message.startswith("Invalid message format: ")
    assert receive(machine, {"event": "pusher:ping"}) == PONG


@pytest.mark.parametrize(
    "event",
    ["pusher:made_up", "pusher:error", "pusher_internal:member_added", "message", "PUSHER:PING"],
)
def test_an_event_that_no_client_may_send_is_answered_with_4200(event: str) -> None:
    code, message = error(receive(server(), {"event": event, "channel": "news", "data": {}}))
    assert (code, message) == (4200, f"Unknown event '{event}'")


def test_an_unknown_name_is_quoted_in_part() -> None:
    _, message = error(receive(server(), {"event": "e" * 100_000}))
    assert message == f"Unknown event '{'e' * 80}'"


# Channels


@pytest.mark.parametrize("channel", ["news", "cache-news", "c" * 200, "ok_-=@,.;1"])
def test_a_public_channel_is_open_to_all(channel: str) -> None:
    assert ask(server(), channel) == Subscribe(channel)


@pytest.mark.parametrize(
    "channel", ["private-room", "private-cache-room", "private-encrypted-vault", "private-"]
)
def test_a_private_channel_is_open_to_who_has_its_signature(channel: str) -> None:
    assert ask(server(), channel) == Subscribe(channel)
    assert ask(server(), channel, channel_data="signed, too") == Subscribe(channel)


@pytest.mark.parametrize("channel", ["presence-room", "presence-cache-room"])
def test_a_presence_channel_is_joined_as_the_user_that_was_signed(channel: str) -> None:
    assert ask(server(), channel, ANN) == Subscribe(channel, Member("ann", {"name": "Ann"}))


@pytest.mark.parametrize("auth", ["", "key:", "key:00", "other:" + "0" * 64, "\ud83d\ude00", "key"])
@pytest.mark.parametrize(
    ("channel", "channel_data"), [("private-room", None), ("presence-room", ANN)]
)
def test_a_wrong_signature_opens_no_channel(
    channel: str, channel_data: str | None, auth: str
) -> None:
    machine = server()
    status, reason = rejected(ask(machine, channel, channel_data, auth), channel)
    assert status == 401
    assert "signature" in reason
    assert machine.channels == {}


@pytest.mark.parametrize("channel", ["private-room", "presence-room"])
def test_no_signature_opens_no_channel(channel: str) -> None:
    frame = {"event": "pusher:subscribe", "data": {"channel": channel, "auth": None}}
    assert rejected(receive(server(), frame), channel)[0] == 401


def test_a_signature_for_another_socket_opens_no_channel() -> None:
    auth = signing.channel_auth("key", "secret", "12.35", "private-room")
    assert rejected(ask(server(), "private-room", auth=auth), "private-room")[0] == 401


def test_a_signature_for_other_channel_data_opens_no_channel() -> None:
    auth = signing.channel_auth("key", "secret", SOCKET, "presence-room", ANN)
    changed = ANN.replace("ann", "bob")
    outcome = ask(server(), "presence-room", changed, auth)
    assert rejected(outcome, "presence-room")[0] == 401


@pytest.mark.parametrize("channel_data", [None, "", "nojson", "[]", "{}", '{"user_id":null}'])
def test_a_presence_channel_needs_a_user(channel_data: str | None) -> None:
    status, reason = rejected(ask(server(), "presence-room", channel_data), "presence-room")
    assert status == 422
    assert "user_id" in reason


def test_a_user_id_that_is_a_number_becomes_text() -> None:
    assert ask(server(), "presence-room", '{"user_id":7}') == Subscribe(
        "presence-room", Member("7")
    )


def test_the_size_of_a_member_is_counted_in_bytes() -> None:
    channel_data = '{"user_id":"é"}'  # 15 characters, 16 bytes
    outcome = ask(server(max_member_size=16), "presence-room", channel_data)
    assert isinstance(outcome, Subscribe)
    outcome = ask(server(max_member_size=15), "presence-room", channel_data)
    assert rejected(outcome, "presence-room") == (413, "channel_data may have 15 bytes")


def test_the_length_of_a_channel_name_is_the_applications_to_set() -> None:
    assert isinstance(ask(server(max_channel_name=5), "12345"), Subscribe)
    assert error(ask(server(max_channel_name=5), "123456"))[0] == 4200


@pytest.mark.parametrize("channel", ["", "has space", "#bare", "c" * 201, "ünïcode", "a:b"])
def test_a_name_that_is_none_is_answered_with_4200(channel: str) -> None:
    code, message = error(ask(server(), channel))
    assert code == 4200
    assert message.startswith("Invalid subscription: ")


@pytest.mark.parametrize(
    "frame",
    [
        {"event": "pusher:subscribe"},
        {"event": "pusher:subscribe", "channel": "news"},
        {"event": "pusher:subscribe", "data": None},
        {"event": "pusher:subscribe", "data": {}},
        {"event": "pusher:subscribe", "data": []},
        {"event": "pusher:subscribe", "data": 5},
        {"event": "pusher:subscribe", "data": "news"},
        {"event": "pusher:subscribe", "data": "{bad"},
        {"event": "pusher:subscribe", "data": {"channel": None}},
        {"event": "pusher:subscribe", "data": {"channel": 5}},
        {"event": "pusher:subscribe", "data": {"channel": ["a"]}},
        {"event": "pusher:subscribe", "data": {"channel": "news", "auth": 5}},
        {"event": "pusher:subscribe", "data": {"channel": "news", "channel_data": {}}},
        {"event": "pusher:subscribe", "data": nested(2_000)},
    ],
)
def test_a_subscription_that_cannot_be_read_is_answered_with_4200(frame: Any) -> None:
    code, message = error(receive(server(), frame))
    assert code == 4200
    assert message.startswith("Invalid subscription: ")


def test_the_data_may_be_a_json_string() -> None:
    frame = {"event": "pusher:subscribe", "data": '{"channel":"news"}'}
    assert receive(server(), frame) == Subscribe("news")


def test_nobody_is_in_a_channel_before_it_is_accepted() -> None:
    machine = server()
    request = ask(machine, "news")
    assert isinstance(request, Subscribe)
    assert machine.channels == {}
    assert machine.accept(request) == (
        b'{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"news"}'
    )
    assert machine.channels == {"news": None}


def test_who_joins_a_presence_channel_is_told_who_is_there() -> None:
    machine = server()
    request = ask(machine, "presence-room", ANN)
    assert isinstance(request, Subscribe)
    ann, bob = Member("ann", {"name": "Ann"}), Member("7")
    frame = read(Reply(machine.accept(request, {"ann": ann, "7": bob})))
    assert frame == {
        "event": "pusher_internal:subscription_succeeded",
        "channel": "presence-room",
        "data": {
            "presence": {
                "ids": ["ann", "7"],
                "hash": {"ann": {"name": "Ann"}, "7": None},
                "count": 2,
            }
        },
    }
    assert machine.channels == {"presence-room": ann}


def test_a_channel_may_be_refused_from_outside() -> None:
    message = server().reject("presence-room", "It is full", 403)
    assert rejected(Reply(message), "presence-room") == (403, "It is full")


def test_who_asks_twice_is_answered_twice_and_is_in_once() -> None:
    machine = server()
    join(machine, "presence-room", ANN)
    other = ask(machine, "presence-room", '{"user_id":"bob"}')
    assert other == Subscribe("presence-room", Member("ann", {"name": "Ann"}))
    assert ask(machine, "presence-room", auth="wrong") == other
    assert list(machine.channels) == ["presence-room"]


def test_the_number_of_channels_is_limited() -> None:
    machine = server(max_channels=2)
    join(machine, "a")
    join(machine, "private-b")
    assert rejected(ask(machine, "c"), "c") == (403, "A connection may join 2 channels")
    assert isinstance(ask(machine, "a"), Subscribe)  # it is in that one already
    machine.channels.pop("a")
    assert ask(machine, "c") == Subscribe("c")


def test_a_channel_is_left() -> None:
    machine = server()
    join(machine, "news")
    frame = {"event": "pusher:unsubscribe", "data": {"channel": "news"}}
    assert receive(machine, frame) == Unsubscribe("news")


def test_a_channel_may_be_left_on_the_way_into_it() -> None:
    frame = {"event": "pusher:unsubscribe", "data": {"channel": "news"}}
    assert receive(server(), frame) == Unsubscribe("news")


@pytest.mark.parametrize("data", [None, {}, [], "", 5, {"channel": 5}])
def test_an_unsubscription_that_cannot_be_read_is_answered_with_4200(data: Any) -> None:
    code, message = error(receive(server(), {"event": "pusher:unsubscribe", "data": data}))
    assert code == 4200
    assert message.startswith("Invalid unsubscription: ")


# Users


def sign_in(machine: ServerProtocol, user_data: str, auth: str | None = None) -> Outcome | None:
    if auth is None:
        auth = signing.user_auth("key", "secret", SOCKET, user_data)
    frame = {"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}}
    return receive(machine, frame)


def test_who_is_signed_in_is_told_so() -> None:
    machine = server()
    user_data = '{"id":"ann","user_info":{"name":"Ann"}}'
    outcome = sign_in(machine, user_data)
    assert isinstance(outcome, SignIn)
    assert (outcome.user_id, outcome.watchlist) == ("ann", ())
    (message,) = outcome.messages
    assert read(message) == {"event": "pusher:signin_success", "data": {"user_data": user_data}}
    assert machine.user == Member("ann", {"name": "Ann"})


def test_whom_one_watches_is_said_at_the_sign_in() -> None:
    outcome = sign_in(server(), '{"id":"ann","watchlist":["bob","eve","bob"]}')
    assert isinstance(outcome, SignIn)
    assert outcome.watchlist == ("bob", "eve")
    assert len(outcome.messages) == 1


def test_of_a_watchlist_that_is_too_long_the_beginning_is_watched() -> None:
    watchlist = [f"u{n}" for n in range(5)]
    user_data = json.dumps({"id": "ann", "watchlist": watchlist})
    outcome = sign_in(server(max_watchlist=3), user_data)
    assert isinstance(outcome, SignIn)
    assert outcome.watchlist == ("u0", "u1", "u2")
    success, complaint = outcome.messages
    assert read(success)["event"] == "pusher:signin_success"
    assert error(complaint) == (
        4302,
        "A watchlist has at most 3 users; the first 3 are watched",
    )


def test_who_is_signed_in_needs_no_channel_data_to_be_a_member() -> None:
    # As pusher-js 8.6 subscribes to presence channels after a sign-in.
    machine = server()
    ann = Member("ann", {"name": "Ann"})
    unsigned = ask(machine, "presence-room")
    assert rejected(unsigned, "presence-room") == (422, "channel_data must name a user_id")
    sign_in(machine, '{"id":"ann","user_info":{"name":"Ann"}}')
    assert ask(machine, "presence-room") == Subscribe("presence-room", ann)
    assert rejected(ask(machine, "presence-room", auth="key:0"), "presence-room")[0] == 401
    other = ask(machine, "presence-room", '{"user_id":"bob"}')
    assert other == Subscribe("presence-room", Member("bob"))


def test_what_concerns_several_is_told_as_pusher_tells_it() -> None:
    assert json.loads(cache_miss("cache-a")) == {"event": "pusher:cache_miss", "channel": "cache-a"}
    assert read(subscription_count("a", 3)) == {
        "event": "pusher_internal:subscription_count",
        "data": {"subscription_count": 3},
        "channel": "a",
    }
    assert read(watchlist_events(("online", ["a", "b"]), ("offline", ["c"]))) == {
        "event": "pusher_internal:watchlist_events",
        "data": {
            "events": [
                {"name": "online", "user_ids": ["a", "b"]},
                {"name": "offline", "user_ids": ["c"]},
            ]
        },
    }


# Being taken out


def test_who_is_taken_out_of_a_channel_is_told_so_and_cannot_come_back() -> None:
    machine = server()
    join(machine, "private-room")
    message = machine.bar("private-room")
    words = "This connection was taken out of the channel"
    assert rejected(message, "private-room") == (403, words)
    assert "private-room" not in machine.channels
    # Its signature would be the same as before.
    assert rejected(ask(machine, "private-room"), "private-room") == (403, words)
    assert ask(machine, "private-other") == Subscribe("private-other")


def test_who_is_not_in_a_channel_hears_nothing_and_cannot_join_it() -> None:
    machine = server()
    assert machine.bar("news") is None
    assert machine.bar("other") is None
    assert rejected(ask(machine, "news"), "news")[0] == 403


# Having to authorize


def late(machine: ServerProtocol) -> Outcome | None:
    return machine.handle_timer(10.0)


def test_who_does_not_show_who_it_is_in_time_is_closed() -> None:
    machine = server(authorization_timeout=10)
    join(machine, "news")
    assert machine.next_timer() == 10.0
    assert machine.handle_timer(9.9) is None
    assert late(machine) == Close(4009, "Connection not authorized within timeout")


def test_a_sign_in_or_a_private_channel_is_enough() -> None:
    machine = server(authorization_timeout=10)
    sign_in(machine, '{"id":"ann"}')
    assert late(machine) is None
    machine = server(authorization_timeout=10)
    join(machine, "private-room")
    assert late(machine) is None
    machine = server(authorization_timeout=10)
    ask(machine, "private-room", auth="key:0")
    assert isinstance(late(machine), Close)


def test_a_quiet_connection_is_pinged_also_where_it_must_authorize() -> None:
    machine = server(authorization_timeout=10, activity_timeout=5)
    assert machine.handle_timer(5.0) == PING
    assert machine.next_timer() == 10.0


def test_who_is_in_no_channel_for_too_long_is_closed() -> None:
    machine = server(subscription_timeout=20)
    assert machine.next_timer() == 20.0
    assert machine.handle_timer(19.9) is None
    assert machine.handle_timer(20.0) == Close(4202, "In no channel for too long")


def test_a_channel_or_a_sign_in_keeps_a_connection() -> None:
    machine = server(subscription_timeout=20)
    join(machine, "news")
    assert machine.handle_timer(20.0) is None
    assert machine.next_timer() == 40.0
    machine.channels.clear()
    assert machine.handle_timer(40.0) == Close(4202, "In no channel for too long")
    machine = server(subscription_timeout=20)
    sign_in(machine, '{"id":"ann"}')
    assert machine.handle_timer(20.0) is None


def test_a_quiet_connection_is_pinged_also_where_it_must_be_in_a_channel() -> None:
    machine = server(subscription_timeout=20, activity_timeout=15)
    join(machine, "news")
    assert machine.handle_timer(16.0) == PING
    machine.receive_activity(17.0)
    assert machine.handle_timer(40.0) == PING
    assert machine.next_timer() == 60.0


# Talking too much


def test_who_sends_more_messages_than_allowed_is_closed() -> None:
    machine = server(messages_per_second=2)
    ping = {"event": "pusher:ping", "data": {}}
    assert [receive(machine, ping, 1.0) for _ in range(20)] == [PONG] * 20
    assert receive(machine, ping, 9.9) == Close(4100, "More than 2 messages a second")


def test_after_ten_seconds_messages_are_counted_anew() -> None:
    machine = server(messages_per_second=2)
    for start in (0.0, 10.0, 20.0):
        for _ in range(20):
            assert machine.receive_message("nonsense", start) is not None
    assert isinstance(machine.receive_message("nonsense", 29.9), Close)


def test_without_a_limit_messages_are_not_counted() -> None:
    machine = server(messages_per_second=0)
    ping = {"event": "pusher:ping", "data": {}}
    assert all(receive(machine, ping, 1.0) == PONG for _ in range(5_000))


def test_the_channel_of_a_user_is_open_to_that_user_only() -> None:
    machine = server()
    mine, other = "#server-to-user-ann", "#server-to-user-bob"
    assert rejected(ask(machine, mine), mine) == (401, "Sign in as this user first")
    nobody = "#server-to-user-None"
    assert rejected(ask(machine, nobody), nobody)[0] == 401
    sign_in(machine, '{"id":"ann"}')
    assert ask(machine, mine) == Subscribe(mine)
    assert rejected(ask(machine, other), other)[0] == 401


@pytest.mark.parametrize("auth", ["", "key:", "key:" + "0" * 64])
def test_a_sign_in_with_a_wrong_signature_is_refused(auth: str) -> None:
    machine = server()
    expected = (4009, "The sign-in's signature is not valid")
    assert error(sign_in(machine, '{"id":"ann"}', auth)) == expected
    assert machine.user is None


def test_a_channels_signature_signs_nobody_in() -> None:
    user_data = '{"id":"ann"}'
    auth = signing.channel_auth("key", "secret", SOCKET, "presence-room", user_data)
    assert error(sign_in(server(), user_data, auth))[0] == 4009


@pytest.mark.parametrize(
    "user_data",
    [
        "",
        "nojson",
        "[]",
        "{}",
        '{"id":null}',
        '{"id":5}',
        '{"id":""}',
        nested(2_000),
        '{"id":"\\ud800"}',
    ],
)
def test_a_sign_in_without_an_id_is_refused(user_data: str) -> None:
    machine = server()
    assert error(sign_in(machine, user_data))[0] == 4009
    assert machine.user is None


@pytest.mark.parametrize(
    "data", [None, {}, [], "nojson", {"auth": "x"}, {"auth": "x", "user_data": {}}, {"auth": None}]
)
def test_a_sign_in_that_cannot_be_read_is_refused(data: Any) -> None:
    outcome = receive(server(), {"event": "pusher:signin", "data": data})
    assert error(outcome) == (4009, "Sign-in needs auth and user_data with an id")


def test_who_is_signed_in_may_do_so_again_but_as_nobody_else() -> None:
    machine = server()
    sign_in(machine, '{"id":"ann"}')
    assert isinstance(sign_in(machine, '{"id":"ann","more":1}'), SignIn)
    assert error(sign_in(machine, '{"id":"bob"}')) == (
        4009,
        "This connection is signed in as another user",
    )
    assert machine.user == Member("ann")


# Client events


def test_a_client_event_goes_to_the_others_as_it_came() -> None:
    machine = server()
    join(machine, "private-room")
    text = '{"event":"client-x","data":{"a" :1.0},"channel":"private-room","user_id":"bob","b":1}'
    message = b'{"event":"client-x","data":{"a" :1.0},"channel":"private-room"}'
    assert machine.receive_message(text, 1.0) == Relay(
        "private-room", message, "client-x", b'{"a" :1.0}', None
    )


def test_on_a_presence_channel_it_carries_who_sent_it() -> None:
    machine = server()
    join(machine, "presence-room", ANN)
    frame = {"event": "client-x", "channel": "presence-room", "user_id": "bob"}
    message = b'{"event":"client-x","channel":"presence-room","user_id":"ann"}'
    assert receive(machine, frame) == Relay("presence-room", message, "client-x", b"", "ann")


@pytest.mark.parametrize(
    "data", ["null", '"text"', r'"{\"a\":1}"', "[]", "5", "9" * 30, "1e9999", nested(300)]
)
def test_the_data_of_a_client_event_is_passed_on_untouched(data: str) -> None:
    machine = server()
    join(machine, "private-room")
    text = f'{{"event":"client-x","channel":"private-room","data":{data}}}'
    message = f'{{"event":"client-x","data":{data},"channel":"private-room"}}'
    assert machine.receive_message(text, 1.0) == Relay(
        "private-room", message.encode(), "client-x", data.encode(), None
    )


def test_only_members_send_client_events() -> None:
    refused = (4301, "The client is not a member of the specified channel")
    assert error(whisper(server())) == refused
    assert error(whisper(server(), channel=None)) == refused
    assert error(receive(server(), {"event": "client-x"})) == refused


@pytest.mark.parametrize("channel", ["news", "private-encrypted-vault", "cache-news"])
def test_client_events_go_through_private_and_presence_channels_only(channel: str) -> None:
    machine = server()
    join(machine, channel)
    code, message = error(whisper(machine, channel))
    assert code == 4301
    assert "private and presence channels only" in message


def test_an_application_may_forbid_client_events() -> None:
    machine = server(client_events=False)
    join(machine, "private-room")
    refused = (4301, "The app does not have client messaging enabled")
    assert error(whisper(machine)) == refused


def test_the_name_of_a_client_event_is_limited() -> None:
    machine = server()
    join(machine, "private-room")
    assert isinstance(whisper(machine, event="client-".ljust(200, "x")), Relay)
    code, message = error(whisper(machine, event="client-".ljust(201, "x")))
    assert code == 4301
    assert "1 to 200 characters" in message


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
def test_the_size_of_a_client_event_is_counted_in_bytes(letter: str) -> None:
    machine = server(max_event_size=1_000)
    join(machine, "private-room")

    def text(size: int) -> str:
        width = len(letter.encode())
        letters, dots = divmod(size - 2, width)
        data = '"' + "." * dots + letter * letters + '"'
        assert len(data.encode()) == size
        return f'{{"event":"client-x","channel":"private-room","data":{data}}}'

    assert isinstance(machine.receive_message(text(1_000), 1.0), Relay)
    code, message = error(machine.receive_message(text(1_001), 1.0))
    assert (code, message) == (4301, "A client event's data may have 1000 bytes")


def test_the_number_of_client_events_in_a_second_is_limited() -> None:
    machine = server(client_events_per_second=3)
    join(machine, "private-room")
    assert all(isinstance(whisper(machine, now=5.0), Relay) for _ in range(3))
    assert error(whisper(machine, now=5.99)) == (4301, "More than 3 client events in a second")
    assert isinstance(whisper(machine, now=6.0), Relay)


def test_refused_client_events_do_not_count() -> None:
    machine = server(client_events_per_second=1)
    join(machine, "private-room")
    for _ in range(5):
        assert error(whisper(machine, channel="private-other", now=5.0))[0] == 4301
    assert isinstance(whisper(machine, now=5.0), Relay)


def test_the_limit_holds_from_the_first_second_on() -> None:
    machine = server(5.0, client_events_per_second=1)
    join(machine, "private-room")
    assert isinstance(whisper(machine, now=5.0), Relay)
    assert error(whisper(machine, now=5.5)) == (4301, "More than 1 client events in a second")


def test_the_number_of_client_events_need_not_be_limited() -> None:
    machine = server(client_events_per_second=0)
    join(machine, "private-room")
    assert all(isinstance(whisper(machine, now=5.0), Relay) for _ in range(1_000))


def test_pings_and_subscriptions_are_not_counted_as_client_events() -> None:
    machine = server(client_events_per_second=1)
    join(machine, "private-room")
    for _ in range(5):
        assert receive(machine, {"event": "pusher:ping"}, 5.0) == PONG
    assert isinstance(whisper(machine, now=5.0), Relay)


# Time


def test_a_quiet_connection_is_pinged_then_closed() -> None:
    machine = server(100.0, activity_timeout=30)
    assert machine.next_timer() == 130.0
    assert machine.handle_timer(129.9) is None
    assert machine.handle_timer(130.0) == PING
    assert machine.next_timer() == 160.0
    assert machine.handle_timer(159.9) is None
    assert machine.handle_timer(160.0) == Close(4201, "Pong reply not received in time")


@pytest.mark.parametrize("text", ['{"event":"pusher:pong"}', '{"event":"pusher:ping"}', "noise"])
def test_any_message_puts_the_ping_off_and_answers_it(text: str) -> None:
    machine = server(0.0, activity_timeout=30)
    machine.receive_message(text, 20.0)
    assert machine.next_timer() == 50.0
    assert machine.handle_timer(50.0) == PING
    machine.receive_message(text, 51.0)
    assert machine.next_timer() == 81.0
    assert machine.handle_timer(80.0) is None
    assert machine.handle_timer(81.0) == PING


def test_a_ping_or_pong_of_the_websocket_is_a_sign_of_life() -> None:
    machine = server(0.0, activity_timeout=30)
    machine.receive_activity(20.0)
    assert machine.next_timer() == 50.0
    machine.handle_timer(50.0)
    machine.receive_activity(51.0)
    assert machine.next_timer() == 81.0


def test_a_pong_in_the_same_instant_answers_the_ping() -> None:
    # A clock may stand still for a while (15.6 ms on Windows), and a client may be near.
    machine = server(0.0, activity_timeout=100)
    assert machine.handle_timer(100.0) == PING
    receive(machine, {"event": "pusher:pong"}, 100.0)
    assert machine.next_timer() == 200.0
    assert machine.handle_timer(130.0) is None


def test_a_pong_of_the_websocket_in_the_same_instant_answers_the_ping() -> None:
    machine = server(0.0, activity_timeout=100)
    assert machine.handle_timer(100.0) == PING
    machine.receive_activity(100.0)
    assert machine.next_timer() == 200.0
    assert machine.handle_timer(130.0) is None


def test_a_ping_is_sent_once_and_not_at_every_look() -> None:
    machine = server(0.0, activity_timeout=30)
    assert [machine.handle_timer(now) for now in (30.0, 31.0, 59.0)] == [PING, None, None]


# Hostile clients

FRAMES = 100_000


def populated() -> ServerProtocol:
    """A machine with everything to be attacked: channels, a member, a signed-in user."""
    machine = server(max_channels=8)
    for channel in ("news", "private-room", "private-encrypted-room"):
        join(machine, channel)
    join(machine, "presence-room", ANN)
    sign_in(machine, '{"id":"ann"}')
    return machine


def check(machine: ServerProtocol, text: str, now: float) -> None:
    """One message gives one of the documented outcomes, and is done what it asks for."""
    outcome = machine.receive_message(text, now)
    match outcome:
        case Reply(message):
            assert json.loads(message)["event"].startswith("pusher:")
        case Subscribe(channel, member):
            members = None if member is None else {member.id: member}
            assert json.loads(machine.accept(outcome, members))["channel"] == channel
            assert channel in machine.channels
        case Unsubscribe(channel):
            machine.channels.pop(channel, None)
        case Relay(channel, message):
            assert message.startswith(b'{"event":"client-')
            assert channel in machine.channels
        case _:
            assert outcome is None
    assert machine.user == Member("ann")
    assert len(machine.channels) <= machine.app.max_channels


def test_a_hundred_thousand_hostile_messages_are_survived() -> None:
    seen = 0

    @settings(
        max_examples=FRAMES // 100,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(assembled_text, min_size=92, max_size=92),
        st.lists(hostile_text, min_size=8, max_size=8),
    )
    def attack(many: list[str], strange: list[str]) -> None:
        nonlocal seen
        machine = populated()
        for number, text in enumerate(many + strange):
            check(machine, text, number / 100)
            seen += 1
        assert receive(machine, {"event": "pusher:ping"}, 10.0) == PONG

    attack()
    assert seen >= FRAMES


@pytest.mark.parametrize("kind", LARGE)
def test_ten_megabytes_are_dealt_with_like_any_other_message(kind: str) -> None:
    machine = populated()
    check(machine, LARGE[kind](), 1.0)
    assert receive(machine, {"event": "pusher:ping"}) == PONG


@pytest.mark.parametrize(
    "shape",
    [
        '{"event":"e","data":%s}',
        '{"event":"client-x","channel":"private-room","data":%s}',
        '{"event":"client-x","channel":%s}',
        '{"event":"pusher:subscribe","data":%s}',
        '{"event":"pusher:subscribe","data":"%s"}',
        '{"event":"pusher:subscribe","data":{"channel":"news","extra":%s}}',
        '{"event":"pusher:signin","data":{"auth":"x","user_data":"%s"}}',
        '{"event":"pusher:signin","data":{"auth":"x","user_data":"{\\"id\\":%s}"}}',
    ],
)
def test_no_depth_of_nesting_raises(shape: str) -> None:
    for depth in depths():
        machine = populated()
        check(machine, shape.replace("%s", nested(depth)), 1.0)
        assert receive(machine, {"event": "pusher:ping"}) == PONG


def test_a_member_of_any_depth_that_is_let_in_can_be_told_to_the_others() -> None:
    let_in = 0
    for depth in depths():
        machine = server(max_member_size=10_000)
        outcome = ask(machine, "presence-room", f'{{"user_id":"1","user_info":{nested(depth)}}}')
        if isinstance(outcome, Subscribe):
            assert outcome.member is not None
            machine.accept(outcome, {"1": outcome.member})
            let_in += 1
        else:
            assert rejected(outcome, "presence-room")[0] == 422
    assert let_in > 500


@pytest.mark.parametrize("name", [n for n in names("soketi") if n.startswith("soketi/danger_")])
def test_what_stops_soketi_is_survived(name: str) -> None:
    frames = client_frames(name)
    assert frames
    machine = server()
    for text in frames:
        outcome = machine.receive_message(text, 1.0)
        assert outcome is None or isinstance(outcome, get_args(Outcome))
        assert not isinstance(outcome, Close)
        assert receive(machine, {"event": "pusher:ping"}) == PONG


@pytest.mark.parametrize("name", names("reverb", "soketi", "pusher-js"))
def test_what_real_clients_send_is_survived(name: str) -> None:
    machine = server()
    for text in client_frames(name):
        outcome = machine.receive_message(text, 1.0)
        if isinstance(outcome, Subscribe):
            machine.accept(outcome)
        else:
            assert outcome is None or isinstance(outcome, Reply | Unsubscribe)
    assert receive(machine, {"event": "pusher:ping"}) == PONG


# An application that changes


def changed(machine: ServerProtocol, now: float, **limits: Any) -> None:
    machine.change(App(id="1", key="key", secret="secret", **limits), now)


def test_a_limit_of_time_that_is_taken_away_holds_no_longer() -> None:
    for name in ("subscription_timeout", "authorization_timeout"):
        machine = server(**{name: 20})
        changed(machine, 10.0)
        assert machine.handle_timer(20.0) is None
        assert machine.next_timer() == 120.0


def test_a_limit_of_time_that_comes_is_counted_from_then_on() -> None:
    machine = server()
    changed(machine, 10.0, subscription_timeout=20, authorization_timeout=40)
    assert machine.next_timer() == 30.0
    join(machine, "news")
    assert machine.handle_timer(30.0) is None
    assert machine.handle_timer(50.0) == Close(4009, "Connection not authorized within timeout")


def test_who_has_shown_who_it_is_need_not_show_it_again() -> None:
    machine = server()
    join(machine, "private-room")
    changed(machine, 10.0, authorization_timeout=40)
    assert machine.handle_timer(50.0) is None
    machine = server()
    sign_in(machine, '{"id":"ann"}')
    changed(machine, 10.0, authorization_timeout=40)
    assert machine.handle_timer(50.0) is None


def test_another_limit_that_changes_gives_no_more_time() -> None:
    machine = server(subscription_timeout=20)
    changed(machine, 10.0, subscription_timeout=20, max_channels=1)
    assert machine.next_timer() == 20.0
    join(machine, "news")
    assert rejected(ask(machine, "other"), "other")[0] == 403


def test_pings_of_websocket_count_as_messages() -> None:
    machine = server(messages_per_second=2)
    assert [machine.receive_activity(1.0) for _ in range(20)] == [None] * 20
    assert machine.receive_activity(1.0) == Close(4100, "More than 2 messages a second")

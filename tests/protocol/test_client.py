from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.errors import (
    AntiphonError,
    MalformedFrame,
    ServerReportedError,
    SignInFailed,
    SubscriptionFailed,
)
from antiphon.protocol.client import (
    ClientProtocol,
    Received,
    State,
    adapted_activity_timeout,
)
from antiphon.protocol.closing import Action
from antiphon.protocol.events import (
    CacheMissed,
    Closed,
    Connected,
    MemberAdded,
    MemberRemoved,
    ProtocolEvent,
    SignedIn,
    SubscriptionCounted,
    SubscriptionSucceeded,
    WatchlistChanged,
)
from antiphon.protocol.frames import Event
from antiphon.protocol.presence import Member

from .hostile import LARGE, assembled_text, depths, hostile_payload, hostile_text, nested

HELLO = (
    r'{"event":"pusher:connection_established",'
    r'"data":"{\"socket_id\":\"12.34\",\"activity_timeout\":30}"}'
)
PONG = b'{"event":"pusher:pong","data":{}}'
PING = b'{"event":"pusher:ping","data":{}}'


def frame(event: str, data: Any = None, channel: str | None = None) -> str:
    """A frame as servers write it: data as JSON inside a JSON string."""
    fields: dict[str, Any] = {"event": event}
    if data is not None:
        fields["data"] = json.dumps(data)
    if channel is not None:
        fields["channel"] = channel
    return json.dumps(fields)


def error(code: Any, message: str = "words") -> str:
    return frame("pusher:error", {"code": code, "message": message})


def connected(now: float = 0.0, **options: float) -> ClientProtocol:
    client = ClientProtocol(now, **options)
    assert isinstance(client.receive_message(HELLO, now), Connected)
    return client


def receive(client: ClientProtocol, text: str, now: float = 1.0) -> Received | None:
    return client.receive_message(text, now)


# The handshake


def test_the_first_message_opens_the_connection() -> None:
    client = ClientProtocol(0.0)
    assert (client.state, client.socket_id) == (State.HANDSHAKE, None)
    assert receive(client, HELLO) == Connected("12.34", 30.0)
    assert (client.state, client.socket_id) == (State.OPEN, "12.34")


def test_the_handshake_may_come_as_an_object_and_as_bytes() -> None:
    hello = b'{"event":"pusher:connection_established","data":{"socket_id":"1.2"}}'
    assert ClientProtocol(0.0).receive_message(hello, 0.0) == Connected("1.2", 120.0)
    assert ClientProtocol(0.0).receive_message(memoryview(hello), 0.0) == Connected("1.2", 120.0)


@pytest.mark.parametrize(
    ("own", "server", "used"),
    [
        (120.0, 30, 30.0),
        (20.0, 30, 20.0),
        (120.0, 1.5, 1.5),
        # Less than a second is no time to be silent in, unless one wants it oneself.
        (120.0, 1, 1.0),
        (120.0, 0.5, 1.0),
        (0.5, 0.2, 0.5),
    ],
)
def test_the_smaller_of_both_activity_timeouts_is_used(
    own: float, server: float, used: float
) -> None:
    client = ClientProtocol(0.0, activity_timeout=own)
    hello = frame("pusher:connection_established", {"socket_id": "1.2", "activity_timeout": server})
    assert receive(client, hello) == Connected("1.2", used)
    assert client.activity_timeout == used


@pytest.mark.parametrize("timeout", [None, 0, -1, "30", [], {}])
def test_an_activity_timeout_that_is_none_costs_nothing(timeout: Any) -> None:
    hello = frame(
        "pusher:connection_established", {"socket_id": "1.2", "activity_timeout": timeout}
    )
    assert receive(ClientProtocol(0.0), hello) == Connected("1.2", 120.0)


def test_an_activity_timeout_beyond_all_floats_is_larger_than_the_own() -> None:
    hello = frame(
        "pusher:connection_established", {"socket_id": "1.2", "activity_timeout": 10**400}
    )
    assert receive(ClientProtocol(0.0), hello) == Connected("1.2", 120.0)


@pytest.mark.parametrize("socket_id", [None, "", 5, True, ["1.2"]])
def test_without_a_socket_id_there_is_no_connection(socket_id: Any) -> None:
    client = ClientProtocol(0.0)
    closed = receive(client, frame("pusher:connection_established", {"socket_id": socket_id}))
    assert closed == Closed(Action.BACK_OFF, None, "The server gave no socket_id.", False)
    assert client.state is State.CLOSED


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "[]",
        frame("message", {}),
        frame("pusher:ping"),
        frame("pusher:connection_established"),
        frame("pusher:connection_established", "text"),
        frame("pusher:connection_established", [1]),
    ],
)
def test_another_first_word_is_no_pusher_server(text: str) -> None:
    client = ClientProtocol(0.0)
    closed = receive(client, text)
    assert isinstance(closed, Closed)
    assert (closed.action, closed.code, closed.opened) == (Action.BACK_OFF, None, False)
    assert closed.reason.startswith("This is no Pusher server: ")
    assert client.state is State.CLOSED


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (4000, Action.USE_TLS),
        (4001, Action.STOP),
        (4009, Action.STOP),
        (4099, Action.STOP),
        (4100, Action.BACK_OFF),
        (4199, Action.BACK_OFF),
        (4200, Action.RECONNECT),
        (4299, Action.RECONNECT),
        (4300, Action.STOP),
        (3999, Action.BACK_OFF),
        (None, Action.BACK_OFF),
    ],
)
def test_an_error_in_place_of_the_handshake_closes_with_its_codes_action(
    code: int | None, action: Action
) -> None:
    client = ClientProtocol(0.0)
    assert receive(client, error(code)) == Closed(action, code, "words", False)
    # Reverb ends TCP without a code afterwards: all has been said.
    assert client.receive_close(1006) is None


def test_the_times_are_those_that_the_protocol_recommends() -> None:
    client = ClientProtocol(0.0)
    assert client.activity_timeout == 120.0
    assert client.next_timer() == 10.0
    client = connected(0.0)
    client.handle_timer(30.0)
    assert client.next_timer() == 60.0


def test_a_handshake_that_does_not_come_is_given_up() -> None:
    client = ClientProtocol(100.0, handshake_timeout=10.0)
    assert client.next_timer() == 110.0
    assert client.handle_timer(109.9) is None
    closed = client.handle_timer(110.0)
    assert isinstance(closed, Closed)
    assert (closed.action, closed.code, closed.opened) == (Action.BACK_OFF, None, False)
    assert "connection_established" in closed.reason
    assert client.next_timer() is None


def test_noise_on_the_line_does_not_put_the_handshake_off() -> None:
    client = ClientProtocol(0.0, handshake_timeout=10.0)
    client.receive_activity(9.0)
    assert client.next_timer() == 10.0


# Events


def test_an_event_of_the_application_is_passed_on_as_it_is() -> None:
    event = receive(connected(), frame("message", {"n": 1}, "room"))
    assert event == Event(name="message", channel="room", raw='{"n": 1}')


@pytest.mark.parametrize("name", ["pusher:made_up", "pusher_internal:x", "client-typing", "x"])
def test_an_unknown_name_is_an_event(name: str) -> None:
    assert receive(connected(), frame(name, 1, "room")) == Event(name=name, channel="room", raw="1")


def test_a_ping_is_answered_at_once() -> None:
    client = connected()
    for ping in (frame("pusher:ping"), frame("pusher:ping", {}), frame("pusher:ping", "text")):
        assert receive(client, ping) is None
    assert client.data_to_send() == [PONG] * 3
    assert client.data_to_send() == []


def test_a_pong_is_dealt_with_in_silence() -> None:
    client = connected()
    assert receive(client, frame("pusher:pong")) is None
    assert client.data_to_send() == []


def test_a_second_handshake_is_an_event_and_changes_nothing() -> None:
    client = connected()
    other = frame("pusher:connection_established", {"socket_id": "9.9", "activity_timeout": 1})
    assert isinstance(receive(client, other), Event)
    assert (client.socket_id, client.activity_timeout) == ("12.34", 30.0)


@pytest.mark.parametrize("text", ["not json", "", "[]", "{}", '{"event":5}', '{"data":"{}"}'])
def test_a_message_that_is_no_frame_is_reported_and_dropped(text: str) -> None:
    client = connected()
    assert isinstance(receive(client, text), MalformedFrame)
    assert receive(client, frame("message", 1)) == Event(name="message", raw="1")


# Subscriptions


def test_a_subscription_is_asked_for_with_what_was_signed() -> None:
    client = connected()
    client.subscribe("news")
    client.subscribe("private-room", "key:signature")
    client.subscribe("presence-room", "key:signature", '{"user_id":"1"}')
    client.unsubscribe("news")
    assert [json.loads(text) for text in client.data_to_send()] == [
        {"event": "pusher:subscribe", "data": {"channel": "news"}},
        {
            "event": "pusher:subscribe",
            "data": {"channel": "private-room", "auth": "key:signature"},
        },
        {
            "event": "pusher:subscribe",
            "data": {
                "channel": "presence-room",
                "auth": "key:signature",
                "channel_data": '{"user_id":"1"}',
            },
        },
        {"event": "pusher:unsubscribe", "data": {"channel": "news"}},
    ]


@pytest.mark.parametrize("data", ['"{}"', '""', "{}", "[]", "null"])
def test_a_success_may_carry_any_data(data: str) -> None:
    text = f'{{"event":"pusher_internal:subscription_succeeded","data":{data},"channel":"news"}}'
    assert receive(connected(), text) == SubscriptionSucceeded("news", {})


def test_a_success_on_a_presence_channel_says_who_is_there() -> None:
    data = {"presence": {"ids": [7], "hash": {"7": {"name": "Ann"}}, "count": 1}}
    text = frame("pusher_internal:subscription_succeeded", data, "presence-room")
    members = {"7": Member("7", {"name": "Ann"})}
    assert receive(connected(), text) == SubscriptionSucceeded("presence-room", members)


def test_only_presence_channels_have_members() -> None:
    data = {"presence": {"ids": ["7"], "hash": {}}}
    text = frame("pusher_internal:subscription_succeeded", data, "private-room")
    assert receive(connected(), text) == SubscriptionSucceeded("private-room", {})


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        ({"type": "AuthError", "error": "Not you", "status": 401}, 401, "Not you"),
        ({"type": "AuthError", "message": "Not you", "code": 4009}, 4009, "Not you"),
        ({"error": "", "message": "Not you", "status": "401"}, None, "Not you"),
        ({}, None, "no reason given"),
        ("text", None, "no reason given"),
        (None, None, "no reason given"),
    ],
)
def test_a_refused_subscription_is_reported_with_code_and_reason(
    data: Any, code: int | None, words: str
) -> None:
    failed = receive(connected(), frame("pusher:subscription_error", data, "private-room"))
    assert isinstance(failed, SubscriptionFailed)
    assert (failed.channel, failed.code) == ("private-room", code)
    assert "private-room" in str(failed)
    assert words in str(failed)


def test_a_reason_that_ends_in_a_full_stop_gets_no_second_one() -> None:
    # Seen on soketi 1.6: "The connection is unauthorized."
    data = {"error": "The connection is unauthorized.", "status": 401}
    failed = receive(connected(), frame("pusher:subscription_error", data, "private-room"))
    assert str(failed).endswith("unauthorized.")
    assert not str(failed).endswith("..")


def refused_in_band(client: ClientProtocol) -> object:
    outcome = receive(client, error(4009, "Connection is unauthorized"))
    if isinstance(outcome, SubscriptionFailed):
        assert outcome.code == 4009
        return outcome.channel
    assert isinstance(outcome, ServerReportedError)
    assert outcome.code == 4009
    return None


def test_a_refusal_without_a_channel_means_the_oldest_signed_subscription() -> None:
    # Seen on Reverb 1.10: 4009 in-band, no channel, in the order of the questions.
    client = connected()
    client.subscribe("news")
    client.subscribe("private-a", "k:s")
    client.subscribe("presence-b", "k:s", "{}")
    assert refused_in_band(client) == "private-a"
    assert refused_in_band(client) == "presence-b"
    assert refused_in_band(client) is None
    assert client.state is State.OPEN


def test_an_invalid_message_means_the_oldest_subscription_that_names_a_user() -> None:
    # Seen on Reverb 1.10: channel_data that is no JSON, or has no user_info, is answered so.
    client = connected()
    for channel in ("news", "private-a", "presence-b", "presence-c"):
        client.subscribe(channel, "k:s", "{}")
    failed = receive(client, error(4200, "Invalid message format"))
    assert isinstance(failed, SubscriptionFailed)
    assert (failed.channel, failed.code) == ("presence-b", 4200)
    # A network that is lost after that is one like any other.
    closed = client.receive_close(1006)
    assert closed is not None
    assert (closed.action, closed.code) == (Action.BACK_OFF, 1006)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (4301, "Invalid message format"),
        (4301, "Connection is unauthorized"),
        (4200, "Connection is unauthorized"),
        (4009, "Invalid message format"),
        (None, "Connection is unauthorized"),
    ],
)
def test_the_words_under_another_code_refuse_no_subscription(code: int | None, words: str) -> None:
    client = connected()
    client.subscribe("presence-a", "k:s", "{}")
    assert isinstance(receive(client, error(code, words)), ServerReportedError)


@pytest.mark.parametrize("words", ["Server closed. Please reconnect shortly.", "Unknown event"])
def test_4200_in_other_words_refuses_no_subscription(words: str) -> None:
    client = connected()
    client.subscribe("presence-a", "k:s", "{}")
    assert isinstance(receive(client, error(4200, words)), ServerReportedError)


def test_a_sign_in_that_a_server_does_not_know_refuses_no_subscription() -> None:
    # Seen on Reverb 1.10: every pusher:signin is answered with this.
    client = connected()
    client.sign_in("k:s", '{"id":"ann"}')
    client.subscribe("presence-a", "k:s", '{"user_id":"ann","user_info":{}}')
    reported = receive(client, error(4200, "Invalid message format"))
    assert isinstance(reported, SignInFailed)
    assert reported.code == 4200
    succeeded = frame("pusher_internal:subscription_succeeded", {}, "presence-a")
    assert receive(client, succeeded) == SubscriptionSucceeded("presence-a", {})


def test_a_sign_in_that_was_answered_is_not_meant() -> None:
    client = connected()
    client.sign_in("k:s", '{"id":"ann"}')
    receive(client, frame("pusher:signin_success", {"user_data": '{"id":"ann"}'}))
    client.subscribe("presence-a", "k:s", "{}")
    failed = receive(client, error(4200, "Invalid message format"))
    assert isinstance(failed, SubscriptionFailed)
    assert failed.channel == "presence-a"


def test_a_subscription_that_was_answered_is_not_meant() -> None:
    client = connected()
    client.subscribe("private-a", "k:s")
    client.subscribe("private-b", "k:s")
    client.subscribe("private-c", "k:s")
    receive(client, frame("pusher_internal:subscription_succeeded", {}, "private-a"))
    receive(client, frame("pusher:subscription_error", {}, "private-b"))
    assert refused_in_band(client) == "private-c"


def test_a_subscription_that_was_taken_back_is_not_meant() -> None:
    client = connected()
    client.subscribe("private-a", "k:s")
    client.unsubscribe("private-a")
    client.unsubscribe("never")
    assert refused_in_band(client) is None


def test_a_subscription_that_the_server_has_passed_over_is_not_meant() -> None:
    # Seen on Reverb 1.10: without user_info, `presence-a` gets error 4200 and never a success.
    # Answers come in order, so the success of `presence-b` says that `presence-a` has had its own.
    client = connected()
    client.subscribe("presence-a", "k:s", '{"user_id":"1"}')
    client.subscribe("presence-b", "k:s", '{"user_id":"1","user_info":{}}')
    receive(client, error(4200, "Invalid message format"))
    receive(client, frame("pusher_internal:subscription_succeeded", {}, "presence-b"))
    client.subscribe("private-c", "k:s")
    assert refused_in_band(client) == "private-c"


@pytest.mark.parametrize(
    "words",
    [
        "The client is not a member of the specified channel.",  # Reverb: a client event
        "Connection not authorized.",  # soketi: a sign-in
        "Connection not authorized within timeout.",
        "You got disconnected by the app.",
        "The sign-in's signature is not valid",  # antiphon
        "Sign-in needs auth and user_data with an id",
    ],
)
def test_4009_about_something_else_refuses_no_subscription(words: str) -> None:
    client = connected()
    client.subscribe("private-a", "k:s")
    assert isinstance(receive(client, error(4009, words)), ServerReportedError)
    assert refused_in_band(client) == "private-a"


# Further frames of the protocol


def test_the_number_of_subscribers_is_told() -> None:
    text = frame("pusher_internal:subscription_count", {"subscription_count": 3}, "news")
    assert receive(connected(), text) == SubscriptionCounted("news", 3)


def test_members_come_and_go() -> None:
    client = connected()
    added = frame("pusher_internal:member_added", {"user_id": 7, "user_info": 1}, "presence-x")
    removed = frame("pusher_internal:member_removed", {"user_id": 7}, "presence-x")
    assert receive(client, added) == MemberAdded("presence-x", Member("7", 1))
    assert receive(client, removed) == MemberRemoved("presence-x", "7")


def test_an_empty_cache_is_told() -> None:
    assert receive(connected(), frame("pusher:cache_miss", None, "cache-x")) == CacheMissed(
        "cache-x"
    )


def test_a_sign_in_is_asked_for_and_accepted() -> None:
    client = connected()
    client.sign_in("key:signature", '{"id":"7","user_info":{"name":"Ann"}}')
    (text,) = client.data_to_send()
    data = {"auth": "key:signature", "user_data": '{"id":"7","user_info":{"name":"Ann"}}'}
    assert json.loads(text) == {"event": "pusher:signin", "data": data}
    accepted = receive(client, frame("pusher:signin_success", data))
    assert accepted == SignedIn("7", {"id": "7", "user_info": {"name": "Ann"}})


@pytest.mark.parametrize("user_data", ['{"id":7}', {"id": "7"}])
def test_the_user_may_come_in_any_shape(user_data: Any) -> None:
    accepted = receive(connected(), frame("pusher:signin_success", {"user_data": user_data}))
    assert isinstance(accepted, SignedIn)
    assert accepted.user_id == "7"


def test_a_watchlist_tells_who_came_and_who_went() -> None:
    changes = [
        {"name": "online", "user_ids": ["1", 2]},
        {"name": "offline", "user_ids": ["3"]},
        {"name": "online", "user_ids": ["4"]},
        {"name": "away", "user_ids": ["5"]},
        {"name": "online", "user_ids": "6"},
        {"name": ["online"], "user_ids": ["7"]},
        {"user_ids": ["8"]},
        "online",
    ]
    text = frame("pusher_internal:watchlist_events", {"events": changes})
    assert receive(connected(), text) == WatchlistChanged(("1", "2", "4"), ("3",))


@pytest.mark.parametrize(
    ("event", "data", "channel"),
    [
        ("pusher_internal:subscription_succeeded", {}, None),
        ("pusher:subscription_error", {}, None),
        ("pusher_internal:subscription_count", {"subscription_count": 3}, None),
        ("pusher_internal:subscription_count", {"subscription_count": "3"}, "news"),
        ("pusher_internal:subscription_count", {}, "news"),
        ("pusher_internal:subscription_count", [3], "news"),
        ("pusher_internal:member_added", {"user_id": "7"}, None),
        ("pusher_internal:member_added", {"user_info": 1}, "presence-x"),
        ("pusher_internal:member_added", "7", "presence-x"),
        ("pusher_internal:member_removed", {"user_id": "7"}, None),
        ("pusher_internal:member_removed", {}, "presence-x"),
        ("pusher:cache_miss", None, None),
        ("pusher:signin_success", None, None),
        ("pusher:signin_success", [], None),
        ("pusher:signin_success", {}, None),
        ("pusher:signin_success", {"user_data": "nojson"}, None),
        ("pusher:signin_success", {"user_data": "{}"}, None),
        ("pusher:signin_success", {"user_data": '{"id":null}'}, None),
        ("pusher:signin_success", {"user_data": '{"id":""}'}, None),
        ("pusher:signin_success", {"user_data": '{"id":[]}'}, None),
        ("pusher:signin_success", {"user_data": '{"id":true}'}, None),
        ("pusher_internal:watchlist_events", None, None),
        ("pusher_internal:watchlist_events", {}, None),
        ("pusher_internal:watchlist_events", {"events": {}}, None),
    ],
)
def test_a_frame_of_the_protocol_that_lacks_its_meaning_is_an_event(
    event: str, data: Any, channel: str | None
) -> None:
    received = receive(connected(), frame(event, data, channel))
    assert isinstance(received, Event)
    assert (received.name, received.channel, received.data) == (event, channel, data)


def test_a_client_event_is_sent_to_the_channel() -> None:
    client = connected()
    client.trigger("private-room", "client-typing", {"who": "Ann"})
    assert client.data_to_send() == [
        b'{"event":"client-typing","data":{"who":"Ann"},"channel":"private-room"}'
    ]


# Errors in-band


@pytest.mark.parametrize("code", [4001, 4003, 4004, 4008, 4010, 4099])
def test_a_refusal_in_band_ends_an_open_connection_for_good(code: int) -> None:
    client = connected()
    assert receive(client, error(code)) == Closed(Action.STOP, code, "words", True)
    assert client.state is State.CLOSED


def test_a_demand_for_tls_in_band_ends_an_open_connection() -> None:
    assert receive(connected(), error(4000)) == Closed(Action.USE_TLS, 4000, "words", True)


@pytest.mark.parametrize("code", [1006, 3999, 4100, 4199, 4200, 4201, 4299, 4300, 4301, 9999])
def test_any_other_error_in_band_leaves_the_connection_open(code: int) -> None:
    client = connected()
    reported = receive(client, error(code))
    assert isinstance(reported, ServerReportedError)
    assert reported.code == code
    assert "words" in str(reported)
    assert client.state is State.OPEN


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        ('{"code":4301,"message":"words"}', 4301, "words"),
        (r'"{\"code\":4301,\"message\":\"words\"}"', 4301, "words"),
        ('{"code":"4301","message":"words"}', 4301, "words"),
        ('{"code":"x4301","message":"words"}', None, "words"),
        ('{"code":"430x","message":"words"}', None, "words"),
        ('{"code":"-430","message":"words"}', None, "words"),
        ('{"code":"","message":"words"}', None, "words"),
        ('{"code":"²","message":"words"}', None, "words"),
        ('{"code":"٤٣٠١","message":"words"}', None, "words"),
        ('{"code":true,"message":"words"}', None, "words"),
        ('{"code":4301.0,"message":"words"}', None, "words"),
        ('{"code":[4301],"message":"words"}', None, "words"),
        ('{"code":null,"message":5}', None, "5"),
        ('{"code":-4301,"message":"words"}', None, "words"),
        ('{"code":-1,"message":"words"}', None, "words"),
        ('{"code":0,"message":"words"}', 0, "words"),
        ('{"code":65535,"message":"words"}', 65535, "words"),
        ('{"code":65536,"message":"words"}', None, "words"),
        ('{"message":null}', None, "an error without a reason"),
        ("{}", None, "an error without a reason"),
        ('"words"', None, "words"),
        ('""', None, "an error without a reason"),
        ("null", None, "an error without a reason"),
        ("[1]", None, "[1]"),
    ],
)
def test_an_error_is_read_in_every_shape(data: str, code: int | None, words: str) -> None:
    reported = receive(connected(), f'{{"event":"pusher:error","data":{data}}}')
    assert isinstance(reported, ServerReportedError)
    assert reported.code == code
    assert str(reported).endswith(words)


@pytest.mark.parametrize("digits", [400, 4_300, 4_301, 5_000, 100_000])
def test_an_error_code_of_many_digits_is_an_error_like_any_other(digits: int) -> None:
    for code in ("9" * digits, '"' + "9" * digits + '"'):
        client = connected()
        text = f'{{"event":"pusher:error","data":{{"code":{code}}}}}'
        assert isinstance(receive(client, text), ServerReportedError | MalformedFrame)
        assert client.state is State.OPEN


def test_a_reader_that_was_busy_tells_the_server_that_it_lives() -> None:
    client = connected(0.0)
    client.keep_alive(20.0)
    assert client.data_to_send() == [PING]
    assert client.next_timer() == 50.0
    assert client.handle_timer(49.0) is None
    assert client.data_to_send() == []


# The end


@pytest.mark.parametrize(
    ("code", "action", "clean"),
    [
        (None, Action.BACK_OFF, False),
        (1000, Action.BACK_OFF, True),
        (1005, Action.BACK_OFF, True),
        (1006, Action.BACK_OFF, False),
        (1007, Action.BACK_OFF, True),
        (3999, Action.BACK_OFF, True),
        (4000, Action.USE_TLS, True),
        (4001, Action.STOP, True),
        (4099, Action.STOP, True),
        (4100, Action.BACK_OFF, True),
        (4199, Action.BACK_OFF, True),
        (4200, Action.RECONNECT, True),
        (4299, Action.RECONNECT, True),
        (4300, Action.STOP, True),
    ],
)
def test_the_code_of_the_close_frame_says_what_to_do(
    code: int | None, action: Action, clean: bool
) -> None:
    client = connected()
    assert client.receive_close(code, "bye") == Closed(action, code, "bye", True, clean)
    assert client.state is State.CLOSED


def test_an_end_without_words_gets_some() -> None:
    closed = connected().receive_close(None)
    assert closed is not None
    assert closed.reason == "The connection ended."
    closed = connected().receive_close(1006)
    assert closed is not None
    assert closed.reason == "The connection ended with code 1006."


def test_an_end_before_the_handshake_was_never_open() -> None:
    closed = ClientProtocol(0.0).receive_close(1006)
    assert closed is not None
    assert (closed.action, closed.opened) == (Action.BACK_OFF, False)


@pytest.mark.parametrize("code", [None, 1000, 1006, 3999])
@pytest.mark.parametrize(
    ("said", "action"),
    [
        (4100, Action.BACK_OFF),
        (4199, Action.BACK_OFF),
        (4200, Action.RECONNECT),
        (4201, Action.RECONNECT),
        (4299, Action.RECONNECT),
    ],
)
def test_an_error_said_last_is_the_reason_of_an_end_without_one(
    code: int | None, said: int, action: Action
) -> None:
    # Seen on Reverb 1.10: 4201 in-band, then TCP ends without a close frame.
    client = connected()
    receive(client, error(said))
    closed = client.receive_close(code)
    assert closed is not None
    assert (closed.action, closed.code) == (action, said)


@pytest.mark.parametrize(
    ("code", "action"), [(4000, Action.USE_TLS), (4001, Action.STOP), (4100, Action.BACK_OFF)]
)
def test_the_close_frame_has_the_last_word(code: int, action: Action) -> None:
    client = connected()
    receive(client, error(4200))
    closed = client.receive_close(code)
    assert closed is not None
    assert (closed.action, closed.code) == (action, code)


def test_an_error_that_other_messages_followed_is_forgotten() -> None:
    client = connected()
    receive(client, error(4200))
    receive(client, frame("message", 1))
    closed = client.receive_close(1006)
    assert closed is not None
    assert (closed.action, closed.code) == (Action.BACK_OFF, 1006)


@pytest.mark.parametrize("said", [4300, 4301, 4302, 4999])
def test_a_rejected_event_and_then_a_lost_network_is_no_refusal(said: int) -> None:
    # 4301 and its like concern one event and leave the connection open: a client that typed too
    # fast in a lift must come back.
    client = connected()
    receive(client, error(said, "Rate limit exceeded"))
    closed = client.receive_close(1006)
    assert closed is not None
    assert closed.action is Action.BACK_OFF


@pytest.mark.parametrize(
    "words",
    [
        "The client is not a member of the specified channel.",
        "The sign-in's signature is not valid",
    ],
)
def test_a_refused_request_and_then_a_lost_network_is_no_refusal(words: str) -> None:
    # 4009 in-band leaves the connection open: Reverb 1.10 on a client event to a channel one is
    # not in, antiphon on a sign-in.
    client = connected()
    receive(client, error(4009, words))
    closed = client.receive_close(None)
    assert closed is not None
    assert closed.action is Action.BACK_OFF


def test_a_refused_subscription_and_then_a_lost_network_is_no_refusal() -> None:
    client = connected()
    client.subscribe("private-a", "k:s")
    assert refused_in_band(client) == "private-a"
    closed = client.receive_close(1006)
    assert closed is not None
    assert (closed.action, closed.code) == (Action.BACK_OFF, 1006)


def test_nothing_comes_from_a_machine_that_is_closed() -> None:
    client = connected()
    client.subscribe("news")
    assert client.receive_close(1000) is not None
    assert client.data_to_send() == []
    assert receive(client, frame("pusher:ping")) is None
    assert receive(client, "not json") is None
    client.receive_activity(2.0)
    assert client.receive_close(1000) is None
    assert client.next_timer() is None
    assert client.handle_timer(1e9) is None
    assert client.data_to_send() == []


# Time


def test_a_quiet_connection_is_pinged_then_dropped() -> None:
    client = connected(100.0, pong_timeout=5.0)
    assert client.next_timer() == 130.0
    assert client.handle_timer(129.9) is None
    assert client.data_to_send() == []
    assert client.handle_timer(130.0) is None
    assert client.data_to_send() == [PING]
    assert client.next_timer() == 135.0
    assert client.handle_timer(134.9) is None
    closed = client.handle_timer(135.0)
    reason = "The server was silent for 35 seconds."
    assert closed == Closed(Action.RECONNECT, 4201, reason, True)
    assert client.state is State.CLOSED
    assert client.data_to_send() == []


def test_a_message_after_an_hour_of_silence_comes_from_a_connection_that_is_dead() -> None:
    # A laptop that slept: nobody was awake to ping, and the server has pruned it meanwhile.
    client = connected(0.0, pong_timeout=5.0)  # it pings after 30 s
    assert isinstance(receive(client, frame("message", 1), 35.0), Event)
    closed = receive(client, frame("message", 2), 3_635.0)
    assert isinstance(closed, Closed)
    assert (closed.action, closed.code) == (Action.RECONNECT, 4201)
    assert "3600 seconds" in closed.reason
    assert client.state is State.CLOSED


def test_any_message_puts_the_ping_off() -> None:
    client = connected(0.0)
    receive(client, frame("message", 1), 20.0)
    assert client.next_timer() == 50.0
    client.receive_activity(22.0)
    assert client.next_timer() == 52.0
    receive(client, "not json", 23.0)
    assert client.next_timer() == 53.0


@pytest.mark.parametrize("answer", ["pusher:pong", "message", "pusher:ping"])
def test_any_message_answers_the_ping(answer: str) -> None:
    client = connected(0.0)
    client.handle_timer(30.0)
    receive(client, frame(answer), 31.0)
    assert client.next_timer() == 61.0
    assert client.handle_timer(60.0) is None
    assert client.state is State.OPEN


def test_a_ping_or_pong_of_the_websocket_answers_the_ping() -> None:
    client = connected(0.0)
    client.handle_timer(30.0)
    client.receive_activity(31.0)
    assert client.next_timer() == 61.0


def test_a_pong_in_the_same_instant_answers_the_ping() -> None:
    # A clock may stand still for a while (15.6 ms on Windows), and a server may be near.
    client = connected(0.0, pong_timeout=5.0)
    client.handle_timer(30.0)
    receive(client, frame("pusher:pong"), 30.0)
    assert client.next_timer() == 60.0
    assert client.handle_timer(35.0) is None
    assert client.state is State.OPEN


def test_a_pong_of_the_websocket_in_the_same_instant_answers_the_ping() -> None:
    client = connected(0.0, pong_timeout=5.0)
    client.handle_timer(30.0)
    client.receive_activity(30.0)
    assert client.next_timer() == 60.0
    assert client.handle_timer(35.0) is None


def test_every_silence_is_pinged_anew() -> None:
    client = connected(0.0)
    for start in (0.0, 31.0, 62.0):
        assert client.handle_timer(start + 30.0) is None
        assert client.data_to_send() == [PING]
        receive(client, frame("pusher:pong"), start + 31.0)
    assert client.state is State.OPEN


def test_a_ping_is_sent_once_and_not_at_every_look() -> None:
    client = connected(0.0)
    for now in (30.0, 31.0, 59.0):
        assert client.handle_timer(now) is None
    assert client.data_to_send() == [PING]


@pytest.mark.parametrize("timeout", [5e-324, 1e-9, 0.001])
def test_no_timeout_of_a_server_makes_the_client_ping_without_end(timeout: float) -> None:
    client = ClientProtocol(0.0)
    hello = {"socket_id": "1.2", "activity_timeout": timeout}
    receive(client, frame("pusher:connection_established", hello), 1e6)
    pings, now = 0, client.next_timer()
    while now is not None and now < 1e6 + 1 and pings < 10:
        assert client.handle_timer(now) is None
        pings += len(client.data_to_send())
        receive(client, frame("pusher:pong"), now)
        now = client.next_timer()
    assert pings <= 1


def test_after_a_sleep_the_connection_is_dropped_without_a_ping() -> None:
    client = connected(0.0, pong_timeout=5.0)
    closed = client.handle_timer(35.0)
    assert isinstance(closed, Closed)
    assert (closed.action, closed.code) == (Action.RECONNECT, 4201)
    assert client.data_to_send() == []


def test_a_late_look_that_is_no_sleep_still_pings() -> None:
    client = connected(0.0, pong_timeout=5.0)
    assert client.handle_timer(34.9) is None
    assert client.data_to_send() == [PING]
    assert client.next_timer() == 39.9


@settings(derandomize=True, deadline=None)
@given(
    start=st.floats(0, 1e9),
    activity_timeout=st.floats(1, 1e4),
    pong_timeout=st.floats(0.01, 1e3),
    quiet=st.floats(0, 1e4),
)
def test_silence_ends_after_one_ping_whatever_the_numbers(
    start: float, activity_timeout: float, pong_timeout: float, quiet: float
) -> None:
    client = connected(start, activity_timeout=activity_timeout, pong_timeout=pong_timeout)
    received = receive(client, frame("message"), start + quiet)
    if isinstance(received, Closed):  # as after a machine has slept
        assert quiet > min(activity_timeout, 30) + pong_timeout - 1e-6
        return
    due = client.next_timer()
    assert due is not None
    assert client.handle_timer(due) is None
    assert client.data_to_send() == [PING]
    due = client.next_timer()
    assert due is not None
    assert isinstance(client.handle_timer(due), Closed)


@pytest.mark.parametrize(
    ("timeout", "quiet", "next_timeout"),
    [
        (120.0, 240.0, 120.0),
        (120.0, 1_000.0, 120.0),
        (120.0, 239.0, 119.5),
        (120.0, 60.0, 30.0),
        (120.0, 20.0, 10.0),
        (120.0, 10.0, 10.0),
        (120.0, 9.9, 120.0),
        (120.0, 0.0, 120.0),
        (12.0, 23.0, 11.5),
        (5.0, 60.0, 5.0),
    ],
)
def test_a_network_that_drops_quiet_connections_is_pinged_more_often(
    timeout: float, quiet: float, next_timeout: float
) -> None:
    assert adapted_activity_timeout(timeout, quiet) == next_timeout


# Hostile servers

OUTCOMES = (Event, *get_args(ProtocolEvent), MalformedFrame, ServerReportedError)


def check(client: ClientProtocol, payload: str | bytes | memoryview, now: float) -> None:
    """One message gives one of the documented outcomes, and the machine goes on."""
    before = client.state
    outcome = client.receive_message(payload, now)
    if before is State.CLOSED:
        assert outcome is None
    if outcome is None:
        return
    assert isinstance(outcome, (*OUTCOMES, SubscriptionFailed))
    assert isinstance(outcome, Closed) == (client.state is State.CLOSED)
    if isinstance(outcome, Event):
        assert outcome.name
        assert outcome.data is None or isinstance(outcome.data, dict | list | str | int | float)
    if isinstance(outcome, AntiphonError):
        str(outcome).encode()


def check_still_alive(client: ClientProtocol, now: float) -> None:
    if client.state is State.OPEN:
        client.data_to_send()
        assert client.receive_message(frame("pusher:ping"), now) is None
        assert client.data_to_send() == [PONG]
        assert client.receive_message(frame("message", 1), now) == Event(name="message", raw="1")
    elif client.state is State.HANDSHAKE:
        assert isinstance(client.receive_message(HELLO, now), Connected)


def populated(greeted: bool, now: float) -> ClientProtocol:
    """A machine with questions open, so that answers mean something."""
    client = connected(now) if greeted else ClientProtocol(now)
    for channel in ("private-room", "presence-room", "news"):
        client.subscribe(channel, "k:s")
    client.data_to_send()
    return client


@settings(
    max_examples=600, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(
    many=st.lists(assembled_text, max_size=80),
    strange=st.lists(hostile_payload, max_size=8),
    greeted=st.booleans(),
)
def test_no_message_of_a_server_raises(
    many: list[str], strange: list[str | bytes | memoryview], greeted: bool
) -> None:
    client = populated(greeted, 0.0)
    for now, payload in enumerate([*many, *strange]):
        if client.state is State.CLOSED:
            check(client, payload, now)
            client = populated(greeted, now)
        check(client, payload, now)
    check_still_alive(client, 50.0)


@settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(payload=hostile_text, reason=st.text(max_size=5), code=st.none() | st.integers())
def test_no_end_of_a_connection_raises(payload: str, reason: str, code: int | None) -> None:
    client = connected()
    check(client, payload, 1.0)
    if client.state is State.OPEN:
        closed = client.receive_close(code, reason)
        assert closed is not None
        assert closed.opened
    assert client.state is State.CLOSED


@pytest.mark.parametrize("kind", LARGE)
def test_ten_megabytes_are_dealt_with_like_any_other_message(kind: str) -> None:
    text = LARGE[kind]()
    for payload in (text, text.encode("utf-8", "surrogatepass")):
        client = connected()
        check(client, payload, 1.0)
        assert client.state is State.OPEN
        check_still_alive(client, 2.0)


@pytest.mark.parametrize(
    "shape",
    [
        '{"event":"e","data":%s}',
        '{"event":"e","data":"%s"}',
        '{"event":"e","user_id":%s}',
        '{"event":"e","channel":%s}',
        '{"event":"e","extra":%s}',
        '{"event":"pusher:error","data":%s}',
        '{"event":"pusher:error","data":{"code":%s}}',
        '{"event":"pusher:error","data":{"code":4301,"message":%s}}',
        '{"event":"pusher:error","data":"{\\"message\\":%s}"}',
        '{"event":"pusher:subscription_error","channel":"c","data":{"error":%s}}',
        '{"event":"pusher:subscription_error","channel":"c","data":{"message":%s,"code":[]}}',
        '{"event":"pusher:signin_success","data":{"user_data":{"id":%s}}}',
        '{"event":"pusher:signin_success","data":{"user_data":"{\\"id\\":%s}"}}',
        '{"event":"pusher_internal:watchlist_events",'
        '"data":{"events":[{"name":"online","user_ids":[%s]}]}}',
        '{"event":"pusher_internal:watchlist_events",'
        '"data":{"events":[{"name":%s,"user_ids":[1]}]}}',
        '{"event":"pusher_internal:member_added","channel":"presence-x","data":{"user_id":%s}}',
        '{"event":"pusher_internal:subscription_succeeded","channel":"presence-x",'
        '"data":{"presence":{"ids":[%s],"hash":[%s]}}}',
    ],
)
def test_no_depth_of_nesting_raises(shape: str) -> None:
    for depth in depths():
        client = connected()
        check(client, shape.replace("%s", nested(depth)), 1.0)
        check_still_alive(client, 2.0)


def test_the_round_trip_is_that_of_a_ping_and_its_own_answer() -> None:
    client = connected(0.0)
    trips = [client.round_trip]
    receive(client, frame("pusher:pong"), 5.0)  # nobody had asked
    trips.append(client.round_trip)
    assert client.handle_timer(35.0) is None
    receive(client, frame("pusher:pong"), 35.25)
    trips.append(client.round_trip)
    receive(client, frame("pusher:pong"), 50.0)
    client.keep_alive(55.0)
    receive(client, frame("pusher:pong"), 56.0)
    trips.append(client.round_trip)
    assert trips == [None, None, 0.25, 0.25]


def test_the_last_word_on_a_user_of_a_watchlist_counts() -> None:
    changes = [
        {"name": "offline", "user_ids": ["john"]},
        {"name": "online", "user_ids": ["john", "jane"]},
        {"name": "offline", "user_ids": ["jane"]},
    ]
    changed = receive(connected(), frame("pusher_internal:watchlist_events", {"events": changes}))
    assert changed == WatchlistChanged(online=("john",), offline=("jane",))


def test_a_sign_in_that_is_accepted_of_nobody_has_failed() -> None:
    client = connected()
    client.sign_in("k:s", "{}")
    failed = receive(client, frame("pusher:signin_success", {"user_data": "{}"}))
    assert isinstance(failed, SignInFailed)
    assert "no user" in str(failed)


def test_a_machine_knows_for_how_long_nothing_has_come() -> None:
    client = connected(0.0)
    receive(client, frame("message", 1), 20.0)
    assert client.quiet_for(25.0) == 5.0

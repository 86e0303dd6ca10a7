"""Recordings of real servers, replayed through `ClientProtocol` with their own times."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any, get_args

import pytest

from antiphon.errors import AntiphonError, MalformedFrame, ServerReportedError, SubscriptionFailed
from antiphon.protocol.client import ClientProtocol, Received, State
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
)
from antiphon.protocol.frames import Event
from antiphon.protocol.presence import Member
from antiphon.protocol.signing import verify_channel_auth

from .recordings import FROM_CLIENT, FROM_SERVER, Line, Replay, lines, names

ALL = sorted(names("reverb", "soketi", "pusher-js"))

PONG = b'{"event":"pusher:pong","data":{}}'

replay = functools.cache(Replay)


def kinds(outcomes: Sequence[Received]) -> list[type]:
    return [type(outcome) for outcome in outcomes]


def events(outcomes: Sequence[Received]) -> list[Event]:
    return [outcome for outcome in outcomes if isinstance(outcome, Event)]


def last_closed(name: str, conn: str) -> Closed:
    """The end of a connection: the last thing that was told of it."""
    closed = replay(name)[conn][-1]
    assert isinstance(closed, Closed)
    return closed


def refused(name: str) -> list[tuple[str, int | None]]:
    """Channels and codes of the subscriptions that failed."""
    failures = replay(name).failures()
    return [(f.channel, f.code) for f in failures if isinstance(f, SubscriptionFailed)]


def reported(name: str) -> list[int | None]:
    """Codes of the errors that left the connection open."""
    failures = replay(name).failures()
    return [f.code for f in failures if isinstance(f, ServerReportedError)]


# What holds for all of them


def test_every_recording_with_a_server_in_it_is_replayed() -> None:
    folders = [name.split("/")[0] for name in ALL]
    counts = {folder: folders.count(folder) for folder in ("reverb", "soketi", "pusher-js")}
    assert counts == {"reverb": 31, "soketi": 57, "pusher-js": 20}


@pytest.mark.parametrize("name", ALL)
def test_a_connection_begins_once_ends_once_and_is_silent_afterwards(name: str) -> None:
    for outcomes in replay(name).outcomes.values():
        told = (Event, *get_args(ProtocolEvent), AntiphonError)
        assert all(isinstance(outcome, told) for outcome in outcomes)
        if not outcomes:
            continue
        assert isinstance(outcomes[0], Connected | Closed)
        assert kinds(outcomes).count(Connected) == isinstance(outcomes[0], Connected)
        assert not any(isinstance(outcome, Closed) for outcome in outcomes[:-1])
        if isinstance(outcomes[-1], Closed):
            assert outcomes[-1].opened == isinstance(outcomes[0], Connected)


# What these servers sent that is no frame; the last is one that the recorder cut.
NO_FRAMES = {
    "pusher-js/fake_noevent_pusherjs": ['{"channel":"idle","data":"{}"}'],
    "pusher-js/fake_weird_pusherjs": ["not json at all", "[]"],
    "reverb/http_events": ['{"event":"e","data":"xxx'],
}


@pytest.mark.parametrize("name", ALL)
def test_every_frame_is_understood(name: str) -> None:
    malformed = [
        text for _, text, outcome in replay(name).steps if isinstance(outcome, MalformedFrame)
    ]
    expected = NO_FRAMES.get(name, [])
    assert len(malformed) == len(expected)
    assert all(text.startswith(start) for text, start in zip(malformed, expected, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_every_event_of_an_application_arrives_with_its_data(name: str) -> None:
    known = replay(name)
    for _, text, outcome in known.steps:
        if outcome is None or isinstance(outcome, MalformedFrame):
            continue
        frame = json.loads(text)
        if frame["event"].startswith(("pusher:", "pusher_internal:")):
            continue
        assert isinstance(outcome, Event)
        assert (outcome.name, outcome.channel) == (frame["event"], frame.get("channel"))
        assert outcome.user_id == frame.get("user_id")
        assert outcome.data == twice_decoded(frame.get("data"))


def twice_decoded(data: Any) -> Any:
    try:
        return json.loads(data) if isinstance(data, str) else data
    except ValueError:
        return data


@pytest.mark.parametrize("name", ALL)
def test_every_ping_of_a_server_is_answered_once(name: str) -> None:
    known = replay(name)
    for conn, sent in known.sent.items():
        pings = [
            text
            for where, text, outcome in known.steps
            if where == conn and '"pusher:ping"' in text and outcome is None
        ]
        assert sent == [PONG] * len(pings)


def asked(line: Line) -> dict[str, Any] | None:
    """The data of a subscription that the recorded client asked for."""
    frame = line.json if line.dir in FROM_CLIENT else None
    if not isinstance(frame, dict) or frame.get("event") != "pusher:subscribe":
        return None
    data = twice_decoded(frame.get("data"))
    return data if isinstance(data, dict) else None


@pytest.mark.parametrize("name", ALL)
def test_every_success_is_of_a_channel_that_was_asked_for(name: str) -> None:
    channels: dict[str, set[str]] = {}
    for line in lines(name):
        data = asked(line)
        if data is not None:
            # Reverb makes text of numbers: of 1, and of true.
            channel = data.get("channel")
            known = channel if isinstance(channel, str) else "1"
            channels.setdefault(line.conn, set()).add(known)
    for conn, outcomes in replay(name).outcomes.items():
        for outcome in outcomes:
            if isinstance(outcome, SubscriptionSucceeded):
                assert outcome.channel in channels[conn]
                assert not outcome.members or outcome.channel.startswith("presence-")


def accepted_signatures(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Every signed subscription that a server accepted, with the socket it was made on."""
    found = []
    sockets: dict[str, str] = {}
    open_requests: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines(name):
        data, frame = asked(line), line.json
        if data is not None:
            open_requests[line.conn, str(data.get("channel"))] = data
        elif line.dir in FROM_SERVER and isinstance(frame, dict):
            if frame.get("event") == "pusher:connection_established":
                sockets[line.conn] = twice_decoded(frame["data"])["socket_id"]
            elif frame.get("event") == "pusher_internal:subscription_succeeded":
                request = open_requests.pop((line.conn, frame.get("channel", "")), {})
                # Reverb looks at the signature only: some name no key, or another.
                if str(request.get("auth", "")).startswith(("ref-key:", "peer-key:")):
                    found.append((sockets[line.conn], request))
    return found


def test_every_signature_that_a_server_accepted_is_verified() -> None:
    found = [signature for name in ALL for signature in accepted_signatures(name)]
    assert len(found) > 80
    for socket_id, request in found:
        key = request["auth"].partition(":")[0]
        secret = key.replace("-key", "-secret")
        channel, channel_data = request["channel"], request.get("channel_data")
        if key == "peer-key" and not channel.startswith("presence-"):
            channel_data = None  # soketi looks at it on presence channels only
        assert verify_channel_auth(request["auth"], key, secret, socket_id, channel, channel_data)


# Reverb: the beginning and the end


def test_reverb_greets_whatever_the_query_says() -> None:
    known = replay("reverb/connect_ok")
    timeouts = {
        conn: outcomes[0].activity_timeout
        for conn, outcomes in known.outcomes.items()
        if isinstance(outcomes[0], Connected)
    }
    others = ["a", "noquery", "proto999", "protoabc", "sub"]
    assert timeouts == dict.fromkeys(others, 30.0) | {"ping": 7.0}
    assert known["a"] == [
        Connected("361756346.504625074", 30.0),
        Closed(Action.BACK_OFF, 1000, "bye", True, True),
    ]


def test_reverb_refuses_an_unknown_key_in_band() -> None:
    # The TCP end that follows (1006) would by itself mean to come back.
    stopped = Closed(Action.STOP, 4001, "Application does not exist", False)
    assert replay("reverb/connect_unknown_key")["a"] == [stopped]


def test_reverb_refuses_an_origin_in_place_of_the_handshake() -> None:
    known = replay("reverb/connect_origin")
    stopped = Closed(Action.STOP, 4009, "Origin not allowed", False)
    for conn in ("bad", "none", "prefixed", "suffix", "case", "null"):
        assert known[conn] == [stopped]
    for conn in ("good", "goodport", "sub"):
        assert kinds(known[conn]) == [Connected]


def test_reverb_refuses_a_connection_too_many_and_leaves_it_open() -> None:
    known = replay("reverb/connection_limit")
    # c5 goes on to subscribe and to receive: a closed machine hears nothing of it.
    stopped = Closed(Action.STOP, 4004, "Application is over connection quota", False)
    assert known["c5"] == [stopped]
    for conn in ("c1", "c2", "c3", "c4"):
        assert known[conn][1:] == [
            SubscriptionSucceeded("pub", {}),
            Event(name="e", channel="pub", raw='{"n":1}'),
        ]


def test_reverb_prunes_who_does_not_answer_its_ping() -> None:
    known = replay("reverb/idle_ping_prune")
    for conn in ("subscribed_silent", "control_frames_silent"):
        assert known.told(conn)[2:] == [
            ("server reported", 4201),
            Closed(Action.RECONNECT, 4201, "The connection ended with code 4201.", True, False),
        ]
    assert known.sent["subscribed_silent"] == [PONG]
    assert known.sent["subscribed_pongs"] == [PONG] * 3
    assert known.sent["control_frames_autopong"] == []
    for conn in ("subscribed_pongs", "not_subscribed", "control_frames_autopong"):
        assert known.clients[conn].state is State.OPEN


@pytest.mark.parametrize("signal", ["restart_command", "sigint", "sigkill", "sigterm"])
def test_reverb_ends_without_a_word(signal: str) -> None:
    for conn in ("subscribed", "unsubscribed"):
        closed = last_closed(f"reverb/shutdown_{signal}", conn)
        assert (closed.action, closed.code, closed.clean) == (Action.BACK_OFF, 1006, False)
        assert closed.opened


def test_a_reverb_that_is_gone_cannot_be_reached() -> None:
    closed = last_closed("reverb/shutdown_restart_command", "again")
    assert (closed.action, closed.opened) == (Action.BACK_OFF, False)


def test_reverb_closes_on_a_message_too_large() -> None:
    for conn in ("a", "b", "c"):
        assert last_closed("reverb/oversize", conn) == Closed(
            Action.BACK_OFF, 1009, "Maximum message size exceeded", True, True
        )


@pytest.mark.parametrize(
    ("conn", "action"),
    [
        ("c1000", Action.BACK_OFF),
        ("c1001", Action.BACK_OFF),
        ("c3000", Action.BACK_OFF),
        ("c4100", Action.BACK_OFF),
    ],
)
def test_reverb_echoes_the_code_of_a_close(conn: str, action: Action) -> None:
    closed = last_closed("reverb/close_frames", conn)
    assert (closed.action, closed.code, closed.clean) == (action, int(conn[1:]), True)


def test_reverb_terminates_a_user_without_a_close_frame() -> None:
    for conn in ("b", "m"):
        closed = last_closed("reverb/http_terminate", conn)
        assert (closed.action, closed.code) == (Action.BACK_OFF, 1006)
    assert MemberRemoved("presence-t", "20") in replay("reverb/http_terminate")["a"]


# Reverb: errors that leave the connection open


def test_reverb_answers_malformed_messages_and_stays() -> None:
    known = replay("reverb/malformed")
    codes = reported("reverb/malformed")
    assert set(codes) == {4200, 4009}
    assert codes.count(4200) == 21
    assert known.clients["a"].state is State.OPEN


def test_reverb_rejects_what_is_over_the_rate_and_stays() -> None:
    assert reported("reverb/rate_limit") == [4301, 4301, 4301]
    assert replay("reverb/rate_limit").clients["a"].state is State.OPEN
    # The other connection's application ends it, and the error is lost.
    assert last_closed("reverb/rate_limit", "b").code == 1006


def test_reverb_knows_no_sign_in() -> None:
    assert reported("reverb/signin") == [4200]
    assert events(replay("reverb/signin")["a"]) == [
        Event(name="u", channel="#server-to-user-10", raw='{"n":1}')
    ]


def test_reverb_refuses_client_events_in_band() -> None:
    known = replay("reverb/client_events")
    assert known.told("out")[1:] == [("server reported", 4009)] * 3
    assert known.told("none1")[1:] == [
        SubscriptionSucceeded("pub", {}),
        ("server reported", 4301),
    ]
    assert reported("reverb/client_events").count(4200) == 4
    assert all(client.state is State.OPEN for client in known.clients.values())


def test_reverb_relays_client_events_with_their_sender() -> None:
    received = events(replay("reverb/client_events")["b"])
    presence = [event for event in received if event.channel == "presence-p"]
    assert (
        presence == [Event(name="client-hi", channel="presence-p", raw={"x": 1}, user_id="a")] * 2
    )
    assert [e.data["i"] for e in received if e.name == "client-f"] == list(range(30))


# Reverb: subscriptions


def test_reverb_refuses_a_signature_without_naming_the_channel() -> None:
    asked = ["private-y"] * 5 + ["private-w", "private-cd2"]
    assert refused("reverb/subscribe_private") == [(channel, 4009) for channel in asked]


def test_reverb_refuses_a_second_subscription_and_keeps_the_first() -> None:
    assert refused("reverb/double_subscribe") == [("private-d1", 4009)]
    received = events(replay("reverb/double_subscribe")["a"])
    assert [(event.name, event.channel) for event in received] == [
        ("once", "d1"),
        ("once", "private-d1"),
        ("dup", "d1"),
        ("dup", "d1"),
    ]


def test_reverb_refuses_presence_channels_one_by_one() -> None:
    # Neither 4009 nor 4200, for channel data that it cannot use, names a channel there.
    assert refused("reverb/subscribe_presence_odd") == [
        ("presence-noinfo", 4200),
        ("presence-noinfo", 4200),
        ("presence-bad", 4200),
        ("presence-obj", 4200),
        ("presence-wrong", 4009),
        ("presence-wrong", 4009),
    ]


def test_reverb_says_who_is_there_and_who_comes_and_goes() -> None:
    room = "presence-room"
    ten, eleven, twenty, thirty = (Member(str(n), {"name": f"N{n}"}) for n in (10, 11, 20, 30))
    assert replay("reverb/subscribe_presence")["a"][1:] == [
        SubscriptionSucceeded(room, {"10": ten}),
        MemberAdded(room, twenty),
        Event(name="hello", channel=room, raw='{"n":1}'),
        MemberRemoved(room, "20"),
        MemberAdded(room, thirty),
        MemberRemoved(room, "30"),
        SubscriptionSucceeded(room, {"10": ten}),
        SubscriptionSucceeded(room, {"11": eleven}),
    ]
    assert replay("reverb/subscribe_presence")["a2"][1] == SubscriptionSucceeded(
        room, {"10": ten, "20": twenty}
    )


def members(channel: str, conn: str) -> list[dict[str, Member]]:
    return [
        outcome.members
        for outcome in replay("reverb/subscribe_presence_odd")[conn]
        if isinstance(outcome, SubscriptionSucceeded) and outcome.channel == channel
    ]


def test_reverb_keeps_ids_that_are_numbers() -> None:
    seven, eight = Member("7", {"name": "N7"}), Member("8", {"name": "N8"})
    assert members("presence-int", "a") == [{"7": seven}]
    assert members("presence-int", "b") == [{"7": seven, "8": eight}]
    assert MemberAdded("presence-int", eight) in replay("reverb/subscribe_presence_odd")["a"]


def test_reverb_writes_the_hash_as_a_list() -> None:
    zero, one = Member("0", {"name": "N0"}), Member("1", {"name": "N1"})
    assert members("presence-zero", "a") == [{"0": zero}]
    assert members("presence-seq", "b") == [{"0": zero, "1": one}]
    assert members("presence-noid", "a") == [{}]
    assert members("presence-nodata", "a") == [{}]


def test_reverb_has_no_rule_for_names() -> None:
    known = replay("reverb/subscribe_names")
    joined = [o.channel for o in known["a"] if isinstance(o, SubscriptionSucceeded)]
    assert {"with space", "ünïcode", "bad/slash", "cachefoo", "1"} <= set(joined)
    # The empty name is dropped from the answer, which then says nothing.
    assert events(known["a"]) == [
        Event(name="pusher_internal:subscription_succeeded", channel=None, raw="{}")
    ]
    assert [o.channel for o in known["a"] if isinstance(o, CacheMissed)] == ["cachefoo", "cache"]
    # "privatefoo" and its like are private there, which no client can know.
    assert reported("reverb/subscribe_names").count(4009) == 4
    assert refused("reverb/subscribe_names") == [("private-", 4009)]


def test_reverb_gives_the_last_event_of_a_cache_channel_or_says_it_has_none() -> None:
    known = replay("reverb/cache_channel")
    last = Event(name="last", channel="cache-c", raw='{"v":1}')
    succeeded = SubscriptionSucceeded("cache-c", {})
    assert known["a"][1:4] == [succeeded, CacheMissed("cache-c"), last]
    assert known["b"][1:3] == [succeeded, last]
    assert kinds(known["a"]).count(CacheMissed) == 5


def test_reverb_delivers_on_both_nodes_of_two() -> None:
    known = replay("reverb/scaling_redis")
    for conn in ("a@A", "b@B"):
        assert Event(name="e", channel="pub", raw='{"n":1}') in known[conn]


def test_text_of_reverb_is_read_letter_by_letter() -> None:
    received = events(replay("reverb/subscribe_public")["a"])
    assert received[0].data == {"a": "/é€<>&"}
    assert received[1].data == "plain text"
    assert [event.name for event in received[2:]] == ["pusher:foo", "pusher_internal:x"]


def test_reverb_passes_encrypted_data_on() -> None:
    received = events(replay("reverb/private_encrypted")["b"])
    assert received[0].data == {"nonce": "AAAA", "ciphertext": "BBBB"}


# soketi


@pytest.mark.parametrize(
    ("name", "conn", "action", "code"),
    [
        ("unknown_app_key", "a", Action.STOP, 4001),
        ("app_disabled", "a", Action.STOP, 4003),
        ("connection_quota", "c", Action.BACK_OFF, 4100),
        ("danger_signin_twice_then_send_to_user", "after", Action.RECONNECT, 4200),
    ],
)
def test_soketi_refuses_in_band_before_it_closes(
    name: str, conn: str, action: Action, code: int
) -> None:
    (closed,) = replay(f"soketi/{name}")[conn]
    assert isinstance(closed, Closed)
    assert (closed.action, closed.code, closed.opened) == (action, code, False)
    assert len(closed.reason) > 10


@pytest.mark.parametrize(
    "name",
    [
        "danger_signin_no_data",
        "danger_subscribe_channel_number",
        "danger_subscribe_data_string",
        "danger_subscribe_no_channel",
        "danger_subscribe_no_data",
        "danger_unsubscribe_no_data",
    ],
)
def test_a_soketi_that_shuts_down_is_come_back_to_at_once(name: str) -> None:
    known = replay(f"soketi/{name}")
    assert known.told("a")[1] == ("server reported", 4200)
    closed = last_closed(f"soketi/{name}", "a")
    assert (closed.action, closed.code, closed.clean) == (Action.RECONNECT, 4200, True)


@pytest.mark.parametrize(
    ("name", "conn"),
    [
        ("danger_signin_bad_user_data", "a"),
        ("signin_bad", "a"),
        ("signin_bad", "b"),
        ("signin_timeout", "a"),
        ("terminate_connections", "a"),
    ],
)
def test_soketi_sends_away_who_is_not_signed_in(name: str, conn: str) -> None:
    known = replay(f"soketi/{name}")
    assert known.told(conn)[-2] == ("server reported", 4009)
    closed = last_closed(f"soketi/{name}", conn)
    assert (closed.action, closed.code, closed.opened) == (Action.STOP, 4009, True)


def test_soketi_closes_who_is_silent() -> None:
    for conn in ("silent", "ws-ping-only"):
        closed = last_closed("soketi/idle_timeout", conn)
        assert (closed.action, closed.code) == (Action.RECONNECT, 4201)
    assert last_closed("soketi/idle_timeout", "pusher-ping").code == 1000


def test_soketi_signs_in() -> None:
    user = {"id": "user-1", "user_info": {"name": "Ann"}, "watchlist": ["user-2"]}
    assert replay("soketi/signin_ok")["a"][1] == SignedIn("user-1", user)
    known = replay("soketi/danger_signin_twice_then_send_to_user")
    signed_in = [o.user_id for o in known["a"] if isinstance(o, SignedIn)]
    assert signed_in == ["user-7", "user-9"]


def test_soketi_delivers_to_a_user() -> None:
    received = events(replay("soketi/server_to_user")["b"])
    assert received[0] == Event(name="pm", channel="#server-to-user-user-1", raw='{"for":"you"}')


def test_soketi_says_that_a_cache_is_empty() -> None:
    known = replay("soketi/cache_channel_miss")
    assert kinds(known["a"]) == [Connected, SubscriptionSucceeded, CacheMissed, Closed]


def test_soketi_gives_the_last_event_of_a_cache_channel() -> None:
    known = replay("soketi/cache_channel_hit")
    assert kinds(known["c"]) == [Connected, SubscriptionSucceeded, Event, Closed]
    assert events(known["c"])[0].data == {"v": 3}


def test_soketi_names_the_channel_it_refuses() -> None:
    letters = "xyzwvut"
    assert refused("soketi/subscribe_private_bad_auth") == [
        (f"private-{letter}", 401) for letter in letters
    ]
    assert [channel for channel, _ in refused("soketi/presence_bad")] == [
        "presence-q",
        "presence-q2",
        "presence-q3",
        "presence-q4",
    ]
    assert ("has space", 4009) in refused("soketi/bad_channel_names")


def test_soketi_has_room_for_a_hundred_members() -> None:
    known = replay("soketi/presence_limit_100")
    assert kinds(known["m0"]).count(MemberAdded) == 99
    joined = known["m99"][1]
    assert isinstance(joined, SubscriptionSucceeded)
    assert list(joined.members) == [f"u{number}" for number in range(100)]
    assert known.told("m100")[1] == ("subscription failed", "presence-big", 4100)


def test_soketi_mixes_ids_of_numbers_and_text() -> None:
    known = replay("soketi/presence_user_id_types")
    assert known["a"][1:3] == [
        SubscriptionSucceeded("presence-n", {"7": Member("7")}),
        MemberAdded("presence-n", Member("7")),
    ]
    # A member without an id is no member: the frame is passed on as it is.
    assert events(known["a"])[0].name == "pusher_internal:member_added"
    assert MemberRemoved("presence-n", "7") in known["b"]


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("client_event_disabled", [4301]),
        ("client_event_oversize", [4301, 4301]),
        ("client_event_not_subscribed", []),
        ("malformed_json", []),
        ("unknown_event", []),
        ("signin_app_without_user_auth", []),
    ],
)
def test_soketi_reports_what_it_rejects_or_nothing(name: str, codes: list[int]) -> None:
    assert reported(f"soketi/{name}") == codes
    for conn in replay(f"soketi/{name}").outcomes:
        # The recorded client then closed with 1000: a rejected event refuses nobody.
        closed = last_closed(f"soketi/{name}", conn)
        assert (closed.action, closed.opened) == (Action.BACK_OFF, True)


def test_soketi_passes_data_on_in_every_form() -> None:
    received = events(replay("soketi/event_data_forms")["a"])
    forms = {event.name: event.data for event in received}
    assert forms["plain"] == "just text"
    assert forms["json"] == forms["object"] == {"a": 1}
    assert (forms["array"], forms["number"]) == ([1, 2], 5)


@pytest.mark.parametrize("conn", ["app", "root", "empty", "other"])
def test_a_path_that_soketi_does_not_know_was_never_open(conn: str) -> None:
    closed = last_closed("soketi/connect_bad_path", conn)
    assert (closed.action, closed.code, closed.opened) == (Action.BACK_OFF, 1006, False)


# pusher-js, and what it was told

CLOSES = {
    "close1000": (Action.BACK_OFF, 1000),
    "close1006": (Action.BACK_OFF, 1006),
    "close1011": (Action.BACK_OFF, 1011),
    "close1012": (Action.BACK_OFF, 1002),  # the recording client may not name 1012
    "close4001": (Action.STOP, 4001),
    "close4100": (Action.BACK_OFF, 4100),
    "close4200": (Action.RECONNECT, 4200),
    "close4301": (Action.STOP, 4301),
    "err4001": (Action.STOP, 4001),
    "err4100": (Action.BACK_OFF, 4100),
    "err4200": (Action.RECONNECT, 4200),
}


@pytest.mark.parametrize("scenario", CLOSES)
def test_the_end_of_every_connection_means_what_it_means_to_pusher_js(scenario: str) -> None:
    action, code = CLOSES[scenario]
    name = f"pusher-js/fake_{scenario}_pusherjs"
    conns = list(replay(name).outcomes)
    for conn in conns[:-1] or conns:  # the last is ended by the end of the recording
        closed = last_closed(name, conn)
        assert (closed.action, closed.code, closed.opened) == (action, code, True)
    # pusher-js comes back for all but a refusal.
    assert (len(conns) == 1) == (action is Action.STOP)


def test_an_error_in_band_comes_before_the_end_it_announces() -> None:
    known = replay("pusher-js/fake_err4100_pusherjs")
    assert known.told("c1")[2] == ("server reported", 4100)
    refused_at_once = replay("pusher-js/fake_err4001_pusherjs")
    assert kinds(refused_at_once["c1"]) == [Connected, SubscriptionSucceeded, Closed]


def test_a_server_that_says_nothing_was_never_open() -> None:
    closed = last_closed("pusher-js/fake_nohello_pusherjs", "c1")
    assert (closed.action, closed.opened) == (Action.BACK_OFF, False)


def test_pings_are_answered_as_pusher_js_answers_them() -> None:
    name = "pusher-js/fake_ping_pusherjs"
    assert replay(name).sent["c1"] == [PONG]
    theirs = [line.frame for line in lines(name) if line.dir == "c2s" and line.frame]
    assert PONG.decode() in theirs


def test_silence_is_pinged_when_pusher_js_pings_it() -> None:
    # The server advertises 2 s, and never answers.
    recorded = lines("pusher-js/fake_act_pusherjs")
    hello = next(line for line in recorded if line.dir == "s2c" and line.frame)
    ping = next(line for line in recorded if line.frame and "pusher:ping" in line.frame)
    client = ClientProtocol(0.0)
    assert hello.frame is not None
    client.receive_message(hello.frame, hello.t_ms / 1000)
    due = client.next_timer()
    assert due is not None
    assert due == pytest.approx(ping.t_ms / 1000, abs=0.1)
    assert client.handle_timer(due) is None
    assert [message.decode() for message in client.data_to_send()] == [ping.frame]


def test_a_connection_that_pongs_lasts() -> None:
    known = replay("pusher-js/fake_actpong_pusherjs")
    assert kinds(known["c1"]) == [Connected, SubscriptionSucceeded, Closed]
    assert last_closed("pusher-js/fake_actpong_pusherjs", "c1").code == 1006


def test_odd_frames_disturb_no_later_one() -> None:
    received = events(replay("pusher-js/fake_weird_pusherjs")["c1"])
    values = {event.name: event.data for event in received}
    assert values["e-json"] == values["e-object"] == {"a": 1}
    assert values["e-jsonstr"] == "quoted"
    assert values["e-num"] == 5
    assert values["e-null"] is values["e-nodata"] is None
    assert values["e-plain"] == "plain text"
    assert {"e-after-plain", "e-after-nojson", "pusher:made_up"} <= set(values)
    assert SubscriptionCounted("idle", 3) in replay("pusher-js/fake_weird_pusherjs")["c1"]
    after = events(replay("pusher-js/fake_noevent_pusherjs")["c1"])
    assert [event.name for event in after] == ["e-after-noevent"]


def test_what_laravel_echo_is_told_is_understood() -> None:
    known = replay("pusher-js/laravel-echo-2.5.0")
    assert known.failures() == []
    assert events(known["c1"])[0] == Event(
        name="App\\Events\\OrderShipped", channel="orders", raw='{"id":5}'
    )
    room = "presence-room"
    assert MemberAdded(room, Member("e2", {"name": "e2"})) in known["c1"]
    assert MemberRemoved(room, "e2") in known["c1"]
    assert Event(name="client-typing", channel="private-chat", raw={"who": "e1"}) in known["c2"]


def test_what_pusher_js_is_told_is_understood() -> None:
    known = replay("pusher-js/pusher-js-8.6.0")
    room = "presence-r"
    assert MemberAdded(room, Member("bob", {"name": "BOB"})) in known["c1"]
    whispers = [event for event in events(known["c1"]) if event.name == "client-pm"]
    assert [(event.data, event.user_id) for event in whispers] == [
        ({"z": 3}, "bob"),
        ({"z": 4}, "bob"),
    ]

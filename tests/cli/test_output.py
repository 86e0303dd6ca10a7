"""What the printers make of what a client observes."""

from __future__ import annotations

import io
import json
import re
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.cli.output import JsonPrinter, LinePrinter, printable
from antiphon.client import ConnectingIn, ConnectionState, Observation, StateChange, Subscribed
from antiphon.errors import (
    Forbidden,
    HandlerFailed,
    MalformedFrame,
    PayloadInvalid,
    Refused,
    ServerReportedError,
    SubscriptionFailed,
    Unreachable,
)
from antiphon.protocol.frames import Event

from .command import documented, lines, steers

CONNECTING, CONNECTED = ConnectionState.CONNECTING, ConnectionState.CONNECTED
TIME: Final = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "


def for_people(observation: Observation, socket_id: str | None = "1.2") -> list[str]:
    """What is printed, without the times."""
    stream = io.StringIO()
    LinePrinter(stream).observe(observation, socket_id)
    return [re.sub(f"^{TIME}", "", line) for line in lines(stream.getvalue())]


def for_programs(observation: Observation) -> list[dict[str, Any]]:
    """What is printed, without the times."""
    stream = io.StringIO()
    JsonPrinter(stream).observe(observation, "1.2")
    found = [documented(line) for line in lines(stream.getvalue())]
    for one in found:
        del one["time"]
    return found


LOST: Final = Unreachable("Nothing listens on 127.0.0.1:1.", code=None)

OBSERVED: Final[list[tuple[Observation, list[str], list[dict[str, Any]]]]] = [
    (
        StateChange(ConnectionState.INITIALIZED, CONNECTING),
        ["[INFO] Connecting …"],
        [{"kind": "state", "previous": "initialized", "current": "connecting"}],
    ),
    (
        StateChange(CONNECTING, CONNECTED),
        ["[SUCCESS] WebSocket connection opened", "[SUCCESS] Connected! socket_id=1.2"],
        [{"kind": "state", "previous": "connecting", "current": "connected"}],
    ),
    (
        StateChange(CONNECTING, ConnectionState.UNAVAILABLE),
        ["[WARNING] The server has been unavailable for 10 seconds"],
        [{"kind": "state", "previous": "connecting", "current": "unavailable"}],
    ),
    (
        StateChange(CONNECTING, ConnectionState.FAILED, LOST),
        [],  # the error stands there already
        [{"kind": "state", "previous": "connecting", "current": "failed"}],
    ),
    (
        StateChange(CONNECTED, ConnectionState.DISCONNECTED),
        ["[INFO] Disconnected"],
        [{"kind": "state", "previous": "connected", "current": "disconnected"}],
    ),
    (
        Subscribed("private-user.1"),
        ["[SUCCESS] Subscribed to private-user.1 ✓"],
        [{"kind": "subscribed", "channel": "private-user.1"}],
    ),
    (
        LOST,
        ["[ERROR] Nothing listens on 127.0.0.1:1."],
        [
            {
                "kind": "error",
                "type": "connection",
                "code": None,
                "message": "Nothing listens on 127.0.0.1:1.",
            }
        ],
    ),
    (
        Event(name="e", channel="news", raw='{"a":1}'),
        ["[EVENT] e on news", '  Data: {"a":1}'],
        [{"kind": "event", "event": "e", "channel": "news", "data": {"a": 1}}],
    ),
    (
        Event(name="client-e", channel="presence-a", raw=None, user_id="7"),
        ["[EVENT] client-e on presence-a", "  Data: null"],
        [
            {
                "kind": "event",
                "event": "client-e",
                "channel": "presence-a",
                "data": None,
                "user_id": "7",
            }
        ],
    ),
    (Event(name="pusher:subscription_succeeded", channel="news"), [], []),
    (Event(name="pusher:member_added", channel="presence-a", raw={"id": "1"}), [], []),
]


@pytest.mark.parametrize(("observation", "people", "programs"), OBSERVED)
def test_what_is_observed_is_printed(
    observation: Observation, people: list[str], programs: list[dict[str, Any]]
) -> None:
    assert for_people(observation) == people
    assert for_programs(observation) == programs


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (ConnectingIn(1.2345, 2, 5), ("2 of 5", "in 1.2 s")),
        (ConnectingIn(30.0, 7, None), ("7", "in 30.0 s")),
        (ConnectingIn(0.0, 1, None), ("1", "at once")),
    ],
)
def test_people_are_told_when_it_dials_again(
    observation: ConnectingIn, words: tuple[str, ...]
) -> None:
    (line,) = for_people(observation)
    assert line.startswith("[INFO] ")
    assert [word for word in words if word not in line] == []
    assert for_programs(observation) == []


def test_an_event_of_the_connection_is_not_on_none() -> None:
    first, _ = for_people(Event(name="announcement", raw='"hello"'))
    assert "None" not in first
    (told,) = for_programs(Event(name="announcement", raw='"hello"'))
    assert told == {"kind": "event", "event": "announcement", "channel": None, "data": "hello"}


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (Refused("no", code=4001), "connection", 4001),
        (Forbidden("no", channel="private-a", code=403), "subscription", 403),
        (SubscriptionFailed("no", channel="private-a"), "subscription", None),
        (MalformedFrame("no"), "event", None),
        (PayloadInvalid("no", event="e", channel="a"), "event", None),
        (HandlerFailed("no", event="e"), "event", None),
        (ServerReportedError("no", code=4301), "event", 4301),
    ],
)
def test_an_error_tells_its_type_and_code(error: Any, kind: str, code: int | None) -> None:
    (told,) = for_programs(error)
    assert (told["type"], told["code"], told["message"]) == (kind, code, "no")
    assert for_people(error) == ["[ERROR] no"]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({"sender_name": "John Doe"}, "John Doe"),
        ({"sender_name": ""}, "67"),
        ({}, "67"),
    ],
)
def test_a_sender_without_a_name_is_shown_by_id(message: dict[str, str], shown: str) -> None:
    said = {"id": 1, "chat_id": 45, "sender_id": 67, "content": "Hello!", **message}
    event = Event(name="MessageSent", channel="private-user.1", raw=json.dumps({"message": said}))
    printed = ["[EVENT] 📨 NEW MESSAGE", "  ID: 1", f"  From: {shown}", "  Content: Hello!"]
    assert for_people(event) == printed


def test_who_types_without_a_name_is_shown_by_id() -> None:
    raw = '{"conversation_id":"c-1","user":{"id":45}}'
    printed = for_people(Event(name=".user.typing", channel="private-user.1", raw=raw))
    assert printed == ["[EVENT] ⌨️  TYPING", "  User: 45", "  Conversation: c-1"]


def test_lines_of_a_message_stay_lines_and_stand_apart() -> None:
    said = {"id": 1, "chat_id": 4, "sender_id": 6, "content": "a\n  b\n[2026-01-01] [SUCCESS] c"}
    event = Event(name="MessageSent", channel="x", raw={"message": said})
    assert for_people(event)[3:] == ["  Content: a", "      b", "    [2026-01-01] [SUCCESS] c"]


def test_long_lines_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    event = Event(name="e", channel="news", raw="word " * 100)
    assert len(for_people(event)) == 2


def test_markup_in_messages_is_shown_as_it_is() -> None:
    event = Event(name="[bold]e[/]", channel="news", raw="[red]no[/red] :smile: https://x.example")
    assert for_people(event) == [
        "[EVENT] [bold]e[/] on news",
        '  Data: "[red]no[/red] :smile: https://x.example"',
    ]


@given(st.text())
def test_what_is_printable_has_no_control_characters(text: str) -> None:
    assert steers(printable(text)) == []
    assert steers(printable(text, indent="  ").replace("\n", "")) == []


@given(st.text(st.characters(categories=["L", "N", "P", "S", "M"])))
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("text", ["👩‍👩‍👧", "می‌خواهم", "10 000 €"])
def test_joined_letters_and_emoji_stay_whole(text: str) -> None:
    # Joiners and tags are format characters that no terminal is steered by.
    assert printable(text) == text


ANYTHING: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(min_size=1), st.none() | st.text(), ANYTHING | ANYTHING.map(json.dumps))
def test_any_event_can_be_printed(name: str, channel: str | None, raw: Any) -> None:
    event = Event(name=name, channel=channel, raw=raw)
    for line in for_people(event):
        assert steers(line) == []
    assert all(told["event"] == name for told in for_programs(event))

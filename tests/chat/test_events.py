"""The chat's three events, as Laravel applications and our own backend spell them."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.backend import broadcasts, models
from antiphon.chat import (
    DEFAULT_EVENT_NAMES,
    ChatEvent,
    ChatEvents,
    Message,
    MessageSentEvent,
    MessagesReadEvent,
    TypingUser,
    UserIsTypingEvent,
)
from antiphon.errors import PayloadInvalid
from antiphon.protocol.frames import Event, decode_event

# As they stand in DESIGN.md.
MESSAGE: Final = (
    '{"message":{"id":"123","chat_id":"45","sender_id":"67","sender_name":"John",'
    '"content":"Hello!","sent_at":"2024-10-25T10:31:00Z","status":"sent"},"tempId":"temp-msg-xyz"}'
)
TYPING: Final = (
    '{"conversation_id":123,"user":{"id":45,"firstName":"Ali","lastName":"Qo\'chqorov",'
    '"email":"ali@example.com"}}'
)
READ: Final = '{"conversation_id":123,"reader_id":45,"message_ids":["101","102","103"]}'

SENT: Final = MessageSentEvent(
    message=Message(
        id="123",
        chat_id="45",
        sender_id="67",
        sender_name="John",
        content="Hello!",
        sent_at=datetime(2024, 10, 25, 10, 31, tzinfo=UTC),
        status="sent",
    ),
    temp_id="temp-msg-xyz",
)
TYPES: Final = UserIsTypingEvent(
    conversation_id=123,
    user=TypingUser(id=45, first_name="Ali", last_name="Qo'chqorov", email="ali@example.com"),
)
HAS_READ: Final = MessagesReadEvent(
    conversation_id=123, reader_id=45, message_ids=("101", "102", "103")
)

EXAMPLES: Final[list[tuple[str, str, ChatEvent]]] = [
    ("message", MESSAGE, SENT),
    ("typing", TYPING, TYPES),
    ("read", READ, HAS_READ),
]
OF_TYPE: Final = {type(event): (kind, payload, event) for kind, payload, event in EXAMPLES}
NAMED: Final = [(name, *OF_TYPE[type_]) for name, type_ in DEFAULT_EVENT_NAMES.items()]


Names = dict[str, type[ChatEvent]]


def event(name: str, raw: Any) -> Event:
    return Event(name=name, channel="private-user.1", raw=raw)


def forms(payload: str) -> list[Any]:
    """The same data as it may stand in a frame: JSON in a string, or JSON itself."""
    return [payload, json.loads(payload)]


def wrapped(kind: str, payload: str) -> list[Any]:
    """Data in `{"type": …, "data": …}`; the inner data may be a string once more."""
    inner = json.loads(payload)
    return [
        *forms(json.dumps({"type": kind, "data": inner})),
        *forms(json.dumps({"type": kind, "data": payload})),
        *forms(json.dumps({"data": inner, "more": [1], "type": kind})),
    ]


def message(**fields: Any) -> dict[str, Any]:
    return {"message": {"id": 1, "chat_id": 2, "sender_id": 3, "content": "Hello!", **fields}}


# The payloads of DESIGN.md


@pytest.mark.parametrize(("name", "kind", "payload", "expected"), NAMED)
def test_a_bare_payload_decodes_under_every_default_name(
    name: str, kind: str, payload: str, expected: ChatEvent
) -> None:
    for raw in forms(payload):
        assert ChatEvents().decode(event(name, raw)) == expected


@pytest.mark.parametrize(("name", "kind", "payload", "expected"), NAMED)
def test_a_wrapped_payload_decodes_under_every_default_name(
    name: str, kind: str, payload: str, expected: ChatEvent
) -> None:
    for raw in wrapped(kind, payload):
        assert ChatEvents().decode(event(name, raw)) == expected


def test_the_names_of_the_design_are_among_the_default_names() -> None:
    for short in ("MessageSent", "UserIsTyping", "MessagesRead"):
        type_ = DEFAULT_EVENT_NAMES[short]
        assert DEFAULT_EVENT_NAMES[f"App\\Events\\{short}"] is type_
        assert DEFAULT_EVENT_NAMES[f"{short}Event"] is type_
    assert DEFAULT_EVENT_NAMES[".message.sent"] is MessageSentEvent
    assert DEFAULT_EVENT_NAMES["message.sent"] is MessageSentEvent


@pytest.mark.parametrize(("kind", "payload", "expected"), EXAMPLES)
def test_a_frame_off_the_wire_decodes(kind: str, payload: str, expected: ChatEvent) -> None:
    name = next(n for n, type_ in DEFAULT_EVENT_NAMES.items() if type_ is type(expected))
    for data in (*forms(payload), *wrapped(kind, payload)):
        frame = json.dumps({"event": name, "data": data, "channel": "private-user.1"})
        assert ChatEvents().decode(decode_event(frame.encode())) == expected


def test_what_the_events_hold_can_be_read_off_them() -> None:
    assert TYPES.user.name == "Ali Qo'chqorov"
    assert TypingUser(id=1, first_name="Ali").name == "Ali"
    assert TypingUser(id=1).name == ""


# Which name means which event


def test_names_of_ones_own_take_the_place_of_the_default_names() -> None:
    names: Names = {
        "chat:new": MessageSentEvent,
        "chat:types": UserIsTypingEvent,
        "": MessagesReadEvent,
    }
    chat = ChatEvents(names)
    assert chat.decode(event("chat:new", MESSAGE)) == SENT
    assert chat.decode(event("chat:types", wrapped("typing", TYPING)[0])) == TYPES
    assert chat.decode(event("", READ)) == HAS_READ
    assert chat.decode(event("MessageSent", MESSAGE)) is None


def test_names_of_ones_own_may_stand_beside_the_default_names() -> None:
    names: Names = {"MessageSent": UserIsTypingEvent, "new": MessageSentEvent}
    chat = ChatEvents({**DEFAULT_EVENT_NAMES, **names})
    assert chat.decode(event("new", MESSAGE)) == SENT
    assert chat.decode(event("MessageSentEvent", MESSAGE)) == SENT
    assert chat.decode(event("MessageSent", TYPING)) == TYPES


@pytest.mark.parametrize(
    "name",
    [
        "",
        "messagesent",
        "MESSAGESENT",
        "MessageSent ",
        "App.Events.MessageSent",
        r"App\Events\Other",
        "pusher:subscription_succeeded",
        "client-typing",
        "..message.sent",
        "new-message",
    ],
)
def test_an_unknown_name_is_none_of_the_chats(name: str) -> None:
    for raw in (MESSAGE, TYPING, READ, wrapped("message", MESSAGE)[0], "nonsense", None):
        assert ChatEvents().decode(event(name, raw)) is None


@pytest.mark.parametrize(("kind", "payload", "expected"), EXAMPLES)
@pytest.mark.parametrize("name", ["MessageSent", "UserIsTyping", "MessagesRead"])
def test_the_type_of_a_wrapped_payload_counts_for_more_than_the_name(
    name: str, kind: str, payload: str, expected: ChatEvent
) -> None:
    for raw in wrapped(kind, payload):
        assert ChatEvents().decode(event(name, raw)) == expected


# Ids


@pytest.mark.parametrize("id_", [1, "1", 0, -1, 2**63, "9f3c-uuid", "", "сообщение"])
def test_ids_stay_what_they_are_on_the_wire(id_: int | str) -> None:
    user = {"id": id_, "firstName": "Ali"}
    read = {"conversation_id": id_, "reader_id": id_, "message_ids": [id_, 7, "8"]}
    payloads: list[tuple[str, Any]] = [
        ("MessageSent", message(id=id_, chat_id=id_, sender_id=id_)),
        ("UserIsTyping", {"conversation_id": id_, "user": user}),
        ("MessagesRead", read),
    ]
    found: list[list[Any]] = []
    for name, payload in payloads:
        for raw in forms(json.dumps(payload)):
            match ChatEvents().decode(event(name, raw)):
                case MessageSentEvent(message=said):
                    found.append([said.id, said.chat_id, said.sender_id])
                case UserIsTypingEvent(conversation_id=conversation, user=types):
                    found.append([conversation, types.id])
                case MessagesReadEvent() as read_event:
                    assert read_event.message_ids == (id_, 7, "8")
                    found.append([read_event.conversation_id, read_event.reader_id])
    assert len(found) == 6
    for got in [got for row in found for got in row]:
        assert (got, type(got)) == (id_, type(id_))


def test_no_message_or_very_many_may_be_read_at_once() -> None:
    for ids in ([], [str(number) for number in range(10_000)]):
        raw = json.dumps({"conversation_id": 1, "reader_id": "2", "message_ids": ids})
        got = ChatEvents().decode(event("MessagesRead", raw))
        assert got == MessagesReadEvent(conversation_id=1, reader_id="2", message_ids=tuple(ids))


# Dates

MOMENT: Final = datetime(2024, 10, 25, 10, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-10-25T10:31:00Z", MOMENT),
        ("2024-10-25T10:31:00.000000Z", MOMENT),  # Laravel's own
        ("2024-10-25T10:31:00+00:00", MOMENT),  # PHP's DATE_ATOM
        ("2024-10-25t10:31:00z", MOMENT),
        ("2024-10-25T10:31:00-00:00", MOMENT),
        ("2024-10-25T15:31:00+05:00", MOMENT),
        ("2024-10-25T15:31:00+0500", MOMENT),
        ("2024-10-25T10:31:00.123456789Z", MOMENT + timedelta(microseconds=123457)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_dates_come_in_many_spellings(text: str, moment: datetime) -> None:
    for raw in forms(json.dumps(message(sent_at=text))):
        assert sent_at(raw) == moment


def test_a_date_keeps_its_zone() -> None:
    got = sent_at(json.dumps(message(sent_at="2024-10-25T15:31:00+05:00")))
    assert got is not None
    assert got.tzinfo == timezone(timedelta(hours=5))


def test_a_message_may_have_no_date() -> None:
    for payload in (message(), message(sent_at=None)):
        for raw in forms(json.dumps(payload)):
            assert sent_at(raw) is None


def test_dates_of_all_spellings_can_be_compared_with_each_other() -> None:
    # `toDateTimeString()` and models without a cast give no zone; Laravel means UTC.
    texts = ["2024-10-25 10:31:00", "2024-10-25T10:31:00", "2024-10-25T10:31:00Z"]
    dates = [sent_at(json.dumps(message(sent_at=text))) for text in texts]
    assert [date == MOMENT for date in dates] == [True, True, True]
    assert sorted(date for date in dates if date is not None)


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "yesterday",
        "25.10.2024",
        "2024-10-25",
        "10:31:00",
        "2024-02-30T10:31:00Z",
        "2024-10-25T25:31:00Z",
        "2024-10-25T10:31:00Z and more",
        "1729852260",
        1729852260,
        1729852260.5,
        True,
        [],
        {"date": "2024-10-25 10:31:00.000000", "timezone": "UTC"},  # a Carbon, dumped
    ],
)
def test_what_is_no_date_is_said_to_be_none(odd: Any) -> None:
    for raw in forms(json.dumps(message(sent_at=odd))):
        with pytest.raises(PayloadInvalid, match="sent_at"):
            sent_at(raw)


def sent_at(raw: Any) -> datetime | None:
    got = ChatEvents().decode(event("MessageSent", raw))
    assert isinstance(got, MessageSentEvent)
    return got.message.sent_at


# What may be missing, and what may be more


def test_what_is_not_needed_may_be_missing() -> None:
    got = ChatEvents().decode(event("MessageSent", message()))
    assert got == MessageSentEvent(
        message=Message(id=1, chat_id=2, sender_id=3, content="Hello!"), temp_id=None
    )
    assert isinstance(got, MessageSentEvent)
    assert (got.message.sender_name, got.message.status) == ("", "sent")
    got = ChatEvents().decode(event("UserIsTyping", {"conversation_id": 1, "user": {"id": 2}}))
    assert got == UserIsTypingEvent(conversation_id=1, user=TypingUser(id=2))


@pytest.mark.parametrize(("kind", "payload", "expected"), EXAMPLES)
def test_fields_nobody_knows_are_passed_over(kind: str, payload: str, expected: ChatEvent) -> None:
    data = json.loads(payload)
    data |= {"socket": None, "version": 2, "type": "something", "nested": {"a": [1]}}
    for part in ("message", "user"):
        if part in data:
            data[part]["avatar_url"] = None
    name = type(expected).__name__
    for raw in (*forms(json.dumps(data)), *wrapped(kind, json.dumps(data))):
        assert ChatEvents().decode(event(name, raw)) == expected


@pytest.mark.parametrize(
    "content",
    [
        "",
        " ",
        "a\nb\r\n\tc",
        "\x00\x1b[31m\x07",
        "😀👩‍👩‍👧",
        "\u202eabc",
        "x" * 10_000,
        '{"a":1}',
        "null",
    ],
)
def test_a_message_may_say_anything(content: str) -> None:
    for raw in forms(json.dumps(message(content=content))):
        got = ChatEvents().decode(event("MessageSent", raw))
        assert isinstance(got, MessageSentEvent)
        assert got.message.content == content


# Nonsense

NONSENSE: Final[list[Any]] = [
    None,
    "",
    "Hello!",
    "{",
    "null",
    "[]",
    "{}",
    "7",
    "\ud800",
    "[" * 100_000,
    '{"a":' * 100_000,
    7,
    True,
    [],
    {},
    ["message"],
    {"type": "message"},
    {"type": "message", "data": None},
    {"type": "message", "data": "Hello!"},
    {"type": "message", "data": []},
    {"type": "message", "data": {}},
    {"type": "message", "data": {"type": "message", "data": json.loads(MESSAGE)}},
    {"type": "unheard of", "data": json.loads(MESSAGE)},
    {"type": None, "data": json.loads(MESSAGE)},
    {"type": ["message"], "data": json.loads(MESSAGE)},
    {"type": {}, "data": json.loads(MESSAGE)},
    {"data": json.loads(MESSAGE)},
    {"type": "typing", "data": json.loads(MESSAGE)},
    {"message": None},
    {"message": "Hello!"},
    {"message": [json.loads(MESSAGE)["message"]]},
    message(id=None),
    message(id=1.5),
    message(id=True),
    message(id=["1"]),
    message(chat_id={}),
    message(content=None),
    message(content=7),
    message(content=["Hello!"]),
    {"conversation_id": 1},
    {"conversation_id": 1, "user": "Ali"},
    {"conversation_id": 1, "user": {}},
    {"conversation_id": None, "user": {"id": 1}},
    {"conversation_id": 1, "reader_id": 2},
    {"conversation_id": 1, "reader_id": 2, "message_ids": "101"},
    {"conversation_id": 1, "reader_id": 2, "message_ids": {"0": "101"}},
    {"conversation_id": 1, "reader_id": 2, "message_ids": [None]},
    {"conversation_id": 1, "reader_id": None, "message_ids": []},
]


@pytest.mark.parametrize("raw", NONSENSE, ids=lambda raw: repr(raw)[:60].replace("\ud800", "?"))
def test_nonsense_is_reported_as_such_with_event_and_channel(raw: Any) -> None:
    for name in ("App\\Events\\MessageSent", "UserIsTyping", "MessagesReadEvent"):
        with pytest.raises(PayloadInvalid) as failed:
            ChatEvents().decode(event(name, raw))
        error = failed.value
        assert (error.event, error.channel, error.kind) == (name, "private-user.1", "event")
        assert name in str(error)
        assert "private-user.1" in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "payload",
    [
        message(content="in confidence", id=None),
        {"type": "message", "data": message(content="in confidence", id=None)},
        {"type": "message", "data": {"message": "in confidence"}},
        {"type": "in confidence", "data": {}},
        "in confidence",
    ],
    ids=["bare", "wrapped", "no message", "no type", "no JSON"],
)
def test_what_was_said_does_not_stand_in_the_error(payload: Any) -> None:
    with pytest.raises(PayloadInvalid) as failed:
        ChatEvents().decode(event("MessageSent", payload))
    for text in chain(failed.value):
        assert "in confidence" not in text


def chain(exc: BaseException) -> Iterable[str]:
    yield from (str(exc), repr(exc), *traceback.format_exception_only(exc))
    for other in (exc.__cause__, exc.__context__):
        if other is not None:
            yield from (str(other), repr(other))


FIELDS: Final = """type data message user id content chat_id sender_id sent_at status tempId
    conversation_id reader_id message_ids firstName"""
KEYS: Final = st.sampled_from(FIELDS.split()) | st.text(max_size=4)
JSON: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(name=st.sampled_from(sorted(DEFAULT_EVENT_NAMES)), raw=JSON | JSON.map(json.dumps))
def test_whatever_arrives_is_an_event_or_is_reported(name: str, raw: Any) -> None:
    try:
        got = ChatEvents().decode(event(name, raw))
    except PayloadInvalid:
        return
    assert isinstance(got, MessageSentEvent | UserIsTypingEvent | MessagesReadEvent)


# Our own backend

ALI: Final = models.User(id=45, first_name="Ali", last_name="Qo'chqorov", email="ali@example.com")
PUBLISHED: Final = broadcasts.MessageSent(
    message=models.Message(
        id="123",
        chat_id="45",
        sender_id="67",
        sender_name="John",
        content="Hello!",
        sent_at=MOMENT,
        status="sent",
    ),
    temp_id="temp-msg-xyz",
)


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (PUBLISHED, SENT),
        (broadcasts.UserIsTyping(conversation_id=123, user=ALI), TYPES),
        (
            broadcasts.MessagesRead(
                conversation_id=123, reader_id=45, message_ids=["101", "102", "103"]
            ),
            HAS_READ,
        ),
    ],
    ids=["message", "typing", "read"],
)
def test_what_our_own_backend_publishes_decodes(
    published: broadcasts.Event, expected: ChatEvent
) -> None:
    name = f"App\\Events\\{type(published).__name__}"
    raw = msgspec.json.encode(published).decode()
    assert ChatEvents().decode(event(name, raw)) == expected
    _, payload, _ = OF_TYPE[type(expected)]
    assert json.loads(raw) == json.loads(payload)


def test_what_our_own_backend_publishes_without_a_temporary_id_decodes() -> None:
    published = msgspec.structs.replace(PUBLISHED, temp_id=None)
    raw = msgspec.json.encode(published).decode()
    got = ChatEvents().decode(event("App\\Events\\MessageSent", raw))
    assert got == msgspec.structs.replace(SENT, temp_id=None)

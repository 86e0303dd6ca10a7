"""What a backend calls things, into antiphon's words and back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.chat import (
    DEFAULT_EVENT_NAMES,
    ChatEvent,
    ChatEvents,
    Message,
    MessageSentEvent,
    MessagesReadEvent,
    RestClient,
    User,
    UserIsTypingEvent,
)
from antiphon.chat.dialect import Dialect
from antiphon.chat.models import Conversation
from antiphon.chat.spelling import fitted, received, sent
from antiphon.errors import ApiError, PayloadInvalid
from antiphon.protocol.frames import Event

FIELDS: Final[dict[str, str | tuple[str, ...]]] = {
    "body": "content",
    "conversation_id": "chat_id",
    "created_at": "sent_at",
    "name": ("firstName", "title"),
    "user_id": ("sender_id", "reader_id"),
    "temp_id": "tempId",
}
SENT: Final = {
    "message": {
        "id": 7,
        "conversation_id": 5,
        "user_id": "u-2",
        "body": "Hello!",
        "created_at": "2026-11-23T10:31:00.000000Z",
        "deleted_at": None,
    },
    "temp_id": "t",
}
TYPING: Final = {"conversation_id": 5, "user": {"id": "u-2", "name": "John Doe"}}
READ: Final = {"conversation_id": 5, "user_id": "u-2", "message_ids": [7]}


# Words


def test_antiphons_names_stand_beside_the_backends() -> None:
    assert received({"body": "x", "id": 1}, {"body": "content"}) == {
        "body": "x",
        "content": "x",
        "id": 1,
    }


def test_names_are_translated_at_any_depth() -> None:
    there = {"a": [{"b": {"body": [{"body": 1}]}}]}
    here = received(there, {"body": "content"})
    assert here["a"][0]["b"]["content"] == [{"body": 1, "content": 1}]


def test_one_name_may_stand_for_several() -> None:
    here = received({"name": "x"}, {"name": ("firstName", "title")})
    assert (here["firstName"], here["title"]) == ("x", "x")


def test_what_the_backend_calls_otherwise_counts_for_more_than_what_it_calls_the_same() -> None:
    assert received({"content": "odd", "body": "x"}, {"body": "content"})["content"] == "x"


def test_names_may_be_exchanged() -> None:
    fields = {"sender_id": "chat_id", "chat_id": "sender_id"}
    assert received({"sender_id": 1, "chat_id": 2}, fields) == {"chat_id": 1, "sender_id": 2}
    assert sent({"sender_id": 1, "chat_id": 2}, fields) == {"chat_id": 1, "sender_id": 2}


def test_of_two_names_for_one_thing_the_first_that_is_there_counts() -> None:
    fields = {"body": "content", "text": "content"}
    assert received({"text": "b", "body": "a"}, fields)["content"] == "a"
    assert received({"text": "b"}, fields)["content"] == "b"
    assert sent({"content": "x"}, fields) == {"body": "x"}


def test_without_names_of_its_own_nothing_is_touched() -> None:
    there = {"a": [1]}
    assert received(there, {}) is there
    assert sent({"content": "x", "tempId": None}, {}) == {"content": "x"}


def test_what_does_not_fit_is_explained_as_it_came() -> None:
    with pytest.raises(msgspec.ValidationError, match="Expected `str`, got `null`"):
        fitted({"id": 1, "chat_id": 1, "sender_id": 1, "content": None}, Message)


# Events


def event(raw: Any, name: str = "MessageSent") -> Event:
    return Event(name=name, channel="private-user.1", raw=raw)


def forms(data: Any, kind: str) -> list[Any]:
    """Bare and wrapped, as JSON in a string and as it is."""
    wrapped = {"type": kind, "data": data}
    return [
        data,
        json.dumps(data),
        wrapped,
        json.dumps(wrapped),
        {**wrapped, "data": json.dumps(data)},
    ]


@pytest.mark.parametrize("position", range(5))
def test_events_in_other_words_are_read_in_every_form(position: int) -> None:
    chat = ChatEvents(fields=FIELDS)
    message = chat.decode(event(forms(SENT, "message")[position]))
    assert isinstance(message, MessageSentEvent)
    assert (message.temp_id, message.message.content) == ("t", "Hello!")
    assert (message.message.chat_id, message.message.sender_id) == (5, "u-2")
    assert message.message.sent_at is not None
    typing = chat.decode(event(forms(TYPING, "typing")[position], "UserIsTyping"))
    assert isinstance(typing, UserIsTypingEvent)
    assert (typing.conversation_id, typing.user.id, typing.user.name) == (5, "u-2", "John Doe")
    read = chat.decode(event(forms(READ, "read")[position], "MessagesRead"))
    assert read == MessagesReadEvent(conversation_id=5, reader_id="u-2", message_ids=(7,))


def test_events_in_antiphons_words_are_read_by_a_dialect_too() -> None:
    own = {"message": {"id": 1, "chat_id": 2, "sender_id": 3, "content": "x"}, "tempId": "t"}
    expected = ChatEvents().decode(event(own))
    assert expected is not None
    assert ChatEvents(fields=FIELDS).decode(event(own)) == expected


@pytest.mark.parametrize("fields", [{}, FIELDS], ids=["antiphon's words", "other words"])
def test_nulls_of_an_event_stand_for_what_is_not_there(fields: Any) -> None:
    user = {"id": 2, "firstName": "John", "lastName": None, "email": None}
    for raw in forms({"conversation_id": 5, "user": user}, "typing"):
        typing = ChatEvents(fields=fields).decode(event(raw, "UserIsTyping"))
        assert isinstance(typing, UserIsTypingEvent)
        assert typing.user.name == "John"


KEYS: Final = st.sampled_from(
    [*FIELDS, "message", "data", "type", "id", "user", "content", "reader_id", "message_ids"]
)
JSON: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(DEFAULT_EVENT_NAMES)), raw=JSON | JSON.map(json.dumps))
def test_whatever_arrives_in_other_words_is_an_event_or_is_reported(name: str, raw: Any) -> None:
    try:
        got = ChatEvents(fields=FIELDS).decode(event(raw, name))
    except PayloadInvalid:
        return
    assert isinstance(got, ChatEvent)


@given(content=st.text(), id_=st.integers() | st.text(), temp_id=st.none() | st.text())
def test_what_is_said_in_other_words_is_the_same(
    content: str, id_: int | str, temp_id: str | None
) -> None:
    message = {"id": id_, "conversation_id": id_, "user_id": id_, "body": content}
    raw = {"message": message, "temp_id": temp_id}
    got = ChatEvents(fields=FIELDS).decode(event(raw))
    same = Message(id=id_, chat_id=id_, sender_id=id_, content=content)
    assert got == MessageSentEvent(message=same, temp_id=temp_id)


def nested(depth: int) -> Any:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "raw",
    ["[" * 100_000, '{"body":' * 100_000, nested(100_000), nested(900)],
    ids=["lists", "objects", "bare", "nearly too deep"],
)
def test_data_that_is_nested_too_deep_is_reported(raw: Any) -> None:
    with pytest.raises(PayloadInvalid):
        ChatEvents(fields=FIELDS).decode(event(raw))


# Requests


class Asked(NamedTuple):
    method: str
    path: str
    body: Any


class Backend:
    """Answers with what is set for a path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, Any] = {}
        self.asked: list[Asked] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.asked.append(Asked(request.method, request.raw_path, body))
        answer = self.answers.get(request.path, {})
        if isinstance(answer, str):
            return web.Response(text=answer, content_type="text/html")
        return web.json_response(answer)

    def client(self, **dialect: Any) -> RestClient:
        return RestClient(self.url, token="t", dialect=Dialect(**dialect))


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[Backend]:
    backend = Backend()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", backend.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    backend.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield backend
    await runner.cleanup()


async def test_paths_and_words_of_ones_own_are_asked_for(backend: Backend) -> None:
    said = SENT["message"]
    backend.answers = {
        "/v1/chats": {"data": {"id": 5, "name": "Team"}},
        "/v1/chats/c 1/lines": {"data": [said]},
        "/v1/people": {"data": [{"id": 1, "name": "Ali"}]},
        "/v1/self": {"data": {"id": 1, "name": "Ali"}},
    }
    async with backend.client(
        me="/v1/self",
        users="v1/people",
        conversations="/v1/chats",
        messages="/v1/chats/{conversation_id}/lines?with=author",
        typing="/v1/chats/{conversation_id}/typing",
        read="/v1/{conversation_id}/seen",
        logout="/v1/bye",
        fields={**FIELDS, "members": "member_ids", "before": "before_id", "seen": "message_id"},
    ) as api:
        assert await api.me() == User(id=1, first_name="Ali")
        assert await api.users("Ä & b") == [User(id=1, first_name="Ali")]
        assert await api.start_conversation([1, "2"], "Team") == Conversation(id=5, title="Team")
        page = await api.messages("c 1", before_id="9/?")
        assert [message.content for message in page.messages] == ["Hello!"]
        backend.answers["/v1/chats/c 1/lines"] = {"data": said}
        assert (await api.send("c 1", "Hello!", temp_id="t")).id == 7
        await api.typing(5)
        await api.read(5, "7")
        await api.logout()
    lines = "/v1/chats/c%201/lines?with=author"
    assert backend.asked == [
        ("GET", "/v1/self", None),
        ("GET", "/v1/people?search=%C3%84+%26+b", None),
        ("POST", "/v1/chats", {"members": [1, 2], "name": "Team"}),
        ("GET", f"{lines}&limit=50&before=9%2F%3F", None),
        ("POST", lines, {"body": "Hello!", "temp_id": "t"}),
        ("POST", "/v1/chats/5/typing", {}),
        ("POST", "/v1/5/seen", {"seen": 7}),
        ("POST", "/v1/bye", None),
    ]


@pytest.mark.parametrize(
    ("given", "as_number", "as_text"),
    [
        (7, 7, "7"),
        ("7", 7, "7"),
        ("0", 0, "0"),
        ("007", "007", "007"),
        ("-7", "-7", "-7"),
        ("7.0", "7.0", "7.0"),
        ("٧", "٧", "٧"),
        ("9223372036854775807", 2**63 - 1, "9223372036854775807"),
        ("9223372036854775808", "9223372036854775808", "9223372036854775808"),
        ("9" * 5_000, "9" * 5_000, "9" * 5_000),
        ("01J8Z", "01J8Z", "01J8Z"),
        ("", "", ""),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_ids_in_bodies_are_numbers_or_texts(
    backend: Backend, given: Any, as_number: Any, as_text: Any
) -> None:
    for ids, expected in (("number", as_number), ("text", as_text)):
        async with backend.client(ids=ids) as api:
            await api.read(1, given)
        body = backend.asked[-1].body
        assert (body, type(body["message_id"])) == ({"message_id": expected}, type(expected))


async def test_what_a_backend_has_no_path_for_is_said_or_left_undone(backend: Backend) -> None:
    async with backend.client(users="", conversations="", typing="", read="", logout="") as api:
        await api.typing(1)
        await api.read(1, 2)
        calls: list[tuple[Any, str]] = [
            (api.users(), "users"),
            (api.conversations(), "conversations"),
            (api.start_conversation([1]), "conversations"),
            (api.logout(), "logout"),
        ]
        for call, name in calls:
            with pytest.raises(ApiError, match=rf"no path for this: Dialect\.{name} is empty"):
                await call
    assert backend.asked == []


USER: Final = {"id": 1, "firstName": "Ali"}


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [
        ({}, {"token": "1|t", "user": USER}),
        (
            {"token_field": "data.access_token", "user_field": "data.user"},
            {"data": {"access_token": "1|t", "user": USER}},
        ),
        (
            {"token_field": "authorisation.token", "user_field": ""},
            {"authorisation": {"token": "1|t"}},
        ),
        ({"token_field": "", "user_field": ""}, "1|t"),
        ({"token_field": "", "user_field": ""}, "1|t\n"),
        ({"token_field": "", "user_field": ""}, '"1|t"'),
    ],
)
async def test_the_token_is_found_where_the_dialect_says(
    backend: Backend, dialect: Any, answer: Any
) -> None:
    backend.answers = {"/api/login": answer, "/api/me": {"data": USER}}
    async with backend.client(**dialect) as api:
        login = await api.login("ali@example.com", "secret")
        assert (login.token, login.user.name, api.token) == ("1|t", "Ali", "1|t")
    body = {"email": "ali@example.com", "password": "secret", "device_name": "antiphon"}
    assert backend.asked[0] == ("POST", "/api/login", body)
    assert len(backend.asked) == (1 if dialect.get("user_field", "user") else 2)


@pytest.mark.parametrize(
    ("dialect", "answer", "why"),
    [
        ({}, {"token": "1|t"}, "There is no `user`"),
        ({}, {"user": USER}, "There is no `token`"),
        ({}, {"token": 7, "user": USER}, "There is no token in `token`"),
        ({"token_field": "a.b"}, {"a": "b", "user": USER}, r"There is no `a\.b`"),
        ({"token_field": "a.b.c"}, {"a": {"b": None}}, r"There is no `a\.b\.c`"),
        ({"token_field": ""}, "<!doctype html>", "malformed"),
        ({"token_field": ""}, "", "truncated|There is no token"),
        ({"token_field": ""}, "two\nlines", "There is no token"),
        ({"token_field": ""}, "тoken", "ascii"),
        ({"user_field": ""}, {"token": "1|t"}, "Object missing required field `id`"),
    ],
)
async def test_a_login_that_gives_no_token_or_no_user_changes_nothing(
    backend: Backend, dialect: Any, answer: Any, why: str
) -> None:
    backend.answers = {"/api/login": answer}
    async with backend.client(**dialect) as api:
        with pytest.raises(ApiError, match=f"{why}.*is it a chat backend"):
            await api.login("ali@example.com", "secret")
        assert api.token == "t"


def test_events_and_requests_share_their_words() -> None:
    dialect = Dialect(fields=FIELDS, event_names={"new": MessageSentEvent})
    chat = ChatEvents(dialect.event_names, fields=dialect.fields)
    assert isinstance(chat.decode(event(SENT, "new")), MessageSentEvent)
    assert chat.decode(event(SENT, "MessageSent")) is None

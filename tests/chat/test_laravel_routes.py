"""A Laravel application's routes and events, in every spelling, through the REST client."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from antiphon.chat import (
    DEFAULT_EVENT_NAMES,
    ChatEvent,
    ChatEvents,
    ChatSession,
    MessageSentEvent,
    MessagesReadEvent,
    RestClient,
    Room,
    Status,
    UserIsTypingEvent,
)
from antiphon.client import Client, PresenceChannel
from antiphon.errors import ApiError, Forbidden, LoginFailed
from antiphon.protocol.frames import Event
from antiphon.server import Server
from antiphon.settings import App

from .laravel import PASSWORD, Laravel, Person, open_laravel
from .test_events import MESSAGE, READ, TYPING

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMEOUT: Final = 10.0
VARIATIONS: Final[list[dict[str, Any]]] = [
    {},
    {"own_words": False},
    {"own_words": False, "wrapped": True, "pages": "messages"},
    {"sanctum": True, "ids": "number", "pages": "cursor", "newest_first": True},
    {"ids": "ulid", "pages": "resource", "newest_first": True, "wrapped": True},
    {"pages": "bare", "newest_first": True, "names": ("chat.new", "chat.types", "chat.seen")},
]
NAMED: Final = [
    tuple(name for name, type_ in DEFAULT_EVENT_NAMES.items() if type_ is kind)
    for kind in (MessageSentEvent, UserIsTypingEvent, MessagesReadEvent)
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with Server(App(id="1", key="k", secret="s")) as server:
        yield server


@pytest_asyncio.fixture(params=VARIATIONS, ids=str, loop_scope="module")
async def laravel(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Laravel]:
    async with open_laravel(server.settings(), **request.param) as laravel:
        yield laravel


@pytest_asyncio.fixture(loop_scope="module")
async def plain(server: Server) -> AsyncIterator[Laravel]:
    async with open_laravel(server.settings()) as laravel:
        yield laravel


@contextlib.asynccontextmanager
async def as_(laravel: Laravel, user: Person) -> AsyncIterator[RestClient]:
    token = laravel.token(user)
    async with RestClient(laravel.api_url, token=token, dialect=laravel.dialect) as api:
        yield api


@contextlib.asynccontextmanager
async def hearing(laravel: Laravel, user: Person) -> AsyncIterator[asyncio.Queue[ChatEvent]]:
    """What a user hears on their own channel, signed by the application."""
    heard: asyncio.Queue[ChatEvent] = asyncio.Queue()
    dialect = laravel.dialect
    chat = ChatEvents(dialect.event_names, fields=dialect.fields)

    def put(event: Event) -> None:
        if (decoded := chat.decode(event)) is not None:
            heard.put_nowait(decoded)

    async with Client(laravel.settings, token=laravel.token(user)) as client:
        channel = client.subscribe(dialect.user_channel.format(user_id=user.id))
        channel.bind_all(put)
        await channel.subscribed(TIMEOUT)
        yield heard


async def next_of(heard: asyncio.Queue[ChatEvent]) -> ChatEvent:
    async with asyncio.timeout(TIMEOUT):
        return await heard.get()


async def test_one_logs_in_and_out(laravel: Laravel) -> None:
    ali = laravel.users[0]
    async with RestClient(laravel.api_url, dialect=laravel.dialect) as api:
        login = await api.login(ali.email, PASSWORD)
        assert (str(login.user.id), login.user.name) == (str(ali.id), ali.name)
        assert api.token == login.token
        assert await api.me() == login.user
        await api.logout()
        assert api.token == ""
        with pytest.raises(LoginFailed, match="does not accept the token: Unauthenticated"):
            await api.me()


async def test_a_wrong_password_is_a_failed_login(laravel: Laravel) -> None:
    async with RestClient(laravel.api_url, dialect=laravel.dialect) as api:
        with pytest.raises(LoginFailed, match="provided credentials are incorrect") as failed:
            await api.login(laravel.users[0].email, "wrong-password")
    assert failed.value.code == 422
    assert "wrong-password" not in str(failed.value)


async def test_people_and_conversations_are_listed(laravel: Laravel) -> None:
    ali, john, eve = laravel.users
    team = laravel.start(ali, john, eve, title="Team")
    await laravel.say(john, "hello team", conversation=team)
    await laravel.say(john, "hello Ali")
    async with as_(laravel, ali) as api:
        assert [user.name for user in await api.users("JOHN")] == [john.name]
        assert [user.name for user in await api.users()] == [john.name, eve.name]
        pair, group = await api.conversations()
    assert [str(pair.id), str(group.id)] == [str(laravel.conversation), str(team)]
    assert (pair.title, group.title) == (None, "Team")
    assert [user.name for user in group.members] == [ali.name, john.name, eve.name]
    assert (pair.unread_count, group.unread_count) == (1, 1)
    assert pair.last_message is not None
    assert pair.last_message.content == "hello Ali"


async def test_a_conversation_is_started(laravel: Laravel) -> None:
    ali, john, eve = laravel.users
    async with as_(laravel, ali) as api:
        made = await api.start_conversation([john.id, str(eve.id)], "Team")
        untitled = await api.start_conversation([eve.id])
        listed = {str(found.id) for found in await api.conversations()}
    assert listed == {str(laravel.conversation), str(made.id), str(untitled.id)}
    assert (made.title, untitled.title) == ("Team", None)
    assert [user.name for user in made.members] == [ali.name, john.name, eve.name]


async def test_pages_come_oldest_first_in_both_directions(laravel: Laravel) -> None:
    ali, john = laravel.users[:2]
    for number in range(11):
        await laravel.say(john if number % 2 else ali, str(number))
    async with as_(laravel, ali) as api:
        here = laravel.conversation
        newest = await api.messages(here, limit=4)
        assert [message.content for message in newest.messages] == ["7", "8", "9", "10"]
        before = await api.messages(here, limit=4, before_id=newest.messages[0].id)
        assert [message.content for message in before.messages] == ["3", "4", "5", "6"]
        assert (newest.has_more, before.has_more) == (True, True)
        first = await api.messages(here, limit=4, before_id=before.messages[0].id)
        assert [message.content for message in first.messages] == ["0", "1", "2"]
        assert first.has_more is False
        after = await api.messages(here, limit=4, after_id=before.messages[-1].id)
        assert after.messages == newest.messages
        nothing = await api.messages(here, after_id=newest.messages[-1].id)
    assert (nothing.messages, nothing.has_more) == ((), False)
    assert {message.sender_name for message in newest.messages} == {ali.name, john.name}
    assert all(message.sent_at and message.sent_at.tzinfo for message in newest.messages)
    assert {str(message.chat_id) for message in newest.messages} == {str(here)}


async def test_a_message_is_sent_once_and_its_sender_finds_it_again(laravel: Laravel) -> None:
    ali, john = laravel.users[:2]
    async with as_(laravel, ali) as alis, as_(laravel, john) as johns:
        here = laravel.conversation
        message = await alis.send(here, "Hello!", temp_id="temp-1")
        again = await alis.send(here, "Hello!", temp_id="temp-1")
        other = await alis.send(here, "Hello!", temp_id="temp-2")
        assert (message.id, message.content) == (again.id, "Hello!")
        assert other.id != message.id
        mine, theirs = await alis.messages(here), await johns.messages(here)
        with pytest.raises(ApiError, match="field is required") as refused:
            await alis.send(here, " ")
        with pytest.raises(ApiError, match="answered 404"):
            await alis.send("4711", "Hello!")
    assert refused.value.code == 422
    assert [message.temp_id for message in mine.messages] == ["temp-1", "temp-2"]
    assert [message.temp_id for message in theirs.messages] == [None, None]
    assert laravel.said() == ["Hello!", "Hello!"]


async def test_all_three_events_are_heard(laravel: Laravel) -> None:
    ali, john = laravel.users[:2]
    async with (
        as_(laravel, john) as johns,
        as_(laravel, ali) as alis,
        hearing(laravel, ali) as by_ali,
        hearing(laravel, john) as by_john,
    ):
        await johns.typing(laravel.conversation)
        message = await johns.send(laravel.conversation, "Hello!", temp_id="temp-1")
        await alis.read(laravel.conversation, message.id)
        typing, sent = await next_of(by_ali), await next_of(by_ali)
        own, read = await next_of(by_john), await next_of(by_john)
    assert isinstance(typing, UserIsTypingEvent)
    assert str(typing.conversation_id) == str(laravel.conversation)
    assert (str(typing.user.id), typing.user.name) == (str(john.id), john.name)
    assert isinstance(sent, MessageSentEvent)
    assert own == sent
    assert (sent.message.id, sent.message.content) == (message.id, "Hello!")
    assert (sent.temp_id, sent.message.sender_name) == ("temp-1", john.name)
    assert isinstance(read, MessagesReadEvent)
    assert (str(read.reader_id), read.message_ids) == (str(ali.id), (message.id,))
    assert str(read.conversation_id) == str(laravel.conversation)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("own_words", [False, True])
async def test_the_events_are_heard_under_every_default_name(
    server: Server, wrapped: bool, own_words: bool
) -> None:
    for names in zip(*NAMED, strict=True):
        async with open_laravel(
            server.settings(), names=names, wrapped=wrapped, own_words=own_words
        ) as laravel:
            ali, john = laravel.users[:2]
            async with hearing(laravel, ali) as heard:
                await laravel.type(john)
                await laravel.say(john, "Hello!")
                await laravel.read(ali)
                kinds = [type(await next_of(heard)) for _ in range(3)]
        assert kinds == [UserIsTypingEvent, MessageSentEvent, MessagesReadEvent]


async def test_the_payloads_are_those_of_the_design(server: Server) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    async with open_laravel(server.settings(), own_words=False) as laravel:
        ali, john = laravel.users[:2]
        async with Client(laravel.settings, token=laravel.token(ali)) as client:
            channel = client.subscribe("private-user.1")
            for name in (r"App\Events\MessageSent", r"App\Events\MessagesRead"):
                channel.bind(name, lambda event: heard.put_nowait(event.data))
            await channel.subscribed(TIMEOUT)
            await laravel.say(john, "Hello!", temp_id="temp-msg-xyz")
            await laravel.read(ali)
            async with asyncio.timeout(TIMEOUT):
                sent, read = await heard.get(), await heard.get()
    assert sent == {
        "message": {
            "id": "1",
            "chat_id": "1",
            "sender_id": "2",
            "sender_name": "John Doe",
            "content": "Hello!",
            "sent_at": "2026-11-23T10:31:01Z",
            "status": "sent",
        },
        "tempId": "temp-msg-xyz",
    }
    assert read == {"conversation_id": 1, "reader_id": 1, "message_ids": ["1"]}


async def test_the_payloads_that_the_guide_shows_are_those_of_the_design() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "laravel.md").read_text("utf-8")
    assert re.findall(r"```json\n(.*?)\n```", guide) == [MESSAGE, TYPING, READ]


async def test_the_senders_own_connection_is_left_out(plain: Laravel) -> None:
    ali = plain.users[0]
    channel = plain.dialect.user_channel.format(user_id=ali.id)
    heard: asyncio.Queue[Event] = asyncio.Queue()
    async with as_(plain, ali) as api, Client(plain.settings, token=plain.token(ali)) as client:
        own = client.subscribe(channel)
        own.bind(r"App\Events\MessageSent", heard.put_nowait)
        await own.subscribed(TIMEOUT)
        await api.send(plain.conversation, "not here", socket_id=client.socket_id)
        await api.send(plain.conversation, "but here")
        async with asyncio.timeout(TIMEOUT):
            event = await heard.get()
    assert event.data["message"]["body"] == "but here"


async def test_channels_are_signed_for_members_only(plain: Laravel) -> None:
    ali, _, eve = plain.users
    room = plain.dialect.conversation_channel.format(conversation_id=plain.conversation)
    async with Client(plain.settings, token=plain.token(ali)) as client:
        channel = client.subscribe(room)
        await channel.subscribed(TIMEOUT)
        assert isinstance(channel, PresenceChannel)
        assert [member.id for member in channel.members] == [str(ali.id)]
    async with Client(plain.settings, token=plain.token(eve)) as client:
        with pytest.raises(Forbidden):
            await client.subscribe(room).subscribed(TIMEOUT)


async def test_a_token_that_expires_in_the_middle_is_renewed_once(plain: Laravel) -> None:
    ali = plain.users[0]
    tokens = [plain.token(ali)]

    def renewed() -> str:
        tokens.append(plain.token(ali))
        return tokens[-1]

    dialect = plain.dialect
    async with RestClient(plain.api_url, token=tokens[0], refresh=renewed, dialect=dialect) as api:
        await api.send(plain.conversation, "before")
        plain.revoke(tokens[0])
        calls = (api.send(plain.conversation, str(number)) for number in range(10))
        await asyncio.gather(*calls)
    assert len(tokens) == 2
    assert api.token == tokens[1]
    first, *others = plain.said()
    assert first == "before"
    assert sorted(others) == [str(number) for number in range(10)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110 - what it asks about sets no event
            await asyncio.sleep(0.005)


async def test_a_whole_session_runs_on_it(laravel: Laravel) -> None:
    ali, john = laravel.users[:2]
    await laravel.say(john, "before")
    heard: list[str] = []
    async with ChatSession(
        laravel.settings, token=laravel.token(ali), dialect=laravel.dialect
    ) as chat:
        chat.on_message(lambda message: heard.append(message.content))
        room = chat.room(laravel.conversation)
        await room.open()
        assert (room.title, room.unread) == (john.name, 1)
        await laravel.type(john)
        await until(lambda: [user.name for user in room.typing] == [john.name])
        await laravel.say(john, "live")
        await until(lambda: heard == ["live"])
        room.seen()
        await until(lambda: not room.unread)
        laravel.fails_with = 503
        laravel.asked.clear()
        entry = await room.send("at last")
        await until(lambda: sum(asked.endswith("/messages") for asked in laravel.asked) >= 2)
        laravel.fails_with = 0
        await until(lambda: status_of(room, entry.key) is Status.SENT)
        await laravel.read(john)
        await until(lambda: status_of(room, entry.key) is Status.READ)
        assert [entry.content for entry in room.timeline.entries] == laravel.said()
    assert laravel.said() == ["before", "live", "at last"]


def status_of(room: Room, key: str) -> Status:
    entry = room.timeline.get(key)
    assert entry is not None
    return entry.status

"""The REST client against our own backend, and against backends that answer badly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.chat import (
    ChatEvents,
    Login,
    Message,
    MessageSentEvent,
    MessagesReadEvent,
    RestClient,
    User,
    UserIsTypingEvent,
)
from antiphon.chat.dialect import Dialect
from antiphon.chat.models import Conversation, Page
from antiphon.client import Client, SecretAuthorizer
from antiphon.errors import AntiphonError, ApiError, LoginFailed
from antiphon.protocol.frames import Event
from antiphon.server import Server
from antiphon.settings import App
from tests.cli.strangers import kept_port

from .house import PASSWORD, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN: Final = "token-never-to-be-printed"
TIMEOUT: Final = 10.0
NO_ANSWER: Final = "^No answer from the backend at|could not be reached"


def assert_discreet(error: AntiphonError, *secrets: str) -> None:
    """Neither the token nor a password stands anywhere in an error, nor in what caused it."""
    shown = "".join(traceback.format_exception(error)) + str(error) + repr(error)
    for secret in (TOKEN, PASSWORD, *secrets):
        assert secret not in shown
    assert "\n" not in str(error)


# Our own backend


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with Server(App(id="1", key="k", secret="s")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    async with open_house(server.settings(), folder) as house:
        yield house


class Listener:
    """Hears what is published on users' own channels."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._heard: asyncio.Queue[Event] = asyncio.Queue()
        self._chat = ChatEvents()

    async def join(self, user: Any) -> None:
        channel = self.client.subscribe(f"private-user.{user.id}")
        channel.bind_all(self._put)
        await channel.subscribed(TIMEOUT)

    def _put(self, event: Event) -> None:
        if not event.name.startswith("pusher:"):
            self._heard.put_nowait(event)

    async def next(self) -> Any:
        async with asyncio.timeout(TIMEOUT):
            return self._chat.decode(await self._heard.get())


@pytest_asyncio.fixture(loop_scope="module")
async def listener(server: Server) -> AsyncIterator[Listener]:
    settings = server.settings()
    async with Client(settings, authorizer=SecretAuthorizer(settings)) as client:
        yield Listener(client)


async def test_a_login_gives_the_user_and_a_token_that_further_requests_carry(
    house: House,
) -> None:
    async with RestClient(house.api_url + "/") as api:
        login = await api.login("ali@example.com", PASSWORD)
        assert login.user == User(
            id=house.ali.id, first_name="Ali", last_name="Qo'chqorov", email="ali@example.com"
        )
        assert (login.user.name, login.user.channel) == ("Ali Qo'chqorov", "private-user.1")
        assert api.token == login.token != ""
        assert await api.me() == login.user


async def test_a_token_can_be_given_instead_of_a_login(house: House) -> None:
    async with house.as_(house.john) as api, RestClient(house.api_url, token=api.token) as other:
        assert (await other.me()).name == "John Doe"


async def test_a_login_does_not_show_its_token(house: House) -> None:
    async with RestClient(house.api_url) as api:
        login = await api.login("ali@example.com", PASSWORD)
        for shown in (repr(login), str(login), f"{login}", repr([login]), repr(api), str(api)):
            assert login.token not in shown
    assert repr(Login(token=TOKEN, user=User(id=1))) == f"Login(user={User(id=1)!r})"


async def test_a_message_is_sent_kept_and_heard(house: House, listener: Listener) -> None:
    await listener.join(house.ali)
    async with house.as_(house.john) as john, house.as_(house.ali) as ali:
        sent = await john.send(house.conversation, "Hello!\n\x1b[31m👋", temp_id="temp-1")
        assert (sent.content, sent.sender_name) == ("Hello!\n\x1b[31m👋", "John Doe")
        assert await listener.next() == MessageSentEvent(message=sent, temp_id="temp-1")
        assert (await ali.messages(house.conversation)).messages[-1] == sent
        (mine,) = (await john.messages(house.conversation, limit=1)).messages
        assert (mine.id, mine.temp_id) == (sent.id, "temp-1")


async def test_the_same_temporary_id_makes_one_message(house: House, listener: Listener) -> None:
    await listener.join(house.ali)
    async with house.as_(house.john) as john:
        first = await john.send(house.conversation, "once", temp_id="temp-2")
        assert await john.send(house.conversation, "twice", temp_id="temp-2") == first
        last = await john.send(str(house.conversation), "without")
    for _ in range(2):  # the first telling may have been lost
        assert await listener.next() == MessageSentEvent(message=first, temp_id="temp-2")
    assert await listener.next() == MessageSentEvent(message=last, temp_id=None)


async def test_typing_and_reading_are_heard(house: House, listener: Listener) -> None:
    await listener.join(house.john)
    async with house.as_(house.john) as john, house.as_(house.ali) as ali:
        message = await john.send(house.conversation, "read me")
        await listener.next()
        await ali.typing(house.conversation)
        await ali.read(house.conversation, message.id)
        match await listener.next():
            case UserIsTypingEvent(conversation_id=conversation, user=user):
                assert (conversation, user.name) == (house.conversation, "Ali Qo'chqorov")
            case other:
                pytest.fail(f"heard {other}")
        match await listener.next():
            case MessagesReadEvent(reader_id=reader, message_ids=ids):
                assert (reader, ids[-1]) == (house.ali.id, message.id)
            case other:
                pytest.fail(f"heard {other}")
        (read,) = (await ali.messages(house.conversation, limit=1)).messages
        assert (read.id, read.status) == (message.id, "read")


async def test_messages_come_oldest_first_and_in_pages(house: House) -> None:
    async with house.as_(house.john) as john:
        for number in range(4):
            await john.send(house.conversation, f"page {number}")
        page = await john.messages(house.conversation, limit=4)
        newest = page.messages
        assert [message.content[-1] for message in newest] == ["0", "1", "2", "3"]
        assert page.has_more
        before = await john.messages(house.conversation, limit=2, before_id=newest[2].id)
        assert before.messages == newest[:2]
        after = await john.messages(house.conversation, limit=2, after_id=newest[1].id)
        assert (after.messages, after.has_more) == (newest[2:], False)
        after = await john.messages(house.conversation, after_id=newest[3].id)
        assert (after.messages, after.has_more) == ((), False)


async def test_people_are_found_and_conversations_started(house: House) -> None:
    async with house.as_(house.eve) as eve, house.as_(house.ali) as ali:
        assert [user.name for user in await eve.users("JOHN")] == ["John Doe"]
        assert [user.name for user in await eve.users()] == ["Ali Qo'chqorov", "John Doe"]
        assert await eve.users("nobody") == []
        made = await eve.start_conversation([house.ali.id])
        assert await eve.start_conversation([str(house.ali.id)]) == made
        group = await eve.start_conversation([house.ali.id, house.john.id], "Team")
        assert (made.title, group.title, group.unread_count) == (None, "Team", 0)
        sent = await eve.send(group.id, "hello")
        first, second = await eve.conversations()
        assert (first.id, second) == (group.id, made)
        assert first.last_message == sent
        assert [user.name for user in first.members][1:] == ["John Doe", "Eve Stranger"]
        listed = {found.id: found for found in await ali.conversations()}
        assert listed[group.id].unread_count == 1
        assert set(listed) == {house.conversation, made.id, group.id}


async def test_the_senders_own_connection_is_left_out(
    server: Server, house: House, listener: Listener
) -> None:
    await listener.join(house.ali)
    socket_id = listener.client.socket_id
    async with house.as_(house.john) as john:
        message = await john.send(house.conversation, "not here", socket_id=socket_id)
        await john.typing(house.conversation, socket_id=socket_id)
        await john.read(house.conversation, message.id, socket_id=socket_id)
        await john.send(house.conversation, "but here")
    assert (await listener.next()).message.content == "but here"


async def test_after_a_logout_the_token_is_worthless(house: House) -> None:
    async with house.as_(house.ali) as api:
        token = api.token
        await api.logout()
        assert api.token == ""
        api.token = token
        with pytest.raises(LoginFailed, match="does not accept the token") as failed:
            await api.me()
    assert failed.value.code == 401
    assert_discreet(failed.value, token)


async def test_a_client_can_be_used_again_after_it_was_closed(house: House) -> None:
    api = RestClient(house.api_url)
    await api.close()
    await api.login("ali@example.com", PASSWORD)
    await api.close()
    assert (await api.me()).email == "ali@example.com"
    await api.close()
    await api.close()


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("john@example.com", "wrong-password-typed"),
        ("nobody@example.com", PASSWORD),
        ("john@example.com", "пароль"),
        ("john@example.com", PASSWORD + " "),
    ],
    ids=["wrong", "unknown user", "not ASCII", "a blank too much"],
)
async def test_a_wrong_password_is_a_failed_login(house: House, email: str, password: str) -> None:
    async with RestClient(house.api_url) as api:
        with pytest.raises(LoginFailed, match=r"refused the login.* wrong") as failed:
            await api.login(email, password)
        assert api.token == ""
    assert failed.value.code == 401
    assert house.api_url in str(failed.value)
    assert_discreet(failed.value, password)


async def test_an_empty_password_is_refused(house: House) -> None:
    async with RestClient(house.api_url) as api:
        with pytest.raises(ApiError) as failed:
            await api.login("john@example.com", "")
    assert failed.value.code == 422


async def test_too_many_wrong_passwords_are_refused_with_the_time_to_wait(house: House) -> None:
    async with RestClient(house.api_url) as api:
        for _ in range(10):
            with pytest.raises(LoginFailed):
                await api.login("eve@example.com", "guess")
        with pytest.raises(ApiError, match=r"Try again in \d+ seconds") as failed:
            await api.login("eve@example.com", PASSWORD)
    assert failed.value.code == 429
    assert_discreet(failed.value)


@pytest.mark.parametrize("token", ["", TOKEN, "Bearer x", "töken", "x" * 4_000])
async def test_a_token_that_is_none_is_not_accepted(house: House, token: str) -> None:
    async with RestClient(house.api_url, token=token) as api:
        with pytest.raises(LoginFailed, match="does not accept the token") as failed:
            await api.me()
        for call in (api.messages(1), api.send(1, "x"), api.typing(1), api.read(1, 1)):
            with pytest.raises(LoginFailed):
                await call
    assert failed.value.code == 401
    assert_discreet(failed.value, *([token] if token else []))


async def test_an_expired_token_is_not_accepted(server: Server, tmp_path: Path) -> None:
    lifetime = timedelta(microseconds=1)
    async with (
        open_house(server.settings(), tmp_path, token_lifetime=lifetime) as house,
        house.as_(house.ali) as api,
    ):
        with pytest.raises(LoginFailed, match="Log in again") as failed:
            await api.me()
        assert_discreet(failed.value, api.token)


async def test_what_is_not_ones_own_is_refused(house: House) -> None:
    async with house.as_(house.john) as john:
        with pytest.raises(ApiError, match="answered 404: There is no such conversation") as failed:
            await john.messages(4711)
        assert not isinstance(failed.value, LoginFailed)
        assert failed.value.code == 404
        for content in ("", " \n", "x" * 4_001, "a\x00b"):
            with pytest.raises(ApiError, match="content") as refused:
                await john.send(house.conversation, content)
            assert refused.value.code == 422
        assert_discreet(failed.value, john.token)


# Backends that answer badly

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Scripted = Callable[[Handler], Awaitable[RestClient]]


@pytest_asyncio.fixture(loop_scope="module")
async def scripted() -> AsyncIterator[Scripted]:
    """A client, with a token, of a backend that does what a handler says."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handle: Handler) -> RestClient:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(app, shutdown_timeout=0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            return await stack.enter_async_context(RestClient(url, token=TOKEN))

        yield start


def answering(status: int, body: str | bytes, type_: str = "application/json") -> Handler:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        raw = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=raw, content_type=type_)

    return handle


def calls(api: RestClient) -> Iterator[Awaitable[Any]]:
    """Each of the calls that read an answer."""
    yield api.login("ali@example.com", PASSWORD)
    yield api.me()
    yield api.messages(1)
    yield api.send(1, "Hello!")


PAGE: Final = "<!doctype html><html><body>Sign in</body></html>"


@pytest.mark.parametrize(
    ("body", "type_"),
    [
        (PAGE, "text/html"),
        (PAGE, "application/json"),
        ("", "application/json"),
        ("null", "application/json"),
        ("{}", "application/json"),
        ('{"data":null}', "application/json"),
        ('{"data":{"data":7}}', "application/json"),
        ('"OK"', "application/json"),
        ('{"token":"' + TOKEN + '"}', "application/json"),
        ('{"token":7,"user":{"id":true},"messages":7,"message":7}', "application/json"),
        ('{"token":"","user":{"id":null}}', "application/json"),
        ('{"token":"' + TOKEN + '\\n","user":{"id":{}}}', "application/json"),
        ('{"token":"' + TOKEN + '","user":{"id":null}}', "application/json"),
        (b"\xff\xfe\x00", "application/octet-stream"),
        ("[" * 100_000, "application/json"),
        ('{"data":' * 100_000, "application/json"),
        ('{"token":"' + TOKEN, "application/json"),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_an_answer_that_is_none_is_reported_with_its_address(
    scripted: Scripted, body: str | bytes, type_: str
) -> None:
    api = await scripted(answering(200, body, type_))
    for call in (*calls(api), api.users(), api.conversations(), api.start_conversation([1])):
        with pytest.raises(ApiError, match="is it a chat backend") as failed:
            await call
        assert api.api_url in str(failed.value)
        assert len(str(failed.value)) < 400
        assert_discreet(failed.value)
    assert api.token == TOKEN


@pytest.mark.parametrize("status", [403, 409, 422, 500, 503])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"message":"Server Error"}', "Server Error"),
        ('{"message":"Server Error","exception":"…","trace":[]}', "Server Error"),
        (PAGE, "no reason given"),
        ("", "no reason given"),
        ('{"message":7}', "no reason given"),
        (b"\xff", "no reason given"),
    ],
    ids=["a message", "debug mode", "a page", "nothing", "a number", "no text"],
)
async def test_a_refusal_is_reported_with_its_status_and_words(
    scripted: Scripted, status: int, body: str | bytes, said: str
) -> None:
    api = await scripted(answering(status, body))
    for call in (
        api.me(),
        api.messages(1),
        api.send(1, "Hello!"),
        api.typing(1),
        api.read(1, 2),
        api.logout(),
        api.users(),
        api.conversations(),
        api.start_conversation([1]),
    ):
        with pytest.raises(ApiError) as failed:
            await call
        error = failed.value
        assert not isinstance(error, LoginFailed)
        assert error.code == status
        assert f"{api.api_url}/api/" in str(error)
        assert str(status) in str(error)
        assert said in str(error)
        assert "<" not in str(error)
        assert_discreet(error)
    assert api.token == TOKEN


@pytest.mark.parametrize("status", [401, 422])
async def test_a_login_may_be_refused_in_two_ways(scripted: Scripted, status: int) -> None:
    words = f"Wrong, {PASSWORD} is not it"
    body = {"message": words, "errors": {"email": [words]}}
    api = await scripted(answering(status, json.dumps(body)))
    said = "refused the login: the e-mail address or the password is wrong"
    with pytest.raises(LoginFailed, match=said) as failed:
        await api.login("ali@example.com", PASSWORD)
    assert failed.value.code == status
    assert_discreet(failed.value)
    with pytest.raises(LoginFailed, match="refused the login: Wrong, correct-"):
        await api.login("ali@example.com", "another")


@pytest.mark.parametrize("status", [403, 419, 429, 500])
async def test_a_login_that_is_not_answered_is_no_wrong_password(
    scripted: Scripted, status: int
) -> None:
    api = await scripted(answering(status, '{"message":"CSRF token mismatch."}'))
    with pytest.raises(ApiError, match=f"answered {status}: CSRF token mismatch") as failed:
        await api.login("ali@example.com", PASSWORD)
    assert not isinstance(failed.value, LoginFailed)
    assert_discreet(failed.value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("3600", 3600.0),
        ("86400", 3600.0),
        ("9" * 400, 3600.0),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("²", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
    ids=lambda value: str(value)[:12],
)
async def test_how_long_to_wait_is_told(
    scripted: Scripted, header: str, seconds: float | None
) -> None:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({}, status=429, headers={"Retry-After": header})

    api = await scripted(handle)
    with pytest.raises(ApiError) as failed:
        await api.send(1, "Hello!")
    assert (failed.value.code, failed.value.retry_after) == (429, seconds)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(scripted: Scripted, status: int) -> None:
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path)
        await request.read()
        return web.Response(status=status, headers={"Location": "/login"})

    api = await scripted(handle)
    for call in calls(api):
        with pytest.raises(ApiError) as failed:
            await call
        assert failed.value.code == status
        assert_discreet(failed.value)
    assert "/login" not in asked


async def test_a_redirect_is_called_one(scripted: Scripted) -> None:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=302, headers={"Location": "https://elsewhere.example/login"})

    api = await scripted(handle)
    with pytest.raises(ApiError, match="redirect"):
        await api.me()


@pytest.mark.parametrize("word", ["\x1b[31mred\x07", "a\nb\r\nc", "\x9b2J", "x" * 100_000])
async def test_the_words_of_a_stranger_make_one_harmless_line(
    scripted: Scripted, word: str
) -> None:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"message": word}, status=401)

    api = await scripted(handle)
    with pytest.raises(LoginFailed) as failed:
        await api.me()
    text = str(failed.value)
    assert (text.isprintable(), len(text) < 1_000) == (True, True)


async def test_a_token_in_the_words_of_a_refusal_is_not_repeated(scripted: Scripted) -> None:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        said = f"Token {request.headers['Authorization'].split()[1]} has expired"
        return web.json_response({"message": said}, status=401)

    api = await scripted(handle)
    with pytest.raises(LoginFailed) as failed:
        await api.me()
    assert_discreet(failed.value)


async def test_a_backend_that_does_not_answer_is_given_up(scripted: Scripted) -> None:
    gone = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        await gone.wait()
        return web.Response()

    url = (await scripted(handle)).api_url
    async with RestClient(url, token=TOKEN, timeout=0.05) as api:
        for call in calls(api):
            with pytest.raises(ApiError) as failed:
                await call
            assert failed.value.code is None
            assert url in str(failed.value)
            assert_discreet(failed.value)
    gone.set()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 mail.example.com ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x00\x00",
    ],
    ids=["nothing", "SMTP", "cut short", "no gzip", "no chunk", "TLS"],
)
async def test_a_peer_that_speaks_no_http_cannot_be_reached(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    peer = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{peer.sockets[0].getsockname()[1]}"
    async with peer, RestClient(url, token=TOKEN) as api:
        with pytest.raises(ApiError, match=NO_ANSWER) as failed:
            await api.me()
    assert url in str(failed.value)
    assert failed.value.code is None
    assert_discreet(failed.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{free}",
        "https://127.0.0.1:{free}",
        "http://nowhere.invalid",
        "http://",
        "",
        "127.0.0.1:{free}",
        "ftp://127.0.0.1",
        "http://127.0.0.1:99999",
        "not an address",
    ],
)
async def test_a_backend_that_is_not_there_cannot_be_reached(url: str) -> None:
    with kept_port() as port:
        url = url.format(free=port)
        async with RestClient(url, token=TOKEN) as api:
            for call in calls(api):
                with pytest.raises(ApiError, match=NO_ANSWER) as failed:
                    await call
                assert failed.value.code is None
                assert f" {url or '(nothing)'}:" in str(failed.value), "the address as it was given"
                assert_discreet(failed.value)


async def test_a_password_in_the_address_is_not_shown() -> None:
    with kept_port() as port:
        async with RestClient(f"http://proxy:in-the-address@127.0.0.1:{port}") as api:
            with pytest.raises(ApiError) as failed:
                await api.me()
    assert f"127.0.0.1:{port}" in str(failed.value)
    assert_discreet(failed.value, "in-the-address")


async def test_a_token_that_no_header_can_carry_is_said_to_be_at_fault(scripted: Scripted) -> None:
    api = await scripted(answering(200, '{"id":1}'))
    api.token = f"{TOKEN}\r\nX-Other: 1"
    with pytest.raises(ApiError, match="token") as failed:
        await api.me()
    assert_discreet(failed.value)


async def test_a_socket_id_that_no_header_can_carry_is_said_to_be_at_fault(
    scripted: Scripted,
) -> None:
    api = await scripted(answering(200, "{}"))
    with pytest.raises(ApiError, match="header that cannot be sent") as failed:
        await api.typing(1, socket_id="1.2\r\nX-Other: 1")
    assert_discreet(failed.value)


# What is asked


async def test_requests_are_what_a_laravel_application_expects(scripted: Scripted) -> None:
    seen: list[tuple[str, str, dict[str, str], Any]] = []
    user = {"id": "u-1", "firstName": "Ali", "more": True}
    said = {"id": 7, "chat_id": 1, "sender_id": "u-1", "content": "Hello!", "more": True}

    async def handle(request: web.Request) -> web.Response:
        body = await request.json() if await request.read() else None
        seen.append((request.method, request.path, dict(request.query), body))
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert request.headers["Accept"] == "application/json"
        assert request.headers.get("X-Socket-ID") == ("1.2" if body else None)
        answers = {"/api/me": user, "/api/conversations/1/messages": {"messages": [said]}}
        if request.method == "POST":
            answers = {"/api/conversations/1/messages": {"message": said}}
        return web.json_response(answers.get(request.path))

    api = await scripted(handle)
    assert (await api.me()).id == "u-1"
    assert (await api.messages(1, limit=3, before_id=9)).messages[0].id == 7
    await api.messages("1", after_id="9")
    sent = await api.send(1, "Hello!", temp_id="t", socket_id="1.2")
    assert (sent.id, sent.sender_id, sent.sent_at) == (7, "u-1", None)
    await api.read(1, 7, socket_id="1.2")
    await api.logout()
    assert seen == [
        ("GET", "/api/me", {}, None),
        ("GET", "/api/conversations/1/messages", {"limit": "3", "before_id": "9"}, None),
        ("GET", "/api/conversations/1/messages", {"limit": "50", "after_id": "9"}, None),
        ("POST", "/api/conversations/1/messages", {}, {"content": "Hello!", "tempId": "t"}),
        ("POST", "/api/conversations/1/read", {}, {"message_id": 7}),
        ("POST", "/api/logout", {}, None),
    ]


async def test_the_backend_may_live_under_a_prefix(scripted: Scripted) -> None:
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.json_response({"id": 1})

    root = await scripted(handle)
    async with RestClient(f"{root.api_url}/chat/v1/") as api:
        await api.me()
    assert seen == ["/chat/v1/api/me"]


@pytest.mark.parametrize("id_", ["9f3c-ü b", "a/b", "a?b#c", "a&limit=1", "%2F", ".."])
async def test_ids_of_any_spelling_stay_in_their_place(scripted: Scripted, id_: str) -> None:
    seen: list[tuple[str, str]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.match_info["path"], request.query.get("before_id", "")))
        return web.json_response({"messages": []})

    api = await scripted(handle)
    await api.messages(id_, before_id=id_)
    assert seen == [(f"api/conversations/{id_}/messages", id_)]


# How backends write what they answer


def said(id_: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": id_, "chat_id": 1, "sender_id": 2, "content": "Hello!", **more}


def links(following: str | None) -> dict[str, Any]:
    return {"links": {"first": "x", "last": None, "prev": None, "next": following}}


async def answered(scripted: Scripted, body: Any) -> RestClient:
    return await scripted(answering(200, json.dumps(body)))


@pytest.mark.parametrize(
    ("around", "has_more"),
    [
        (lambda items: items, True),
        (lambda items: {"messages": items}, True),
        (lambda items: {"data": items}, True),
        (lambda items: {"data": {"messages": items}}, True),
        (lambda items: {"data": {"data": items, "next_page_url": None}}, False),
        (lambda items: {"messages": items, "has_more": False}, False),
        (lambda items: {"messages": items, "has_more": True, **links(None)}, True),
        (lambda items: {"data": items, "meta": {"has_more": False}}, False),
        (lambda items: {"data": items, **links(None), "meta": {"per_page": 2}}, False),
        (lambda items: {"data": items, **links("http://elsewhere.example/?page=2")}, True),
        (lambda items: {"data": items, "next_page_url": None, "next_cursor": None}, False),
        (lambda items: {"data": items, "next_page_url": "x", "next_cursor": "y"}, True),
        (lambda items: {"data": items, "meta": {"next_cursor": "y"}}, True),
        (lambda items: {"data": items, **links(None), "meta": {"next_cursor": "y"}}, True),
        (lambda items: {"data": items, "links": [], "meta": None}, True),
        (lambda items: {"data": items, "has_more": "no"}, True),
    ],
)
async def test_a_page_is_read_whatever_stands_around_it(
    scripted: Scripted, around: Callable[[Any], Any], has_more: bool
) -> None:
    api = await answered(scripted, around([said(7), said("8")]))
    page = await api.messages(1, limit=2)
    assert [message.id for message in page.messages] == [7, "8"]
    assert page.has_more is has_more


@pytest.mark.parametrize(("limit", "has_more"), [(1, True), (2, True), (3, False)])
async def test_a_full_page_that_says_nothing_has_more_behind_it(
    scripted: Scripted, limit: int, has_more: bool
) -> None:
    api = await answered(scripted, [said(7), said(8)])
    assert (await api.messages(1, limit=limit)).has_more is has_more


AT: Final = "2026-11-23T10:31:{:02}Z"


@pytest.mark.parametrize(
    ("items", "ids"),
    [
        ([said(10), said(9)], [9, 10]),
        ([said("10"), said("9")], ["9", "10"]),
        ([said("9"), said("10")], ["9", "10"]),
        ([said(9), said("10")], [9, "10"]),
        ([said(2, sent_at=AT.format(1)), said(1, sent_at=AT.format(2))], [1, 2]),
        ([said("b", sent_at=AT.format(2)), said("a", sent_at=AT.format(1))], ["a", "b"]),
        ([said("b", sent_at=AT.format(1)), said("a", sent_at=AT.format(2))], ["b", "a"]),
        ([said("b", sent_at=AT.format(1)), said("a", sent_at=AT.format(1))], ["b", "a"]),
        ([said("b"), said("a")], ["b", "a"]),
        ([said(1)], [1]),
        ([], []),
    ],
    ids=repr,
)
async def test_a_page_with_the_newest_first_is_turned_round(
    scripted: Scripted, items: list[Any], ids: list[Any]
) -> None:
    api = await answered(scripted, {"data": items})
    assert [message.id for message in (await api.messages(1)).messages] == ids


async def test_a_message_that_does_not_fit_is_left_out_and_logged_without_what_it_says(
    scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [said("odd\n", content=["in confidence"]), "in confidence", said(8, sender_id=None)]
    api = await answered(scripted, [said(7), *odd, said(9, content=7), said(10)])
    with caplog.at_level(logging.WARNING, "antiphon.chat"):
        page = await api.messages(1)
    assert [message.id for message in page.messages] == [7, 10]
    (text,) = caplog.messages
    assert r"4 of 6 messages (id 'odd\n', no id, id 8, …) do not fit, left out" in text
    assert "$.content" in text
    assert "in confidence" not in caplog.text


async def test_where_nothing_fits_the_spelling_is_said_to_be_at_fault(scripted: Scripted) -> None:
    api = await answered(scripted, {"data": [{"id": 1, "chat_id": 1, "sender_id": 1, "body": "x"}]})
    with pytest.raises(ApiError, match=r"1 of 1 messages .*`content`.*Dialect\.fields") as failed:
        await api.messages(1)
    assert_discreet(failed.value)
    for call in (api.users(), api.conversations()):
        await call  # an id is enough for them
    assert (await api.messages(1, after_id=0)).messages == (), "a catch-up goes on without it"


@pytest.mark.parametrize(
    "around",
    [
        lambda item: item,
        lambda item: {"data": item},
        lambda item: {"message": item, "tempId": "t"},
        lambda item: {"data": {"message": item}},
        lambda item: {"message": "Created.", "data": item},
        lambda item: {"status": "success", "data": {"data": item}},
    ],
)
async def test_a_message_is_found_in_its_wrapping(
    scripted: Scripted, around: Callable[[Any], Any]
) -> None:
    item = {"id": 7, "sender_id": 2, "content": "Hello!", "status": None, "sender_name": None}
    api = await answered(scripted, around(item))
    message = await api.send("c-1", "Hello!")
    assert (message.id, message.chat_id, message.status) == (7, "c-1", "sent")


async def test_nulls_stand_for_what_is_not_there(scripted: Scripted) -> None:
    user = {"id": "u-1", "firstName": "Ali", "lastName": None, "email": None, "avatar": None}
    last = {"id": 3, "sender_id": "u-1", "content": "Hello!", "sent_at": None, "status": None}
    conversation = {"id": 5, "title": None, "members": [user], "last_message": last}
    api = await answered(scripted, {"data": [conversation | {"unread_count": None}]})
    (found,) = await api.conversations()
    assert found.members == (User(id="u-1", first_name="Ali"),)
    assert (found.unread_count, found.last_message and found.last_message.chat_id) == (0, 5)


async def test_a_conversation_outlives_a_last_message_that_does_not_fit(scripted: Scripted) -> None:
    odd: list[Any] = [{"id": 1}, "Hello!", [], {}, 7]
    api = await answered(scripted, [{"id": id_, "last_message": o} for id_, o in enumerate(odd)])
    found = await api.conversations()
    assert [(item.id, item.last_message) for item in found] == [(id_, None) for id_ in range(5)]


NAMES: Final = """data message messages conversations users user id chat_id sender_id content title
    members last_message unread_count has_more links next meta next_cursor"""
KEYS: Final = st.sampled_from(NAMES.split())
ANYTHING: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echo() -> AsyncIterator[tuple[RestClient, list[Any]]]:
    """A client of a backend that answers what stands in a list."""
    body: list[Any] = [None]

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=json.dumps(body[0]), content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    dialect = Dialect(fields={"title": ("content", "firstName"), "next": "id"})
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with RestClient(url, token=TOKEN, dialect=dialect) as api:
        yield api, body
    await runner.cleanup()


@settings(max_examples=100, deadline=None)
@given(answer=ANYTHING)
async def test_whatever_is_answered_is_read_or_is_an_error(
    echo: tuple[RestClient, list[Any]], answer: Any
) -> None:
    api, body = echo
    body[0] = answer
    for call, kind in (
        (api.me(), User),
        (api.users(), list),
        (api.conversations(), list),
        (api.messages(1), Page),
        (api.send(1, "Hello!"), Message),
        (api.start_conversation([1]), Conversation),
    ):
        try:
            assert isinstance(await call, kind)
        except ApiError as error:
            assert_discreet(error)


# The token


class Guard:
    """Lets in who has one of its tokens; remembers which were shown, and what for."""

    def __init__(self, *tokens: str, otherwise: int = 401) -> None:
        self.tokens = set(tokens)
        self.otherwise = otherwise
        self.shown: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.shown.append(token)
        if token in self.tokens:
            return web.json_response({"id": 1})
        return web.json_response({"message": "Unauthenticated."}, status=self.otherwise)


@pytest.mark.parametrize("status", [401, 419])
async def test_a_refused_token_is_renewed_once_for_all_who_need_it(
    scripted: Scripted, status: int
) -> None:
    guard, renewals = Guard("new", otherwise=status), 0

    async def refresh() -> str:
        nonlocal renewals
        renewals += 1
        await asyncio.sleep(0)
        return "new"

    url = (await scripted(guard.answer)).api_url
    async with RestClient(url, token="old", refresh=refresh) as api:
        await asyncio.gather(*(api.me() for _ in range(20)))
        assert api.token == "new"
        await api.me()
    assert renewals == 1
    assert guard.shown[-1] == "new"


async def test_a_function_is_asked_for_the_token_at_every_request(scripted: Scripted) -> None:
    guard = Guard("a", "b")
    tokens = iter(["a", "b"])
    async with RestClient(
        (await scripted(guard.answer)).api_url, token=lambda: next(tokens)
    ) as api:
        assert api.token == ""
        await api.me()
        assert api.token == "a"
        await api.me()
        assert api.token == "b"
    assert guard.shown == ["a", "b"]


async def test_a_function_that_has_another_token_by_now_has_renewed_it(scripted: Scripted) -> None:
    guard = Guard("new")
    tokens = iter(["old", "new", "new"])

    async def current() -> str:
        return next(tokens)

    async with RestClient((await scripted(guard.answer)).api_url, token=current) as api:
        await api.me()
    assert guard.shown == ["old", "new"]


@pytest.mark.parametrize("status", [401, 419])
async def test_a_token_that_cannot_be_renewed_is_a_failed_login(
    scripted: Scripted, status: int
) -> None:
    guard = Guard(otherwise=status)
    url = (await scripted(guard.answer)).api_url
    sources: list[dict[str, Any]] = [
        {"token": TOKEN},
        {"token": lambda: TOKEN},
        {"token": "old", "refresh": lambda: TOKEN},
        {"token": lambda: TOKEN, "refresh": lambda: None},
    ]
    for source in sources:
        async with RestClient(url, **source) as api:
            with pytest.raises(LoginFailed, match="does not accept the token: Unauth") as failed:
                await api.me()
        assert failed.value.code == status
        assert_discreet(failed.value)
    assert len(guard.shown) == 1 + 1 + 2 + 2


async def test_a_refresh_that_fails_is_a_failed_login_that_says_so(scripted: Scripted) -> None:
    def refresh() -> str:
        raise RuntimeError(f"no luck with {TOKEN}")

    async with RestClient(
        (await scripted(Guard().answer)).api_url, token=TOKEN, refresh=refresh
    ) as api:
        with pytest.raises(LoginFailed, match="refresh failed with RuntimeError") as failed:
            await api.me()
    assert_discreet(failed.value)


async def test_without_a_token_to_give_the_request_goes_without_one(scripted: Scripted) -> None:
    guard = Guard()
    async with RestClient((await scripted(guard.answer)).api_url, token=lambda: None) as api:
        with pytest.raises(LoginFailed):
            await api.me()
    assert guard.shown == [""]


async def never() -> str:
    await asyncio.Event().wait()
    return ""


def broken() -> str:
    raise RuntimeError(TOKEN)


@pytest.mark.parametrize(
    ("source", "why"),
    [(never, "none came within 0.05 seconds"), (broken, "failed with RuntimeError")],
)
async def test_a_token_that_does_not_come_is_said_to_be_missing(
    scripted: Scripted, source: Any, why: str
) -> None:
    guard = Guard()
    url = (await scripted(guard.answer)).api_url
    async with RestClient(url, token=source, timeout=0.05) as api:
        with pytest.raises(ApiError, match=f"There is no token .*{why}") as failed:
            await api.me()
    assert not isinstance(failed.value, LoginFailed)
    assert_discreet(failed.value)
    assert guard.shown == []


async def test_a_login_shows_no_token_and_stands_in_for_any_other(scripted: Scripted) -> None:
    shown: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        shown.append(request.headers.get("Authorization"))
        if request.path == "/api/login":
            return web.json_response({"token": "new", "user": {"id": 1}})
        return web.json_response({"id": 1})

    url = (await scripted(handle)).api_url
    async with RestClient(url, token=lambda: TOKEN, refresh=lambda: TOKEN) as api:
        await api.login("ali@example.com", PASSWORD)
        assert api.token == "new"
        await api.me()
        api.token = "set"
        await api.me()
    assert shown == [None, "Bearer new", "Bearer set"]


async def test_a_login_whose_token_is_good_for_nothing_changes_nothing(scripted: Scripted) -> None:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        if request.path == "/api/login":
            return web.json_response({"token": "new"})
        return web.json_response({"message": "No to new."}, status=401)

    url = (await scripted(handle)).api_url
    async with RestClient(url, token=TOKEN, dialect=Dialect(user_field="")) as api:
        with pytest.raises(LoginFailed, match="does not accept the token: No to …"):
            await api.login("ali@example.com", PASSWORD)
        assert api.token == TOKEN


async def test_a_login_while_the_token_is_renewed_is_not_undone_by_it(scripted: Scripted) -> None:
    guard = Guard("from-login")
    renewing, go_on = asyncio.Event(), asyncio.Event()

    async def refresh() -> str:
        renewing.set()
        await go_on.wait()
        return "from-refresh"

    async with RestClient(
        (await scripted(guard.answer)).api_url, token="old", refresh=refresh
    ) as api:
        asking = asyncio.create_task(api.me())
        await renewing.wait()
        api.token = "from-login"
        go_on.set()
        await asking
        assert api.token == "from-login"


async def test_a_client_that_is_closed_ends_the_renewal_under_way(scripted: Scripted) -> None:
    renewing, ended = asyncio.Event(), asyncio.Event()

    async def refresh() -> str:
        renewing.set()
        try:
            return await never()
        finally:
            ended.set()

    api = RestClient((await scripted(Guard().answer)).api_url, token="old", refresh=refresh)
    asking = asyncio.create_task(api.me())
    await renewing.wait()
    await api.close()
    assert ended.is_set()
    with pytest.raises(LoginFailed):
        await asking
    await api.close()

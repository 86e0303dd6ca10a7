"""A chat backend as a Laravel application would have it, for tests: other paths, other words.

It keeps everything in memory, answers API resources, signs channels from form data and publishes
the three events of a chat on a real server. What it calls things, and how, can be varied.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import msgspec
from aiohttp import web

from antiphon.chat import (
    DEFAULT_EVENT_NAMES,
    ChatEvent,
    MessageSentEvent,
    MessagesReadEvent,
    UserIsTypingEvent,
)
from antiphon.chat.dialect import Dialect
from antiphon.protocol import signing
from antiphon.publisher import Publisher
from antiphon.settings import Settings

__all__ = ["PASSWORD", "Laravel", "Person", "open_laravel"]

PASSWORD: Final = "correct-horse-battery"
PER_PAGE: Final = 50
# A clock that ticks once for each message, so that no two are of the same moment.
BEGINNING: Final = datetime(2026, 11, 23, 10, 31, tzinfo=UTC)

Ids = Literal["number", "text", "ulid"]
Pages = Literal["resource", "cursor", "bare", "messages"]
Handler = Callable[["Person", web.Request], Awaitable[web.StreamResponse]]

OWN_WORDS: Final[dict[str, str | tuple[str, ...]]] = {
    "author": "sender_name",
    "body": "content",
    "conversation_id": "chat_id",
    "created_at": "sent_at",
    "latest_message": "last_message",
    "name": ("firstName", "title"),
    "participants": ("members", "member_ids"),
    "state": "status",
    "temp_id": "tempId",
    "unread": "unread_count",
    "user_id": ("sender_id", "reader_id"),
}


@dataclasses.dataclass(frozen=True)
class Person:
    """A user; `id` is spelled as the backend spells ids."""

    number: int
    id: int | str
    name: str
    email: str


@dataclasses.dataclass
class Row:
    """A message in the database."""

    number: int
    chat: int
    sender: Person
    body: str
    temp_id: str | None
    at: datetime
    read: bool = False


@dataclasses.dataclass
class Chat:
    """A conversation in the database; `marks` has how far each member has read."""

    number: int
    members: tuple[Person, ...]
    title: str | None
    marks: dict[int, int] = dataclasses.field(default_factory=dict)


class Laravel:
    """The application; made by `open_laravel`.

    Attributes:
        api_url: Its address.
        settings: What a client needs to know: the server, the address, no secret.
        dialect: How it spells the chat.
        users: Ali, John and Eve; Ali and John have a conversation.
        conversation: The id of that conversation.
        fails_with: The status of every answer while it is not 0.
        asked: Method and path of each request.
    """

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        *,
        own_words: bool,
        names: Sequence[str],
        wrapped: bool,
        ids: Ids,
        pages: Pages,
        newest_first: bool,
        sanctum: bool,
    ) -> None:
        self.api_url = ""
        self.fails_with = 0
        self.asked: list[str] = []
        self.own_words = own_words
        self._server = settings
        self._publisher = publisher
        self._names = dict(zip(_KINDS, names, strict=True))
        self._wrapped = wrapped
        self._ids = ids
        self._pages = pages
        self._newest_first = newest_first
        self._sanctum = sanctum
        self._tokens: dict[str, Person] = {}
        self._rows: list[Row] = []
        self._chats: dict[int, Chat] = {}
        self.users = tuple(
            Person(number, self._id(number), name, f"{name.split()[0].lower()}@example.com")
            for number, name in enumerate(("Ali Qo'chqorov", "John Doe", "Eve Stranger"), 1)
        )
        self.conversation = self.start(*self.users[:2])
        self.dialect = self._dialect()

    @property
    def settings(self) -> Settings:
        return msgspec.structs.replace(self._server, app_id="", app_secret="", api_url=self.api_url)

    # What tests do with it

    def token(self, user: Person) -> str:
        """A new token of a user's, as Sanctum makes them."""
        token = f"{len(self._tokens) + 1}|{secrets.token_urlsafe(30)}"
        self._tokens[token] = user
        return token

    def revoke(self, token: str) -> None:
        """Let a token expire."""
        del self._tokens[token]

    def start(self, *members: Person, title: str | None = None) -> int | str:
        """A new conversation; its id."""
        chat = Chat(len(self._chats) + 1, members, title)
        self._chats[chat.number] = chat
        return self._id(chat.number)

    async def say(
        self,
        sender: Person,
        body: str,
        *,
        conversation: int | str | None = None,
        temp_id: str | None = None,
        socket_id: str | None = None,
        told: bool = True,
    ) -> int | str:
        """Keep a message and tell the members, unless that is to be lost; the message's id."""
        row, _ = self._add(self._chat(conversation), sender, body, temp_id)
        if told:
            await self._tell_sent(row, socket_id)
        return self._id(row.number)

    async def type(
        self,
        user: Person,
        *,
        conversation: int | str | None = None,
        socket_id: str | None = None,
    ) -> None:
        """Tell the others that a user types."""
        chat = self._chat(conversation)
        if self.own_words:
            typist = {"id": user.id, "name": user.name, "email": user.email}
            data = {"conversation_id": self._id(chat.number), "user": typist}
        else:
            data = {"conversation_id": chat.number, "user": self._person(user)}
        others = [member for member in chat.members if member != user]
        await self._tell("typing", others, data, socket_id)

    async def read(
        self,
        user: Person,
        *,
        up_to: int | str | None = None,
        conversation: int | str | None = None,
        socket_id: str | None = None,
    ) -> None:
        """A user has read up to a message, or all of them; tell the members."""
        chat = self._chat(conversation)
        mark = len(self._rows) if up_to is None else self._number(up_to)
        newly = [
            row
            for row in self._rows_of(chat)
            if row.sender != user and chat.marks.get(user.number, 0) < row.number <= mark
        ]
        chat.marks[user.number] = max(mark, chat.marks.get(user.number, 0))
        for row in newly:
            row.read = True
        if self.own_words:
            ids: list[Any] = [self._id(row.number) for row in newly]
            data = {
                "conversation_id": self._id(chat.number),
                "user_id": user.id,
                "message_ids": ids,
            }
        else:
            data = {
                "conversation_id": chat.number,
                "reader_id": user.number,
                "message_ids": [str(row.number) for row in newly],
            }
        await self._tell("read", chat.members, data, socket_id)

    def said(self, conversation: int | str | None = None) -> list[str]:
        """All that was said in a conversation, in order: what the database has."""
        return [row.body for row in self._rows_of(self._chat(conversation))]

    # What it is called

    def _dialect(self) -> Dialect:
        names = {name: _TYPES[kind] for kind, name in self._names.items()}
        shared: dict[str, Any] = {
            "event_names": {**DEFAULT_EVENT_NAMES, **names},
            "ids": "number" if self._ids == "number" else "text",
            "token_field": "" if self._sanctum else "data.access_token",
            "user_field": "" if self._sanctum else "data.user",
            "login": "/sanctum/token" if self._sanctum else "/api/auth/login",
            "logout": "/api/auth/logout",
            "me": "/api/user",
        }
        if not self.own_words:
            return Dialect(**shared)
        return Dialect(
            **shared,
            users="/api/people",
            conversations="/api/chats",
            messages="/api/chats/{conversation_id}/messages",
            typing="/api/chats/{conversation_id}/typing",
            read="/api/chats/{conversation_id}/read",
            user_channel="private-App.Models.User.{user_id}",
            conversation_channel="presence-chat.{conversation_id}",
            fields=OWN_WORDS,
        )

    def _id(self, number: int) -> int | str:
        match self._ids:
            case "number":
                return number
            case "text":
                return str(number)
            case "ulid":
                return f"01J{number:023d}"

    def _number(self, id_: object) -> int:
        text = str(id_)
        text = text.removeprefix("01J") if self._ids == "ulid" else text
        return int(text) if text.isdecimal() else 0

    # What it shows

    def _person(self, user: Person) -> dict[str, Any]:
        if self.own_words:  # Laravel's own users have one name, and columns nobody has asked for
            return {
                "id": user.id,
                "name": user.name,
                "email": user.email,
                "email_verified_at": None,
            }
        first, _, last = user.name.partition(" ")
        return {"id": user.number, "firstName": first, "lastName": last, "email": user.email}

    def _message(self, row: Row, viewer: Person | None = None) -> dict[str, Any]:
        status = "read" if row.read else "sent"
        if not self.own_words:
            shown: dict[str, Any] = {
                "id": str(row.number),
                "chat_id": str(row.chat),
                "sender_id": str(row.sender.number),
                "sender_name": row.sender.name,
                "content": row.body,
                "sent_at": f"{row.at:%Y-%m-%dT%H:%M:%SZ}",
                "status": status,
            }
            return shown | ({"tempId": row.temp_id} if row.temp_id and viewer == row.sender else {})
        shown = {
            "id": self._id(row.number),
            "conversation_id": self._id(row.chat),
            "user_id": row.sender.id,
            "author": row.sender.name,
            "body": row.body,
            "created_at": f"{row.at:%Y-%m-%dT%H:%M:%S}.000000Z",
            "state": status,
            "deleted_at": None,
        }
        return shown | ({"temp_id": row.temp_id} if viewer == row.sender else {})

    def _conversation(self, chat: Chat, viewer: Person) -> dict[str, Any]:
        rows = self._rows_of(chat)
        mark = chat.marks.get(viewer.number, 0)
        unread = sum(row.sender != viewer and row.number > mark for row in rows)
        people = [self._person(member) for member in chat.members]
        last = self._message(rows[-1], viewer) if rows else None
        if self.own_words:
            return {
                "id": self._id(chat.number),
                "name": chat.title,
                "participants": people,
                "latest_message": last,
                "unread": unread,
            }
        return {
            "id": chat.number,
            "title": chat.title,
            "members": people,
            "last_message": last,
            "unread_count": unread,
        }

    # What it tells

    async def _tell_sent(self, row: Row, socket_id: str | None) -> None:
        temp = "temp_id" if self.own_words else "tempId"
        data = {"message": self._message(row), temp: row.temp_id}
        await self._tell("message", self._chats[row.chat].members, data, socket_id)

    async def _tell(
        self, kind: str, to: Iterable[Person], data: dict[str, Any], socket_id: str | None
    ) -> None:
        if self._wrapped:
            data = {"type": kind, "data": data}
        channels = [self.dialect.user_channel.format(user_id=user.id) for user in to]
        await self._publisher.trigger(channels, self._names[kind], data, socket_id=socket_id)

    # What it keeps

    def _chat(self, conversation: object) -> Chat:
        return self._chats[self._number(conversation or self.conversation)]

    def _rows_of(self, chat: Chat) -> list[Row]:
        return [row for row in self._rows if row.chat == chat.number]

    def _add(self, chat: Chat, sender: Person, body: str, temp_id: str | None) -> tuple[Row, bool]:
        """The message, and whether it is new: (sender, temp_id) is unique."""
        for row in self._rows:
            if temp_id is not None and (row.sender, row.temp_id) == (sender, temp_id):
                return row, False
        number = len(self._rows) + 1
        at = BEGINNING + timedelta(seconds=number)
        self._rows.append(Row(number, chat.number, sender, body, temp_id, at))
        return self._rows[-1], True

    # Its routes

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._witness])
        dialect = self.dialect
        app.router.add_post(dialect.login, self._log_in)
        app.router.add_post(dialect.logout, self._private(self._log_out))
        app.router.add_get(dialect.me, self._private(self._show_me))
        app.router.add_get(dialect.users, self._private(self._list_users))
        app.router.add_get(dialect.conversations, self._private(self._list_conversations))
        app.router.add_post(dialect.conversations, self._private(self._create_conversation))
        app.router.add_get(dialect.messages, self._private(self._list_messages))
        app.router.add_post(dialect.messages, self._private(self._send))
        app.router.add_post(dialect.typing, self._private(self._types))
        app.router.add_post(dialect.read, self._private(self._reads))
        app.router.add_post("/broadcasting/auth", self._private(self._authorize))
        return app

    @web.middleware
    async def _witness(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        await request.read()
        if self.fails_with:
            return _refusal(self.fails_with, "Server Error")
        return await handler(request)

    def _private(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def checked(request: web.Request) -> web.StreamResponse:
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            user = self._tokens.get(token)
            if user is None:
                return _refusal(401, "Unauthenticated.")
            return await handler(user, request)

        return checked

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if missing := [name for name in ("email", "password", "device_name") if name not in body]:
            return _invalid(missing[0], f"The {missing[0]} field is required.")
        user = next((user for user in self.users if user.email == body["email"]), None)
        if user is None or body["password"] != PASSWORD:
            return _invalid("email", "The provided credentials are incorrect.")
        token = self.token(user)
        if self._sanctum:
            return web.Response(text=token, content_type="text/html")
        data = {"access_token": token, "token_type": "Bearer", "user": self._person(user)}
        return web.json_response({"data": data})

    async def _log_out(self, me: Person, request: web.Request) -> web.StreamResponse:
        self.revoke(request.headers["Authorization"].removeprefix("Bearer "))
        return web.Response(status=204)

    async def _show_me(self, me: Person, request: web.Request) -> web.StreamResponse:
        # Sanctum's own route gives the model as it is, a resource stands under `data`.
        shown = self._person(me)
        return web.json_response(shown if self._sanctum else {"data": shown})

    async def _list_users(self, me: Person, request: web.Request) -> web.StreamResponse:
        search = request.query.get("search", "").casefold()
        found = [user for user in self.users if user != me and search in user.name.casefold()]
        return web.json_response({"data": [self._person(user) for user in found]})

    async def _list_conversations(self, me: Person, request: web.Request) -> web.StreamResponse:
        mine = [chat for chat in self._chats.values() if me in chat.members]

        def newest(chat: Chat) -> int:
            return max((row.number for row in self._rows_of(chat)), default=0)

        mine.sort(key=newest, reverse=True)
        return web.json_response({"data": [self._conversation(chat, me) for chat in mine]})

    async def _create_conversation(self, me: Person, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        ids = body.get("participants" if self.own_words else "member_ids", [])
        expected = int if self._ids == "number" else str
        if not ids or not all(type(id_) is expected for id_ in ids):
            return _invalid("participants", "The participants field is required.")
        numbers = {me.number, *map(self._number, ids)}
        members = tuple(user for user in self.users if user.number in numbers)
        title = body.get("name" if self.own_words else "title")
        chat = self._chats[self._number(self.start(*members, title=title))]
        return web.json_response({"data": self._conversation(chat, me)}, status=201)

    async def _list_messages(self, me: Person, request: web.Request) -> web.StreamResponse:
        chat = self._mine(me, request)
        if chat is None:
            return _no_chat()
        query = request.query
        limit = min(int(query.get("limit", PER_PAGE)), PER_PAGE)
        rows = self._rows_of(chat)
        if "after_id" in query:
            rows = [row for row in rows if row.number > self._number(query["after_id"])]
            page, has_more = rows[:limit], len(rows) > limit
        else:
            if "before_id" in query:
                rows = [row for row in rows if row.number < self._number(query["before_id"])]
            page, has_more = rows[-limit:], len(rows) > limit
        shown = [self._message(row, me) for row in page]
        if self._newest_first:
            shown.reverse()
        return web.json_response(self._page(shown, request.path, limit, has_more=has_more))

    def _page(self, shown: list[Any], path: str, limit: int, *, has_more: bool) -> Any:
        following = f"{self.api_url}{path}?page=2" if has_more else None
        links = {"first": f"{self.api_url}{path}", "last": None, "prev": None, "next": following}
        match self._pages:
            case "bare":
                return shown
            case "messages":
                return {"messages": shown, "has_more": has_more}
            case "cursor":  # cursorPaginate() without a resource
                cursor = "eyJpZCI6MX0" if has_more else None
                return {"data": shown, "per_page": limit, "next_cursor": cursor}
            case "resource":
                meta = {"current_page": 1, "path": f"{self.api_url}{path}", "per_page": limit}
                return {"data": shown, "links": links, "meta": meta}

    async def _send(self, me: Person, request: web.Request) -> web.StreamResponse:
        chat, body = self._mine(me, request), await request.json()
        if chat is None:
            return _no_chat()
        content, temp = ("body", "temp_id") if self.own_words else ("content", "tempId")
        if not str(body.get(content, "")).strip():
            return _invalid(content, f"The {content} field is required.")
        row, is_new = self._add(chat, me, body[content], body.get(temp))
        await self._tell_sent(row, request.headers.get("X-Socket-ID"))
        shown = self._message(row, me)
        return web.json_response({"data": shown}, status=201 if is_new else 200)

    async def _types(self, me: Person, request: web.Request) -> web.StreamResponse:
        chat = self._mine(me, request)
        if chat is None:
            return _no_chat()
        socket_id = request.headers.get("X-Socket-ID")
        await self.type(me, conversation=self._id(chat.number), socket_id=socket_id)
        return web.Response(status=204)

    async def _reads(self, me: Person, request: web.Request) -> web.StreamResponse:
        chat, body = self._mine(me, request), await request.json()
        if chat is None:
            return _no_chat()
        if type(body.get("message_id")) is not (int if self._ids == "number" else str):
            return _invalid("message_id", "The message id field is required.")
        await self.read(
            me,
            up_to=body["message_id"],
            conversation=self._id(chat.number),
            socket_id=request.headers.get("X-Socket-ID"),
        )
        return web.Response(status=204)

    async def _authorize(self, me: Person, request: web.Request) -> web.StreamResponse:
        form = await request.post()  # form data only, as Laravel's own clients send it
        socket_id, channel = str(form.get("socket_id", "")), str(form.get("channel_name", ""))
        data = None
        if channel != self.dialect.user_channel.format(user_id=me.id):
            prefix = self.dialect.conversation_channel.format(conversation_id="")
            chat = self._chats.get(self._number(channel.removeprefix(prefix)))
            if not channel.startswith(prefix) or chat is None or me not in chat.members:
                return _refusal(403, "This action is unauthorized.")
            member = {"user_id": str(me.id), "user_info": self._person(me)}
            data = msgspec.json.encode(member).decode()
        server = self._server
        auth = signing.channel_auth(server.app_key, server.app_secret, socket_id, channel, data)
        return web.json_response({"auth": auth} | ({"channel_data": data} if data else {}))

    def _mine(self, me: Person, request: web.Request) -> Chat | None:
        chat = self._chats.get(self._number(request.match_info["conversation_id"]))
        return chat if chat is not None and me in chat.members else None


@contextlib.asynccontextmanager
async def open_laravel(
    settings: Settings,
    *,
    own_words: bool = True,
    names: Sequence[str] = (
        r"App\Events\MessageSent",
        r"App\Events\UserIsTyping",
        r"App\Events\MessagesRead",
    ),
    wrapped: bool = False,
    ids: Ids = "text",
    pages: Pages = "resource",
    newest_first: bool = False,
    sanctum: bool = False,
) -> AsyncIterator[Laravel]:
    """The application, up while the context lasts.

    Args:
        settings: The server it publishes on, with id and secret.
        own_words: Call fields, paths and channels otherwise; else all but the log-in is as in
            DESIGN.md, with its mix of numbers and texts, whatever `ids` says.
        names: Names of the events: a message, typing, read.
        wrapped: Send the events as `{"type": …, "data": …}`.
        ids: How ids look.
        pages: What stands around a page of messages.
        newest_first: Turn pages of messages round.
        sanctum: Log in as in Sanctum's own example: the answer is the token, as plain text.
    """
    async with contextlib.AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(Publisher(settings))
        laravel = Laravel(
            settings,
            publisher,
            own_words=own_words,
            names=names,
            wrapped=wrapped,
            ids=ids if own_words else "number",
            pages=pages,
            newest_first=newest_first,
            sanctum=sanctum,
        )
        runner = web.AppRunner(laravel.application(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        laravel.api_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield laravel


_KINDS: Final = ("message", "typing", "read")
_TYPES: Final[dict[str, type[ChatEvent]]] = {
    "message": MessageSentEvent,
    "typing": UserIsTypingEvent,
    "read": MessagesReadEvent,
}


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


def _invalid(field: str, message: str) -> web.Response:
    """What Laravel says of a request that breaks a rule."""
    return web.json_response({"message": message, "errors": {field: [message]}}, status=422)


def _no_chat() -> web.Response:
    return _refusal(404, "No query results for model [App\\Models\\Conversation].")

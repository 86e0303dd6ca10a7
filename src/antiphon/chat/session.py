"""A chat as one user has it: connected, caught up, and everything a screen or a bot needs of it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import ssl
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self, TypeVar

from antiphon.client import (
    Authorization,
    Client,
    ConnectingIn,
    HttpAuthorizer,
)
from antiphon.client.auth import TokenSource
from antiphon.errors import (
    ApiError,
    ClientClosed,
    SettingsError,
)
from antiphon.settings import Settings

from .core import Core
from .dialect import Dialect
from .events import MessagesReadEvent
from .models import Entry, Id, Message, User
from .observations import ChatObservation, ChatState, ConversationsChanged, Typing
from .outbox import Outbox
from .problems import Problem
from .rest import RestClient
from .room import Room

__all__ = ["ChatSession"]

OnMessage = TypeVar("OnMessage", bound=Callable[[Message], object])
OnTyping = TypeVar("OnTyping", bound=Callable[[Typing], object])
OnRead = TypeVar("OnRead", bound=Callable[[MessagesReadEvent], object])
OnError = TypeVar("OnError", bound=Callable[[Problem], object])

LINGER: Final = 2.0
"""Seconds that closing leaves to what is just being sent."""

log = logging.getLogger("antiphon.chat")


class ChatSession:
    """One user's chat: conversations, messages, typing, read marks, presence; and what goes wrong.

    As an async context manager it is connected when the block begins. A screen that wants to show
    something at once calls `start()` instead, and `close()` in the end.

    It stays connected by itself. After each loss it subscribes first, then fetches what was missed
    and only then hands on what came meanwhile: messages are told once and in order. When the
    attempts are used up it is `FAILED`, and waits for `retry()`.

    Args:
        settings: The Pusher server, and the chat backend (`api_url`).
        token: Bearer token for the backend, or a function (plain or asynchronous) that gives it; it
            is asked again when the backend refuses the token.
        user_id: The user; by default the backend is asked whose token it is.
        dialect: How the backend spells the chat.
        path: A SQLite file that keeps unsent messages and the last history; None for none.
        max_attempts: Attempts to connect in a row before it has failed; None for no end.
        presence: Of so many of the newest conversations it is known who is online, besides those
            that are open.
        ssl_context: Stands in for the usual one, such as for a certificate of one's own.
        proxy: Address of a proxy for the WebSocket.

    Raises:
        SettingsError: `settings` has no `api_url`.

    Attributes:
        settings: The Pusher server, and the chat backend.
        dialect: How the backend spells the chat.
        client: The SDK's client: socket id, statistics, history.
        rest: The backend, for what the session does not do itself.
        rooms: All conversations that are known, by their id as text.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        token: TokenSource | None = None,
        user_id: Id | None = None,
        dialect: Dialect | None = None,
        path: str | Path | None = None,
        max_attempts: int | None = 5,
        presence: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        if not settings.api_url:
            raise SettingsError(
                "A chat needs its backend's address: give api_url (--api), or set APP_URL."
            )
        self.settings = settings
        self.dialect = dialect or Dialect()
        self._token = token
        self._signer = HttpAuthorizer(
            settings.auth_url, token=self._bearer, ssl_context=ssl_context
        )
        self.rest = RestClient(
            settings.api_url, token=self._bearer, dialect=self.dialect, ssl_context=ssl_context
        )
        self.client = Client(
            settings,
            authorizer=_Authorizer(self),
            max_attempts=max_attempts,
            ssl_context=ssl_context,
            proxy=proxy,
        )
        self._core = Core(
            self.client,
            self.rest,
            self.dialect,
            user_id=user_id,
            path=path,
            max_attempts=max_attempts,
            newest=presence,
        )
        self.rooms: Mapping[str, Room] = MappingProxyType(self._core.rooms)
        self._closing = asyncio.Lock()

    def __repr__(self) -> str:
        """The user and the state."""
        return f"<ChatSession of {self.me.name if self.me else self._core.my_id} {self.state}>"

    # Life

    async def __aenter__(self) -> Self:
        listeners = self._core.listeners
        listeners.hold()
        try:
            await self.start()
            await self.ready()
        except BaseException:
            listeners.release()  # there will be no block
            await self.close()
            raise
        # Once the block has given its handlers, and waits for the first time.
        asyncio.get_running_loop().call_soon(listeners.release)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Show what the file has kept, and begin to connect; does not wait for the network.

        Raises:
            SettingsError: The file cannot be used.
            ClientClosed: The session was closed; a new one can be made.
        """
        if self._core.is_closed:
            raise ClientClosed("This chat was closed; make a new session.")
        if self.state is ChatState.CLOSED:
            await self._core.link.start()

    async def ready(self) -> None:
        """Wait until it is connected and nothing is missing.

        Raises:
            AntiphonError: It has failed, or the backend refuses to say what was missed; the error
                says why.
            ClientClosed: It was closed, or is not started.
        """
        await self._core.link.ready()

    async def wait_closed(self) -> None:
        """Wait until the session has failed or is closed: how a bot stays.

        Raises:
            AntiphonError: It has failed; the error says why.
        """
        await self._core.link.wait_closed()

    async def close(self) -> None:
        """Disconnect, and let go of everything; a second call waits for the first.

        What is just being sent gets a moment (2 seconds) to be sent, if there is a connection;
        what is not sent then stays in the file, if there is one. Observers are told what becomes
        of it, and last that the session is `CLOSED`.
        """
        core, was_connected = self._core, self.is_connected
        core.link.end()
        async with self._closing, contextlib.AsyncExitStack() as last:
            # From here upwards, whatever happens.
            last.push_async_callback(core.close_store)
            last.push_async_callback(self.rest.close)
            last.push_async_callback(core.outbox.close)
            last.push_async_callback(core.listeners.close)
            last.callback(core.link.ended)
            last.push_async_callback(self.client.close)
            core.inbox.stop_asking()
            marks = [(room.id, room._end()) for room in core.rooms.values()]
            await core.end_tasks()
            if was_connected:
                with contextlib.suppress(TimeoutError, ApiError):
                    async with asyncio.timeout(LINGER):
                        await core.outbox.drained()
                        for room_id, mark in marks:
                            if mark is not None:
                                await self.rest.read(room_id, mark)

    def retry(self) -> None:
        """Try again now: connect, join, catch up, and send what has failed."""
        core = self._core
        if core.is_closed or self.state is ChatState.CLOSED:
            return
        core.login_is_good()
        core.hurry()
        core.link.retry()
        core.outbox.again()

    def renew(self, token: str) -> None:
        """Go on with a new token, after a log-in."""
        self._token = token
        self.retry()

    async def authorize_channel(self, channel: str, socket_id: str) -> Authorization:
        """Sign a channel: here, by asking the backend. Override it to sign in another way.

        Raises:
            AuthorizationFailed: There is no signature.
        """
        return await self._signer.authorize(channel, socket_id)

    async def _bearer(self) -> str | None:
        token = self._token
        given = token() if callable(token) else token
        return await given if inspect.isawaitable(given) else given

    # How it stands

    @property
    def state(self) -> ChatState:
        """Where the session stands."""
        return self._core.link.state

    @property
    def is_connected(self) -> bool:
        """Whether events arrive."""
        return self._core.is_connected

    @property
    def is_whole(self) -> bool:
        """Whether all that was missed is fetched; with `is_connected`, what `ready` waits for."""
        return self._core.inbox.is_whole

    @property
    def problem(self) -> Problem | None:
        """Why it is not connected, while it is not."""
        return self._core.link.problem

    @property
    def connecting_in(self) -> ConnectingIn | None:
        """The next attempt, while it is waited for."""
        return self._core.link.connecting_in

    @property
    def retry_at(self) -> float | None:
        """When that is, by `time.monotonic()`."""
        return self._core.link.retry_at

    @property
    def me(self) -> User | None:
        """The user, once known."""
        return self._core.me

    @property
    def outbox(self) -> Outbox:
        """Messages on their way: `waiting()` tells which, `drained()` waits for them."""
        return self._core.outbox

    # What a program listens to

    def on_message(self, handler: OnMessage) -> OnMessage:
        """Call a handler with each new `Message` of somebody else: once, in order.

        Handlers may be asynchronous; each gets one event after the other. Those that were missed
        while the connection was lost are among them. One that is given before a block's first
        `await` misses nothing.
        """
        self._core.listeners.add("message", handler)
        return handler

    def on_typing(self, handler: OnTyping) -> OnTyping:
        """Call a handler with `Typing`: who types in a conversation, whenever that changes."""
        self._core.listeners.add("typing", handler)
        return handler

    def on_read(self, handler: OnRead) -> OnRead:
        """Call a handler with each `MessagesReadEvent`."""
        self._core.listeners.add("read", handler)
        return handler

    def on_error(self, handler: OnError) -> OnError:
        """Call a handler with each `Problem`."""
        self._core.listeners.add("error", handler)
        return handler

    def observe(self, observer: Callable[[ChatObservation], None]) -> Callable[[], None]:
        """Call a function with everything that happens, in order; what is returned takes it off.

        Raises:
            TypeError: The function is asynchronous; a handler may be, an observer not.
        """
        return self._core.listeners.observe(observer)

    # Conversations

    @property
    def conversations(self) -> list[Room]:
        """All conversations, those with news first."""
        return self._core.newest()

    def room(self, conversation_id: Id) -> Room:
        """A conversation; one that was unknown is shown as soon as the backend tells of it."""
        return self._core.room(conversation_id)

    async def start_conversation(self, user_ids: Iterable[Id], title: str | None = None) -> Room:
        """Start a conversation, or find the one that two people have.

        Raises:
            ApiError: The backend refused or could not be asked.
        """
        conversation = await self.rest.start_conversation(user_ids, title)
        room = self.room(conversation.id)
        room._describe(conversation)
        room._history.seed(conversation, is_first=True)
        self._core.tell(ConversationsChanged((room.id,)))
        return room

    async def send(self, conversation_id: Id, content: str) -> Entry:
        """Send a message; it is kept when this returns, and sent until the backend has it.

        Raises:
            ValueError: There is no text, or none that an encoding can carry.
            SettingsError: The session's file could not keep it; it is not sent.
            ClientClosed: The session is closed.
        """
        return await self.room(conversation_id).send(content)

    def is_online(self, user_id: Id) -> bool:
        """Whether a user is in one of the channels whose members are known."""
        return self._core.presence.is_online(user_id)

    def last_seen(self, user_id: Id) -> datetime | None:
        """When a user last gave a sign of life, as far as this session knows."""
        return self._core.presence.last_seen(user_id)


class _Authorizer:
    """Signs through the session, where a program may have its own way."""

    def __init__(self, session: ChatSession) -> None:
        self._session = session

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        """The signature for a channel."""
        return await self._session.authorize_channel(channel, socket_id)

    async def close(self) -> None:
        """Let go of the backend."""
        await self._session._signer.close()

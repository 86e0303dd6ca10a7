"""What the parts of a session share: backend, outbox, file, tasks, and who is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from antiphon.client import Client
from antiphon.errors import AntiphonError

from .dialect import Dialect
from .inbox import Inbox
from .link import Link
from .listeners import Listeners
from .models import Conversation, Draft, Id, Message, User
from .observations import ConversationsChanged
from .outbox import Outbox
from .presence import Presence
from .problems import Problem, explain
from .rest import RestClient
from .room import Room
from .store import ChatStore

__all__ = ["Core"]

log = logging.getLogger("antiphon.chat")


class Core:
    """The inside of a session: its parts reach each other here, and programs nothing of it.

    Args:
        client: The SDK's client.
        rest: The backend.
        dialect: How the backend spells the chat.
        user_id: The user, if it is known whose session it is.
        path: A SQLite file that keeps unsent messages and the last history; None for none.
        max_attempts: Attempts to connect in a row before it has failed; None for no end.
        newest: Of so many of the newest conversations it is known who is online.

    Attributes:
        link: The way to the server.
        outbox: Messages on their way to the backend.
        inbox: What comes from it.
        presence: Who is there.
        listeners: Who is told.
        rooms: All conversations that are known, by their id as text.
        me: The user, once known.
        my_id: The user's id as text; empty while nobody knows it.
        is_connected: Whether events arrive.
        is_closed: Whether the session is closed for good, or is just being closed.
    """

    def __init__(
        self,
        client: Client,
        rest: RestClient,
        dialect: Dialect,
        *,
        user_id: Id | None,
        path: str | Path | None,
        max_attempts: int | None,
        newest: int,
    ) -> None:
        self.client = client
        self.rest = rest
        self.dialect = dialect
        self.me: User | None = None
        self.my_id = "" if user_id is None else str(user_id)
        self.is_connected = False
        self.is_closed = False
        self.rooms: dict[str, Room] = {}
        self.listeners = Listeners(self.report)
        self.outbox = Outbox(self._post, self._told)
        self.link = Link(self, user_id, max_attempts)
        self.inbox = Inbox(self)
        self.presence = Presence(self, newest)
        self._path = path
        self._store: ChatStore | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()
        self._login_is_asked = False  # one problem says so, however many requests are refused
        self._told_of: AntiphonError | None = None  # the last that has kept messages from going

    # Rooms

    def room(self, conversation_id: Id) -> Room:
        """A conversation; it is made if there is none yet."""
        id_ = str(conversation_id)
        room = self.rooms.get(id_)
        if room is None:
            room = self.rooms[id_] = Room(self, id_)
        return room

    def newest(self) -> list[Room]:
        """All conversations, those with news first."""
        return sorted(self.rooms.values(), key=_recency, reverse=True)

    def introduce(self, me: User) -> None:
        """Know the user from now on."""
        was_known = self.my_id == str(me.id)
        self.me, self.my_id = me, str(me.id)
        if not was_known:
            for room in self.rooms.values():
                room._history.begin_anew()  # none could tell whose messages are one's own

    # Who is told

    def tell(self, observation: object) -> None:
        """Tell the observers, and of problems also the handlers."""
        self.listeners.tell(observation)
        if isinstance(observation, Problem):
            self.listeners.call("error", observation)

    def report(self, error: AntiphonError) -> None:
        """Something has gone wrong: explain it to whoever listens."""
        if self.is_closed:
            return
        error.__traceback__ = None  # who keeps the problem would keep the whole session
        log.warning("%s", error)
        problem = explain(error)
        if problem.needs_login:
            if self._login_is_asked:
                return
            self._login_is_asked = True
        self.tell(problem)

    def login_is_good(self) -> None:
        """The backend takes the token, or there is a new one: a refusal is news again."""
        self._login_is_asked = False

    # On the side

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Do something on the side, for as long as the session lives; None if it has ended."""
        if self.is_closed:
            coroutine.close()
            return None
        task = asyncio.create_task(coroutine, name="antiphon chat")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("a task of the chat failed", exc_info=exc)

    async def pause(self, seconds: float) -> None:
        """Wait before another try, unless somebody hurries."""
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    def hurry(self) -> None:
        """Try again now."""
        self._hurry.set()

    async def end_tasks(self) -> None:
        """End what is done on the side."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # The file

    async def open_store(self, user_id: Id) -> None:
        """Open the file, if there is one, and show what it has kept of a user's.

        Nothing happens if it is open.

        Raises:
            SettingsError: It cannot be used.
        """
        if self._path is None or self._store is not None:
            return
        store = ChatStore(self._path, f"{self.client.settings.api_url} {user_id}")
        async with contextlib.AsyncExitStack() as on_error:
            on_error.push_async_callback(store.close)
            await store.open()
            conversations = await store.conversations()
            messages = [await store.messages(str(each.id)) for each in conversations]
            outbox = Outbox(self._post, self._told, store)
            drafts = await outbox.load()
            if self.is_closed:
                return
            on_error.pop_all()
        self._store = store
        before, self.outbox = self.outbox, outbox
        for conversation, kept in zip(conversations, messages, strict=True):
            room = self.room(conversation.id)
            room._describe(conversation)
            room._history.restore(conversation, kept)
        early = before.waiting()  # written before it was known in which file
        for draft in (*drafts, *early):
            self.room(draft.conversation_id)._show_draft(draft)
        await before.close()
        for draft in early:
            await self.outbox.put(draft)
        if conversations:
            self.tell(ConversationsChanged(tuple(self.rooms)))

    def keep(self, room_id: str, messages: Sequence[Message], *, replace: bool = False) -> None:
        """Keep messages on disk, if there is a file."""
        if self._store is not None:
            self._store.keep_messages(room_id, messages, replace=replace)

    def keep_list(self, conversations: Sequence[Conversation]) -> None:
        """Keep the list of conversations on disk, if there is a file."""
        if self._store is not None:
            self._store.keep_conversations(conversations)

    async def close_store(self) -> None:
        """Close the file, if there is one."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    # The outbox

    async def _post(self, draft: Draft) -> Message:
        return await self.rest.send(
            draft.conversation_id,
            draft.content,
            temp_id=draft.temp_id,
            socket_id=self.client.socket_id,
        )

    def _told(self, draft: Draft, message: Message | None, error: AntiphonError | None) -> None:
        room = self.room(draft.conversation_id)
        if message is not None:
            self.login_is_good()
            room._history.message(message, draft.temp_id)
        elif error is not None:
            room._failed(draft)
            if error is not self._told_of:  # it may hold for many messages
                self._told_of = error
                self.report(error)
        else:
            room._sending(draft)


def _recency(room: Room) -> tuple[float, int, str, str]:
    last = room.last
    if last is None:
        return (0.0, 0, "", room.id)
    at = last.sent_at.timestamp() if last.sent_at is not None else 0.0
    # Backends tell full seconds.
    id_ = last.id or ""
    return (at, len(id_), id_, room.id)

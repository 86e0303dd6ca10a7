"""A chat with everything around it that can break: server, line, gate, backend, and who talks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from antiphon.backend import User
from antiphon.chat import (
    ChatObservation,
    ChatSession,
    ChatState,
    Message,
    Problem,
    RestClient,
    Room,
)
from antiphon.chat.observations import StateChanged
from antiphon.client import ConnectingIn, PresenceChannel
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App, Settings

from .gate import Gate, open_gate
from .house import PASSWORD, House, open_house
from .line import Line, open_line

__all__ = [
    "LIST",
    "PAGES",
    "POSTS",
    "SENT",
    "Stage",
    "Told",
    "channel",
    "contents",
    "open_stage",
    "until",
]

T = TypeVar("T")

LIST: Final = r"GET /api/conversations$"
PAGES: Final = r"GET /api/conversations/.*/messages"
POSTS: Final = r"POST /api/conversations/.*/messages"
SENT: Final = r"App\Events\MessageSent"


async def until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def contents(room: Room) -> list[str]:
    """What a room shows, from top to bottom."""
    return [entry.content for entry in room.timeline.entries]


def channel(room: Room) -> PresenceChannel | None:
    """A room's presence channel, while its session holds it."""
    held = room._core.presence.channel(room)
    assert held is None or isinstance(held, PresenceChannel)
    return held


class Told:
    """What a session has told, in order."""

    def __init__(self, session: ChatSession) -> None:
        self.all: list[ChatObservation] = []
        self.messages: list[Message] = []
        session.observe(self.all.append)
        session.on_message(self.messages.append)

    def of(self, kind: type[T]) -> list[T]:
        return [observation for observation in self.all if isinstance(observation, kind)]

    @property
    def states(self) -> list[ChatState]:
        return [change.current for change in self.of(StateChanged)]

    @property
    def problems(self) -> list[Problem]:
        return self.of(Problem)

    @property
    def said(self) -> list[str]:
        return [message.content for message in self.messages]


class Stage:
    """What `open_stage` has put up.

    Attributes:
        line: Between sessions and the server.
        gate: Between sessions and the backend.
        publisher: Says anything to anybody.
    """

    def __init__(
        self, server: Server, house: House, line: Line, gate: Gate, publisher: Publisher
    ) -> None:
        self.server = server
        self.house = house
        self.line = line
        self.gate = gate
        self.publisher = publisher
        self._sent = 0

    @property
    def settings(self) -> Settings:
        return msgspec.structs.replace(
            self.house.settings, port=self.line.port, api_url=self.gate.api_url
        )

    async def token(self, user: User) -> str:
        async with RestClient(self.house.api_url) as api:
            return (await api.login(user.email, PASSWORD)).token

    async def session(self, user: User, **options: Any) -> ChatSession:
        """A session that is not started."""
        given = {"token": await self.token(user), "user_id": user.id, **options}
        return ChatSession(given.pop("settings", self.settings), **given)

    async def say(
        self, text: str, *, sender: User | None = None, told: bool = True, room: int = 0
    ) -> str:
        """John says something; `told`: and the others hear it. The message's id."""
        self._sent += 1
        sender = sender or self.house.john
        if told:
            async with RestClient(self.house.api_url, token=await self.token(sender)) as api:
                return str((await api.send(room or self.house.conversation, text)).id)
        message, _ = await self.house.store.conversations.add_message(
            room or self.house.conversation, sender.id, text
        )
        return str(message.id)

    async def event(self, user: User, name: str, data: Any) -> None:
        """An event on a user's own channel, whatever it says."""
        await self.publisher.trigger([f"private-user.{user.id}"], name, data)

    def message(self, id_: object, text: str, **more: Any) -> dict[str, Any]:
        """A message of John's, as an event has it."""
        message = {
            "id": id_,
            "chat_id": str(self.house.conversation),
            "sender_id": str(self.house.john.id),
            "sender_name": "John Doe",
            "content": text,
            "sent_at": "2026-11-23T10:00:00Z",
            "status": "sent",
            **more,
        }
        return {"message": message}

    def hurry(self, session: ChatSession) -> None:
        """Wait for no attempt."""
        loop = asyncio.get_running_loop()

        def now(observation: ChatObservation) -> None:
            if isinstance(observation, ConnectingIn):
                loop.call_soon(session.retry)

        session.observe(now)

    async def cut(self, *sessions: ChatSession) -> None:
        """Cut the line and mend it; returns when they have noticed."""
        self.line.down()
        await until(lambda: not any(session.is_connected for session in sessions))

    async def mend(self, *sessions: ChatSession) -> None:
        """Mend the line; returns when all are connected and have caught up."""
        self.line.up()
        for session in sessions:
            session.retry()
        await until(lambda: all(session.is_connected and session.is_whole for session in sessions))


@contextlib.asynccontextmanager
async def open_stage(folder: Path, **app: Any) -> AsyncIterator[Stage]:
    """Everything, on free ports of this machine."""
    app = {"client_events_per_second": 0, **app}
    async with (
        Server(App(id="1", key="k", secret="s", **app)) as server,
        open_house(server.settings(), folder) as house,
        open_line(server.settings().port) as line,
        open_gate(lambda: house.api_url) as gate,
        Publisher(server.settings()) as publisher,
    ):
        yield Stage(server, house, line, gate, publisher)

"""A client that waits for nothing long, and what every test does with one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from antiphon.client import (
    Authorization,
    Channel,
    Client,
    ConnectionState,
    Observation,
    StateChange,
)
from antiphon.client.host import Host
from antiphon.errors import AntiphonError, AuthorizationFailed
from antiphon.settings import Settings
from tests.server.wire import TIMEOUT

from .peer import Dial, Peer

__all__ = ["FakeHost", "Signer", "impatient", "join", "linked", "part", "soon", "states", "watch"]

T = TypeVar("T")


def impatient(settings: Settings, **options: Any) -> Client:
    """A client that dials again after hundredths of a second."""
    return Client(settings, **{"min_delay": 0.01, "max_delay": 0.05, **options})


def watch(client: Client) -> list[Observation]:
    """Everything a client tells from now on."""
    seen: list[Observation] = []
    client.observe(seen.append)
    return seen


def states(seen: list[Observation]) -> list[ConnectionState]:
    """The states that were entered."""
    return [change.current for change in seen if isinstance(change, StateChange)]


async def soon(awaitable: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
    """What an awaitable gives within the usual time.

    Raises:
        TimeoutError: It does not end.
    """
    async with asyncio.timeout(TIMEOUT):
        return await awaitable


async def meet(client: Client, peer: Peer) -> Dial:
    """Connect a client to a peer; the peer's end."""
    connecting = asyncio.ensure_future(client.connect())
    try:
        dial = await peer.dial()
        await dial.greet()
        await soon(connecting)
    finally:
        connecting.cancel()
    return dial


async def part(client: Client, peer: Peer) -> None:
    """Close a client whose peer does not answer close frames by itself."""
    closing = asyncio.ensure_future(client.close())
    await asyncio.sleep(0)
    for dial in peer.dials:
        await dial.hang_up()
    await soon(closing)


@contextlib.asynccontextmanager
async def linked(**options: Any) -> AsyncIterator[tuple[Client, Dial, Peer]]:
    """A connected client, the peer's end of its connection, and the peer."""
    async with Peer() as peer:
        client = impatient(peer.settings(), **options)
        try:
            yield client, await meet(client, peer), peer
        finally:
            await part(client, peer)


async def join(client: Client, dial: Dial, name: str) -> Channel:
    """Subscribe a client to a channel, and let the peer grant it."""
    channel = client.subscribe(name)
    if not channel.is_subscribed:
        await dial.subscribe()
        await channel.subscribed(TIMEOUT)
    return channel


class Signer:
    """An authorizer that keeps account of what it is asked, and can be held up or made to fail."""

    def __init__(self, channel_data: str | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.is_closed = False
        self.free = asyncio.Event()
        self.free.set()
        self.errors: dict[str, Exception] = {}
        self._channel_data = channel_data

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        self.asked.append((channel, socket_id))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.free.wait()
        finally:
            self.at_once -= 1
        if channel in self.errors:
            raise self.errors[channel]
        return Authorization(f"k:signed-{socket_id}-{channel}", self._channel_data)

    async def close(self) -> None:
        self.is_closed = True

    def refuse(self, channel: str) -> None:
        """Give no signature for a channel."""
        self.errors[channel] = AuthorizationFailed(f"{channel} is not yours.", channel=channel)


class FakeHost(Host):
    """Stands in for a client's parts, and for whoever holds a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.host: Host = self
        self.errors: list[AntiphonError] = []
        self.triggered: list[tuple[str, str, Any]] = []
        self.left: list[str] = []

    def report(self, error: AntiphonError) -> None:
        self.errors.append(error)

    @property
    def is_open(self) -> bool:
        return True

    def leave(self, channel: Channel) -> None:
        self.left.append(channel.name)
        channel.left()

    def trigger(self, channel: Channel, event: str, data: Any) -> None:
        self.triggered.append((channel.name, event, json.loads(bytes(data))))

    def reads(self) -> bool:
        """Whether the socket would be read."""
        return self.valve.is_open

    async def idle(self) -> None:
        """Wait until the handlers have nothing left to do."""
        for _ in range(20):
            await asyncio.sleep(0)

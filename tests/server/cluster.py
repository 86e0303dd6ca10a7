"""Nodes of a cluster in one process, a Redis that can be stopped, and connections that check."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from antiphon.http import HttpClient
from antiphon.protocol.presence import Member
from antiphon.server.hub import Hub
from antiphon.server.redis_broker import RedisBroker
from antiphon.server.webhooks import Webhooks
from antiphon.settings import App

REDIS: Final = os.environ.get("ANTIPHON_TEST_REDIS") or "redis://127.0.0.1:6379/0"
APP: Final = App(id="1", key="k", secret="s")
CERTIFICATE: Final = Path(__file__).with_name("certificate.pem")


async def until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: It does not.
    """
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def needs_redis() -> None:
    """Skip the test where there is no Redis; in CI that is a failure."""
    try:
        async with redis.asyncio.Redis.from_url(REDIS) as client:
            await client.ping()
    except (redis.exceptions.RedisError, OSError) as exc:
        _is_missing(f"no Redis at {REDIS}: {exc!r}")


def _is_missing(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Guest:
    """A connection of one hub that reads what it is sent, and objects to what cannot be.

    Attributes:
        members: Who is in each presence channel it has joined, by what it was told.
        events: Event, channel and data of everything else, in order.
        refusals: Channel and status.
    """

    def __init__(self, hub: Hub, socket_id: str) -> None:
        self.hub = hub
        self.socket_id = socket_id
        self.channels: dict[str, Member | None] = {}
        self.members: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[str, str | None, Any]] = []
        self.refusals: list[tuple[str, int]] = []
        self.closed = 0
        hub.sockets[socket_id] = self

    # What a session does

    def join(self, channel: str, user_id: str | None = None, info: Any = None) -> None:
        member = None if user_id is None else Member(user_id, info)
        self.hub.join(self, channel, member)

    def leave(self, channel: str) -> None:
        self.hub.leave(self, channel)
        self.channels.pop(channel, None)
        self.members.pop(channel, None)

    def sign_in(self, user_id: str, *watchlist: str) -> None:
        self.hub.users.sign_in(self, user_id, watchlist)

    def hang_up(self) -> None:
        self.hub.disconnect(self, self.socket_id)
        self.channels.clear()
        self.members.clear()

    # What the hub does

    def joined(self, channel: str, member: Member | None, members: Mapping[str, Member]) -> None:
        self.channels[channel] = member
        if member is not None:
            assert member.id in members
            self.members[channel] = {id_: each.info for id_, each in members.items()}

    def refused(self, channel: str, reason: str, status: int) -> None:
        self.refusals.append((channel, status))

    def kick(self, channel: str) -> None:
        self.leave(channel)

    def change(self, app: App) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        self.closed = code
        self.hang_up()

    def send(self, message: bytes) -> None:
        self._take(message)

    def write(self, frames: bytes) -> None:
        while frames:
            size, start = frames[1], 2
            if size == 126:
                size, start = int.from_bytes(frames[2:4]), 4
            self._take(frames[start : start + size])
            frames = frames[start + size :]

    def _take(self, message: bytes) -> None:
        frame = json.loads(message)
        data = frame.get("data")
        if isinstance(data, str):
            with contextlib.suppress(json.JSONDecodeError):
                data = json.loads(data)
        channel = frame.get("channel")
        match frame["event"]:
            case "pusher_internal:member_added":
                members = self.members[channel]
                assert data["user_id"] not in members, "nobody comes twice"
                members[data["user_id"]] = data["user_info"]
            case "pusher_internal:member_removed":
                assert data["user_id"] in self.members[channel], "nobody goes twice"
                del self.members[channel][data["user_id"]]
            case event:
                self.events.append((event, channel, data))

    def heard(self, event: str = "e") -> list[Any]:
        """The data of all events of a name."""
        return [data for name, _, data in self.events if name == event]


class Cluster:
    """Some nodes, each with one hub."""

    def __init__(self, url: str, app: App, http: HttpClient) -> None:
        self.url = url
        self.prefix = f"antiphon-test-{os.urandom(6).hex()}"
        self.app = app
        self._http = http
        self.nodes: list[RedisBroker] = []
        self.hubs: list[Hub] = []
        self._guests = 0

    async def add(self) -> Hub:
        """Start another node."""
        hub = Hub(self.app)
        hub.webhooks = Webhooks(self.app, self._http)
        node = RedisBroker(self.url, [hub], prefix=self.prefix)
        await node.start()
        self.nodes.append(node)
        self.hubs.append(hub)
        return hub

    def guest(self, node: int = 0) -> Guest:
        """A connection to one of the nodes."""
        self._guests += 1
        return Guest(self.hubs[node], f"{node + 1}.{self._guests}")

    async def live(self) -> None:
        """Wait until all nodes know of each other."""
        await until(lambda: all(node.is_live for node in self.nodes))

    async def told(self) -> None:
        """Wait until Redis has all that the nodes know now."""
        for hub in self.hubs:
            # The first question may go out with what was being told already, and end that.
            for _ in range(2):
                await hub.counts()

    async def close(self) -> None:
        """Stop what runs, and leave nothing in the Redis."""
        for node, hub in zip(self.nodes, self.hubs, strict=True):
            await node.stop()
            await hub.webhooks.close()
        await self._http.close()
        if self.url != REDIS:
            return  # it goes with all that it has
        with contextlib.suppress(redis.exceptions.RedisError):
            async with redis.asyncio.Redis.from_url(self.url) as client:
                keys = [key async for key in client.scan_iter(f"*{self.prefix}*")]
                if keys:
                    await client.delete(*keys)


@contextlib.asynccontextmanager
async def open_cluster(
    nodes: int = 3, url: str = REDIS, http: HttpClient | None = None, **app: Any
) -> AsyncIterator[Cluster]:
    """Some nodes on a Redis; `http` sends their webhooks."""
    if url == REDIS:
        await needs_redis()
    settings = App(**{"id": "1", "key": "k", "secret": "s", **app})
    cluster = Cluster(url, settings, http or HttpClient(timeout=1.0))
    try:
        for _ in range(nodes):
            await cluster.add()
        yield cluster
    finally:
        await cluster.close()


class OwnRedis:
    """A Redis of one's own that can be stopped, and started again with or without its data.

    Args:
        options: More of its settings, as lines of its file.
        scheme: `rediss` for one that speaks TLS.
        user: What stands before the host in its address, such as `:password@`.
        sentinel: Whether it is a sentinel.
    """

    def __init__(
        self, *options: str, scheme: str = "redis", user: str = "", sentinel: bool = False
    ) -> None:
        self.port, bus = free_port(), free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{scheme}://{user}{self.host}"
        self._folder = tempfile.TemporaryDirectory(prefix="antiphon-redis-")
        self._file = Path(self._folder.name, "redis.conf")
        self._sentinel = ("--sentinel",) if sentinel else ()
        port, dir_ = "tls-port" if scheme == "rediss" else "port", self._folder.name
        lines = [f"{port} {self.port}", "bind 127.0.0.1", f"dir {dir_}", *options]
        if scheme == "rediss":
            lines += ["port 0", f"tls-cert-file {CERTIFICATE}", f"tls-key-file {CERTIFICATE}"]
            lines += ["tls-auth-clients no"]
            self.url += f"?ssl_ca_certs={CERTIFICATE}"
        if not sentinel:
            lines += ['save ""', f"cluster-port {bus}", "repl-diskless-sync-delay 0"]
        self._file.write_text("\n".join(lines) + "\n")
        self._process: Process | None = None

    async def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            _is_missing("redis-server is not installed")
        assert program is not None
        self._process = await asyncio.create_subprocess_exec(
            program, str(self._file), *self._sentinel, stdout=DEVNULL, stderr=DEVNULL
        )
        async with asyncio.timeout(60):
            while not await self._is_ready():
                assert self._process.returncode is None, "it does not like its settings"
                await asyncio.sleep(0.02)

    async def _is_ready(self) -> bool:
        """Whether it answers, and not only listens: it may still be reading what it had kept."""
        try:
            once = Retry(NoBackoff(), 0)
            async with redis.asyncio.Redis.from_url(self.url, retry=once) as client:
                await client.ping()
        except (redis.exceptions.AuthenticationError, redis.exceptions.ResponseError):
            return True
        except (redis.exceptions.RedisError, OSError):
            return False
        return True

    async def stop(self) -> None:
        """Kill it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def close(self) -> None:
        await self.stop()
        self._folder.cleanup()

    def lose(self) -> None:
        """Forget what it has kept; it must not run."""
        for kept in Path(self._folder.name).iterdir():
            if kept != self._file:
                shutil.rmtree(kept) if kept.is_dir() else kept.unlink()

    async def pause(self) -> None:
        """Answer nobody, with all connections open."""
        assert self._process is not None
        self._process.send_signal(19)

    async def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(18)

    def client(self) -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_url(self.url, protocol=2)

    async def ask(self, *command: str) -> Any:
        """Send a command; its answer is as it came."""
        async with self.client() as client:
            client.response_callbacks.clear()
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]


def free_port() -> int:
    """A port that may be freed and taken again.

    It is none that the system gives to whoever asks for any, or dials: those are taken meanwhile.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


@contextlib.asynccontextmanager
async def own_redis(*options: str, **more: Any) -> AsyncIterator[OwnRedis]:
    """A Redis of one's own; without options it keeps nothing when it is stopped."""
    server = OwnRedis(*options, **more)
    try:
        await server.start()
        yield server
    finally:
        await server.close()

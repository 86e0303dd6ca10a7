"""A client in a process of its own, against a server that misbehaves as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from tests.client.endpoint import Asked, Endpoint
from tests.client.peer import Dial, Peer, event_text
from tests.server.wire import CLOSE, PING, PONG, TEXT, Closed

__all__ = ["ROOT", "Case", "Talk", "case"]

ROOT: Final = Path(__file__).parents[2]


class Talk:
    """One connection as the server sees it: reads all the time, and grants what is asked."""

    def __init__(self, dial: Dial, *, socket_id: str = "") -> None:
        self.dial = dial
        self.number = dial.number
        self.socket_id = socket_id or f"{dial.number}.{dial.number}"
        self.subscribes: list[dict[str, Any]] = []
        self.pongs = 0
        self.ws_pongs = 0
        self.pings = 0
        self.answers_pings = True
        self.answers_ws_pings = True
        self.refuses: Callable[[str], bool] = lambda channel: False
        self.left_after: float | None = None
        self._began = time.monotonic()
        self._reading: asyncio.Task[None] | None = None

    async def upgrade(self) -> None:
        """Agree to speak WebSocket, and listen from then on."""
        await self.dial.upgrade()
        self._reading = asyncio.create_task(self._read())

    async def greet(self, **data: Any) -> None:
        await self.upgrade()
        self.dial.establish(self.socket_id, **data)

    async def joined(self, count: int = 1, seconds: float = 8.0) -> bool:
        """Wait for so many subscribes; then give the client a moment to bind its handlers."""
        found = await until(lambda: len(self.subscribes) >= count, seconds)
        await asyncio.sleep(0.3)
        return found

    def event(self, data: Any, channel: str = "room") -> None:
        self.dial.send_text(event_text("event", data, channel))

    async def left(self, seconds: float) -> bool:
        """Whether the client ends the connection."""
        return await until(lambda: self.left_after is not None, seconds)

    async def stay(self) -> None:
        """Leave the connection open until the client ends it."""
        await self.left(600)

    async def hang_up(self) -> None:
        """Listen for the client's answer to a close frame for a moment, then end."""
        await self.left(1)
        await self.dial.hang_up()

    async def _read(self) -> None:
        with contextlib.suppress(Closed, AssertionError, OSError):
            while True:
                try:
                    frame = await self.dial.frame()
                except TimeoutError:
                    continue
                if frame.opcode == CLOSE:
                    self.dial.send_frame(CLOSE, frame.payload[:2])
                    break
                self._take(frame.opcode, frame.payload)
        self.left_after = time.monotonic() - self._began

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == PING and self.answers_ws_pings:
            self.dial.send_frame(PONG, payload)
        self.ws_pongs += opcode == PONG
        if opcode != TEXT:
            return
        message = json.loads(payload)
        match message["event"]:
            case "pusher:subscribe":
                channel = message["data"]["channel"]
                self.subscribes.append(message["data"])
                if not self.refuses(channel):
                    self.dial.accept(channel)
            case "pusher:pong":
                self.pongs += 1
            case "pusher:ping":
                self.pings += 1
                if self.answers_pings:
                    self.dial.send("pusher:pong", {})


class Case:
    """What is seen of one client while its process runs."""

    def __init__(self, peer: Peer, endpoint: Endpoint) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self.dialled: list[float] = []
        self.talks: list[Talk] = []
        self.events: list[tuple[str, str]] = []
        self.errors: list[str] = []
        self.states: list[str] = []
        self.stderr = ""
        self.process: asyncio.subprocess.Process

    @property
    def dials(self) -> int:
        return len(self.dialled)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def told(self) -> bool:
        """Whether the program could know: an error was given to it, or the state says so."""
        return bool(self.errors) or self.states[-1:] in (["failed"], ["closed"], ["disconnected"])

    def got(self, data: str, channel: str = "room") -> bool:
        return (channel, data) in self.events

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        return await until(lambda: condition() or not self.alive, seconds) and condition()

    async def gets(self, data: str, channel: str = "room", seconds: float = 12.0) -> bool:
        return await self.until(lambda: self.got(data, channel), seconds)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            match json.loads(line):
                case {"channel": channel, "data": data}:
                    self.events.append((channel, data))
                case {"error": error}:
                    self.errors.append(error)
                case {"state": state}:
                    self.states.append(state)


Script = Callable[[Talk], Awaitable[None]]


@contextlib.asynccontextmanager
async def case(
    client: str,
    python: str,
    script: Script,
    *,
    channels: Sequence[str] = ("room",),
    timeout: float | None = None,
    slow: bool = False,
    is_up: bool = True,
) -> AsyncIterator[Case]:
    """Start a client against a server where each connection goes through a script."""

    async def through_script(dial: Dial) -> None:
        seen.dialled.append(time.monotonic())
        talk = Talk(dial)
        seen.talks.append(talk)
        with contextlib.suppress(TimeoutError, OSError):
            await script(talk)

    async def sign(asked: Asked) -> web.Response:
        channel, socket_id = asked.form["channel_name"], asked.form["socket_id"]
        return web.json_response({"auth": f"k:{socket_id}:{channel}"})

    async with Endpoint() as endpoint, Peer(through_script) as peer:
        endpoint.answers_with(sign)
        seen = Case(peer, endpoint)
        if not is_up:
            await peer.__aexit__(None, None, None)
        todo = {
            "port": peer.port,
            "channels": list(channels),
            "auth_url": endpoint.url,
            "timeout": timeout,
            "slow": slow,
        }
        seen.process = await asyncio.create_subprocess_exec(
            python,
            *("-m", f"benchmarks.peers.adapters.for_{client}", json.dumps(todo)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 24,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        listening = asyncio.create_task(seen.listen())
        try:
            yield seen
        finally:
            with contextlib.suppress(ProcessLookupError):
                seen.process.kill()
            await seen.process.wait()
            listening.cancel()


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for something; whether it came."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True

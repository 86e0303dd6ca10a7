"""An hour of ordinary life, and whether the server is afterwards what it was before.

`python -m benchmarks.server_soak [--minutes 60]`. 300 subscribers stay; others come and go in every
way, a third without a word. Some 200 events a second are published through the signed HTTP API, and
every client checks that what it gets is in order and complete. The server is a process of its own
(`--serve`) that prints what it uses. Exit code 1: something was lost, or something was kept.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import signal
import socket
import statistics
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, cast

import msgspec
import uvloop

from antiphon.protocol.frames import encode
from antiphon.protocol.signing import channel_auth
from antiphon.publisher import BatchEvent, Publisher
from antiphon.server import Server
from antiphon.settings import App, Settings

from .measure import python
from .server_memory import resident

APP: Final = App(id="soak", key="bench-key", secret="bench-secret", max_presence_members=1_000)
STAYING: Final = 300
TICKS: Final = 20  # in a second, each with 10 events in 3 requests
COMING: Final = 10  # connections in a second
NEWS: Final = [f"news-{n}" for n in range(27)] + [f"cache-news-{n}" for n in range(3)]
ROOMS: Final = [f"private-room-{n}" for n in range(10)]
PARTIES: Final = [f"presence-party-{n}" for n in range(5)]
FILLING: Final = "x" * 200
PATIENCE: Final = 20.0
MAX_GROWTH: Final = 0.05


class World:
    """What is true, for clients to compare with what they are told."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sent: Counter[str] = Counter()
        self.published: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.faults: list[str] = []

    def fault(self, words: str) -> None:
        if len(self.faults) < 20:
            print("FAULT", words, flush=True)
        self.faults.append(words)


class Guest(asyncio.Protocol):
    """One connection, which checks every frame."""

    def __init__(self, world: World, user: str) -> None:
        self.world = world
        self.user = user
        self.socket_id = ""
        self.closed = False
        self.last: dict[str, int | None] = {}
        self.oldest: dict[str, int] = {}
        self.members: dict[str, set[str]] = {}
        self._whispers: dict[tuple[str, str], int] = {}
        self._number = 0
        self._early = b""
        self._is_open = False
        self._awaited: tuple[str, str | None] = ("", None)
        self._answer: asyncio.Future[None] | None = None

    # Doing

    @classmethod
    async def connect(cls, world: World, user: str) -> Guest:
        loop = asyncio.get_running_loop()
        _, guest = await loop.create_connection(lambda: cls(world, user), "127.0.0.1", world.port)
        waiting = guest._wait("pusher:connection_established")
        guest.transport.write(
            f"GET /app/{APP.key}?protocol=7 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        await waiting
        world.seen["connections"] += 1
        return guest

    async def join(self, channel: str) -> None:
        data: dict[str, str] = {"channel": channel}
        member = None
        if channel.startswith("presence-"):
            member = data["channel_data"] = json.dumps({"user_id": self.user})
        if not channel.startswith(("news-", "cache-")):
            data["auth"] = channel_auth(APP.key, APP.secret, self.socket_id, channel, member)
        waiting = self._wait("pusher_internal:subscription_succeeded", channel)
        self._say("pusher:subscribe", data)
        await waiting

    async def leave(self, channel: str) -> None:
        await self.check()
        self._say("pusher:unsubscribe", {"channel": channel})
        for known in (self.last, self.members):
            known.pop(channel, None)

    def whisper(self, room: str) -> None:
        self._number += 1
        self._say("client-whisper", {"from": self.socket_id, "n": self._number}, room)

    async def check(self) -> None:
        """Whether everything has come that was answered for until now."""
        due = {channel: self.world.published[channel] for channel in self.last}
        waiting = self._wait("pusher:pong")
        self._say("pusher:ping", {})
        await waiting
        for channel, number in due.items():
            last = self.last.get(channel)
            if number >= self.oldest[channel] and (last is None or last < number):
                self.world.fault(f"{channel}: {number} was published, {last} came last")

    def hang_up(self, way: int) -> None:
        self.closed = True
        if way == 0:
            self.transport.write(b"\x88\x82\0\0\0\0\x03\xe8")
        elif way == 1:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    async def _wait(self, event: str, channel: str | None = None) -> None:
        self._awaited = event, channel
        self._answer = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(PATIENCE):
            await self._answer

    def _say(self, event: str, data: dict[str, Any], channel: str | None = None) -> None:
        message = encode(event, data, channel)
        size = len(message)
        head = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2)
        self.transport.write(b"\x81" + head + b"\0\0\0\0" + message)

    # Hearing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self.world.fault(f"{self.socket_id} was hung up on: {exc!r}")
        if self._answer is not None and not self._answer.done():
            self._answer.cancel()

    def data_received(self, data: bytes) -> None:
        data = self._early + data
        if not self._is_open:
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                self._early = data
                return
            self._is_open, data = True, rest
            if b" 101 " not in head:
                self.world.fault(f"no upgrade: {head!r}")
        while len(data) >= 4:
            size, start = data[1], 2
            if size == 126:
                size, start = int.from_bytes(data[2:4]), 4
            if len(data) < start + size:
                break
            if data[0] == 0x81:
                self._hear(data[start : start + size])
            elif data[0] != 0x88 or not self.closed:
                self.world.fault(f"a frame nobody has asked for: {data[:100]!r}")
            data = data[start + size :]
        self._early = data

    def _hear(self, message: bytes) -> None:
        if self.closed:
            return
        frame = _FRAME(message)
        event, channel = frame.event, frame.channel or ""
        data = msgspec.json.decode(frame.data) if isinstance(frame.data, str) else frame.data
        match event:
            case "e":
                self._take(channel, data["n"])
            case "client-whisper":
                key = channel, data["from"]
                if self._whispers.get(key, data["n"] - 1) + 1 != data["n"]:
                    self.world.fault(f"{channel}: a whisper was lost or out of order: {data}")
                self._whispers[key] = data["n"]
                self.world.seen["whispers"] += 1
            case "pusher_internal:member_added" | "pusher_internal:member_removed":
                members = self.members.get(channel)
                if members is not None:  # it may have left a moment ago
                    self._meet(channel, members, data["user_id"], event.endswith("added"))
            case "pusher_internal:subscription_succeeded":
                if channel.startswith("presence-"):
                    self.members[channel] = set(data["presence"]["ids"])
                elif channel in NEWS:
                    self.last[channel] = None
                    # What is on its way to the server now may have been before us or not.
                    self.oldest[channel] = self.world.sent[channel] + 1
            case "pusher:ping":
                self._say("pusher:pong", {})
            case "pusher:connection_established":
                self.socket_id = data["socket_id"]
            case "pusher:pong" | "pusher:cache_miss":
                pass
            case _:
                self.world.fault(f"{self.socket_id}: {message!r}")
        answer = self._answer
        if answer is not None and self._awaited == (event, frame.channel) and not answer.done():
            answer.set_result(None)

    def _take(self, channel: str, number: int) -> None:
        if channel not in self.last:
            return  # it has left a moment ago
        last = self.last[channel]
        if last is None and number > self.oldest[channel]:
            self.world.fault(f"{channel}: begins with {number}, not {self.oldest[channel]}")
        if last is not None and number != last + 1:
            self.world.fault(f"{channel}: {number} came after {last}")
        self.last[channel] = number
        self.world.seen["events"] += 1

    def _meet(self, channel: str, members: set[str], user: str, comes: bool) -> None:
        if comes == (user in members):
            self.world.fault(f"{channel}: {user} {'came' if comes else 'went'} twice")
        (members.add if comes else members.discard)(user)
        self.world.seen["presence"] += 1


class _Frame(msgspec.Struct):
    event: str
    channel: str | None = None
    data: Any = None


_FRAME: Final = msgspec.json.Decoder(_Frame).decode


# What goes on


def publisher_for(world: World) -> Publisher:
    settings = Settings(
        app_key=APP.key,
        app_id=APP.id,
        app_secret=APP.secret,
        host="127.0.0.1",
        port=world.port,
        scheme="http",
    )
    return Publisher(settings)


async def publish(world: World, until: float) -> None:
    """200 events a second, one request after the other, so that their order is known."""

    def next_event() -> tuple[str, dict[str, Any]]:
        channel = random.choice(NEWS)
        world.sent[channel] += 1
        return channel, {"n": world.sent[channel], "filling": FILLING}

    async with publisher_for(world) as publisher:
        due = time.monotonic()
        while due < until:
            batch = [next_event() for _ in range(8)]
            await publisher.trigger_batch(
                [BatchEvent(channel=c, name="e", data=d) for c, d in batch]
            )
            world.published.update(channel for channel, _ in batch)
            for _ in range(2):
                channel, data = next_event()
                await publisher.trigger(channel, "e", data)
                world.published[channel] += 1
            due += 1 / TICKS
            await asyncio.sleep(max(0.0, due - time.monotonic()))


async def visit(world: World) -> None:
    """Come, join some channels, perhaps leave one, and go in some way."""
    guest = await Guest.connect(world, f"guest-{random.randrange(40)}")
    room = random.choice(ROOMS)
    channels = [*random.sample(NEWS, 2), room, random.choice(PARTIES)]
    random.shuffle(channels)
    for channel in channels:
        await guest.join(channel)
    for _ in range(random.randrange(4)):
        await asyncio.sleep(random.random() * 3)
        guest.whisper(room)
    for channel in random.sample(channels, random.randrange(3)):
        await guest.leave(channel)
    await guest.check()
    guest.hang_up(random.randrange(3))


async def churn(world: World, until: float) -> None:
    """People come and go."""
    visits: set[asyncio.Task[None]] = set()
    while time.monotonic() < until:
        one = asyncio.create_task(visit(world))
        visits.add(one)
        one.add_done_callback(lambda done: _ended(world, visits, done))
        await asyncio.sleep(random.expovariate(COMING))
    while visits:
        await asyncio.wait(visits)


def _ended(world: World, visits: set[asyncio.Task[None]], done: asyncio.Task[None]) -> None:
    visits.discard(done)
    if done.cancelled() or done.exception():
        world.fault(f"a visit ended badly: {'hung up' if done.cancelled() else done.exception()!r}")


async def chatter(staying: list[Guest], until: float) -> None:
    """Those in rooms talk, some ten times a second."""
    while time.monotonic() < until:
        number = random.randrange(0, STAYING, 3)
        staying[number].whisper(ROOMS[number % len(ROOMS)])
        await asyncio.sleep(0.1)


async def live(world: World, seconds: float) -> None:
    staying = []
    for number in range(STAYING):
        guest = await Guest.connect(world, f"staying-{number}")
        staying.append(guest)
        for channel in (*random.sample(NEWS, 3), ROOMS[number % len(ROOMS)]):
            await guest.join(channel)
        if number < 50:
            await guest.join(PARTIES[number % len(PARTIES)])
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for task in (publish(world, until), churn(world, until), chatter(staying, until)):
            group.create_task(task)
    for guest in staying:
        await guest.check()
    parties = {
        party: {f"staying-{n}" for n in range(50) if PARTIES[n % len(PARTIES)] == party}
        for party in PARTIES
    }
    await _until(lambda: all(g.members[c] == parties[c] for g in staying for c in g.members))
    for guest in staying:
        for channel, members in guest.members.items():
            if members != parties[channel]:
                world.fault(f"{channel}: {members ^ parties[channel]} at the end")
        guest.hang_up(0)


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE / 0.1)):
        if condition():
            return
        await asyncio.sleep(0.1)


# The server, and what it uses


async def serve(interval: float) -> None:
    parent = os.getppid()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, gc.collect)
    async with Server(APP) as server:
        print(server.port, flush=True)
        while os.getppid() == parent:
            sample = {
                "rss": resident(os.getpid()),
                "fds": len(os.listdir("/proc/self/fd")),
                "tasks": len(asyncio.all_tasks()),
                "objects": len(gc.get_objects()),
                "cpu": time.process_time(),
            }
            print(json.dumps(sample), flush=True)
            await asyncio.sleep(interval)


async def soak(minutes: float) -> int:
    seconds = minutes * 60
    interval = min(10.0, seconds / 60)
    process = await asyncio.create_subprocess_exec(
        *python("server_soak", "--serve", interval), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        world = World(int(await process.stdout.readline()))
        async with publisher_for(world) as publisher:  # the first request opens what stays open
            await publisher.trigger("nobody", "e", {})
        for _ in range(3):
            before = json.loads(await process.stdout.readline())
        began, cpu = time.monotonic(), time.process_time()
        living = asyncio.create_task(live(world, seconds))
        samples = []
        while not living.done():
            samples.append(json.loads(await process.stdout.readline()))
            if len(samples) % 60 == 0:
                print(f"{time.monotonic() - began:6.0f} s", samples[-1], dict(world.seen))
                sys.stdout.flush()
        await living
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        for _ in range(10):  # samples, until the last socket is gone
            after = json.loads(await process.stdout.readline())
            if all(after[name] <= before[name] for name in ("fds", "tasks")):
                break
    finally:
        process.kill()
        await process.wait()
    return report(world, took, cpu, before, samples, after)


def report(
    world: World,
    took: float,
    cpu: float,
    before: dict[str, float],
    samples: list[dict[str, float]],
    after: dict[str, float],
) -> int:
    server_cpu = samples[-1]["cpu"] - before["cpu"]
    total = sum(world.published.values())
    print(
        f"\nServer: soak of {took / 60:.1f} minutes, {total / took:.0f} events published a second"
    )
    print(", ".join(f"{count:,} {what}" for what, count in world.seen.items()), "seen and compared")
    print(f"of one core: server {server_cpu / took:.1%}, clients and publisher {cpu / took:.1%}")
    warm = samples[max(1, min(len(samples) // 10, 30)) :]  # a tenth, and at most 5 minutes
    tenth = max(1, len(warm) // 10)
    print(f"{'':<14}{'before':>14}{'first tenth':>14}{'last tenth':>14}{'change':>9}{'after':>14}")
    growth = 0.0
    for name in ("rss", "fds", "tasks", "objects"):
        first = statistics.mean(sample[name] for sample in warm[:tenth])
        last = statistics.mean(sample[name] for sample in warm[-tenth:])
        if name == "rss":
            growth = last / first - 1
        print(
            f"{name:<14}{before[name]:>14,.0f}{first:>14,.0f}{last:>14,.0f}"
            f"{last / first - 1:>9.1%}{after[name]:>14,.0f}"
        )
    for name in ("fds", "tasks"):
        if after[name] > before[name]:
            world.fault(f"{after[name] - before[name]:.0f} {name} were left")
    if growth > MAX_GROWTH:
        world.fault(f"memory grew by {growth:.1%}")
    print(f"{len(world.faults)} faults", *world.faults[:20], sep="\n  ")
    return 1 if world.faults else 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--serve", type=float, metavar="SECONDS", help="be the server")
    arguments = parser.parse_args()
    if arguments.serve is not None:
        uvloop.run(serve(arguments.serve))
    else:
        sys.exit(uvloop.run(soak(arguments.minutes)))


if __name__ == "__main__":
    main()

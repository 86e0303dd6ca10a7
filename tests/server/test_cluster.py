"""Three nodes in processes of their own, and a Redis, of which each may end at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from antiphon.errors import PublishFailed
from antiphon.protocol.signing import channel_auth
from antiphon.publisher import Publisher
from antiphon.server.redis_broker import BEAT_EVERY, DEAD_AFTER
from antiphon.settings import Settings
from antiphon.testing import ConnectionEnded

from .cluster import OwnRedis, own_redis, until
from .wire import Wire

ROOT = Path(__file__).parents[2]
ROOMS = [f"presence-{n}" for n in range(3)]
NEWS = "news"
USERS = [f"user {n}" for n in range(10)]


class Node:
    """One process."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self.is_up = True

    @classmethod
    async def start(cls, url: str, prefix: str) -> Self:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.server.node_program", url, prefix),
            cwd=ROOT,
            stdin=PIPE,
            stdout=PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):  # three Pythons that start at once on a busy machine
                return cls(process, int(await process.stdout.readline()))
        except BaseException:
            process.kill()
            await process.wait()
            raise

    def publisher(self) -> Publisher:
        return Publisher(
            Settings(
                app_key="k",
                app_id="1",
                app_secret="s",
                host="127.0.0.1",
                port=self.port,
                scheme="http",
            )
        )

    async def kill(self) -> None:
        self.is_up = False
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        if self.is_up:
            self.is_up = False
            assert self.process.stdin is not None
            self.process.stdin.close()
            await self.process.wait()


class Person:
    """One connection that knows what it was told.

    Attributes:
        members: Who is in each channel it is in.
        heard: How often it got each event.
    """

    def __init__(self, node: Node, wire: Wire, user: str) -> None:
        self.node = node
        self.user = user
        self.members: dict[str, set[str]] = {}
        self.heard: Counter[int] = Counter()
        self.asked: set[str] = set()
        self.faults: list[str] = []
        self.socket_id = wire.socket_id
        self._wire = wire
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def come(cls, node: Node, user: str) -> Self:
        return cls(node, await Wire.connect(node.port), user)

    async def go(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])
        with contextlib.suppress(OSError, ConnectionEnded):
            await self._wire.hang_up()

    def join(self, room: str) -> None:
        self.asked.add(room)
        if room == NEWS:
            self._wire.send("pusher:subscribe", {"channel": room})
            return
        data = json.dumps({"user_id": self.user})
        auth = channel_auth("k", "s", self._wire.socket_id, room, data)
        self._wire.send("pusher:subscribe", {"channel": room, "auth": auth, "channel_data": data})

    def leave(self, room: str) -> None:
        self.asked.discard(room)
        self.members.pop(room, None)
        self._wire.send("pusher:unsubscribe", {"channel": room})

    async def _read(self) -> None:
        with contextlib.suppress(OSError, ConnectionEnded):
            while True:
                with contextlib.suppress(TimeoutError):
                    self._take(await self._wire.message())

    def _take(self, message: dict[str, Any]) -> None:
        room: str = message.get("channel", "")
        data: Any = message.get("data")
        if room not in self.asked:
            return  # on its way when it was left
        match message["event"]:
            case "pusher_internal:subscription_succeeded":
                self.members[room] = set(data.get("presence", {}).get("ids", ()))
            # On their way when it was left, where it was joined again meanwhile.
            case "pusher_internal:member_added" | "pusher_internal:member_removed" if (
                room not in self.members
            ):
                pass
            case "pusher_internal:member_added":
                if data["user_id"] in self.members[room]:
                    self.faults.append(f"{data} came twice to {room}")
                self.members[room].add(data["user_id"])
            case "pusher_internal:member_removed":
                if data["user_id"] not in self.members[room]:
                    self.faults.append(f"{data} went twice from {room}")
                self.members[room].discard(data["user_id"])
            case "e":
                self.heard[data] += 1


class World:
    """Nodes, people, and what there should be."""

    def __init__(self, redis: OwnRedis, seed: int) -> None:
        self.redis = redis
        self.rng = random.Random(seed)
        self.nodes: list[Node] = []
        self.people: list[Person] = []
        self._prefix = f"antiphon-test-{os.urandom(6).hex()}"

    async def add_node(self) -> None:
        self.nodes.append(await Node.start(self.redis.url, self._prefix))

    async def add_person(self) -> Person:
        person = await Person.come(self.rng.choice(self.nodes), self.rng.choice(USERS))
        self.people.append(person)
        return person

    async def step(self) -> None:
        rng = self.rng
        if len(self.people) < 6 or (rng.random() < 0.2 and len(self.people) < 25):
            await self.add_person()
        person, room, action = rng.choice(self.people), rng.choice((*ROOMS, NEWS)), rng.random()
        if action < 0.6:
            if room not in person.asked:
                person.join(room)
        elif action < 0.9:
            person.leave(room)
        else:
            self.people.remove(person)
            await person.go()

    async def strike(self, blow: str) -> None:
        """Kill a node, or Redis (which loses what it had, or not), or both, and start another."""
        if blow != "kill":
            await self.redis.stop()
        if blow in ("kill", "both"):
            await self.kill_node()
        if blow != "kill":
            for _ in range(self.rng.randrange(10, 40)):
                await self.step()  # those that are alone go on
                await asyncio.sleep(0.02)
            if blow == "lose":
                self.redis.lose()
            await self.redis.start()
        if blow in ("kill", "both"):
            await self.add_node()

    async def check(self, events: Iterator[int]) -> None:
        """See that all nodes, and all who are connected to them, know the same."""
        await until(self.agrees)
        async with contextlib.AsyncExitStack() as stack:
            publishers = [await stack.enter_async_context(n.publisher()) for n in self.nodes]
            for publisher in publishers:
                await self._check_counts(publisher)
            await self._check_events(publishers, [next(events) for _ in range(60)])

    async def _check_counts(self, publisher: Publisher) -> None:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(PublishFailed):  # 503 while its node is alone
                    users = {room: set(await publisher.users(room)) for room in ROOMS}
                    news = await publisher.channel(NEWS, info=["subscription_count"])
                    occupied = set(await publisher.channels())
                    if (
                        users == {room: self.wanted(room) for room in ROOMS}
                        and news.get("subscription_count", 0) == len(self.those_in(NEWS))
                        and occupied == {room for room in (*ROOMS, NEWS) if self.those_in(room)}
                    ):
                        return
                await asyncio.sleep(0.1)

    async def _check_events(self, publishers: list[Publisher], numbers: list[int]) -> None:
        """Several nodes publish at once; all get each event once, but who is left out."""
        receivers = self.those_in(NEWS)
        left_out = {n: self.rng.choice(receivers) for n in numbers if n % 3 == 0 and receivers}
        await asyncio.gather(
            *(
                publishers[n % len(publishers)].trigger(
                    NEWS, "e", n, socket_id=left_out[n].socket_id if n in left_out else None
                )
                for n in numbers
            )
        )
        due = {each: {n for n in numbers if left_out.get(n) is not each} for each in receivers}
        await until(lambda: all(numbers <= each.heard.keys() for each, numbers in due.items()))
        await asyncio.sleep(0.3)
        for each in receivers:
            heard = {n: times for n, times in each.heard.items() if n in numbers}
            assert heard == dict.fromkeys(due[each], 1)

    async def known_nodes(self) -> list[bytes]:
        """Those that Redis has."""
        found: list[bytes] = await self.redis.ask(
            "ZRANGE", f"{{{self._prefix}:1}}:nodes", "0", "-1"
        )
        return found

    async def kill_node(self) -> None:
        node = self.rng.choice(self.nodes)
        self.nodes.remove(node)
        await node.kill()
        gone = [person for person in self.people if person.node is node]
        self.people = [person for person in self.people if person.node is not node]
        for person in gone:
            await person.go()

    def those_in(self, room: str) -> list[Person]:
        return [person for person in self.people if room in person.asked]

    def wanted(self, room: str) -> set[str]:
        return set() if room == NEWS else {person.user for person in self.those_in(room)}

    def agrees(self) -> bool:
        return all(
            person.members.get(room) == self.wanted(room)
            for person in self.people
            for room in person.asked
        )

    async def close(self) -> None:
        for person in self.people:
            await person.go()
        for node in self.nodes:
            await node.stop()


@contextlib.asynccontextmanager
async def open_world(seed: int, nodes: int = 3, *redis: str) -> AsyncIterator[World]:
    async with own_redis(*redis) as server:
        world = World(server, seed)
        try:
            await asyncio.gather(*(world.add_node() for _ in range(nodes)))
            yield world
        finally:
            await world.close()


async def test_through_a_thousand_steps_kills_and_restarts_all_see_the_same() -> None:
    """Issue 5, acceptance 3: members, counts, exclusion and events, on three nodes."""
    async with open_world(1, 3, "appendonly yes") as world:
        # At steps of its own each: nodes killed, and Redis killed, once with both at a time.
        blows = ["kill", "restart", "kill", "lose", "both", "restart", "kill", "lose"]
        at = {100 * n + world.rng.randrange(60, 100): blow for n, blow in enumerate(blows)}
        events = itertools.count()
        for n in range(1_000):
            await world.step()
            if n in at:
                await world.strike(at[n])
            if n % 250 == 249:
                await world.check(events)
            await asyncio.sleep(0.002)
        assert [fault for person in world.people for fault in person.faults] == []


async def test_each_event_arrives_once_at_each_subscriber() -> None:
    async with open_world(seed=3) as world:
        for _ in range(12):
            (await world.add_person()).join(ROOMS[0])
        await until(world.agrees)
        async with contextlib.AsyncExitStack() as stack:
            publishers = [await stack.enter_async_context(n.publisher()) for n in world.nodes]

            async def publish(number: int) -> None:
                await publishers[number % 3].trigger(ROOMS[0], "e", number)

            for start in range(0, 600, 20):
                await asyncio.gather(*(publish(n) for n in range(start, start + 20)))
        await until(lambda: all(person.heard.total() >= 600 for person in world.people))
        await asyncio.sleep(0.2)
        for person in world.people:
            assert person.heard == Counter(range(600))


async def test_the_members_of_a_killed_node_are_gone_within_ten_seconds() -> None:
    assert DEAD_AFTER + BEAT_EVERY < 10
    async with open_world(seed=5, nodes=2) as world:
        for node in world.nodes:
            person = await Person.come(node, f"user {node.port}")
            world.people.append(person)
            person.join(ROOMS[0])
        await until(world.agrees)
        assert len(world.wanted(ROOMS[0])) == 2
        await world.kill_node()
        await until(world.agrees)


async def test_a_node_that_is_told_to_stop_leaves_at_once() -> None:
    async with open_world(seed=4, nodes=2) as world:
        for node in world.nodes:
            person = await Person.come(node, f"user {node.port}")
            world.people.append(person)
            person.join(ROOMS[0])
        await until(world.agrees)
        await world.nodes[1].stop()
        assert len(await world.known_nodes()) == 1
        await world.people.pop().go()
        await until(world.agrees)


@pytest.mark.parametrize("what", ["redis://127.0.0.1:1/0", "nonsense"])
async def test_a_node_says_why_it_cannot_join(what: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.server.node_program", what, "x"), cwd=ROOT, stderr=PIPE
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert b"The Redis" in stderr
    assert process.returncode == 1

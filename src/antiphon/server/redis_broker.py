"""Many nodes as one server, over Redis: events, members, counts, users.

Each node tells what it has, and hears what has changed in all. Who is a member is decided in Redis,
in one order for all nodes; a node that dies is buried by the others. While Redis is away a node
goes on by itself, and afterwards they agree again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from antiphon.errors import SettingsError
from antiphon.protocol.channels import Access, access_of
from antiphon.protocol.presence import Member

from . import redis_scripts as scripts
from .cache import Cache
from .hub import Channel, ClusterAway, Hub
from .redis_connection import Address
from .webhooks import GRACE

__all__ = ["RedisBroker"]

log = logging.getLogger("antiphon.server")

BEAT_EVERY: Final = 2.0
DEAD_AFTER: Final = 6.0
"""Seconds of silence after which a node is buried."""
SETTLE: Final = 5.0
"""Seconds for which members are kept that Redis does not know after it was away: their nodes come
back to it one after the other, and it may have lost what it was told last."""
MAX_WAITING: Final = 16 * 1024 * 1024
"""Bytes of events that wait for a Redis that is away; beyond them the oldest go."""
_OVERHEAD: Final = 500
"""Bytes that a waiting event takes beside its text, roughly."""
MAX_AT_ONCE: Final = 500
MAX_ENTRY: Final = 16 * 1024
"""Bytes of what a node tells in one entry of the stream; a longer event has one of its own."""
MAX_READ: Final = 8
"""Entries that are read at once, and written in one turn: a subscriber that reads well but has just
been busy must not be taken for one that does not read."""
MAX_PIPELINE: Final = MAX_READ * MAX_ENTRY
"""Bytes of events that are sent at once, and are lost if Redis goes away meanwhile."""
KEPT: Final = 5_000
"""Entries that a node can catch up with after it has lost its connection; the scripts have the
same."""
RETRY: Final = (0.1, 5.0)
_TURNS: Final = 2
"""What the others have published while one was busy is read a turn later: it is one write with what
one publishes oneself, and no node writes more often than a server alone."""

_SHA: Final = {
    text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    for text in (
        *(scripts.MEMBERS, scripts.COUNTS, scripts.USERS),
        *(scripts.BEAT, scripts.SWEEP, scripts.LEAVE),
    )
}
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

Step = tuple[list[Any], Callable[[Any], None]]
"""A command, and what is done with its answer."""


class RedisBroker:
    """One node of a cluster.

    Args:
        url: Where the Redis is, such as `redis://127.0.0.1:6379/0`; see `Address`.
        hubs: What this node serves.
        prefix: Begins all keys, so that several installations can share a Redis.

    Attributes:
        node: What the others call this node.

    Raises:
        SettingsError: The address is none.
    """

    def __init__(self, url: str, hubs: Iterable[Hub], *, prefix: str = "antiphon") -> None:
        self.node = os.urandom(8).hex()
        self._address = Address(url)
        self._prefix = prefix
        self._parts = {hub: Part(hub, self._address, self.node, prefix) for hub in hubs}

    async def start(self) -> None:
        """Join the cluster.

        Raises:
            SettingsError: The Redis cannot be used.
        """
        starting = (part.start() for part in self._parts.values())
        for failure in await asyncio.gather(*starting, return_exceptions=True):
            if failure is None:
                continue
            await self.stop()
            if not isinstance(failure, (RedisError, OSError)):
                raise failure
            reason = str(failure).rstrip(".?")
            raise SettingsError(f"{self._address} cannot be used: {reason}.") from failure

    async def stop(self) -> None:
        """Leave the cluster; what this node held is given up at once."""
        await asyncio.gather(*(part.stop() for part in self._parts.values()))

    def add(self, hub: Hub) -> None:
        """Serve one more application; it goes on alone until it has joined the others."""
        part = self._parts[hub] = Part(hub, self._address, self.node, self._prefix)
        part.run()

    async def remove(self, hub: Hub) -> None:
        """Serve an application no longer."""
        part = self._parts.pop(hub, None)
        if part is not None:
            await part.stop()

    # For those who look on

    @property
    def is_live(self) -> bool:
        """Whether the nodes know of each other now, in all applications."""
        return all(part.is_live for part in self._parts.values())

    @property
    def heard(self) -> int:
        """How many things the nodes, this one too, have told each other since it started."""
        return sum(part.heard for part in self._parts.values())

    @property
    def waiting(self) -> int:
        """Events that the other nodes are to be told yet."""
        return sum(part.waiting for part in self._parts.values())

    @property
    def dropped(self) -> int:
        """Events that have waited in vain: there was no room for more."""
        return sum(part.dropped for part in self._parts.values())

    @property
    def lost(self) -> int:
        """How often an application has lost the others."""
        return sum(part.lost for part in self._parts.values())

    @property
    def gaps(self) -> int:
        """How often this node was so late that it had to take everything anew."""
        return sum(part.gaps for part in self._parts.values())

    @property
    def silence(self) -> float:
        """Seconds since Redis last heard of this node, of the application most behind."""
        beats = [part.beat_at for part in self._parts.values() if part.beat_at]
        return asyncio.get_running_loop().time() - min(beats) if beats else 0.0


class Part:
    """One application's share in the cluster: what its hub asks of the other nodes.

    Each has connections of its own: in a Redis Cluster applications are on different servers.

    Attributes:
        is_live: Whether the nodes know of each other now.
        heard: How many things they have told each other, as far as this one heard.
        dropped: Events that have waited in vain.
        lost: How often the others were lost.
        gaps: How often so much was missed that everything was taken anew.
        beat_at: When Redis last heard that this node lives, by the loop's clock; 0 for never.
        elsewhere: How many connections the other nodes had then.
    """

    def __init__(self, hub: Hub, address: Address, node: str, prefix: str) -> None:
        self.hub = hub
        self.key = f"{{{prefix}:{hub.app.id}}}"
        self.is_live = False
        self.heard = self.dropped = self.lost = self.gaps = 0
        self.beat_at = 0.0
        self.elsewhere = 0
        self._address = address
        self._node = node
        self._name = node.encode()
        self._redis: Redis | None = None
        self._task: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._is_over = False  # whether the loops of this connection are to end
        # What is to be told
        self._work = asyncio.Event()
        self._events: deque[tuple[list[Any] | bytes, int]] = deque()  # commands, and things told
        self._size = 0
        self._is_noting = False  # whether changes are noted
        self._counts: dict[str, None] = {}
        self._members: dict[tuple[str, str], None] = {}
        self._users: dict[str, None] = {}
        self._asked: list[Step] = []
        self._open: dict[object, Callable[[], None]] = {}  # what to do if there is no answer
        self._is_beat_due = self._is_sweep_due = False
        self._sweeper: asyncio.TimerHandle | None = None
        # Channels of which all members are to be asked, and whether those missing go at once.
        self._wanted: dict[str, bool] = {}
        self._replicas: dict[str, _Replica] = {}
        self._at: bytes | None = None  # up to where the stream was read
        self._epoch: bytes | None = None  # of the data that Redis had last
        # What Redis has of this node, as far as it has said so.
        self._told_counts: dict[str, int] = {}
        self._told_members: set[str] = set()
        # Channels and members that are gone, and since when: webhooks may not be told yet.
        self._leaving: dict[str, float] = {}

    async def start(self) -> None:
        """Join the others.

        Raises:
            RedisError: Redis cannot be used.
            OSError: The same.
        """
        self.hub.broker = self.hub.users.lookout = self
        await self._join()
        self.run()

    def run(self) -> None:
        """Stay with the others from now on, or come to them as soon as that is possible."""
        self.hub.broker = self.hub.users.lookout = self
        self.hub.webhooks.is_one_of_many = True
        self.hub.fanout.turns = _TURNS
        name = f"antiphon redis {self.hub.app.id}"
        self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def stop(self) -> None:
        """Leave the others."""
        self._is_over = True
        self._stopping.set()
        if self._telling is not None:
            self._wake()
            await asyncio.wait([self._telling])  # what it is sending is not to be lost half-way
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self.is_live:
            with contextlib.suppress(RedisError, OSError):
                await self._leave()
        self.is_live = False
        self._give_up_asking()
        await self._close()

    async def _leave(self) -> None:
        steps = self._steps()  # what was said last
        while some := _at_once(steps):
            await self._send(some)
        if await self.ask(*self.script(scripts.LEAVE, self._node)):
            return
        # Nobody is left who could tell later who has gone.
        while any((answer := await self.ask(*self.script(scripts.SWEEP, 0, MAX_AT_ONCE)))[1:]):
            self._tell_changes(*answer[1:])

    async def _close(self) -> None:
        redis, self._redis = self._redis, None
        if redis is not None:
            with contextlib.suppress(RedisError, OSError):
                await redis.aclose()

    # While Redis is there, and while it is not

    async def _run(self) -> None:
        delay = RETRY[0]
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            joined_at = loop.time()
            level = logging.WARNING if self.is_live else logging.INFO
            try:
                if not self.is_live:
                    await self._join()
                    level = logging.WARNING
                self._is_over = False
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._until_one_fails(self._listen))
                    tasks.create_task(self._until_one_fails(self._beat))
                    self._telling = tasks.create_task(self._until_one_fails(self._tell))
            except* (RedisError, OSError) as group:
                exc = group.exceptions[0]
                words = "%s is away, application %s goes on alone on this node: %r"
                log.log(level, words, self._address, self.hub.app.id, exc)
            except* Exception:
                log.exception("the cluster's node failed, and begins anew")
            if self._stopping.is_set():
                return
            self._lose()
            await self._close()
            if loop.time() - joined_at > RETRY[1]:
                delay = RETRY[0]
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(delay * 2, RETRY[1])

    async def _until_one_fails(self, work: Callable[[], Any]) -> None:
        """Not for ever: redis-py loses a cancellation now and then."""
        try:
            while not self._is_over and not self._stopping.is_set():
                await work()
        finally:
            self._is_over = True

    async def _join(self) -> None:
        """Know where to listen first, then tell what this node has: nothing falls between."""
        self.hub.webhooks.is_one_of_many = True
        self._is_noting = True
        try:
            self._redis = await self._address.connect(self.key)
            for text in _SHA:
                await self.ask("SCRIPT", "LOAD", text)
            await self._begin()
        except BaseException:
            self._note_no_more()
            await self._close()
            raise
        self.is_live = True
        self._wake()
        log.info("%s joins application %s to others", self._address, self.hub.app.id)

    def _lose(self) -> None:
        if not self.is_live:
            return
        self.is_live = False
        self.hub.webhooks.is_one_of_many = True  # they may be others than at the start
        self._note_no_more()
        self.lost += 1
        self._forget_who_left()
        self.hub.decide_alone()
        self._give_up_asking()

    def _note_no_more(self) -> None:
        """What changes while Redis is away is found out when it is back, however much that is."""
        self._is_noting = False
        for changes in (self._counts, self._members, self._users, self._wanted):
            changes.clear()

    async def _listen(self) -> None:
        wait = round(BEAT_EVERY * 1000)
        words = ("COUNT", MAX_READ, "BLOCK", wait, "STREAMS", self.key, self._at)
        for _, entries in await self.ask("XREAD", *words) or ():
            # Who is further behind than the stream is long has missed what was in between.
            is_gap = len(entries) >= MAX_READ and await self._is_gap()
            for id_, fields in entries:
                self._at = id_
                for teller, told in fields.items():
                    self._hear(teller, told)
            if is_gap:
                self._take_everything_anew()

    async def _is_gap(self) -> bool:
        flat = await self.ask("XINFO", "STREAM", self.key)
        stream = dict(zip(flat[::2], flat[1::2], strict=True))
        first = stream[b"first-entry"]
        is_later = first is None or _order(first[0]) > _order(self._at or b"0-0")
        return bool(is_later and stream[b"entries-added"] > stream[b"length"])

    async def _beat(self) -> None:
        await asyncio.sleep(BEAT_EVERY)
        self._is_beat_due = self._is_sweep_due = True
        self._wake()

    async def _tell(self) -> None:
        await self._work.wait()
        self._work.clear()
        steps = self._steps()
        while some := _at_once(steps):
            await self._send(some)

    async def _send(self, steps: list[Step]) -> None:
        assert self._redis is not None
        pipeline = self._redis.pipeline(transaction=False)
        for command, _ in steps:
            pipeline.execute_command(*command)
        for (_, done), answer in zip(steps, await pipeline.execute(), strict=True):
            done(answer)

    async def ask(self, *command: Any) -> Any:
        """Send one command, and wait for its answer.

        Raises:
            RedisError: There is none, or a refusal.
            OSError: There is none.
        """
        assert self._redis is not None
        return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]

    def script(self, text: str, *words: Any) -> list[Any]:
        """A script's command."""
        return ["EVALSHA", _SHA[text], 1, self.key, *words]

    def _wake(self) -> None:
        """There is something to tell."""
        self._work.set()

    # What the hub says

    def publish(
        self, channel: str, message: bytes, except_socket: str | None, data: str | None
    ) -> None:
        """Pass an event on."""
        if data is not None:
            ttl = max(1, round(self.hub.app.cache_ttl * 1000))
            kept = _pack([message, data])
            self._put(["SET", f"{self.key}:cache:{channel}", kept, "PX", ttl], len(kept))
        self._say("e", channel, message, except_socket, data)

    def terminate(self, user_id: str) -> None:
        """End a user's connections on the other nodes."""
        self._say("t", user_id)

    def kick(self, channel: str, user_id: str, socket_id: str) -> None:
        """Take a user, or one connection, out of a channel on the other nodes."""
        self._say("k", channel, user_id, socket_id)

    def count_changed(self, channel: str) -> None:
        """A connection has joined or left."""
        if self._is_noting:
            self._counts[channel] = None
            self._wake()

    def member_changed(self, channel: str, user_id: str) -> None:
        """A user's first connection here has come, or the last one has gone."""
        if self._is_noting:
            self._members[channel, user_id] = None
            self._wake()

    def user_changed(self, user_id: str) -> None:
        """A user's first connection here has signed in, or the last one has ended."""
        if self._is_noting:
            self._users[user_id] = None
            self._wake()

    def _say(self, *words: Any) -> None:
        told = _pack(words)
        self._put(told, len(told))

    def _put(self, what: list[Any] | bytes, size: int) -> None:
        self._events.append((what, size + _OVERHEAD))
        self._size += size + _OVERHEAD
        while self._size > MAX_WAITING:
            self._size -= self._events.popleft()[1]
            self.dropped += 1
        self._wake()

    @property
    def waiting(self) -> int:
        """Events that the other nodes are to be told yet."""
        return len(self._events)

    # What is sent

    def _steps(self) -> Iterator[Step]:
        """All that is to be told now, and what is done with the answers.

        An event that is not asked for, as those before it could not be sent, waits on; all else is
        compared when Redis is back.
        """
        # Taken first and sent last: what happens while the rest is sent waits for the next telling,
        # and whoever asks after it, too.
        asked, self._asked = self._asked, []
        if self._is_beat_due:
            self._is_beat_due = False
            yield self._beat_command(), self._beaten
        yield from self._event_steps()
        members, self._members = self._members, {}
        for channel, user_id in members:
            yield self._member_step(channel, user_id)
        wanted, self._wanted = self._wanted, {}
        for channel, at_once in wanted.items():
            if channel in self.hub.channels:
                yield self._all_members_step(channel, at_once)
        counts, self._counts = list(self._counts), {}
        for start in range(0, len(counts), MAX_AT_ONCE):
            yield self._counts_step(counts[start : start + MAX_AT_ONCE])
        users, self._users = list(self._users), {}
        for start in range(0, len(users), MAX_AT_ONCE):
            some = users[start : start + MAX_AT_ONCE]
            words = [w for id_ in some for w in (id_, str(int(self.hub.users.is_here(id_))))]
            yield self.script(scripts.USERS, self._node, *words), _nothing
        yield from asked
        if self._is_sweep_due:
            self._is_sweep_due = False
            grace = round(GRACE * 1000)
            yield self.script(scripts.SWEEP, grace, MAX_AT_ONCE), self._swept

    def _event_steps(self) -> Iterator[Step]:
        left = len(self._events)
        told: list[bytes] = []
        size = 0
        while left and self._events:  # those that came meanwhile may have driven others out
            what, taken = self._events[0]
            if told and (isinstance(what, list) or size + len(what) > MAX_ENTRY):
                yield self._entry(told), _nothing
                told, size = [], 0
                continue
            self._events.popleft()
            self._size -= taken
            left -= 1
            if isinstance(what, list):
                yield what, _nothing
            else:
                told.append(what)
                size += len(what)
        if told:
            yield self._entry(told), _nothing

    def _entry(self, told: list[bytes]) -> list[Any]:
        """What this node tells at once, as one list of MessagePack under the node's name."""
        together = b"".join((b"\xdc", len(told).to_bytes(2, "big"), *told))
        return ["XADD", self.key, "MAXLEN", "~", KEPT, "*", self._node, together]

    def _member_step(self, name: str, user_id: str) -> Step:
        channel = self.hub.channels.get(name)
        member = None if channel is None else channel.here.get(user_id)
        replica = self._replica(channel)
        wants = member is not None and replica is not None and not replica.is_asked
        if wants and replica is not None:
            replica.is_asked = True
        # Who was let in while Redis was away is not sent out again.
        is_in = channel is not None and user_id in channel.members
        limit = 0 if is_in else self.hub.app.max_presence_members
        info = b"" if member is None else msgspec.json.encode(member.info)

        def done(answer: list[Any]) -> None:
            both = f"{name}\n{user_id}"
            if member is not None and answer[0] != 0:
                self._told_members.add(both)
                self._leaving.pop(both, None)
            elif both in self._told_members:
                self._told_members.discard(both)
                self._leaving[both] = asyncio.get_running_loop().time()
            if answer[0] == 0:
                self.hub.members_refused(name, user_id)
            elif answer[0] == 2 and member is not None:
                self.hub.webhooks.tell_change("member_added", name, user_id)
            elif answer[0] == 2:
                self._sweep_in(GRACE)
            if len(answer) > 1:
                self._take_all(name, replica, answer[1], answer[2], at_once=True)

        words = (self._node, name, user_id, info, limit, int(wants))
        return self.script(scripts.MEMBERS, *words), done

    def _all_members_step(self, name: str, at_once: bool) -> Step:
        replica = self._replica(self.hub.channels[name])

        def done(answer: list[Any]) -> None:
            self._take_all(name, replica, answer[1], answer[2], at_once=at_once)

        return self.script(scripts.MEMBERS, self._node, name, "", b"-", 0, 1), done

    def _counts_step(self, names: list[str]) -> Step:
        hub = self.hub
        numbers = {name: hub.count_here(name) for name in names}
        words = [word for each in numbers.items() for word in each]

        def done(answer: list[int]) -> None:
            for name, number in numbers.items():
                if number:
                    self._told_counts[name] = number
                    self._leaving.pop(name, None)
                elif self._told_counts.pop(name, None):
                    self._leaving[name] = asyncio.get_running_loop().time()
            said = zip(names, answer[::3], answer[1::3], answer[2::3], strict=True)
            for name, before, after, is_new in said:
                if is_new:
                    hub.webhooks.tell_change("channel_occupied", name)
                elif after <= 0 < before:
                    self._sweep_in(GRACE)
                if before != after and access_of(name) is not Access.PRESENCE:
                    hub.webhooks.tell_count(name, after)

        tells = int(hub.app.subscription_counts)
        return self.script(scripts.COUNTS, self._node, tells, 0, *words), done

    # Who has gone: told to webhooks once, by whichever node asks first

    def _sweep_in(self, seconds: float) -> None:
        if self._sweeper is None:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        self._is_sweep_due = True
        self._wake()

    def _swept(self, answer: list[Any]) -> None:
        wait, gone, came = answer
        self._tell_changes(gone, came)
        if wait >= 0:
            self._sweep_in(wait / 1000)

    def _tell_changes(self, gone: list[bytes], came: list[bytes]) -> None:
        kinds = (("channel_vacated", "member_removed"), ("channel_occupied", "member_added"))
        for ids, (of_channel, of_member) in zip((gone, came), kinds, strict=True):
            for id_ in ids:
                channel, _, user_id = id_.decode().partition("\n")
                kind = of_member if user_id else of_channel
                self.hub.webhooks.tell_change(kind, channel, user_id or None)

    # What is heard

    def _hear(self, teller: bytes, told: bytes) -> None:
        """Take what a script has told, or a node."""
        if teller == b"m":
            self.heard += 1
            self._hear_change(_unpack(told))
        elif teller == self._name:
            self.heard += int.from_bytes(told[1:3], "big")  # one's own, which is not read
        else:
            things = _unpack(told)
            self.heard += len(things)
            for words in things:
                self._hear_node(words)

    def _hear_node(self, words: list[Any]) -> None:
        match words:
            case ["e", str(channel), bytes(message), except_socket, data]:
                self.hub.deliver(channel, message, except_socket, data)
            case ["t", str(user_id)]:
                self.hub.terminate_here(user_id)
            case ["k", str(channel), str(user_id), str(socket_id)]:
                self.hub.kick_here(channel, user_id, socket_id)

    def _hear_change(self, words: list[Any]) -> None:
        hub = self.hub
        match words:
            case ["+", str(channel), str(user_id), info, int(version), int(before)]:
                member = Member(user_id, msgspec.json.decode(info))
                self._change(channel, version, before, member, None)
            case ["-", str(channel), str(user_id), int(version), int(before)]:
                self._change(channel, version, before, None, user_id)
            case ["u", str(user_id), int(is_here)]:
                hub.users.told(user_id, is_online=bool(is_here))
            case ["n", str(channel), int(total)]:
                hub.told_count(channel, total)

    def _change(
        self, name: str, version: int, before: int, member: Member | None, user_id: str | None
    ) -> None:
        """Take one change of a channel's members, if it is the next one."""
        replica = self._replica(self.hub.channels.get(name))
        if replica is None:
            return
        if replica.version is None:
            replica.early.append((version, before, member, user_id))
        elif version > replica.version:
            if before != replica.version:
                self._want(name, at_once=True)  # one was missed
                return
            replica.version = version
            if member is not None:
                self.hub.member_came(name, member)
            elif user_id is not None:
                self.hub.member_went(name, user_id)

    def _take_all(
        self, name: str, replica: _Replica | None, version: int, infos: list[Any], *, at_once: bool
    ) -> None:
        """Take all members as they were at a version."""
        channel = self.hub.channels.get(name)
        if channel is None or replica is None or self._replica(channel) is not replica:
            return
        members = {
            id_.decode(): Member(id_.decode(), msgspec.json.decode(info))
            for id_, info in _pairs(infos)
        }
        replica.version = version
        for member in members.values():
            self.hub.member_came(name, member)
        if at_once:
            for user_id in [id_ for id_ in channel.members if id_ not in members]:
                self.hub.member_went(name, user_id)
        early, replica.early = replica.early, []
        for change in early:
            self._change(name, *change)

    def _want(self, name: str, *, at_once: bool) -> None:
        self._wanted[name] = at_once
        self._wake()

    def _replica(self, channel: Channel | None) -> _Replica | None:
        """What is known of a channel's members' versions; a new one for a new channel."""
        if channel is None:
            return None
        replica = self._replicas.get(channel.name)
        if replica is None or replica.channel is not channel:
            replica = self._replicas[channel.name] = _Replica(channel)
        return replica

    # The node's life

    def _beat_command(self) -> list[Any]:
        settle = 0 if self._epoch is None else round(SETTLE * 1000)
        words = (len(self.hub.sockets), round(DEAD_AFTER * 1000), os.urandom(8).hex(), settle)
        return self.script(scripts.BEAT, self._node, *words)

    def _beaten(self, answer: list[Any]) -> None:
        self.beat_at = asyncio.get_running_loop().time()
        self.elsewhere = answer[2]
        self._forget_who_left()
        self._replicas = {n: r for n, r in self._replicas.items() if n in self.hub.channels}
        if answer[0]:
            raise ConnectionError("it has lost its data, or taken this node for dead")

    async def _begin(self) -> None:
        """Find out where this application's nodes stand, and note what is to be told and asked."""
        newest = await self.ask("XREVRANGE", self.key, "+", "-", "COUNT", 1)
        end = newest[0][0] if newest else b"0-0"
        if self._at is None or _order(end) < _order(self._at):
            self._at = end  # else it goes on where it was when the connection was lost
        _, epoch, self.elsewhere = await self.ask(*self._beat_command())
        self.beat_at = asyncio.get_running_loop().time()
        if self._epoch is not None and epoch != self._epoch:
            await self._tell_again()
        self._epoch = epoch
        await self._compare()
        self._replicas.clear()
        for name, channel in self.hub.channels.items():
            if channel.is_presence:
                self._want(name, at_once=False)
        asyncio.get_running_loop().call_later(SETTLE, self._settle)
        self.hub.users.ask_again()

    def _settle(self) -> None:
        for name, channel in self.hub.channels.items():
            if channel.is_presence:
                self._want(name, at_once=True)

    async def _tell_again(self) -> None:
        """Tell a Redis that has lost its data what it had; webhooks were told all that."""
        counts = {name: 1 for name in self._leaving if "\n" not in name} | self._told_counts
        numbers = iter([word for each in counts.items() for word in each])
        while some := list(islice(numbers, 2 * MAX_AT_ONCE)):
            await self.ask(*self.script(scripts.COUNTS, self._node, 0, 1, *some))
        members = iter([*self._told_members, *(both for both in self._leaving if "\n" in both)])
        while some := list(islice(members, MAX_AT_ONCE)):
            await self._send([(self._known_member_command(both), _nothing) for both in some])

    def _known_member_command(self, both: str) -> list[Any]:
        name, _, user_id = both.partition("\n")
        channel = self.hub.channels.get(name)
        member = None if channel is None else channel.here.get(user_id)
        # Who has left since is told to have, next.
        info = b"null" if member is None else msgspec.json.encode(member.info)
        return self.script(scripts.MEMBERS, self._node, name, user_id, info, 0, 0, 1)

    def _forget_who_left(self) -> None:
        """Who has gone for good was told to webhooks, as far as Redis could be asked."""
        over = asyncio.get_running_loop().time() - GRACE
        self._leaving = {id_: since for id_, since in self._leaving.items() if since > over}

    def _take_everything_anew(self) -> None:
        """So much was missed that the rest does not say how things are."""
        self.gaps += 1
        hub = self.hub
        log.warning("application %s has missed what other nodes told: too late", hub.app.id)
        hub.cache = Cache(hub.app.cache_ttl)
        hub.users.ask_again()
        self._settle()
        if hub.app.subscription_counts:
            names = [name for name, channel in hub.channels.items() if not channel.is_presence]
            for start in range(0, len(names), MAX_AT_ONCE):
                some = names[start : start + MAX_AT_ONCE]
                self._ask(["HMGET", f"{self.key}:channels", *some], partial(self._told, some))

    def _told(self, names: list[str], totals: list[bytes | None]) -> None:
        for name, total in zip(names, totals, strict=True):
            self.hub.told_count(name, int(total or 0))

    async def _compare(self) -> None:
        """See what Redis has of this node, and note what is different."""
        ask, node = self.ask, self._node
        members = {id_.decode() for id_ in await ask("SMEMBERS", f"{self.key}:members:{node}")}
        here = {f"{n}\n{id_}" for n, channel in self.hub.channels.items() for id_ in channel.here}
        self._told_members = members
        for both in members ^ here:
            name, _, user_id = both.partition("\n")
            self.member_changed(name, user_id)
        subs = await ask("HGETALL", f"{self.key}:subs:{node}")
        counts = {name.decode(): int(n) for name, n in subs.items()}
        self._told_counts = counts
        for name in {*counts, *self.hub.channels}:
            if counts.get(name, 0) != self.hub.count_here(name):
                self.count_changed(name)
        users = {id_.decode() for id_ in await ask("SMEMBERS", f"{self.key}:users:{node}")}
        for user_id in users ^ self.hub.users.here():
            self.user_changed(user_id)

    # What is asked

    def _ask(
        self,
        command: list[Any],
        done: Callable[[Any], None],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Ask when all that happened before was told; `failed` is called if nobody answers."""
        number = object()
        self._open[number] = failed

        def answered(answer: Any) -> None:
            if self._open.pop(number, None) is not None:
                done(answer)

        self._asked.append((command, answered))
        self._wake()

    def _give_up_asking(self) -> None:
        self._asked.clear()
        given_up, self._open = self._open, {}
        for failed in given_up.values():
            failed()

    async def _read(self, *command: Any) -> Any:
        """What the HTTP API is asked.

        Raises:
            ClusterAway: Redis does not answer.
        """
        away = ClusterAway(f"What all nodes have is not known now: {self._address} does not answer")
        if not self.is_live:
            raise away
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(answer: Any) -> None:
            if not future.done():
                future.set_result(answer)

        def failed() -> None:
            if not future.done():
                future.set_exception(away)

        self._ask(list(command), answered, failed)
        return await future

    async def counts(self) -> dict[str, int]:
        """How many subscribers each occupied channel has on all nodes."""
        found = await self._read("HGETALL", f"{self.key}:channels")
        return {name.decode(): int(n) for name, n in found.items()}

    async def count(self, channel: str) -> int:
        """How many subscribers a channel has on all nodes."""
        return int(await self._read("HGET", f"{self.key}:channels", channel) or 0)

    async def members(self, channel: str) -> list[str]:
        """Who is in a presence channel."""
        found = await self._read("HKEYS", f"{self.key}:holders:{channel}")
        return [id_.decode() for id_ in found]

    async def connections(self) -> int:
        """How many connections all nodes have; those of others as of 2 seconds ago."""
        found = await self._read("HGETALL", f"{self.key}:connections")
        others = sum(int(n) for node, n in found.items() if node.decode() != self._node)
        return others + len(self.hub.sockets)

    def ask_online(self, user_ids: Iterable[str], done: Callable[[set[str]], None]) -> None:
        """Find out who of these is signed in on any node."""
        ids = list(user_ids)

        def answered(answer: list[Any]) -> None:
            done({id_ for id_, n in zip(ids, answer, strict=True) if n is not None})

        self._ask(["HMGET", f"{self.key}:users", *ids], answered)

    def ask_kept(self, channel: str, done: Callable[[bytes | None], None]) -> None:
        """Find out what a cache channel keeps: the frame's text; None for nothing."""

        def answered(answer: bytes | None) -> None:
            done(None if answer is None else _unpack(answer)[0])

        self._ask(["GET", f"{self.key}:cache:{channel}"], answered, partial(done, None))

    async def kept(self, channel: str) -> tuple[str, float] | None:
        """What a cache channel keeps: the event's data, and for how many seconds."""
        key = f"{self.key}:cache:{channel}"
        answer, ttl = await self._read("GET", key), await self._read("PTTL", key)
        return None if answer is None or ttl < 0 else (_unpack(answer)[1], ttl / 1000)


class _Replica:
    """What is known of a presence channel's members' versions."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.version: int | None = None
        self.is_asked = False
        # What was told before it was known where it begins: version, the one before, who.
        self.early: list[tuple[int, int, Member | None, str | None]] = []


def _at_once(steps: Iterator[Step]) -> list[Step]:
    """What is sent in one pipeline."""
    some: list[Step] = []
    size = 0
    for step in islice(steps, MAX_AT_ONCE):
        some.append(step)
        size += sum(len(word) for word in step[0] if isinstance(word, bytes))
        if size >= MAX_PIPELINE:
            break
    return some


def _nothing(answer: Any) -> None:
    pass


def _order(id_: bytes) -> tuple[int, int]:
    """By which the ids of a stream are compared."""
    time, _, number = id_.partition(b"-")
    return int(time), int(number)


def _pairs(flat: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """What a hash holds, as a script gives it."""
    return zip(flat[::2], flat[1::2], strict=True)

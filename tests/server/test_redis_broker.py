"""Several nodes over a real Redis: what one does is right on all of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio

from antiphon.errors import SettingsError
from antiphon.protocol.server import Relay
from antiphon.server import redis_broker
from antiphon.server.hub import ClusterAway, Hub
from antiphon.server.metrics import exposition
from antiphon.server.redis_broker import RedisBroker
from antiphon.server.transport import MAX_WRITE_BUFFER
from antiphon.settings import App, WebhookEndpoint

from .cluster import APP, REDIS, Cluster, Guest, open_cluster, own_redis, until
from .test_webhooks import Backend

ROOM = "presence-room"


async def quiet() -> None:
    """Let what is under way arrive."""
    await asyncio.sleep(0.15)


async def lag(node: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let a node read no further, until the event is set."""
    (part,) = node._parts.values()
    ask, lags, goes_on = part.ask, asyncio.Event(), asyncio.Event()

    async def late(*command: Any) -> Any:
        if command[0] == "XREAD":
            lags.set()
            await goes_on.wait()
        return await ask(*command)

    monkeypatch.setattr(part, "ask", late)
    await lags.wait()
    return goes_on


# Events


async def test_an_event_reaches_the_subscribers_of_all_nodes_once() -> None:
    async with open_cluster() as cluster:
        guests = [cluster.guest(n) for n in range(3)]
        for guest in guests:
            guest.join("news")
        for n, hub in enumerate(cluster.hubs):
            hub.trigger("news", "e", str(n))
        await until(lambda: all(len(guest.heard()) == 3 for guest in guests))
        await quiet()
        assert all(sorted(guest.heard()) == [0, 1, 2] for guest in guests)


async def test_events_of_one_node_keep_their_order() -> None:
    async with open_cluster(2) as cluster:
        guest = cluster.guest(1)
        guest.join("news")
        for n in range(500):
            cluster.hubs[0].trigger("news", "e", str(n))
            if n % 50 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(guest.heard()) == 500)
        assert guest.heard() == list(range(500))


async def test_events_that_wait_together_travel_together() -> None:
    async with open_cluster(2) as cluster:
        here, there = cluster.guest(0), cluster.guest(1)
        for guest in (here, there):
            guest.join("news")
            guest.join("cache-news")
        await until(lambda: here.events and there.events)  # nothing is kept, they were told
        (stream,) = {part.key for node in cluster.nodes for part in node._parts.values()}
        large = "x" * (redis_broker.MAX_ENTRY + 1)
        async with redis.asyncio.Redis.from_url(REDIS) as client:
            before = await client.xlen(stream)
            for n in range(50):
                cluster.hubs[0].trigger("news", "e", str(n))
            cluster.hubs[0].trigger("news", "e", f'"{large}"')
            cluster.hubs[0].trigger("news", "e", "50")
            cluster.hubs[0].trigger("cache-news", "e", "51")
            cluster.hubs[0].terminate("nobody")
            await until(lambda: there.heard()[-1:] == [51])
            # Small ones, a large one, small ones; what is kept is kept before it is told.
            assert await client.xlen(stream) - before == 4
        assert there.heard() == here.heard() == [*range(50), large, 50, 51]
        await until(lambda: cluster.nodes[0].heard == cluster.nodes[1].heard)


async def test_a_redis_that_goes_away_again_takes_no_more_than_was_just_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_cluster(2) as cluster:
        guest = cluster.guest(1)
        guest.join("news")
        await quiet()
        (part,) = cluster.nodes[0]._parts.values()
        send, is_away = part._send, True

        async def fail(steps: list[redis_broker.Step]) -> None:
            nonlocal is_away
            if is_away and any("XADD" in command for command, _ in steps):
                is_away = False
                raise ConnectionError("it is away")
            await send(steps)

        monkeypatch.setattr(part, "_send", fail)
        text = "x" * 1_000
        for n in range(1_000):
            cluster.hubs[0].trigger("news", "e", f'"{n} {text}"')
        await until(lambda: guest.heard() and guest.heard()[-1].startswith("999 "))
        lost = 1_000 - len(guest.heard())
        assert 0 < lost * len(text) <= redis_broker.MAX_PIPELINE + redis_broker.MAX_ENTRY


async def test_a_question_is_asked_after_all_that_happened_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_cluster(2) as cluster:
        guest = cluster.guest(0)
        guest.join("cache-news")
        (part,) = cluster.nodes[0]._parts.values()
        send, is_sending, goes_on = part._send, asyncio.Event(), asyncio.Event()

        async def late(steps: list[redis_broker.Step]) -> None:
            is_sending.set()
            await goes_on.wait()
            await send(steps)

        monkeypatch.setattr(part, "_send", late)
        for _ in range(3):  # more than is sent at once
            cluster.hubs[0].trigger("news", "e", f'"{"x" * redis_broker.MAX_PIPELINE}"')
        await is_sending.wait()
        cluster.hubs[0].trigger("cache-news", "e", '"just now"')
        asking = asyncio.ensure_future(part.kept("cache-news"))
        await quiet()
        goes_on.set()
        answer = await asking
        assert answer is not None
        assert answer[0] == '"just now"'


async def test_who_catches_up_writes_in_small_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscriber that reads well must not be taken for one that leaves a mebibyte unread."""
    async with open_cluster(2) as cluster:
        guest = cluster.guest(1)
        guest.join("news")
        await quiet()
        sizes: list[int] = []
        write = guest.write

        def noted(frames: bytes) -> None:
            sizes.append(len(frames))
            write(frames)

        monkeypatch.setattr(guest, "write", noted)
        goes_on = await lag(cluster.nodes[1], monkeypatch)
        text = "x" * 1_000
        for n in range(2_000):
            cluster.hubs[0].trigger("news", "e", f'"{n} {text}"')
        await until(lambda: cluster.nodes[0].waiting == 0)
        await quiet()
        goes_on.set()
        await until(lambda: len(guest.heard()) == 2_000)
        assert sum(sizes) > 2 * MAX_WRITE_BUFFER
        assert max(sizes) <= MAX_WRITE_BUFFER / 2


async def test_the_sender_is_left_out_on_whichever_node_it_is() -> None:
    async with open_cluster(2) as cluster:
        here, there = cluster.guest(0), cluster.guest(1)
        for guest in (here, there):
            guest.join("private-room")
        cluster.hubs[0].trigger("private-room", "e", "1", there.socket_id)
        cluster.hubs[0].trigger("private-room", "e", "2", here.socket_id)
        relay = Relay("private-room", b'{"event":"client-e","data":3}', "client-e", b"3", None)
        cluster.hubs[1].relay(relay, there.socket_id)
        await until(lambda: here.heard("client-e") and there.heard())
        await quiet()
        assert (here.heard(), there.heard()) == ([1], [2])
        assert there.heard("client-e") == []


async def test_two_installations_and_two_applications_share_a_redis() -> None:
    async with open_cluster(1) as one, open_cluster(1) as two, open_cluster(1, id="2") as three:
        three.prefix = one.prefix
        await three.add()
        guests = [one.guest(), two.guest(), three.guest(1)]
        for guest in guests:
            guest.join("news")
            guest.join(ROOM, guest.socket_id)
        one.hubs[0].trigger("news", "e", "1")
        await until(lambda: all(ROOM in guest.channels for guest in guests) and guests[0].heard())
        await quiet()
        assert [guest.heard() for guest in guests] == [[1], [], []]
        assert [len(guest.members[ROOM]) for guest in guests] == [1, 1, 1]


async def test_the_secret_never_travels() -> None:
    async with open_cluster(2, secret="a-very-secret-secret") as cluster:
        seen: list[str] = []
        async with redis.asyncio.Redis.from_url(REDIS) as client, client.monitor() as monitor:

            async def watch() -> None:
                while True:
                    seen.append(str(await monitor.next_command()))

            watching = asyncio.create_task(watch())
            guest = cluster.guest(1)
            guest.join(ROOM, "ali")
            guest.sign_in("ali", "john")
            cluster.hubs[0].trigger("cache-a", "e", "1")
            cluster.hubs[0].terminate("nobody")
            await cluster.told()
            await until(lambda: guest.channels and guest.events and len(seen) > 5)
            await quiet()
            watching.cancel()
        assert len(seen) > 5
        assert not any("a-very-secret-secret" in command for command in seen)


# Members


async def test_members_are_the_same_on_all_nodes() -> None:
    async with open_cluster() as cluster:
        ali, john, phone = cluster.guest(0), cluster.guest(1), cluster.guest(2)
        ali.join(ROOM, "ali", {"name": "Ali"})
        await until(lambda: ROOM in ali.channels)
        john.join(ROOM, "john", {"from": "laptop"})
        await until(lambda: ROOM in john.channels)
        phone.join(ROOM, "john", {"from": "phone"})
        await until(lambda: ROOM in phone.channels)
        everyone = {"ali": {"name": "Ali"}, "john": {"from": "laptop"}}
        await until(lambda: ali.members[ROOM] == everyone)
        assert john.members[ROOM] == phone.members[ROOM] == everyone
        john.leave(ROOM)
        await quiet()
        assert set(ali.members[ROOM]) == {"ali", "john"}, "his phone is there still"
        phone.hang_up()
        await until(lambda: set(ali.members[ROOM]) == {"ali"})


async def test_who_joins_is_in_the_list_it_gets_and_not_announced_to_itself() -> None:
    async with open_cluster(2) as cluster:
        guests = [cluster.guest(n % 2) for n in range(20)]
        for n, guest in enumerate(guests):
            guest.join(ROOM, f"user {n}")  # Guest objects to being told of itself
        await until(lambda: all(ROOM in guest.channels for guest in guests))
        await until(lambda: all(len(guest.members[ROOM]) == 20 for guest in guests))


async def test_a_full_channel_takes_no_further_user_on_any_node() -> None:
    async with open_cluster(2, max_presence_members=2) as cluster:
        guests = [cluster.guest(n % 2) for n in range(3)]
        for n, guest in enumerate(guests):
            guest.join(ROOM, f"user {n}")
            await until(lambda guest=guest: guest.channels or guest.refusals)  # type: ignore[misc]
        assert [bool(guest.channels) for guest in guests] == [True, True, False]
        assert guests[2].refusals == [(ROOM, 403)]
        again = cluster.guest(0)
        again.join(ROOM, "user 1")
        await until(lambda: again.channels)
        guests[0].hang_up()
        await until(lambda: len(guests[1].members[ROOM]) == 1)
        late = cluster.guest(0)
        late.join(ROOM, "user 3")
        await until(lambda: late.channels)


async def test_who_goes_before_it_was_let_in_leaves_nothing_behind() -> None:
    async with open_cluster(2) as cluster:
        ali = cluster.guest(1)
        ali.join(ROOM, "ali")
        await until(lambda: ali.channels)
        for way in (Guest.hang_up, lambda guest: guest.leave(ROOM)):
            hasty = cluster.guest(0)
            hasty.join(ROOM, "hasty")
            way(hasty)
            await quiet()
            assert not hasty.channels
            assert set(ali.members[ROOM]) == {"ali"}
            assert ROOM not in cluster.hubs[0].channels
            assert not cluster.hubs[0]._waiting


async def test_a_user_who_goes_and_comes_at_once_stays() -> None:
    async with open_cluster(2) as cluster:
        ali, john = cluster.guest(0), cluster.guest(1)
        ali.join(ROOM, "ali")
        john.join(ROOM, "john")
        await until(lambda: len(ali.members.get(ROOM, ())) == 2)
        for _ in range(50):
            john.leave(ROOM)
            john.join(ROOM, "john")
            if random.random() < 0.3:
                await asyncio.sleep(0.002)
        await quiet()
        both = {"ali", "john"}
        await until(lambda: set(ali.members[ROOM]) == set(john.members.get(ROOM, ())) == both)


# What is kept, counted and told


async def test_what_a_cache_channel_keeps_is_had_on_a_node_that_came_later() -> None:
    async with open_cluster(1) as cluster:
        cluster.hubs[0].trigger("cache-a", "e", "1")
        await cluster.told()
        await cluster.add()
        late = cluster.guest(1)
        late.join("cache-a")
        late.join("cache-b")
        await until(lambda: len(late.events) == 2)
        assert late.events == [("e", "cache-a", 1), ("pusher:cache_miss", "cache-b", None)]
        data, seconds = await cluster.hubs[1].kept("cache-a") or ("", 0)
        assert data == "1"
        assert 1_700 < seconds <= 1_800


async def test_counts_are_those_of_all_nodes() -> None:
    async with open_cluster(2, subscription_counts=True) as cluster:
        guests = [cluster.guest(n % 2) for n in range(4)]
        for guest in guests:
            guest.join("news")
        guests[0].join(ROOM, "ali")
        hub = cluster.hubs[1]
        await until(
            lambda: guests[0].events and guests[0].events[-1][2] == {"subscription_count": 4}
        )
        await until(lambda: ROOM in guests[0].channels)
        await cluster.told()
        assert await hub.counts() == {"news": 4, ROOM: 1}
        assert await hub.count("news") == 4
        assert await hub.members(ROOM) == ["ali"]
        for guest in guests:
            guest.hang_up()
        await cluster.told()
        assert await hub.counts() == {}
        assert await hub.members(ROOM) == []


async def test_connections_are_counted_over_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_broker, "BEAT_EVERY", 0.05)
    async with open_cluster(2) as cluster:
        for n in (0, 0, 1):
            cluster.guest(n)
        async with asyncio.timeout(20):  # until the next beats
            while [await hub.connections() for hub in cluster.hubs] != [3, 3]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_an_application_is_full_when_all_nodes_together_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_broker, "BEAT_EVERY", 0.05)
    async with open_cluster(2, max_connections=3) as cluster:
        one, other = cluster.hubs
        for n in (0, 0, 1):
            cluster.guest(n)
        await until(lambda: one.is_full and other.is_full)
        text = exposition([one], 0, True)
        assert 'antiphon_cluster_connections{app="1"} 3\n' in text
        assert 'antiphon_cluster_live{app="1"} 1\n' in text
        assert 'antiphon_cluster_events_dropped_total{app="1"} 0\n' in text
        one.disconnect(next(iter(one.sockets.values())), next(iter(one.sockets)))
        assert not one.is_full
        await until(lambda: not other.is_full)


async def test_users_are_ended_and_taken_out_on_all_nodes() -> None:
    async with open_cluster(2) as cluster:
        signed_in, member, other = cluster.guest(0), cluster.guest(1), cluster.guest(1)
        signed_in.sign_in("7")
        for guest, id_ in ((member, "7"), (other, "8")):
            guest.join(ROOM, id_)
            guest.join("news")
        await until(lambda: ROOM in member.channels and ROOM in other.channels)
        cluster.hubs[0].kick(ROOM, user_id="7")
        await until(lambda: ROOM not in member.channels)
        cluster.hubs[0].kick("news", socket_id=other.socket_id)
        await until(lambda: "news" not in other.channels)
        assert set(other.channels) == {ROOM}
        member.join(ROOM, "7")
        await until(lambda: ROOM in member.channels)
        cluster.hubs[0].terminate("7")
        await until(lambda: signed_in.closed and member.closed)
        assert other.closed == 0


async def test_who_watches_is_told_of_users_on_all_nodes() -> None:
    async with open_cluster(2) as cluster:
        john, phone, ali = cluster.guest(1), cluster.guest(0), cluster.guest(0)
        name = "pusher_internal:watchlist_events"
        john.sign_in("john")
        await until(lambda: cluster.nodes[0].heard)  # of him
        ali.sign_in("ali", "john", "eve")
        await until(lambda: ali.events)
        online = {"name": "online", "user_ids": ["john"]}
        offline = {"name": "offline", "user_ids": ["john"]}
        assert ali.heard(name) == [{"events": [online, {"name": "offline", "user_ids": ["eve"]}]}]
        phone.sign_in("john")
        await cluster.told()
        john.hang_up()
        await quiet()
        assert len(ali.events) == 1, "his phone is there still"
        phone.hang_up()
        await until(lambda: len(ali.events) == 2)
        assert ali.heard(name)[1] == {"events": [offline]}


# Webhooks


def telling(backend: Backend, nodes: int = 2, url: str = REDIS) -> Any:
    """A cluster that tells a backend who comes and goes."""
    kinds = ("channel_occupied", "channel_vacated", "member_added", "member_removed")
    endpoint = WebhookEndpoint(url="http://127.0.0.1:1/webhooks", events=kinds)
    return open_cluster(nodes, url, backend, webhooks=(endpoint,))


def said(backend: Backend) -> list[tuple[str, ...]]:
    """What the backend was told: each event's values."""
    return [tuple(event.values()) for event in backend.told("http://127.0.0.1:1/webhooks")]


@pytest.fixture
def grace(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets for how long who is gone may come back; nobody who comes back is ever too late."""

    def set_grace(seconds: float) -> None:
        monkeypatch.setattr(redis_broker, "GRACE", seconds)

    monkeypatch.setattr(redis_broker, "SETTLE", 0.0)
    set_grace(600.0)
    return set_grace


async def test_who_comes_back_on_another_node_has_never_gone(
    grace: Callable[[float], None],
) -> None:
    backend = Backend()
    async with telling(backend) as cluster:
        for n in (0, 1, 0, 1):  # a page that is loaded again and again, through a balancer
            ali = cluster.guest(n)
            ali.join("news")
            ali.join(ROOM, "ali")
            await until(lambda ali=ali: ROOM in ali.channels)  # type: ignore[misc]
            await until(lambda: len(said(backend)) == 3)
            ali.hang_up()
            await quiet()
        await asyncio.sleep(redis_broker.BEAT_EVERY + 0.3)  # both have asked who is gone
        assert sorted(said(backend)) == [
            ("channel_occupied", "news"),
            ("channel_occupied", ROOM),
            ("member_added", ROOM, "ali"),
        ]
        grace(0.1)
        await until(lambda: len(said(backend)) == 6)
        await asyncio.sleep(redis_broker.BEAT_EVERY + 0.3)
        assert sorted(said(backend)[3:]) == [
            ("channel_vacated", "news"),
            ("channel_vacated", ROOM),
            ("member_removed", ROOM, "ali"),
        ]
        again = cluster.guest(0)
        again.join("news")
        await until(lambda: len(said(backend)) == 7)
        assert said(backend)[6] == ("channel_occupied", "news"), "this time it was gone"


async def test_who_goes_is_told_after_the_grace_and_not_at_the_next_beat_only(
    grace: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_broker.Part, "_beat", lambda part: part._stopping.wait())
    grace(0.2)
    backend = Backend()
    async with telling(backend) as cluster:
        ali = cluster.guest(0)
        ali.join("news")
        await until(lambda: len(said(backend)) == 1)
        ali.hang_up()
        await until(lambda: len(said(backend)) == 2)
        assert said(backend)[1] == ("channel_vacated", "news")


async def test_who_is_gone_is_told_once_though_the_node_that_knew_dies(
    grace: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_broker, "BEAT_EVERY", 0.1)
    monkeypatch.setattr(redis_broker, "DEAD_AFTER", 2.0)
    backend = Backend()
    async with telling(backend, nodes=3) as cluster:
        ali, john = cluster.guest(0), cluster.guest(0)
        for guest, id_ in ((ali, "ali"), (john, "john")):
            guest.join(ROOM, id_)
        await until(lambda: len(said(backend)) == 3)
        (part,) = cluster.nodes[0]._parts.values()
        ali.hang_up()
        await until(lambda: part._sweeper is not None)  # it knows of ali, and would tell
        assert part._task is not None
        assert part._sweeper is not None
        part._task.cancel()
        part._sweeper.cancel()
        grace(0.1)
        await until(lambda: len(said(backend)) == 6)
        await quiet()
        assert sorted(said(backend)[3:]) == [
            ("channel_vacated", ROOM),
            ("member_removed", ROOM, "ali"),
            ("member_removed", ROOM, "john"),
        ]


async def test_the_last_node_that_stops_tells_who_goes_with_it(
    grace: Callable[[float], None],
) -> None:
    backend = Backend()
    async with telling(backend) as cluster:
        ali, john = cluster.guest(0), cluster.guest(1)
        ali.join(ROOM, "ali")
        john.join(ROOM, "john")
        await until(lambda: len(said(backend)) == 3)
        await cluster.nodes[0].stop()
        await quiet()
        assert len(said(backend)) == 3, "they may come back on the other"
        again = cluster.guest(1)
        again.join(ROOM, "ali")
        await until(lambda: ROOM in again.channels)
        await cluster.nodes[1].stop()
        await cluster.hubs[1].webhooks.close()
        assert sorted(said(backend)[3:]) == [
            ("channel_vacated", ROOM),
            ("member_removed", ROOM, "ali"),
            ("member_removed", ROOM, "john"),
        ]


@pytest.mark.parametrize("is_kept", [True, False])
async def test_what_happens_while_redis_is_away_is_told_once_when_it_is_back(
    grace: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    monkeypatch.setattr(redis_broker, "SETTLE", 4.0)
    monkeypatch.setattr(redis_broker, "RETRY", (0.05, 0.1))  # they come back within that time
    monkeypatch.setattr(redis_broker, "DEAD_AFTER", 600.0)
    backend = Backend()
    async with own_redis("appendonly yes") as server, telling(backend, url=server.url) as cluster:
        ali, john = cluster.guest(0), cluster.guest(1)
        for guest, id_ in ((ali, "ali"), (john, "john")):
            guest.join(ROOM, id_)
        ali.join("news")
        john.join("sports")
        mia, zoe = cluster.guest(0), cluster.guest(0)
        mia.join(ROOM, "mia")
        zoe.join(ROOM, "zoe")
        await until(lambda: len(said(backend)) == 7)
        mia.hang_up()  # may come back yet
        await until(lambda: "mia" not in john.members[ROOM])
        await server.stop()
        if not is_kept:
            server.lose()
        await until(lambda: not any(node.is_live for node in cluster.nodes))
        eve = cluster.guest(1)
        eve.join(ROOM, "eve")
        eve.join("weather")
        ali.leave("news")
        ali.leave(ROOM)
        zoe.hang_up()
        zoe = cluster.guest(1)
        zoe.join(ROOM, "zoe")
        short = cluster.guest(0)
        short.join(ROOM, "short")
        short.hang_up()
        await quiet()
        assert len(said(backend)) == 7, "nobody knows what is so in all"
        await server.start()
        await cluster.live()
        await cluster.told()  # else zoe goes on one node, for good, before she comes on the other
        grace(0.1)
        await until(lambda: len(said(backend)) == 12)
        await asyncio.sleep(redis_broker.BEAT_EVERY + 0.3)
        assert sorted(said(backend)[7:]) == [
            ("channel_occupied", "weather"),
            ("channel_vacated", "news"),
            ("member_added", ROOM, "eve"),
            ("member_removed", ROOM, "ali"),
            ("member_removed", ROOM, "mia"),
        ]


# Nodes that end


async def test_a_node_that_stops_takes_its_members_along_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_broker, "DEAD_AFTER", 600.0)
    async with open_cluster(2) as cluster:
        ali, john = cluster.guest(0), cluster.guest(1)
        for guest, id_ in ((ali, "ali"), (john, "john")):
            guest.join(ROOM, id_)
            guest.sign_in(id_, "john")
        await until(lambda: len(ali.members.get(ROOM, ())) == 2)
        await cluster.nodes[1].stop()
        await until(lambda: set(ali.members[ROOM]) == {"ali"})
        assert await cluster.hubs[0].counts() == {ROOM: 1}
        assert await cluster.hubs[0].connections() == 1


async def test_what_a_node_says_last_is_heard() -> None:
    async with open_cluster(2) as cluster:
        john = cluster.guest(1)
        john.join("news")
        await quiet()
        for n in range(1_200):
            cluster.hubs[0].trigger("news", "e", str(n))
        await cluster.nodes[0].stop()
        await until(lambda: len(john.heard()) == 1_200)
        assert john.heard() == list(range(1_200))


async def test_a_node_that_is_silent_is_buried_and_comes_back_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_broker, "BEAT_EVERY", 0.05)
    monkeypatch.setattr(redis_broker, "DEAD_AFTER", 2.0)
    async with open_cluster(2) as cluster:
        ali, john = cluster.guest(0), cluster.guest(1)
        for guest, id_ in ((ali, "ali"), (john, "john")):
            guest.join(ROOM, id_)
        await until(lambda: len(ali.members.get(ROOM, ())) == 2)
        (part,) = cluster.nodes[1]._parts.values()
        task = part._task
        assert task is not None
        task.cancel()  # as a machine that hangs
        await until(lambda: set(ali.members[ROOM]) == {"ali"})
        await until(lambda: task.done())
        part.run()
        await until(lambda: set(ali.members[ROOM]) == {"ali", "john"})
        await until(lambda: set(john.members[ROOM]) == {"ali", "john"})


# Redis that ends


async def test_without_redis_a_node_does_not_start() -> None:
    async with own_redis() as server:
        url = server.url
    node = RedisBroker(url.replace("redis://", "redis://user:hidden@"), [Hub(APP)])
    with pytest.raises(
        SettingsError, match=r"The Redis at 127\.0\.0\.1:\d+ cannot be used"
    ) as refused:
        await node.start()
    assert "hidden" not in str(refused.value)


async def test_while_redis_is_away_each_node_goes_on_and_then_they_agree_again() -> None:
    async with own_redis() as server, open_cluster(2, server.url) as cluster:
        ali, john, eve = cluster.guest(0), cluster.guest(1), cluster.guest(1)
        for guest, id_ in ((ali, "ali"), (john, "john"), (eve, "eve")):
            guest.join(ROOM, id_)
            guest.join("news")
        await until(lambda: len(ali.members.get(ROOM, ())) == 3)
        await server.stop()
        await until(lambda: not any(node.is_live for node in cluster.nodes))
        mia = cluster.guest(0)
        mia.join(ROOM, "mia")
        assert set(mia.members[ROOM]) == {"ali", "john", "eve", "mia"}, "as far as is known here"
        assert set(ali.members[ROOM]) == {"ali", "john", "eve", "mia"}
        eve.hang_up()
        cluster.hubs[0].trigger("news", "e", "1")
        await until(lambda: ali.heard() == [1])  # who is here gets it
        with pytest.raises(ClusterAway, match="does not answer"):
            await cluster.hubs[0].counts()
        await server.start()
        await cluster.live()
        await until(lambda: john.heard() == [1])
        everyone = {"ali", "john", "mia"}
        await until(lambda: set(john.members[ROOM]) == set(ali.members[ROOM]) == everyone)
        await cluster.told()
        await quiet()
        assert ali.heard() == [1]
        assert await cluster.hubs[1].counts() == {ROOM: 3, "news": 2}


async def test_a_redis_that_lost_its_data_is_told_again() -> None:
    async with own_redis() as server, open_cluster(2, server.url) as cluster:
        ali, john = cluster.guest(0), cluster.guest(1)
        for guest, id_ in ((ali, "ali"), (john, "john")):
            guest.join(ROOM, id_)
        await until(lambda: len(ali.members.get(ROOM, ())) == 2)
        async with redis.asyncio.Redis.from_url(server.url) as client:
            await client.flushall()
        late = cluster.guest(1)
        await until(lambda: all(node.lost for node in cluster.nodes))
        await cluster.live()
        late.join(ROOM, "late")
        everyone = {"ali", "john", "late"}
        await until(lambda: set(ali.members[ROOM]) == set(late.members.get(ROOM, ())) == everyone)
        # Nobody was seen going meanwhile: Guest would have objected to their coming twice.


async def test_a_redis_that_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_broker, "BEAT_EVERY", 0.2)
    async with own_redis() as server, open_cluster(1, server.url) as cluster:
        await server.pause()
        await until(lambda: not cluster.nodes[0].is_live)
        ali = cluster.guest()
        ali.join(ROOM, "ali")
        assert ali.channels
        await server.go_on()
        await cluster.live()
        assert await cluster.hubs[0].members(ROOM) == ["ali"]


# Nodes that lag, and Redises that are away for long


async def test_a_node_that_lags_behind_what_is_kept_takes_everything_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_broker, "SETTLE", 600.0)  # else it asks by itself meanwhile
    monkeypatch.setattr(redis_broker, "KEPT", 500)
    monkeypatch.setattr(redis_broker, "MAX_ENTRY", 1)  # each event has an entry of its own
    async with open_cluster(2, subscription_counts=True) as cluster:
        ali, john, eve = cluster.guest(0), cluster.guest(1), cluster.guest(0)
        for guest, id_ in ((ali, "ali"), (john, "john"), (eve, "eve")):
            guest.join(ROOM, id_)
            guest.join("news")
            guest.join("cache-a")
        cluster.hubs[0].trigger("cache-a", "e", '"old"')
        await until(lambda: len(john.members.get(ROOM, ())) == 3 and john.heard())
        goes_on = await lag(cluster.nodes[1], monkeypatch)  # it goes on beating
        eve.hang_up()
        mia = cluster.guest(0)
        mia.join(ROOM, "mia")
        await until(lambda: set(ali.members[ROOM]) == {"ali", "john", "mia"})
        cluster.hubs[0].trigger("cache-a", "e", '"new"')
        for n in range(2_000):
            cluster.hubs[0].trigger("news", "e", str(n))
            if n % 100 == 0:
                await asyncio.sleep(0.01)
        await cluster.told()  # nothing more is cut off while it catches up
        await quiet()
        assert set(john.members[ROOM]) == {"ali", "john", "eve"}
        goes_on.set()
        await until(lambda: set(john.members[ROOM]) == {"ali", "john", "mia"})
        await until(lambda: 1_999 in john.heard())
        heard = john.heard()[1:]
        assert heard == sorted(set(heard)), "what it heard, it heard once and in order"
        assert 0 not in heard
        assert cluster.nodes[1].gaps == 1
        assert "has missed what other nodes told" in caplog.text
        late = cluster.guest(1)
        late.join("cache-a")
        await until(lambda: late.heard())
        assert late.heard() == ["new"]

        def counted() -> Any:
            name = "pusher_internal:subscription_count"
            return [data for event, of, data in john.events if (event, of) == (name, "news")]

        await until(lambda: counted()[-1:] == [{"subscription_count": 2}])


async def test_a_node_that_is_only_busy_misses_nothing() -> None:
    async with open_cluster(2) as cluster:
        john = cluster.guest(1)
        john.join("news")
        for n in range(4_000):
            cluster.hubs[0].trigger("news", "e", str(n))
        await until(lambda: len(john.heard()) == 4_000)
        assert john.heard() == list(range(4_000))
        assert [node.gaps for node in cluster.nodes] == [0, 0]


async def test_while_redis_is_away_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_broker, "MAX_WAITING", 100_000)
    async with own_redis() as server, open_cluster(2, server.url) as cluster:
        john = cluster.guest(1)
        john.join("news")
        await quiet()
        await server.stop()
        await until(lambda: not any(node.is_live for node in cluster.nodes))
        node = cluster.nodes[0]
        (part,) = node._parts.values()
        for n in range(1_000):
            cluster.hubs[0].trigger("news", "e", str(n))
            passing = cluster.guest(0)
            passing.join(f"presence-{n}", "ali")
            passing.sign_in(f"user {n}")
            passing.hang_up()
        assert node.waiting < 200
        assert node.dropped == 1_000 - node.waiting
        assert not part._members
        assert not part._counts
        assert not part._users
        waiting = node.waiting
        await server.start()
        await until(lambda: len(john.heard()) == waiting)
        assert john.heard() == list(range(1_000 - waiting, 1_000)), "the newest, in order"
        assert node.lost == 1
        assert 0 < node.silence < 60


async def test_many_who_ask_at_once_keep_a_node_in_the_cluster() -> None:
    async with open_cluster(2) as cluster:
        cluster.guest(0).join("news")
        await cluster.told()
        answers = await asyncio.gather(*(cluster.hubs[1].counts() for _ in range(1_000)))
        assert answers == [{"news": 1}] * 1_000
        assert [node.lost for node in cluster.nodes] == [0, 0]


async def test_who_asks_when_redis_is_lost_is_told_so() -> None:
    async with own_redis() as server, open_cluster(1, server.url) as cluster:
        asking = asyncio.create_task(cluster.hubs[0].counts())
        await server.stop()
        with pytest.raises(ClusterAway, match=r"The Redis at .* does not answer"):
            await asking


async def test_an_application_may_be_added_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_broker, "DEAD_AFTER", 600.0)
    async with open_cluster(2) as cluster:
        app = App(id="2", key="k2", secret="s")
        hubs = [Hub(app), Hub(app)]
        for node, hub in zip(cluster.nodes, hubs, strict=True):
            node.add(hub)
        ali, john = Guest(hubs[0], "1.1"), Guest(hubs[1], "2.1")
        ali.join(ROOM, "ali")
        john.join(ROOM, "john")
        await until(lambda: len(ali.members.get(ROOM, ())) == 2)
        await cluster.live()
        await cluster.nodes[1].remove(hubs[1])
        await until(lambda: set(ali.members[ROOM]) == {"ali"})
        assert all(node.is_live for node in cluster.nodes)


async def test_when_all_were_silent_nobody_is_buried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_broker, "DEAD_AFTER", 60.0)

    def held_up(node: RedisBroker) -> asyncio.Event:
        (part,) = node._parts.values()
        join, goes_on = part._join, asyncio.Event()

        async def late() -> None:
            await goes_on.wait()
            await join()

        monkeypatch.setattr(part, "_join", late)
        return goes_on

    async with own_redis("appendonly yes") as server, open_cluster(2, server.url) as cluster:
        ali, john = cluster.guest(0), cluster.guest(1)
        for guest, id_ in ((ali, "ali"), (john, "john")):
            guest.join(ROOM, id_)
        await until(lambda: len(ali.members.get(ROOM, ())) == 2)
        first, second = map(held_up, cluster.nodes)
        await server.stop()
        await until(lambda: not any(node.is_live for node in cluster.nodes))
        await server.start()
        silent = f"{{{cluster.prefix}:1}}:nodes"
        for node in await server.ask("ZRANGE", silent, "0", "-1"):
            await server.ask("ZINCRBY", silent, "-3600000", node.decode())  # as if for an hour
        first.set()
        await until(lambda: cluster.nodes[0].is_live)
        assert len(await cluster.hubs[0].members(ROOM)) == 2, "the other has yet to come"
        second.set()
        await cluster.live()
        await cluster.told()
        await quiet()
        # Guest would have objected to john's coming twice; he was not seen going either.
        assert set(ali.members[ROOM]) == {"ali", "john"}
        assert len(await cluster.hubs[0].members(ROOM)) == 2


# All of it at random


class Crowd:
    """Guests that come and go, and what they should see."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._rng = random.Random(seed)
        self._guests: list[Guest] = []
        self.rooms = [f"presence-{n}" for n in range(4)]
        self.users = [f"user {n}" for n in range(8)]

    def step(self) -> None:
        rng = self._rng
        if len(self._guests) < 4 or (rng.random() < 0.4 and len(self._guests) < 40):
            self._guests.append(self._cluster.guest(rng.randrange(len(self._cluster.hubs))))
        guest = rng.choice(self._guests)
        room = rng.choice(self.rooms)
        action = rng.random()
        if action < 0.6:
            guest.join(room, rng.choice(self.users))
        elif action < 0.85:
            guest.leave(room)
        else:
            guest.hang_up()
            self._guests.remove(guest)

    def wanted(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for hub in self._cluster.hubs:
            for room in self.rooms:
                channel = hub.channels.get(room)
                if channel is not None:
                    found.setdefault(room, set()).update(channel.here)
        return found

    def counts(self) -> dict[str, int]:
        found = {room: sum(h.count_here(room) for h in self._cluster.hubs) for room in self.rooms}
        return {room: n for room, n in found.items() if n}

    def agrees(self) -> bool:
        wanted = self.wanted()
        return all(not hub._waiting for hub in self._cluster.hubs) and all(
            set(members) == wanted[room]
            for guest in self._guests
            for room, members in guest.members.items()
        )


@pytest.mark.parametrize("seed", range(3))
async def test_after_a_thousand_steps_all_nodes_agree(seed: int) -> None:
    async with open_cluster(3) as cluster:
        crowd = Crowd(cluster, seed)
        for n in range(1_000):
            crowd.step()
            if n % 7 == 0:
                await asyncio.sleep(0.001)
            if n % 250 == 249:
                await until(crowd.agrees)
        await cluster.told()
        await until(crowd.agrees)
        await cluster.told()
        wanted: dict[str, Any] = crowd.wanted()
        for room in crowd.rooms:
            assert set(await cluster.hubs[0].members(room)) == wanted.get(room, set())
        assert await cluster.hubs[0].counts() == crowd.counts()


async def test_through_restarts_of_redis_they_agree_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_broker, "SETTLE", 1.0)
    async with own_redis() as server, open_cluster(3, server.url) as cluster:
        crowd = Crowd(cluster, 7)
        for n in range(300):
            crowd.step()
            await asyncio.sleep(0.001)
            if n % 100 == 50:
                await server.stop()
            if n % 100 == 80:
                await server.start()
        await cluster.live()
        for _ in range(100):
            crowd.step()
        await until(crowd.agrees)
        await asyncio.sleep(redis_broker.SETTLE + 0.5)  # who was kept until all were back goes now
        await cluster.live()
        await until(crowd.agrees)
        await cluster.told()
        wanted = crowd.wanted()
        for room in crowd.rooms:
            assert set(await cluster.hubs[0].members(room)) == wanted.get(room, set())
        assert await cluster.hubs[0].counts() == crowd.counts()

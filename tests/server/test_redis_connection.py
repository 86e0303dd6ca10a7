"""Every kind of Redis, each really started: by itself, with users, TLS, sentinels, shards."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.crc import key_slot
from redis.exceptions import RedisError

from antiphon.errors import SettingsError
from antiphon.server.hub import ClusterAway, Hub
from antiphon.server.redis_broker import Part, RedisBroker
from antiphon.server.redis_connection import Address
from antiphon.settings import App

from .cluster import APP, Cluster, Guest, OwnRedis, open_cluster, own_redis, until

ROOM = "presence-room"
DOCS = Path(__file__).parents[2] / "docs" / "deploy.md"

# Addresses


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://h", "The Redis at h:6379"),
        ("redis://user:hidden@h:1/2", "The Redis at h:1"),
        ("redis://[::1]:7", "The Redis at ::1:7"),
        ("rediss://h?ssl_ca_certs=/x.pem&ssl_check_hostname=no", "The Redis at h:6379"),
        ("unix:///run/redis.sock", "The Redis at /run/redis.sock"),
        ("redis+sentinel://:hidden@a,b:2/m/3", "The Redis 'm' of the sentinels at a:26379, b:2"),
        ("redis+cluster://a:1,b", "The Redis Cluster at a:1, b:6379"),
    ],
)
def test_an_address_is_named_without_its_password(url: str, says: str) -> None:
    assert str(Address(url)) == says


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "must be given as one of redis://HOST:PORT/DB, "),
        ("127.0.0.1:hidden", "must be given as one of "),
        ("http://:hidden@h", "must be given as one of "),
        ("redis://:hidden@", "a host or its port is missing"),
        ("redis://:hidden@h:port", "a host or its port is missing"),
        ("redis://:hidden@h:99999", "a host or its port is missing"),
        ("redis://:hidden@a,b", "it can be only one server"),
        ("redis://:hidden@a/db", "DB is a number"),
        ("redis://:hidden@a?ssl_ca_certs=x", "the option 'ssl_ca_certs' is not known here"),
        ("rediss://:hidden@a?ssl_ca=x", "the option 'ssl_ca' is not known here"),
        ("redis+sentinel://:hidden@a:1", "the name of the master is missing"),
        ("redis+sentinel://:hidden@a:1/m/db", "DB is a number"),
        ("redis+cluster://:hidden@a:1/0", "a cluster has no databases"),
        ("redis+cluster://a?sentinel_password=hidden", "the option 'sentinel_password' is not"),
    ],
)
def test_an_address_that_is_none_is_refused_with_a_reason(url: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=r"^The Redis ") as refused:
        RedisBroker(url, [Hub(APP)])
    assert complaint in str(refused.value)
    assert "hidden" not in str(refused.value)


# What works over each


async def meets(cluster: Cluster) -> tuple[Guest, Guest]:
    """Two connections on two nodes hear of each other, and of an event."""
    ali, john = cluster.guest(0), cluster.guest(1)
    for guest, id_ in ((ali, "ali"), (john, "john")):
        guest.join(ROOM, id_)
        guest.join("news")
    await until(lambda: all(set(g.members.get(ROOM, ())) == {"ali", "john"} for g in (ali, john)))
    cluster.hubs[0].trigger("news", "e", "1")
    await until(lambda: (ali.heard(), john.heard()) == ([1], [1]))
    await cluster.told()
    assert await cluster.hubs[1].counts() == {ROOM: 2, "news": 2}
    return ali, john


async def refusal(url: str) -> str:
    """Why a node does not start."""
    node = RedisBroker(url, [Hub(APP)])
    with pytest.raises(SettingsError) as refused:
        await node.start()
    assert "hidden" not in str(refused.value)
    return str(refused.value)


def documented(first: str) -> str:
    """The line of the deployment guide that begins so."""
    return next(line for line in DOCS.read_text().splitlines() if line.startswith(first))


async def test_a_user_may_do_what_the_guide_says_and_no_more_is_needed() -> None:
    rule = documented("user antiphon ").replace("PASSWORD", "hidden")
    rule = rule.replace("{antiphon:", "{antiphon-test-")
    async with own_redis(rule, "user default off", user="antiphon:hidden@") as server:
        async with open_cluster(2, server.url) as cluster:
            ali, john = await meets(cluster)
            ali.sign_in("ali", "john")
            ali.join("cache-a")
            await until(lambda: ("pusher:cache_miss", "cache-a", None) in ali.events)
            cluster.hubs[0].trigger("cache-a", "e", "2")
            await until(lambda: ali.heard() == [1, 2])
            await cluster.told()
            assert await cluster.hubs[1].kept("cache-a")
            assert await cluster.hubs[1].members(ROOM)
            john.hang_up()
            await until(lambda: set(ali.members[ROOM]) == {"ali"})
            await eventually(lambda: has_connections(cluster.hubs[1], 1))  # at the next beat
            assert [node.lost for node in cluster.nodes] == [0, 0]
        said = await refusal(server.url.replace("hidden", "hidden-wrong"))
        assert re.match(r"The Redis at 127\.0\.0\.1:\d+ cannot be used: .*password", said)
        assert "it asks for a password" in await refusal(server.url.replace("antiphon:hidden@", ""))


async def test_a_user_that_may_not_write_is_refused_at_the_start() -> None:
    rule = "user antiphon on >hidden ~* +@read +@connection +script|load"
    async with own_redis(rule, user="antiphon:hidden@") as server:
        assert "permission" in await refusal(server.url)


async def test_over_tls_the_certificate_is_looked_at() -> None:
    async with own_redis("requirepass hidden", scheme="rediss", user=":hidden@") as server:
        async with open_cluster(2, server.url) as cluster:
            await meets(cluster)
        bare = server.url.partition("?")[0]
        assert "CERTIFICATE_VERIFY_FAILED" in await refusal(bare)
        assert "cannot be used" in await refusal(f"{bare}?ssl_ca_certs=/nowhere/hid.pem")
        assert "cannot be used" in await refusal(bare.replace("rediss", "redis"))


# Mistakes


async def test_each_kind_of_redis_says_that_it_is_another() -> None:
    async with (
        own_redis() as plain,
        own_redis("cluster-enabled yes") as shard,
        own_redis(sentinel=True) as sentinel,
        own_redis(f"replicaof 127.0.0.1 {plain.port}") as replica,
    ):
        said = {
            f"redis://{shard.host}": "part of a Redis Cluster: write redis\\+cluster://",
            f"redis://{sentinel.host}": "a sentinel: write redis\\+sentinel://HOST:PORT/NAME",
            f"redis://{replica.host}": "a replica, which cannot be written to",
            f"redis+cluster://{plain.host}": "no Redis Cluster: write redis://",
            f"redis+cluster://{shard.host}": "no server of it has this application's slot",
            f"redis+sentinel://{plain.host}/m": "is no sentinel: write redis://",
            f"redis+sentinel://{sentinel.host}/m": "they know no master of this name",
        }
        for url, reason in said.items():
            assert re.search(reason, await refusal(url)), url


async def test_a_database_may_be_chosen() -> None:
    async with own_redis() as server, open_cluster(2, server.url + "/3") as cluster:
        await meets(cluster)
        assert await server.ask("DBSIZE") == 0


# Sentinels


class Watched:
    """A master, its replica, and three sentinels."""

    def __init__(self) -> None:
        common = ("requirepass hidden", "masterauth hidden")
        self.master = OwnRedis(*common, user=":hidden@")
        of_master = f"replicaof 127.0.0.1 {self.master.port}"
        self.replica = OwnRedis(*common, of_master, user=":hidden@")
        lines = (
            f"sentinel monitor mine 127.0.0.1 {self.master.port} 2",
            "sentinel auth-pass mine hidden",
            "sentinel down-after-milliseconds mine 60000",
            "sentinel failover-timeout mine 3000",
            "requirepass hidden-too",
            "sentinel sentinel-pass hidden-too",
        )
        self.sentinels = [OwnRedis(*lines, user=":hidden-too@", sentinel=True) for _ in range(3)]
        hosts = ",".join(sentinel.host for sentinel in self.sentinels)
        self.url = f"redis+sentinel://:hidden@{hosts}/mine/0?sentinel_password=hidden-too"

    async def is_ready(self) -> bool:
        states = [await sentinel.ask("SENTINEL", "MASTER", "mine") for sentinel in self.sentinels]
        pairs = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in states]
        return all(
            (each[b"num-slaves"], each[b"num-other-sentinels"]) == (b"1", b"2") for each in pairs
        ) and b"master_link_status:up" in await self.replica.ask("INFO", "replication")

    async def fail_over(self) -> None:
        """Let two sentinels see that the master is gone; before, it may just have been slow."""
        for sentinel in self.sentinels[1:]:
            await sentinel.ask("SENTINEL", "SET", "mine", "down-after-milliseconds", "2000")


async def eventually(condition: Callable[[], object], timeout: float = 90.0) -> None:
    """Wait until something that has to be asked holds."""
    async with asyncio.timeout(timeout):
        while True:
            with contextlib.suppress(RedisError, ClusterAway):
                if await condition():  # type: ignore[misc]
                    return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    servers = Watched()
    each = [servers.master, servers.replica, *servers.sentinels]
    try:
        for server in each:
            await server.start()
        await eventually(servers.is_ready)
        yield servers
    finally:
        for server in each:
            await server.close()


async def test_a_failover_of_sentinels_is_survived() -> None:
    async with watched() as servers:
        wrong = servers.url.replace("hidden-too", "hidden-wrong")
        assert "cannot be used" in await refusal(wrong)
        assert "know no master of this name" in await refusal(servers.url.replace("mine", "yours"))
        await servers.sentinels[0].stop()  # the first that is asked
        async with open_cluster(2, servers.url) as cluster:
            ali, john = await meets(cluster)
            eve = cluster.guest(1)
            eve.join(ROOM, "eve")
            await until(lambda: len(ali.members[ROOM]) == 3)
            await servers.master.stop()
            await until(lambda: not any(node.is_live for node in cluster.nodes))
            mia = cluster.guest(0)
            mia.join(ROOM, "mia")
            assert set(ali.members[ROOM]) == {"ali", "john", "eve", "mia"}, "this node goes on"
            eve.hang_up()
            cluster.hubs[0].trigger("news", "e", "2")
            await until(lambda: ali.heard() == [1, 2])
            assert john.heard() == [1]
            await servers.fail_over()
            await until(lambda: all(node.is_live for node in cluster.nodes), timeout=120)
            await until(lambda: john.heard() == [1, 2])
            everyone = {"ali", "john", "mia"}
            await until(lambda: set(john.members[ROOM]) == set(ali.members[ROOM]) == everyone)
            await eventually(lambda: has(cluster.hubs[1], {ROOM: 3, "news": 2}))
            assert (ali.heard(), john.heard()) == ([1, 2], [1, 2])


async def has(hub: Hub, counts: dict[str, int]) -> bool:
    return await hub.counts() == counts


async def has_connections(hub: Hub, count: int) -> bool:
    return await hub.connections() == count


async def test_what_a_replica_had_not_heard_yet_is_told_again() -> None:
    async with watched() as servers, open_cluster(2, servers.url) as cluster:
        ali, john = await meets(cluster)
        await servers.replica.ask("CONFIG", "SET", "masterauth", "no more")
        await servers.master.ask("CLIENT", "KILL", "TYPE", "replica")
        late = cluster.guest(1)
        late.join(ROOM, "late")
        await until(lambda: "late" in ali.members[ROOM])
        john.leave("news")
        await eventually(lambda: has(cluster.hubs[0], {ROOM: 3, "news": 1}))
        holders = f"{{{cluster.prefix}:1}}:holders:{ROOM}"
        assert set(await servers.replica.ask("HKEYS", holders)) == {b"ali", b"john"}
        await servers.master.stop()
        await until(lambda: not any(node.is_live for node in cluster.nodes))
        await servers.fail_over()
        await until(lambda: all(node.is_live for node in cluster.nodes), timeout=120)
        await eventually(lambda: has(cluster.hubs[0], {ROOM: 3, "news": 1}))
        assert set(await cluster.hubs[1].members(ROOM)) == {"ali", "john", "late"}
        # Nobody was seen going meanwhile: Guest would have objected to their coming twice.
        everyone = {"ali", "john", "late"}
        await until(lambda: set(ali.members[ROOM]) == set(john.members[ROOM]) == everyone)


# A Redis Cluster


class Shards:
    """Three masters with a replica each."""

    def __init__(self) -> None:
        lines = ("cluster-enabled yes", "cluster-node-timeout 5000", "requirepass hidden")
        more = ("masterauth hidden", "cluster-require-full-coverage no")
        self.servers = [OwnRedis(*lines, *more, user=":hidden@") for _ in range(6)]

    @property
    def url(self) -> str:
        return "redis+cluster://:hidden@" + ",".join(each.host for each in self.servers[4:])

    async def begin(self) -> None:
        for server in self.servers:
            await server.start()
        hosts = [server.host for server in self.servers]
        program = await asyncio.create_subprocess_exec(
            *("redis-cli", "-a", "hidden", "--no-auth-warning", "--cluster", "create", *hosts),
            *("--cluster-replicas", "1", "--cluster-yes"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(program.communicate(), 60)
        assert program.returncode == 0, said.decode()
        await eventually(self._is_ready)

    async def _is_ready(self) -> bool:
        for server in self.servers:
            said = await server.ask("CLUSTER", "INFO")
            role = await server.ask("INFO", "replication")
            is_linked = b"role:master" in role or b"master_link_status:up" in role
            if b"cluster_state:ok" not in said or not is_linked:
                return False
        return True

    async def master_of(self, key: str) -> OwnRedis:
        slot = key_slot(key.encode())
        for first, last, master, *_ in await self.servers[5].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(each for each in self.servers if each.port == master[1])
        raise AssertionError(slot)


@contextlib.asynccontextmanager
async def shards() -> AsyncIterator[Shards]:
    servers = Shards()
    try:
        await servers.begin()
        yield servers
    finally:
        for server in servers.servers:
            await server.close()


async def test_in_a_redis_cluster_a_dead_master_is_survived_and_others_notice_nothing() -> None:
    async with shards() as servers, contextlib.AsyncExitStack() as stack:
        assert "password" in await refusal(servers.url.replace("hidden", "hidden-wrong"))
        apps = [App(id=str(n), key=f"k{n}", secret="s") for n in range(6)]
        first, second = ([Hub(app) for app in apps] for _ in range(2))
        for hubs in (first, second):
            broker = RedisBroker(servers.url, hubs)
            await broker.start()
            stack.push_async_callback(broker.stop)
        masters = [await servers.master_of(f"{{antiphon:{app.id}}}") for app in apps]
        hit = [n for n in range(6) if masters[n] is masters[0]]
        spared = [n for n in range(6) if n not in hit]
        assert spared, "applications are on several servers"

        def live(numbers: list[int]) -> list[bool]:
            brokers = [hub.broker for n in numbers for hub in (first[n], second[n])]
            return [broker.is_live for broker in brokers if broker is not None]

        alis = [Guest(hub, f"1.{n}") for n, hub in enumerate(first)]
        johns = [Guest(hub, f"2.{n}") for n, hub in enumerate(second)]
        for guests, id_ in ((alis, "ali"), (johns, "john")):
            for guest in guests:
                guest.join(ROOM, id_)
                guest.join("news")
        await until(lambda: all(len(g.members.get(ROOM, ())) == 2 for g in alis + johns))

        def tell(what: str) -> None:
            for n, hub in enumerate(first):
                hub.trigger("news", "e", f'"{what} {n}"')

        tell("before")
        heard = [[f"before {n}"] for n in range(6)]
        await until(lambda: [guest.heard() for guest in johns] == heard)
        await masters[0].stop()
        await until(lambda: not any(live(hit)))
        tell("meanwhile")
        late = Guest(first[hit[0]], "1.99")
        late.join(ROOM, "late")
        assert set(late.members[ROOM]) == {"ali", "john", "late"}
        await until(lambda: all(live(hit)), timeout=120)
        heard = [[f"before {n}", f"meanwhile {n}"] for n in range(6)]
        await until(lambda: [guest.heard() for guest in johns] == heard)
        assert [guest.heard() for guest in alis] == heard
        await until(lambda: set(johns[hit[0]].members[ROOM]) == {"ali", "john", "late"})
        await first[hit[0]].counts()  # it has told what it knows
        assert await second[hit[0]].counts() == {ROOM: 3, "news": 2}
        lost = [part.lost for hub in (first[n] for n in spared) for part in parts_of(hub)]
        assert lost == [0] * len(spared), "the other applications have noticed nothing"


def parts_of(hub: Hub) -> list[Part]:
    return [hub.broker] if isinstance(hub.broker, Part) else []

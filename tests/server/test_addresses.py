"""Where a connection comes from, and how many may come from one place."""

from __future__ import annotations

import pytest

from antiphon.errors import SettingsError
from antiphon.server import Server
from antiphon.server.addresses import Addresses, Proxies
from antiphon.settings import App
from tests.conftest import Connect, Serve

from .wire import Wire, until

APP = App(id="1", key="k", secret="s")


# Who asks


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.5", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.5", "1.2.3.4, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.5", "198.51.100.1, 10.9.9.9", "198.51.100.1"),
        ("10.0.0.5", "", "10.0.0.5"),
        ("10.0.0.5", "nobody", "10.0.0.5"),
        ("10.0.0.5", "198.51.100.1, <script>", "10.0.0.5"),
        ("10.0.0.5", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.5", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.5", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.5", '"198.51.100.1"', "198.51.100.1"),
        ("::ffff:10.0.0.5", "198.51.100.1", "198.51.100.1"),
        ("fd00::1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.5", "10.0.0.6, 10.0.0.7", "10.0.0.6"),
        ("", "198.51.100.1", "198.51.100.1"),
        ("", "", ""),
        ("", "1.2.3.4, 10.0.0.5", "1.2.3.4"),
    ],
)
def test_a_proxy_is_believed_only_if_it_is_trusted(peer: str, forwarded: str, client: str) -> None:
    assert Proxies(["10.0.0.0/8", "fd00::/8"]).client(peer, forwarded) == client


def test_nobody_is_trusted_unless_said() -> None:
    assert Proxies([]).client("127.0.0.1", "198.51.100.1") == "127.0.0.1"


@pytest.mark.parametrize("text", ["proxy.local", "10.0.0.0/33", "", "10.0.0.1:80"])
def test_a_trusted_proxy_must_be_an_address(text: str) -> None:
    with pytest.raises(SettingsError, match="is no address of a proxy"):
        Server(APP, trusted_proxies=[text])


# How many


def test_an_address_has_so_many_connections() -> None:
    addresses = Addresses(2, 0)
    for _ in range(2):
        assert addresses.refusal("192.0.2.1") is None
        addresses.opened("192.0.2.1")
    assert addresses.refusal("192.0.2.1") == "More than 2 connections from your address"
    assert addresses.refusal("192.0.2.2") is None, "another one is not concerned"
    addresses.closed("192.0.2.1")
    assert addresses.refusal("192.0.2.1") is None


def test_a_customer_s_ipv6_addresses_are_one() -> None:
    addresses = Addresses(1, 0)
    addresses.opened("2001:db8:0:1::1")
    assert addresses.refusal("2001:db8:0:1:ffff::2") is not None
    assert addresses.refusal("2001:db8:0:2::1") is None
    addresses.opened("::ffff:192.0.2.1")
    assert addresses.refusal("192.0.2.1") is not None
    addresses.opened("fe80::1%eth0")
    assert addresses.refusal("fe80::2%eth0") is not None


def test_so_many_connections_come_in_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("antiphon.server.addresses.time.monotonic", lambda: now)
    addresses = Addresses(0, 3)
    assert [addresses.refusal("192.0.2.1") for _ in range(3)] == [None] * 3
    assert addresses.refusal("192.0.2.1") == ("More than 3 connections a minute from your address")
    assert addresses.refusal("192.0.2.2") is None
    now += 60.0
    assert addresses.refusal("192.0.2.1") is None


def test_who_has_no_address_is_not_counted() -> None:
    addresses = Addresses(1, 1)
    for _ in range(3):
        assert addresses.refusal("") is None
        addresses.opened("")
    for _ in range(3):
        addresses.closed("")


def test_what_is_closed_is_forgotten() -> None:
    addresses = Addresses(5, 0)
    for number in range(100):
        addresses.opened(f"192.0.2.{number}")
    for number in range(100):
        addresses.closed(f"192.0.2.{number}")
    assert addresses._open == {}


# On the wire


@pytest.mark.asyncio(loop_scope="module")
async def test_too_many_connections_from_one_address_are_refused_with_4100(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(options={"max_connections_per_address": 2})
    first, _ = await connect(server), await connect(server)
    async with await Wire.open(server.port) as third:
        assert await third.error() == 4100
        closed = await third.closed()
        assert closed.code == 4100
        assert closed.reason == "More than 2 connections from your address"
    hub = server._hubs["k"]
    assert hub.traffic.refused == 1
    first.send_close(1000)
    await first.end()
    await until(lambda: len(hub.sockets) == 1)
    await (await connect(server)).ping()


@pytest.mark.asyncio(loop_scope="module")
async def test_tries_that_are_refused_for_another_reason_count_too(serve: Serve) -> None:
    server = await serve(options={"max_connects_per_minute": 3})
    codes = []
    for _ in range(5):
        async with await Wire.open(server.port, "/app/nobody") as wire:
            codes.append(await wire.error())
    assert codes == [4001, 4001, 4001, 4100, 4100]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_trusted_proxy_s_clients_are_counted_by_their_own_addresses(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(
        options={"max_connections_per_address": 1, "trusted_proxies": ["127.0.0.1"]}
    )
    for last in (1, 2, 3):
        headers = {"X-Forwarded-For": f"198.51.100.{last}"}
        await (await connect(server, headers=headers)).ping()
    async with await Wire.open(server.port, headers=headers) as again:
        assert await again.error() == 4100
    assert {session.address for session in server._hubs["k"].sockets.values()} == {  # type: ignore[attr-defined]
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
    }


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_stranger_says_of_its_address_is_not_believed(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(options={"max_connections_per_address": 1})
    await connect(server, headers={"X-Forwarded-For": "198.51.100.1"})
    async with await Wire.open(server.port, headers={"X-Forwarded-For": "198.51.100.2"}) as again:
        assert await again.error() == 4100


@pytest.mark.asyncio(loop_scope="module")
async def test_who_hangs_up_at_any_moment_is_counted_once(serve: Serve) -> None:
    server = await serve(options={"max_connections_per_address": 1000})
    for _ in range(20):
        async with await Wire.open(server.port) as wire:
            wire.send_close(1000)
        async with await Wire.open(server.port):
            pass
    await until(lambda: server._addresses._open == {})

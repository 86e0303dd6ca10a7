"""Dialling through proxies and from an address of one's choice."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import socket
import traceback
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from antiphon.client import Client, ConnectionState
from antiphon.errors import Refused, SettingsError, Unreachable
from tests.server.wire import until

from .linked import impatient, join, meet, part, soon, watch
from .peer import Peer, server_tls, trusting_tls

SECRETS = ("s3cret", "s%33cret", base64.b64encode(b"ann:s3cret").decode())


class Tunnel(NamedTuple):
    """What a proxy was asked for."""

    host: str
    port: int
    credentials: str


class Proxy:
    """A proxy on loopback, for HTTP's CONNECT or SOCKS5; up while its context lasts.

    Args:
        user: `user:password` that it wants.
        status: What the HTTP one answers in place of a tunnel.
        hangs: Whether it never answers.
    """

    def __init__(self, *, user: str = "", status: int = 200, hangs: bool = False) -> None:
        self.asked: list[Tunnel] = []
        self.port = 0
        self._user = user
        self._status = status
        self._hangs = hangs
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            tunnel = await self._negotiate(reader, writer)
            if tunnel is not None:
                there = await asyncio.open_connection(tunnel.host, tunnel.port)
                await self._agree(writer)
                pipes = (pipe(reader, there[1]), pipe(there[0], writer))
                await asyncio.gather(*pipes)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _negotiate(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Tunnel | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split(" ")
        assert method == "CONNECT"
        fields = dict(line.split(": ", 1) for line in head.rstrip().split("\r\n")[1:])
        scheme, _, encoded = fields.get("Proxy-Authorization", "").partition(" ")
        assert scheme in ("", "Basic")
        host, _, port = target.rpartition(":")
        tunnel = Tunnel(host.strip("[]"), int(port), base64.b64decode(encoded).decode())
        self.asked.append(tunnel)
        if self._hangs:
            await asyncio.Event().wait()
        status = self._status if tunnel.credentials == self._user else 407
        if status == 200:
            return tunnel
        writer.write(f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n".encode())
        return None

    async def _agree(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")


class Socks(Proxy):
    """The same in SOCKS5 (RFC 1928 and 1929)."""

    async def _negotiate(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Tunnel | None:
        version, count = await reader.readexactly(2)
        assert version == 5
        offered = await reader.readexactly(count)
        method = 2 if self._user else 0
        writer.write(bytes([5, method if method in offered else 0xFF]))
        credentials = ""
        if method:
            await reader.readexactly(1)
            credentials = f"{await short_text(reader)}:{await short_text(reader)}"
            writer.write(bytes([1, credentials != self._user]))
            if credentials != self._user:
                return None
        _, command, _, kind = await reader.readexactly(4)
        assert command == 1
        if kind == 3:
            host = await short_text(reader)
        else:
            host = socket.inet_ntoa(await reader.readexactly(4))
        port = int.from_bytes(await reader.readexactly(2))
        self.asked.append(Tunnel(host, port, credentials))
        return self.asked[-1]

    async def _agree(self, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]))


async def short_text(reader: asyncio.StreamReader) -> str:
    return (await reader.readexactly((await reader.readexactly(1))[0])).decode()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def through(proxy: str, **options: Any) -> AsyncIterator[tuple[Client, Any, Peer]]:
    """A client that is connected through a proxy."""
    async with Peer() as peer:
        client = impatient(peer.settings(), proxy=proxy, **options)
        try:
            yield client, await meet(client, peer), peer
        finally:
            await part(client, peer)


async def failure(caplog: pytest.LogCaptureFixture, **options: Any) -> str:
    """Why a client does not connect; neither there nor in the log is a secret."""
    caplog.set_level(logging.DEBUG)
    async with Peer() as peer:
        client = impatient(peer.settings(), **{"max_attempts": 1, "connect_timeout": 10, **options})
        seen = watch(client)
        with pytest.raises(Unreachable) as caught:
            await soon(client.connect())
        await client.close()
        text = str(caught.value)
        told = "".join(traceback.format_exception(caught.value))
        for secret in SECRETS:
            assert secret not in text
            assert secret not in told
            assert secret not in repr(seen)
            assert secret not in caplog.text
            assert secret not in repr(client)
        return text


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


# Through a proxy


async def test_a_server_is_reached_through_an_http_proxy() -> None:
    async with (
        Proxy() as proxy,
        through(f"http://127.0.0.1:{proxy.port}") as (client, dial, peer),
    ):
        channel = await join(client, dial, "news")
        waiting = asyncio.ensure_future(channel.wait_for("e"))
        await asyncio.sleep(0)
        dial.send("e", 1, "news")
        assert (await soon(waiting)).data == 1
        assert proxy.asked == [Tunnel("127.0.0.1", peer.port, "")]
        assert client.state is ConnectionState.CONNECTED


async def test_a_server_with_tls_is_reached_through_an_http_proxy() -> None:
    async with Proxy() as proxy, Peer(tls=server_tls()) as peer:
        client = impatient(
            peer.settings(),
            proxy=f"http://127.0.0.1:{proxy.port}",
            ssl_context=trusting_tls(),
        )
        await meet(client, peer)
        assert proxy.asked == [Tunnel("127.0.0.1", peer.port, "")]
        await part(client, peer)


@pytest.mark.parametrize("password", ["s3cret", "s%33cret"], ids=["plain", "quoted"])
async def test_a_proxy_is_given_the_user_and_the_password_that_are_in_its_address(
    password: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        Proxy(user="ann:s3cret") as proxy,
        through(f"http://ann:{password}@127.0.0.1:{proxy.port}") as (client, _, peer),
    ):
        assert proxy.asked == [Tunnel("127.0.0.1", peer.port, "ann:s3cret")]
        assert "s3cret" not in repr(client)
    assert not any(secret in caplog.text for secret in SECRETS)


@pytest.mark.parametrize("user", ["", "ann:s3cret"], ids=["nobody", "somebody"])
async def test_a_server_is_reached_through_a_socks_proxy(user: str) -> None:
    async with Socks(user=user) as proxy:
        address = f"socks5://{user}{'@' if user else ''}127.0.0.1:{proxy.port}"
        async with through(address) as (client, dial, peer):
            await join(client, dial, "news")
            assert proxy.asked == [Tunnel("127.0.0.1", peer.port, user)]


async def test_each_new_connection_goes_through_the_proxy() -> None:
    async with (
        Proxy() as proxy,
        through(f"http://127.0.0.1:{proxy.port}") as (client, dial, peer),
    ):
        await dial.hang_up()
        await (await peer.dial()).greet()
        await until(lambda: client.stats.connections == 2)
        assert len(proxy.asked) == 2


async def test_what_the_server_says_no_to_is_not_blamed_on_the_proxy() -> None:
    async with Proxy() as proxy, Peer() as peer:
        client = impatient(peer.settings(), proxy=f"http://127.0.0.1:{proxy.port}")
        connecting = asyncio.ensure_future(client.connect())
        dial = await peer.dial()
        await dial.upgrade()
        dial.error(4001, "No such app")
        with pytest.raises(Refused, match=f"127.0.0.1:{peer.port} refuses"):
            await soon(connecting)
        await part(client, peer)


# Proxies that do not work


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_a_proxy_that_refuses_the_password_is_told(
    caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    kind = Proxy if scheme == "http" else Socks
    async with kind(user="ann:another") as proxy:
        text = await failure(caplog, proxy=f"{scheme}://ann:s3cret@127.0.0.1:{proxy.port}")
        assert f"the proxy 127.0.0.1:{proxy.port}" in text
        if scheme == "http":
            assert "407" in text
        else:
            assert "auth" in text.lower()


async def test_a_proxy_that_wants_a_password_and_is_given_none_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Proxy(user="ann:another") as proxy:
        text = await failure(caplog, proxy=f"http://127.0.0.1:{proxy.port}")
        assert f"the proxy 127.0.0.1:{proxy.port}" in text
        assert "407" in text


@pytest.mark.parametrize("status", [403, 502, 503])
async def test_a_proxy_that_cannot_reach_the_server_is_told(
    caplog: pytest.LogCaptureFixture, status: int
) -> None:
    async with Proxy(user="ann:s3cret", status=status) as proxy:
        text = await failure(caplog, proxy=f"http://ann:s3cret@127.0.0.1:{proxy.port}")
        assert f"the proxy 127.0.0.1:{proxy.port}" in text
        assert str(status) in text


@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks5"])
async def test_a_proxy_that_is_not_there_is_told(
    caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    port = closed_port()
    text = await failure(caplog, proxy=f"{scheme}://ann:s3cret@127.0.0.1:{port}")
    assert f"Nothing listens on the proxy 127.0.0.1:{port}" in text


async def test_a_proxy_that_does_not_answer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with Proxy(hangs=True, user="ann:s3cret") as proxy:
        address = f"http://ann:s3cret@127.0.0.1:{proxy.port}"
        text = await failure(caplog, proxy=address, connect_timeout=0.2)
        assert f"the proxy 127.0.0.1:{proxy.port} did not answer in 0.2 seconds" in text


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_a_proxy_whose_name_nobody_knows_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    loop = asyncio.get_running_loop()
    ask = loop.getaddrinfo

    async def nobody_knows(host: Any, *args: Any, **options: Any) -> Any:
        if host == "proxy.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await ask(host, *args, **options)

    monkeypatch.setattr(loop, "getaddrinfo", nobody_knows)
    text = await failure(caplog, proxy=f"{scheme}://ann:s3cret@proxy.invalid:8080")
    assert "The name proxy.invalid cannot be found" in text


@pytest.mark.parametrize(
    "proxy",
    [
        "ftp://ann:s3cret@127.0.0.1:1",
        "ann:s3cret@127.0.0.1:1",
        "127.0.0.1:1",
        "http://",
        "http://ann:s3cret@",
        "http://127.0.0.1:0",
        "http://ann:s3cret@[::1",
        "http://ann:s3cret@127.0.0.1:99999",
        "http://ann:s3cret@127.0.0.1:port",
        "",
    ],
)
def test_an_address_that_no_proxy_can_have_is_refused_before_anything_is_dialled(
    proxy: str,
) -> None:
    with pytest.raises(SettingsError, match="The address of a proxy starts with") as caught:
        impatient(Peer().settings(port=1), proxy=proxy)
    told = "".join(traceback.format_exception(caught.value)).partition("SettingsError:")[2]
    assert not any(secret in told for secret in SECRETS)


async def test_a_proxy_that_is_a_web_server_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with Peer() as web:

        async def answering() -> None:
            dial = await web.dial()
            await dial._reader.readuntil(b"\r\n\r\n")
            dial.send_bytes(b"I am no proxy\r\n\r\n")

        work = asyncio.ensure_future(answering())
        text = await failure(caplog, proxy=f"http://ann:s3cret@127.0.0.1:{web.port}")
        await work
        assert f"the proxy 127.0.0.1:{web.port}" in text


# From an address


async def test_the_server_sees_the_address_that_was_chosen() -> None:
    async with Peer() as peer:
        client = impatient(peer.settings(), source_address="127.0.0.2")
        dial = await meet(client, peer)
        assert dial._writer.get_extra_info("peername")[0] == "127.0.0.2"
        await part(client, peer)


async def test_a_proxy_sees_the_address_that_was_chosen() -> None:
    async with Proxy() as proxy, Peer() as peer:
        seen: list[str] = []
        accept = proxy._accept

        def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(writer.get_extra_info("peername")[0])
            accept(reader, writer)

        proxy._server.close()
        proxy._server = await asyncio.start_server(noting, "127.0.0.1", 0)
        port = proxy._server.sockets[0].getsockname()[1]
        client = impatient(
            peer.settings(), proxy=f"http://127.0.0.1:{port}", source_address="127.0.0.2"
        )
        await meet(client, peer)
        assert seen == ["127.0.0.2"]
        await part(client, peer)


async def test_an_address_of_another_kind_is_told(caplog: pytest.LogCaptureFixture) -> None:
    text = await failure(caplog, source_address="::1")
    assert "127.0.0.1 has no address of the kind of ::1" in text


async def test_an_address_that_this_machine_has_not_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = await failure(caplog, source_address="192.0.2.1")
    assert "192.0.2.1" in text


async def test_a_source_that_is_no_address_is_told_and_not_taken_for_the_servers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    ask = loop.getaddrinfo

    async def nobody_knows(host: Any, *args: Any, **options: Any) -> Any:
        if host == "nowhere.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await ask(host, *args, **options)

    monkeypatch.setattr(loop, "getaddrinfo", nobody_knows)
    text = await failure(caplog, source_address="nowhere.invalid")
    assert "nowhere.invalid" in text


async def test_a_server_is_dialled_over_ipv6_from_an_address_there() -> None:
    try:
        server = await asyncio.start_server(lambda r, w: None, "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    server.close()
    async with Peer() as peer:
        heard: list[str] = []

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(writer.get_extra_info("peername")[0])
            peer._serve(reader, writer)

        async with await asyncio.start_server(accept, "::1", 0) as six:
            settings = peer.settings(host="::1", port=six.sockets[0].getsockname()[1])
            client = impatient(settings, source_address="::1")
            await meet(client, peer)
            assert heard == ["::1"]
            await part(client, peer)

"""The server as a whole: who may connect, starting, stopping, several applications."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import ssl
import time
import warnings
from pathlib import Path

import pytest

from antiphon.errors import SettingsError
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.settings import App
from tests.client.peer import CERTIFICATE, trusting_tls
from tests.conftest import Connect, Serve

from .cluster import free_port
from .wire import TIMEOUT, Closed, HandshakeRefused, Wire, http, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP = App(id="1", key="k", secret="s")
SECOND = Path(__file__).with_name("certificate.pem")
"""Another one than the clients' tests have, with its key."""


async def refusal(server: Server, path: str = "/app/k", **options: object) -> tuple[int, Closed]:
    """The code told in-band, and how the connection then ended."""
    async with await Wire.open(server.port, path, **options) as wire:  # type: ignore[arg-type]
        code = await wire.error()
        closed = await wire.closed()
        wire.send_close(closed.code or 1000)
        await wire.end()
        return code, closed


# Who may connect


@pytest.mark.parametrize("key", ["nobody", "K", "k%00", "%6b%6b", "%D0%BA", "%ff"])
async def test_a_key_that_is_no_applications_is_refused_with_4001(server: Server, key: str) -> None:
    code, closed = await refusal(server, f"/app/{key}")
    assert (code, closed.code, closed.reason) == (4001, 4001, "Application does not exist")


async def test_a_key_may_be_percent_encoded(serve: Serve, connect: Connect) -> None:
    server = await serve(App(id="1", key="a key+1", secret="s"))
    await (await connect(server, "/app/a%20key+1")).ping()


@pytest.mark.parametrize("version", ["4", "8", "0", "-1", "seven", "7.5"])
async def test_a_protocol_that_is_not_spoken_is_refused_with_4007(
    server: Server, version: str
) -> None:
    code, closed = await refusal(server, query=f"protocol={version}&client=js")
    assert (code, closed.code) == (4007, 4007)
    assert "7" in closed.reason


@pytest.mark.parametrize(
    "query", ["protocol=7", "protocol=6", "protocol=5", "", "client=js&x=1&x=2&flash=false", "&&="]
)
async def test_older_protocols_and_unknown_parameters_are_taken(
    connect: Connect, query: str
) -> None:
    await (await connect(query=query)).ping()


async def test_more_connections_than_allowed_are_refused_with_4004(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(max_connections=2)
    first, second = await connect(server), await connect(server)
    code, closed = await refusal(server)
    assert (code, closed.code) == (4004, 4004)
    await second.ping()
    await first.hang_up()
    (hub,) = server._hubs.values()
    await until(lambda: len(hub.sockets) == 1)
    await (await connect(server)).ping()


ORIGINS = ("*.example.com", "localhost", "Shop.Example.org")


@pytest.mark.parametrize(
    "origin",
    [
        "https://chat.example.com",
        "https://a.b.example.com:8443",
        "HTTPS://CHAT.EXAMPLE.COM",
        "http://localhost:3000",
        "https://shop.example.org",
        None,
    ],
)
async def test_a_page_of_an_allowed_origin_may_connect(
    serve: Serve, connect: Connect, origin: str | None
) -> None:
    server = await serve(allowed_origins=ORIGINS)
    headers = {} if origin is None else {"Origin": origin}
    await (await connect(server, headers=headers)).ping()


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "https://evil.org",
        "https://localhost.evil.org",
        "https://evil.org/.example.com",
        "https://evil.org?.example.com",
        "https://chat.example.com@evil.org",
        "null",
        "",
        "file://",
        "http://[",
        "http://[::1",
    ],
)
async def test_a_page_of_another_origin_is_refused_with_4009(serve: Serve, origin: str) -> None:
    server = await serve(allowed_origins=ORIGINS)
    code, closed = await refusal(server, headers={"Origin": origin})
    assert (code, closed.code, closed.reason) == (4009, 4009, "Origin not allowed")


async def test_without_a_list_of_origins_every_page_may_connect(connect: Connect) -> None:
    for origin in ("https://evil.org", "null", "http://["):
        await (await connect(headers={"Origin": origin})).ping()


async def test_who_is_refused_is_told_why_before_and_with_the_close(server: Server) -> None:
    async with await Wire.open(server.port, "/app/nobody") as wire:
        assert await wire.event("pusher:error") == {
            "event": "pusher:error",
            "data": {"code": 4001, "message": "Application does not exist"},
        }
        assert (await wire.closed()).code == 4001


async def test_what_a_refused_client_still_says_changes_nothing(server: Server) -> None:
    async with await Wire.open(server.port, "/app/nobody") as wire:
        wire.send("pusher:subscribe", {"channel": "news"})
        wire.send_frame(0x9)
        wire.send_frame(0x2, b"x" * 5_000)
        assert await wire.error() == 4001
        assert (await wire.closed()).code == 4001
    assert all("news" not in hub.channels for hub in server._hubs.values())


# Paths


@pytest.mark.parametrize(
    "path", ["/", "/app", "/app/", "/app/k/", "/app/k/x", "/app/k%2Fx", "/apps/k", "/chat/app/k"]
)
async def test_a_websocket_anywhere_else_is_not_found(server: Server, path: str) -> None:
    with pytest.raises(HandshakeRefused) as refused:
        await Wire.open(server.port, path)
    assert refused.value.status == 404


@pytest.mark.parametrize("prefix", ["chat", "/chat", "/chat/", "/a/b"])
async def test_behind_a_proxy_all_paths_have_its_prefix(
    serve: Serve, connect: Connect, prefix: str
) -> None:
    server = await serve(APP, path=prefix)
    clean = "/" + prefix.strip("/")
    wire = await connect(server, f"{clean}/app/k")
    await wire.subscribe("news")
    async with Publisher(server.settings()) as publisher:
        await publisher.trigger("news", "e", 1)
    await wire.event("e")
    with pytest.raises(HandshakeRefused) as refused:
        await Wire.open(server.port, "/app/k")
    assert refused.value.status == 404
    for path, status in ((f"{clean}/up", 200), ("/up", 404)):
        answer = await http(server.port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert answer[0] == status


# Several applications


async def test_applications_share_a_port_and_nothing_else(serve: Serve, connect: Connect) -> None:
    server = await serve(APP, App(id="2", key="k2", secret="s2"))
    ali, eve = await connect(server), await connect(server, "/app/k2")
    await ali.join("private-room")
    await ali.subscribe("news")
    await eve.subscribe("news")
    async with Publisher(server.settings("1")) as publisher:
        await publisher.trigger("news", "for-1", 1, socket_id=eve.socket_id)
        assert list(await publisher.channels()) == ["private-room", "news"]
    async with Publisher(server.settings("2")) as publisher:
        await publisher.trigger("news", "for-2", 1)
        assert list(await publisher.channels()) == ["news"]
    await ali.event("for-1")
    await eve.event("for-2")
    # The first application's secret signs nothing in the second.
    eve.send("pusher:subscribe", {"channel": "private-room", "auth": f"k2:{'0' * 64}"})
    await eve.event("pusher:subscription_error")
    await ali.ping()


async def test_each_application_has_its_own_message_limit(serve: Serve, connect: Connect) -> None:
    small = App(id="1", key="small", secret="s", max_message_size=100)
    large = App(id="2", key="large", secret="s", max_message_size=100_000)
    server = await serve(small, large)
    message = '{"event":"pusher:ping"}'.ljust(50_000)
    for key in ("large", "small"):
        wire = await connect(server, f"/app/{key}")
        wire.send_text(message)
        if key == "large":
            await wire.event("pusher:pong")
        else:
            assert (await wire.closed()).code == 1009


async def test_settings_tell_how_to_reach_each_application(serve: Serve) -> None:
    server = await serve(APP, App(id="2", key="k2", secret="s2"), path="chat")
    first, second = server.settings(), server.settings("2")
    assert (first.app_id, first.app_key, first.app_secret) == ("1", "k", "s")
    assert (second.app_id, second.app_key, second.app_secret) == ("2", "k2", "s2")
    assert first.http_url == f"http://127.0.0.1:{server.port}/chat"
    assert server.settings("1") == first
    with pytest.raises(SettingsError, match="'3'"):
        server.settings("3")


# Starting and stopping


async def test_a_free_port_is_taken_and_told() -> None:
    async with Server(APP) as one, Server(APP) as two:
        assert 0 < one.port != two.port > 0


async def test_an_address_that_cannot_be_listened_on_is_named(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host, number in (("127.0.0.1", port), ("192.0.2.1", 0), ("no-such-host.invalid", 0)):
            with pytest.raises(SettingsError, match=f"{host}:{number}") as refused:
                await Server(APP, host=host, port=number).start()
            assert "Unknown error" not in str(refused.value), "the reason is in words"


@pytest.mark.parametrize("port", [-1, 65_536, 70_000])
async def test_a_port_that_is_none_is_refused_in_words(port: int) -> None:
    with pytest.raises(SettingsError, match=str(port)):
        await Server(APP, port=port).start()


async def test_ipv6_is_spoken() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as exc:
        pytest.skip(f"this machine has no IPv6: {exc}")
    async with Server(APP, host="::1") as server, Publisher(server.settings()) as publisher:
        assert server.settings().http_url == f"http://[::1]:{server.port}"
        assert await publisher.channels() == {}


async def test_localhost_is_reached_over_ipv4_too(connect: Connect) -> None:
    """A client that was told 127.0.0.1 expects a server on localhost there."""
    async with Server(APP, host="localhost") as server:
        await (await connect(server)).ping()


async def test_stopping_closes_every_connection_with_4200(serve: Serve, connect: Connect) -> None:
    server = await serve()
    wires = [await connect(server) for _ in range(5)]
    for n, wire in enumerate(wires):
        await wire.join("presence-room", str(n))
    await server.stop()
    for wire in wires:
        closed = await wire.closed()
        assert (closed.code, closed.reason) == (4200, "The server is going down; reconnect")


async def test_after_a_stop_nobody_is_served(serve: Serve, connect: Connect) -> None:
    server = await serve()
    await connect(server)
    await server.stop()
    with pytest.raises(ConnectionError):
        await Wire.open(server.port)
    (hub,) = server._hubs.values()
    assert (hub.sockets, hub.channels) == ({}, {})
    await server.stop()  # again, and nothing happens


async def test_after_a_stop_no_connection_is_left_open(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stops a server may end the event loop next; clients need not agree to that."""
    monkeypatch.setattr("antiphon.server.transport.CLOSE_TIMEOUT", 600.0)
    server = await serve()
    deaf = await connect(server)
    (hub,) = server._hubs.values()
    link = hub.sockets[deaf.socket_id]._link  # type: ignore[attr-defined]
    transport = link._transport.underlying_transport
    await asyncio.wait_for(server.stop(), TIMEOUT)  # nor does it take its time
    assert transport.is_closing()
    assert (await deaf.closed()).code == 4200


async def test_a_loop_may_end_right_after_its_server() -> None:
    def one_loop() -> None:
        async def serve() -> None:
            async with Server(APP) as server:
                await asyncio.to_thread(dial, server.port)

        asyncio.run(serve())

    def dial(port: int) -> None:
        client = socket.create_connection(("127.0.0.1", port))
        clients.enter_context(client)
        client.sendall(
            b"GET /app/k HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b" 101 " in client.recv(4096)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # other tests' remains are not this one's
    with contextlib.ExitStack() as clients, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        await asyncio.to_thread(one_loop)
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def test_who_connects_while_the_server_stops_is_not_left_behind(serve: Serve) -> None:
    server = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with Wire(reader, writer):
        # The connection is there already; it becomes a WebSocket only during the stop.
        writer.write(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"OK")
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        writer.write(
            b"GET /app/k HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await stopping
        (hub,) = server._hubs.values()
        assert hub.sockets == {}


async def test_a_server_that_was_never_started_stops_too() -> None:
    await Server(APP).stop()


async def test_a_server_starts_again_on_its_port(connect: Connect) -> None:
    server = Server(APP, port=free_port())
    for _ in range(3):
        await server.start()
        wire = await connect(server)
        await wire.subscribe("news")
        async with Publisher(server.settings()) as publisher:
            await publisher.trigger("news", "e", 1)
        await wire.event("e")
        port = server.port
        await server.stop()
        assert (await wire.closed()).code == 4200
        assert server.port == port


async def test_another_server_may_take_over_the_port(connect: Connect) -> None:
    async with Server(APP, port=free_port()) as first:
        wire = await connect(first)
    assert (await wire.closed()).code == 4200
    async with Server(APP, port=first.port) as second:
        await (await connect(second)).ping()


async def test_a_publisher_finishes_its_request_when_the_server_stops(connect: Connect) -> None:
    server = Server(APP)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    (answer, _) = await asyncio.gather(reader.read(), server.stop())
    assert answer == b"" or json.loads(answer.partition(b"\r\n\r\n")[2]) == {"health": "OK"}
    writer.close()
    await writer.wait_closed()


# Stopping gently


UP = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n"
READY = UP.replace(b"/up", b"/ready")


async def test_connections_are_closed_one_after_the_other_over_the_drain(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("server.CLOSE_PATIENCE", "transport.CLOSE_TIMEOUT"):
        monkeypatch.setattr(f"antiphon.server.{name}", 600.0)  # nobody is waited for
    server = Server(APP, drain=0.4)
    await server.start()
    wires = [await connect(server) for _ in range(8)]
    began = time.perf_counter()

    async def ended(wire: Wire) -> tuple[float, int | None]:
        closed = await wire.closed()
        wire.send_close(4200)
        return time.perf_counter() - began, closed.code

    stopping = asyncio.create_task(server.stop())
    ends = await asyncio.gather(*map(ended, wires))
    await asyncio.wait_for(stopping, TIMEOUT)
    assert [code for _, code in ends] == [4200] * 8
    for number, (after, _) in enumerate(ends):
        assert 0.05 * number <= after


async def test_while_connections_are_closed_http_is_answered_and_nobody_is_let_in(
    connect: Connect,
) -> None:
    server = Server(APP, drain=60)
    await server.start()
    assert await http(server.port, READY) == (200, b'{"ready":true}')
    first, second = await connect(server), await connect(server)
    await second.subscribe("news")
    stopping = asyncio.create_task(server.stop())
    assert (await first.closed()).code == 4200
    assert await http(server.port, READY) == (503, b'{"ready":false}')
    assert (await http(server.port, UP))[0] == 200
    with pytest.raises(HandshakeRefused) as refused:
        await Wire.open(server.port)
    assert refused.value.status == 503
    async with Publisher(server.settings()) as publisher:
        await publisher.trigger("news", "e", 1)
    await second.event("e")
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping


async def test_who_cancels_a_drain_has_the_rest_closed_at_once(connect: Connect) -> None:
    server = Server(APP, drain=60)
    await server.start()
    wires = [await connect(server) for _ in range(3)]
    stopping = asyncio.create_task(server.stop())
    assert (await wires[0].closed()).code == 4200
    wires[0].send_close(4200)
    stopping.cancel()
    for wire in wires[1:]:
        assert (await wire.closed()).code == 4200
        wire.send_close(4200)
    with pytest.raises(asyncio.CancelledError):
        await stopping
    with pytest.raises(ConnectionError):
        await Wire.open(server.port)


async def test_a_drain_does_not_wait_for_who_has_gone_by_itself(connect: Connect) -> None:
    server = Server(APP, drain=60)
    await server.start()
    wires = [await connect(server) for _ in range(3)]
    stopping = asyncio.create_task(server.stop())
    for wire in wires:
        await wire.hang_up()
    (hub,) = server._hubs.values()
    await until(lambda: not hub.sockets)
    stopping.cancel()  # the second one's turn is in 20 s
    with pytest.raises(asyncio.CancelledError):
        await stopping


async def test_a_drain_without_connections_takes_no_time() -> None:
    server = Server(APP, drain=60)
    await server.start()
    await asyncio.wait_for(server.stop(), TIMEOUT)


# TLS and Unix sockets


async def test_with_a_certificate_websocket_and_http_speak_tls() -> None:
    async with Server(APP, tls=(CERTIFICATE, CERTIFICATE)) as server:
        assert server.settings().http_url == server.url == f"https://127.0.0.1:{server.port}"
        tls = trusting_tls()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls)
        async with Wire(reader, writer) as wire:
            wire.send_bytes(
                b"GET /app/k HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            await wire.event("pusher:connection_established")
            await wire.subscribe("news")
            async with Publisher(server.settings(), ssl_context=tls) as publisher:
                await publisher.trigger("news", "e", "x" * 5_000)
            await wire.event("e")
            await server.stop()
            assert (await wire.closed()).code == 4200


async def test_a_certificate_is_exchanged_for_who_comes_next(tmp_path: Path) -> None:
    file = tmp_path / "certificate.pem"
    file.write_bytes(CERTIFICATE.read_bytes())
    async with Server(APP, tls=(file, file)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting_tls())
        async with Wire(reader, writer) as early:
            assert await seen_by(server) == presented(CERTIFICATE)
            file.write_bytes(SECOND.read_bytes())
            assert await seen_by(server) == presented(CERTIFICATE), "not before it is told"
            server.reload_tls()
            assert await seen_by(server) == presented(SECOND)
            file.write_text("no certificate")
            with pytest.raises(SettingsError, match=str(file)):
                server.reload_tls()
            assert await seen_by(server) == presented(SECOND)
            early.send_bytes(UP)
            await reader.readuntil(b"OK")


async def test_a_certificate_that_cannot_be_used_is_named_before_anything_listens() -> None:
    server = Server(APP, tls=("/nowhere/cert.pem", CERTIFICATE))
    with pytest.raises(SettingsError, match=r"/nowhere/cert\.pem could not be read"):
        await server.start()
    Server(APP).reload_tls()  # there is none, and nothing happens


async def test_a_unix_socket_is_served_like_a_port(tmp_path: Path) -> None:
    path = tmp_path / "antiphon.sock"
    async with Server(APP, unix=path) as server:
        assert server.url == f"unix:{path}"
        with pytest.raises(SettingsError, match="Unix socket"):
            server.settings()
        reader, writer = await asyncio.open_unix_connection(path)
        async with Wire(reader, writer) as wire:
            wire.send_bytes(UP)
            await reader.readuntil(b'OK"}')
            wire.send_bytes(
                b"GET /app/k HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            await wire.event("pusher:connection_established")
            await wire.ping()
    assert not path.exists()


def presented(file: Path) -> bytes:
    """The certificate of a PEM file, as it goes over the wire."""
    text = file.read_text()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(begin + text.partition(begin)[2].partition(end)[0] + end)


async def seen_by(server: Server) -> bytes:
    """The certificate that a client is shown."""
    anything = ssl.create_default_context()
    anything.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=anything)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    assert isinstance(shown, bytes)
    return shown

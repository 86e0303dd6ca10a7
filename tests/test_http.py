"""The HTTP client against servers on the loopback: good ones, odd ones, and none."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from antiphon import http
from antiphon.http import MAX_ANSWER, Answer, AnswerTooLarge, HttpClient, NoAnswer

SECRET = "never-print-this"
CERTIFICATE = Path(__file__).parent / "client" / "certificate.pem"


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient(10)
    yield client
    await client.close()


# Servers

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Listen = Callable[[Peer], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts an HTTP server that does what a function says; gives its address."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler) -> str:
            runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return f"http://127.0.0.1:{runner.addresses[0][1]}"

        yield start


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Starts a TCP server that says what it likes once it has read a request's head."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(peer: Peer) -> str:
            async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                    await reader.readuntil(b"\r\n\r\n")
                    await peer(reader, writer)
                writer.close()

            server = await asyncio.start_server(talk, "127.0.0.1", 0)
            await stack.enter_async_context(server)
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield start


def saying(answer: bytes) -> Peer:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return peer


async def unanswered(client: HttpClient, url: str) -> NoAnswer:
    """Ask in vain; what is told holds neither the address nor a header."""
    headers = {"Authorization": f"Bearer {SECRET}"}
    with pytest.raises(NoAnswer) as caught:
        await client.request(
            "POST", f"{url}/path?auth={SECRET}" if "//" in url else url, headers=headers
        )
    told = str(caught.value) + "".join(traceback.format_exception(caught.value))
    assert SECRET not in told
    assert str(caught.value).isprintable()
    return caught.value


# Answers


async def test_a_request_arrives_as_it_was_given(client: HttpClient, serve: Serve) -> None:
    seen: list[tuple[str, str, str | None, bytes]] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        seen.append((request.method, request.raw_path, request.headers.get("X-Word"), body))
        return web.Response(text="done")

    url = await serve(handle)
    await client.request("GET", f"{url}/a%2Fb%7E%41?c=d%20e+f&g=%2B")
    await client.request("POST", f"{url}/", headers={"X-Word": "слово"}, body=b"\x00\xff")
    assert seen == [
        ("GET", "/a%2Fb%7E%41?c=d%20e+f&g=%2B", None, b""),
        ("POST", "/", "слово", b"\x00\xff"),
    ]


@pytest.mark.parametrize("status", [200, 204, 301, 302, 404, 500])
async def test_an_answer_of_any_status_is_one(
    client: HttpClient, serve: Serve, status: int
) -> None:
    async def handle(request: web.BaseRequest) -> web.Response:
        return web.Response(
            status=status, body=b"" if status == 204 else b"\xff", headers={"X-Word": "w"}
        )

    answer = await client.request("GET", await serve(handle))
    assert isinstance(answer, Answer)
    assert (answer.status, answer.headers["x-word"]) == (status, "w")
    assert answer.body == (b"" if status == 204 else b"\xff")


async def test_a_redirect_is_not_followed(client: HttpClient, serve: Serve) -> None:
    asked = []

    async def handle(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    answer = await client.request("POST", f"{await serve(handle)}/here", body=b"secret")
    assert (answer.status, answer.headers["Location"]) == (307, "/elsewhere")
    assert asked == ["/here"]


async def test_no_cookie_is_kept(client: HttpClient, serve: Serve) -> None:
    cookies = []

    async def handle(request: web.BaseRequest) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "session=1; Path=/"})

    url = (await serve(handle)).replace("127.0.0.1", "localhost")
    for _ in range(2):
        await client.request("GET", url)
    assert cookies == [None, None]


async def test_a_compressed_answer_is_decompressed(client: HttpClient, serve: Serve) -> None:
    async def handle(request: web.BaseRequest) -> web.Response:
        headers = {"Content-Encoding": "gzip"}
        return web.Response(body=gzip.compress(b"x" * 100_000), headers=headers)

    assert (await client.request("GET", await serve(handle))).body == b"x" * 100_000


async def test_connections_are_used_again(client: HttpClient, serve: Serve) -> None:
    peers = set()

    async def handle(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response()

    url = await serve(handle)
    for _ in range(3):
        await client.request("GET", url)
    assert len(peers) == 1
    await client.close()
    await client.request("GET", url)
    assert len(peers) == 2


async def test_a_client_that_was_never_used_can_be_closed_twice() -> None:
    client = HttpClient(1)
    await client.close()
    await client.close()


# Addresses


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("/дело?a=б", "/%D0%B4%D0%B5%D0%BB%D0%BE?a=%D0%B1"),
        ("/a b", "/a%20b"),
        ("/a\r\nX-Other: 1", "/aX-Other:%201"),
        ("/a\x00b", "/a%00b"),
    ],
    ids=ascii,
)
async def test_what_no_request_line_can_carry_is_encoded(
    client: HttpClient, serve: Serve, given: str, sent: str
) -> None:
    asked = []

    async def handle(request: web.BaseRequest) -> web.Response:
        asked.append((request.raw_path, request.headers.get("X-Other")))
        return web.Response()

    await client.request("GET", await serve(handle) + given)
    assert asked == [(sent, None)]


async def test_a_host_in_another_script_is_looked_up_in_ascii(
    client: HttpClient, serve: Serve
) -> None:
    hosts = []

    async def handle(request: web.BaseRequest) -> web.Response:
        hosts.append(request.headers["Host"])
        return web.Response()

    url = await serve(handle)
    # Digits of full width: IDNA has them as the usual ones.
    await client.request("GET", url.replace("127", "１２７"))
    assert hosts == [url.removeprefix("http://")]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "no address"),
        ("/path", "no address"),
        ("http://", "no address"),
        ("http://[oops", "no address"),
        ("http://127.0.0.1:99999", "no address"),
        ("http://127.0.0.1:port", "no address"),
        (f"http://{'a' * 70}.example", "no address"),
        ("http://a..b", "no address"),
        ("http://\ud800", "no address"),
        ("127.0.0.1:80", "http:// or https://"),
        ("ftp://127.0.0.1", "http:// or https://"),
    ],
    ids=ascii,
)
async def test_an_address_that_is_none_is_called_so(
    client: HttpClient, url: str, words: str
) -> None:
    error = await unanswered(client, url)
    assert words in str(error)
    assert not error.timed_out


@pytest.mark.parametrize("header", [{"X": "a\r\nY: b"}, {"X": "a\x00"}, {"X\n": "a"}], ids=ascii)
async def test_a_header_that_cannot_be_sent_is_not_blamed_on_the_address(
    client: HttpClient, serve: Serve, header: dict[str, str]
) -> None:
    async def handle(request: web.BaseRequest) -> web.Response:
        raise AssertionError("nothing may arrive")

    with pytest.raises(NoAnswer, match="header"):
        await client.request("GET", await serve(handle), headers=header)


async def test_two_ways_to_say_who_one_is_are_one_too_many(
    client: HttpClient, serve: Serve
) -> None:
    async def handle(request: web.BaseRequest) -> web.Response:
        raise AssertionError("nothing may arrive")

    url = await serve(handle)
    error = await unanswered(client, url.replace("http://", "http://user:word@"))
    assert "header" in str(error)


# No answers


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "hung up"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "hung up"),
        (b"220 mail.example.com ESMTP\r\n", "no HTTP"),
        (b"\x16\x03\x01\x00\x00", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP|broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "broke off"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
            "not encoded as it says",
        ),
    ],
    ids=[
        "nothing",
        "half a head",
        "SMTP",
        "TLS",
        "a huge head",
        "no chunk",
        "cut short",
        "no gzip",
    ],
)
async def test_an_answer_that_is_none_is_told_in_words(
    client: HttpClient, listen: Listen, answer: bytes, words: str
) -> None:
    url = await listen(saying(answer))
    with pytest.raises(NoAnswer, match=words) as caught:
        await client.request("GET", url)
    assert not caught.value.timed_out
    assert not (await unanswered(client, url)).timed_out


async def test_a_connection_that_is_reset_is_told_in_words(
    client: HttpClient, listen: Listen
) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    assert "the connection broke" in str(await unanswered(client, await listen(reset)))


async def test_a_port_where_nobody_listens_is_told_in_words(client: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "nothing listens" in str(await unanswered(client, f"http://127.0.0.1:{port}"))


async def test_a_name_that_is_none_is_told_in_words(client: HttpClient) -> None:
    assert "name cannot be found" in str(await unanswered(client, "http://nowhere.invalid"))


async def test_a_server_without_tls_is_told_in_words(client: HttpClient) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        error = await unanswered(client, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert "does not speak TLS" in str(error)


async def test_a_certificate_that_is_not_trusted_is_told_in_words(client: HttpClient) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    async with server:
        error = await unanswered(client, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert "its certificate is not trusted" in str(error)


async def test_a_server_that_does_not_answer_is_given_up(serve: Serve) -> None:
    over = asyncio.Event()

    async def handle(request: web.BaseRequest) -> web.Response:
        await over.wait()
        return web.Response()

    client = HttpClient(0.05)
    error = await unanswered(client, await serve(handle))
    over.set()
    await client.close()
    assert error.timed_out
    assert "did not answer in time" in str(error)


async def test_a_server_that_never_comes_to_an_end_is_given_up(listen: Listen) -> None:
    over = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await over.wait()

    client = HttpClient(0.05)
    error = await unanswered(client, await listen(peer))
    over.set()
    await client.close()
    assert error.timed_out


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_an_answer_that_is_too_long_does_not_fill_the_memory(
    serve: Serve, encoding: str
) -> None:
    async def handle(request: web.BaseRequest) -> web.Response:
        body = b"x" * int(request.path[1:])
        if encoding == "gzip":
            body = gzip.compress(body)
        return web.Response(status=404, body=body, headers={"Content-Encoding": encoding})

    url = await serve(handle)
    client = HttpClient(10, max_answer=1_000_000)
    assert len((await client.request("GET", f"{url}/1000000")).body) == 1_000_000
    with pytest.raises(AnswerTooLarge, match="more than 1000000 bytes") as caught:
        await client.request("GET", f"{url}/1000001")
    assert (caught.value.status, caught.value.timed_out) == (404, False)
    assert len((await client.request("GET", f"{url}/7")).body) == 7
    await client.close()


def test_an_answer_may_be_long_where_nothing_else_is_said() -> None:
    assert HttpClient(10)._max_answer == MAX_ANSWER > 10_000_000


async def test_a_request_that_is_cancelled_leaves_the_client_usable(
    client: HttpClient, serve: Serve
) -> None:
    arrived, over = asyncio.Event(), asyncio.Event()

    async def handle(request: web.BaseRequest) -> web.Response:
        if request.path == "/slow":
            arrived.set()
            await over.wait()
        return web.Response()

    url = await serve(handle)
    asking = asyncio.create_task(client.request("GET", f"{url}/slow"))
    await arrived.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    over.set()
    assert (await client.request("GET", url)).status == 200


async def test_a_close_ends_what_is_under_way(client: HttpClient, serve: Serve) -> None:
    arrived, over = asyncio.Event(), asyncio.Event()

    async def handle(request: web.BaseRequest) -> web.Response:
        arrived.set()
        await over.wait()
        return web.Response()

    url = await serve(handle)
    asking = asyncio.create_task(unanswered(client, url))
    await arrived.wait()
    await client.close()
    assert not (await asking).timed_out
    over.set()
    assert (await client.request("GET", url)).status == 200


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ClientConnectorCertificateError", "its certificate is not trusted"),
        ("ClientConnectorSSLError", "does not speak TLS"),
        ("ClientConnectorDNSError", "its name cannot be found"),
        ("ClientConnectorError", "is the server running"),
        ("ClientOSError", "the connection broke"),
        ("ServerDisconnectedError", "it hung up"),
        ("ClientPayloadError", "broke off"),
        ("ClientResponseError", "no HTTP"),
        ("UploadAbortedError", "whole request"),
        ("InvalidURL", "this is no address"),
        ("InvalidUrlClientError", "this is no address"),
        ("NonHttpUrlClientError", "http:// or https://"),
        ("ClientError", "ClientError"),
    ],
)
def test_the_kinds_of_failure_have_words(name: str, words: str) -> None:
    # aiohttp's own, and not only those that a test above can bring about.
    kind = getattr(aiohttp.client_exceptions, name)
    assert words in http._reason(kind.__new__(kind))

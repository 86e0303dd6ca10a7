"""What strangers say, as far as it may be shown."""

from __future__ import annotations

import pytest

from antiphon.doctor.case import Reply
from antiphon.settings import Settings
from tests.client.peer import Dial, Peer
from tests.server.wire import TIMEOUT

from .examined import a_case

SECRET, TOKEN = "secret-never-to-be-printed", "token-never-to-be-printed"
CASE = a_case(Settings(app_key="k", app_secret=SECRET), token=TOKEN)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<html><head><title>\n Sign  in </title></head>More</html>", "Sign in"),
        ("<style>body {}</style><p>Not <b>found</b></p>", "Not found"),
        ('{"message":"Unauthenticated."}', "Unauthenticated."),
        ('{"error":"Not signed","code":401}', "Not signed"),
        ('{"ok":1}', '{"ok":1}'),
        ("[" * 100_000, "[" * 80 + "…"),
        ("\x1b]0;owned\x07\u202eevil", "]0;owned evil"),
        (f"{SECRET}, {TOKEN} and {'0aF3' * 16}", "…, … and …"),
        ("x" * 81, "x" * 80 + "…"),
        (f"{'x' * 70} {SECRET}", "x" * 70 + " …"),
        ("", ""),
    ],
)
def test_an_excerpt_is_short_and_plain_and_holds_no_secret(said: str, shown: str) -> None:
    assert CASE.excerpt(said) == shown


def test_bytes_that_are_no_text_have_an_excerpt_too() -> None:
    assert CASE.excerpt(b"\xff\xfeSSH") == "\ufffd\ufffdSSH"


def test_a_reply_is_read_as_far_as_it_came() -> None:
    reply = Reply(b"HTTP/1.1 502 Bad Gateway\r\nServer: nginx\r\n\r\nOops", ended=False)
    assert (reply.status, reply.reason, reply.body) == (502, "Bad Gateway", "Oops")
    assert reply.headers["server"] == "nginx"
    for odd in (b"", b"HTTP/1.1", b"HTTP/1.1 99\r\n\r\n", b"SSH-2.0\r\n"):
        assert Reply(odd, ended=True).status == 0


async def test_a_body_is_not_waited_for_longer_than_its_length_says() -> None:
    async def answer(dial: Dial) -> None:
        await dial.answer(404, "Not here")
        await dial.end()

    async with Peer(answer) as peer:
        case = a_case(peer.settings(), timeout=TIMEOUT)
        reply = await case.ask()
        assert (reply.status, reply.body) == (404, "Not here")


async def test_a_body_without_a_length_is_read_as_far_as_it_comes() -> None:
    async def answer(dial: Dial) -> None:
        await dial.request()
        dial.send_bytes(b"HTTP/1.1 404 Not Found\r\n\r\nNot")
        await dial.end()

    async with Peer(answer) as peer:
        reply = await a_case(peer.settings()).ask()
        assert (reply.status, reply.body) == (404, "Not")


async def test_a_head_without_an_end_is_no_answer() -> None:
    async def answer(dial: Dial) -> None:
        await dial.request()
        dial.send_bytes(b"HTTP/1.1 404 Not Found\r\nX: " + b"x" * 100_000)
        await dial.end()

    async with Peer(answer) as peer:
        reply = await a_case(peer.settings()).ask()
        assert reply.status == 404
        assert len(reply.raw) < 100_000


async def test_a_connection_that_is_reset_has_ended() -> None:
    async def reset(dial: Dial) -> None:
        await dial.request()
        dial.abort()

    async with Peer(reset) as peer:
        reply = await a_case(peer.settings()).ask()
        assert (reply.raw, reply.ended) == (b"", True)

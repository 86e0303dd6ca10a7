"""`antiphon listen` for people: what stands on the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
from typing import Final

import pytest

from antiphon.publisher import Publisher
from antiphon.server import Server
from tests.chat.house import PASSWORD, House

from .command import Ended, lines, run, running, steers
from .strangers import ESTABLISHED, http_server, saying

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIME: Final = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "


def listen(port: int, *more: object) -> tuple[object, ...]:
    where = ("--host", "127.0.0.1", "--port", port, "--scheme", "http")
    return ("listen", "--app-key", "k", *where, *more)


def assert_printed(out: str, *patterns: str) -> None:
    """All that was printed, line by line; `TIME` stands in front of lines with a level."""
    printed = lines(out)
    for line, pattern in zip(printed, patterns, strict=False):
        stamped = TIME + pattern if pattern.startswith(r"\[") else pattern
        assert re.fullmatch(stamped, line), f"{line!r} is not {pattern!r}"
    assert len(printed) == len(patterns), printed[len(patterns) :]


async def test_a_chat_is_printed_as_it_happens(server: Server, house: House) -> None:
    more = ("--api", house.api_url, "--email", "ali@example.com")
    async with running(*listen(server.port, *more), env={"ANTIPHON_PASSWORD": PASSWORD}) as command:
        await command.until("Subscribed to")
        async with (
            house.as_(house.john) as john,
            house.as_(house.ali) as ali,
            Publisher(server.settings()) as publisher,
        ):
            await john.typing(house.conversation)
            await command.until("Conversation: 1")
            sent = await john.send(house.conversation, "Hello!\nHow are you?\t\x1b[31mred\x07")
            await command.until("Content: ")
            await ali.read(house.conversation, sent.id)
            await command.until("Messages: ")
            await publisher.trigger("private-user.1", "OrderShipped", {"id": 5, "to": "Qo'qon\n"})
            await command.until("Data: ")
            await publisher.trigger("private-user.1", "MessageSent", {"id": 5})
            await command.until("Data: ")
        command.signal()
        ended = await command.ended()
    assert (ended.status, ended.err) == (0, "")
    assert_printed(
        ended.out,
        r"\[SUCCESS\] Login successful! ✓",
        r"\[INFO\] Connecting …",
        r"\[SUCCESS\] WebSocket connection opened",
        r"\[SUCCESS\] Connected! socket_id=\d+\.\d+",
        r"\[SUCCESS\] Subscribed to private-user\.1 ✓",
        r"\[EVENT\] ⌨️  TYPING",
        r"  User: John Doe",
        r"  Conversation: 1",
        r"\[EVENT\] 📨 NEW MESSAGE",
        r"  ID: \d+",
        r"  From: John Doe",
        r"  Content: Hello!",
        r"    How are you\?·\[31mred·|    How are you\?··\[31mred·",
        r"\[EVENT\] 👀 MESSAGES READ",
        r"  Reader: 1",
        r"  Conversation: 1",
        r"  Messages: \d+",
        r"\[EVENT\] OrderShipped on private-user\.1",
        r"""  Data: {"id":5,"to":"Qo'qon\\n"}""",
        r"\[ERROR\] The data of MessageSent on private-user\.1 is not what .*",
        r"\[EVENT\] MessageSent on private-user\.1",
        r"""  Data: {"id":5}""",
        r"\[INFO\] Disconnected",
    )


HOSTILE: Final = (
    '{"event":"\\u001b]0;owned\\u0007\\u009b2J\\r\\n[2026-01-01 00:00:00] [SUCCESS] Fake",'
    '"channel":"news","data":"\\u001b[31m\\u007f\\u0085\\u202e\\u2028"}',
    '{"event":"MessageSent","channel":"news","data":{"message":{"id":"\\u001b[2J","chat_id":1,'
    '"sender_id":2,"sender_name":"\\u001b[1mJohn\\n  Content: fake\\n[2026","content":"\\u009b"}}}',
    '{"event":"pusher:error","data":{"code":4301,"message":"\\u001b[5mblink\\nnew line"}}',
    "\x1b]0;owned\x07 no JSON",
    '{"event":"last","channel":"\\u001b[31mnews","data":{"\\u001b":1}}',
    '{"event":"end","channel":"news"}',
)


async def test_nothing_of_a_stranger_steers_the_terminal() -> None:
    async with http_server(saying(ESTABLISHED, *HOSTILE)) as port:
        ended = await run(*listen(port, "--channel", "news", "--max-events", 4))
    assert ended.status == 0
    assert steers(ended.out.replace("\n", "")) == []
    for line in lines(ended.out):
        assert re.match(rf"{TIME}\[[A-Z]+\] |  ", line), f"{line!r} could be mistaken for ours"


async def test_details_of_a_stranger_cannot_be_mistaken_for_others() -> None:
    async with http_server(saying(ESTABLISHED, *HOSTILE)) as port:
        ended = await run(*listen(port, "--channel", "news", "--max-events", 4))
    assert [line for line in lines(ended.out) if line.startswith("  Content: fake")] == []


async def test_on_a_terminal_it_is_coloured_and_in_a_pipe_it_is_not(server: Server) -> None:
    frames = (*HOSTILE[:3], '{"event":"end","channel":"news"}')
    async with http_server(saying(ESTABLISHED, *frames)) as port:
        args = listen(port, "--channel", "news", "--max-events", 3)
        in_a_pipe, on_a_terminal = await asyncio.gather(run(*args), on_terminal(*args))
    assert "\x1b" not in in_a_pipe.out
    colours = re.findall(r"\x1b\[[0-9;]*m", on_a_terminal.out)
    assert len(set(colours)) > 3
    bare = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal.out).replace("\r\n", "\n")
    assert without_times(bare) == without_times(in_a_pipe.out)


async def test_colours_can_be_declined() -> None:
    async with http_server(saying(ESTABLISHED, '{"event":"end","channel":"news"}')) as port:
        args = listen(port, "--channel", "news", "--max-events", 1)
        ended = await on_terminal(*args, env={"NO_COLOR": "1"})
    assert re.findall(r"\x1b\[(?:3|4|9|10)\d", ended.out) == []


def without_times(text: str) -> str:
    return re.sub(TIME, "", text)


async def on_terminal(*args: object, env: dict[str, str] | None = None) -> Ended:
    """A command whose standard output is a terminal."""
    ours, theirs = pty.openpty()
    loop = asyncio.get_running_loop()
    said = bytearray()

    def read() -> None:
        # A terminal whose last user has gone answers with an error.
        with contextlib.suppress(OSError):
            said.extend(os.read(ours, 65_536))

    loop.add_reader(ours, read)
    try:
        environ = {"TERM": "xterm-256color", **(env or {})}
        async with running(*args, stdout=theirs, env=environ) as command:
            status, _, err = await command.ended()
        read_rest(ours, said)
    finally:
        loop.remove_reader(ours)
        os.close(theirs)
        os.close(ours)
    return Ended(status, said.decode(), err)


def read_rest(ours: int, said: bytearray) -> None:
    os.set_blocking(ours, False)
    with contextlib.suppress(OSError):
        while more := os.read(ours, 65_536):
            said.extend(more)


async def test_output_that_is_no_utf_8_is_no_reason_to_fail() -> None:
    frames = ('{"event":"e","channel":"news","data":"дело 💬"}',)
    async with http_server(saying(ESTABLISHED, *frames)) as port:
        args = listen(port, "--channel", "news", "--max-events", 1)
        ended = await run(*args, env={"PYTHONIOENCODING": "ascii"}, cold=True)
    assert (ended.status, ended.err) == (0, "")
    assert "Subscribed" not in ended.out
    assert "[EVENT] e on news" in ended.out


async def test_it_ends_when_nobody_reads_it_any_more(server: Server) -> None:
    async with running(*listen(server.port, "--channel", "news")) as command:
        await command.until("Subscribed to")
        command.close_output()
        async with Publisher(server.settings()) as publisher:
            for n in range(3):
                await publisher.trigger("news", "e", n)
        ended = await command.ended()
    assert ended.err == ""

"""`antiphon demo`: what a newcomer sees first."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import pytest
import pytest_asyncio

from .command import TIMEOUT, Ended, lines, run, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIME: Final = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "
JOINED: Final = (
    TIME + r"\[SUCCESS\] Login successful! ✓",
    TIME + r"\[INFO\] Connecting …",
    TIME + r"\[SUCCESS\] WebSocket connection opened",
    TIME + r"\[SUCCESS\] Connected! socket_id=\d+\.\d+",
    TIME + r"\[SUCCESS\] Subscribed to private-user\.1 ✓",
)
TYPED: Final = (
    TIME + r"\[EVENT\] ⌨️  TYPING",
    r"  User: John Doe",
    r"  Conversation: 1",
)
SENT: Final = (
    TIME + r"\[EVENT\] 📨 NEW MESSAGE",
    r"  ID: 1",
    r"  From: John Doe",
    r"  Content: Hello!",
)
READ: Final = (
    TIME + r"\[EVENT\] 👀 MESSAGES READ",
    r"  Reader: 1",
    r"  Conversation: 1",
    r"  Messages: 1",
)
LEFT: Final = (TIME + r"\[INFO\] Disconnected",)
# As `make demo` has it: the command stands in a virtual environment that is not on the PATH.
PATH: Final = "/usr/bin:/bin"
ROOT: Final = Path(__file__).parents[2]


class Stay(NamedTuple):
    """A demo that stayed up, and what came of its invitations."""

    played: list[str]
    shown: list[str]
    document: dict[str, Any]
    after_curl: list[str]
    john: Ended
    after_publish: list[str]
    chat: list[str]
    console: tuple[int, str]
    ended: Ended


class Seen(NamedTuple):
    """Every demo that was run, and the folder for temporary files they had."""

    once: Ended
    lossy: Ended
    interrupted: Ended
    stay: Stay
    folder: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """All of them at once: most of their time goes into imports."""
    folder = tmp_path_factory.mktemp("demo")
    env = {"TMPDIR": str(folder), "PATH": PATH}
    once, lossy, cut_short, stayed = await asyncio.gather(
        run("demo", "--once", env=env, cold=True),
        run("demo", "--once", env=env, program=("-c", LOSING)),
        interrupted(env),
        stay(env),
    )
    return Seen(once, lossy, cut_short, stayed, folder)


# The real command, over a server that takes every publication and gives one of them to nobody.
LOSING: Final = """
import antiphon.cli.demo as demo
from antiphon.cli import run
from antiphon.server.hub import Hub

def deliver(hub, channel, message, *more):
    if b"MessagesRead" in message:
        demo._PATIENCE = 0.1
    else:
        whole(hub, channel, message, *more)

whole, Hub.deliver = Hub.deliver, deliver
run()
"""

# The real command, which gets no answer to its subscription.
HANGING: Final = """
import asyncio
from antiphon.cli import run
from antiphon.client import Channel

async def subscribed(channel, timeout):
    await asyncio.sleep(3600)

Channel.subscribed = subscribed
run()
"""


async def interrupted(env: dict[str, str]) -> Ended:
    """Told to end twice, as soon as there is something to see."""
    async with running("demo", "--once", env=env, program=("-c", HANGING)) as command:
        await command.until("Login successful")
        command.signal(signal.SIGINT)
        await command.until("Connecting")
        command.signal(signal.SIGTERM)  # two of one kind may count as one
        return await command.ended()


async def stay(env: dict[str, str]) -> Stay:
    script = os.path.join(os.path.dirname(sys.executable), "antiphon")
    async with running("demo", env=env, program=(script,)) as command:
        played = await command.until(r"^  Messages: 1$")
        shown = await command.until(r"Ctrl-C")
        (curl,) = (line for line in shown if line.strip().startswith("curl "))
        (export,) = (line for line in shown if line.startswith("  export "))
        who = dict(word.split("=", 1) for word in shlex.split(export)[1:])
        (schema,) = re.findall(r"API: (http://\S+?)\)", "\n".join(shown))
        (chat,) = re.findall(r"  Chat +(http://\S+/demo)", "\n".join(shown))
        async with aiohttp.ClientSession() as http, http.get(schema) as answer:
            document = await answer.json(content_type=None)
            async with http.get(chat) as pages:
                assert (pages.status, (await pages.text()).count("?as=")) == (200, 2)
        await perform(curl)
        heard = await command.until(r"^  Content: ")
        john = await accept(arguments(shown, "listen"), who, curl)
        published = await run(*arguments(shown, "publish"), env=who)
        assert published.status == 0
        after_publish = await command.until(r"^  Data: ")
        async with running(*arguments(shown, "chat"), "--no-browser", env={**env, **who}) as app:
            served = await app.until("The chat is at ")
            app.signal(signal.SIGINT)
            await app.ended()
        (console,) = (line for line in shown if "examples/console.py" in line)
        talk = await use(console, who)
        command.signal(signal.SIGINT)
        return Stay(
            *(played, shown, document, heard, john),
            *(after_publish, served, talk, await command.ended()),
        )


def arguments(shown: list[str], name: str) -> list[str]:
    """What the line of a command says after `antiphon`."""
    (line,) = (line for line in shown if re.search(rf"antiphon {name}( |$)", line))
    words = shlex.split(line)
    return words[words.index(name) :]


async def use(line: str, who: dict[str, str]) -> tuple[int, str]:
    """Run an example as the demo says, with nothing typed into it: its status, and what it says."""
    program, path = shlex.split(line)
    with tempfile.TemporaryDirectory() as folder:  # for the file it keeps
        process = await asyncio.create_subprocess_exec(
            *(program, ROOT / path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": PATH, **who},
            cwd=folder,
        )
        async with asyncio.timeout(TIMEOUT):
            out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def perform(line: str) -> None:
    """Run a curl line, or make its request where there is no curl."""
    words = shlex.split(line)
    if shutil.which("curl"):
        silent = ("--silent", "--show-error", "--fail")
        process = await asyncio.create_subprocess_exec(
            words[0], *silent, *words[1:], stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(TIMEOUT):
            assert await process.wait() == 0
        return
    command, option, method, url, *rest = words
    assert (command, option) == ("curl", "-X")
    options = list(zip(rest[::2], rest[1::2], strict=True))
    headers = dict(value.split(": ", 1) for name, value in options if name == "-H")
    (data,) = (value for name, value in options if name == "-d")
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url, headers=headers, data=data.encode()) as answer,
    ):
        assert answer.status == 201


async def accept(listen: list[str], who: dict[str, str], curl: str) -> Ended:
    """Listen as the demo says, with the antiphon under test, and let one more message come."""
    async with running(*listen, env=who) as john:
        await john.until("Subscribed to")
        await perform(curl)
        await john.until(r"^  Content: ")
        john.signal(signal.SIGINT)
        return await john.ended()


def assert_printed(printed: list[str], *patterns: str) -> None:
    for line, pattern in zip(printed, patterns, strict=False):
        assert re.fullmatch(pattern, line), f"{line!r} is not {pattern!r}"
    assert len(printed) == len(patterns), (printed[len(patterns) :], patterns[len(printed) :])


async def test_once_shows_the_conversation_and_nothing_else(seen: Seen) -> None:
    assert (seen.once.status, seen.once.err) == (0, "")
    assert_printed(lines(seen.once.out), *JOINED, *TYPED, *SENT, *READ, *LEFT)


async def test_once_fails_when_an_event_is_stored_but_not_received(seen: Seen) -> None:
    assert seen.lossy.status == 1
    assert_printed(lines(seen.lossy.out), *JOINED, *TYPED, *SENT, *LEFT)
    assert re.fullmatch(r"antiphon: [^\n]+\n", seen.lossy.err)


async def test_what_was_not_received_is_named(seen: Seen) -> None:
    assert re.search(r"[Mm]essages_?\s?[Rr]ead", seen.lossy.err), seen.lossy.err


async def test_once_that_is_interrupted_does_not_claim_that_all_was_received(seen: Seen) -> None:
    assert seen.interrupted.status == 1
    assert "MESSAGES READ" not in seen.interrupted.out
    assert seen.interrupted.err.count("\n") <= 1


async def test_without_once_it_stays_up_and_shows_what_to_try(seen: Seen) -> None:
    assert_printed(seen.stay.played, *JOINED, *TYPED, *SENT, *READ)
    shown = "\n".join(seen.stay.shown)
    assert re.search(r"http://127\.0\.0\.1:\d+ .*demo-key", shown), "the server's address"
    assert re.search(r"ali@example\.com and john@example\.com, password \S+", shown)
    assert "/api/login" in seen.stay.document["paths"]


async def test_the_curl_line_it_shows_sends_one_more_message(seen: Seen) -> None:
    assert_printed(
        [line for line in seen.stay.after_curl if line],
        *(SENT[0], r"  ID: 2", r"  From: John Doe", r"  Content: Hello from curl!"),
    )


async def test_the_listener_it_shows_hears_as_the_other_user(seen: Seen) -> None:
    assert (seen.stay.john.status, seen.stay.john.err) == (0, "")
    assert_printed(
        lines(seen.stay.john.out),
        *(*JOINED[:-1], TIME + r"\[SUCCESS\] Subscribed to private-user\.2 ✓"),
        *(SENT[0], r"  ID: 3", r"  From: John Doe", r"  Content: Hello from curl!"),
        *LEFT,
    )


async def test_what_is_published_as_it_shows_is_heard(seen: Seen) -> None:
    hello = [TIME + r"\[EVENT\] Hello on private-user\.1", r'  Data: \{"from":"John"\}']
    assert_printed(seen.stay.after_publish[-2:], *hello)


async def test_the_chat_app_it_shows_starts(seen: Seen) -> None:
    assert seen.stay.chat[-1].startswith("The chat is at http://127.0.0.1:")


async def test_the_console_it_shows_talks_to_the_demo(seen: Seen) -> None:
    status, out = seen.stay.console
    assert status == 0
    assert lines(out)[:2] == ["— Ali Qo'chqorov —", "John Doe: Hello!"]


async def test_the_command_it_shows_can_be_found(seen: Seen) -> None:
    (listen,) = (line for line in seen.stay.shown if " listen " in line)
    command = shlex.split(listen)[0]
    assert shutil.which(command, path=PATH), f"{command} is not on the PATH {PATH}"


async def test_ctrl_c_ends_it_with_0(seen: Seen) -> None:
    assert (seen.stay.ended.status, seen.stay.ended.err) == (0, "")
    assert_printed(lines(seen.stay.ended.out)[-1:], *LEFT)


async def test_it_leaves_nothing_behind(seen: Seen) -> None:
    assert os.listdir(seen.folder) == []

"""The examples as their users run them: `python examples/…` beside a real server and backend."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
import pytest_asyncio

from antiphon.backend import User
from antiphon.chat import ChatSession, Entry
from antiphon.settings import Settings

from .chat.house import PASSWORD
from .chat.stage import Stage, Told, channel, contents, open_stage, until

EXAMPLES: Final = Path(__file__).parent.parent / "examples"


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path) as stage:
        yield stage


class Program:
    """An example that runs.

    Attributes:
        out: What it has printed, both ways, line by line.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out: list[str] = []
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.out.append(line.decode().rstrip("\n"))

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def ended(self) -> int:
        async with asyncio.timeout(120):
            status = await self.process.wait()
            await self._reading
        return status


@contextlib.asynccontextmanager
async def running(
    stage: Stage, name: str, user: User, folder: Path, **changed: str | None
) -> AsyncIterator[Program]:
    """Run an example as a user; `changed`: variables of another value, or of none."""
    settings = stage.settings
    ours = ("REVERB_", "PUSHER_", "ANTIPHON_", "APP_URL")
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith(ours)},
        "REVERB_APP_KEY": settings.app_key,
        "REVERB_HOST": settings.host,
        "REVERB_PORT": str(settings.port),
        "REVERB_SCHEME": settings.scheme,
        "APP_URL": settings.api_url,
        "ANTIPHON_EMAIL": user.email,
        "ANTIPHON_PASSWORD": PASSWORD,
        **changed,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", EXAMPLES / name),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={name: value for name, value in env.items() if value is not None},
        cwd=folder,
    )
    program = Program(process)
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await program.ended()
        program.hang_up()


def answers(chat: ChatSession, room: int) -> list[Entry]:
    return [entry for entry in chat.room(room).timeline.entries if not entry.is_mine]


async def test_the_bot_answers_each_message_once_also_through_a_cut(
    stage: Stage, tmp_path: Path
) -> None:
    house = stage.house
    async with (
        await stage.session(house.john, settings=_direct(stage)) as john,
        running(stage, "bot.py", house.ali, tmp_path) as bot,
    ):
        await until(lambda: bot.out and stage.gate.count("GET /api/conversations$"), 60)
        wanted = ["You said: are you there"]
        await john.send(house.conversation, "are you there")
        await until(lambda: len(answers(john, house.conversation)) == 1, 60)
        stage.line.down()
        for number in range(3):
            await john.send(house.conversation, f"no {number}")
            wanted.append(f"You said: no {number}")
        await until(lambda: not john.outbox.waiting())
        stage.line.up()
        await until(lambda: len(answers(john, house.conversation)) == 4, 60)
        await john.send(house.conversation, "good-bye")
        wanted.append("You said: good-bye")
        await until(lambda: len(answers(john, house.conversation)) == 5, 60)
        assert [entry.content for entry in answers(john, house.conversation)] == wanted
        assert bot.out[0] == "Listening as Ali Qo'chqorov"
        said = [line.removeprefix("John Doe: ") for line in bot.out if "John Doe: " in line]
        assert [f"You said: {text}" for text in said] == wanted
        bot.process.send_signal(signal.SIGINT)
        assert await bot.ended() == 0
        assert not any("Traceback" in line for line in bot.out)
    assert len(await house.everything()) == 10


async def test_the_console_shows_what_comes_and_sends_what_is_typed(
    stage: Stage, tmp_path: Path
) -> None:
    house = stage.house
    await stage.say("said before", told=False)
    john = await stage.session(house.john, settings=_direct(stage))
    told = Told(john)
    async with john, running(stage, "console.py", house.ali, tmp_path) as console:
        room = john.room(house.conversation)
        await until(lambda: "John Doe: said before" in console.out, 60)
        assert console.out[0] == "— John Doe —"
        console.type("hello John\n\n   \n")
        await until(lambda: told.said == ["hello John"])
        await room.open()
        # Who is not there yet is told of no keystroke.
        await until(lambda: (held := channel(room)) is not None and held.members.count == 2)
        room.keystroke()
        await until(lambda: "(John Doe is typing)" in console.out)
        await room.send("hello Ali")
        await until(lambda: "John Doe: hello Ali" in console.out)
        # What is shown there has been read.
        await until(lambda: room.timeline.entries[-1].status == "read")
        stage.line.down()
        await until(lambda: any(line.startswith("! ") for line in console.out))
        await room.send("missed")
        await until(lambda: not john.outbox.waiting())
        stage.line.up()
        await until(lambda: "John Doe: missed" in console.out, 60)
        assert console.out.count("John Doe: missed") == 1
        console.type("/quit\n")
        assert await console.ended() == 0
        assert not any("Traceback" in line for line in console.out)
    assert contents(room) == ["said before", "hello John", "hello Ali", "missed"]


async def test_the_console_ends_with_its_input_and_loses_nothing(
    stage: Stage, tmp_path: Path
) -> None:
    house = stage.house
    async with running(stage, "console.py", house.ali, tmp_path) as console:
        console.type("the last word\n")
        console.hang_up()
        assert await console.ended() == 0
        assert not any("Traceback" in line for line in console.out)
    assert await house.everything() == ["the last word"]


async def test_ctrl_c_ends_the_console_at_once(stage: Stage, tmp_path: Path) -> None:
    async with running(stage, "console.py", stage.house.ali, tmp_path) as console:
        await until(lambda: "— John Doe —" in console.out, 60)
        console.type("half a li")
        console.process.send_signal(signal.SIGINT)
        assert await console.ended() == 0  # though its input is still open
        assert console.out == ["— John Doe —"]


MISTAKES: Final = {
    "a wrong password": ("ANTIPHON_PASSWORD", "nonsense", "refused the login"),
    "no e-mail address": ("ANTIPHON_EMAIL", None, "'ANTIPHON_EMAIL' is not set."),
    "no key": ("REVERB_APP_KEY", None, "REVERB_APP_KEY"),
    "no backend": ("APP_URL", None, "backend"),
}


@pytest.mark.parametrize("name", ["bot.py", "console.py"])
async def test_an_ordinary_mistake_is_told_in_one_line(
    stage: Stage, tmp_path: Path, name: str
) -> None:
    async def told(variable: str, value: str | None) -> tuple[int, list[str]]:
        changed = {variable: value}
        async with running(stage, name, stage.house.ali, tmp_path, **changed) as program:
            return await program.ended(), program.out

    for variable, value, words in MISTAKES.values():
        status, out = await told(variable, value)
        assert status == 1
        assert len(out) == 1, out
        assert words in out[0]


def _direct(stage: Stage) -> Settings:
    """Past the line and the gate."""
    return msgspec.structs.replace(stage.house.settings, api_url=stage.house.api_url)

"""The real command as a process, read line by line, and watched for what it must not say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import unicodedata
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Self, TypeVar

from .warm import Fork

__all__ = [
    "TIMEOUT",
    "Call",
    "Command",
    "Ended",
    "documented",
    "environment",
    "lines",
    "run",
    "run_all",
    "running",
    "steers",
]

K = TypeVar("K")

TIMEOUT: Final = 120.0
_AT_ONCE: Final = 12
_OURS: Final = ("REVERB_", "PUSHER_", "ANTIPHON_", "APP_URL")
_COLOURS: Final = ("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "CLICOLOR", "COLUMNS")
_SECRET_OPTIONS: Final = ("--app-secret", "--token")
_SECRET_NAMES: Final = ("SECRET", "PASSWORD", "TOKEN")


class Ended(NamedTuple):
    """How a command ended, and all it said."""

    status: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What it said on standard output, which must be documented objects and nothing else."""
        return [documented(line) for line in lines(self.out)]


class Command:
    """One run of the command.

    Whoever waits for its end also proves that it printed no traceback and no secret that it was
    given: in an option, in the environment or in `secrets`.
    """

    warm: ClassVar[Path | None] = None
    """Where warm commands are to be had; see `warm.py`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process | Fork,
        out: _Reader,
        err: _Reader,
        args: list[str],
        secrets: list[str],
    ) -> None:
        self._process = process
        self._out = out
        self._err = err
        self._args = args
        self._secrets = secrets

    @classmethod
    async def start(
        cls,
        *args: object,
        env: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        cold: bool = False,
        program: tuple[str, ...] | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        session: bool = False,
    ) -> Self:
        """Run it.

        Args:
            *args: Its arguments.
            env: Settings in its environment, which has none of the tests' own.
            secrets: What it must not print, besides the secrets among its arguments.
            cold: Run `python -m antiphon` and not a warm fork.
            program: What Python is to run instead of the module; always cold.
            stdin: Its standard input; nothing by default.
            stdout: Its standard output; by default it is read.
            session: Whether it has a session, and so no terminal, of its own.
        """
        words, settings = [str(arg) for arg in args], environment(env or {})
        out, err = await _Reader.make(stdout), await _Reader.make()
        nothing = os.open(os.devnull, os.O_RDONLY)
        files = [nothing if stdin is None else stdin, out.end, err.end]
        process: asyncio.subprocess.Process | Fork
        try:
            if cold or program is not None or cls.warm is None:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, *(program or ("-m", "antiphon")), *words),
                    stdin=files[0],
                    stdout=files[1],
                    stderr=files[2],
                    env=settings,
                    start_new_session=session,
                )
            else:
                process = await Fork.start(cls.warm, words, settings, files, session)
        finally:
            os.close(nothing)
            out.started()
            err.started()
        return cls(process, out, err, words, [*_secrets(words, env or {}), *secrets])

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def line(self) -> str:
        """The next line of standard output, without its end."""
        return await self._out.line()

    async def until(self, pattern: str) -> list[str]:
        """Lines of standard output up to one that matches."""
        return await self._out.until(pattern)

    async def err_until(self, pattern: str) -> list[str]:
        """Lines of standard error up to one that matches."""
        return await self._err.until(pattern)

    async def err_asked(self, question: str) -> None:
        """Wait for a question on standard error, which no line feed follows."""
        await self._err.text(question)

    async def told(self, **fields: Any) -> dict[str, Any]:
        """The next JSON object on standard output that has these fields."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                found = documented(await self.line())
                if _has(found, fields):
                    return found

    async def told_all(self, *wanted: dict[str, Any]) -> None:
        """Wait until each of these has stood in a JSON object, in whatever order."""
        left = list(wanted)
        async with asyncio.timeout(TIMEOUT):
            while left:
                found = documented(await self.line())
                left = [fields for fields in left if not _has(found, fields)]

    def signal(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def close_output(self) -> None:
        """Stop reading its standard output, as `head` does when it has seen enough."""
        self._out.close()

    async def ended(self, timeout: float = TIMEOUT) -> Ended:
        """Wait for its end."""
        try:
            async with asyncio.timeout(timeout):
                status = await self._process.wait()
        except TimeoutError as exc:
            await self.stop()
            exc.add_note(f"{self._args} had not ended; it had said: {await self._said()}")
            raise
        return Ended(status, *await self._said())

    async def stop(self) -> None:
        """End it, if it runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._said()

    async def _said(self) -> tuple[str, str]:
        out, err = await self._out.all(), await self._err.all()
        for secret in self._secrets:
            assert secret not in out + err, f"{secret!r} was printed: {out + err}"
        assert "Traceback" not in out + err, out + err
        return out, err


class _Reader:
    """All that comes out of a pipe, and its lines one after the other.

    Attributes:
        end: The end to write to.
    """

    def __init__(self, end: int) -> None:
        self.end = end
        self._stream = asyncio.StreamReader(limit=2**20)
        self._transport: asyncio.ReadTransport | None = None
        self._read: list[bytes] = []

    @classmethod
    async def make(cls, end: int | None = None) -> Self:
        """A pipe; where somebody else reads from the end that is given, it stays empty."""
        if end is not None:
            reader = cls(end)
            reader._stream.feed_eof()
            return reader
        ours, theirs = os.pipe()
        reader = cls(theirs)
        reader._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader._stream), os.fdopen(ours, "rb", 0)
        )
        return reader

    def started(self) -> None:
        """Leave the end to write to to the command."""
        if self._transport is not None:
            os.close(self.end)

    def close(self) -> None:
        """Read no further."""
        if self._transport is not None:
            self._transport.close()

    async def line(self) -> str:
        try:
            async with asyncio.timeout(TIMEOUT):
                raw = await self._stream.readline()
        except TimeoutError as exc:
            exc.add_note(f"read so far: {b''.join(self._read).decode()}")
            raise
        assert raw, f"it ended; it had said: {b''.join(self._read).decode()}"
        self._read.append(raw)
        return raw.decode().rstrip("\n")

    async def until(self, pattern: str) -> list[str]:
        found = [await self.line()]
        while not re.search(pattern, found[-1]):
            found.append(await self.line())
        return found

    async def text(self, text: str) -> None:
        async with asyncio.timeout(TIMEOUT):
            self._read.append(await self._stream.readuntil(text.encode()))

    async def all(self) -> str:
        async with asyncio.timeout(TIMEOUT):
            self._read.append(await self._stream.read())
        return b"".join(self._read).decode()


# What was printed


def lines(text: str) -> list[str]:
    """Lines as programs read them: unlike `str.splitlines`, cut at line feeds only."""
    return text.removesuffix("\n").split("\n") if text else []


def steers(text: str) -> list[str]:
    """The characters of a text that move a cursor, ring, cut lines or turn the writing around."""
    return [
        f"U+{ord(c):04X}"
        for c in text
        if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "LRI", "RLI", "FSI")
    ]


_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_STATES: Final = ("initialized", "connecting", "connected", "unavailable", "failed", "disconnected")
_FIELDS: Final[dict[str, set[str]]] = {
    "state": {"previous", "current"},
    "subscribed": {"channel"},
    "event": {"event", "channel", "data"},
    "error": {"type", "code", "message"},
}
# Not in the documented examples, and only there when there is something to say.
_MORE: Final[dict[str, set[str]]] = {"event": {"user_id"}, "error": {"channel"}}


def documented(line: str) -> dict[str, Any]:
    """A line as one of the objects that `listen --json` is documented to print."""
    found: dict[str, Any] = json.loads(line)
    kind = found["kind"]
    fields = found.keys() - {"time", "kind"}
    assert _FIELDS[kind] <= fields <= _FIELDS[kind] | _MORE.get(kind, set()), line
    assert _TIME.fullmatch(found["time"]), line
    if kind == "state":
        assert found["previous"] in _STATES, line
        assert found["current"] in _STATES, line
        assert found["previous"] != found["current"], line
    elif kind == "error":
        assert found["type"] in ("connection", "subscription", "event"), line
        assert found["code"] is None or isinstance(found["code"], int), line
        assert found["message"], line
        assert "\n" not in found["message"], line
    return found


# From start to end


@contextlib.asynccontextmanager
async def running(*args: object, **options: Any) -> AsyncIterator[Command]:
    """A command that ends with the block, if it has not ended before."""
    command = await Command.start(*args, **options)
    try:
        yield command
    finally:
        await command.stop()


async def run(*args: object, timeout: float = TIMEOUT, **options: Any) -> Ended:
    """A command from its start to its end."""
    async with running(*args, **options) as command:
        return await command.ended(timeout)


class Call(NamedTuple):
    """What to call the command with."""

    args: tuple[object, ...]
    env: Mapping[str, str] = {}


async def run_all(calls: Mapping[K, Call]) -> dict[K, Ended]:
    """Several commands from their start to their end, many at once."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def call(one: Call) -> Ended:
        async with turn:
            return await run(*one.args, env=one.env)

    async with asyncio.TaskGroup() as group:
        ending = {name: group.create_task(call(one)) for name, one in calls.items()}
    return {name: task.result() for name, task in ending.items()}


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of ours, and with those in `env`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {name: value for name, value in kept.items() if name not in _COLOURS} | dict(env)


def _secrets(args: list[str], env: Mapping[str, str]) -> list[str]:
    """What of a call must not be seen again."""
    given = [args[n + 1] for n, word in enumerate(args[:-1]) if word in _SECRET_OPTIONS]
    return given + [value for name, value in env.items() if name.endswith(_SECRET_NAMES)]


def _has(found: dict[str, Any], fields: dict[str, Any]) -> bool:
    return all(name in found and found[name] == fields[name] for name in fields)

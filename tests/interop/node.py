"""JavaScript programs that speak JSON lines, as child processes."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import pytest

__all__ = ["Node", "NodeError", "require_node"]

JS: Final = Path(__file__).parents[1] / "js"
TIMEOUT: Final = 60.0


class NodeError(Exception):
    """A command threw in JavaScript."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


def require_node() -> str:
    """Path of node; without it or its packages tests are skipped, and in CI they fail."""
    node = shutil.which("node")
    if node is None:
        _do_without("there is no node on the PATH")
    if not (JS / "node_modules" / "pusher-js").is_dir():
        _do_without("tests/js/node_modules is missing: run `npm ci` in tests/js, or `make test`")
    return node


def _do_without(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Node:
    """A running program: it is told commands, and what it tells is waited for.

    Args:
        program: Its file in tests/js.
        speed: How many times faster than time its timers run.
    """

    def __init__(self, program: str, *, speed: int = 1) -> None:
        self._program = program
        self._speed = speed
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._told: list[dict[str, Any]] = []
        self._news = asyncio.Condition()

    async def start(self) -> None:
        """Start the program."""
        self._process = await asyncio.create_subprocess_exec(
            require_node(),
            str(JS / self._program),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "SPEED": str(self._speed)},
            limit=1024 * 1024,
        )
        self._reading = asyncio.create_task(self._read(self._process))

    async def ended(self) -> int:
        """Close the program's input and wait until it has nothing left to do."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(TIMEOUT):
            return await self._process.wait()

    async def stop(self) -> None:
        """End the program at once."""
        if self._process is None or self._reading is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def call(self, command: str, **words: Any) -> Any:
        """Run a command; its result.

        Raises:
            NodeError: It threw.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "command": command, **words})
        self._process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(TIMEOUT):
            return await answer

    async def heard(self, **words: Any) -> dict[str, Any]:
        """Wait for something told that has these fields; it is told once.

        Raises:
            TimeoutError: Nothing of the kind was told; what was is in a note.
        """
        try:
            async with asyncio.timeout(TIMEOUT), self._news:
                while True:
                    for number, message in enumerate(self._told):
                        if all(message.get(name) == words[name] for name in words):
                            return self._told.pop(number)
                    await self._news.wait()
        except TimeoutError as exc:
            exc.add_note(f"waited for {words}; told were {self._told}")
            raise

    def unheard(self, **words: Any) -> list[dict[str, Any]]:
        """What was told with these fields and not yet waited for."""
        return [
            message
            for message in self._told
            if all(name in message and message[name] == words[name] for name in words)
        ]

    def forget(self) -> None:
        """Pass over all that was told."""
        self._told.clear()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            message = json.loads(line)
            number = message.get("id")
            if number is None:
                async with self._news:
                    self._told.append(message)
                    self._news.notify_all()
                continue
            answer = self._answers.pop(number)
            if answer.done():
                continue  # nobody waits any longer
            if "error" in message:
                answer.set_exception(NodeError(message["error"], message["status"]))
            else:
                answer.set_result(message["result"])

"""Commands from a process that has imported all they need, each in a fork of its own.

Starting Python and importing is most of what a short command costs. Here it is paid once: what
remains is the real command with its own output, status and environment. Who wants to see it from
its very start asks `command.running` for a cold one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["Fork", "kept_warm"]

_ROOT: Final = Path(__file__).parents[2]
_MAX_REQUEST: Final = 65_536


@contextlib.contextmanager
def kept_warm(env: Mapping[str, str]) -> Iterator[Path]:
    """Run the process; it takes requests at a Unix socket and ends with the block."""
    # Not in pytest's folder: the path of such a socket must be short.
    with (
        tempfile.TemporaryDirectory(prefix="antiphon-") as folder,
        subprocess.Popen(
            [sys.executable, "-m", __name__, path := f"{folder}/socket"],
            cwd=_ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Path(path)
        process.stdin.close()


class Fork:
    """A command that was started there; as much of `asyncio.subprocess.Process` as is needed."""

    def __init__(self, pid: int, news: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._news = news
        self._writer = writer

    @classmethod
    async def start(
        cls, path: Path, args: list[str], env: Mapping[str, str], files: list[int], session: bool
    ) -> Fork:
        """Ask for a command with these arguments, environment and standard files."""
        request = json.dumps({"args": args, "env": dict(env), "session": session}).encode()
        assert len(request) < _MAX_REQUEST
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(path))
        socket.send_fds(connection, [request], files)
        news, writer = await asyncio.open_unix_connection(sock=connection)
        return cls(int(await news.readline()), news, writer)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        if self.returncode is None:
            self.returncode = int(await self._news.readline())
            self._writer.close()
            await self._writer.wait_closed()
        return self.returncode


# The other side


def main(path: str) -> None:
    """Wait for requests until standard input ends."""
    import antiphon.cli.demo
    import antiphon.cli.doctor
    import antiphon.cli.listen
    import antiphon.cli.serve  # noqa: F401 - imported when asked for
    from antiphon.cli.main import app

    words = io.StringIO()
    with contextlib.redirect_stderr(words), contextlib.suppress(SystemExit):
        app(["publish", "only-a-channel"])  # loads what reads the command line, and lays out errors
    gc.freeze()  # or each fork copies all of memory when it collects
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(100)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listener.accept()
            raw, files, _, _ = socket.recv_fds(connection, _MAX_REQUEST, 3)
            if not os.fork():
                listener.close()
                keep(connection, json.loads(raw), files)
                app()  # in the fork of the fork
            connection.close()
            for file in files:
                os.close(file)


def keep(connection: socket.socket, request: dict[str, Any], files: list[int]) -> None:
    """Fork once more, tell how the fork ends, and end; return in the fork only."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    connection.close()
    for descriptor, file in enumerate(files):
        os.dup2(file, descriptor)
        os.close(file)
    if request["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["antiphon", *request["args"]]


if __name__ == "__main__":
    main(sys.argv[1])

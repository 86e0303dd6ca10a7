"""The servers' processes: started, looked at from outside, and ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from .measure import python

_TICK = os.sysconf("SC_CLK_TCK")


class Process:
    """A server, as the kernel sees it (Linux).

    Attributes:
        pid: Its process.
        port: Where it listens.
    """

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port

    def cpu(self) -> float:
        """Seconds of CPU it has used, in user and in kernel mode."""
        # The name in parentheses may hold spaces; what is counted comes after it.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK


Serve = Callable[[], AbstractContextManager[Process]]
"""Starts a server, and ends it with the block."""


@contextmanager
def started(command: Sequence[str], directory: Path | None = None) -> Iterator[Process]:
    """A server from its own command, which prints its port; ended with the block."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=directory)
    try:
        assert process.stdout is not None
        yield Process(process.pid, int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()


@contextmanager
def server(kind: str = "antiphon", *arguments: object) -> Iterator[Process]:
    """One of `server_process`."""
    with started(python("server_process", kind, *arguments)) as process:
        yield process

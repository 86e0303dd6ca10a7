"""`native.c`, compiled when it is needed: a load that costs little, and a bare send loop."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from antiphon.server.transport import text_frame

from .loader import CHANNEL, DATA, FRAME, FRAME_SIZE, UPGRADE, publish, subscribe
from .serving import Process, started

STAMP_AT = FRAME_SIZE - len(FRAME) + FRAME.index(b"x")
"""Where in a frame its data begins, and so its stamp."""
_SOURCE = Path(__file__).with_name("native.c")


class Native:
    """The compiled program, in a directory of its own with what it sends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def send_loop(self) -> Iterator[Process]:
        """The bare send loop, as a server."""
        with started([str(self._directory / "native"), "send"], self._directory) as process:
            yield process

    @contextmanager
    def crowd(
        self, ports: Sequence[int], subscribers: int, in_flight: int = 0, publishes: int = 0
    ) -> Iterator[Crowd]:
        """Subscribers that are ready, spread over the ports; gone with the block.

        Args:
            ports: The servers'.
            subscribers: How many.
            in_flight: How many publishes wait for an answer at once, when `publish` is called.
            publishes: How many publishes that is in all.
        """
        with self._subscribers("load", subscribers, in_flight, publishes, *ports) as crowd:
            yield crowd

    @contextmanager
    def listeners(
        self, ports: Sequence[int], subscribers: int, channel: str = CHANNEL
    ) -> Iterator[Crowd]:
        """Subscribers whose `delays` can be asked; gone with the block.

        Args:
            ports: The servers'.
            subscribers: How many.
            channel: Their channel.
        """
        file = self._directory / "subscribe"
        file.write_bytes(subscribe(channel))
        try:
            with self._subscribers("delays", subscribers, STAMP_AT, *ports) as crowd:
                yield crowd
        finally:
            file.write_bytes(subscribe(CHANNEL))

    @contextmanager
    def _subscribers(self, *words: object) -> Iterator[Crowd]:
        process = subprocess.Popen(
            [str(self._directory / "native"), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._directory,
        )
        try:
            yield Crowd(process)
        finally:
            process.kill()
            process.communicate()


class Crowd:
    """Native subscribers.

    Attributes:
        seconds: How long it took to connect and subscribe them all.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        (self.seconds,) = self._line()

    def publish(self) -> tuple[float, float]:
        """Publish; seconds until everything has arrived everywhere, and the load's CPU seconds."""
        self._tell("")
        seconds, cpu = self._line()
        return seconds, cpu

    def expect(self, begins: int, frames: int) -> None:
        """Measure so many frames; those due before that nanosecond are left out of `delays`."""
        self._tell(f"{begins} {frames}")

    def delays(self) -> list[float]:
        """By how many milliseconds each frame was late, sorted; returns when all have arrived."""
        assert self._process.stdout is not None
        found = sorted(int(line) / 1e6 for line in self._process.stdout)
        if self._process.wait():
            sys.exit("The load has failed; it says above why.")
        return found

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _line(self) -> list[float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("The load has failed; it says above why.")
        return [float(word) for word in line.split()]


@contextmanager
def compiled() -> Iterator[Native | None]:
    """The program, or None (and a line that says so) where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        print("\nThere is no C compiler (cc), so what is measured by a native load is left out.")
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        subprocess.run([compiler, "-O2", "-o", directory / "native", _SOURCE], check=True)
        files = {
            "upgrade": UPGRADE,
            "subscribe": subscribe(CHANNEL),
            "publish": publish(CHANNEL, DATA),
            "frame": text_frame(FRAME),
        }
        for file, content in files.items():
            (directory / file).write_bytes(content)
        yield Native(directory)

"""Several processes that serve one address: each is forked, and replaced when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from antiphon.errors import SettingsError
from antiphon.server.listener import listen, listen_unix
from antiphon.server.metrics import Siblings

__all__ = ["Worker", "run_workers"]

log = logging.getLogger("antiphon.server")

WELL: Final = 10.0
"""Seconds after which a worker has started well: should it die, another begins soon."""
RETRY: Final = (0.5, 10.0)
"""Seconds from the death of a worker to its successor: at first, and at most."""
_USAGE: Final = 2


class Worker:
    """One of the processes, before it is forked.

    Attributes:
        number: Which, from 1.
        listening: The socket it accepts from. It is the parent's too: while a worker is being
            replaced, those who connect wait in it. One that cannot be replaced soon has none, so
            that they get to the others.
        siblings: Through which it knows the others' metrics.
        starts_at: When it is forked, or was; by the monotonic clock.
        delay: Seconds it was waited before that.
    """

    def __init__(self, number: int, listen: Callable[[], socket.socket], folder: Path) -> None:
        self.number = number
        self.listening = listen()
        self._listen = listen
        self.siblings = Siblings(folder, number)
        self.starts_at = 0.0
        self.delay = 0.0

    def listen(self) -> None:
        """Have a socket again.

        Raises:
            SettingsError: The address cannot be listened on any more.
        """
        if self.listening.fileno() < 0:
            self.listening = self._listen()


def run_workers(
    count: int, work: Callable[[Worker], int], *, host: str, port: int, unix: str
) -> int:
    """Serve with so many processes until told to stop by SIGINT or SIGTERM.

    Args:
        count: How many.
        work: What each does until it gets a SIGTERM; it gives its exit status.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        unix: Path of a Unix socket, instead of host and port.

    Returns:
        The exit status: of the worker that could not be started, else 0.

    Raises:
        SettingsError: The address cannot be listened on, or the system knows no fork.
    """
    if not hasattr(os, "fork"):
        raise SettingsError("Workers are forked, which this system cannot do; start one process.")
    with tempfile.TemporaryDirectory(prefix="antiphon-") as folder, contextlib.ExitStack() as stack:
        if unix:
            listening = stack.enter_context(listen_unix(unix))
            stack.callback(Path(unix).unlink, missing_ok=True)
            listen_again: Callable[[], socket.socket] = listening.dup
            log.info("listening on %s, with %d workers", unix, count)
        else:
            # Sockets that share an address share it with any other program of this user, without a
            # word: whether there is one shows when the address is not to be shared.
            with listen(host, port) as alone:
                port = alone.getsockname()[1]
            # One each: of one for all, the first worker that wakes takes all that wait.
            listen_again = partial(listen, host, port, shared=True)
            log.info("listening on %s:%d, with %d workers", host, port, count)
        workers = [Worker(number + 1, listen_again, Path(folder)) for number in range(count)]
        try:
            return _Parent(workers, work).run()
        finally:
            for worker in workers:
                worker.listening.close()


class _Parent:
    """Passes signals on, and replaces who dies. It has no event loop: a fork would copy it."""

    _SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)

    def __init__(self, workers: list[Worker], work: Callable[[Worker], int]) -> None:
        self._work = work
        self._workers = workers
        self._waiting = list(workers)
        self._alive: dict[int, Worker] = {}
        self._asked = 0  # how often it was to stop
        self._status = 0
        # The workers read one end of this, and end when nobody holds the other any more.
        self._life, self._mine = os.pipe()
        self._told, self._tells = os.pipe()

    def run(self) -> int:
        os.set_blocking(self._told, False)
        os.set_blocking(self._tells, False)
        handlers = {number: signal.signal(number, _ignore) for number in self._SIGNALS}
        wakeup = signal.set_wakeup_fd(self._tells, warn_on_full_buffer=False)
        try:
            while self._alive or self._waiting:
                for worker in self._due():
                    self._start(worker)
                for number in self._signals():
                    if number == signal.SIGHUP:
                        self._tell(signal.SIGHUP)
                    elif number in (signal.SIGINT, signal.SIGTERM):
                        self._stop(0)
                self._bury()
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for end in (self._life, self._mine, self._told, self._tells):
                os.close(end)
        return self._status

    def _due(self) -> list[Worker]:
        now = time.monotonic()
        due = [worker for worker in self._waiting if worker.starts_at <= now]
        self._waiting = [worker for worker in self._waiting if worker.starts_at > now]
        return due

    def _signals(self) -> bytes:
        """The signals that have come; waits for one, or for a worker that is to be started."""
        timeout = None
        if self._waiting:
            timeout = max(0.0, min(w.starts_at for w in self._waiting) - time.monotonic())
        select.select([self._told], [], [], timeout)
        try:
            return os.read(self._told, 4096)
        except BlockingIOError:
            return b""

    def _start(self, worker: Worker) -> None:
        worker.starts_at = time.monotonic()
        _flush()
        # What the child is told before it has handlers of its own waits for them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._SIGNALS)
        try:
            worker.listen()
            pid = os.fork()
            if not pid:
                self._be(worker, before)
            self._alive[pid] = worker
        except (OSError, SettingsError) as exc:  # no memory, too many processes
            self._try_later(worker, f"could not be started: {exc}")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _be(self, worker: Worker, mask: set[int | signal.Signals]) -> NoReturn:
        """What the child does."""
        status = 1
        try:
            os.setpgid(0, 0)  # Ctrl-C at the terminal is the parent's, which passes it on
            signal.set_wakeup_fd(-1)
            for number in self._SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, _ignore)  # until it is ready, there is nothing to reload
            for end in (self._mine, self._told, self._tells):
                os.close(end)
            for other in self._workers:
                if other is not worker:  # else who connects there would wait for this one too
                    other.listening.close()
            threading.Thread(target=_end_with, args=(self._life,), daemon=True).start()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            status = self._work(worker)
        except BaseException:
            log.exception("worker %d failed", worker.number)
        finally:
            _flush()
            os._exit(status)

    def _tell(self, number: signal.Signals) -> None:
        for pid in self._alive:
            os.kill(pid, number)

    def _stop(self, status: int) -> None:
        """End all; asked a second time the workers hurry, and a third time they are killed."""
        self._asked += 1
        self._status = self._status or status
        self._waiting.clear()
        self._tell(signal.SIGTERM if self._asked < 3 else signal.SIGKILL)

    def _bury(self) -> None:
        """Let successors of those that have died begin."""
        for pid, worker in list(self._alive.items()):
            done, ended = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._alive[pid]
                worker.siblings.forget()
                self._replace(worker, pid, os.waitstatus_to_exitcode(ended))

    def _replace(self, worker: Worker, pid: int, status: int) -> None:
        if self._asked:
            self._status = self._status or max(0, status)
            return
        if status == _USAGE and not worker.delay:
            self._stop(status)  # it never was: it has said why, and the others cannot do better
            return
        if time.monotonic() - worker.starts_at > WELL:
            worker.delay = 0.0
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        self._try_later(worker, f"(process {pid}) has ended {how}")

    def _try_later(self, worker: Worker, why: str) -> None:
        worker.delay = min(max(worker.delay * 2, RETRY[0]), RETRY[1])
        worker.starts_at = time.monotonic() + worker.delay
        self._waiting.append(worker)
        if worker.delay > RETRY[0]:
            worker.listening.close()
        log.error("worker %d %s; another begins in %g s", worker.number, why, worker.delay)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none at all
            stream.flush()


def _ignore(number: int, frame: object) -> None:
    """A signal is read from the pipe; it only must not have its usual effect."""


def _end_with(life: int) -> None:
    """End this process as soon as nobody holds the other end."""
    os.read(life, 1)
    os.kill(os.getpid(), signal.SIGTERM)

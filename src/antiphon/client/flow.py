"""Between the socket and slow consumers: bounded inboxes, and a valve that stops the reading.

A synchronous handler needs none of this: it runs where the event arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from time import monotonic
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar
from weakref import WeakSet, ref

from antiphon.errors import QueueOverflow

__all__ = ["Inbox", "Policy", "Stream", "Valve"]

T = TypeVar("T")

Policy = Literal["pause", "drop_oldest", "error"]
"""What happens when an inbox is full.

`pause`: the socket is read no further. `drop_oldest`: the oldest item goes. `error`: what comes
goes, until the consumer has taken what was there and been told of the loss by `QueueOverflow`.
"""

DEFAULT_LIMIT: Final = 1_000


class Valve:
    """Decides whether the socket is read.

    It is shut while an inbox with the policy `pause` is full, but never while someone waits for
    an answer from the server: a handler that subscribes and waits must not wait for itself.
    """

    def __init__(self) -> None:
        self.inboxes: WeakSet[Inbox[Any]] = WeakSet()
        self.dropped = 0
        self._full: set[Inbox[Any]] = set()
        self._waiting = 0
        self._waiters: list[asyncio.Task[Any] | None] = []
        self._turn: Callable[[bool], None] | None = None
        self._shut_at: float | None = None
        self._shut_for = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the socket is to be read."""
        return not self._full or self._waiting > 0 or any(map(self._waits_elsewhere, self._full))

    @property
    def paused(self) -> float:
        """Seconds it has been shut in all."""
        now = 0.0 if self._shut_at is None else monotonic() - self._shut_at
        return self._shut_for + now

    def connect(self, turn: Callable[[bool], None] | None) -> None:
        """Let the valve govern a socket: `turn` is called with whether to read."""
        self._turn = turn
        if turn is not None and not self.is_open:
            turn(False)

    @contextmanager
    def held_open(self) -> Iterator[Callable[[], None]]:
        """Keep reading while the server's answer is waited for; what it gives ends that earlier."""
        with self._changing():
            self._waiting += 1
        is_held = True

        def release() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                with self._changing():
                    self._waiting -= 1

        try:
            yield release
        finally:
            release()

    @contextmanager
    def held_open_for_reader(self) -> Iterator[None]:
        """Keep reading while the present task waits, should the inbox that it reads be full."""
        task = asyncio.current_task()
        with self._changing():
            self._waiters.append(task)
        try:
            yield
        finally:
            with self._changing():
                self._waiters.remove(task)

    def _waits_elsewhere(self, inbox: Inbox[Any]) -> bool:
        """Whether the task that reads an inbox cannot, because it waits for an event."""
        return inbox.reader is not None and inbox.reader() in self._waiters

    def mark(self, inbox: Inbox[Any], *, full: bool) -> None:
        """Take note of an inbox that is full, or no longer so."""
        with self._changing():
            (self._full.add if full else self._full.discard)(inbox)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        before = self.is_open
        yield
        if self.is_open is before:
            return
        if before:
            self._shut_at = monotonic()
        elif self._shut_at is not None:
            self._shut_for += monotonic() - self._shut_at
            self._shut_at = None
        if self._turn is not None:
            self._turn(not before)


class Inbox(Generic[T]):
    """A bounded queue between the socket and one consumer.

    Args:
        valve: What to shut when it is full.
        limit: Items it holds; those of one read may come on top.
        policy: What happens when it is full.
    """

    def __init__(
        self, valve: Valve, *, limit: int = DEFAULT_LIMIT, policy: Policy = "pause"
    ) -> None:
        if limit < 1:
            raise ValueError(f"A limit is at least 1 event, {limit} is not.")
        self.valve = valve
        self._limit = limit
        self._policy = policy
        # `pause` takes what comes, and says so with the last item for which there is room.
        self._full_at = limit - 1 if policy == "pause" else limit
        self._items: deque[T] = deque(maxlen=limit if policy == "drop_oldest" else None)
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._error: Exception | None = None
        self._shut = False
        self._overflow = 0
        self.dropped = 0
        # The task that last read here.
        self.reader: ref[asyncio.Task[Any]] | None = None
        valve.inboxes.add(self)

    def __len__(self) -> int:
        """Items that wait."""
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item; a closed inbox ignores it."""
        if self._closed:
            return
        if len(self._items) >= self._full_at or self._overflow:
            self._is_full()
        if not self._overflow:
            self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _is_full(self) -> None:
        """Apply the policy: there is no room for what comes."""
        if self._policy == "pause":
            if not self._shut:
                self._shut = True
                self.valve.mark(self, full=True)
            return
        if self._policy == "error":
            self._overflow += 1
        self.dropped += 1
        self.valve.dropped += 1

    async def get(self) -> T:
        """The oldest item, waited for.

        Raises:
            StopAsyncIteration: The inbox is closed and empty.
            QueueOverflow: Items were lost here, by the policy `error`; those after it follow.
            ConnectionFailed: It is empty, and nothing more can come.
            RuntimeError: Another task is waiting here already.
        """
        if self._waiter is not None:
            raise RuntimeError("Another task reads this stream; open one for each.")
        while not self._items:
            if self._overflow:
                lost, self._overflow = self._overflow, 0
                raise QueueOverflow(
                    f"{lost} events were lost: {self._limit} were waiting for a slow reader."
                )
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            self._mark_reader()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.reader is None:
            self._mark_reader()
        item = self._items.popleft()
        if self._shut and len(self._items) <= self._limit // 2:
            self._reopen()
        return item

    def fail(self, error: Exception) -> None:
        """Take nothing more, and let the consumer know why."""
        self._error = error
        self.close()

    def drain(self) -> list[T]:
        """All that waits, taken out."""
        items = list(self._items)
        self._items.clear()
        return items

    def close(self, *, discard: bool = False) -> None:
        """Take nothing more; what is there can still be had, unless it is discarded."""
        self._closed = True
        if discard:
            self._items.clear()
        self._reopen()
        self._wake()

    def _mark_reader(self) -> None:
        task = asyncio.current_task()
        self.reader = None if task is None else ref(task)

    def _reopen(self) -> None:
        if self._shut:
            self._shut = False
            self.valve.mark(self, full=False)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Stream(Generic[T]):
    """An asynchronous iterator over what arrives from now on.

    It ends when the channel is left or the client closed. One of events raises the
    `ConnectionFailed` with which a client gives up; one of changes, errors, reconnections or frames
    goes on, for the client may connect again. Leaving the loop and dropping the stream frees it;
    `close()`, or using it as a context manager, says so outright.
    """

    def __init__(self, inbox: Inbox[T], detach: Callable[[], None]) -> None:
        self._inbox = inbox
        self._detach = detach
        self._loop = _running_loop()
        self._thread = get_ident()

    @property
    def dropped(self) -> int:
        """Items lost to the policy `drop_oldest`."""
        return self._inbox.dropped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._inbox:
            return await self._inbox.get()
        # Who waits here in a handler, or in a loop over another stream, must not wait for itself.
        with self._inbox.valve.held_open_for_reader():
            return await self._inbox.get()

    def close(self) -> None:
        """Receive nothing more."""
        self._detach()
        self._inbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A full inbox nobody reads would keep the socket from being read for ever. The last
        # reference may go in any thread, and after the loop has ended.
        if get_ident() == self._thread:
            self.close()
        elif self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_release, self._inbox, self._detach)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _release(inbox: Inbox[Any], detach: Callable[[], None]) -> None:
    detach()
    inbox.close()

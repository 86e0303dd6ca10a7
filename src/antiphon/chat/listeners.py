"""Who is told: observers at once, handlers one event after the other."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

from antiphon.errors import AntiphonError, HandlerFailed

__all__ = ["Listeners"]

LIMIT: Final = 1_000
"""Events that may wait for one handler before the session reads no further."""

What = Literal["message", "typing", "read", "error"]
"""What a handler is called with."""

log = logging.getLogger("antiphon.chat")


class Listeners:
    """Calls what a program has given to be called; nothing one of them does disturbs another.

    Args:
        report: Is told of a handler that has raised.
    """

    def __init__(self, report: Callable[[AntiphonError], None]) -> None:
        self._report = report
        self._observers: tuple[Callable[[Any], None], ...] = ()
        self._handlers: defaultdict[What, list[_Handler]] = defaultdict(list)
        self._tasks: set[asyncio.Task[None]] = set()
        self._eased = asyncio.Event()
        # What waits for the handlers that a program is about to give.
        self._early: list[tuple[What, object]] | None = None

    def hold(self) -> None:
        """Keep what handlers are to be called with, until `release`."""
        self._early = []

    def release(self) -> None:
        """Call them with what was kept."""
        early, self._early = self._early, None
        for what, event in early or ():
            self.call(what, event)

    def observe(self, observer: Callable[[Any], None]) -> Callable[[], None]:
        """Call an observer with everything; what is returned takes it off.

        Raises:
            TypeError: It is asynchronous; nobody would wait for it.
        """
        if _is_async(observer):
            raise TypeError(
                "An observer is called at once and must be a plain function; give an asynchronous"
                " one to on_message, on_typing, on_read or on_error."
            )
        self._observers += (observer,)

        def remove() -> None:
            self._observers = tuple(other for other in self._observers if other is not observer)

        return remove

    def tell(self, observation: object) -> None:
        """Tell all observers."""
        for observer in self._observers:
            try:
                observer(observation)
            except (Exception, asyncio.CancelledError):  # a screen must not stop the session
                log.exception("an observer of the chat failed")

    def add(self, what: What, handler: Callable[[Any], object]) -> None:
        """Call a handler with every event of a kind."""
        self._handlers[what].append(_Handler(what, handler))

    def call(self, what: What, event: object) -> None:
        """Call the handlers of a kind; asynchronous ones get it after what they have."""
        if self._early is not None:
            self._early.append((what, event))
            return
        for handler in tuple(self._handlers.get(what, ())):
            if handler.is_async:
                self._later(handler, partial(handler.function, event))
                continue
            try:
                outcome = handler.function(event)
            except (Exception, asyncio.CancelledError) as exc:
                self._failed(handler, exc)
            else:
                if inspect.isawaitable(outcome):  # such as a lambda's
                    self._later(handler, outcome)

    async def keep_pace(self) -> None:
        """Wait while one of the handlers is far behind."""
        while any(len(handler.waiting) > LIMIT for handler in self._all()):
            self._eased.clear()
            await self._eased.wait()

    async def close(self) -> None:
        """End what is running, and forget everybody."""
        self._observers = ()
        handlers = self._all()
        self._handlers.clear()
        self._eased.set()
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for handler in handlers:
            handler.drop()

    def _all(self) -> list[_Handler]:
        return [handler for handlers in self._handlers.values() for handler in handlers]

    def _later(self, handler: _Handler, work: object) -> None:
        handler.waiting.append(work)
        if not handler.is_running:
            handler.is_running = True
            task = asyncio.create_task(self._run(handler), name=f"antiphon chat on_{handler.what}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, handler: _Handler) -> None:
        """Do what waits for a handler, one after the other."""
        try:
            while handler.waiting:
                work = handler.waiting.popleft()
                self._eased.set()
                try:
                    outcome = work() if isinstance(work, partial) else work
                    if inspect.isawaitable(outcome):
                        await outcome
                except asyncio.CancelledError as exc:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise  # the session ends; else something the handler awaited was cancelled
                    self._failed(handler, exc)
                except Exception as exc:
                    self._failed(handler, exc)
        finally:
            handler.is_running = False

    def _failed(self, handler: _Handler, exc: BaseException) -> None:
        name = getattr(handler.function, "__qualname__", repr(handler.function))
        log.error("the handler %s failed", name, exc_info=exc)
        error = HandlerFailed(f"The handler {name} raised {type(exc).__name__}: {exc}")
        error.__cause__ = exc
        if handler.what == "error":
            return  # it would be told of itself
        self._report(error)


class _Handler:
    """One function, and what waits for it."""

    def __init__(self, what: What, function: Callable[[Any], object]) -> None:
        self.what = what
        self.function = function
        self.is_async = _is_async(function)
        # Calls to be made, and what calls have given to be awaited.
        self.waiting: deque[object] = deque()
        self.is_running = False

    def drop(self) -> None:
        """Let go of what waits."""
        while self.waiting:
            work = self.waiting.popleft()
            if inspect.iscoroutine(work):
                work.close()


def _is_async(function: Callable[[Any], object]) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - an object may have an async __call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)

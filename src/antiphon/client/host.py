"""What everything in one client shares: its tasks, its valve, and who watches.

It knows neither client nor channels; they all point down to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any, Final

from antiphon.errors import AntiphonError, ConnectionFailed, HandlerFailed, ServerReportedError
from antiphon.protocol.closing import Code

from .flow import Valve
from .outbox import EVENTS_PER_SECOND
from .states import Observation

__all__ = ["Host"]

_EVENT_LOST: Final = Code.CLIENT_EVENT_REJECTED

log = logging.getLogger("antiphon.connection")

_here: ContextVar[Host | None] = ContextVar("antiphon_host", default=None)


class Host:
    """The ground of one client."""

    def __init__(self) -> None:
        self.valve = Valve()
        # Why no connection will come; None while one is there or may come.
        self.ended: ConnectionFailed | None = None
        # A tuple, so that an observer may come and go while it is called.
        self.observers: tuple[Callable[[Observation], None], ...] = ()
        self.tasks: set[asyncio.Task[None]] = set()
        # When the last client events went out: servers count them by connection.
        self.sent_at: deque[float] = deque(maxlen=EVENTS_PER_SECOND)

    # Tasks

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> Callable[[], None]:
        """Run a task that ends with the client; what is returned ends it earlier."""
        # What the task calls, and the tasks it makes, are told from strangers by their context.
        context = copy_context()
        context.run(_here.set, self)
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

        def end() -> None:
            if task is not asyncio.current_task():
                task.cancel()

        return end

    def runs_here(self) -> bool:
        """Whether one of this client's handlers runs here, or a task that one has made."""
        return _here.get() is self

    async def close(self) -> None:
        """End all tasks but the present one, and let go of who watches."""
        self.observers = ()
        tasks = [task for task in self.tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # Watching

    def observe(self, observer: Callable[[Observation], None]) -> Callable[[], None]:
        """Call a function with everything that is told; what is returned takes it off."""
        self.observers += (observer,)

        def remove() -> None:
            left = list(self.observers)
            if observer in left:
                left.remove(observer)
            self.observers = tuple(left)

        return remove

    def tell(self, observation: Observation) -> None:
        """Tell whoever observes."""
        for observer in self.observers:
            try:
                observer(observation)
            except (Exception, asyncio.CancelledError):
                log.exception("an observer raised")

    def report(self, error: AntiphonError) -> None:
        """Tell whoever observes errors; with nobody there, the log has it."""
        is_talk = isinstance(error, ServerReportedError) and error.code != _EVENT_LOST
        level = logging.INFO if is_talk else logging.WARNING
        # Only a handler's error needs its traceback: the others say all there is.
        cause = error.__cause__ if isinstance(error, HandlerFailed) else None
        log.log(level, "%s: %s", type(error).__name__, error, exc_info=cause)
        self.tell(error)

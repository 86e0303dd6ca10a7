"""Client events on their way out: not faster than servers take them, and kept while offline."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Literal

import msgspec

__all__ = ["EVENTS_PER_SECOND", "Outbox", "TriggerResult"]

EVENTS_PER_SECOND: Final = 10
"""Pusher documentation, *client events*: who sends more is answered with error 4301."""

WINDOW: Final = 1.2
"""Seconds in which that many go out: a server counts by its own clock, and networks jitter."""

LIMIT: Final = 100


class TriggerResult(msgspec.Struct, frozen=True):
    """What has become of a client event. It is true unless the event was refused.

    Attributes:
        status: `sent`, or `queued` until the channel is joined or the rate allows, or `refused`.
        reason: Why it was queued or refused, for people.
    """

    status: Literal["sent", "queued", "refused"]
    reason: str = ""

    def __bool__(self) -> bool:
        return self.status != "refused"


_SENT: Final = TriggerResult("sent")


class Outbox:
    """The client events of one channel, in order.

    Args:
        send: Puts one on the wire.
        is_joined: Whether the channel is.
        sent_at: When the last client events went out, of this channel or another: servers count
            them by connection. It holds `EVENTS_PER_SECOND` times at the most.
    """

    def __init__(
        self,
        send: Callable[[str, msgspec.Raw], None],
        is_joined: Callable[[], bool],
        sent_at: deque[float],
    ) -> None:
        self._send = send
        self._is_joined = is_joined
        self._waiting: deque[tuple[str, msgspec.Raw]] = deque()
        self._sent_at = sent_at
        self._timer: asyncio.TimerHandle | None = None

    def put(self, event: str, data: Any) -> TriggerResult:
        """Send an event, or let it wait.

        Raises:
            TypeError: The data has no form in JSON.
        """
        encoded = msgspec.Raw(msgspec.json.encode(data))
        if not self._waiting and self._is_joined() and self._rest() <= 0:
            self._write(event, encoded)
            return _SENT
        if len(self._waiting) >= LIMIT:
            return TriggerResult("refused", f"{LIMIT} client events are waiting here already.")
        self._waiting.append((event, encoded))
        if self._is_joined():
            self._wait()
            return TriggerResult(
                "queued", f"Servers take {EVENTS_PER_SECOND} client events a second."
            )
        return TriggerResult("queued", "The channel is not joined yet.")

    def flush(self) -> None:
        """Send what waits, as far as the rate allows: the channel is joined."""
        self._stop_waiting()
        while self._waiting and self._is_joined():
            if self._rest() > 0:
                self._wait()
                return
            self._write(*self._waiting.popleft())

    def close(self) -> int:
        """Drop what waits; how many events that was."""
        self._stop_waiting()
        count = len(self._waiting)
        self._waiting.clear()
        return count

    def _write(self, event: str, data: msgspec.Raw) -> None:
        self._sent_at.append(monotonic())
        self._send(event, data)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._rest(), self.flush)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rest(self) -> float:
        """Seconds until one more may be sent."""
        if len(self._sent_at) < EVENTS_PER_SECOND:
            return 0.0
        return self._sent_at[0] + WINDOW - monotonic()

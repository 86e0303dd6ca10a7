"""Webhooks: what happens on an application's channels, told to its backends. PROTOCOL §1.7."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from antiphon.settings import WEBHOOK_EVENTS

from .counts import EVERY, LARGE
from .endpoint import BATCH_DELAY, MAX_BATCH, Endpoint

if TYPE_CHECKING:
    from antiphon.http import HttpClient
    from antiphon.settings import App

__all__ = ["GRACE", "Webhooks"]

GRACE: Final = 3.0
"""Seconds in which who comes back has never gone. Pusher documentation, *webhooks*."""
MISS_EVERY: Final = 10.0
"""Seconds in which a channel's cache misses are told once."""
CLOSE_PATIENCE: Final = 2.0


class Webhooks:
    """Tells the endpoints of one application what happens; no call waits for anything.

    Args:
        app: The application.
        http: Sends the requests; it stays open.
        rng: Gives numbers from 0 up to 1, for the delays between attempts.

    Attributes:
        is_one_of_many: Whether several nodes tell together. Who comes and goes is then what they
            agree on (`tell_change`, `tell_count`), and what this one sees alone is not told.
    """

    def __init__(
        self, app: App, http: HttpClient, *, rng: Callable[[], float] = random.random
    ) -> None:
        self._endpoints = [
            Endpoint(f"{number} of app {app.id}", endpoint, app, http, rng)
            for number, endpoint in enumerate(app.webhooks, 1)
        ]
        self._wanting = {
            kind: [endpoint for endpoint in self._endpoints if endpoint.wants(kind)]
            for kind in WEBHOOK_EVENTS
        }
        self._gone = _Waiting(GRACE, self.tell_change)
        self._missed = _Waiting(MISS_EVERY, lambda channel: None)
        self._counted = _Waiting(EVERY, self._tell_newest)
        self._newest: dict[str, int] = {}  # counts that are not told yet
        self.is_one_of_many = False

    @property
    def queued(self) -> int:
        """Events that wait for an endpoint, or for its answer."""
        return sum(endpoint.queued for endpoint in self._endpoints)

    @property
    def dropped(self) -> int:
        """Events for which a queue had no room."""
        return sum(endpoint.dropped for endpoint in self._endpoints)

    @property
    def sent(self) -> int:
        """Events that an endpoint has taken."""
        return sum(endpoint.sent for endpoint in self._endpoints)

    @property
    def failed(self) -> int:
        """Events that an endpoint has not taken in time."""
        return sum(endpoint.failed for endpoint in self._endpoints)

    # What happens

    def occupied(self, channel: str) -> None:
        """A channel has its first subscriber."""
        if not self.is_one_of_many and not self._gone.discard("channel_vacated", channel):
            self._tell("channel_occupied", channel)

    def vacated(self, channel: str) -> None:
        """A channel's last subscriber has left."""
        # Also for who wants the other kind only: it is left out with this one.
        wanting = self._wanting["channel_vacated"] or self._wanting["channel_occupied"]
        if wanting and not self.is_one_of_many:
            self._gone.add("channel_vacated", channel)

    def member_added(self, channel: str, user_id: str) -> None:
        """A user has come into a presence channel."""
        if self.is_one_of_many:
            return
        if not self._gone.discard("member_removed", channel, user_id):
            self._tell("member_added", channel, user_id=user_id)

    def member_removed(self, channel: str, user_id: str) -> None:
        """A user has left a presence channel."""
        wanting = self._wanting["member_removed"] or self._wanting["member_added"]
        if wanting and not self.is_one_of_many:
            self._gone.add("member_removed", channel, user_id)

    def client_event(
        self, channel: str, event: str, data: str, socket_id: str, user_id: str | None = None
    ) -> None:
        """A client has sent an event.

        Args:
            channel: The channel's name.
            event: The event's name.
            data: Its data, as text.
            socket_id: The connection that sent it.
            user_id: Who that is, on a presence channel.
        """
        self._tell(
            "client_event", channel, event=event, data=data, socket_id=socket_id, user_id=user_id
        )

    def cache_miss(self, channel: str) -> None:
        """Somebody has joined a cache channel that keeps no event."""
        if self._wanting["cache_miss"] and channel not in self._missed:
            self._missed.add(channel)
            self._tell("cache_miss", channel)

    def subscription_count(self, channel: str, count: int) -> None:
        """A channel has another number of subscribers."""
        if not self.is_one_of_many:
            self.tell_count(channel, count)

    # What the nodes agree on

    def tell_change(self, kind: str, channel: str, user_id: str | None = None) -> None:
        """Somebody has come or gone, or a channel's first or last; nobody waits any more.

        Args:
            kind: The webhook's name, such as `channel_vacated`.
            channel: The channel's name.
            user_id: Who it is, for members.
        """
        self._tell(kind, channel, user_id=user_id)

    def tell_count(self, channel: str, count: int) -> None:
        """A channel has another number of subscribers, on all nodes."""
        if not self._wanting["subscription_count"]:
            return
        self._newest[channel] = count
        if count <= LARGE or channel not in self._counted:
            self._tell_newest(channel)

    # The end

    async def close(self) -> None:
        """Send what waits, for 2 seconds at most, and end; what happens then is not told."""
        for gone in self._gone.close():
            self.tell_change(*gone)
        for channel in list(self._newest):
            self._tell_newest(channel)
        self._counted.close()
        self._missed.close()
        self._wanting = {kind: [] for kind in WEBHOOK_EVENTS}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_PATIENCE), asyncio.TaskGroup() as closing:
                for endpoint in self._endpoints:
                    closing.create_task(endpoint.close())

    def _tell_newest(self, channel: str) -> None:
        count = self._newest.pop(channel, None)
        if count is None:
            return
        if count > LARGE:
            self._counted.add(channel)
        self._tell("subscription_count", channel, subscription_count=count)

    def _tell(self, kind: str, channel: str, **more: str | int | None) -> None:
        receivers = [each for each in self._wanting[kind] if each.wants_channel(channel)]
        if receivers:
            event = msgspec.json.encode(
                {"name": kind, "channel": channel}
                | {name: value for name, value in more.items() if value is not None}
            )
            for endpoint in receivers:
                endpoint.put(event)


class _Waiting:
    """Keys that wait equally long: one timer for all, as they come due in the order they came.

    Args:
        seconds: How long each waits.
        over: Called with each key then.
    """

    def __init__(self, seconds: float, over: Callable[..., None]) -> None:
        self._seconds = seconds
        self._over = over
        # When each is due. A plain dict is slow where the first is taken out again and again.
        self._due: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, key: str) -> bool:
        return (key,) in self._due

    def add(self, *key: str) -> None:
        """Let a key wait; one that does already goes on."""
        loop = asyncio.get_running_loop()
        self._due.setdefault(key, loop.time() + self._seconds)
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._ring)

    def discard(self, *key: str) -> bool:
        """Let a key wait no more; whether it did."""
        return self._due.pop(key, None) is not None

    def close(self) -> list[tuple[str, ...]]:
        """Let none wait any longer; those that did."""
        if self._timer is not None:
            self._timer.cancel()
        waiting = list(self._due)
        self._due.clear()
        return waiting

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        over: list[tuple[str, ...]] = []
        # Where thousands have gone at once: neither all in one turn, which would stop the loop and
        # overflow the queues, nor each by itself, which would be a timer each after all.
        while self._due and len(over) < MAX_BATCH and self._first() <= now:
            over.append(self._due.popitem(last=False)[0])
        again = max(self._first(), now + BATCH_DELAY) if self._due else None
        self._timer = None if again is None else loop.call_at(again, self._ring)
        for key in over:
            self._over(*key)

    def _first(self) -> float:
        return next(iter(self._due.values()))

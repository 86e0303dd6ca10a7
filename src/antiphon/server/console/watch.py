"""What happens in one application, for as long as a console shows it.

Nothing here awaits but `View.news`. Each console has a queue of its own with an end: what does
not fit is counted and dropped, so that a flood costs the server the noting and no more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from antiphon.server.hub import Hub

__all__ = ["News", "Sample", "View", "Watch"]

MAX_ROWS: Final = 200
MAX_SIZE: Final = 256 * 1024
MAX_DATA: Final = 10_240
KEPT: Final = 300
PACE: Final = 0.2
_TICK: Final = 1.0


class Row(msgspec.Struct, omit_defaults=True, gc=False):
    """One thing that has happened.

    Attributes:
        at: When, in milliseconds since 1970.
        kind: What: `connected`, `published`, …
        channel: In which channel.
        event: The event's name.
        data: Its data, or more of what has happened: JSON or any text.
        socket_id: Whose doing it was; of a published event, who must not get it.
        user_id: Which user's.
        size: How long the data is, if it was cut.
        receivers: How many connections on this node the event goes to.
    """

    at: int
    kind: str
    channel: str = ""
    event: str = ""
    data: str = ""
    socket_id: str = ""
    user_id: str = ""
    size: int = 0
    receivers: int | None = None

    @property
    def length(self) -> int:
        """How many characters it holds: each of these texts may be a stranger's, and long."""
        texts = (self.kind, self.channel, self.event, self.data, self.socket_id, self.user_id)
        return sum(map(len, texts))


class Sample(msgspec.Struct, array_like=True, gc=False):
    """One second.

    Attributes:
        at: When it ended, in seconds since 1970.
        connections: Open connections.
        channels: Occupied channels.
        subscriptions: Connections in channels, each counted in every channel it is in.
        received: Messages from clients, a second.
        sent: Messages to clients, a second.
        published: Events published over HTTP, a second.
        latency: Milliseconds a request that published took, on average; None if there was none.
        lag: Milliseconds by which the event loop was late.
    """

    at: float
    connections: int
    channels: int
    subscriptions: int
    received: float
    sent: float
    published: float
    latency: float | None
    lag: float


class News(msgspec.Struct, omit_defaults=True, gc=False):
    """What a console has not been told yet.

    Attributes:
        rows: What has happened, in order.
        dropped: How many rows are missing before these.
        samples: The seconds that have passed.
    """

    rows: list[Row] = []
    dropped: int = 0
    samples: list[Sample] = []


class View:
    """What one open console has not been told yet.

    Attributes:
        is_closed: Whether nothing more comes.
    """

    def __init__(self, samples: deque[Sample]) -> None:
        self.is_closed = False
        self._news = asyncio.Event()
        self._rows: deque[Row] = deque()
        self._size = 0
        self._dropped = 0
        self._samples = list(samples)
        self._news.set()

    def add(self, row: Row) -> None:
        """Tell of something, in place of the oldest where there is no room."""
        self._rows.append(row)
        self._size += row.length
        while len(self._rows) > MAX_ROWS or self._size > MAX_SIZE:
            self._size -= self._rows.popleft().length
            self._dropped += 1
        self._news.set()

    def add_sample(self, sample: Sample) -> None:
        """Tell of a second; those that nobody fetches are as many as are kept."""
        self._samples = [*self._samples[1 - KEPT :], sample]
        self._news.set()

    def close(self) -> None:
        """Nothing more comes."""
        self.is_closed = True
        self._news.set()

    async def news(self) -> News:
        """What has come since the last time, once there is something."""
        await self._news.wait()
        self._news.clear()
        news = News(list(self._rows), self._dropped, self._samples)
        self._rows.clear()
        self._size, self._dropped, self._samples = 0, 0, []
        return news


class Watch:
    """Looks on at one application while a console is open, and not at all otherwise.

    Args:
        hub: The application's.
        lag: Tells by how many seconds the event loop is late.
        samples: What was seen before; what is seen is added.
    """

    def __init__(self, hub: Hub, lag: Callable[[], float], samples: deque[Sample]) -> None:
        self.hub = hub
        self._lag = lag
        self._views: set[View] = set()
        self._samples = samples
        self._timer: asyncio.TimerHandle | None = None
        self._before = self._count()

    @property
    def is_watched(self) -> bool:
        """Whether a console is open."""
        return bool(self._views)

    def open(self) -> View:
        """Look on for one more console; it begins with the last five minutes that were seen."""
        oldest = time.time() - KEPT * _TICK
        while self._samples and self._samples[0].at < oldest:
            self._samples.popleft()
        view = View(self._samples)
        if not self._views:
            self.hub.tap = self
            self._before = self._count()
            self._wait()
        self._views.add(view)
        return view

    def close(self, view: View) -> None:
        """A console was closed."""
        self._views.discard(view)
        if not self._views:
            self.hub.tap = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def close_all(self) -> None:
        """Nothing more is told to any console."""
        for view in self._views:
            view.close()

    def note(
        self,
        kind: str,
        *,
        channel: str = "",
        event: str = "",
        data: str = "",
        socket_id: str = "",
        user_id: str = "",
    ) -> None:
        """Tell all consoles; `Tap` in the hub."""
        size = len(data)
        row = Row(
            int(time.time() * 1000),
            kind,
            channel,
            event,
            data if size <= MAX_DATA else data[:MAX_DATA],
            socket_id,
            user_id,
            0 if size <= MAX_DATA else size,
            self._receivers(channel, socket_id) if event else None,
        )
        for view in self._views:
            view.add(row)

    def _receivers(self, channel: str, except_socket: str) -> int:
        found = self.hub.channels.get(channel)
        if found is None:
            return 0
        excluded = self.hub.sockets.get(except_socket) if except_socket else None
        return len(found.subscribers) - (excluded in found.subscribers)

    # A sample a second

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._wait()
        sample = self._measure()
        self._samples.append(sample)
        for view in self._views:
            view.add_sample(sample)

    def _measure(self) -> Sample:
        """The second since the last measure."""
        hub, before, self._before = self.hub, self._before, self._count()
        now = self._before
        passed = max(now.at - before.at, 0.001)
        requests = now.requests - before.requests
        return Sample(
            round(time.time(), 3),
            len(hub.sockets),
            len(hub.channels),
            sum(len(channel.subscribers) for channel in hub.channels.values()),
            round((now.received - before.received) / passed, 1),
            round((now.sent - before.sent) / passed, 1),
            round((now.published - before.published) / passed, 1),
            round((now.busy - before.busy) / requests * 1000, 3) if requests else None,
            round(self._lag() * 1000, 2),
        )

    def _count(self) -> _Counters:
        traffic = self.hub.traffic
        return _Counters(
            time.monotonic(),
            traffic.received,
            traffic.sent,
            traffic.published,
            sum(traffic.publish_counts),
            traffic.publish_sum,
        )


class _Counters(NamedTuple):
    at: float
    received: int
    sent: int
    published: int
    requests: int
    busy: float

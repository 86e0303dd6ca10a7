"""What cache channels keep: their last event, for those who join later."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

__all__ = ["Cache", "Cached"]

MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes kept of all channels of an application; beyond them the oldest events go."""
_OVERHEAD: Final = 500
"""Bytes that an entry takes beside its texts, roughly."""


class Cached(NamedTuple):
    """A channel's last event.

    Attributes:
        message: The frame's text.
        data: The event's data.
        expires_at: When it is kept no more.
    """

    message: bytes
    data: str
    expires_at: float


class Cache:
    """The last event of each cache channel of one application.

    Args:
        ttl: Seconds an event is kept. Pusher documentation, *cache channels*: half an hour.

    Attributes:
        ttl: The same; a change holds for events that come from then on.
    """

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        # The oldest first; a plain dict is slow where the first is taken out again and again.
        self._kept: OrderedDict[str, Cached] = OrderedDict()
        self._size = 0

    def put(self, channel: str, message: bytes, data: str, now: float) -> None:
        """Keep an event in place of the one before."""
        self._drop(channel)
        kept = self._kept[channel] = Cached(message, data, now + self.ttl)
        self._size += _size(channel, kept)
        # They live equally long, as long as nobody changes that: the oldest are the first to go.
        while self._kept:
            oldest = next(iter(self._kept))
            if self._size <= MAX_BYTES and now < self._kept[oldest].expires_at:
                break
            self._drop(oldest)

    def get(self, channel: str, now: float) -> Cached | None:
        """A channel's last event, while it is kept."""
        kept = self._kept.get(channel)
        return kept if kept is not None and now < kept.expires_at else None

    def _drop(self, channel: str) -> None:
        kept = self._kept.pop(channel, None)
        if kept is not None:
            self._size -= _size(channel, kept)


def _size(channel: str, kept: Cached) -> int:
    return len(channel) + len(kept.message) + len(kept.data) + _OVERHEAD

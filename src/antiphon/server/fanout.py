"""How frames reach subscribers: in one write each for what comes in the same turns of the loop.

These frames are joined once per channel and written once per subscriber (`docs/design.md`, 13).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from antiphon.protocol.presence import Member

from .metrics import Traffic
from .transport import text_frame

if TYPE_CHECKING:
    from antiphon.settings import App

__all__ = ["Audience", "Fanout", "Subscriber"]


class Subscriber(Protocol):
    """A connection, as a hub needs it."""

    @property
    def channels(self) -> Mapping[str, Member | None]:
        """The channels it is in."""

    def write(self, frames: bytes) -> None:
        """Send WebSocket frames as they are."""

    def send(self, message: bytes) -> None:
        """Send one message."""

    def joined(self, channel: str, member: Member | None, members: Mapping[str, Member]) -> None:
        """It is in a channel now; on a presence channel, with these members."""

    def refused(self, channel: str, reason: str, status: int) -> None:
        """It is not let into a channel."""

    def kick(self, channel: str) -> None:
        """Leave a channel, and let it not be joined again."""

    def change(self, app: App) -> None:
        """Take the application's new limits."""

    def close(self, code: int, reason: str) -> None:
        """End the connection."""


class Audience(Protocol):
    """A channel, as the fan-out needs it; the same object for as long as somebody is in it."""

    subscribers: dict[Subscriber, None]


class Fanout:
    """Collects what is published in a turn and the next, and writes it at once. Nothing awaits.

    A turn takes as long as what is ready: on a server with little to do, some microseconds.

    Args:
        traffic: Where to count what is written.

    Attributes:
        turns: For how many further turns of the loop it is collected.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.turns = 1
        self._traffic = traffic
        # Channel, frame, and who must not get it.
        self._turn: list[tuple[Audience, bytes, Subscriber | None]] = []

    def add(self, channel: Audience, message: bytes, excluded: Subscriber | None) -> None:
        """Send a frame's text to a channel's subscribers, soon.

        Args:
            channel: Whose subscribers.
            message: The frame's text.
            excluded: One that must not get it.
        """
        if not self._turn:
            self._flush_after(self.turns)
        self._turn.append((channel, text_frame(message), excluded))

    def _flush_after(self, turns: int) -> None:
        loop = asyncio.get_running_loop()
        if turns:
            loop.call_soon(self._flush_after, turns - 1)
        else:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write now what has been published; subscribers come and go between two flushes only."""
        turn, self._turn = self._turn, []
        if not turn:
            return
        batches: dict[Audience, list[bytes]] = {}
        # Subscribers whose share is not just one channel's batch.
        special: set[Subscriber] = set()
        for channel, frame, excluded in turn:
            batches.setdefault(channel, []).append(frame)
            if excluded is not None:
                special.add(excluded)
        if len(batches) > 1:
            special |= _in_several(batches)
        for channel, frames in batches.items():
            joined = frames[0] if len(frames) == 1 else b"".join(frames)
            for subscriber in channel.subscribers:
                if subscriber not in special:
                    subscriber.write(joined)
            others = len(channel.subscribers)
            if special:
                others -= len(channel.subscribers.keys() & special)
            self._traffic.fan_out(others, len(frames), len(joined))
        for subscriber in special:
            share = [
                frame
                for channel, frame, excluded in turn
                if excluded is not subscriber and subscriber in channel.subscribers
            ]
            if share:
                joined = b"".join(share)
                subscriber.write(joined)
                self._traffic.fan_out(1, len(share), len(joined))


def _in_several(channels: Iterable[Audience]) -> set[Subscriber]:
    """The subscribers that are in more than one of the channels."""
    seen: set[Subscriber] = set()
    several: set[Subscriber] = set()
    for channel in channels:
        # Set operations run in C: the cost of a second active channel stays small.
        several |= seen & channel.subscribers.keys()
        seen |= channel.subscribers.keys()
    return several

"""Who is in which channel of one application, and how an event reaches them.

Fan-out is batched per turn of the event loop: a turn's frames are joined once per channel and
written once per subscriber (DESIGN, decision 6). Nothing here awaits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from antiphon.protocol.channels import Access, access_of
from antiphon.protocol.frames import encode
from antiphon.protocol.presence import Member

from .transport import text_frame

if TYPE_CHECKING:
    from antiphon.settings import App

__all__ = ["Channel", "Hub", "PresenceFull", "Subscriber"]


class Subscriber(Protocol):
    """A connection, as the hub needs it."""

    @property
    def channels(self) -> Mapping[str, Member | None]:
        """The channels it is in."""

    def write(self, frames: bytes) -> None:
        """Send WebSocket frames as they are."""


class PresenceFull(Exception):
    """A presence channel has as many users as it may have."""


class Channel:
    """One occupied channel."""

    __slots__ = ("connections", "members", "name", "subscribers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscribers: dict[Subscriber, None] = {}
        # Users by id, and how many connections each has here; both empty where none are kept.
        self.members: dict[str, Member] = {}
        self.connections: dict[str, int] = {}

    @property
    def is_presence(self) -> bool:
        """Whether the channel knows its users."""
        return access_of(self.name) is Access.PRESENCE


class Hub:
    """The channels of one application on this node."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.sockets: dict[str, Subscriber] = {}
        self.channels: dict[str, Channel] = {}
        # What was published in this turn: channel, frame, and who must not get it.
        self._turn: list[tuple[Channel, bytes, Subscriber | None]] = []

    # Publishing

    def publish(self, channel: str, message: bytes, except_socket: str | None = None) -> None:
        """Send a frame's text to a channel's subscribers, in this turn of the loop.

        Args:
            channel: The channel's name; one that nobody is in costs nothing.
            message: The frame's text.
            except_socket: Id of a connection that must not get it.
        """
        target = self.channels.get(channel)
        if target is not None:
            excluded = self.sockets.get(except_socket) if except_socket else None
            self._enqueue(target, message, excluded)

    def _enqueue(self, channel: Channel, message: bytes, excluded: Subscriber | None) -> None:
        if not self._turn:
            asyncio.get_running_loop().call_soon(self._flush)
        self._turn.append((channel, text_frame(message), excluded))

    def _flush(self) -> None:
        turn, self._turn = self._turn, []
        if not turn:
            return
        batches: dict[Channel, list[bytes]] = {}
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
        for subscriber in special:
            share = [
                frame
                for channel, frame, excluded in turn
                if excluded is not subscriber and subscriber in channel.subscribers
            ]
            if share:
                subscriber.write(b"".join(share))

    # Joining and leaving

    def join(self, subscriber: Subscriber, name: str, member: Member | None) -> Channel:
        """Add a connection to a channel; a user's first one is told to the others.

        Raises:
            PresenceFull: The presence channel takes no further user.
        """
        channel = self.channels.get(name) or Channel(name)
        if subscriber in channel.subscribers:
            return channel
        if member is not None and member.id not in channel.members:
            if len(channel.members) >= self.app.max_presence_members:
                raise PresenceFull
            added = {"user_id": member.id, "user_info": member.info}
            self._tell(channel, "pusher_internal:member_added", added)
            channel.members[member.id] = member
        if member is not None:
            channel.connections[member.id] = channel.connections.get(member.id, 0) + 1
        # What was published before must not reach who joins now.
        self._flush()
        self.channels[name] = channel
        channel.subscribers[subscriber] = None
        return channel

    def leave(self, subscriber: Subscriber, name: str) -> None:
        """Take a connection out of a channel; a user's last one is told to the others."""
        channel = self.channels.get(name)
        if channel is None or subscriber not in channel.subscribers:
            return
        self._flush()
        del channel.subscribers[subscriber]
        if not channel.subscribers:
            del self.channels[name]
        member = subscriber.channels.get(name)
        if member is None:
            return
        channel.connections[member.id] -= 1
        if not channel.connections[member.id]:
            del channel.connections[member.id], channel.members[member.id]
            self._tell(channel, "pusher_internal:member_removed", {"user_id": member.id})

    def disconnect(self, subscriber: Subscriber, socket_id: str) -> None:
        """Take a connection out of everything."""
        self.sockets.pop(socket_id, None)
        for name in list(subscriber.channels):
            self.leave(subscriber, name)

    def _tell(self, channel: Channel, event: str, data: dict[str, object]) -> None:
        if channel.subscribers:
            text = msgspec.json.encode(data).decode()
            self._enqueue(channel, encode(event, text, channel.name), None)


def _in_several(channels: Iterable[Channel]) -> set[Subscriber]:
    """The subscribers that are in more than one of the channels."""
    seen: set[Subscriber] = set()
    several: set[Subscriber] = set()
    for channel in channels:
        # Set operations run in C: the cost of a second active channel stays small.
        several |= seen & channel.subscribers.keys()
        seen |= channel.subscribers.keys()
    return several

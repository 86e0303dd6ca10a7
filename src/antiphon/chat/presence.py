"""Who is there: the rooms' presence channels, and what is whispered on them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from antiphon.client import Channel, PresenceChannel
from antiphon.errors import AntiphonError
from antiphon.protocol.frames import Event

from .marks import DELIVERED
from .models import Id
from .observations import PresenceChanged
from .who_types import STOPPED

if TYPE_CHECKING:
    from .core import Core
    from .room import Room

__all__ = ["Presence"]


class Presence:
    """Holds the channels of the rooms that are open, and of the newest ones.

    Args:
        core: The session.
        newest: Of so many of the newest conversations the channel is held in any case.

    Attributes:
        takes_whispers: Whether the server takes client events.
    """

    def __init__(self, core: Core, newest: int) -> None:
        self.takes_whispers = True
        self._core = core
        self._newest = newest
        self._channels: dict[str, Channel] = {}  # by the room's id
        self._rooms: dict[str, Room] = {}  # by the channel's name
        self._watched: list[Room] = []
        self._last_seen: dict[str, datetime] = {}

    def is_online(self, user_id: Id) -> bool:
        """Whether a user is in one of the channels."""
        id_ = str(user_id)
        return any(
            isinstance(channel, PresenceChannel) and id_ in channel.members
            for channel in self._channels.values()
        )

    def last_seen(self, user_id: Id) -> datetime | None:
        """When a user last gave a sign of life."""
        return self._last_seen.get(str(user_id))

    def alive(self, user_id: Id, at: datetime | None = None) -> None:
        """A user has given a sign of life."""
        now = datetime.now(UTC)
        at = min(at or now, now)  # a backend's clock may be ahead
        id_ = str(user_id)
        if id_ not in self._last_seen or self._last_seen[id_] < at:
            self._last_seen[id_] = at

    # Join and leave

    def channel(self, room: Room) -> Channel | None:
        """A room's channel, while it is held."""
        return self._channels.get(room.id)

    def join(self, room: Room) -> None:
        """Hold a room's channel, if there is one."""
        template = self._core.dialect.conversation_channel
        if not template or self._core.is_closed or room.id in self._channels:
            return
        name = template.replace("{conversation_id}", room.id)
        try:
            channel = self._core.client.subscribe(name)
        except AntiphonError as exc:  # an id that no channel can have
            self._core.report(exc)
            return
        self._channels[room.id] = channel
        self._rooms[name] = room

    def leave(self, room: Room) -> None:
        """Give a room's channel back, unless somebody needs it still."""
        if room.is_open or room in self._watched:
            return
        channel = self._channels.pop(room.id, None)
        if channel is None:
            return
        members = channel.members if isinstance(channel, PresenceChannel) else ()
        ids = tuple(member.id for member in members)
        self._rooms.pop(channel.name, None)
        channel.unsubscribe()
        if ids:
            self._core.tell(PresenceChanged(ids))

    def watch_newest(self) -> None:
        """Know who is online in the newest conversations."""
        before, self._watched = self._watched, self._core.newest()[: self._newest]
        for room in before:
            self.leave(room)
        for room in self._watched:
            self.join(room)

    # What comes by the channels

    def joined(self, channel_name: str) -> None:
        """The server has let one into a channel, and said who is there."""
        room = self._rooms.get(channel_name)
        channel = self._channels.get(room.id) if room is not None else None
        if room is not None and isinstance(channel, PresenceChannel):
            self._core.tell(PresenceChanged(tuple(member.id for member in channel.members)))
            room._marks.deliver_again()

    def lost(self) -> None:
        """Without a connection nobody knows who is there."""
        self._core.tell(PresenceChanged(tuple(self._last_seen)))

    def receive(self, event: Event) -> bool:
        """Take an event, if it is about who is there, or was said by them without the backend."""
        room = self._rooms.get(event.channel or "")
        if room is None:
            return False
        data = event.data if isinstance(event.data, dict) else {}
        match event.name:
            case "pusher:member_added" | "pusher:member_removed":
                user_id = str(data.get("id", ""))
                self.alive(user_id)
                if event.name == "pusher:member_added":
                    room._marks.deliver_again()
                else:
                    room._typing.stopped(user_id)
                self._core.tell(PresenceChanged((user_id,)))
            case _ if event.user_id is None:
                return False
            case n if n == STOPPED:
                room._typing.stopped(event.user_id)
            case n if n == DELIVERED and isinstance(data.get("message_id"), int | str):
                room._marks.delivered(event.user_id, str(data["message_id"]))
            case _:
                return False
        return True

    def whisper(self, room: Room, event: str, data: dict[str, Any]) -> None:
        """Send a client event to the others in a room's channel, if anybody is there."""
        channel = self.channel(room)
        if not self.takes_whispers or not isinstance(channel, PresenceChannel):
            return
        if channel.is_subscribed and len(channel.members) > 1:
            channel.trigger(event, data)

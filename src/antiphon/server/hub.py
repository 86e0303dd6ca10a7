"""Who is in which channel of one application, on this node and, with a broker, on all of them.

Nothing here awaits. Without a broker this node is all there is. With one, what others do arrives
by calls (`deliver`, `member_came`, …), and who is a member of a presence channel is said by the
broker alone: a connection joins when its user stands in the members that all nodes agree on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from antiphon.http import HttpClient
from antiphon.protocol.channels import Access, access_of, is_cache_channel
from antiphon.protocol.closing import Code
from antiphon.protocol.frames import encode
from antiphon.protocol.presence import Member
from antiphon.protocol.server import Relay, cache_miss, subscription_count

from .addresses import Addresses
from .cache import Cache
from .counts import Counts
from .fanout import Fanout, Subscriber
from .metrics import Traffic
from .users import Users
from .webhooks import Webhooks

if TYPE_CHECKING:
    from antiphon.settings import App

__all__ = ["Broker", "Channel", "ClusterAway", "Hub", "Subscriber", "Tap"]


class ClusterAway(Exception):
    """The other nodes cannot be asked at the moment."""


class Channel:
    """One occupied channel.

    Attributes:
        name: Its name.
        subscribers: The connections that are in it.
        members: A presence channel's users, on all nodes, by id.
        here: Those of them that have a connection on this node.
        connections: How many connections each of these has.
        total: How many subscribers it has on all nodes, as far as that was told.
        pending: Connections that join when their user is among the members.
    """

    __slots__ = ("connections", "here", "members", "name", "pending", "subscribers", "total")

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscribers: dict[Subscriber, None] = {}
        self.members: dict[str, Member] = {}
        self.here: dict[str, Member] = {}
        self.connections: dict[str, int] = {}
        self.total = 0
        self.pending: dict[Subscriber, Member] = {}

    @property
    def is_presence(self) -> bool:
        """Whether the channel knows its users."""
        return access_of(self.name) is Access.PRESENCE


class Broker(Protocol):
    """The other nodes, as a hub needs them; every call returns at once.

    What the hub has at the time of sending is what is told: a call only says what has changed.
    """

    @property
    def is_live(self) -> bool:
        """Whether the nodes know of each other now; while not, this one decides by itself."""

    @property
    def elsewhere(self) -> int:
        """How many connections the other nodes have, as far as that was told."""

    @property
    def waiting(self) -> int:
        """Events that the other nodes are to be told yet."""

    @property
    def dropped(self) -> int:
        """Events that have waited in vain."""

    @property
    def lost(self) -> int:
        """How often the others were lost."""

    def publish(
        self, channel: str, message: bytes, except_socket: str | None, data: str | None
    ) -> None:
        """Pass an event on; `data` is given for what a cache channel keeps."""

    def count_changed(self, channel: str) -> None:
        """A connection has joined or left."""

    def member_changed(self, channel: str, user_id: str) -> None:
        """A user's first connection here has come, or the last one has gone."""

    def terminate(self, user_id: str) -> None:
        """End a user's connections on the other nodes."""

    def kick(self, channel: str, user_id: str, socket_id: str) -> None:
        """Take a user, or one connection, out of a channel on the other nodes."""

    def ask_kept(self, channel: str, done: Callable[[bytes | None], None]) -> None:
        """Find out what a cache channel keeps: the frame's text; None for nothing."""

    async def counts(self) -> dict[str, int]:
        """How many subscribers each occupied channel has on all nodes."""

    async def count(self, channel: str) -> int:
        """How many subscribers a channel has on all nodes."""

    async def members(self, channel: str) -> list[str]:
        """Who is in a presence channel."""

    async def connections(self) -> int:
        """How many connections all nodes have."""

    async def kept(self, channel: str) -> tuple[str, float] | None:
        """What a cache channel keeps: the event's data, and for how many seconds."""


class Tap(Protocol):
    """Somebody who looks on at what happens on this node."""

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
        """Something has happened; returns at once, and raises nothing."""


class Hub:
    """The channels of one application.

    Args:
        app: The application.

    Attributes:
        webhooks: Tells endpoints what happens; nobody, until an owner gives one that it closes.
        addresses: Counts where connections come from, for all that an owner has.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.webhooks = Webhooks(msgspec.structs.replace(app, webhooks=()), HttpClient(timeout=1.0))
        self.addresses = Addresses(0, 0)
        self.broker: Broker | None = None
        self.tap: Tap | None = None  # while a console is open
        self.sockets: dict[str, Subscriber] = {}
        self.channels: dict[str, Channel] = {}
        self.users: Users[Subscriber] = Users()
        self.cache = Cache(app.cache_ttl)
        self.traffic = Traffic()
        self.fanout = Fanout(self.traffic)
        self._waiting: dict[Subscriber, set[str]] = {}  # for which channels, if for any
        self._counts = Counts(self._count, self._tell_count)

    @property
    def is_full(self) -> bool:
        """Whether the application may have no further connection, on any node."""
        elsewhere = 0 if self.broker is None else self.broker.elsewhere
        return 0 < self.app.max_connections <= len(self.sockets) + elsewhere

    def change(self, app: App) -> None:
        """Serve the application as it is from now on: its connections stay, its limits change."""
        self.app = app
        self.cache.ttl = app.cache_ttl
        for subscriber in self.sockets.values():
            subscriber.change(app)

    # Publishing

    def trigger(
        self, channel: str, event: str, data: str, except_socket: str | None = None
    ) -> None:
        """Publish a backend's event, which a cache channel keeps.

        Args:
            channel: The channel's name.
            event: The event's name.
            data: Its data, as text.
            except_socket: Id of a connection that must not get it.
        """
        if self.tap is not None:
            source = except_socket or ""
            self.tap.note("published", channel=channel, event=event, data=data, socket_id=source)
        is_kept = is_cache_channel(channel)
        if channel not in self.channels and self.broker is None and not is_kept:
            return  # nobody is in it, and nothing is lost
        message = encode(event, data, channel)
        kept = data if is_kept else None
        self.deliver(channel, message, except_socket, kept)
        if self.broker is not None:
            self.broker.publish(channel, message, except_socket, kept)

    def relay(self, event: Relay, socket_id: str) -> None:
        """Pass a client event on to the others in the channel.

        Args:
            event: It.
            socket_id: Who has sent it.
        """
        channel = event.channel
        self.deliver(channel, event.message, socket_id)
        if self.broker is not None:
            self.broker.publish(channel, event.message, socket_id, None)
        data = event.data.decode()
        self.webhooks.client_event(channel, event.event, data, socket_id, event.user_id)
        if self.tap is not None:
            self.tap.note(
                "client_event",
                channel=channel,
                event=event.event,
                data=data,
                socket_id=socket_id,
                user_id=event.user_id or "",
            )

    def deliver(
        self,
        channel: str,
        message: bytes,
        except_socket: str | None = None,
        data: str | None = None,
    ) -> None:
        """Send a frame's text to a channel's subscribers on this node, soon.

        Args:
            channel: The channel's name; one that nobody is in costs nothing.
            message: The frame's text.
            except_socket: Id of a connection that must not get it.
            data: The event's data, if the channel keeps it.
        """
        if data is not None:
            self.cache.put(channel, message, data, time.monotonic())
        target = self.channels.get(channel)
        if target is not None:
            excluded = self.sockets.get(except_socket) if except_socket else None
            self.fanout.add(target, message, excluded)

    # Joining and leaving

    def join(self, subscriber: Subscriber, name: str, member: Member | None) -> None:
        """Add a connection to a channel; it is told with `joined` or `refused`, maybe later."""
        channel = self.channels.get(name) or Channel(name)
        if subscriber in channel.subscribers:
            self.fanout.flush()  # what has changed is in the members it gets
            subscriber.joined(name, subscriber.channels.get(name), channel.members)
            self._send_kept(subscriber, name)
            return
        if subscriber in channel.pending:
            return
        if member is None:
            self._admit(channel, subscriber, None)
            return
        is_first = member.id not in channel.here
        if member.id not in channel.members and not self._is_led:
            if len(channel.members) >= self.app.max_presence_members:
                self._refuse_full(subscriber, name)
                return
            self._add_member(channel, member)
        channel.here.setdefault(member.id, member)
        channel.connections[member.id] = channel.connections.get(member.id, 0) + 1
        if member.id in channel.members:
            self._admit(channel, subscriber, member)
        else:
            self.channels[name] = channel
            channel.pending[subscriber] = member
            self._waiting.setdefault(subscriber, set()).add(name)
        if is_first and self.broker is not None:
            self.broker.member_changed(name, member.id)

    def leave(self, subscriber: Subscriber, name: str) -> None:
        """Take a connection out of a channel; one that is not in it is ignored."""
        channel = self.channels.get(name)
        if channel is None:
            return
        member = self._wait_no_more(channel, subscriber)
        if member is None:
            if subscriber not in channel.subscribers:
                return
            self.fanout.flush()
            del channel.subscribers[subscriber]
            member = subscriber.channels.get(name)
            if not channel.subscribers and not self._is_led:
                self.webhooks.vacated(name)
            self._count_changed(channel)
        if not channel.subscribers and not channel.pending:
            del self.channels[name]
        if member is not None:
            self._leave_as(channel, member)

    def disconnect(self, subscriber: Subscriber, socket_id: str) -> None:
        """Take a connection out of everything."""
        self.sockets.pop(socket_id, None)
        self.users.sign_out(subscriber)
        for name in (*subscriber.channels, *self._waiting.get(subscriber, ())):
            self.leave(subscriber, name)

    def _admit(self, channel: Channel, subscriber: Subscriber, member: Member | None) -> None:
        # What was published before must not reach who joins now.
        self.fanout.flush()
        self.channels[channel.name] = channel
        channel.subscribers[subscriber] = None
        subscriber.joined(channel.name, member, channel.members)
        self._send_kept(subscriber, channel.name)
        if len(channel.subscribers) == 1 and not self._is_led:
            self.webhooks.occupied(channel.name)
        self._count_changed(channel)

    def _wait_no_more(self, channel: Channel, subscriber: Subscriber) -> Member | None:
        """As whom a connection has waited for a channel; None if it has not."""
        member = channel.pending.pop(subscriber, None)
        if member is not None:
            names = self._waiting[subscriber]
            names.discard(channel.name)
            if not names:
                del self._waiting[subscriber]
        return member

    def _leave_as(self, channel: Channel, member: Member) -> None:
        channel.connections[member.id] -= 1
        if channel.connections[member.id]:
            return
        del channel.connections[member.id], channel.here[member.id]
        if not self._is_led:
            self._remove_member(channel, member.id)
        if self.broker is not None:
            self.broker.member_changed(channel.name, member.id)

    def _refuse_full(self, subscriber: Subscriber, name: str) -> None:
        limit = self.app.max_presence_members
        subscriber.refused(name, f"A presence channel has at most {limit} users", 403)

    # Members, of all nodes

    @property
    def _is_led(self) -> bool:
        """Whether the broker says who is a member."""
        return self.broker is not None and self.broker.is_live

    def member_came(self, name: str, member: Member) -> None:
        """A user has joined a presence channel on some node."""
        channel = self.channels.get(name)
        if channel is not None and member.id not in channel.members:
            self._add_member(channel, member)
            self._admit_pending(channel)

    def member_went(self, name: str, user_id: str) -> None:
        """A user has no connection in a presence channel any more, on any node.

        Who has one here has come meanwhile: that is told next, and nobody is to see them go.
        """
        channel = self.channels.get(name)
        if channel is None or user_id in channel.here:
            return
        if user_id in channel.members:
            self._remove_member(channel, user_id)

    def members_refused(self, name: str, user_id: str) -> None:
        """A presence channel has no room for a user."""
        channel = self.channels.get(name)
        if channel is None:
            return
        for subscriber, member in list(channel.pending.items()):
            if member.id == user_id:
                self.leave(subscriber, name)
                self._refuse_full(subscriber, name)

    def decide_alone(self) -> None:
        """The other nodes cannot be asked: who waits is let in by what is known here."""
        for channel in list(self.channels.values()):
            for member in list(channel.here.values()):
                if member.id not in channel.members:
                    self._add_member(channel, member)
            self._admit_pending(channel)

    def _admit_pending(self, channel: Channel) -> None:
        for subscriber, member in list(channel.pending.items()):
            if member.id in channel.members:
                self._wait_no_more(channel, subscriber)
                self._admit(channel, subscriber, member)

    def _add_member(self, channel: Channel, member: Member) -> None:
        if not self._is_led:
            self.webhooks.member_added(channel.name, member.id)
        if self.tap is not None:
            info = msgspec.json.encode(member.info).decode()
            self.tap.note("member_added", channel=channel.name, user_id=member.id, data=info)
        added = {"user_id": member.id, "user_info": member.info}
        self._tell(channel, "pusher_internal:member_added", added)
        channel.members[member.id] = member

    def _remove_member(self, channel: Channel, user_id: str) -> None:
        if self.tap is not None:
            self.tap.note("member_removed", channel=channel.name, user_id=user_id)
        channel.members.pop(user_id, None)
        if not self._is_led:
            self.webhooks.member_removed(channel.name, user_id)
        self._tell(channel, "pusher_internal:member_removed", {"user_id": user_id})

    def _tell(self, channel: Channel, event: str, data: Mapping[str, object]) -> None:
        if channel.subscribers:
            text = msgspec.json.encode(data).decode()
            self.fanout.add(channel, encode(event, text, channel.name), None)

    # What is kept

    def _send_kept(self, subscriber: Subscriber, channel: str) -> None:
        """Send who joins a cache channel its last event, or that there is none."""
        if not is_cache_channel(channel):
            return
        kept = self.cache.get(channel, time.monotonic())
        if kept is not None:
            subscriber.send(kept.message)
        elif self.broker is not None and self.broker.is_live:
            self.broker.ask_kept(
                channel, lambda message: self._send_answer(subscriber, channel, message)
            )
        else:
            self._send_answer(subscriber, channel, None)

    def _send_answer(self, subscriber: Subscriber, channel: str, message: bytes | None) -> None:
        if channel not in subscriber.channels or self.cache.get(channel, time.monotonic()):
            return  # it has gone, or got a newer one meanwhile
        if message is None:
            self.webhooks.cache_miss(channel)
        subscriber.send(message or cache_miss(channel))

    # What a backend may do to users

    def terminate(self, user_id: str) -> None:
        """End all connections of a user, known by sign-in or as a presence channel's member."""
        self.terminate_here(user_id)
        if self.broker is not None:
            self.broker.terminate(user_id)

    def terminate_here(self, user_id: str) -> None:
        """The same for this node's connections."""
        found = set(self.users.connections(user_id))
        for channel in self.channels.values():
            found.update(_of_member(channel, user_id))
        self.fanout.flush()  # what was published before
        for subscriber in found:
            subscriber.close(Code.UNAUTHORIZED, "The user's connections were terminated")

    def kick(self, channel: str, *, user_id: str = "", socket_id: str = "") -> None:
        """Take a user, or one connection, out of a channel for good; the connections stay."""
        self.kick_here(channel, user_id, socket_id)
        if self.broker is not None:
            self.broker.kick(channel, user_id, socket_id)

    def kick_here(self, channel: str, user_id: str, socket_id: str) -> None:
        """The same for this node's connections."""
        found = set(self.users.connections(user_id))
        joined = self.channels.get(channel)
        if joined is not None:
            found.update(_of_member(joined, user_id))
        if socket_id in self.sockets:
            found.add(self.sockets[socket_id])
        self.fanout.flush()
        for subscriber in found:
            subscriber.kick(channel)

    # What is asked, of all nodes

    async def counts(self) -> dict[str, int]:
        """How many subscribers each occupied channel has.

        Raises:
            ClusterAway: The other nodes cannot be asked; so for all that follow.
        """
        if self.broker is not None:
            return await self.broker.counts()
        return {name: len(channel.subscribers) for name, channel in self.channels.items()}

    async def count(self, channel: str) -> int:
        """How many subscribers a channel has."""
        if self.broker is not None:
            return await self.broker.count(channel)
        return self.count_here(channel)

    async def members(self, channel: str) -> list[str]:
        """Who is in a presence channel."""
        if self.broker is not None:
            return await self.broker.members(channel)
        found = self.channels.get(channel)
        return [] if found is None else list(found.members)

    async def connections(self) -> int:
        """How many connections there are."""
        if self.broker is not None:
            return await self.broker.connections()
        return len(self.sockets)

    async def kept(self, channel: str) -> tuple[str, float] | None:
        """What a cache channel keeps: the event's data, and for how many seconds."""
        if self.broker is not None:
            return await self.broker.kept(channel)
        now = time.monotonic()
        kept = self.cache.get(channel, now)
        return None if kept is None else (kept.data, kept.expires_at - now)

    # Counts

    def count_here(self, channel: str) -> int:
        """How many connections are in a channel on this node."""
        found = self.channels.get(channel)
        return 0 if found is None else len(found.subscribers)

    def told_count(self, channel: str, total: int) -> None:
        """A channel has another number of subscribers, on all nodes."""
        found = self.channels.get(channel)
        if found is not None and not found.is_presence:
            found.total = total
            self._counts.changed(channel)

    def _count_changed(self, channel: Channel) -> None:
        if self.broker is not None:
            self.broker.count_changed(channel.name)
        if channel.is_presence or self._is_led:
            return
        self.webhooks.subscription_count(channel.name, len(channel.subscribers))
        if self.app.subscription_counts and channel.subscribers:
            self._counts.changed(channel.name)

    def _count(self, channel: str) -> int:
        found = self.channels.get(channel)
        if found is None:
            return 0
        return found.total if self._is_led else len(found.subscribers)

    def _tell_count(self, channel: str, count: int) -> None:
        self.deliver(channel, subscription_count(channel, count))

    def close(self) -> None:
        """Tell nothing more by itself."""
        self._counts.close()


def _of_member(channel: Channel, user_id: str) -> list[Subscriber]:
    """The connections on this node that a member has in a presence channel."""
    if user_id not in channel.here:
        return []
    members = ((each, each.channels.get(channel.name)) for each in channel.subscribers)
    found = [each for each, member in members if member is not None and member.id == user_id]
    return found + [each for each, member in channel.pending.items() if member.id == user_id]

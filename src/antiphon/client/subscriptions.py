"""The channels of a client: what is asked of the server for them, and what it answers.

They outlive connections. Each new connection is given to `opened`, which subscribes them all
again, private and presence channels with a signature made for that connection's socket id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from antiphon.errors import (
    AntiphonError,
    ClientClosed,
    ConnectionFailed,
    SubscriptionFailed,
)
from antiphon.protocol.channels import check_channel_name, needs_authorization
from antiphon.protocol.client import Received
from antiphon.protocol.events import (
    CacheMissed,
    MemberAdded,
    MemberRemoved,
    SubscriptionCounted,
    SubscriptionSucceeded,
)
from antiphon.protocol.frames import Event
from antiphon.protocol.presence import Member, parse_channel_data

from .authorizer import Authorizer
from .bindings import Host
from .channel import Channel, ChannelState, PresenceChannel, make_channel
from .connection import Connection
from .flow import Valve
from .states import Observation, Subscribed

__all__ = ["Subscriptions"]

log = logging.getLogger("antiphon.channel")

AUTHORIZATIONS_AT_ONCE: Final = 16


class SubscriptionsHost(Host, Protocol):
    """What subscriptions need of their client."""

    def receive(self, event: Event) -> None:
        """Deliver an event, as if it had come from the server."""

    def tell(self, observation: Observation) -> None:
        """Tell whoever observes the client."""


class Subscriptions:
    """The channels a client holds.

    Args:
        host: The client.
        authorizer: Signs private and presence channels; None if there is none.
    """

    def __init__(self, host: SubscriptionsHost, authorizer: Authorizer | None) -> None:
        self.channels: dict[str, Channel] = {}
        self.valve: Valve = host.valve
        # Why no connection will come; None while one is there or may come.
        self.ended: ConnectionFailed | None = None
        self._host = host
        self._authorizer = authorizer
        self._authorizing = asyncio.Semaphore(AUTHORIZATIONS_AT_ONCE)
        # The connection on which channels are subscribed; None while there is none.
        self._connection: Connection | None = None
        # Ends the requests for signatures that are good for this connection only.
        self._ends: dict[str, Callable[[], None]] = {}

    # The life of a connection

    def opened(self, connection: Connection) -> None:
        """Subscribe every channel on a connection that has just opened, oldest first."""
        self._connection = connection
        for channel in list(self.channels.values()):
            self._subscribe(channel, connection)

    def lost(self) -> None:
        """The connection is gone; nothing is subscribed any more."""
        self._connection = None
        ends, self._ends = self._ends, {}
        for end in ends.values():
            end()
        for channel in list(self.channels.values()):
            channel.lost()

    def end(self, error: ConnectionFailed) -> None:
        """No connection will come: let go who waits to be subscribed."""
        self.ended = error
        for channel in list(self.channels.values()):
            if isinstance(error, ClientClosed):
                channel.give_up(error)
            else:
                channel.fail(error)

    def close(self) -> None:
        """Leave all channels, with their handlers and streams."""
        for channel in list(self.channels.values()):
            channel.left()
        self.channels.clear()

    # What the program asks for

    def subscribe(self, name: str) -> Channel:
        """Hold a channel.

        Raises:
            InvalidName: No channel can have this name.
            SubscriptionFailed: It needs a signature, and there is no authorizer.
        """
        channel = self.channels.get(name)
        if channel is not None:
            channel.holds += 1
            if channel.state is ChannelState.FAILED and self._connection is not None:
                self._subscribe(channel, self._connection)
            return channel
        check_channel_name(name)
        if needs_authorization(name) and self._authorizer is None:
            raise SubscriptionFailed(
                f"{name} needs a signature: give the client an authorizer, or settings an api_url.",
                channel=name,
            )
        channel = self.channels[name] = make_channel(name, self)
        if self._connection is not None:
            self._subscribe(channel, self._connection)
        return channel

    def leave(self, channel: Channel) -> None:
        """Give back one hold on a channel; with the last one it is left."""
        channel.holds -= 1
        if channel.holds > 0 or self.channels.get(channel.name) is not channel:
            return
        del self.channels[channel.name]
        end = self._ends.pop(channel.name, None)
        if end is not None:
            end()
        asked = channel.state is not ChannelState.FAILED
        channel.left()
        if asked and self._connection is not None:
            self._connection.unsubscribe(channel.name)

    def trigger(self, channel: Channel, event: str, data: Any) -> None:
        """Send a client event on the present connection."""
        if self._connection is not None:
            self._connection.trigger(channel.name, event, data)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> Callable[[], None]:
        """Run a task that ends with the client."""
        return self._host.spawn(work, name)

    def runs_here(self) -> bool:
        """Whether the present task is one of the client's."""
        return self._host.runs_here()

    def report(self, error: AntiphonError) -> None:
        """Tell whoever observes errors."""
        self._host.report(error)

    # Subscribing

    def _subscribe(self, channel: Channel, connection: Connection) -> None:
        channel.move(ChannelState.PENDING)
        if not needs_authorization(channel.name):
            connection.subscribe(channel.name, None, None)
            return
        work = self._authorize(channel, connection)
        self._ends[channel.name] = self.spawn(work, f"antiphon authorize {channel.name}")

    async def _authorize(self, channel: Channel, connection: Connection) -> None:
        """Get a signature for this connection, and subscribe with it."""
        socket_id = connection.protocol.socket_id
        assert self._authorizer is not None
        assert socket_id is not None
        try:
            async with self._authorizing:
                # A signature is good for one socket, and the program may have left meanwhile.
                if not self._is_current(channel, connection):
                    return
                answer = await self._authorizer.authorize(channel.name, socket_id)
        except SubscriptionFailed as exc:
            error = exc
        except (Exception, asyncio.CancelledError) as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # A foreign exception's text may hold an address with a token: its name must do.
            error = SubscriptionFailed(
                f"The authorizer failed for {channel.name} with {type(exc).__name__}.",
                channel=channel.name,
            )
            error.__cause__ = exc
        else:
            if self._is_current(channel, connection):
                if isinstance(channel, PresenceChannel):
                    me = parse_channel_data(answer.channel_data or "")
                    channel.members.my_id = None if me is None else me.id
                connection.subscribe(channel.name, answer.auth, answer.channel_data)
            return
        if self._is_current(channel, connection):
            self._refused(error)

    def _is_current(self, channel: Channel, connection: Connection) -> bool:
        return self.channels.get(channel.name) is channel and self._connection is connection

    # What the server says

    def notice(self, event: Received) -> bool:
        """Take what the protocol says of a channel; whether it was of one."""
        match event:
            case SubscriptionSucceeded(channel, members):
                self._joined(channel, members)
            case SubscriptionFailed():
                self._refused(event)
            case MemberAdded(channel, member):
                self._member_added(channel, member)
            case MemberRemoved(channel, user_id):
                self._member_removed(channel, user_id)
            case SubscriptionCounted(channel, count):
                self._counted(channel, count)
            case CacheMissed(channel):
                self._surface("pusher:cache_miss", channel, None)
            case _:
                return False
        return True

    def _joined(self, name: str, members: dict[str, Member]) -> None:
        channel = self.channels.get(name)
        if channel is None:
            return  # left while the answer was on its way
        channel.joined(members)
        log.info("subscribed to %s", name)
        self._host.tell(Subscribed(name))
        data = {"count": len(members), "ids": list(members)} if members else None
        self._surface("pusher:subscription_succeeded", name, data)

    def _refused(self, error: SubscriptionFailed) -> None:
        channel = self.channels.get(error.channel)
        if channel is None:
            return
        channel.move(ChannelState.FAILED, error)
        self.report(error)
        data = {"type": type(error).__name__, "error": str(error), "status": error.code}
        self._surface("pusher:subscription_error", error.channel, data)

    def _member_added(self, name: str, member: Member) -> None:
        channel = self.channels.get(name)
        if isinstance(channel, PresenceChannel):
            channel.members.add(member)
        self._surface("pusher:member_added", name, {"id": member.id, "info": member.info})

    def _member_removed(self, name: str, user_id: str) -> None:
        channel = self.channels.get(name)
        member = channel.members.remove(user_id) if isinstance(channel, PresenceChannel) else None
        info = None if member is None else member.info
        self._surface("pusher:member_removed", name, {"id": user_id, "info": info})

    def _counted(self, name: str, count: int) -> None:
        channel = self.channels.get(name)
        if channel is not None:
            channel.subscription_count = count
        self._surface("pusher:subscription_count", name, {"subscription_count": count})

    def _surface(self, name: str, channel: str, data: Any) -> None:
        """Deliver something of the protocol's as the event pusher-js makes of it."""
        self._host.receive(Event(name=name, channel=channel, raw=data))

"""The channels of a client: what is asked of the server for them, and what it answers.

They outlive connections. Each new connection is given to `opened`, which subscribes them all
again, private and presence channels with a signature made for that connection's socket id.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar

import msgspec

from antiphon.errors import (
    AntiphonError,
    AuthTimeout,
    ClientClosed,
    ConnectionFailed,
    DecryptionFailed,
    InvalidName,
    MalformedAuthResponse,
    SubscriptionFailed,
)
from antiphon.protocol.backoff import Backoff
from antiphon.protocol.channels import Access, access_of, check_channel_name, needs_authorization
from antiphon.protocol.client import Received
from antiphon.protocol.closing import Action
from antiphon.protocol.encryption import KEY_SIZE, check_available, decrypt
from antiphon.protocol.events import (
    CacheMissed,
    MemberAdded,
    MemberRemoved,
    SubscriptionCounted,
    SubscriptionSucceeded,
)
from antiphon.protocol.frames import Event
from antiphon.protocol.presence import Member, parse_channel_data

from .auth import Authorization, Authorizer
from .channel import (
    Channel,
    ChannelState,
    EncryptedChannel,
    PresenceChannel,
    kind_of,
    signature,
)
from .connection import Connection
from .flow import Inbox
from .host import Host
from .roll import Roll
from .states import Subscribed

__all__ = ["Subscriptions"]

T = TypeVar("T")

log = logging.getLogger("antiphon.channel")

ORDER_PATIENCE: Final = 0.25
"""Seconds that a signature waits for those of channels subscribed earlier."""

KEY_TIMEOUT: Final = 30.0
"""Seconds to wait for a fresh key of an encrypted channel."""

KEY_AGE: Final = 1.0
"""Seconds for which a fresh key of an encrypted channel is believed to be the right one."""


class Subscriptions:
    """The channels a client holds.

    Args:
        host: What the client's parts share.
        authorizer: Signs private and presence channels; None if there is none.
        history: Gets every event.
        backoff: Makes the delays between attempts for one channel.
        roll: Is told who is subscribed again.
    """

    def __init__(
        self,
        host: Host,
        authorizer: Authorizer | None,
        history: deque[Event],
        backoff: Callable[[], Backoff],
        roll: Roll,
    ) -> None:
        self.channels: dict[str, Channel] = {}
        # Hot path: what takes the events of a channel, by the channel's name.
        self._routes: dict[str, Callable[[Event], object]] = {}
        self.host = host
        # Takes events of channels that are not held.
        self.otherwise: Callable[[Event], object] = _nobody
        self._authorizer = authorizer
        self._history = history
        self._make_backoff = backoff
        self._roll = roll
        # The connection on which channels are subscribed; None while there is none.
        self._connection: Connection | None = None
        # Ends what is under way for a channel on this connection: a question, or a wait.
        self._ends: dict[str, Callable[[], None]] = {}
        self._backoffs: dict[str, Backoff] = {}
        # Who is being signed, in the order of subscribing; with the signature once it is there.
        self._line: dict[str, Authorization | None] = {}
        self._signed = 0  # how many of them have theirs
        self._overtaking: asyncio.TimerHandle | None = None

    # Events

    def receive(self, event: Event) -> None:
        """Take an event of a channel: the hot path."""
        try:
            deliver = self._routes[event.channel]  # type: ignore[index]  # None is in no dict
        except KeyError:
            deliver = self.otherwise
        if deliver(event):
            return  # it is encrypted, and comes again when it is not
        self._history.append(event)
        if self.host.observers:
            self.host.tell(event)

    def _receive_sealed(self, channel: EncryptedChannel, event: Event) -> bool:
        """Take an event of an encrypted channel; True, for it is not yet delivered."""
        if channel.sealed is not None:
            channel.sealed.put(event)  # it must not overtake those that wait for a fresh key
        elif not self._unseal(channel, event):
            now = monotonic()
            fresh = channel.refreshed_at is not None and now - channel.refreshed_at < KEY_AGE
            if fresh or self._connection is None:
                self._not_decrypted(event)
            else:
                channel.sealed = Inbox(self.host.valve)
                channel.sealed.put(event)
                work = self._refresh_key(channel, self._connection)
                self._ends[channel.name] = self.host.spawn(work, f"antiphon key {channel.name}")
        return True

    def _unseal(self, channel: EncryptedChannel, event: Event) -> bool:
        """Decrypt an event and deliver it; False if the channel's key does not open it."""
        text = None if channel.key is None else decrypt(channel.key, event.raw)
        if text is None:
            return False
        self._deliver(channel, msgspec.structs.replace(event, raw=text))
        return True

    def _deliver(self, channel: Channel | None, event: Event) -> None:
        if channel is not None:
            channel.deliver(event)
        self._history.append(event)
        self.host.tell(event)

    async def _refresh_key(self, channel: EncryptedChannel, connection: Connection) -> None:
        """Ask for the channel's key anew, and go on with the events that have waited."""
        try:
            # No longer: the events of all channels may wait behind those that wait for the key.
            async with asyncio.timeout(KEY_TIMEOUT):
                channel.key = _key(await self._sign(channel, connection), channel.name)
        except AntiphonError as exc:
            self.host.report(exc)
        except TimeoutError:
            text = (
                f"The key of {channel.name} was asked for, and did not come in {KEY_TIMEOUT:g} s."
            )
            self.host.report(AuthTimeout(text, channel=channel.name))
        else:
            log.info("the key of %s was asked for anew", channel.name)
        self._ends.pop(channel.name, None)
        channel.refreshed_at = monotonic()
        self._unseal_waiting(channel)

    def _unseal_waiting(self, channel: EncryptedChannel) -> None:
        """Go on with the events that have waited for a key."""
        sealed, channel.sealed = channel.sealed, None
        if sealed is None:
            return
        for event in sealed.drain():
            if self.channels.get(channel.name) is not channel:
                break  # a handler has left it
            if not self._unseal(channel, event):
                self._not_decrypted(event)
        sealed.close()

    def _not_decrypted(self, event: Event) -> None:
        self.host.report(
            DecryptionFailed(
                f"{event.name} on {event.channel} could not be decrypted: it was not encrypted"
                " with the key that the auth endpoint gives. Do both use one master key?",
                event=event.name,
                channel=event.channel,
            )
        )

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
        self._line.clear()
        self._signed = 0
        self._backoffs.clear()
        self._stop_overtaking()
        for channel in list(self.channels.values()):
            channel.lost()

    def end(self, error: ConnectionFailed) -> None:
        """No connection will come: let go who waits to be subscribed."""
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
        self._routes.clear()
        self.otherwise = _nobody

    # What the program asks for

    def subscribe(self, name: str, kind: type[Channel] = Channel) -> Channel:
        """Hold a channel.

        Args:
            name: Its name.
            kind: What it must be.

        Raises:
            InvalidName: No channel can have this name, or none of this kind.
            SubscriptionFailed: It needs a signature, and there is no authorizer.
            SettingsError: It is encrypted, and PyNaCl is missing.
        """
        if not issubclass(kind_of(name), kind):
            raise InvalidName(f"{name!r} names no {kind.__name__}: see what it begins with.")
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
        if access_of(name) is Access.ENCRYPTED:
            check_available()
        channel = self.channels[name] = kind_of(name)(name, self)
        self._routes[name] = channel.deliver
        if isinstance(channel, EncryptedChannel):
            self._routes[name] = partial(self._receive_sealed, channel)
        if self._connection is not None:
            self._subscribe(channel, self._connection)
        return channel

    def leave(self, channel: Channel) -> None:
        """Give back one hold on a channel; with the last one it is left."""
        channel.holds -= 1
        if channel.holds > 0 or self.channels.get(channel.name) is not channel:
            return
        del self.channels[channel.name], self._routes[channel.name]
        # Not while it is being signed: then the server has never heard of it.
        signing = channel.state is ChannelState.PENDING and channel.name in self._ends
        asked = channel.state is not ChannelState.FAILED and not signing
        self._forget(channel.name)
        channel.left()
        if asked and self._connection is not None:
            self._connection.unsubscribe(channel.name)
        self._roll.gone(channel.name)

    def _forget(self, name: str) -> None:
        """A channel is no longer held: end what is under way for it."""
        self._end(name)
        self._backoffs.pop(name, None)
        if name in self._line:
            self._leave_line(name)
            self._advance()

    def _end(self, name: str) -> None:
        """End what is under way for a channel on this connection."""
        end = self._ends.pop(name, None)
        if end is not None:
            end()

    @property
    def is_open(self) -> bool:
        """Whether what is sent goes out."""
        return self._connection is not None and self._connection.is_open

    def trigger(self, channel: Channel, event: str, data: Any) -> None:
        """Send a client event on the present connection."""
        if self._connection is not None:
            self._connection.trigger(channel.name, event, data)

    # Subscribing

    def _subscribe(self, channel: Channel, connection: Connection) -> None:
        self._end(channel.name)
        channel.move(ChannelState.PENDING)
        if not needs_authorization(channel.name):
            connection.subscribe(channel.name, None, None)
            return
        self._leave_line(channel.name)
        self._line[channel.name] = None
        work = self._authorize(channel, connection)
        self._ends[channel.name] = self.host.spawn(work, f"antiphon authorize {channel.name}")

    async def _authorize(self, channel: Channel, connection: Connection) -> None:
        """Get a signature for this connection, and let the channel take its turn."""
        try:
            answer = await self._sign(channel, connection)
            if isinstance(channel, EncryptedChannel):
                channel.key = _key(answer, channel.name)
        except AntiphonError as exc:
            if self._is_current(channel, connection):
                self._leave_line(channel.name)
                self._ends.pop(channel.name, None)
                self._refused(channel, _of(channel, exc))
                self._advance()
                if isinstance(channel, EncryptedChannel):
                    self._unseal_waiting(channel)
            return
        if not self._is_current(channel, connection):
            return
        if channel.name in self._line:
            self._line[channel.name] = answer
            self._signed += 1
            self._advance()
        else:
            self._send(channel.name, answer)  # it was overtaken
        if isinstance(channel, EncryptedChannel):
            self._unseal_waiting(channel)  # they came on the connection before this one

    async def _sign(self, channel: Channel, connection: Connection) -> Authorization:
        """A signature for this channel on this connection.

        Raises:
            AntiphonError: There is none.
        """
        assert self._authorizer is not None
        socket_id = connection.protocol.socket_id
        assert socket_id is not None
        name = channel.name
        ask = partial(self._authorizer.authorize, name, socket_id)
        return await signature(ask, Authorization, name, name)

    def _advance(self) -> None:
        """Subscribe, in order, those who are signed; who takes too long is overtaken."""
        while self._line:
            name, answer = next(iter(self._line.items()))
            if answer is None:
                break
            self._send(name, answer)
            self._stop_overtaking()  # the next one is waited for as long
        if not self._signed:
            self._stop_overtaking()
        elif self._overtaking is None:
            loop = asyncio.get_running_loop()
            self._overtaking = loop.call_later(ORDER_PATIENCE, self._overtake)

    def _overtake(self) -> None:
        """Subscribe all who are signed; those before them are waited for no longer."""
        self._overtaking = None
        late: list[str] = []
        for name, answer in list(self._line.items()):
            if answer is None:
                late.append(name)
            else:
                for before in late:
                    del self._line[before]
                late.clear()
                self._send(name, answer)

    def _leave_line(self, name: str) -> None:
        if self._line.pop(name, None) is not None:
            self._signed -= 1

    def _stop_overtaking(self) -> None:
        if self._overtaking is not None:
            self._overtaking.cancel()
            self._overtaking = None

    def _send(self, name: str, answer: Authorization) -> None:
        """Subscribe a channel that is signed."""
        self._leave_line(name)
        self._ends.pop(name, None)
        channel, connection = self.channels.get(name), self._connection
        if channel is None or connection is None:
            return
        if isinstance(channel, PresenceChannel):
            me = parse_channel_data(answer.channel_data or "")
            channel.members.my_id = None if me is None else me.id
        connection.subscribe(name, answer.auth, answer.channel_data)

    def _is_current(self, channel: Channel, connection: Connection) -> bool:
        return self.channels.get(channel.name) is channel and self._connection is connection

    def _try_again(self, channel: Channel, connection: Connection) -> None:
        """Ask once more, after a while, for a channel that was refused for the moment only."""
        backoff = self._backoffs.get(channel.name)
        if backoff is None:
            backoff = self._backoffs[channel.name] = self._make_backoff()
        delay = backoff.next_delay(Action.BACK_OFF)
        if delay is None:
            return
        log.info("%s is asked for again in %.1f s", channel.name, delay)

        def again() -> None:
            if self._is_current(channel, connection) and channel.state is ChannelState.FAILED:
                self._subscribe(channel, connection)

        self._end(channel.name)
        self._ends[channel.name] = asyncio.get_running_loop().call_later(delay, again).cancel

    # What the server says

    def notice(self, event: Received) -> bool:
        """Take what the protocol says of a channel; whether it was of one."""
        match event:
            case SubscriptionSucceeded(channel, members):
                self._joined(channel, members)
            case SubscriptionFailed():
                held = self.channels.get(event.channel)
                if held is not None:
                    self._refused(held, event)
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
        if channel is None or name in self._ends:
            return  # left while the answer was on its way, and perhaps asked for anew
        self._backoffs.pop(name, None)
        channel.joined(members)
        log.info("subscribed to %s", name)
        self.host.tell(Subscribed(name))
        data = {"count": len(members), "ids": list(members)} if members else None
        self._surface("pusher:subscription_succeeded", name, data)
        self._roll.joined(name)

    def _refused(self, channel: Channel, error: SubscriptionFailed) -> None:
        channel.move(ChannelState.FAILED, error)
        self.host.report(error)
        data = {"type": type(error).__name__, "error": str(error), "status": error.code}
        self._surface("pusher:subscription_error", channel.name, data)
        self._roll.failed(channel.name)
        connection = self._connection
        # A handler may have left the channel by now, or asked for it again.
        if (
            error.temporary
            and connection is not None
            and self._is_current(channel, connection)
            and channel.state is ChannelState.FAILED
        ):
            self._try_again(channel, connection)

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
        self._deliver(self.channels.get(channel), Event(name=name, channel=channel, raw=data))


def _of(channel: Channel, error: AntiphonError) -> SubscriptionFailed:
    """An error of the authorizer's, as one of this channel."""
    if isinstance(error, SubscriptionFailed):
        return error
    failed = SubscriptionFailed(str(error), channel=channel.name, code=error.code)
    failed.__cause__ = error
    return failed


def _key(answer: Authorization, channel: str) -> bytes:
    """The key of an encrypted channel, as the authorizer gave it.

    Raises:
        MalformedAuthResponse: There is none, or it is none.
    """
    try:
        key = base64.b64decode(answer.shared_secret or "", validate=True)
    except (TypeError, ValueError):
        key = b""
    if len(key) != KEY_SIZE:
        raise MalformedAuthResponse(
            f"No usable shared_secret came with the signature of {channel}: an encrypted channel"
            f" needs one, base64 of {KEY_SIZE} bytes. Does the backend have the master key?",
            channel=channel,
        )
    return key


def _nobody(event: Event) -> None:
    """Takes an event that nobody waits for."""

"""Channels as a program holds them. They outlive connections: each new one subscribes them anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from antiphon.errors import (
    AntiphonError,
    AuthServerError,
    ClientClosed,
    ConnectionFailed,
    InvalidName,
    MalformedAuthResponse,
    QueueOverflow,
    SubscriptionFailed,
)
from antiphon.protocol.channels import Access, access_of, check_event_name, takes_client_events
from antiphon.protocol.frames import Event

from .flow import Inbox
from .host import Host
from .outbox import Outbox, TriggerResult
from .source import EventSource

if TYPE_CHECKING:
    from antiphon.protocol.presence import Member

__all__ = [
    "Channel",
    "ChannelState",
    "EncryptedChannel",
    "Granted",
    "Members",
    "PresenceChannel",
    "kind_of",
    "signature",
]

T = TypeVar("T")
Answer = tuple["ChannelState", AntiphonError | None]


class ChannelState(StrEnum):
    """Where a subscription stands."""

    PENDING = "pending"
    """Asked for; there is no answer yet, or no connection."""
    SUBSCRIBED = "subscribed"
    """Events arrive."""
    FAILED = "failed"
    """Refused; it is tried again, at the latest with the next connection."""
    UNSUBSCRIBED = "unsubscribed"
    """Left by the program."""


class Granted(EventSource):
    """Something the server must grant at each connection anew: a channel, a sign-in.

    Attributes:
        state: Where it stands.
        error: Why it was refused, while it is `FAILED`.
    """

    error: AntiphonError | None

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.state = ChannelState.PENDING
        self.error = None
        self._answers: set[asyncio.Future[Answer]] = set()

    async def _settled(self, timeout: float | None) -> Answer:
        """Wait until it is granted or refused: the state it came to, and why."""
        if self.state is not ChannelState.PENDING:
            return self.state, self.error
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers.add(answer)
        try:
            settled: Answer = await self._wait(answer, timeout, asked=True)
        finally:
            self._answers.discard(answer)
        return settled

    def move(self, state: ChannelState, error: AntiphonError | None = None) -> None:
        """Enter a state and let go who waits for it; the only place that writes it."""
        self.state = state
        self.error = error
        if state is ChannelState.PENDING:
            return
        for answer in self._answers:
            if not answer.done():
                answer.set_result((state, error))

    def lost(self) -> None:
        """The connection is gone; the next one asks again."""
        self.move(ChannelState.PENDING)


async def signature(
    ask: Callable[[], Awaitable[object]], kind: type[T], what: str, channel: str = ""
) -> T:
    """What an authorizer answers.

    Args:
        ask: Asks it.
        kind: What the answer must be.
        what: What it is about, for the error's text.
        channel: The channel, if it is about one.

    Raises:
        AntiphonError: The authorizer's own, `AuthServerError` for whatever else it raised, or
            `MalformedAuthResponse` for whatever else it answered.
    """
    try:
        answer = await ask()
    except AntiphonError:
        raise
    except (Exception, asyncio.CancelledError) as exc:
        if _is_cancelled():
            raise
        # A foreign exception's text may hold an address with a token: its name must do.
        raise AuthServerError(
            f"The authorizer failed for {what} with {type(exc).__name__}.", channel=channel
        ) from exc
    if not isinstance(answer, kind):
        raise MalformedAuthResponse(
            f"The authorizer gave no {kind.__name__} for {what} but {type(answer).__name__}.",
            channel=channel,
        )
    try:
        msgspec.json.encode(answer)
    except (TypeError, ValueError, RecursionError):
        raise MalformedAuthResponse(
            f"The authorizer gave for {what} what no message can carry.", channel=channel
        ) from None
    return answer


def _is_cancelled() -> bool:
    # No local of `signature` may hold the task: the exception in its traceback would hold both.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class ChannelOwner(Protocol):
    """What a channel needs of those who hold it."""

    host: Host

    @property
    def is_open(self) -> bool:
        """Whether what is sent goes out."""

    def leave(self, channel: Channel) -> None:
        """Give back one hold on a channel."""

    def trigger(self, channel: Channel, event: str, data: Any) -> None:
        """Send a client event."""


class Channel(Granted):
    """A public, private or cache channel, made by `Client.subscribe`.

    Attributes:
        name: The channel's name.
        subscription_count: Connections subscribed to it, where the server tells; else None.
    """

    def __init__(self, name: str, owner: ChannelOwner) -> None:
        super().__init__(owner.host)
        self.name = name
        self.subscription_count: int | None = None
        self.holds = 1
        self._owner = owner
        self._outbox: Outbox | None = None
        self.deliver = self._bindings.deliver

    def __repr__(self) -> str:
        """Name and state."""
        return f"<{type(self).__name__} {self.name} {self.state}>"

    # The subscription

    @property
    def is_subscribed(self) -> bool:
        """Whether events arrive."""
        return self.state is ChannelState.SUBSCRIBED

    async def subscribed(self, timeout: float | None = None) -> None:
        """Wait until the channel is joined.

        Args:
            timeout: Seconds to wait; None for no limit.

        Raises:
            SubscriptionFailed: The authorizer or the server refused.
            ConnectionFailed: The client has given up, or was closed.
            ClientClosed: The channel was left.
            TimeoutError: There was no answer in time.
        """
        state, error = await self._settled(timeout)
        if error is not None:
            raise error.with_traceback(None)  # raised again and again, it would gather them
        if state is not ChannelState.SUBSCRIBED:
            raise ClientClosed(f"{self.name} is {state}.")

    def unsubscribe(self) -> None:
        """Give this hold on the channel back; with the last one the server is told.

        Handlers stay bound only while someone holds the channel.
        """
        if self.state is not ChannelState.UNSUBSCRIBED:
            self._owner.leave(self)

    # Client events

    def trigger(self, event: str, data: Any = None) -> TriggerResult:
        """Send a client event to the channel's other members.

        It is sent at once if the channel is joined and this client has sent fewer than 10 in the
        last second, on whichever channels. Else up to 100 wait, in order, also through a
        reconnection; what still waits when the channel is left is reported as `QueueOverflow`.

        Args:
            event: A name that begins with `client-`.
            data: Any JSON value.

        Returns:
            Whether it was sent, queued or refused, and why.

        Raises:
            InvalidName: The name does not begin with `client-`.
            SubscriptionFailed: The channel takes no client events.
            TypeError: The data has no form in JSON.
        """
        if not event.startswith("client-"):
            raise InvalidName(f"A client event's name begins with 'client-', {event!r} does not.")
        check_event_name(event)
        if not event.isprintable():
            raise InvalidName(f"{event!r} holds a character that no event's name can have.")
        if not takes_client_events(self.name):
            raise SubscriptionFailed(
                f"{self.name} takes no client events: only private and presence channels do,"
                " and of those none that is encrypted.",
                channel=self.name,
            )
        if self.state is ChannelState.UNSUBSCRIBED:
            return TriggerResult("refused", f"{self.name} was left.")
        if self.state is ChannelState.FAILED:
            return TriggerResult("refused", f"{self.name} is refused: {self.error}")
        ended = self._host.ended
        if ended is not None and not isinstance(ended, ClientClosed):
            return TriggerResult("refused", str(ended))
        if self._outbox is None:
            self._outbox = Outbox(self._send, self._can_send, self._host.sent_at)
        return self._outbox.put(event, data)

    def _can_send(self) -> bool:
        return self.is_subscribed and self._owner.is_open

    def _send(self, event: str, data: Any) -> None:
        self._owner.trigger(self, event, data)

    def _drop_unsent(self) -> None:
        count = 0 if self._outbox is None else self._outbox.close()
        self._outbox = None
        if count:
            self._host.report(
                QueueOverflow(
                    f"{count} client events for {self.name} were not sent: nothing takes them now.",
                    channel=self.name,
                )
            )

    # What the client calls

    def joined(self, members: dict[str, Member]) -> None:
        """The server has added this connection."""
        self.move(ChannelState.SUBSCRIBED)
        if self._outbox is not None:
            self._outbox.flush()

    def fail(self, error: ConnectionFailed) -> None:
        """The client has given up: streams end with the error, as does all waiting."""
        super().fail(error)
        self._drop_unsent()

    def left(self) -> None:
        """The program has given its last hold back."""
        self.move(ChannelState.UNSUBSCRIBED)
        self.give_up(ClientClosed(f"{self.name} was left."))
        self._drop_unsent()
        self._bindings.close()


class Members:
    """The users in a presence channel, as far as the server has told."""

    def __init__(self) -> None:
        self._by_id: dict[str, Member] = {}
        self.my_id: str | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._by_id)

    @property
    def me(self) -> Member | None:
        """This client's own user."""
        return None if self.my_id is None else self._by_id.get(self.my_id)

    def get(self, user_id: str) -> Member | None:
        """One user, or None."""
        return self._by_id.get(user_id)

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._by_id

    def reset(self, members: dict[str, Member]) -> None:
        """Take what the server says on joining."""
        self._by_id = dict(members)

    def add(self, member: Member) -> None:
        """A user has come."""
        self._by_id[member.id] = member

    def remove(self, user_id: str) -> Member | None:
        """A user has gone; the user, if known."""
        return self._by_id.pop(user_id, None)


class PresenceChannel(Channel):
    """A channel that knows its users."""

    def __init__(self, name: str, owner: ChannelOwner) -> None:
        super().__init__(name, owner)
        self.members = Members()

    def joined(self, members: dict[str, Member]) -> None:
        """The server has added this connection and says who is there."""
        self.members.reset(members)
        super().joined(members)

    def lost(self) -> None:
        """The connection is gone, and with it what was known of the others."""
        self.members.reset({})
        super().lost()


class EncryptedChannel(Channel):
    """A private channel whose events only its members can read.

    Handlers, streams and the history get the data in clear.
    """

    def __init__(self, name: str, owner: ChannelOwner) -> None:
        super().__init__(name, owner)
        self.key: bytes | None = None
        # Events that wait while a fresh key is asked for.
        self.sealed: Inbox[Event] | None = None
        self.refreshed_at: float | None = None

    def lost(self) -> None:
        """The connection is gone, and with it the key; what waits for one waits for the next."""
        self.key = None
        self.refreshed_at = None
        super().lost()

    def left(self) -> None:
        """The program has given its last hold back."""
        if self.sealed is not None:
            self.sealed.close(discard=True)  # a full one would keep the socket from being read
            self.sealed = None
        super().left()


def kind_of(name: str) -> type[Channel]:
    """The kind of channel that a name says."""
    return _KINDS.get(access_of(name), Channel)


_KINDS: Final[dict[Access, type[Channel]]] = {
    Access.PRESENCE: PresenceChannel,
    Access.ENCRYPTED: EncryptedChannel,
}

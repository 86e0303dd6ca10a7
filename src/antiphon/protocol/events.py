"""What `ClientProtocol` reports besides plain events.

Errors are reported as values of `antiphon.errors`; the machine raises none of them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .closing import Action
from .presence import Member

__all__ = [
    "CacheMissed",
    "Closed",
    "Connected",
    "MemberAdded",
    "MemberRemoved",
    "ProtocolEvent",
    "SignedIn",
    "SubscriptionCounted",
    "SubscriptionSucceeded",
    "WatchlistChanged",
]


class Connected(msgspec.Struct, frozen=True):
    """The handshake is done.

    Attributes:
        socket_id: This connection's id, to sign subscriptions with.
        activity_timeout: Seconds of silence that are allowed: the smaller of both sides'.
    """

    socket_id: str
    activity_timeout: float


class Closed(msgspec.Struct, frozen=True):
    """The connection is over; nothing further comes from this machine.

    Attributes:
        action: What to do next.
        code: Close code, or the code of the in-band error that ended it, or None.
        reason: Words for people.
        opened: Whether the handshake had been done.
        clean: Whether the peer said that it closes.
    """

    action: Action
    code: int | None
    reason: str
    opened: bool
    clean: bool = False


class SubscriptionSucceeded(msgspec.Struct, frozen=True):
    """The server has added this connection to a channel.

    Attributes:
        channel: The channel's name.
        members: Who is in it, by id, on a presence channel; else empty.
    """

    channel: str
    members: dict[str, Member]


class SubscriptionCounted(msgspec.Struct, frozen=True):
    """How many connections are subscribed to a channel."""

    channel: str
    count: int


class MemberAdded(msgspec.Struct, frozen=True):
    """A user has joined a presence channel."""

    channel: str
    member: Member


class MemberRemoved(msgspec.Struct, frozen=True):
    """A user has left a presence channel."""

    channel: str
    user_id: str


class CacheMissed(msgspec.Struct, frozen=True):
    """A cache channel had no event to give."""

    channel: str


class SignedIn(msgspec.Struct, frozen=True):
    """The server has accepted `pusher:signin`.

    Attributes:
        user_id: The user's id.
        user_data: All that the authorizer said of the user.
    """

    user_id: str
    user_data: dict[str, Any]


class WatchlistChanged(msgspec.Struct, frozen=True):
    """Users on this user's watchlist came or went.

    Attributes:
        online: Ids of those now online.
        offline: Ids of those now offline.
    """

    online: tuple[str, ...]
    offline: tuple[str, ...]


ProtocolEvent = (
    Connected
    | Closed
    | SubscriptionSucceeded
    | SubscriptionCounted
    | MemberAdded
    | MemberRemoved
    | CacheMissed
    | SignedIn
    | WatchlistChanged
)

"""Channel and event names: what a prefix means, which names are allowed.

Pusher documentation, *channels* and *cache channels*. Kinds are told by prefix with its dash:
Reverb leaves the dash out (`privatefoo` is private there), which no client relies on.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from antiphon.errors import InvalidName

__all__ = [
    "MAX_CHANNEL_NAME",
    "MAX_EVENT_NAME",
    "Access",
    "access_of",
    "check_channel_name",
    "check_event_name",
    "is_cache_channel",
    "is_internal_event",
    "needs_authorization",
    "takes_client_events",
    "user_channel",
]

MAX_CHANNEL_NAME: Final = 200
"""Characters, as server libraries and soketi enforce; Pusher's pages say 164."""

MAX_EVENT_NAME: Final = 200

_USER_PREFIX: Final = "#server-to-user-"
_CACHE_PREFIXES: Final = (
    "cache-",
    "private-cache-",
    "presence-cache-",
    "private-encrypted-cache-",
)
_NAME: Final = re.compile(r"[A-Za-z0-9_\-=@,.;]+")
_USER_NAME: Final = re.compile(re.escape(_USER_PREFIX) + r"[^\x00-\x1f\x7f]+")


class Access(Enum):
    """Who may join a channel, and what joining gives."""

    PUBLIC = "public"
    PRIVATE = "private"
    PRESENCE = "presence"
    ENCRYPTED = "encrypted"
    USER = "user"


def access_of(channel: str) -> Access:
    """The kind of a channel, by its prefix."""
    if channel.startswith("private-encrypted-"):
        return Access.ENCRYPTED
    if channel.startswith("private-"):
        return Access.PRIVATE
    if channel.startswith("presence-"):
        return Access.PRESENCE
    if channel.startswith(_USER_PREFIX):
        return Access.USER
    return Access.PUBLIC


def is_cache_channel(channel: str) -> bool:
    """Whether the server keeps the channel's last event for those who join later."""
    return channel.startswith(_CACHE_PREFIXES)


def needs_authorization(channel: str) -> bool:
    """Whether a subscription must carry a signature.

    A user's own channel needs none: the server lets in who has signed in as that user.
    """
    return channel.startswith(("private-", "presence-"))


def takes_client_events(channel: str) -> bool:
    """Whether members may send `client-` events: private and presence, not encrypted."""
    return needs_authorization(channel) and not channel.startswith("private-encrypted-")


def is_internal_event(event: str) -> bool:
    """Whether a name belongs to the protocol, so that nobody may publish it."""
    return event.startswith(("pusher:", "pusher_internal:"))


def user_channel(user_id: str) -> str:
    """The channel on which one signed-in user is addressed."""
    return f"{_USER_PREFIX}{user_id}"


def check_channel_name(channel: str, max_length: int = MAX_CHANNEL_NAME) -> None:
    """Refuse a name no server would take.

    Raises:
        InvalidName: It is empty, too long, or holds a character that is not allowed.
    """
    if len(channel) > max_length:
        raise InvalidName(
            f"A channel's name has at most {max_length} characters;"
            f" {channel[:40]!r}… has {len(channel)}."
        )
    pattern = _USER_NAME if channel.startswith("#") else _NAME
    if pattern.fullmatch(channel) is None:
        raise InvalidName(
            f"{channel!r} is no channel name: letters, digits and _ - = @ , . ; are allowed."
        )


def check_event_name(event: str) -> None:
    """Refuse an event name that cannot be published.

    Raises:
        InvalidName: It is empty, too long, or belongs to the protocol.
    """
    if not event or len(event) > MAX_EVENT_NAME:
        raise InvalidName(f"An event's name has 1 to {MAX_EVENT_NAME} characters: {event[:40]!r}.")
    if is_internal_event(event):
        raise InvalidName(f"{event!r} belongs to the protocol; choose a name without 'pusher'.")

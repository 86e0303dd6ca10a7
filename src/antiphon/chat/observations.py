"""What a session tells its observers, in the order in which it happens."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from antiphon.client import ConnectingIn

from .events import TypingUser
from .problems import Problem
from .timeline import Change

__all__ = [
    "ChatObservation",
    "ChatState",
    "ConversationsChanged",
    "PresenceChanged",
    "StateChanged",
    "TimelineChanged",
    "TimelineReplaced",
    "Typing",
]


class ChatState(StrEnum):
    """Where a session stands."""

    CLOSED = "closed"
    """Not started, or closed."""
    CONNECTING = "connecting"
    """On its way to its first connection."""
    CONNECTED = "connected"
    """Connected, and told of everything."""
    RECONNECTING = "reconnecting"
    """The connection was lost; attempts go on."""
    FAILED = "failed"
    """All attempts are used up, or the session is refused: it waits for `retry()`."""


class StateChanged(msgspec.Struct, frozen=True):
    """The session has moved.

    Attributes:
        previous: The state it was in.
        current: The state it is in now.
        problem: Why, where that was not wished for.
    """

    previous: ChatState
    current: ChatState
    problem: Problem | None = None


class TimelineChanged(msgspec.Struct, frozen=True):
    """Entries of a conversation's timeline are new, different or gone.

    Attributes:
        conversation_id: The conversation.
        changes: What has become of which, to be applied one after the other.
        is_history: Whether these are older messages that somebody has asked for.
    """

    conversation_id: str
    changes: tuple[Change, ...]
    is_history: bool = False


class TimelineReplaced(msgspec.Struct, frozen=True):
    """A conversation's timeline began anew: what is shown of it is to be drawn again.

    Attributes:
        conversation_id: The conversation.
        reason: Why, for people; empty where nothing was lost from sight.
    """

    conversation_id: str
    reason: str = ""


class ConversationsChanged(msgspec.Struct, frozen=True):
    """Conversations are new, have other members, another last message or unread count.

    Attributes:
        conversation_ids: Which.
    """

    conversation_ids: tuple[str, ...]


class Typing(msgspec.Struct, frozen=True):
    """Who types in a conversation now.

    Attributes:
        conversation_id: The conversation.
        users: All of them; empty when the last one has stopped.
    """

    conversation_id: str
    users: tuple[TypingUser, ...]


class PresenceChanged(msgspec.Struct, frozen=True):
    """Users have come or gone.

    Attributes:
        user_ids: Which.
    """

    user_ids: tuple[str, ...]


ChatObservation = (
    StateChanged
    | ConnectingIn
    | TimelineChanged
    | TimelineReplaced
    | ConversationsChanged
    | Typing
    | PresenceChanged
    | Problem
)
"""All that `ChatSession.observe` reports."""

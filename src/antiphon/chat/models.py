"""What a chat is made of: people, conversations, messages, and what a timeline shows of them."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import msgspec

__all__ = ["Conversation", "Draft", "Entry", "Id", "Message", "Page", "Status", "User"]

Id = int | str
"""An id as the backend spells it; compare two of them as text."""


class User(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A user of the chat."""

    id: Id
    first_name: str = ""
    last_name: str = ""
    email: str = ""

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}".strip()

    @property
    def channel(self) -> str:
        """The private channel on which this user is told of everything."""
        return f"private-user.{self.id}"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A chat message, as the backend has it.

    Attributes:
        status: `sent`, `delivered` or `read`, as far as the backend says.
        temp_id: The id its sender gave it; backends tell nobody else, and not all tell it.
    """

    id: Id
    chat_id: Id
    sender_id: Id
    content: str
    sender_name: str = ""
    sent_at: datetime | None = None
    status: str = "sent"
    temp_id: str | None = msgspec.field(name="tempId", default=None)

    def __post_init__(self) -> None:
        # Laravel's models without a cast give no zone, and mean UTC.
        if self.sent_at is not None and self.sent_at.tzinfo is None:
            msgspec.structs.force_setattr(self, "sent_at", self.sent_at.replace(tzinfo=UTC))


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation as one of its members sees it.

    Attributes:
        title: None for a conversation that is named by who is in it.
        members: Everyone in it, oneself included.
        last_message: The newest message, if there is one.
        unread_count: Messages of others after one's read mark.
    """

    id: Id
    title: str | None = None
    members: tuple[User, ...] = ()
    last_message: Message | None = None
    unread_count: int = 0


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Messages, oldest first.

    Attributes:
        has_more: Whether further messages follow in the direction that was asked for.
    """

    messages: tuple[Message, ...] = ()
    has_more: bool = False


class Status(StrEnum):
    """How far a message has come; others' messages are `SENT` or `READ`."""

    SENDING = "sending"
    """It waits to be sent, or is under way."""
    SENT = "sent"
    """The backend has it."""
    DELIVERED = "delivered"
    """Another member's session has it."""
    READ = "read"
    """Another member has read it."""
    FAILED = "failed"
    """It could not be sent; it is kept, to be sent again or discarded."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message that the backend has not confirmed yet.

    Attributes:
        temp_id: Its sender's own id for it; sent again under it, it is still one message.
        conversation_id: Where it belongs, as text.
        content: The text.
        created_at: When it was written.
        failure: Why it could not be sent; empty while it may still be.
        refused: Whether the backend refused the message itself: only a person sends it again.
    """

    temp_id: str
    conversation_id: str
    content: str
    created_at: datetime
    failure: str = ""
    refused: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One message as a timeline shows it.

    Attributes:
        key: Names it for as long as the timeline lives, also before it has an id.
        id: The backend's id as text; None until the backend has it.
        conversation_id: Where it belongs, as text.
        sender_id: Who wrote it, as text.
        sender_name: The same for people.
        content: The text.
        sent_at: When the backend took it, or, until then, when it was written.
        status: How far it has come.
        is_mine: Whether the session's user wrote it.
        failure: Why it could not be sent.
    """

    key: str
    id: str | None
    conversation_id: str
    sender_id: str
    sender_name: str
    content: str
    sent_at: datetime | None
    status: Status
    is_mine: bool
    failure: str = ""

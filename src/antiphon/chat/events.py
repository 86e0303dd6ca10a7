"""The three events of a chat, and which event name means which of them.

The payloads are those of a Laravel application, exactly as they stand: mixed spelling, ids that
are numbers here and text there. Each may come bare, or wrapped as `{"type": …, "data": …}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from antiphon.errors import PayloadInvalid
from antiphon.protocol.frames import Event, decode_data, decode_data_as

__all__ = [
    "DEFAULT_EVENT_NAMES",
    "ChatEvent",
    "ChatEvents",
    "Id",
    "Message",
    "MessageSentEvent",
    "MessagesReadEvent",
    "TypingUser",
    "UserIsTypingEvent",
]

Id = int | str
"""An id as the backend spells it; compare two of them as text."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A chat message."""

    id: Id
    chat_id: Id
    sender_id: Id
    content: str
    sender_name: str = ""
    sent_at: datetime | None = None
    status: str = "sent"

    def __post_init__(self) -> None:
        # Laravel's models without a cast give no zone, and mean UTC.
        if self.sent_at is not None and self.sent_at.tzinfo is None:
            msgspec.structs.force_setattr(self, "sent_at", self.sent_at.replace(tzinfo=UTC))


class MessageSentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody has sent a message.

    Attributes:
        message: The message as it is stored.
        temp_id: The id its sender gave it before it had one.
    """

    message: Message
    temp_id: str | None = msgspec.field(name="tempId", default=None)


class TypingUser(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who types."""

    id: Id
    first_name: str = ""
    last_name: str = ""
    email: str = ""

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}".strip()


class UserIsTypingEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody is typing in a conversation."""

    conversation_id: Id
    user: TypingUser


class MessagesReadEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody has read messages of a conversation."""

    conversation_id: Id
    reader_id: Id
    message_ids: tuple[Id, ...]


ChatEvent = MessageSentEvent | UserIsTypingEvent | MessagesReadEvent
"""Any of the three."""

DEFAULT_EVENT_NAMES: Final[Mapping[str, type[ChatEvent]]] = {
    r"App\Events\MessageSent": MessageSentEvent,
    "MessageSent": MessageSentEvent,
    "MessageSentEvent": MessageSentEvent,
    ".message.sent": MessageSentEvent,
    "message.sent": MessageSentEvent,
    r"App\Events\UserIsTyping": UserIsTypingEvent,
    "UserIsTyping": UserIsTypingEvent,
    "UserIsTypingEvent": UserIsTypingEvent,
    ".user.typing": UserIsTypingEvent,
    "user.typing": UserIsTypingEvent,
    r"App\Events\MessagesRead": MessagesReadEvent,
    "MessagesRead": MessagesReadEvent,
    "MessagesReadEvent": MessagesReadEvent,
    ".messages.read": MessagesReadEvent,
    "messages.read": MessagesReadEvent,
}
"""Laravel's class names, Echo's short forms, and `broadcastAs` names with and without the dot."""

_WRAPPED: Final[Mapping[str, type[ChatEvent]]] = {
    "message": MessageSentEvent,
    "typing": UserIsTypingEvent,
    "read": MessagesReadEvent,
}


class ChatEvents:
    """Turns events of the wire into the chat's.

    Args:
        names: Which event name means which event.
    """

    def __init__(self, names: Mapping[str, type[ChatEvent]] = DEFAULT_EVENT_NAMES) -> None:
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {
            name: msgspec.json.Decoder(type_) for name, type_ in names.items()
        }

    def decode(self, event: Event) -> ChatEvent | None:
        """The chat's event; None if it is none of the chat's.

        Raises:
            PayloadInvalid: The name says it is one, and the data does not fit.
        """
        decoder = self._decoders.get(event.name)
        if decoder is None:
            return None
        try:
            value: ChatEvent = decode_data_as(event.raw, decoder)
        except (msgspec.MsgspecError, TypeError, UnicodeError, RecursionError) as exc:
            return _unwrap(event, exc)
        return value


def _unwrap(event: Event, reason: Exception) -> ChatEvent:
    """Read the wrapped form, in which `type` counts for more than the event's name."""
    data = decode_data(event.raw)
    kind = data.get("type") if isinstance(data, dict) else None
    type_ = _WRAPPED.get(kind) if isinstance(kind, str) else None
    if type_ is not None and isinstance(data, dict):
        try:
            return msgspec.convert(decode_data(data.get("data")), type_)
        except (msgspec.MsgspecError, TypeError) as exc:
            reason = exc
    raise PayloadInvalid(
        f"The data of {event.name} on {event.channel} is not what the chat expects: {reason}",
        event=event.name,
        channel=event.channel,
    ) from reason

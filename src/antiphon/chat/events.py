"""The three events of a chat, and which event name means which of them.

The payloads are those of a Laravel application, exactly as they stand: mixed spelling, ids that
are numbers here and text there. Each may come bare, or wrapped as `{"type": …, "data": …}`.
What another backend calls otherwise is translated first.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from antiphon.errors import PayloadInvalid
from antiphon.protocol.frames import Event, decode_data, decode_data_as

from .models import Id, Message
from .spelling import Fields, fitted, received

__all__ = [
    "DEFAULT_EVENT_NAMES",
    "ChatEvent",
    "ChatEvents",
    "MessageSentEvent",
    "MessagesReadEvent",
    "TypingUser",
    "UserIsTypingEvent",
]


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
        fields: The backend's names of fields, where they differ, with antiphon's.
    """

    def __init__(
        self,
        names: Mapping[str, type[ChatEvent]] = DEFAULT_EVENT_NAMES,
        *,
        fields: Fields = MappingProxyType({}),
    ) -> None:
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {
            name: msgspec.json.Decoder(type_) for name, type_ in names.items()
        }
        self._fields = fields

    def decode(self, event: Event) -> ChatEvent | None:
        """The chat's event; None if it is none of the chat's.

        Raises:
            PayloadInvalid: The name says it is one, and the data does not fit.
        """
        decoder = self._decoders.get(event.name)
        if decoder is None:
            return None
        if not self._fields:
            try:
                value: ChatEvent = decode_data_as(event.raw, decoder)
            except (msgspec.MsgspecError, TypeError, UnicodeError, RecursionError):
                pass  # wrapped perhaps, or with nulls
            else:
                return value
        try:
            return self._read(event, decoder.type)
        except (msgspec.MsgspecError, TypeError, UnicodeError, RecursionError) as exc:
            raise PayloadInvalid(
                f"The data of {event.name} on {event.channel} is not what the chat expects: {exc}",
                event=event.name,
                channel=event.channel,
            ) from exc

    def _read(self, event: Event, type_: type[ChatEvent]) -> ChatEvent:
        """Read data of any form; in the wrapped one `type` counts for more than the name."""
        data = received(decode_data(event.raw), self._fields)
        kind = data.get("type") if isinstance(data, dict) else None
        wrapped = _WRAPPED.get(kind) if isinstance(kind, str) else None
        if wrapped is None:
            return fitted(data, type_)
        try:
            return fitted(received(decode_data(data.get("data")), self._fields), wrapped)
        except msgspec.ValidationError as exc:
            reason = exc
        try:
            return fitted(data, type_)
        except msgspec.ValidationError:
            raise reason from None

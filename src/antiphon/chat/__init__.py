"""Chat over the SDK: the events of a chat, and its backend over REST."""

from .events import (
    DEFAULT_EVENT_NAMES,
    ChatEvent,
    ChatEvents,
    Id,
    Message,
    MessageSentEvent,
    MessagesReadEvent,
    TypingUser,
    UserIsTypingEvent,
)
from .rest import Login, RestClient, User

__all__ = [
    "DEFAULT_EVENT_NAMES",
    "ChatEvent",
    "ChatEvents",
    "Id",
    "Login",
    "Message",
    "MessageSentEvent",
    "MessagesReadEvent",
    "RestClient",
    "TypingUser",
    "User",
    "UserIsTypingEvent",
]

"""Chat over the SDK: a session for screens and bots, with timelines, an outbox, typing, read marks.

The events of a chat, and its backend over REST, can be used without it.
"""

from .dialect import Dialect
from .events import (
    DEFAULT_EVENT_NAMES,
    ChatEvent,
    ChatEvents,
    MessageSentEvent,
    MessagesReadEvent,
    TypingUser,
    UserIsTypingEvent,
)
from .models import Conversation, Draft, Entry, Id, Message, Page, Status, User
from .observations import (
    ChatObservation,
    ChatState,
    ConversationsChanged,
    PresenceChanged,
    StateChanged,
    TimelineChanged,
    TimelineReplaced,
    Typing,
)
from .problems import Problem, explain
from .rest import Login, RestClient
from .room import Room
from .session import ChatSession
from .timeline import Change, Timeline

__all__ = [
    "DEFAULT_EVENT_NAMES",
    "Change",
    "ChatEvent",
    "ChatEvents",
    "ChatObservation",
    "ChatSession",
    "ChatState",
    "Conversation",
    "ConversationsChanged",
    "Dialect",
    "Draft",
    "Entry",
    "Id",
    "Login",
    "Message",
    "MessageSentEvent",
    "MessagesReadEvent",
    "Page",
    "PresenceChanged",
    "Problem",
    "RestClient",
    "Room",
    "StateChanged",
    "Status",
    "Timeline",
    "TimelineChanged",
    "TimelineReplaced",
    "Typing",
    "TypingUser",
    "User",
    "UserIsTypingEvent",
    "explain",
]

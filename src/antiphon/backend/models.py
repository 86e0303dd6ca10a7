"""The JSON objects the backend answers with, spelled as the Laravel application spells them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

__all__ = ["MAX_ID", "Conversation", "Message", "Page", "User"]

MAX_ID = 2**63 - 1
"""The largest id a database column holds."""


class User(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One person: `{"id":45,"firstName":"Ali","lastName":"Vali","email":"ali@example.com"}`."""

    id: int
    first_name: str
    last_name: str
    email: str


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message, as in a `MessageSent` event: its ids are strings.

    Attributes:
        status: `read` once a member other than the sender has read it.
        temp_id: What its sender called it before; only its sender sees it, and only in lists.
    """

    id: str
    chat_id: str
    sender_id: str
    sender_name: str
    content: str
    sent_at: datetime
    status: Literal["sent", "read"]
    temp_id: str | None = msgspec.field(name="tempId", default=None)


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation as one of its members sees it.

    Attributes:
        title: None for a conversation that is named by who is in it.
        members: Everyone in it, oneself included.
        last_message: The newest message, if there is one.
        unread_count: Messages of others after one's read mark.
    """

    id: int
    title: str | None
    members: list[User]
    last_message: Message | None
    unread_count: int


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Messages in the order of their ids.

    Attributes:
        has_more: Whether further messages follow in the direction that was asked for.
    """

    messages: list[Message]
    has_more: bool

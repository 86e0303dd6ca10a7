"""How a backend spells the chat: paths, events, channels, fields, ids and the token's place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from .events import DEFAULT_EVENT_NAMES, ChatEvent
from .spelling import Fields

__all__ = ["Dialect"]


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between backends; the defaults are antiphon's own and the original's.

    In paths and channels, `{conversation_id}` and `{user_id}` stand for the ids.

    Attributes:
        login: Path that takes `email` and `password` (and Sanctum's `device_name`) and gives a
            token.
        logout: Path that ends the token's life.
        me: Path that says whose token it is.
        users: Path that searches users (`?search=`); empty if there is none.
        conversations: Path of the list of conversations (`GET`) and of new ones (`POST`); empty if
            there is none: then only conversations that are opened or written in are known.
        messages: Path of a conversation's messages (`GET`, `POST`).
        typing: Path that tells the others that one types; empty if there is none.
        read: Path that marks messages as read; empty if there is none.
        token_field: Where the token stands in the answer to a login; dots go deeper. Empty: the
            answer is the token and nothing else, as in Sanctum's own example.
        user_field: The same for the user; empty: `me` is asked.
        user_channel: The user's own private channel.
        conversation_channel: A conversation's presence channel; empty if there is none.
        event_names: Which event name means which event.
        fields: The backend's names of fields, where they differ, with antiphon's; such as
            `{"body": "content", "name": ("firstName", "title")}`. They are translated at any depth
            of what is received, and back in what is sent; what a backend calls so stays there too.
        ids: How ids are written in requests' bodies: `number` writes those that are digits as
            numbers, `text` writes all as text.
    """

    login: str = "/api/login"
    logout: str = "/api/logout"
    me: str = "/api/me"
    users: str = "/api/users"
    conversations: str = "/api/conversations"
    messages: str = "/api/conversations/{conversation_id}/messages"
    typing: str = "/api/conversations/{conversation_id}/typing"
    read: str = "/api/conversations/{conversation_id}/read"
    token_field: str = "token"  # noqa: S105 - a field's name
    user_field: str = "user"
    user_channel: str = "private-user.{user_id}"
    conversation_channel: str = "presence-conversation.{conversation_id}"
    event_names: Mapping[str, type[ChatEvent]] = msgspec.field(
        default_factory=lambda: DEFAULT_EVENT_NAMES
    )
    fields: Fields = msgspec.field(default_factory=dict)
    ids: Literal["number", "text"] = "number"

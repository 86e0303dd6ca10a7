"""The three events members hear, and how they are sent.

Sending comes after the commit and may fail without failing the request: who has missed an event
catches up over REST.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from antiphon.errors import PublishFailed
from antiphon.publisher import MAX_CHANNELS, Publisher

from .models import Message, User

__all__ = ["Broadcasts", "MessageSent", "MessagesRead", "UserIsTyping"]

IDS_PER_EVENT: Final = 500
"""Message ids in one event; more would not fit into the 10 KiB an event may have."""

log = logging.getLogger("antiphon.backend")


class MessageSent(msgspec.Struct, frozen=True, kw_only=True, rename={"temp_id": "tempId"}):
    """A member has sent a message; `tempId` is what the sender called it before."""

    message: Message
    temp_id: str | None


class UserIsTyping(msgspec.Struct, frozen=True, kw_only=True):
    """A member is typing."""

    conversation_id: int
    user: User


class MessagesRead(msgspec.Struct, frozen=True, kw_only=True):
    """A member has read messages of others."""

    conversation_id: int
    reader_id: int
    message_ids: list[str]


Event = MessageSent | UserIsTyping | MessagesRead


class Broadcasts:
    """Sends events to the members' own channels.

    Args:
        publisher: Publishes them.
        timeout: Seconds one call takes at most.
    """

    def __init__(self, publisher: Publisher, *, timeout: float) -> None:
        self._publisher = publisher
        self._timeout = timeout

    async def message_sent(
        self, sent: MessageSent, members: Iterable[int], *, socket_id: str | None
    ) -> None:
        """Tell all members, the sender's other devices too."""
        await self._send([sent], members, socket_id)

    async def typing(
        self, typing: UserIsTyping, members: Iterable[int], *, socket_id: str | None
    ) -> None:
        """Tell the other members."""
        others = [member for member in members if member != typing.user.id]
        await self._send([typing], others, socket_id)

    async def messages_read(
        self, read: MessagesRead, members: Iterable[int], *, socket_id: str | None
    ) -> None:
        """Tell all members, the reader's other devices too; in parts if there are many ids."""
        parts = [
            msgspec.structs.replace(read, message_ids=ids)
            for ids in _chunks(read.message_ids, IDS_PER_EVENT)
        ]
        await self._send(parts, members, socket_id)

    async def _send(
        self, events: Sequence[Event], members: Iterable[int], socket_id: str | None
    ) -> None:
        channels = [f"private-user.{member}" for member in members]
        name = ""
        try:
            async with asyncio.timeout(self._timeout):
                for event in events:
                    name = f"App\\Events\\{type(event).__name__}"
                    for group in _chunks(channels, MAX_CHANNELS):
                        await self._publisher.trigger(group, name, event, socket_id=socket_id)
        except PublishFailed as exc:
            log.warning("%s was not published: %s", name, exc)
        except TimeoutError:
            log.warning("%s was not published in %s seconds.", name, self._timeout)
        except Exception as exc:  # the change is made: the request has succeeded
            log.error("%s was not published (%s).", name, type(exc).__name__)


def _chunks(items: Sequence[str], size: int) -> Iterable[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])

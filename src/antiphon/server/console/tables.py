"""What the console's tables say of connections and channels: this node's, a page at a time.

A scan of all gives the event loop back after every thousand, so that others' events go on.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from antiphon.protocol.channels import access_of, is_cache_channel
from antiphon.server.session import Session

if TYPE_CHECKING:
    from antiphon.server.hub import Channel, Hub

__all__ = ["channel_details", "channel_page", "connection_details", "connection_page"]

T = TypeVar("T")

PAGE: Final = 50
MAX_LISTED: Final = 200
_STRIDE: Final = 1_000


async def connection_page(hub: Hub, search: str, page: int) -> dict[str, Any]:
    """Connections, the newest first.

    Args:
        hub: The application's.
        search: What the id, address, origin or user must hold; empty for all.
        page: Which fifty of them, from 0.
    """
    everyone = list(reversed(hub.sockets.values()))
    first = page * PAGE
    if not search:
        return _page(len(everyone), map(_connection, _sessions(everyone[first : first + PAGE])))
    needle, found, rows = search.lower(), 0, []
    async for session in _unhurried(_sessions(everyone)):
        if any(needle in text.lower() for text in _words(session)):
            if first <= found < first + PAGE:
                rows.append(_connection(session))
            found += 1
    return _page(found, rows)


async def channel_page(hub: Hub, search: str, page: int) -> dict[str, Any]:
    """Channels, those with most subscribers first.

    Args:
        hub: The application's.
        search: What the name must hold; empty for all.
        page: Which fifty of them, from 0.
    """
    needle = search.lower()
    found = [
        (-len(channel.subscribers), channel.name)
        async for channel in _unhurried(list(hub.channels.values()))
        if needle in channel.name.lower()
    ]
    shown = heapq.nsmallest((page + 1) * PAGE, found)[page * PAGE :]
    channels = [hub.channels[name] for _, name in shown if name in hub.channels]
    return _page(len(found), map(_channel, channels))


def connection_details(session: Session) -> dict[str, Any]:
    """One connection, with its channels."""
    user = session.protocol.user
    channels = [
        {"name": name, "kind": access_of(name).value, "user_id": member.id if member else ""}
        for name, member in session.channels.items()
    ]
    return {
        **_connection(session),
        "user_info": None if user is None else user.info,
        "in": sorted(channels, key=lambda channel: channel["name"]),
    }


def channel_details(hub: Hub, name: str) -> dict[str, Any] | None:
    """One channel with its subscribers and members, at most 200 of each; None if nobody is in."""
    channel = hub.channels.get(name)
    if channel is None:
        return None
    subscribers = _first(MAX_LISTED, _sessions(channel.subscribers))
    kept = hub.cache.get(name, time.monotonic()) if is_cache_channel(name) else None
    return {
        **_channel(channel),
        "in": [
            {"socket_id": session.protocol.socket_id, "user_id": member.id if member else ""}
            for session, member in ((each, each.channels.get(name)) for each in subscribers)
        ],
        "users": [
            {"id": member.id, "info": member.info, "here": channel.connections.get(member.id, 0)}
            for member in _first(MAX_LISTED, channel.members.values())
        ],
        "kept": None if kept is None else kept.data,
    }


def _page(total: int, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"total": total, "size": PAGE, "rows": list(rows)}


def _connection(session: Session) -> dict[str, Any]:
    return {
        "socket_id": session.protocol.socket_id,
        "since": session.since,
        "address": session.address,
        "origin": session.origin,
        "user_id": _user_id(session),
        "channels": len(session.channels),
    }


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "name": channel.name,
        "kind": access_of(channel.name).value,
        "cache": is_cache_channel(channel.name),
        "subscribers": len(channel.subscribers),
        "members": len(channel.members) if channel.is_presence else None,
    }


def _words(session: Session) -> tuple[str, ...]:
    return session.protocol.socket_id, session.address, session.origin, _user_id(session)


def _user_id(session: Session) -> str:
    """Who has signed in, or is a member of a presence channel."""
    if session.protocol.user is not None:
        return session.protocol.user.id
    return next((member.id for member in session.channels.values() if member is not None), "")


def _sessions(subscribers: Iterable[object]) -> Iterable[Session]:
    return (each for each in subscribers if isinstance(each, Session))


def _first(count: int, items: Iterable[T]) -> list[T]:
    return [item for _, item in zip(range(count), items, strict=False)]


async def _unhurried(items: Iterable[T]) -> AsyncIterator[T]:
    for number, item in enumerate(items, 1):
        yield item
        if not number % _STRIDE:
            await asyncio.sleep(0)

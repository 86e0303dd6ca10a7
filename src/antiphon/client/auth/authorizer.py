"""What signs channels and users for a client, and what it answers.

Pusher documentation, *authorizing users* and *authenticating users*.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Protocol

import msgspec

from antiphon.errors import AuthorizationFailed

__all__ = [
    "Authentication",
    "Authorization",
    "Authorizer",
    "AuthorizerByChannel",
    "UserAuthenticator",
]


class Authorization(msgspec.Struct, frozen=True):
    """What an authorizer answers for one channel and one socket.

    Attributes:
        auth: `key:signature`.
        channel_data: The signed user, on presence channels: passed on exactly as signed.
        shared_secret: The key of an encrypted channel, base64.
    """

    auth: str
    channel_data: str | None = None
    shared_secret: str | None = None

    def __repr__(self) -> str:
        """Neither signature nor key."""
        return f"Authorization(channel_data={self.channel_data!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for Rich."""
        return [("", repr(self))]


class Authentication(msgspec.Struct, frozen=True):
    """What a user authenticator answers for one socket.

    Attributes:
        auth: `key:signature`.
        user_data: The signed user, as JSON: passed on exactly as signed.
    """

    auth: str
    user_data: str

    def __repr__(self) -> str:
        """Without the signature."""
        return f"Authentication(user_data={self.user_data!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for Rich."""
        return [("", repr(self))]


class Authorizer(Protocol):
    """Signs channels; asked anew for every channel at every connection."""

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        """The signature for a channel.

        Raises:
            AuthorizationFailed: There is none.
        """

    async def close(self) -> None:
        """Let go of what it holds; the client calls it when it ends."""


class UserAuthenticator(Protocol):
    """Signs the user of a connection, for `pusher:signin`; asked anew at every connection."""

    async def authenticate(self, socket_id: str) -> Authentication:
        """The signature for signing in.

        Raises:
            AuthorizationFailed: There is none; its `channel` is empty.
        """

    async def close(self) -> None:
        """Let go of what it holds; the client calls it when it ends."""


class AuthorizerByChannel:
    """Asks another authorizer for each kind of channel.

    Args:
        authorizers: By pattern of channel names, such as `private-orders-*` or `*`, as `fnmatch`
            has them, upper and lower case told apart. The first that fits is asked.
    """

    def __init__(self, authorizers: Mapping[str, Authorizer]) -> None:
        self._authorizers = dict(authorizers)

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        """The signature for a channel, from the authorizer that it is for.

        Raises:
            AuthorizationFailed: No pattern fits; or what the authorizer raises.
        """
        for pattern, authorizer in self._authorizers.items():
            if fnmatchcase(channel, pattern):
                return await authorizer.authorize(channel, socket_id)
        patterns = ", ".join(self._authorizers) or "there are none"
        raise AuthorizationFailed(
            f"No authorizer is for {channel}: none of the patterns fits ({patterns}).",
            channel=channel,
        )

    async def close(self) -> None:
        """Close every authorizer, each once."""
        unique = {id(authorizer): authorizer for authorizer in self._authorizers.values()}
        await asyncio.gather(*(authorizer.close() for authorizer in unique.values()))

"""Signing with the application's own secret."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from antiphon.errors import AuthorizationFailed, SettingsError
from antiphon.protocol import encryption, signing
from antiphon.protocol.channels import Access, access_of

from .authorizer import Authentication, Authorization

if TYPE_CHECKING:
    from antiphon.settings import Settings

__all__ = ["SecretAuthorizer"]

MAX_WATCHLIST: Final = 100


class SecretAuthorizer:
    """Signs by itself: for bots and workers that hold the application's secret.

    Args:
        settings: With `app_key` and `app_secret`; with `encryption_master_key` for encrypted
            channels.
        user_id: Who this client is on presence channels, and signs in as.
        user_info: What the others see of it there.
        watchlist: Ids of up to 100 users; signed in, the client hears of their coming and going.

    Raises:
        SettingsError: The secret is missing, or the watchlist is too long.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        user_id: str | None = None,
        user_info: Any = None,
        watchlist: Sequence[str] = (),
    ) -> None:
        if not settings.app_secret:
            raise SettingsError("Signing needs app_secret.")
        if len(watchlist) > MAX_WATCHLIST:
            raise SettingsError(
                f"A watchlist has at most {MAX_WATCHLIST} users; this one has {len(watchlist)}."
            )
        self._settings = settings
        self._user_id = user_id
        self._user_info = user_info
        self._watchlist = list(watchlist)

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        """The signature for a channel.

        Raises:
            AuthorizationFailed: It is a presence channel and no user_id is known, or an encrypted
                channel and no encryption_master_key is.
        """
        data: str | None = None
        shared_secret: str | None = None
        if access_of(channel) is Access.PRESENCE:
            data = self._channel_data(channel)
        elif access_of(channel) is Access.ENCRYPTED:
            shared_secret = self._shared_secret(channel)
        key, secret = self._settings.app_key, self._settings.app_secret
        auth = signing.channel_auth(key, secret, socket_id, channel, data)
        return Authorization(auth, data, shared_secret)

    async def authenticate(self, socket_id: str) -> Authentication:
        """The signature for signing in.

        Raises:
            AuthorizationFailed: No user_id is known.
        """
        if not self._user_id:
            raise AuthorizationFailed(
                "Signing in needs a user: give SecretAuthorizer a user_id.", channel=""
            )
        user: dict[str, Any] = {"id": self._user_id}
        if self._user_info is not None:
            user["user_info"] = self._user_info
        if self._watchlist:
            user["watchlist"] = self._watchlist
        data = msgspec.json.encode(user).decode()
        key, secret = self._settings.app_key, self._settings.app_secret
        return Authentication(signing.user_auth(key, secret, socket_id, data), data)

    async def close(self) -> None:
        """Nothing is held."""

    def _channel_data(self, channel: str) -> str:
        if not self._user_id:
            raise AuthorizationFailed(
                f"{channel} is a presence channel: give SecretAuthorizer a user_id.",
                channel=channel,
            )
        user = {"user_id": self._user_id, "user_info": self._user_info}
        return msgspec.json.encode(user).decode()

    def _shared_secret(self, channel: str) -> str:
        master_key = self._settings.encryption_master_key
        if not master_key:
            raise AuthorizationFailed(
                f"{channel} is an encrypted channel: the settings need an encryption_master_key.",
                channel=channel,
            )
        key = encryption.decode_key(master_key, "The encryption master key")
        return base64.b64encode(encryption.shared_secret(channel, key)).decode()

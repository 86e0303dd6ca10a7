"""Who signs private and presence channels for this client."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from antiphon.errors import (
    AuthorizationFailed,
    AuthServerError,
    AuthTimeout,
    EmptyAuthResponse,
    Forbidden,
    MalformedAuthResponse,
    SessionExpired,
    SettingsError,
    Unauthorized,
    reason_of,
    sentence,
)
from antiphon.protocol import signing
from antiphon.protocol.channels import Access, access_of

if TYPE_CHECKING:
    import aiohttp

    from antiphon.settings import Settings

__all__ = ["Authorization", "Authorizer", "HttpAuthorizer", "SecretAuthorizer", "TokenSource"]

F = TypeVar("F", bound=AuthorizationFailed)

TokenSource = str | Callable[[], str | Awaitable[str]]
"""A bearer token, or a function (plain or asynchronous) that is asked for it at every request."""


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


class Authorizer(Protocol):
    """Signs channels; asked anew for every channel at every connection."""

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        """The signature for a channel.

        Raises:
            AuthorizationFailed: There is none.
        """

    async def close(self) -> None:
        """Let go of what it holds; the client calls it when it ends."""


class HttpAuthorizer:
    """Asks a backend, as Laravel's `/broadcasting/auth` and every Pusher auth endpoint expect.

    Sends `POST` with the form fields `socket_id` and `channel_name`.

    Args:
        url: The endpoint's address.
        token: Bearer token, or a function that gives it.
        headers: Further headers, such as `Accept-Language`.
        timeout: Seconds one request may take.
    """

    def __init__(
        self,
        url: str,
        *,
        token: TokenSource | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.url = url
        self._token = token
        self._headers = {"Accept": "application/json", **(headers or {})}
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        """The signature for a channel.

        Raises:
            Unauthorized: 401.
            Forbidden: 403.
            SessionExpired: 419.
            EmptyAuthResponse: 200 without a body.
            MalformedAuthResponse: 200 with something else than a signature.
            AuthServerError: Any other status, or no connection.
            AuthTimeout: No answer in time.
        """
        import aiohttp  # loaded by who authorizes over HTTP, not by who imports antiphon

        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(self._timeout), cookie_jar=aiohttp.DummyCookieJar()
            )
        form = {"socket_id": socket_id, "channel_name": channel}
        headers = await self._all_headers(channel)
        try:
            async with self._session.post(
                self.url, data=form, headers=headers, allow_redirects=False
            ) as response:
                return self._read(channel, response.status, await response.read())
        except TimeoutError as exc:
            raise self._failure(
                AuthTimeout, channel, f"did not answer in {self._timeout:g} seconds", "try later"
            ) from exc
        except aiohttp.ClientError as exc:
            raise self._failure(
                AuthServerError,
                channel,
                "could not be reached",
                reason_of(exc),
            ) from None

    async def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _all_headers(self, channel: str) -> dict[str, str]:
        if self._token is None:
            return self._headers
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        if not token.isprintable():
            raise AuthorizationFailed(
                f"The token for {channel} holds characters that no header can carry.",
                channel=channel,
            )
        return {**self._headers, "Authorization": f"Bearer {token}"}

    def _read(self, channel: str, status: int, body: bytes) -> Authorization:
        if status == 200:
            return self._parse(channel, body)
        kind, hint = _REFUSALS.get(status, (AuthServerError, "look into the backend's log"))
        if 300 <= status < 400:
            hint = "it redirects, usually to a login page: is the token sent and accepted?"
        raise self._failure(kind, channel, f"answered {status}", hint, status)

    def _parse(self, channel: str, body: bytes) -> Authorization:
        if not body.strip():
            raise self._failure(
                EmptyAuthResponse,
                channel,
                "answered 200 without a body",
                "in Laravel the route's guard is not the one the token belongs to",
                200,
            )
        try:
            answer = msgspec.json.decode(body, type=Authorization)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
            # The body may hold a page or a secret: it is not shown.
            raise self._failure(
                MalformedAuthResponse,
                channel,
                f"answered 200 with {len(body)} bytes that are no signature",
                "expected is JSON with an 'auth' field",
                200,
            ) from exc
        if access_of(channel) is Access.PRESENCE and answer.channel_data is None:
            raise self._failure(
                MalformedAuthResponse,
                channel,
                "gave no channel_data",
                "a presence channel needs it to name the user",
                200,
            )
        return answer

    def _failure(
        self, kind: type[F], channel: str, what: str, hint: str, code: int | None = None
    ) -> F:
        url = self.url.partition("?")[0]  # a query may hold a secret
        return kind(sentence(f"{url} {what} for {channel}; {hint}"), channel=channel, code=code)


class SecretAuthorizer:
    """Signs by itself: for bots and workers that hold the application's secret.

    Args:
        settings: With `app_key` and `app_secret`.
        user_id: Who this client is on presence channels.
        user_info: What the others see of it there.

    Raises:
        SettingsError: The secret is missing.
    """

    def __init__(
        self, settings: Settings, *, user_id: str | None = None, user_info: Any = None
    ) -> None:
        if not settings.app_secret:
            raise SettingsError("Signing needs app_secret.")
        self._settings = settings
        self._user = {"user_id": user_id, "user_info": user_info} if user_id else None

    async def authorize(self, channel: str, socket_id: str) -> Authorization:
        """The signature for a channel.

        Raises:
            AuthorizationFailed: It is a presence channel, and no user_id is known.
        """
        data: str | None = None
        if access_of(channel) is Access.PRESENCE:
            if self._user is None:
                raise AuthorizationFailed(
                    f"{channel} is a presence channel: give SecretAuthorizer a user_id.",
                    channel=channel,
                )
            data = msgspec.json.encode(self._user).decode()
        key, secret = self._settings.app_key, self._settings.app_secret
        return Authorization(signing.channel_auth(key, secret, socket_id, channel, data), data)

    async def close(self) -> None:
        """Nothing is held."""


_REFUSALS: dict[int, tuple[type[AuthorizationFailed], str]] = {
    401: (Unauthorized, "the token is missing, wrong or expired: log in again"),
    403: (Forbidden, "this user may not join it"),
    404: (AuthServerError, "is this the right auth endpoint?"),
    419: (SessionExpired, "the session or CSRF token is stale: log in again, or use a token"),
}

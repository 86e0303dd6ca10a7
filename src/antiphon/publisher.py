"""What a backend does: publish events, ask about channels, sign clients, check webhooks.

The names are those of Pusher's libraries for backends.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlencode

import msgspec

from .errors import (
    AuthorizationFailed,
    InvalidName,
    PublishFailed,
    SettingsError,
    WebhookInvalid,
    sentence,
)
from .http import HttpClient, NoAnswer
from .protocol import encryption, signing
from .protocol.channels import (
    Access,
    access_of,
    check_channel_name,
    needs_authorization,
    user_channel,
)

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from .settings import Settings

__all__ = ["BatchEvent", "Publisher", "Webhook", "WebhookEvent"]

MAX_CHANNELS: Final = 100
MAX_BATCH: Final = 10
WEBHOOK_WINDOW: Final = 300
"""Seconds by which a webhook's time may differ from this machine's clock."""

_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}")
_SOCKET_ID: Final = re.compile(r"[0-9]+\.[0-9]+")


class BatchEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a batch.

    Attributes:
        channel: The channel to publish on.
        name: The event's name.
        data: Any JSON value; a string is sent as it is.
        socket_id: The connection that must not receive it.
        info: Attributes of the channel to answer, as for `trigger`.
    """

    channel: str
    name: str
    data: Any
    socket_id: str | None = None
    info: Sequence[str] = ()


class WebhookEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a webhook; what does not belong to its kind is None.

    Attributes:
        name: Its kind: `channel_occupied`, `channel_vacated`, `member_added`, `member_removed`,
            `client_event`, `cache_miss`, `subscription_count`.
        channel: The channel's name.
        user_id: The member, or who sent the client event.
        event: The client event's name.
        data: The client event's data, as it stood.
        socket_id: The connection that sent the client event.
        subscription_count: How many are subscribed.
    """

    name: str
    channel: str | None = None
    user_id: str | int | None = None
    event: str | None = None
    data: Any = None
    socket_id: str | None = None
    subscription_count: int | None = None

    def __post_init__(self) -> None:
        # Servers in PHP and JavaScript keep a user's id as the number it was.
        if isinstance(self.user_id, int):
            msgspec.structs.force_setattr(self, "user_id", str(self.user_id))


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """What a server tells a backend.

    Attributes:
        time: When, in seconds since the epoch.
        events: What has happened, in order.
    """

    time: float
    events: tuple[WebhookEvent, ...]


class Publisher:
    """Speaks for a backend with the server of one application.

    Use it as an async context manager, or call `close()`: it keeps one pool of connections.

    Args:
        settings: Where the server is, with `app_id`, `app_key` and `app_secret`, and for
            encrypted channels `encryption_master_key`.
        timeout: Seconds one request may take.
        ssl_context: Stands in for the usual one, such as for a certificate of one's own.

    Raises:
        SettingsError: The id or the secret is missing.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if not settings.app_id or not settings.app_secret:
            raise SettingsError(
                "Publishing needs app_id and app_secret (--app-id and --app-secret, or"
                " REVERB_APP_ID and REVERB_APP_SECRET)."
            )
        self._settings = settings
        self._http = HttpClient(timeout, ssl_context=ssl_context)

    # Publishing

    async def trigger(
        self,
        channels: str | Sequence[str],
        event: str,
        data: Any,
        *,
        socket_id: str | None = None,
        info: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Publish one event; on an encrypted channel its data is encrypted here.

        Args:
            channels: One channel's name, or up to 100. An encrypted channel stands alone.
            event: The event's name.
            data: Any JSON value; a string is sent as it is.
            socket_id: The connection that must not receive it, usually the sender's own.
            info: Attributes to answer for each channel: `user_count`, `subscription_count`.

        Returns:
            For each channel the attributes asked for; empty when none were.

        Raises:
            InvalidName: `socket_id` is no socket id.
            PublishFailed: The server refused it or could not be reached; or the channel is
                encrypted, and there is no master key, or another channel beside it.
            SettingsError: The channel is encrypted, and PyNaCl is missing.
        """
        names = [channels] if isinstance(channels, str) else list(channels)
        if not 1 <= len(names) <= MAX_CHANNELS:
            raise PublishFailed(f"An event goes to 1 to {MAX_CHANNELS} channels, not {len(names)}.")
        body: dict[str, Any] = {"name": event, "channels": names, "data": self._data(names, data)}
        if socket_id is not None:
            _check_socket_id(socket_id)
            body["socket_id"] = socket_id
        return _channels(await self._request("POST", "events", body=_with_info(body, info)))

    async def trigger_batch(self, events: Sequence[BatchEvent]) -> list[dict[str, Any]]:
        """Publish up to 10 events in one request, in order.

        Returns:
            For each event the attributes its `info` asks for; empty when none does.

        Raises:
            InvalidName: A `socket_id` is no socket id.
            PublishFailed: The server refused them or could not be reached; or a channel is
                encrypted, and there is no master key: then none is published.
            SettingsError: A channel is encrypted, and PyNaCl is missing.
        """
        if not 1 <= len(events) <= MAX_BATCH:
            raise PublishFailed(f"A batch holds 1 to {MAX_BATCH} events, not {len(events)}.")
        batch = []
        for event in events:
            data = self._data([event.channel], event.data)
            item = {"channel": event.channel, "name": event.name, "data": data}
            if event.socket_id is not None:
                _check_socket_id(event.socket_id)
                item["socket_id"] = event.socket_id
            batch.append(_with_info(item, event.info))
        answer = await self._request("POST", "batch_events", body={"batch": batch})
        # Reverb answers an empty object where nothing was asked for (PROTOCOL §1.10).
        attributes = answer.get("batch") or []
        if not isinstance(attributes, list):
            raise PublishFailed("The server's answer names no batch; is this a Pusher server?")
        return attributes

    async def send_to_user(self, user_id: str, event: str, data: Any) -> None:
        """Publish an event to a signed-in user, on all of their connections.

        Raises:
            PublishFailed: The server refused it or could not be reached.
        """
        await self.trigger(user_channel(user_id), event, data)

    async def terminate_user_connections(self, user_id: str) -> None:
        """Close all connections of a signed-in user.

        Raises:
            PublishFailed: The server refused or could not be reached.
        """
        if not user_id:
            raise PublishFailed("Whose connections? The user's id is empty.")
        await self._request("POST", f"users/{_quoted(user_id)}/terminate_connections", body={})

    # Asking

    async def channels(self, *, prefix: str = "", info: Sequence[str] = ()) -> dict[str, Any]:
        """Occupied channels and the attributes asked for, by name.

        Args:
            prefix: Only channels whose names begin so.
            info: `user_count` (with a prefix that begins with `presence-`),
                `subscription_count`.

        Raises:
            PublishFailed: The server refused or could not be reached.
        """
        query = {"filter_by_prefix": prefix} if prefix else {}
        return _channels(await self._request("GET", "channels", query=_with_info(query, info)))

    async def channel(self, name: str, *, info: Sequence[str] = ()) -> dict[str, Any]:
        """Whether a channel is `occupied`, and the attributes asked for.

        Args:
            name: The channel.
            info: `user_count`, `subscription_count`, `cache`: on a cache channel its last event
                as `{"data": …, "ttl": …}`.

        Raises:
            PublishFailed: The server refused or could not be reached.
        """
        return await self._request("GET", f"channels/{_quoted(name)}", query=_with_info({}, info))

    async def users(self, channel: str) -> list[str]:
        """Ids of the users in a presence channel.

        Raises:
            PublishFailed: The server refused or could not be reached.
        """
        answer = await self._request("GET", f"channels/{_quoted(channel)}/users")
        users = answer.get("users", [])
        if not isinstance(users, list) or not all(isinstance(u, dict) and "id" in u for u in users):
            raise PublishFailed("The server's answer names no users; is this a Pusher server?")
        return [str(user["id"]) for user in users]

    # Signing

    def authorize_channel(
        self, socket_id: str, channel: str, user_id: str | None = None, user_info: Any = None
    ) -> dict[str, str]:
        """What an auth endpoint answers, as JSON, when a user may join a channel.

        Whether they may is the caller's to decide, before.

        Args:
            socket_id: The connection that joins, as the client sent it.
            channel: The channel, as the client sent it.
            user_id: Who they are on a presence channel.
            user_info: What the others see of them there.

        Returns:
            `auth`, on presence channels `channel_data`, on encrypted ones `shared_secret`.

        Raises:
            InvalidName: The socket's id or the channel's name is none: answer 4xx.
            AuthorizationFailed: The channel is open to all; it is a presence channel, and there
                is no user_id; or it is encrypted, and there is no master key.
        """
        # A stranger's text must not become a signature of something else.
        _check_socket_id(socket_id)
        check_channel_name(channel)
        if not needs_authorization(channel):
            raise AuthorizationFailed(f"{channel} needs no signature.", channel=channel)
        data = None
        if access_of(channel) is Access.PRESENCE:
            if not user_id:
                raise AuthorizationFailed(
                    f"{channel} is a presence channel: give a user_id.", channel=channel
                )
            member = {"user_id": user_id, "user_info": user_info}
            data = msgspec.json.encode(member).decode()
        settings = self._settings
        auth = signing.channel_auth(settings.app_key, settings.app_secret, socket_id, channel, data)
        answer = {"auth": auth}
        if data is not None:
            answer["channel_data"] = data
        if access_of(channel) is Access.ENCRYPTED:
            secret = self._shared_secret(channel)
            if secret is None:
                raise AuthorizationFailed(f"{channel} {_NO_MASTER_KEY}", channel=channel)
            answer["shared_secret"] = base64.b64encode(secret).decode()
        return answer

    def authenticate_user(self, socket_id: str, user_data: Mapping[str, Any]) -> dict[str, str]:
        """What a user auth endpoint answers, as JSON, when a client signs in.

        Args:
            socket_id: The connection that signs in, as the client sent it.
            user_data: Who they are: `id`, a string, and optionally `user_info` and `watchlist`.

        Returns:
            `auth` and `user_data`.

        Raises:
            InvalidName: The socket's id is none (answer 4xx), or the user has no id.
        """
        _check_socket_id(socket_id)
        if not isinstance(user_data.get("id"), str) or not user_data["id"]:
            raise InvalidName("A user who signs in needs an id: a string that is not empty.")
        data = msgspec.json.encode(user_data).decode()
        settings = self._settings
        auth = signing.user_auth(settings.app_key, settings.app_secret, socket_id, data)
        return {"auth": auth, "user_data": data}

    # Webhooks

    def validate_webhook(self, key: str | None, signature: str | None, body: bytes) -> Webhook:
        """Read a webhook, if it comes from the application's server, and now.

        Args:
            key: The header `X-Pusher-Key`.
            signature: The header `X-Pusher-Signature`.
            body: The request's body, exactly as it came.

        Raises:
            WebhookInvalid: It is another application's, is not signed with the secret, is no
                webhook, or is more than 300 seconds old. Answer 4xx, and do not read it.
        """
        settings = self._settings
        if key != settings.app_key:
            raise WebhookInvalid("The webhook's X-Pusher-Key is not this application's key.")
        if not signing.verify_webhook(settings.app_secret, body, signature or ""):
            raise WebhookInvalid(
                "The webhook's X-Pusher-Signature is wrong; check app_secret, and that the body"
                " is taken as it came."
            )
        try:
            webhook = msgspec.json.decode(body, type=_WebhookBody)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
            raise WebhookInvalid(f"The webhook's body cannot be read: {exc}.") from exc
        age = time.time() - webhook.time_ms / 1000
        if abs(age) > WEBHOOK_WINDOW:
            when = f"{age:.0f} seconds old" if age > 0 else f"{-age:.0f} seconds ahead"
            raise WebhookInvalid(
                f"The webhook is {when}; {WEBHOOK_WINDOW} are allowed. Check both clocks."
            )
        return Webhook(time=webhook.time_ms / 1000, events=webhook.events)

    async def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _request(
        self,
        method: str,
        resource: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        settings = self._settings
        # The signature is over the path as sent, without the server's prefix.
        path = f"/apps/{settings.app_id}/{resource}"
        payload = _json(body) if body is not None else b""
        signed = signing.sign_request(
            settings.app_key,
            settings.app_secret,
            method,
            path,
            timestamp=int(time.time()),
            body=payload,
            query=query,
        )
        url = f"{settings.http_url}{path}?{urlencode(signed, errors='replace')}"
        headers = {"Content-Type": "application/json"}
        try:
            answer = await self._http.request(method, url, headers=headers, body=payload or None)
        except NoAnswer as exc:
            raise PublishFailed(
                sentence(f"The HTTP API at {settings.http_url} could not be reached: {exc}")
            ) from None
        return _answer(answer.status, answer.body, settings.http_url + path)

    def _data(self, channels: Sequence[str], data: Any) -> str:
        """An event's data as it is sent: to an encrypted channel never in clear."""
        text = data if isinstance(data, str) else _json(data).decode()
        encrypted = [name for name in channels if access_of(name) is Access.ENCRYPTED]
        if not encrypted:
            return text
        if len(channels) > 1:
            raise PublishFailed(
                f"{encrypted[0]} is encrypted, with a key of its own: publish to it alone, not to"
                f" {len(channels)} channels at once."
            )
        secret = self._shared_secret(encrypted[0])
        if secret is None:
            raise PublishFailed(f"{encrypted[0]} {_NO_MASTER_KEY}")
        try:
            sealed = encryption.encrypt(secret, text, secrets.token_bytes(encryption.NONCE_SIZE))
        except SettingsError:
            raise  # PyNaCl is missing
        except ValueError as exc:
            raise PublishFailed(f"{encrypted[0]}: {exc}") from None
        return _json(sealed).decode()

    def _shared_secret(self, channel: str) -> bytes | None:
        text = self._settings.encryption_master_key
        if not text:
            return None
        return encryption.shared_secret(
            channel, encryption.decode_key(text, "The encryption master key")
        )


_NO_MASTER_KEY: Final = (
    "is an encrypted channel: set encryption_master_key"
    " (PUSHER_ENCRYPTION_MASTER_KEY_BASE64, or REVERB_…)."
)


class _WebhookBody(msgspec.Struct):
    time_ms: float
    events: tuple[WebhookEvent, ...]


def _answer(status: int, raw: bytes, url: str) -> dict[str, Any]:
    """The decoded body of an accepted request."""
    # Some servers repeat the request in their answer, and with it the signature.
    text = _SIGNATURE.sub("…", raw[:300].decode("utf-8", "replace").strip())
    if status not in (200, 202):
        hint = {
            401: "check app_key, app_secret and this machine's clock",
            404: "check app_id and the path prefix",
            413: "the event's data is too large",
        }.get(status, "the server's words say what is wrong")
        raise PublishFailed(f"{url} answered {status}: {text or 'no body'} ({hint}).", code=status)
    try:
        answer = msgspec.json.decode(raw or b"{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise PublishFailed(
            f"{url} answered {status} with something that is no JSON object: {text!r};"
            " is this a Pusher server?",
            code=status,
        )
    # soketi answers most refusals with 200 and the code in the body (PROTOCOL, transcripts).
    code = answer.get("code")
    if isinstance(code, int) and code >= 400:
        said = _SIGNATURE.sub("…", str(answer.get("error", text)))
        raise PublishFailed(f"{url} refused: {said}.", code=code)
    return answer


def _channels(answer: dict[str, Any]) -> dict[str, Any]:
    # Reverb answers an empty list where no channel matches (PROTOCOL §1.10).
    channels = answer.get("channels") or {}
    if not isinstance(channels, dict):
        raise PublishFailed("The server's answer names no channels; is this a Pusher server?")
    return channels


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise PublishFailed(
            "What is to be published holds half of a character (a lone surrogate)."
        ) from None


def _quoted(name: str) -> str:
    # What a path may hold is left alone: yarl would undo it where a host is no ASCII.
    return quote(name, safe="=@,;", errors="replace")


def _with_info(words: dict[str, str], info: Sequence[str]) -> dict[str, str]:
    if not info:
        return words
    return {**words, "info": info if isinstance(info, str) else ",".join(info)}


def _check_socket_id(socket_id: str) -> None:
    if _SOCKET_ID.fullmatch(socket_id) is None:
        raise InvalidName(f"{socket_id[:40]!r} is no socket id: two numbers and a point between.")

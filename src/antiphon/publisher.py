"""The HTTP API from a backend's side: publish events and ask about channels."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlencode

import msgspec

from .errors import PublishFailed, SettingsError, reason_of, sentence
from .protocol import signing

if TYPE_CHECKING:
    from types import TracebackType

    import aiohttp

    from .settings import Settings

__all__ = ["BatchEvent", "Publisher"]

MAX_CHANNELS: Final = 100
MAX_BATCH: Final = 10
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}")


class BatchEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a batch.

    Attributes:
        channel: The channel to publish on.
        name: The event's name.
        data: Any JSON value; a string is sent as it is.
        socket_id: The connection that must not receive it.
    """

    channel: str
    name: str
    data: Any
    socket_id: str | None = None


class Publisher:
    """Publishes to the channels of one application.

    Use it as an async context manager, or call `close()`: it keeps one pool of connections.

    Args:
        settings: Where the server is, with `app_id`, `app_key` and `app_secret`.
        timeout: Seconds one request may take.

    Raises:
        SettingsError: The id or the secret is missing.
    """

    def __init__(self, settings: Settings, *, timeout: float = 10.0) -> None:
        if not settings.app_id or not settings.app_secret:
            raise SettingsError(
                "Publishing needs app_id and app_secret (--app-id and --app-secret, or"
                " REVERB_APP_ID and REVERB_APP_SECRET)."
            )
        self._settings = settings
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def trigger(
        self,
        channels: str | Sequence[str],
        event: str,
        data: Any,
        *,
        socket_id: str | None = None,
        info: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Publish one event.

        Args:
            channels: One channel's name, or up to 100.
            event: The event's name.
            data: Any JSON value; a string is sent as it is.
            socket_id: The connection that must not receive it, usually the sender's own.
            info: Attributes to answer for each channel: `user_count`, `subscription_count`.

        Returns:
            For each channel the attributes asked for; empty when none were.

        Raises:
            PublishFailed: The server refused it or could not be reached.
        """
        names = [channels] if isinstance(channels, str) else list(channels)
        if not 1 <= len(names) <= MAX_CHANNELS:
            raise PublishFailed(f"An event goes to 1 to {MAX_CHANNELS} channels, not {len(names)}.")
        body: dict[str, Any] = {"name": event, "channels": names, "data": _text(data)}
        if socket_id is not None:
            body["socket_id"] = socket_id
        if info:
            body["info"] = ",".join(info)
        return _channels(await self._request("POST", "events", body=body))

    async def trigger_batch(self, events: Sequence[BatchEvent]) -> None:
        """Publish up to 10 events in one request, in order.

        Raises:
            PublishFailed: The server refused them or could not be reached.
        """
        if not 1 <= len(events) <= MAX_BATCH:
            raise PublishFailed(f"A batch holds 1 to {MAX_BATCH} events, not {len(events)}.")
        batch = []
        for event in events:
            item = {"channel": event.channel, "name": event.name, "data": _text(event.data)}
            if event.socket_id is not None:
                item["socket_id"] = event.socket_id
            batch.append(item)
        await self._request("POST", "batch_events", body={"batch": batch})

    async def channels(self, *, prefix: str = "", info: Sequence[str] = ()) -> dict[str, Any]:
        """Occupied channels and the attributes asked for, by name.

        Raises:
            PublishFailed: The server refused or could not be reached.
        """
        query = {"filter_by_prefix": prefix} if prefix else {}
        return _channels(await self._request("GET", "channels", query=_with_info(query, info)))

    async def channel(self, name: str, *, info: Sequence[str] = ()) -> dict[str, Any]:
        """Whether a channel is `occupied`, and the attributes asked for.

        Raises:
            PublishFailed: The server refused or could not be reached.
        """
        path = f"channels/{quote(name, safe='')}"
        return await self._request("GET", path, query=_with_info({}, info))

    async def users(self, channel: str) -> list[str]:
        """Ids of the users in a presence channel.

        Raises:
            PublishFailed: The server refused or could not be reached.
        """
        answer = await self._request("GET", f"channels/{quote(channel, safe='')}/users")
        users = answer.get("users", [])
        if not isinstance(users, list) or not all(isinstance(u, dict) and "id" in u for u in users):
            raise PublishFailed("The server's answer names no users; is this a Pusher server?")
        return [str(user["id"]) for user in users]

    async def close(self) -> None:
        """Close the pooled connections; a later call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

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
        import aiohttp  # loaded by who publishes, not by who imports antiphon
        from yarl import URL

        settings = self._settings
        # The signature is over the path as sent, without the server's prefix.
        path = f"/apps/{settings.app_id}/{resource}"
        payload = msgspec.json.encode(body) if body is not None else b""
        signed = signing.sign_request(
            settings.app_key,
            settings.app_secret,
            method,
            path,
            timestamp=int(time.time()),
            body=payload,
            query=query,
        )
        url = URL(f"{settings.http_url}{path}?{urlencode(signed)}", encoded=True)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                headers={"Content-Type": "application/json"},
            )
        try:
            async with self._session.request(
                method, url, data=payload or None, allow_redirects=False
            ) as response:
                return _answer(response.status, await response.read(), settings.http_url + path)
        except (aiohttp.ClientError, TimeoutError) as exc:
            # The exception's own text may hold the address with its signature.
            raise PublishFailed(
                sentence(
                    f"The HTTP API at {settings.http_url} could not be reached: {reason_of(exc)}"
                )
            ) from None


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
    except msgspec.DecodeError:
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
        raise PublishFailed(f"{url} refused: {answer.get('error', text)}.", code=code)
    return answer


def _channels(answer: dict[str, Any]) -> dict[str, Any]:
    # Reverb answers an empty list where no channel matches (PROTOCOL §1.10).
    channels = answer.get("channels") or {}
    if not isinstance(channels, dict):
        raise PublishFailed("The server's answer names no channels; is this a Pusher server?")
    return channels


def _text(data: Any) -> str:
    return data if isinstance(data, str) else msgspec.json.encode(data).decode()


def _with_info(query: dict[str, str], info: Sequence[str]) -> dict[str, str]:
    return {**query, "info": ",".join(info)} if info else query

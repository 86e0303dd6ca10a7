"""Where a Pusher server is and which application it serves, as a Laravel `.env` spells it."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from ._version import __version__
from .errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WEBHOOK_EVENTS", "App", "Settings", "WebhookEndpoint"]

PROTOCOL: Final = 7
WEBHOOK_EVENTS: Final = (
    "channel_occupied",
    "channel_vacated",
    "member_added",
    "member_removed",
    "client_event",
    "cache_miss",
    "subscription_count",
)
_REFERENCE: Final = re.compile(r"\$\{(\w+)\}")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Connection settings: enough to connect, and with id and secret enough to publish.

    Attributes:
        app_key: The application's public key.
        host: Name or address of the server.
        port: TCP port; 443 for https and 80 for http when not given.
        scheme: `https` (WebSocket over TLS) or `http`.
        path: Prefix in front of `/app/{key}` and `/apps/{id}`, for a server behind a proxy.
        app_id: The application's id; needed to publish.
        app_secret: The application's secret; needed to publish and to sign. Not for clients.
        api_url: Base address of the chat backend, such as `https://chat.example.com`.
        auth_endpoint: Path (under `api_url`) or full address that signs channels.
        user_auth_endpoint: The same for what signs users in.
        http_host: Name of the HTTP API's host where it is another one, as at Pusher's clusters.
        encryption_master_key: Base64 of the 32 bytes from which every encrypted channel has its
            key; needed to publish and to sign there. Not for clients.
    """

    app_key: str
    host: str = "127.0.0.1"
    port: int = 0
    scheme: str = "https"
    path: str = ""
    app_id: str = ""
    app_secret: str = ""
    api_url: str = ""
    auth_endpoint: str = "/broadcasting/auth"
    user_auth_endpoint: str = "/broadcasting/user-auth"
    http_host: str = ""
    encryption_master_key: str = ""

    def __post_init__(self) -> None:
        if not self.app_key:
            raise SettingsError(
                "No application key: give app_key (--app-key), or set REVERB_APP_KEY."
            )
        if self.scheme not in ("http", "https"):
            raise SettingsError(f"The scheme is http or https, not {self.scheme!r}.")
        msgspec.structs.force_setattr(self, "host", _clean_host(self.host))
        if self.http_host:
            msgspec.structs.force_setattr(self, "http_host", _clean_host(self.http_host))
        if not isinstance(self.port, int):
            raise SettingsError(f"The port is a number, not {self.port!r}.")
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"The port lies between 1 and 65535, {self.port} does not.")
        if self.api_url and not _is_address(self.api_url):
            raise SettingsError(
                f"An API address starts with http:// or https://, not so {self.api_url!r}."
            )
        for endpoint in (self.auth_endpoint, self.user_auth_endpoint):
            if "://" in endpoint and not _is_address(endpoint):
                raise SettingsError(f"{endpoint!r} is neither a path nor an address.")
        if self.encryption_master_key and not _is_key(self.encryption_master_key):
            raise SettingsError(
                "The encryption master key must be the base64 of 32 bytes, and is not;"
                " `openssl rand -base64 32` makes one."
            )
        if not self.port:
            msgspec.structs.force_setattr(self, "port", 443 if self.secure else 80)
        msgspec.structs.force_setattr(self, "path", _clean_path(self.path))

    def __repr__(self) -> str:
        """Never the secret, nor the encryption master key."""
        return f"Settings({self.app_key!r} at {self.http_url}, api_url={self.api_url!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for Rich, which would otherwise print the secret in a traceback."""
        return [("", repr(self))]

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "https"

    @property
    def http_url(self) -> str:
        """Address of the server's HTTP side, without a trailing slash."""
        return self._url(self.scheme, self.http_host or self.host)

    @property
    def websocket_url(self) -> str:
        """Address to dial, with the query every Pusher client sends."""
        key = quote(self.app_key, safe="")
        query = f"protocol={PROTOCOL}&client=antiphon-python&version={__version__}"
        scheme = "wss" if self.secure else "ws"
        return f"{self._url(scheme, self.host)}/app/{key}?{query}"

    def _url(self, scheme: str, host: str) -> str:
        bracketed = f"[{host}]" if ":" in host else host
        return f"{scheme}://{bracketed}:{self.port}{self.path}"

    @property
    def auth_url(self) -> str:
        """Address that signs channels, or an empty string when none is known."""
        return self._endpoint_url(self.auth_endpoint)

    @property
    def user_auth_url(self) -> str:
        """Address that signs users in, or an empty string when none is known."""
        return self._endpoint_url(self.user_auth_endpoint)

    def _endpoint_url(self, endpoint: str) -> str:
        if _is_address(endpoint):
            return endpoint
        path = endpoint.lstrip("/")
        return f"{self.api_url.rstrip('/')}/{path}" if self.api_url else ""

    @classmethod
    def from_env(
        cls,
        env_file: str | Path | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Settings:
        """Settings from arguments, then the environment, then a `.env` file, then defaults.

        Reads Laravel's names as they stand: `REVERB_APP_ID`, `_KEY`, `_SECRET`, `REVERB_HOST`,
        `_PORT`, `_SCHEME`, `REVERB_ENCRYPTION_MASTER_KEY_BASE64`, and the same under `PUSHER_`
        with `PUSHER_APP_CLUSTER`; `APP_URL` is the API's address. Within one source, `REVERB_`
        goes before `PUSHER_`.

        Args:
            env_file: A `.env` file; `${NAME}` inside it is expanded.
            environ: Stands in for the process's environment.
            **overrides: Fields of `Settings`; None, 0 and empty strings count as not given.

        Raises:
            SettingsError: The file cannot be read, or a value cannot be used.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {"app_key": ""}
        if env_file is not None:
            _overlay(values, _laravel(_read_env_file(env_file, environ), str(env_file)))
        _overlay(values, _laravel(environ, "the environment"))
        _overlay(values, overrides)
        if isinstance(values.get("port"), _PortText):
            values["port"] = values["port"].read()
        return cls(**values)


class WebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address that is told what happens on the server. Pusher documentation, *webhooks*.

    Attributes:
        url: Where to, `http` or `https`.
        events: Kinds to tell: `channel_occupied`, `channel_vacated`, `member_added`,
            `member_removed`, `client_event`, `cache_miss`, `subscription_count`; empty for all.
        channels: Globs of the channels' names to tell of; empty for all.
        headers: Header fields to send along.
    """

    url: str
    events: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    headers: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_address(self.url):
            raise SettingsError("A webhook's url begins with http:// or https:// and names a host.")
        for kind in self.events:
            if kind not in WEBHOOK_EVENTS:
                known = ", ".join(WEBHOOK_EVENTS)
                raise SettingsError(f"{kind!r} is no kind of webhook event; there are {known}.")


class App(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One application that a server serves, with the limits strangers meet.

    Attributes:
        id: The id in the HTTP API's paths.
        key: The public key clients connect with.
        secret: The secret that signs.
        client_events: Whether members may send `client-` events to each other.
        allowed_origins: Host globs an `Origin` header must match; empty allows all.
        max_connections: Open connections at once, on all nodes; 0 for no limit.
        activity_timeout: Seconds of silence after which either side pings.
        max_message_size: Bytes of one incoming WebSocket message.
        max_event_size: Bytes of one event's data, over HTTP and in client events.
        max_channel_name: Characters of a channel's name.
        max_channels: Channels one connection may be in.
        max_presence_members: Users of one presence channel.
        max_member_size: Bytes of one member's `channel_data`.
        client_events_per_second: Client events one connection may send; 0 for no limit.
        max_watchlist: Users whose coming and going one connection may be told of.
        subscription_counts: Whether subscribers are told how many they are (not on presence
            channels).
        authorization_timeout: Seconds after which a connection is closed that has neither signed
            in nor joined a private or presence channel; 0 for no limit.
        subscription_timeout: Seconds after which a connection is closed that is in no channel and
            has not signed in; 0 for no limit.
        messages_per_second: Messages of any kind one connection may send, counted over each ten
            seconds; 0 for no limit.
        cache_ttl: Seconds for which a cache channel keeps its last event.
        webhooks: Who is told what happens.
        enabled: Whether it is served; one that is not refuses clients with 4003, requests with 403.
    """

    id: str
    key: str
    secret: str
    client_events: bool = True
    allowed_origins: tuple[str, ...] = ()
    max_connections: int = 0
    activity_timeout: int = 120
    max_message_size: int = 65_536
    max_event_size: int = 10_240
    max_channel_name: int = 200
    max_channels: int = 1_000
    max_presence_members: int = 100
    max_member_size: int = 2_048
    client_events_per_second: int = 10
    max_watchlist: int = 100
    subscription_counts: bool = False
    authorization_timeout: float = 0
    subscription_timeout: float = 0
    messages_per_second: int = 200
    cache_ttl: float = 1_800
    webhooks: tuple[WebhookEndpoint, ...] = ()
    enabled: bool = True

    def __post_init__(self) -> None:
        for name, what in (("id", "an id"), ("key", "a key"), ("secret", "a secret")):
            if not getattr(self, name):
                raise SettingsError(f"An application needs {what}.")
        for origin in self.allowed_origins:
            if "/" in origin or origin.count(":") == 1:
                raise SettingsError(
                    f"allowed_origins has hosts, such as shop.example.com or *.example.com: write"
                    f" {origin!r} without scheme, port and path."
                )
        if self.activity_timeout < 1:
            raise SettingsError("The activity timeout is at least 1 second.")
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, (int, float)) and value < 0:
                raise SettingsError(f"{name} is {value}; a limit is not below 0.")

    def __repr__(self) -> str:
        """Id and key; never the secret."""
        return f"App(id={self.id!r}, key={self.key!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for Rich, which would otherwise print the secret in a traceback."""
        return [("", repr(self))]


def _laravel(env: Mapping[str, str], source: str) -> dict[str, Any]:
    """Fields of `Settings` found under Laravel's names."""
    found: dict[str, Any] = {}
    for prefix in ("PUSHER", "REVERB"):
        names = {
            "app_id": f"{prefix}_APP_ID",
            "app_key": f"{prefix}_APP_KEY",
            "app_secret": f"{prefix}_APP_SECRET",
            "host": f"{prefix}_HOST",
            "port": f"{prefix}_PORT",
            "scheme": f"{prefix}_SCHEME",
            "encryption_master_key": f"{prefix}_ENCRYPTION_MASTER_KEY_BASE64",
        }
        here: dict[str, Any] = {field: env[name] for field, name in names.items() if env.get(name)}
        if prefix == "PUSHER" and "host" not in here and env.get("PUSHER_APP_CLUSTER"):
            here["host"] = f"ws-{env['PUSHER_APP_CLUSTER']}.pusher.com"
            here["http_host"] = f"api-{env['PUSHER_APP_CLUSTER']}.pusher.com"
        if "port" in here:
            # Read as a number only if no argument stands in for it.
            here["port"] = _PortText(here["port"], f"{names['port']} in {source}")
        # A key without its own host must not inherit the other prefix's host.
        if "app_key" in here:
            found = {}
        _overlay(found, here)
    if env.get("APP_URL"):
        found["api_url"] = env["APP_URL"]
    return found


def _overlay(values: dict[str, Any], further: Mapping[str, Any]) -> None:
    """Put what is given over what is there; a host brings its HTTP API along."""
    given = {name: value for name, value in further.items() if value}
    if "host" in given:
        values.pop("http_host", None)
    values |= given


class _PortText:
    """A port as it stands in the environment or a file."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where

    def read(self) -> int:
        try:
            return int(self._text)
        except ValueError:
            raise SettingsError(f"{self._where} is no number: {self._text!r}.") from None


def _read_env_file(path: str | Path, environ: Mapping[str, str]) -> dict[str, str]:
    from dotenv import dotenv_values  # only who has a file pays for it

    try:
        with open(path, encoding="utf-8") as file:
            raw = dotenv_values(stream=file, interpolate=False)
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"The file {path} could not be read: {exc}.") from exc
    values: dict[str, str] = {}
    for name, value in raw.items():
        known = {**values, **environ}
        values[name] = _REFERENCE.sub(lambda found: known.get(found[1], ""), value or "")  # noqa: B023
    return values


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except ValueError:  # binascii.Error is one
        return False


def _clean_host(host: str) -> str:
    """A name or address as it is; an IPv6 address without its brackets."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        if ":" in bare or bare != host:
            ipaddress.IPv6Address(bare)
    except ValueError:
        bare = ""
    if not bare.isprintable() or not bare or any(c in bare for c in "/?#@[] "):
        raise SettingsError(f"{host!r} is no host name: give it without scheme, port and path.")
    return bare


def _clean_path(path: str) -> str:
    return "/" + path.strip("/") if path.strip("/") else ""

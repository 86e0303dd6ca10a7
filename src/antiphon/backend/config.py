"""The backend's settings."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from antiphon.errors import SettingsError
from antiphon.settings import Settings

__all__ = ["BackendConfig"]


class BackendConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the chat backend has to know.

    Attributes:
        settings: The Pusher server events are published on, with `app_id` and `app_secret`.
        database_url: `sqlite:///path` or `postgresql://user:password@host/name`.
        token_lifetime: How long a bearer token is good for.
        allowed_origins: Origins whose pages may call the backend (CORS); `*` stands for any text.
        publish_timeout: Seconds a request waits at most for its events to be published.
    """

    settings: Settings
    database_url: str = "sqlite:///antiphon.db"
    token_lifetime: timedelta = timedelta(days=30)
    allowed_origins: tuple[str, ...] = ()
    publish_timeout: float = 3.0

    def __post_init__(self) -> None:
        if not self.settings.app_id or not self.settings.app_secret:
            raise SettingsError("The backend signs and publishes: give app_id and app_secret.")
        if self.token_lifetime <= timedelta(0):
            raise SettingsError("A token's lifetime is longer than nothing.")
        if self.publish_timeout <= 0:
            raise SettingsError("publish_timeout is more than 0 seconds.")

    def __repr__(self) -> str:
        """The application and its server; neither secret nor the database's password."""
        return f"BackendConfig({self.settings!r})"

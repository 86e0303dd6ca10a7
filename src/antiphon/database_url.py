"""How a database is named: `sqlite:///path` or `postgresql://user:password@host/name`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from .errors import SettingsError

__all__ = ["database_url", "is_sqlite"]

_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}


def database_url(text: str) -> URL:
    """An address with the driver that is used for it.

    Raises:
        SettingsError: It names no database that can be used.
    """
    try:
        parsed = make_url(text)
        parsed = parsed.set(drivername=_DRIVERS[parsed.drivername.partition("+")[0]])
    except (ArgumentError, KeyError):
        raise SettingsError("A database is sqlite:///path or postgresql://host/name.") from None
    if is_sqlite(parsed) and parsed.database in (None, "", ":memory:"):
        # In memory, all transactions would share one connection.
        raise SettingsError("A SQLite database is a file: sqlite:///path.")
    return parsed


def is_sqlite(url: URL) -> bool:
    """Whether it is a file of SQLite's."""
    return url.drivername == _DRIVERS["sqlite"]

"""Applications in a database: `sqlite:///path` or `postgresql://host/name`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import msgspec
from sqlalchemy import Boolean, Column, MetaData, Table, Text, inspect, select, true
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from antiphon.database_url import database_url
from antiphon.errors import SettingsError
from antiphon.settings import App

__all__ = ["AppTable"]

log = logging.getLogger("antiphon.server")

PATIENCE: Final = 10.0
"""Seconds for a database to answer."""
_schema = MetaData()
_apps = Table(
    "antiphon_apps",
    _schema,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("secret", Text, nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=true()),
    # The other fields of `App`, as JSON: a new one needs no new column.
    Column("settings", Text, nullable=False, server_default="{}"),
)


class AppTable:
    """The table `antiphon_apps`; what was read is kept, and stands in for what cannot be read.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`.

    Raises:
        SettingsError: The URL names no database that can be used.
    """

    def __init__(self, url: str) -> None:
        parsed = database_url(url)
        # Without the query, which may hold a password too.
        self._where = f"The database {parsed.set(query={})!r}"
        # An error's text must not hold a secret: hide_parameters.
        self._engine = create_async_engine(parsed, hide_parameters=True, pool_pre_ping=True)
        self._known: dict[str, App] = {}
        self._refused: dict[str, Any] = {}

    async def open(self) -> None:
        """Connect, and create the table if it is missing.

        Raises:
            SettingsError: The database cannot be used.
        """
        try:
            async with asyncio.timeout(PATIENCE), self._engine.begin() as db:
                # Not `create_all` by itself: who may only read need not be allowed to create.
                if not await db.run_sync(lambda sync: inspect(sync).has_table(_apps.name)):
                    await db.run_sync(_schema.create_all)
        except (SQLAlchemyError, OSError) as exc:
            await self.close()
            raise SettingsError(f"{self._where} cannot be used: {_words(exc)}.") from exc

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def read(self) -> tuple[App, ...]:
        """The applications as they stand in the table.

        A row that cannot be used is named in the log, once for each state it is in; its application
        stays as it was, or is left out.

        Raises:
            SettingsError: The database cannot be read.
        """
        try:
            async with asyncio.timeout(PATIENCE), self._engine.connect() as db:
                rows = await _rows(db)
        except (SQLAlchemyError, OSError, ValueError) as exc:
            raise SettingsError(f"{self._where} cannot be read: {_words(exc)}.") from exc
        refused, self._refused = self._refused, {}
        found: dict[str, App] = {}
        for row in rows:
            try:
                found[row.id] = _app(row)
            except SettingsError as exc:
                self._refused[row.id] = tuple(row)
                if refused.get(row.id) != tuple(row):
                    log.error("the application %r in antiphon_apps cannot be used: %s", row.id, exc)
                if row.id in self._known:
                    found[row.id] = self._known[row.id]
        self._known = found
        return tuple(found.values())


def _words(exc: Exception) -> str:
    return f"no answer within {PATIENCE:g} s" if isinstance(exc, TimeoutError) else str(exc)


async def _rows(db: AsyncConnection) -> list[Any]:
    return list(await db.execute(select(_apps).order_by(_apps.c.id)))


def _app(row: Any) -> App:
    """One row as an application.

    Raises:
        SettingsError: Its settings are no JSON object of `App`'s fields, or a value is impossible.
    """
    named = {"id": row.id, "key": row.key, "secret": row.secret, "enabled": row.enabled}
    try:
        settings = msgspec.json.decode(row.settings, type=dict[str, Any])
        double = sorted(named.keys() & settings.keys())
        if double:
            raise SettingsError(f"{double[0]} has a column of its own.")
        return msgspec.convert(settings | named, App)
    except (msgspec.MsgspecError, TypeError, RecursionError) as exc:
        raise SettingsError(f"settings: {exc}.") from None

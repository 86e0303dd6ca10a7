"""Connections and transactions; what SQLite and PostgreSQL each need is known here alone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from antiphon.database_url import database_url, is_sqlite
from antiphon.errors import SettingsError

from .tables import schema

__all__ = ["Database"]

BUSY_TIMEOUT: Final = 10.0
"""Seconds a SQLite transaction waits for the lock of another."""
SCHEMA_LOCK: Final = 0x616E7469
"""PostgreSQL advisory lock under which the tables are created."""


class Database:
    """A pool of connections to one database.

    Raises:
        SettingsError: The URL names no database that can be used.
    """

    def __init__(self, url: str) -> None:
        self._url = database_url(url)
        self._engine = _engine(self._url)
        self._writing_engine = self._engine.execution_options(writing=True)  # the same pool
        # SQLite has one writer. Its own lock is polled for and unfair: with 20 users writing at
        # once one in a hundred waited 1.4 s, in a queue it is 0.2 s.
        self._queue = asyncio.Lock() if is_sqlite(self._url) else nullcontext()

    async def open(self) -> None:
        """Connect, and create the tables that are missing.

        Raises:
            SettingsError: The database cannot be used.
        """
        try:
            if is_sqlite(self._url):
                _create_private_file(Path(self._url.database or ""))
            async with self.writing() as db:
                if not is_sqlite(self._url):
                    await db.execute(text(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
                await db.run_sync(schema.create_all)
        except (SQLAlchemyError, OSError) as exc:
            await self.close()
            raise SettingsError(f"The database {self._url!r} cannot be used: {exc}") from exc

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that only reads."""
        return self._engine.begin()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write; committed at the end, rolled back on an exception."""
        async with self._queue, self._writing_engine.begin() as db:
            yield db


def _engine(url: URL) -> AsyncEngine:
    # An error's text must not hold what people wrote: hide_parameters.
    if not is_sqlite(url):
        return create_async_engine(url, hide_parameters=True, pool_pre_ping=True)
    engine = create_async_engine(
        url, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT, "isolation_level": None}
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    # The file keeps this mode. It fails at once, whatever the timeout, while another connection is
    # switching a new file, and then it is done all the same.
    with suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that has read cannot wait for the write lock (SQLITE_BUSY_SNAPSHOT): one that
    # is going to write takes it first.
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _create_private_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)

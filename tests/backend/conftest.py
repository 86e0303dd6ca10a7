"""Databases, real ones: everything that is stored is tested on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from antiphon.backend import Store

from .harness import Backend, Recorder, running_backend

POSTGRES = os.environ.get("ANTIPHON_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test")


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[str]:
    """A database for this run alone."""
    name = f"antiphon_{uuid.uuid4().hex}"
    try:
        asyncio.run(_execute(POSTGRES, f"CREATE DATABASE {name}"))
    except (OSError, TimeoutError, asyncpg.PostgresError) as exc:
        reason = f"no PostgreSQL at {POSTGRES}: {exc!r}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    yield f"{POSTGRES.rpartition('/')[0]}/{name}"
    asyncio.run(_execute(POSTGRES, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def postgres_url(postgres_database: str) -> str:
    await _execute(postgres_database, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return postgres_database


async def _execute(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url, timeout=60)
    await connection.execute(statements)
    await connection.close()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'chat.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with Store(database_url) as store:
        yield store


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    async with Recorder().running() as recorder:
        yield recorder


@pytest.fixture
async def backend(database_url: str, recorder: Recorder) -> AsyncIterator[Backend]:
    async with running_backend(database_url, recorder) as backend:
        yield backend


@pytest.fixture
async def local_backend(sqlite_url: str, recorder: Recorder) -> AsyncIterator[Backend]:
    """For what no database can change."""
    async with running_backend(sqlite_url, recorder) as backend:
        yield backend

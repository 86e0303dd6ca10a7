"""Applications in a database."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

from antiphon.errors import SettingsError
from antiphon.server import app_table
from antiphon.server.app_table import AppTable
from antiphon.settings import App, WebhookEndpoint
from tests.backend.conftest import postgres_database, postgres_url

__all__ = ["postgres_database", "postgres_url"]  # fixtures

pytestmark = pytest.mark.asyncio


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'apps.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest_asyncio.fixture
async def table(url: str) -> AsyncIterator[AppTable]:
    table = AppTable(url)
    await table.open()
    await run(url, "DELETE FROM antiphon_apps")
    yield table
    await table.close()


async def run(url: str, statement: str, **values: Any) -> None:
    scheme, _, rest = url.partition("://")
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}[scheme]
    engine = create_async_engine(f"{driver}://{rest}")
    async with engine.begin() as db:
        await db.execute(sqlalchemy.text(statement), values)
    await engine.dispose()


async def put(url: str, id_: str = "1", settings: str | None = None) -> None:
    values = {"id": id_, "key": f"key-{id_}", "secret": f"secret-{id_}", "settings": settings}
    names = [name for name, value in values.items() if value is not None]
    await run(
        url,
        f"INSERT INTO antiphon_apps ({', '.join(names)}) VALUES (:{', :'.join(names)})",
        **{name: values[name] for name in names},
    )


async def test_an_empty_table_is_made_and_has_no_applications(table: AppTable) -> None:
    assert await table.read() == ()


async def test_a_row_is_an_application_with_its_limits(url: str, table: AppTable) -> None:
    await put(url)
    await put(
        url,
        "2",
        '{"max_connections": 5, "allowed_origins": ["*.example.com"],'
        ' "webhooks": [{"url": "https://example.com/hook"}]}',
    )
    assert await table.read() == (
        App(id="1", key="key-1", secret="secret-1"),
        App(
            id="2",
            key="key-2",
            secret="secret-2",
            max_connections=5,
            allowed_origins=("*.example.com",),
            webhooks=(WebhookEndpoint(url="https://example.com/hook"),),
        ),
    )


async def test_what_has_changed_is_read_the_next_time(url: str, table: AppTable) -> None:
    await put(url)
    await put(url, "2")
    assert len(await table.read()) == 2
    await run(url, "DELETE FROM antiphon_apps WHERE id = '2'")
    await run(url, "UPDATE antiphon_apps SET enabled = false, key = 'other'")
    assert await table.read() == (App(id="1", key="other", secret="secret-1", enabled=False),)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ("{", "settings: "),
        ("[]", "settings: Expected `object`"),
        ('{"max_conections": 1}', "max_conections"),
        ('{"max_connections": "many"}', "Expected `int`"),
        ('{"max_connections": -1}', "not below 0"),
        ('{"secret": "x"}', "secret has a column of its own"),
    ],
)
async def test_a_row_that_cannot_be_used_leaves_its_application_as_it_was(
    url: str,
    table: AppTable,
    settings: str,
    complaint: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await put(url, "0", settings)
    await put(url)
    assert [app.id for app in await table.read()] == ["1"], "the others are served"
    assert complaint in caplog.text
    assert "'0' in antiphon_apps" in caplog.text
    assert "secret-0" not in caplog.text
    before = await table.read()
    assert len(caplog.records) == 1, "it is said once"
    await run(url, "UPDATE antiphon_apps SET settings = :settings", settings=settings)
    assert await table.read() == before
    assert len(caplog.records) == 2
    await run(url, "UPDATE antiphon_apps SET settings = '{}'")
    assert [app.id for app in await table.read()] == ["0", "1"]


async def test_who_may_only_read_needs_not_create(tmp_path: Path) -> None:
    file = tmp_path / "apps.db"
    table = AppTable(f"sqlite:///{file}")
    await table.open()
    await table.close()
    await put(f"sqlite:///{file}")
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as db:
        assert db.execute("SELECT count(*) FROM antiphon_apps").fetchone() == (1,)
    table = AppTable(f"sqlite:///file:{file}?mode=ro&uri=true")
    await table.open()
    assert [app.id for app in await table.read()] == ["1"]
    await table.close()


@pytest.mark.parametrize("address", ["apps.db", "mysql://localhost/x", "://", "redis://x"])
async def test_an_address_that_is_no_database_s_is_said_so(address: str) -> None:
    with pytest.raises(SettingsError, match="A database is sqlite:///path or postgresql://"):
        AppTable(address)


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:"])
async def test_a_database_in_memory_is_none_that_others_can_write_to(address: str) -> None:
    with pytest.raises(SettingsError, match="A SQLite database is a file"):
        AppTable(address)


async def test_a_database_that_is_not_there_is_named_without_its_password() -> None:
    table = AppTable("postgresql://user:hidden@127.0.0.1:1/apps")
    with pytest.raises(SettingsError, match="cannot be used") as caught:
        await table.open()
    assert "hidden" not in str(caught.value)
    assert "127.0.0.1:1/apps" in str(caught.value)
    table = AppTable("postgresql://127.0.0.1:1/apps?user=user&password=hidden")
    with pytest.raises(SettingsError, match="cannot be used") as caught:
        await table.open()
    assert "hidden" not in str(caught.value)


async def test_a_database_that_goes_away_is_an_error_and_not_an_empty_list(
    url: str, table: AppTable
) -> None:
    await put(url)
    await table.read()
    await run(url, "DROP TABLE antiphon_apps")
    with pytest.raises(SettingsError, match="cannot be read"):
        await table.read()


async def test_a_database_that_does_not_answer_is_not_waited_for_for_ever(
    table: AppTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(db: object) -> list[Any]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(app_table, "PATIENCE", 0.05)
    monkeypatch.setattr(app_table, "_rows", never)
    with pytest.raises(SettingsError, match=r"cannot be read: no answer within 0\.05 s"):
        await table.read()


async def test_a_table_that_somebody_else_has_made_may_hold_nothing_at_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path / 'apps.db'}"
    columns = "id TEXT, key TEXT, secret TEXT, enabled BOOLEAN, settings TEXT"
    await run(url, f"CREATE TABLE antiphon_apps ({columns})")
    await run(url, "INSERT INTO antiphon_apps (id, key, secret) VALUES ('1', 'k', 's')")
    await run(url, "INSERT INTO antiphon_apps VALUES ('2', 'm', 't', 1, '{}')")
    table = AppTable(url)
    await table.open()
    assert [app.id for app in await table.read()] == ["2"]
    assert "'1' in antiphon_apps" in caplog.text
    await table.close()

from __future__ import annotations

import asyncio
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from antiphon.backend import Store, User
from antiphon.errors import SettingsError

from .harness import PASSWORD, Recorder, running_backend

NOW = datetime(2024, 10, 25, 10, 31, 0, 999_999, tzinfo=UTC)


async def add_user(store: Store, name: str) -> User:
    user = await store.users.create(
        first_name=name, last_name="", email=f"{name}@example.com", password_hash="-"
    )
    assert user is not None
    return user


async def add_pair(store: Store) -> tuple[User, User, int]:
    ali, john = await add_user(store, "ali"), await add_user(store, "john")
    return ali, john, (await store.conversations.create([ali.id, john.id]))[0]


async def test_an_email_address_belongs_to_one_user_in_any_case(store: Store) -> None:
    given = {"first_name": "Ali", "last_name": "", "password_hash": "-"}

    made = await asyncio.gather(
        *(store.users.create(email=email, **given) for email in ("Straße@x.uz", "STRASSE@X.UZ") * 3)
    )

    (first,) = [user for user in made if user is not None]
    for email in ("strasse@x.uz", "Straße@x.uz"):
        assert await store.users.with_email(email) == (first, "-")
    assert await store.users.with_email("nobody@x.uz") is None


async def test_a_token_is_good_until_the_second_it_expires(store: Store) -> None:
    ali = await add_user(store, "ali")
    await store.users.add_token("hash", ali.id, now=NOW, expires_at=NOW + timedelta(seconds=10))

    assert await store.users.with_token("hash", now=NOW + timedelta(seconds=9)) == ali
    assert await store.users.with_token("hash", now=NOW + timedelta(seconds=10)) is None
    assert await store.users.with_token("other", now=NOW) is None


async def test_a_new_token_sweeps_out_the_expired_ones(store: Store) -> None:
    ali = await add_user(store, "ali")
    await store.users.add_token("old", ali.id, now=NOW, expires_at=NOW + timedelta(seconds=1))
    await store.users.add_token("good", ali.id, now=NOW, expires_at=NOW + timedelta(days=1))

    later = NOW + timedelta(minutes=1)
    await store.users.add_token("new", ali.id, now=later, expires_at=later + timedelta(days=1))

    assert await store.users.with_token("old", now=NOW) is None
    assert await store.users.with_token("good", now=later) == ali


async def test_no_token_and_no_password_stands_in_the_database(
    sqlite_url: str, recorder: Recorder, tmp_path: Path
) -> None:
    async with running_backend(sqlite_url, recorder) as backend:
        ali = await backend.user("Ali")
        body = {"email": ali.user.email, "password": PASSWORD}
        token = (await backend.http.post("/api/login", json=body)).json()["token"]

    kept = (tmp_path / "chat.db").read_bytes()
    assert b"Ali" in kept
    assert token.encode() not in kept
    assert PASSWORD.encode() not in kept


async def test_a_time_is_utc_in_whole_seconds(store: Store) -> None:
    ali, _, here = await add_pair(store)

    message, _ = await store.conversations.add_message(here, ali.id, "hi")

    assert message.sent_at.tzinfo is UTC
    assert message.sent_at.microsecond == 0
    assert abs(datetime.now(UTC) - message.sent_at) < timedelta(minutes=1)


async def test_a_conversation_with_somebody_who_does_not_exist_is_not_made(store: Store) -> None:
    ali, john, _ = await add_pair(store)
    await store.conversations.create([ali.id, john.id, (await add_user(store, "eve")).id])
    before = await store.conversations.of(ali.id)

    for user_ids in ([ali.id, 99], [ali.id, 98, 99]):
        with pytest.raises(LookupError, match="does not exist"):
            await store.conversations.create(user_ids)

    assert await store.conversations.of(ali.id) == before


async def test_a_message_to_nowhere_or_from_nobody_is_not_kept(store: Store) -> None:
    ali, _, here = await add_pair(store)
    await store.conversations.add_message(here, ali.id, "hi")

    for conversation_id, sender_id in ((99, ali.id), (here, 99)):
        for temp_id in ("t", None):
            with pytest.raises(LookupError, match="no such"):
                await store.conversations.add_message(
                    conversation_id, sender_id, "hi", temp_id=temp_id
                )


async def test_reading_and_writing_at_once_loses_nothing_and_fails_never(store: Store) -> None:
    ali, john, here = await add_pair(store)
    read: list[str] = []

    async def write() -> None:
        for number in range(10):
            message, _ = await store.conversations.add_message(here, ali.id, str(number))
            read.extend(await store.conversations.mark_read(here, john.id, int(message.id)))
            await store.conversations.of(john.id)

    await asyncio.gather(*(write() for _ in range(8)))

    page = await store.conversations.messages(here, limit=100)
    assert sorted(read, key=int) == [message.id for message in page.messages]
    assert len(read) == 80
    assert {message.status for message in page.messages} == {"read"}


async def test_a_mark_of_who_is_no_member_is_not_set(store: Store) -> None:
    ali, _, here = await add_pair(store)
    eve = await add_user(store, "eve")
    message, _ = await store.conversations.add_message(here, ali.id, "hi")

    assert await store.conversations.mark_read(here, eve.id, int(message.id)) == []
    assert (await store.conversations.messages(here, limit=1)).messages == [message]


async def test_a_conversations_messages_are_numbered_in_the_order_of_their_commits(
    postgres_url: str,
) -> None:
    """Otherwise who asks for what came after one id could miss a slower, smaller one."""
    other, watcher = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)
    # In this database: others run their tests beside this one.
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with Store(postgres_url) as store, asyncio.timeout(60):
        ali, _, here = await add_pair(store)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT 1 FROM conversations WHERE id = $1 FOR NO KEY UPDATE", here)

        slow = asyncio.create_task(store.conversations.add_message(here, ali.id, "second"))
        while not await watcher.fetchval(waiting):
            pass
        first = await other.fetchval(
            "INSERT INTO messages (conversation_id, sender_id, content, sent_at)"
            " VALUES ($1, $2, 'first', now()) RETURNING id",
            here,
            ali.id,
        )
        await transaction.commit()

        assert int((await slow)[0].id) > first
    await other.close()
    await watcher.close()


async def test_many_may_open_an_empty_database_at_once(database_url: str) -> None:
    stores = [Store(database_url) for _ in range(10)]

    await asyncio.gather(*(store.open() for store in stores))

    await add_user(stores[0], "ali")
    assert await stores[-1].users.with_email("ali@example.com") is not None
    for store in stores:
        await store.close()


async def test_a_sqlite_file_is_its_owners_and_keeps_what_it_promises(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new" / "folder" / "chat.db"
    async with Store(f"sqlite:///{path}") as store:
        await add_user(store, "ali")
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "mysql://host/name", "sqlite://", "sqlite:///:memory:", "oracle+x://h/n"],
)
def test_a_url_that_names_no_usable_database_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="database"):
        Store(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hidden@127.0.0.1:1/name",
        "postgres://user:hidden@127.0.0.1:1/name",
        "postgresql+asyncpg://user:hidden@127.0.0.1:1/name",
    ],
)
async def test_a_database_that_does_not_answer_is_named_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        await Store(url).open()

    assert "127.0.0.1:1/name" in str(caught.value)
    assert "hidden" not in str(caught.value)

"""What a session keeps on disk: real files, real locks, a disk that is really full."""

# ruff: noqa: ASYNC240 - nobody waits behind these loops

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import sqlite3
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.chat.models import Conversation, Draft, Message, User
from antiphon.chat.store import KEPT_MESSAGES, ChatStore
from antiphon.errors import SettingsError

ACCOUNT: Final = "http://127.0.0.1:8000 7"
NOON: Final = datetime(2026, 1, 2, 12, tzinfo=UTC)
TIMEOUT: Final = 20.0


def draft(number: int, content: str = "Hello", **more: Any) -> Draft:
    return Draft(
        temp_id=f"t{number}", conversation_id="45", content=content, created_at=NOON, **more
    )


def message(id_: int | str, content: str = "Hello", **more: Any) -> Message:
    return Message(id=id_, chat_id=45, sender_id=67, content=content, **more)


def messages(*numbers: int) -> list[Message]:
    return [message(number) for number in numbers]


def ids(kept: list[Message]) -> list[int | str]:
    return [message.id for message in kept]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[ChatStore]:
    async with ChatStore(path, ACCOUNT) as store:
        yield store


@contextlib.contextmanager
def written_to_by_another(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program is in the middle of writing to the file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other
        if other.in_transaction:
            other.execute("ROLLBACK")


@contextlib.contextmanager
def full_disk(free: int = 0) -> Iterator[None]:
    """No file of this process grows beyond some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may write everywhere; for a moment, this process is not root."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


# Unsent messages


async def test_unsent_messages_come_back_in_the_order_they_were_put(path: Path) -> None:
    put = [draft(3), draft(1, "two\nlines"), draft(2, "ё 🎉 ‮", failure="no", refused=True)]
    async with ChatStore(path, ACCOUNT) as store:
        for one in put:
            await store.put_draft(one)
    async with ChatStore(path, ACCOUNT) as store:
        assert await store.drafts() == put


async def test_a_draft_put_again_is_replaced_and_keeps_its_place(store: ChatStore) -> None:
    for number in (1, 2, 3):
        await store.put_draft(draft(number))
    again = draft(1, failure="The backend answered 422.", refused=True)
    await store.put_draft(again)
    assert await store.drafts() == [again, draft(2), draft(3)]


async def test_a_dropped_draft_is_gone_and_later_ones_stand_at_the_end(store: ChatStore) -> None:
    for number in (1, 2, 3):
        await store.put_draft(draft(number))
    await store.drop_draft("t3")
    await store.drop_draft("t1")
    await store.drop_draft("nobody's")
    await store.put_draft(draft(4))
    await store.put_draft(draft(1))
    assert [d.temp_id for d in await store.drafts()] == ["t2", "t4", "t1"]


async def test_text_that_no_encoding_can_carry_is_refused_and_harms_nothing(
    store: ChatStore,
) -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        await store.put_draft(draft(1, "\ud83d"))
    await store.put_draft(draft(2))
    assert await store.drafts() == [draft(2)]


async def test_ten_megabytes_are_kept_like_any_message(store: ChatStore) -> None:
    long = draft(1, "ж" * 5_000_000)
    await store.put_draft(long)
    assert await store.drafts() == [long]


async def test_a_draft_that_cannot_be_read_does_not_hide_the_others(
    store: ChatStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await store.put_draft(draft(1, "secret words"))
    await store.put_draft(draft(2))
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("""UPDATE drafts SET json = '{"content":"secret words"' WHERE place = 1""")
    assert await store.drafts() == [draft(2)]
    assert "an unsent message" in caplog.text
    assert "secret words" not in caplog.text


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            st.text(st.characters(exclude_categories=["Cs"])),
        ),
        max_size=8,
        unique_by=lambda pair: pair[0],
    )
)
def test_whatever_people_type_comes_back_as_it_was(typed: list[tuple[str, str]]) -> None:
    drafts = [
        Draft(temp_id=temp_id, conversation_id=content, content=content, created_at=NOON)
        for temp_id, content in typed
    ]

    async def keep_and_read(path: Path) -> None:
        async with ChatStore(path, ACCOUNT) as store:
            for one in drafts:
                await store.put_draft(one)
                store.keep_messages(one.content, [message(one.temp_id, one.content)])
            assert await store.drafts() == drafts
            for one in drafts:
                kept = await store.messages(one.content)
                assert message(one.temp_id, one.content) in kept

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(keep_and_read(Path(folder, "chat.db")))


# The last of each conversation


async def test_conversations_come_back_as_they_were_last_kept(path: Path) -> None:
    ali = User(id=1, first_name="Ali", last_name="Qo'chqorov", email="ali@example.com")
    many = [
        Conversation(
            id=n, title=f"Talk {n}", members=(ali,), last_message=message(n), unread_count=n
        )
        for n in range(50)
    ]
    async with ChatStore(path, ACCOUNT) as store:
        store.keep_conversations(many)
        assert await store.conversations() == many
        # One moves to the top, three go.
        fewer = [many[20], *many[:20], *many[21:47]]
        store.keep_conversations(fewer)
    async with ChatStore(path, ACCOUNT) as store:
        assert await store.conversations() == fewer
        store.keep_conversations([])
        assert await store.conversations() == []


async def test_a_moved_conversation_rewrites_only_what_has_changed(
    store: ChatStore, path: Path
) -> None:
    many = [Conversation(id=n) for n in range(1000)]
    store.keep_conversations(many)
    await store.conversations()
    with contextlib.closing(sqlite3.connect(path)) as other:
        written = "SELECT count(*) FROM conversations"
        assert other.execute(written).fetchone() == (1000,)
    assert store._connection is not None
    before = store._connection.total_changes
    store.keep_conversations([many[3], *many[:3], *many[4:]])
    await store.conversations()
    assert store._connection.total_changes - before == 4


async def test_kept_messages_come_back_whole_and_in_order(path: Path) -> None:
    kept = [
        message(9, "the ninth", sender_name="John", sent_at=NOON, status="read", temp_id="t9"),
        message("10", "text for a number"),
        message("01J9ZK", "a ULID", sent_at=NOON + timedelta(microseconds=1)),
    ]
    async with ChatStore(path, ACCOUNT) as store:
        store.keep_messages("45", kept[:1])
        store.keep_messages("45", kept[1:])
        store.keep_messages("46", messages(1))
    async with ChatStore(path, ACCOUNT) as store:
        assert await store.messages("45") == kept
        assert await store.messages("46") == messages(1)
        assert await store.messages("47") == []


async def test_a_message_kept_again_is_replaced_and_keeps_its_place(store: ChatStore) -> None:
    store.keep_messages("45", messages(1, 2, 3))
    await store.messages("45")
    read = message("2", status="read")
    store.keep_messages("45", [read, message(4)])
    assert await store.messages("45") == [message(1), read, message(3), message(4)]


async def test_only_the_newest_messages_stay(store: ChatStore) -> None:
    store.keep_messages("46", messages(1))
    for start in range(0, 1000, 100):
        store.keep_messages("45", messages(*range(start, start + 100)))
        await store.messages("45")
    assert ids(await store.messages("45")) == list(range(1000 - KEPT_MESSAGES, 1000))
    assert ids(await store.messages("46")) == [1]


async def test_replacing_lets_go_of_what_was_kept_before(store: ChatStore) -> None:
    store.keep_messages("45", messages(1, 2, 3))
    store.keep_messages("45", messages(8, 9), replace=True)
    store.keep_messages("45", messages(10))
    assert ids(await store.messages("45")) == [8, 9, 10]
    store.keep_messages("45", messages(20), replace=True)
    assert ids(await store.messages("45")) == [20]


@pytest.mark.parametrize(
    ("kept", "older", "newer"),
    [
        (messages(500, 501), message(9, status="read"), message(502)),
        (messages(500, 501), message("9", sent_at=NOON), message("1000")),
        (
            [message("b", sent_at=NOON)],
            message("c", sent_at=NOON - timedelta(seconds=1)),
            message("a", sent_at=NOON + timedelta(seconds=1)),
        ),
    ],
)
async def test_an_older_message_than_those_kept_makes_no_hole(
    store: ChatStore, kept: list[Message], older: Message, newer: Message
) -> None:
    store.keep_messages("45", kept)
    await store.messages("45")
    store.keep_messages("45", [older, newer])
    assert await store.messages("45") == [*kept, newer]


async def test_an_id_that_pretends_to_be_a_number_is_kept_like_any_text(store: ChatStore) -> None:
    odd = [message("9" * 6000), message("٣"), message(10**30), message("-5"), message("")]
    store.keep_messages("45", messages(1))
    await store.messages("45")
    store.keep_messages("45", odd)
    assert await store.messages("45") == [message(1), *odd]


async def test_messages_that_cannot_be_read_are_none_and_can_be_replaced(
    store: ChatStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.keep_messages("45", messages(1, 2))
    store.keep_conversations([Conversation(id=45)])
    await store.messages("45")
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE messages SET json = '[]' WHERE id = '1'")
        other.execute("UPDATE conversations SET json = x'ff'")
    assert await store.messages("45") == []
    assert await store.conversations() == []
    assert caplog.text.count("WARNING") == 1
    store.keep_messages("45", messages(3), replace=True)
    assert ids(await store.messages("45")) == [3]


async def test_keeping_never_blocks_and_what_gathers_is_written_in_one_go(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    class Counting(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql.startswith("BEGIN"):
                begun.append(sql)
            return super().execute(sql, *args)

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        return real(*args, factory=Counting, **kwargs)

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    loop = asyncio.get_running_loop()
    async with ChatStore(path, ACCOUNT) as store:
        monkeypatch.undo()
        with written_to_by_another(path):
            before, started = len(begun), loop.time()
            for number in range(2000):
                store.keep_messages("45", messages(number))
                store.keep_conversations([Conversation(id=45, last_message=message(number))])
            assert store._thread is not None
            assert store._thread._work_queue.qsize() <= 1
            # The lock is held for as long as this block lasts: nothing here has waited for it.
            assert loop.time() - started < 4
        kept = await store.messages("45")
        assert ids(kept) == list(range(2000 - KEPT_MESSAGES, 2000))
        (conversation,) = await store.conversations()
        assert conversation.last_message == message(1999)
        assert 1 <= len(begun) - before <= 3


async def test_closing_writes_what_still_waits(path: Path) -> None:
    async with ChatStore(path, ACCOUNT) as store:
        for number in range(300):
            store.keep_messages(str(number), messages(number))
        store.keep_conversations([Conversation(id=1)])
    async with ChatStore(path, ACCOUNT) as store:
        assert [ids(await store.messages(str(n))) for n in range(300)] == [[n] for n in range(300)]
        assert await store.conversations() == [Conversation(id=1)]


# The file


async def test_the_file_is_for_its_owner_alone_from_the_start(path: Path) -> None:
    was = os.umask(0)
    try:
        async with ChatStore(path, ACCOUNT) as store:
            await store.put_draft(draft(1))
            made = list(path.parent.iterdir())
            assert len(made) == 3  # SQLite's two side files are there while it is open
            assert {mode(file) for file in made} == {0o600}
    finally:
        os.umask(was)


async def test_a_file_that_others_may_read_is_closed_to_them(path: Path) -> None:
    async with ChatStore(path, ACCOUNT):
        pass
    path.chmod(0o644)
    async with ChatStore(path, ACCOUNT) as store:
        await store.put_draft(draft(1))
        assert {mode(file) for file in path.parent.iterdir()} == {0o600}


async def test_one_account_sees_nothing_of_another(path: Path) -> None:
    async with ChatStore(path, "ali") as ali, ChatStore(path, "john") as john:
        await ali.put_draft(draft(1, "Ali's"))
        await john.put_draft(draft(1, "John's"))
        ali.keep_messages("45", messages(1))
        ali.keep_conversations([Conversation(id=45)])
        john.keep_conversations([Conversation(id=46), Conversation(id=47)])
        await john.drop_draft("t2")
        assert await ali.drafts() == [draft(1, "Ali's")]
        assert await john.drafts() == [draft(1, "John's")]
        assert await john.messages("45") == []
        await ali.conversations()
        assert len(await john.conversations()) == 2
        await john.drop_draft("t1")
        assert len(await ali.drafts()) == 1


async def test_many_stores_may_make_and_use_one_file_at_once(path: Path) -> None:
    async def use(number: int) -> None:
        async with ChatStore(path, str(number)) as store:
            for n in range(20):
                await store.put_draft(draft(n))
                store.keep_messages("45", messages(n))
            assert len(await store.drafts()) == len(await store.messages("45")) == 20

    async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(use(number))


async def test_a_write_waits_while_another_program_writes(store: ChatStore, path: Path) -> None:
    with written_to_by_another(path) as other:
        putting = asyncio.create_task(store.put_draft(draft(1)))
        done, _ = await asyncio.wait([putting], timeout=0.05)
        assert not done
        other.execute("COMMIT")
        await putting
    assert await store.drafts() == [draft(1)]


async def test_a_store_can_be_opened_again_after_it_was_closed(path: Path) -> None:
    store = ChatStore(path, ACCOUNT)
    await store.close()
    for number in range(3):
        async with store:
            await store.open()
            await store.put_draft(draft(number))
    async with store:
        assert len(await store.drafts()) == 3


async def test_a_store_that_is_not_open_keeps_nothing_and_says_so(path: Path) -> None:
    store = ChatStore(path, ACCOUNT)
    store.keep_messages("45", messages(1))
    store.keep_conversations([Conversation(id=45)])
    for use in (store.put_draft(draft(1)), store.drafts(), store.messages("45")):
        with pytest.raises(SettingsError, match="not open"):
            await use
    assert not path.exists()
    async with store:
        assert await store.messages("45") == []


async def test_opening_that_is_cancelled_leaves_a_store_that_can_be_opened(path: Path) -> None:
    store = ChatStore(path, ACCOUNT)
    for _ in range(20):
        opening = asyncio.create_task(store.open())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    async with store:
        await store.put_draft(draft(1))
        assert await store.drafts() == [draft(1)]


async def test_a_write_that_nobody_waits_for_is_finished(store: ChatStore, path: Path) -> None:
    with written_to_by_another(path):
        putting = asyncio.create_task(store.put_draft(draft(1)))
        await asyncio.sleep(0)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
    assert await store.drafts() == [draft(1)]


# Files that cannot be used


async def refused(path: Path) -> str:
    """Why a file is not taken; it must not have been changed."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(SettingsError) as info:
        await ChatStore(path, ACCOUNT).open()
    assert before == (path.read_bytes() if path.is_file() else None)
    assert str(path) in str(info.value)
    return str(info.value)


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    assert "No such file or directory" in await refused(tmp_path / "missing" / "chat.db")


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "it is no file" in await refused(tmp_path)


async def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "it is no file" in await refused(tmp_path / "pipe")


async def test_a_file_that_is_no_database_is_left_as_it_is(path: Path) -> None:
    path.write_text("Dear diary, " * 1000)
    path.chmod(0o644)
    assert "file is not a database" in await refused(path)
    assert mode(path) == 0o644


@pytest.mark.parametrize("form", [0, 1])
async def test_another_programs_database_is_left_as_it_is(path: Path, form: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE drafts (anything)")
        other.execute(f"PRAGMA user_version = {form}")
    assert "another program's database" in await refused(path)


async def test_a_newer_antiphons_file_is_left_as_it_is(path: Path) -> None:
    async with ChatStore(path, ACCOUNT) as store:
        await store.put_draft(draft(1))
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("PRAGMA user_version = 2")
    assert "written by a newer antiphon (form 2; this one knows 1)" in await refused(path)


async def test_a_file_or_folder_one_may_not_write_to_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "chat.db")
        async with ChatStore(path, ACCOUNT) as store:
            await store.put_draft(draft(1))
        path.chmod(0o444)
        Path(folder).chmod(0o777)
        with ordinary_user():
            assert f"you may not write to {path}." in await refused(path)
        Path(folder).chmod(0o555)
        path.chmod(0o666)
        with ordinary_user():
            assert f"you may not write to {folder}." in await refused(path)
            assert "Permission denied" in await refused(Path(folder, "other.db"))
        # Its owner has it again, and neither is anything lost nor in the way.
        assert os.listdir(folder) == ["chat.db"]
        async with ChatStore(path, ACCOUNT) as store:
            assert await store.drafts() == [draft(1)]


async def test_a_file_that_cannot_be_closed_to_others_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "chat.db")
        async with ChatStore(path, ACCOUNT):
            pass
        path.chmod(0o666)
        Path(folder).chmod(0o777)
        with ordinary_user():
            if path.stat().st_uid == os.geteuid():
                await ChatStore(path, ACCOUNT).open()
                assert mode(path) == 0o600
            else:
                assert "others may read it, and it is not yours" in await refused(path)


async def test_a_full_disk_is_told_when_the_file_is_opened(path: Path) -> None:
    with full_disk(), pytest.raises(SettingsError, match=r"cannot be kept in .*chat\.db: disk"):
        await ChatStore(path, ACCOUNT).open()
    # What is left there is taken for a new file.
    async with ChatStore(path, ACCOUNT) as store:
        await store.put_draft(draft(1))


# A disk that fails while the program runs


async def test_a_message_that_a_full_disk_does_not_take_is_refused_in_plain_words(
    store: ChatStore, path: Path
) -> None:
    await store.put_draft(draft(1))
    with full_disk(), pytest.raises(SettingsError, match=r"cannot be kept in .*disk") as info:
        await store.put_draft(draft(2, "my words " * 5000))
    assert str(path) in str(info.value)
    assert "my words" not in str(info.value)
    await store.put_draft(draft(3))
    assert await store.drafts() == [draft(1), draft(3)]


async def test_a_full_disk_costs_one_warning_and_leaves_no_hole(
    store: ChatStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.keep_messages("45", messages(1, 2, 3))
    store.keep_messages("46", messages(1))
    await store.put_draft(draft(1))
    caplog.clear()
    with full_disk():
        for number in range(4, 60):
            store.keep_messages("45", messages(number))
            store.keep_conversations([Conversation(id=number)])
            # Reading goes on, and waits for the thread to have tried.
            assert ids(await store.messages("45")) == [1, 2, 3]
        store.keep_messages("46", messages(50), replace=True)
        await store.drop_draft("t1")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    store.keep_messages("45", [message(2, status="read")])
    kept = await store.messages("45")
    assert ids(kept) == list(range(1, 60))
    assert kept[1].status == "read"
    assert ids(await store.messages("46")) == [50]
    assert await store.conversations() == [Conversation(id=59)]
    # It is not forgotten that it was sent, only not written down: it comes back.
    assert await store.drafts() == [draft(1)]


async def test_a_program_that_never_lets_go_of_the_file_leaves_no_hole_either(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("antiphon.chat.store.PATIENCE", 0.03)
    async with ChatStore(path, ACCOUNT) as store:
        with written_to_by_another(path):
            for conversation_id in ("45", "46", "47"):
                store.keep_messages(conversation_id, messages(1, 2))
            store.keep_conversations([Conversation(id=1)])
            async with asyncio.timeout(TIMEOUT):
                # Until the thread has them, and waits for the file; or has waited in vain.
                while store._messages and not caplog.records:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            store.keep_messages("45", [message(2, status="read"), message(3)])
            store.keep_messages("46", messages(9), replace=True)
            store.keep_conversations([Conversation(id=2)])
            with pytest.raises(SettingsError, match="database is locked"):
                await store.put_draft(draft(1))
        store.keep_messages("48", messages(1))
        assert await store.messages("45") == [message(1), message(2, status="read"), message(3)]
        assert ids(await store.messages("46")) == [9]
        assert ids(await store.messages("47")) == [1, 2]
        assert await store.conversations() == [Conversation(id=2)]
        assert await store.drafts() == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_what_gathers_while_the_disk_fails_is_bounded_and_leaves_no_hole(
    store: ChatStore,
) -> None:
    kept = list(range(KEPT_MESSAGES))
    store.keep_messages("45", messages(*kept))
    await store.drafts()
    with full_disk():
        new = KEPT_MESSAGES
        for number in range(new, new + 1500):
            # Each new message makes one that is kept a read one.
            read = message(number % KEPT_MESSAGES, status="read")
            store.keep_messages("45", [message(number), read])
            if number % 100 == 0:
                await store.drafts()
        assert len(store._messages["45"].messages) <= 2 * KEPT_MESSAGES
    store.keep_messages("45", messages(new + 1500))
    newest = new + 1500
    assert ids(await store.messages("45")) == list(range(newest - KEPT_MESSAGES + 1, newest + 1))


async def test_a_disk_that_is_full_to_the_end_does_not_keep_a_store_from_closing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ChatStore(path, ACCOUNT) as store:
        store.keep_messages("45", messages(1))
    with full_disk(free=100_000):
        async with ChatStore(path, ACCOUNT) as store:
            store.keep_messages("45", [message(n, "x" * 5000) for n in range(2, 100)])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    async with ChatStore(path, ACCOUNT) as store:
        assert ids(await store.messages("45")) == [1]


async def test_a_file_that_is_damaged_while_it_is_open_is_no_end_of_the_chat(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ChatStore(path, ACCOUNT) as store:
        store.keep_messages("45", messages(1))
        await store.put_draft(draft(1))
    with path.open("r+b") as file:
        # The first page, where it says what it is, stays.
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    async with ChatStore(path, ACCOUNT) as store:
        store.keep_messages("45", messages(2))
        assert await store.messages("45") == []
        assert await store.conversations() == []
        with pytest.raises(SettingsError, match="malformed"):
            await store.drafts()
        with pytest.raises(SettingsError, match="malformed"):
            await store.put_draft(draft(2))
        await store.drop_draft("t1")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]

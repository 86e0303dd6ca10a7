"""What a session keeps on disk: unsent messages, and the last of each conversation (SQLite)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from antiphon.errors import SettingsError

from .models import Conversation, Draft, Message

__all__ = ["KEPT_MESSAGES", "ChatStore"]

KEPT_MESSAGES: Final = 200
"""Messages kept of each conversation."""
PATIENCE: Final = 5.0
"""Seconds to wait while another program writes to the file."""

_APPLICATION_ID: Final = 0x616E7469  # "anti": tells our files from other programs' databases
_SCHEMA: Final = 1
# A draft's place is its row: one that is put again keeps it. Messages likewise.
_TABLES: Final = (
    "CREATE TABLE drafts (place INTEGER PRIMARY KEY, account TEXT NOT NULL,"
    " temp_id TEXT NOT NULL, json BLOB NOT NULL, UNIQUE (account, temp_id))",
    "CREATE TABLE conversations (account TEXT NOT NULL, place INTEGER NOT NULL,"
    " json BLOB NOT NULL, PRIMARY KEY (account, place)) WITHOUT ROWID",
    "CREATE TABLE messages (place INTEGER PRIMARY KEY, account TEXT NOT NULL,"
    " conversation_id TEXT NOT NULL, id TEXT NOT NULL, json BLOB NOT NULL,"
    " UNIQUE (account, conversation_id, id))",
)

log = logging.getLogger("antiphon.chat")

T = TypeVar("T")


class ChatStore:
    """A SQLite file that a session of one account reads and writes; others may share the file.

    What is awaited is durable when it returns: a program that is killed then has lost nothing.
    (The system has it then, and writes it out in its own time: a power cut may take the last
    moments, and never harms the file.) The file is readable by its owner alone.

    A disk that fails while the store is open ends no session: `put_draft` raises, as its message
    would be lost, and all else logs one warning and goes on.

    Args:
        path: The file; it is made if it is missing.
        account: Whose things they are, such as the backend's address and the user's id: another
            account's are neither shown nor sent.
    """

    def __init__(self, path: str | Path, account: str) -> None:
        self.path = Path(path).absolute()
        self.account = account
        # One thread has the connection, and does what it is given in order.
        self._thread: ThreadPoolExecutor | None = None
        self._closing: Future[None] | None = None
        self._connection: sqlite3.Connection | None = None
        self._is_failing = False
        # What waits to be written, filled by the event loop and taken by the thread.
        self._lock = threading.Lock()
        self._conversations: Sequence[Conversation] | None = None
        self._messages: dict[str, _Batch] = {}
        self._is_due = False

    async def open(self) -> None:
        """Open the file; nothing happens if it is open.

        Raises:
            SettingsError: It cannot be used: no such folder, no right to write, no SQLite file,
                one of another program or of a newer antiphon.
        """
        if self._closing is not None:
            await _finished(self._closing)
        if self._thread is not None:
            return
        self._thread = ThreadPoolExecutor(1, "antiphon-chat-store")
        try:
            await _finished(self._thread.submit(self._connect))
        except BaseException:
            self._end()
            raise

    async def close(self) -> None:
        """Write what still waits, and close the file."""
        self._end()
        if self._closing is not None:
            await _finished(self._closing)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def drafts(self) -> list[Draft]:
        """All unsent messages, in the order they were first put.

        Raises:
            SettingsError: They cannot be read, or the store is not open.
        """
        return await self._run(self._read_drafts)

    async def put_draft(self, draft: Draft) -> None:
        """Keep an unsent message; one with its `temp_id` is replaced, and keeps its place.

        Raises:
            SettingsError: It is not kept: the disk is full or fails, or the store is not open.
            ValueError: It holds text that no encoding can carry (half a surrogate pair).
        """
        raw = msgspec.json.encode(draft)
        await self._run(lambda: self._write_draft(draft.temp_id, raw))

    async def drop_draft(self, temp_id: str) -> None:
        """Let go of an unsent message: it was sent or discarded.

        If that cannot be written, it comes back when the file is opened again.

        Raises:
            SettingsError: The store is not open.
        """
        await self._run(lambda: self._delete_draft(temp_id))

    async def conversations(self) -> list[Conversation]:
        """The conversations as they were last kept.

        Raises:
            SettingsError: The store is not open.
        """
        return await self._run(self._read_conversations)

    async def messages(self, conversation_id: str) -> list[Message]:
        """The kept messages of a conversation, in the order they were kept in.

        Raises:
            SettingsError: The store is not open.
        """
        return await self._run(lambda: self._read_messages(conversation_id))

    def keep_conversations(self, conversations: Sequence[Conversation]) -> None:
        """Keep these instead of the ones kept before; written soon, in order.

        Nothing happens while the store is not open.
        """
        if self._thread is None:
            return
        with self._lock:
            self._conversations = tuple(conversations)
        self._write_soon(self._thread)

    def keep_messages(
        self, conversation_id: str, messages: Sequence[Message], *, replace: bool = False
    ) -> None:
        """Keep messages; one with the same id is replaced, and only the newest stay.

        One that is not kept and is older than the first of those that are is left out: there
        would be a hole between them. Nothing happens while the store is not open.

        Args:
            conversation_id: Theirs.
            messages: Newer ones than those kept, or some of them as they are now.
            replace: Let go of all that were kept before: they are not contiguous with these.
        """
        if self._thread is None:
            return
        with self._lock:
            batch = self._messages.setdefault(conversation_id, _Batch())
            if replace:
                batch.replace = True
                batch.messages.clear()
            batch.add(messages)
        self._write_soon(self._thread)

    def _write_soon(self, thread: ThreadPoolExecutor) -> None:
        # What comes while the thread is busy is written in one go when it gets there.
        if not self._is_due:
            self._is_due = True
            thread.submit(self._write_kept)

    def _end(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._closing = thread.submit(self._disconnect)
            thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise SettingsError(f"The chat's file {self.path} is not open.")
        return await _finished(self._thread.submit(work))

    # From here on it is the thread that runs.

    def _connect(self) -> None:
        try:
            # SQLite's locks are the process's own, and closing a file by hand would let go of
            # them: no other store may have it open at the moment it is made.
            with _opening, contextlib.ExitStack() as on_error:
                _create(self.path)
                db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
                on_error.callback(db.close)
                self._prepare(db)
                on_error.pop_all()
        except OSError as exc:
            raise _unusable(self.path, exc.strerror or type(exc).__name__) from exc
        except sqlite3.Error as exc:
            raise _unusable(self.path, str(exc)) from exc
        self._connection = db

    def _prepare(self, db: sqlite3.Connection) -> None:
        with db:
            db.execute("BEGIN IMMEDIATE")
            ((application_id,),) = db.execute("PRAGMA application_id")
            ((schema,),) = db.execute("PRAGMA user_version")
            ((tables,),) = db.execute("SELECT count(*) FROM sqlite_master")
            if application_id == 0 and schema == 0 and tables == 0:
                for table in _TABLES:
                    db.execute(table)
                db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {_SCHEMA}")
            elif application_id != _APPLICATION_ID:
                raise _unusable(self.path, "it is another program's database")
            elif schema > _SCHEMA:
                raise SettingsError(
                    f"The chat's file {self.path} was written by a newer antiphon (form {schema};"
                    f" this one knows {_SCHEMA}). Use that version, or choose another file."
                )
        _close_to_others(self.path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")

    def _disconnect(self) -> None:
        if self._connection is None:
            return
        self._write_kept()
        self._connection.close()
        self._connection = None

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._db as db:
            # Asked for at once: a transaction that read first could not wait for another's.
            db.execute("BEGIN IMMEDIATE")
            yield db
        self._is_failing = False

    def _warn(self, exc: Exception) -> None:
        if not self._is_failing:
            log.warning(
                "the chat's file %s cannot be used at the moment (%s); the chat goes on, and what"
                " is shown at its next start may be old",
                self.path,
                exc,
            )
        self._is_failing = True

    def _read_drafts(self) -> list[Draft]:
        query = "SELECT json FROM drafts WHERE account = ? ORDER BY place"
        try:
            rows = self._db.execute(query, (self.account,)).fetchall()
        except sqlite3.Error as exc:
            raise _unusable(self.path, str(exc)) from exc
        drafts = []
        for (raw,) in rows:
            try:
                drafts.append(msgspec.json.decode(raw, type=Draft))
            except msgspec.MsgspecError as exc:
                log.warning("an unsent message in %s cannot be read: %s", self.path, exc)
        return drafts

    def _write_draft(self, temp_id: str, raw: bytes) -> None:
        query = (
            "INSERT INTO drafts (account, temp_id, json) VALUES (?, ?, ?)"
            " ON CONFLICT (account, temp_id) DO UPDATE SET json = excluded.json"
        )
        try:
            with self._writing() as db:
                db.execute(query, (self.account, temp_id, raw))
        except sqlite3.Error as exc:
            raise SettingsError(
                f"The message cannot be kept in {self.path}: {exc}. Make room or mend the file,"
                " then send it again."
            ) from exc

    def _delete_draft(self, temp_id: str) -> None:
        query = "DELETE FROM drafts WHERE account = ? AND temp_id = ?"
        try:
            with self._writing() as db:
                db.execute(query, (self.account, temp_id))
        except sqlite3.Error as exc:
            self._warn(exc)

    def _read_conversations(self) -> list[Conversation]:
        query = "SELECT json FROM conversations WHERE account = ? ORDER BY place"
        try:
            rows = self._db.execute(query, (self.account,)).fetchall()
            return [msgspec.json.decode(raw, type=Conversation) for (raw,) in rows]
        except (sqlite3.Error, msgspec.MsgspecError) as exc:
            self._warn(exc)
            return []

    def _read_messages(self, conversation_id: str) -> list[Message]:
        query = "SELECT json FROM messages WHERE account = ? AND conversation_id = ? ORDER BY place"
        try:
            rows = self._db.execute(query, (self.account, conversation_id)).fetchall()
            return [msgspec.json.decode(raw, type=Message) for (raw,) in rows]
        except (sqlite3.Error, msgspec.MsgspecError) as exc:
            # All or none: a hole would look as if nothing had been said there.
            self._warn(exc)
            return []

    def _write_kept(self) -> None:
        with self._lock:
            self._is_due = False
            conversations, self._conversations = self._conversations, None
            batches, self._messages = self._messages, {}
        if conversations is None and not batches:
            return
        try:
            with self._writing():
                if conversations is not None:
                    self._write_conversations(conversations)
                for conversation_id, batch in batches.items():
                    self._write_messages(conversation_id, batch)
        except Exception as exc:
            self._warn(exc)
            # To be written with what comes next: newer messages alone would leave a hole.
            with self._lock:
                if self._conversations is None:
                    self._conversations = conversations
                for conversation_id, newer in self._messages.items():
                    batch = batches.setdefault(conversation_id, _Batch())
                    if newer.replace:
                        batches[conversation_id] = newer
                    else:
                        batch.add(newer.messages.values())
                self._messages = batches

    def _write_conversations(self, conversations: Sequence[Conversation]) -> None:
        db, account = self._db, self.account
        query = "SELECT place, json FROM conversations WHERE account = ?"
        old = dict(db.execute(query, (account,)))
        new = [msgspec.json.encode(conversation) for conversation in conversations]
        db.execute(
            "DELETE FROM conversations WHERE account = ? AND place >= ?", (account, len(new))
        )
        # There may be thousands, of which a message changes one.
        db.executemany(
            "REPLACE INTO conversations (account, place, json) VALUES (?, ?, ?)",
            ((account, place, raw) for place, raw in enumerate(new) if old.get(place) != raw),
        )

    def _write_messages(self, conversation_id: str, batch: _Batch) -> None:
        db, whose = self._db, (self.account, conversation_id)
        if batch.replace:
            db.execute("DELETE FROM messages WHERE account = ? AND conversation_id = ?", whose)
        query = (
            "SELECT id, json FROM messages WHERE account = ? AND conversation_id = ? ORDER BY place"
        )
        rows = db.execute(query, whose).fetchall()
        known = {id_ for id_, _ in rows}
        first = msgspec.json.decode(rows[0][1], type=Message) if rows else None
        db.executemany(
            "INSERT INTO messages (account, conversation_id, id, json) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (account, conversation_id, id) DO UPDATE SET json = excluded.json",
            (
                (*whose, id_, msgspec.json.encode(message))
                for id_, message in batch.messages.items()
                if first is None or id_ in known or not _is_older(message, first)
            ),
        )
        db.execute(
            "DELETE FROM messages WHERE account = ? AND conversation_id = ? AND place <="
            " (SELECT place FROM messages WHERE account = ? AND conversation_id = ?"
            " ORDER BY place DESC LIMIT 1 OFFSET ?)",
            (*whose, *whose, KEPT_MESSAGES),
        )


class _Batch:
    """Messages of one conversation that wait to be written, by their ids as text."""

    __slots__ = ("messages", "replace")

    def __init__(self) -> None:
        self.messages: dict[str, Message] = {}
        self.replace = False

    def add(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.messages[str(message.id)] = message
        # While the disk fails they gather. At most half of these can be kept ones as they are
        # now, so the other half is newer than any that goes, and would have pushed it out.
        for id_ in list(self.messages)[: -2 * KEPT_MESSAGES]:
            del self.messages[id_]


_opening: Final = threading.Lock()


def _create(path: Path) -> None:
    """Make the file readable by its owner alone from its first moment, unless it is there."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise _unusable(path, "it is no file") from None
        # SQLite would open it all the same, and leave side files that nobody may write to.
        for name in (path, path.parent):
            if not os.access(name, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                raise _unusable(path, f"you may not write to {name}") from None


def _close_to_others(path: Path) -> None:
    """Take others' rights away, where somebody has given them; SQLite's side files follow."""
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_IMODE(name.stat().st_mode) & 0o077:
                try:
                    name.chmod(0o600)
                except PermissionError:
                    raise _unusable(path, "others may read it, and it is not yours") from None


def _is_older(message: Message, first: Message) -> bool:
    """Whether a message stands before another: by their numbers, else by the backend's time."""
    ids = str(message.id), str(first.id)
    if all(id_.isascii() and id_.isdecimal() and len(id_) < 40 for id_ in ids):
        return int(ids[0]) < int(ids[1])
    if message.sent_at is None or first.sent_at is None:
        return False
    return message.sent_at < first.sent_at


def _unusable(path: Path, why: str) -> SettingsError:
    return SettingsError(f"The chat cannot be kept in {path}: {why}. Choose another file.")


async def _finished(work: Future[T]) -> T:
    """Wait for the thread; what it has begun is finished even if nobody waits any longer."""
    return await asyncio.shield(asyncio.wrap_future(work))

"""The tables, and how their rows become what the backend shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    select,
)

from antiphon.backend.models import Message, User

__all__ = [
    "SELECT_MESSAGE",
    "SELECT_USER",
    "conversations",
    "members",
    "messages",
    "schema",
    "to_message",
    "to_user",
    "tokens",
    "users",
]

AnyRow: TypeAlias = "Row[*tuple[Any, ...]]"


class Moment(TypeDecorator[datetime]):
    """A time in UTC, in whole seconds."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC).replace(microsecond=0)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.replace(tzinfo=UTC)  # SQLite keeps no zone


# SQLite numbers only a column that is called INTEGER; its integers have 64 bits all the same.
Id: Final = BigInteger().with_variant(Integer, "sqlite")
schema: Final = MetaData()

users: Final = Table(
    "users",
    schema,
    Column("id", Id, primary_key=True),
    Column("first_name", Text, nullable=False),
    Column("last_name", Text, nullable=False),
    Column("email", Text, nullable=False),
    # Case is folded here and not in SQL, where SQLite knows ASCII only.
    Column("email_key", Text, nullable=False, unique=True),
    Column("search_text", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    sqlite_autoincrement=True,
)
tokens: Final = Table(
    "tokens",
    schema,
    Column("hash", Text, primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("expires_at", Moment, nullable=False, index=True),
    Column("created_at", Moment, nullable=False),
)
conversations: Final = Table(
    "conversations",
    schema,
    Column("id", Id, primary_key=True),
    Column("title", Text),
    # "3:7" for the one conversation of users 3 and 7, NULL where there are more members.
    Column("pair", Text, unique=True),
    Column("created_at", Moment, nullable=False),
    sqlite_autoincrement=True,
)
members: Final = Table(
    "members",
    schema,
    Column("conversation_id", ForeignKey("conversations.id"), primary_key=True),
    Column("user_id", ForeignKey("users.id"), primary_key=True, index=True),
    Column("last_read", Id, nullable=False, server_default="0"),
)
messages: Final = Table(
    "messages",
    schema,
    Column("id", Id, primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id"), nullable=False),
    Column("sender_id", ForeignKey("users.id"), nullable=False),
    Column("content", Text, nullable=False),
    Column("temp_id", Text),
    Column("sent_at", Moment, nullable=False),
    UniqueConstraint("sender_id", "temp_id"),
    Index("messages_in_order", "conversation_id", "id"),
    sqlite_autoincrement=True,
)

SELECT_USER: Final = select(users.c.id, users.c.first_name, users.c.last_name, users.c.email)

_READ_BY_ANOTHER: Final = (
    select(members.c.user_id)
    .where(
        members.c.conversation_id == messages.c.conversation_id,
        members.c.user_id != messages.c.sender_id,
        members.c.last_read >= messages.c.id,
    )
    .correlate(messages)
    .exists()
)
SELECT_MESSAGE: Final = select(
    messages.c.id,
    messages.c.conversation_id,
    messages.c.sender_id,
    messages.c.content,
    messages.c.temp_id,
    messages.c.sent_at,
    users.c.first_name,
    users.c.last_name,
    _READ_BY_ANOTHER.label("read"),
).join_from(messages, users)


def to_user(row: AnyRow) -> User:
    """The user in a row of `SELECT_USER`."""
    return User(id=row.id, first_name=row.first_name, last_name=row.last_name, email=row.email)


def to_message(row: AnyRow, *, viewer_id: int | None = None) -> Message:
    """The message in a row of `SELECT_MESSAGE`; its sender sees what they called it."""
    return Message(
        id=str(row.id),
        chat_id=str(row.conversation_id),
        sender_id=str(row.sender_id),
        sender_name=f"{row.first_name} {row.last_name}".strip(),
        content=row.content,
        sent_at=row.sent_at,
        status="read" if row.read else "sent",
        temp_id=row.temp_id if row.sender_id == viewer_id else None,
    )

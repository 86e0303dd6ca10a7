"""Users and the hashes of their passwords and tokens."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert
from sqlalchemy.exc import IntegrityError

from antiphon.backend.models import User

from .tables import SELECT_USER, to_user, tokens, users

if TYPE_CHECKING:
    from .database import Database

__all__ = ["Users"]


class Users:
    """The people the backend knows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, *, first_name: str, last_name: str, email: str, password_hash: str
    ) -> User | None:
        """A new user, or None if the e-mail address (in any case) belongs to someone."""
        row = {"first_name": first_name, "last_name": last_name, "email": email}
        search_text = f"{first_name} {last_name} {email}".casefold()
        keys = {"email_key": email.casefold(), "search_text": search_text}
        query = insert(users).values(**row, **keys, password_hash=password_hash)
        try:
            async with self._database.writing() as db:
                user_id = (await db.execute(query.returning(users.c.id))).scalar_one()
        except IntegrityError:
            return None
        return User(id=user_id, **row)

    async def with_email(self, email: str) -> tuple[User, str] | None:
        """The user with this e-mail address, in any case, and the hash of their password."""
        query = SELECT_USER.add_columns(users.c.password_hash)
        async with self._database.reading() as db:
            found = await db.execute(query.where(users.c.email_key == email.casefold()))
            row = found.one_or_none()
        return row and (to_user(row), row.password_hash)

    async def search(self, text: str, *, but: int, limit: int) -> list[User]:
        """Users other than `but` in whose name or e-mail address the text occurs."""
        found = users.c.search_text.contains(text.casefold(), autoescape=True)
        query = SELECT_USER.where(users.c.id != but, found).limit(limit)
        by_name = query.order_by(users.c.first_name, users.c.last_name, users.c.id)
        async with self._database.reading() as db:
            return [to_user(row) for row in await db.execute(by_name)]

    async def add_token(
        self, token_hash: str, user_id: int, *, now: datetime, expires_at: datetime
    ) -> None:
        """Keep a token's hash, and forget those that have expired."""
        row = {"hash": token_hash, "user_id": user_id, "created_at": now, "expires_at": expires_at}
        async with self._database.writing() as db:
            await db.execute(delete(tokens).where(tokens.c.expires_at <= now))
            await db.execute(insert(tokens).values(**row))

    async def with_token(self, token_hash: str, *, now: datetime) -> User | None:
        """Whose token it is, unless it has expired."""
        query = SELECT_USER.join(tokens)
        valid = (tokens.c.hash == token_hash) & (tokens.c.expires_at > now)
        async with self._database.reading() as db:
            row = (await db.execute(query.where(valid))).one_or_none()
        return row and to_user(row)

    async def delete_token(self, token_hash: str) -> None:
        """Forget a token."""
        async with self._database.writing() as db:
            await db.execute(delete(tokens).where(tokens.c.hash == token_hash))

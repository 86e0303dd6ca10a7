"""Where users, tokens, conversations and messages are kept.

This folder alone names the database library: SQLite by default, PostgreSQL when the URL says so.
Each method is one transaction and keeps its promise when requests race.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from .conversations import Conversations
from .database import Database
from .users import Users

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Conversations", "Store", "Users"]


class Store:
    """The backend's database. Use it as an async context manager, or call `open` and `close`.

    Attributes:
        users: Users and their tokens.
        conversations: Conversations and their messages.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`.

    Raises:
        SettingsError: The URL names no database the store can use.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self.users = Users(self._database)
        self.conversations = Conversations(self._database)

    async def open(self) -> None:
        """Connect, and create the tables that are missing.

        Raises:
            SettingsError: The database cannot be used.
        """
        await self._database.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()

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

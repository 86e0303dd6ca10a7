"""Passwords, tokens and the guard against guessing them.

What is at rest proves and never reveals: argon2 hashes of passwords, SHA-256 of random tokens.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import math
import secrets
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from .models import User

if TYPE_CHECKING:
    from .store import Store

__all__ = ["Accounts", "Guesses", "Session", "hash_password"]

_hasher: Final = PasswordHasher()


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What a log-in gives: the only place where a token stands in the clear."""

    token: str
    expires_at: datetime
    user: User

    def __repr__(self) -> str:
        """All but the token."""
        return f"Session(user={self.user!r}, expires_at={self.expires_at!r})"


class Accounts:
    """Who is calling, by password or by token.

    Args:
        store: Where users and tokens are kept.
        token_lifetime: How long a token is good for.
    """

    def __init__(self, store: Store, token_lifetime: timedelta) -> None:
        self._users = store.users
        self._lifetime = token_lifetime
        self._hashing = asyncio.Semaphore(2)  # each takes 64 MiB and a core
        self._nobodys_hash = _nobodys_hash()

    async def log_in(self, email: str, password: str) -> Session | None:
        """A new session, or None if the password is not this user's."""
        found = await self._users.with_email(email)
        # Somebody unknown costs the same, so that the time does not tell who has an account.
        user, password_hash = found or (None, self._nobodys_hash)
        async with self._hashing:
            right = await asyncio.to_thread(_verify, password_hash, password)
        if user is None or not right:
            return None
        now = datetime.now(UTC).replace(microsecond=0)
        session = Session(
            token=secrets.token_urlsafe(32), expires_at=now + self._lifetime, user=user
        )
        await self._users.add_token(
            _token_hash(session.token), user.id, now=now, expires_at=session.expires_at
        )
        return session

    async def user_of(self, token: str) -> User | None:
        """Whose token it is, if it is one and has not expired."""
        return await self._users.with_token(_token_hash(token), now=datetime.now(UTC))

    async def log_out(self, token: str) -> None:
        """Make a token worthless."""
        await self._users.delete_token(_token_hash(token))


class Guesses:
    """How often a password has been tried of late; kept in memory, for so many addresses.

    Args:
        limit: Failures one address may have within the window.
        window: Seconds after which a failure is forgotten.
        addresses: Addresses remembered at once; beyond them the one tried longest ago is forgotten.
        clock: Gives seconds that only grow.
    """

    def __init__(
        self,
        *,
        limit: int = 10,
        window: float = 60.0,
        addresses: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._window = window
        self._addresses = addresses
        self._clock = clock
        self._tries: dict[str, deque[float]] = {}

    def attempt(self, email: str) -> int:
        """Count a try before it is made, so that tries at once count too.

        Returns:
            0 if it may be made, or else the seconds to wait.
        """
        key, now = email.casefold(), self._clock()
        tries = self._tries.pop(key, None) or deque(maxlen=self._limit)
        self._tries[key] = tries  # last in order
        if len(self._tries) > self._addresses:
            del self._tries[next(iter(self._tries))]
        if len(tries) == self._limit and tries[0] + self._window > now:
            return math.ceil(tries[0] + self._window - now)
        tries.append(now)
        return 0

    def succeeded(self, email: str) -> None:
        """Forget an address: its owner was there."""
        self._tries.pop(email.casefold(), None)


async def hash_password(password: str) -> str:
    """The argon2 hash to keep for a password; made in a thread, it takes a tenth of a second."""
    return await asyncio.to_thread(_hasher.hash, password)


@functools.cache
def _nobodys_hash() -> str:
    return _hasher.hash(secrets.token_urlsafe())


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()

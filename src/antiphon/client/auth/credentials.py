"""The headers with which an auth endpoint is asked, and the one refresh all requests share."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = [
    "Credentials",
    "HeadersSource",
    "NothingToSend",
    "Refresh",
    "TokenSource",
]

TokenSource = str | Callable[[], str | Awaitable[str | None] | None]
"""A bearer token, or a function (plain or asynchronous) that is asked for it at every request.

A function without a token to give, such as before a log-in, gives None: then none is sent.
"""

HeadersSource = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Header fields, or a function (plain or asynchronous) that is asked for them at every request."""

Refresh = Callable[[], str | Awaitable[str | None] | None]
"""Renews the token; gives the new one, or None when the token's own function now gives it."""

log = logging.getLogger("antiphon.auth")


class NothingToSend(Exception):
    """The headers of a request could not be had; the text says why, without their values."""


class Credentials:
    """A token that can be renewed, and the headers that carry it.

    Args:
        token: Bearer token, or a function that gives it.
        refresh: Renews it.
        headers: Further headers, or a function that gives them.

    Attributes:
        renewals: How many renewals have ended, whichever way.
        changed: Whether the last one gave another token than the refused one.
        failure: What the last one failed with; None if it did not.
        status: With what the last one's token had been refused: 401 or 419.
    """

    def __init__(
        self,
        token: TokenSource | None,
        refresh: Refresh | None,
        headers: HeadersSource | None,
    ) -> None:
        self.renewals = 0
        self.changed = False
        self.failure: BaseException | None = None
        self.status = 401
        self._token = token
        self._refresh = refresh
        self._headers = headers or {}
        # The refresh under way: nobody's but ours, so that no asker's end is its end.
        self._renewing: asyncio.Task[None] | None = None

    @property
    def can_be_renewed(self) -> bool:
        """Whether a refused token may be followed by another one."""
        return self._refresh is not None or callable(self._token)

    @property
    def is_being_renewed(self) -> bool:
        """Whether a refresh is under way, so that the present token is known to be no good."""
        return self._renewing is not None

    async def headers(self) -> tuple[dict[str, str], str | None]:
        """The header fields of one request, names in lower case, and the token in them.

        Raises:
            NothingToSend: A function failed, or gave what no header can carry.
        """
        given = await _given(self._headers, "the headers function")
        if not isinstance(given, Mapping):
            raise NothingToSend(f"the headers are no mapping but {type(given).__name__}")
        fields = {}
        for name, value in given.items():
            _check("a header's name", name)
            _check(f"the header {name}", value)
            fields[name.lower()] = value
        token = await self._bearer()
        if token is not None:
            _check("the token", token)
            fields["authorization"] = f"Bearer {token}"
        return fields, token

    def renew(self, token: str | None, renewals: int, status: int) -> None:
        """Begin to renew a refused token, unless that has happened or is under way.

        Args:
            token: What was sent.
            renewals: How many renewals had ended then.
            status: With what it was refused.
        """
        if self._renewing is None and renewals == self.renewals:
            self.status = status
            self._renewing = asyncio.create_task(self._renew(token), name="antiphon-token-refresh")

    async def settled(self) -> None:
        """Wait until no refresh is under way."""
        while self._renewing is not None:
            await asyncio.wait([self._renewing])

    async def close(self) -> None:
        """End a refresh that is under way."""
        renewing, self._renewing = self._renewing, None
        if renewing is not None and renewing is not asyncio.current_task():
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _renew(self, refused: str | None) -> None:
        log.info("the token was refused with %d: renewing it", self.status)
        try:
            self.changed, self.failure = await self._renewed(refused), None
        except NothingToSend as exc:
            self.changed, self.failure = False, exc.__cause__ or exc
            log.warning("the token is not renewed: %s", exc)
        else:
            log.info("the token is %s", "renewed" if self.changed else "still the same")
        self.renewals += 1
        self._renewing = None

    async def _renewed(self, refused: str | None) -> bool:
        if self._refresh is None:
            return await self._bearer() != refused
        token = await _given(self._refresh, "the refresh")
        if token is not None:
            self._token = token
        return True

    async def _bearer(self) -> str | None:
        token: str | None = await _given(self._token, "the token function")
        return token


async def _given(source: Any, what: str) -> Any:
    """What a source is, or what its function gives.

    Raises:
        NothingToSend: The function raised. Its own text may hold a secret: its type must do.
    """
    if not callable(source):
        return source
    try:
        value = source()
        return await value if inspect.isawaitable(value) else value
    except (Exception, asyncio.CancelledError) as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise NothingToSend(f"{what} failed with {type(exc).__name__}") from exc


def _check(what: str, value: object) -> None:
    if not isinstance(value, str):
        raise NothingToSend(f"{what} is no text but {type(value).__name__}")
    if not value.isprintable():
        raise NothingToSend(f"{what} holds characters that no header can carry")

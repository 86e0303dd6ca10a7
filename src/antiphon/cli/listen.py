"""`antiphon listen`: log in, connect, subscribe, print."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from antiphon.chat import RestClient
from antiphon.client import Client, Observation, StateChange, Subscribed
from antiphon.errors import SettingsError, SubscriptionFailed
from antiphon.protocol.channels import needs_authorization
from antiphon.protocol.frames import Event
from antiphon.settings import Settings

from .output import Printer

__all__ = ["Credentials", "listen"]

T = TypeVar("T")


class Credentials:
    """How to become a user of the chat backend: by e-mail and password, or with a token."""

    def __init__(self, *, email: str = "", password: str = "", token: str = "") -> None:
        self.email = email
        self.password = password
        self.token = token


async def listen(
    settings: Settings,
    credentials: Credentials,
    printer: Printer,
    *,
    channels: Sequence[str] = (),
    max_attempts: int | None = None,
    max_events: int | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Print what arrives, until enough has, or until told to stop.

    Args:
        settings: Where the server is, and the chat backend if there is one.
        credentials: Who listens.
        printer: Where to.
        channels: What to subscribe to; the user's own channel by default.
        max_attempts: Attempts to connect in a row; None for no end.
        max_events: Events after which to end; None for no end.
        stop: Ends it when set.

    Raises:
        SettingsError: Neither a channel nor a user is given, or nothing to sign with.
        InvalidName: No channel can have this name.
        LoginFailed: The backend does not know this user.
        ApiError: The backend could not be asked.
        ConnectionFailed: Given up.
        SubscriptionFailed: Every channel was refused.
    """
    stop = stop or asyncio.Event()
    login = await _unless(stop, _become(settings, credentials, printer))
    if login is None:
        return
    token, own = login
    names = list(channels) or own
    if not names:
        raise SettingsError(
            "Nothing to listen to: give --channel, or --api with --email or --token."
        )
    unsigned = [name for name in names if needs_authorization(name) and not settings.auth_url]
    if unsigned:
        raise SettingsError(f"{unsigned[0]} needs a signature: give --api or --auth-url.")
    client = Client(settings, token=token or None, max_attempts=max_attempts)
    listener = _Listener(client, printer, max_events, stop)
    try:
        for name in dict.fromkeys(names):
            client.subscribe(name)
        with contextlib.suppress(asyncio.CancelledError):
            await listener.run()
    finally:
        await client.close()


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What some work gives; None if it was told to stop before."""
    stopped, working = asyncio.create_task(stop.wait()), asyncio.create_task(work)
    try:
        await asyncio.wait([stopped, working], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        stopped.cancel()
        working.cancel()
        await asyncio.wait([stopped, working])


async def _become(
    settings: Settings, credentials: Credentials, printer: Printer
) -> tuple[str, list[str]]:
    """Log in, if there is a user: the token, and the user's own channel."""
    if credentials.email and not settings.api_url:
        raise SettingsError("To log in there must be a backend: give --api, or set APP_URL.")
    if not settings.api_url or not (credentials.email or credentials.token):
        return credentials.token, []
    async with RestClient(settings.api_url, token=credentials.token) as api:
        if credentials.token:
            user = await api.me()
        else:
            user = (await api.login(credentials.email, credentials.password)).user
        printer.logged_in()
        return api.token, [user.channel]


class _Listener:
    """Counts, and knows when to end."""

    def __init__(
        self, client: Client, printer: Printer, max_events: int | None, stop: asyncio.Event
    ) -> None:
        self._client = client
        self._printer = printer
        self._left = max_events
        self._stop = stop
        self._refused: dict[str, SubscriptionFailed] = {}
        client.observe(self._observe)

    async def run(self) -> None:
        """Listen until the end."""
        stopped = asyncio.create_task(self._stop.wait())
        connected = asyncio.create_task(self._stay())
        try:
            await asyncio.wait([stopped, connected], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not connected.cancel():
                connected.result()
        if len(self._refused) == len(self._client.channels):
            raise next(iter(self._refused.values()))

    async def _stay(self) -> None:
        await self._client.connect()
        await self._client.wait_closed()

    def _observe(self, observation: Observation) -> None:
        if isinstance(observation, Event) and self._left == 0:
            return  # as many as asked for were printed
        try:
            self._printer.observe(observation, self._client.socket_id)
        except BrokenPipeError:
            # Whoever read has gone, such as `head`; what is still buffered goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._stop.set()
        match observation:
            case StateChange():
                self._refused.clear()  # each connection asks anew
            case Subscribed(channel=name):
                self._refused.pop(name, None)
            case SubscriptionFailed():
                self._refused[observation.channel] = observation
                if len(self._refused) == len(self._client.channels):
                    self._stop.set()
            case Event(name=name) if not name.startswith("pusher:"):
                self._count()

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._stop.set()

"""The chat app as a web server: started and stopped by whoever owns it, in the running loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from antiphon.chat.dialect import Dialect
from antiphon.chat.rest import Login
from antiphon.errors import SettingsError
from antiphon.settings import Settings

from .door import Door
from .notify import FAVICON
from .pages import register_pages
from .seats import Seats

__all__ = ["ChatApp", "Served"]

RECONNECT_TIMEOUT: Final = 30.0
"""Seconds a page is kept whose browser does not answer; then it reloads itself."""
_STARTUP_POLL: Final = 0.002
_BACKLOG: Final = 128
_GRACE: Final = 2
_MAX_FRAME: Final = 256 * 1024
"""Bytes a browser may send at once; a message of the greatest length takes a fifth of it."""


class Served:
    """A chat app that is up.

    Attributes:
        url: Its address, without a trailing slash.
    """

    def __init__(self, url: str) -> None:
        self.url = url


class ChatApp:
    """The chat in the browser, for one person on this machine or for many.

    Nothing it shows comes from anywhere else, and the browser is told to ask nobody else.
    Everybody's token stays in this process: neither a page nor an address holds it.

    Args:
        settings: The server and, as its `api_url`, the backend; neither id nor secret is needed.
            Without it the log-in screen asks: whoever reaches the app may then have it connect
            to any address, so give it wherever others can reach it.
        dialect: How the backend spells the chat.
        data_folder: Where unsent messages and the last of each conversation are kept; it is made
            if it is missing. Without it they live as long as the app.
        guests: Log-ins that whoever asks gets, as `?as=NAME`: for a demonstration only.
        title: The app's name.
        max_attempts: After how many attempts a session gives up connecting, until it is told to
            try again; None for never.
    """

    def __init__(
        self,
        settings: Settings | None,
        *,
        dialect: Dialect | None = None,
        data_folder: Path | None = None,
        guests: Mapping[str, Login] | None = None,
        title: str = "antiphon",
        max_attempts: int | None = 5,
    ) -> None:
        self.settings = settings
        self.dialect = dialect or Dialect()
        self.data_folder = data_folder
        self.guests = guests or {}
        self.title = title
        self.max_attempts = max_attempts

    @contextlib.asynccontextmanager
    async def serve(
        self, host: str = "127.0.0.1", port: int = 0, *, public_url: str = ""
    ) -> AsyncIterator[Served]:
        """Serve it for as long as the context lasts.

        Args:
            host: Address to listen on.
            port: TCP port; 0 takes a free one.
            public_url: Where people reach it when a web server stands in front, such as
                `https://chat.example.com`. Without it, an app on a loopback address answers only
                to this machine's own names.

        Raises:
            SettingsError: An address cannot be used, the data folder cannot be made, or this
                process serves a chat app already: NiceGUI has one set of pages per process.
        """
        global _served
        if _served is not None:
            raise SettingsError(
                "This process serves a chat app already; NiceGUI has one set of pages per process."
            )
        _make_folder(self.data_folder)
        listener = _listen(host, port)
        address, port, *_ = listener.getsockname()
        seats = Seats(
            self.settings,
            dialect=self.dialect,
            data_folder=self.data_folder,
            guests=self.guests,
            max_attempts=self.max_attempts,
        )
        _served = self
        try:
            register_pages(seats, title=self.title)
            door = Door(_nicegui(), address=address, port=port, public_url=public_url)
            async with _Uvicorn(door).on(listener):
                shown = f"[{host}]" if ":" in host else host
                yield Served(f"http://{shown}:{port}")
        finally:
            listener.close()
            await seats.close()
            _served = None


_served: ChatApp | None = None
_fastapi: FastAPI | None = None


def _nicegui() -> FastAPI:
    """NiceGUI's application; it is made once, since it cannot be set up twice in a process."""
    global _fastapi
    if _fastapi is None:
        _fastapi = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        ui.run_with(
            _fastapi,
            favicon=FAVICON,
            dark=None,
            language="en-US",
            reconnect_timeout=RECONNECT_TIMEOUT,
            message_history_length=500,
            tailwind=False,
            show_welcome_message=False,
            binding_refresh_interval=None,
        )
    return _fastapi


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: its owner ends it."""

    def __init__(self, app: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                ws="wsproto",
                ws_per_message_deflate=False,
                ws_max_size=_MAX_FRAME,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=_GRACE,
            )
        )

    @contextlib.asynccontextmanager
    async def on(self, listener: socket.socket) -> AsyncIterator[None]:
        serving = asyncio.create_task(self.serve([listener]), name="antiphon app")
        try:
            while not self.started:
                if serving.done():
                    raise SettingsError("The app did not start; its log says why.")
                await asyncio.sleep(_STARTUP_POLL)
            yield
        finally:
            self.should_exit = True
            await serving

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:  # the application's own start has failed, and uvicorn has logged why
            self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise SettingsError(f"The port lies between 0 and 65535, {port} does not.")
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
    except OSError as exc:
        raise _cannot_listen(host, port, exc) from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        raise _cannot_listen(host, port, exc) from exc
    return listener


def _cannot_listen(host: str, port: int, exc: OSError) -> SettingsError:
    where = f"Cannot listen on {host}:{port}"
    if exc.errno == errno.EADDRINUSE:
        return SettingsError(f"{where}: another program listens there already; give another port.")
    return SettingsError(f"{where}: {exc.strerror or exc}.")


def _make_folder(folder: Path | None) -> None:
    try:
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise SettingsError(f"The data folder {folder} cannot be made: {exc.strerror}.") from exc

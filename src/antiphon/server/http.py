"""uvicorn in this process: one port, started and stopped by whoever owns it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from antiphon.errors import SettingsError

__all__ = ["HttpServer"]

REQUEST_TIMEOUT: Final = 10.0
MAX_HEAD: Final = 16 * 1024
_STARTUP_POLL: Final = 0.002
_BACKLOG: Final = 2048
_GRACE: Final = 5


class HttpServer:
    """Serves one ASGI application on one port.

    Args:
        app: The application; its lifespan is the server's.
        host: Address to listen on.
        port: TCP port; 0 takes a free one, which `port` then tells.
        websocket: What uvicorn makes of each upgrade request; without it there are none.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        port: int = 0,
        websocket: Callable[..., asyncio.BaseProtocol] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._config = uvicorn.Config(
            app,
            http=_Http,
            ws=websocket or "none",  # type: ignore[arg-type]  # any callable serves
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=_GRACE,
        )
        self._uvicorn: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The address, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Listen; returns when connections are accepted.

        Raises:
            SettingsError: The address cannot be listened on, or the application did not start.
        """
        listener = self._listen()
        self._uvicorn = _Uvicorn(self._config)
        self._serving = asyncio.create_task(self._uvicorn.serve([listener]), name="antiphon http")
        try:
            while not self._uvicorn.started:
                if self._serving.done():
                    raise SettingsError("The application did not start; its log says why.")
                await asyncio.sleep(_STARTUP_POLL)
        except BaseException:
            await self.stop()
            listener.close()
            raise

    def stop_accepting(self) -> None:
        """Take no further connections; those that are there go on."""
        for server in self._uvicorn.servers if self._uvicorn is not None else ():
            server.close()

    async def stop(self) -> None:
        """Finish the requests under way and end."""
        if self._uvicorn is not None and self._serving is not None:
            self._uvicorn.end()
            await self._serving
            self._uvicorn = self._serving = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _listen(self) -> socket.socket:
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"The port lies between 0 and 65535, {self.port} does not.")
        try:
            (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            # With its protocol named, asyncio turns Nagle's delay off on what it accepts.
            listener = socket.socket(family, kind, protocol or socket.IPPROTO_TCP)
        except OSError as exc:
            raise self._cannot_listen(exc) from exc
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as exc:
            listener.close()
            raise self._cannot_listen(exc) from exc
        self.port = listener.getsockname()[1]
        return listener

    def _cannot_listen(self, exc: OSError) -> SettingsError:
        where = f"Cannot listen on {self.host}:{self.port}"
        if exc.errno == errno.EADDRINUSE:
            return SettingsError(f"{where}: another program listens there already.")
        return SettingsError(f"{where}: {exc.strerror or exc}.")


class _Http(HttpToolsProtocol):
    """uvicorn's HTTP, with a limit to what a stranger may send, and how slowly.

    A request has 10 seconds from its first byte to its last, and 16 KiB for its head.
    """

    _deadline: asyncio.TimerHandle | None = None
    _head: int | None = 0
    _tail = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        if self._head is not None and self._grows_too_large(data):
            self.send_400_response("The request's head is too large.")
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin()

    def on_headers_complete(self) -> None:
        self._head = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head, self._tail = 0, b""
        self._end()

    def handle_websocket_upgrade(self) -> None:
        self._end()
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def _grows_too_large(self, data: bytes) -> bool:
        """Count the head's bytes; one read may bring its end and the whole of a large body."""
        seen = self._tail + data
        end = seen.find(b"\r\n\r\n")
        self._head = (self._head or 0) + (len(data) if end < 0 else max(0, end - len(self._tail)))
        self._tail = seen[-3:]
        return self._head > MAX_HEAD

    def _begin(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_TIMEOUT, self.transport.close)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers, and without its exit: its owner decides.

    It ends when it is told to; uvicorn itself looks every 0.1 s, and waits as long once more.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Finish what is under way, and return from `serve`."""
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # the Date header, once a second
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110
                    await asyncio.sleep(_STARTUP_POLL)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:  # the application's own start has failed, and uvicorn has logged why
            self.should_exit = True

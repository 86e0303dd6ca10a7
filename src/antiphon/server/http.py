"""uvicorn in this process: one port, started and stopped by whoever owns it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from antiphon.errors import SettingsError

from .listener import Listener, listen, listen_unix

__all__ = ["HttpServer"]

REQUEST_TIMEOUT: Final = 10.0
MAX_HEAD: Final = 16 * 1024
_STARTUP_POLL: Final = 0.002
_GRACE: Final = 5


class HttpServer:
    """Serves one ASGI application on one port.

    Args:
        app: The application; its lifespan is the server's.
        host: Address to listen on; `::` for IPv6 and IPv4.
        port: TCP port; 0 takes a free one, which `port` then tells.
        unix: Path of a Unix socket to listen on, instead of host and port.
        listening: A socket that listens already, instead of all these; it stays open.
        tls: The server's side of TLS, if it is to be spoken.
        websocket: What uvicorn makes of each upgrade request; without it there are none.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unix: str = "",
        listening: socket.socket | None = None,
        tls: ssl.SSLContext | None = None,
        websocket: Callable[..., asyncio.BaseProtocol] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._unix = unix
        self._listening = listening
        self._tls = tls
        self._config = uvicorn.Config(
            app,
            http=_Http,
            ws=websocket or "none",  # type: ignore[arg-type]  # any callable serves
            log_config=None,
            log_level="error",  # what strangers send is not worth a line each
            access_log=False,
            server_header=False,
            # Only whether a proxy of this machine was spoken to over TLS is taken from its words.
            forwarded_allow_ips=["127.0.0.1", "::1", "::ffff:127.0.0.1"],
            lifespan="on",
            timeout_graceful_shutdown=_GRACE,
        )
        self._uvicorn: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The address, without a trailing slash."""
        if self._unix:
            return f"unix:{self._unix}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self.port}"

    async def start(self) -> None:
        """Listen; returns when connections are accepted.

        Raises:
            SettingsError: The address cannot be listened on, or the application did not start.
        """
        if self._listening is not None:
            listening = self._listening.dup()
            listening.setblocking(False)
        elif self._unix:
            listening = listen_unix(self._unix)
        else:
            listening = listen(self.host, self.port)
        if not self._unix:
            self.port = listening.getsockname()[1]
        listener = Listener(listening, self._tls, "" if self._listening else self._unix)
        self._uvicorn = _Uvicorn(self._config, listener)
        self._serving = asyncio.create_task(self._uvicorn.serve(), name="antiphon http")
        try:
            while not self._uvicorn.started:
                if self._serving.done():
                    raise SettingsError("The application did not start; its log says why.")
                await asyncio.sleep(_STARTUP_POLL)
        except BaseException:
            await self.stop()
            listener.close()
            raise

    def exchange_tls(self, tls: ssl.SSLContext) -> None:
        """Speak TLS with another certificate to who connects from now on."""
        self._tls = tls
        if self._uvicorn is not None:
            self._uvicorn.listener.tls = tls

    def stop_accepting(self) -> None:
        """Take no further connections; those that are there go on."""
        if self._uvicorn is not None:
            self._uvicorn.listener.close()

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
        if self.parser.get_http_version() != "1.1":  # RFC 6455, 4.1
            self.send_400_response("A WebSocket begins with HTTP/1.1.")
            return
        super().handle_websocket_upgrade()
        # They refer to each other: without this both wait for the garbage collector, and a server
        # that grows quickly is a sixth larger.
        self.parser = None  # type: ignore[assignment]

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

    def __init__(self, config: uvicorn.Config, listener: Listener) -> None:
        super().__init__(config)
        self.listener = listener
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
        self.listener.close()
        await self.listener.finish()
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
        await self.lifespan.startup()
        if self.lifespan.should_exit:  # the application's own start has failed: its log says why
            self.should_exit = True
            return
        self.listener.start(self._connection)
        self.started = True

    def _connection(self) -> asyncio.BaseProtocol:
        return _Http(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

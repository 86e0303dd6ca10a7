"""A real server for tests, in a thread of its own.

The thread is why one server serves every kind of test: plain ones, asynchronous ones under
pytest-asyncio, anyio or trio, and ones that block their event loop. It costs next to nothing:
14 ms from nothing to ready with it and 13 ms without, most of which is Litestar reading its
routes. The end is what takes time (uvicorn looks every 0.1 s whether it should end), so `stop`
leaves it to the thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from antiphon.errors import SettingsError
from antiphon.protocol.presence import Member
from antiphon.publisher import Publisher
from antiphon.server import Server
from antiphon.server.hub import Hub
from antiphon.server.session import Session
from antiphon.settings import App, Settings

__all__ = ["PusherServer", "wait_for_ends"]

T = TypeVar("T")

TIMEOUT: Final = 10.0
_POLL: Final = 0.002


class PusherServer:
    """A real antiphon server on loopback, for one test or several.

    Use it as a context manager, plain or asynchronous, or `start` and `close` it; with pytest
    the fixture `pusher_server` does. No method is a coroutine, and all can be called from plain
    and asynchronous tests: the server runs in a thread of its own, so waiting a moment for it
    holds nothing up that it needs.

    Args:
        app: The application it serves, with its limits.
        port: TCP port; 0 takes a free one.

    Attributes:
        app: The application it serves.
        port: The port; it stays the same from the first `start` on.
    """

    def __init__(self, app: App | None = None, *, port: int = 0) -> None:
        self.app = app or App(id="test", key="test-key", secret="test-secret")  # noqa: S106
        self.port = port
        self._run: _Run | None = None

    def __repr__(self) -> str:
        """Where it is, and whether it runs."""
        state = "running" if self._run is not None else "stopped"
        return f"<PusherServer 127.0.0.1:{self.port} {state}>"

    # Life

    def start(self) -> None:
        """Listen; returns when connections are accepted. One that listens already goes on.

        Raises:
            SettingsError: The port is taken.
        """
        if self._run is None:
            self._run = _Run(self)
            try:
                self.port = self._run.begin()
            except BaseException:
                self._run = None
                raise

    def stop(self) -> None:
        """Send every connection away with 4200, and listen no more, until the next `start`.

        Returns at once, so that clients in the caller's own event loop can answer; who has not
        done so within a second is hung up on.
        """
        run, self._run = self._run, None
        if run is not None:
            run.end()

    def close(self) -> None:
        """Stop, and wait until nothing is left of any connection."""
        self.stop()
        wait_for_ends(self)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The clients of this loop must be able to answer.
        await asyncio.to_thread(self.close)

    # What programs need to use it

    @property
    def settings(self) -> Settings:
        """Everything to connect, to publish and to sign; valid while it is stopped, too.

        Raises:
            SettingsError: It has never been started, and so has no port.
        """
        if not self.port:
            raise SettingsError("The test server has no port yet: start() it first.")
        return Settings(
            app_id=self.app.id,
            app_key=self.app.key,
            app_secret=self.app.secret,
            host="127.0.0.1",
            port=self.port,
            scheme="http",
        )

    @property
    def environ(self) -> dict[str, str]:
        """The same under Laravel's names, for a program in a process of its own."""
        settings = self.settings
        return {
            "REVERB_APP_ID": settings.app_id,
            "REVERB_APP_KEY": settings.app_key,
            "REVERB_APP_SECRET": settings.app_secret,
            "REVERB_HOST": settings.host,
            "REVERB_PORT": str(settings.port),
            "REVERB_SCHEME": settings.scheme,
        }

    def trigger(
        self,
        channels: str | Sequence[str],
        event: str,
        data: Any = None,
        *,
        socket_id: str | None = None,
    ) -> None:
        """Publish an event through the HTTP API, as a backend would.

        Args:
            channels: One channel's name, or up to 100.
            event: The event's name.
            data: Any JSON value; a string is sent as it is.
            socket_id: The connection that must not receive it.

        Raises:
            PublishFailed: The server refused it.
            SettingsError: It is stopped.
        """
        run = self._running()
        run.finish(run.publisher.trigger(channels, event, data, socket_id=socket_id))

    # Looking at it

    @property
    def connections(self) -> list[str]:
        """The `socket_id` of every open connection, oldest first; none while it is stopped."""
        return self._look(lambda hub: list(hub.sockets)) or []

    @property
    def channels(self) -> dict[str, list[str]]:
        """Who is subscribed: `socket_id`s by channel, oldest first; channels without are left out.

        None while it is stopped.
        """
        return self._look(_channels) or {}

    def members(self, channel: str) -> dict[str, Member]:
        """The users in a presence channel, by id; empty where there are none."""

        def members(hub: Hub) -> dict[str, Member]:
            found = hub.channels.get(channel)
            return dict(found.members) if found is not None else {}

        return self._look(members) or {}

    def wait_until(self, condition: Callable[[], object], timeout: float = 5.0) -> None:
        """Wait for something that other programs do: `lambda: "orders" in server.channels`.

        It blocks. In an asynchronous test, whose clients could do nothing meanwhile, say
        `await asyncio.to_thread(server.wait_until, condition)`.

        Args:
            condition: Asked again and again, until what it gives is true.
            timeout: Seconds.

        Raises:
            TimeoutError: It has not come true; the text says who is connected and subscribed.
            RuntimeError: An event loop runs in this thread.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError(
                "wait_until would block this event loop, and every client in it:"
                " await asyncio.to_thread(server.wait_until, condition)."
            )
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"Not within {timeout:g} s; the test server on port {self.port} has"
                    f" {len(self.connections)} connections, and subscribers in"
                    f" {', '.join(self.channels) or 'no channel'}."
                )
            time.sleep(_POLL)

    # Faults

    def disconnect_all(self, code: int | None = 4200, reason: str = "") -> None:
        """Close every connection, and go on listening.

        Args:
            code: The close code: 4000-4099 sends clients away for good, 4100-4199 for a while,
                with 4200-4299 they come back at once. None resets TCP without a word, as a
                broken network does.
            reason: Words for people.

        Raises:
            SettingsError: It is stopped.
        """
        run = self._running()
        if code is None:
            run.finish(run.reset_all())
        else:
            run.finish(run.close_all(code, reason))

    def _running(self) -> _Run:
        if self._run is None:
            raise SettingsError("The test server is stopped: start() it first.")
        return self._run

    def _look(self, look: Callable[[Hub], T]) -> T | None:
        """What a function makes of the hub, in the server's thread; None while it is stopped."""
        return self._run.finish(self._run.look(look)) if self._run is not None else None


def wait_for_ends(server: PusherServer | None = None) -> None:
    """Wait for what `stop` has left to do, of one server or of all."""
    for thread in threading.enumerate():
        if isinstance(thread, _Run) and thread.ends and server in (None, thread.owner):
            thread.join(TIMEOUT)


def _channels(hub: Hub) -> dict[str, list[str]]:
    ids = {session: socket_id for socket_id, session in hub.sockets.items()}
    return {
        name: [ids[session] for session in channel.subscribers if session in ids]
        for name, channel in hub.channels.items()
    }


class _Run(threading.Thread):
    """One run of the server, from start to stop, with an event loop of its own."""

    publisher: Publisher

    def __init__(self, owner: PusherServer) -> None:
        super().__init__(name="antiphon test server", daemon=True)
        self.owner = owner
        self.ends = False
        self._server = Server(owner.app, port=owner.port)
        self._up: Future[None] = Future()
        self._left: Future[None] = Future()

    # In the thread of who asks

    def begin(self) -> int:
        """Start; the port."""
        self.start()
        self._up.result(TIMEOUT)
        return self._server.port

    def end(self) -> None:
        """Stop listening, and part with every client; what takes longer is not waited for."""
        self.ends = True
        self._loop.call_soon_threadsafe(self._down.set)
        self._left.result(TIMEOUT)

    def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives, run beside the server."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT)

    # In its own thread

    def run(self) -> None:
        """Serve until it is told to end."""
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve())
        except BaseException as exc:
            for told in (self._up, self._left):
                if not told.done():
                    told.set_exception(exc)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._down = asyncio.Event()
        await self._server.start()
        async with Publisher(self._server.settings()) as self.publisher:
            self._up.set_result(None)
            await self._down.wait()
        ending = asyncio.create_task(self._server.stop())
        await asyncio.sleep(0)  # by then it listens no more and has told everyone
        self._left.set_result(None)
        await ending

    async def look(self, look: Callable[[Hub], T]) -> T:
        """What a function makes of the hub."""
        return look(self._hub)

    async def close_all(self, code: int, reason: str) -> None:
        """Close every connection with a code."""
        for session in list(self._hub.sockets.values()):
            assert isinstance(session, Session)
            session.close(code, reason)

    async def reset_all(self) -> None:
        """Reset every connection, and wait until the server has noticed."""
        await self._server._websockets.close(0)

    @property
    def _hub(self) -> Hub:
        (hub,) = self._server._hubs.values()
        return hub

"""The client: one socket at a time, the one reconnect loop, and the channels that outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar, copy_context
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from antiphon.errors import (
    AntiphonError,
    ClientClosed,
    ConnectionFailed,
    ConnectionLost,
    HandlerFailed,
    Refused,
    ServerReportedError,
    Unreachable,
    sentence,
)
from antiphon.protocol.backoff import Backoff
from antiphon.protocol.client import ClientProtocol, Received, adapted_activity_timeout
from antiphon.protocol.closing import Action, Code
from antiphon.protocol.events import (
    Closed,
    Connected,
)
from antiphon.protocol.frames import Event

from .authorizer import Authorizer, HttpAuthorizer, TokenSource
from .bindings import Bindings, Handler
from .channel import Channel, bind
from .connection import Connection
from .flow import DEFAULT_LIMIT, Inbox, Policy, Stream, Valve
from .states import ConnectingIn, ConnectionState, Observation, StateChange
from .subscriptions import Subscriptions

if TYPE_CHECKING:
    from antiphon.settings import Settings

__all__ = ["Client"]

T = TypeVar("T")

log = logging.getLogger("antiphon.connection")
log_channel = logging.getLogger("antiphon.channel")

UNAVAILABLE_AFTER = 10.0
_client: ContextVar[Client | None] = ContextVar("antiphon_client", default=None)
_TLS_ONLY = "The application only accepts TLS: set the scheme to https, and the port to match."


class Client:
    """A client of one application on a Pusher-protocol server.

    Use it as an async context manager, or `connect()` and `close()` it. It stays connected by
    itself: after a loss it dials again, and every channel is subscribed again with a fresh
    signature. What it cannot mend it reports to `errors()`, and nothing a handler does stops it.

    Args:
        settings: Where the server is.
        authorizer: Signs private and presence channels. By default the backend is asked at
            `settings.auth_url`, if there is one.
        token: Bearer token for that backend, or a function that gives it.
        activity_timeout: Seconds of silence before the server is pinged; the server's own
            number is used if it is smaller.
        pong_timeout: Seconds to wait for the answer.
        connect_timeout: Seconds for the socket to open, and again for the server's first word.
        max_attempts: Attempts to connect in a row, the first among them, before giving up;
            None for no end.
        min_delay: Seconds between attempts at the least.
        max_delay: Seconds between attempts at the most.
        history: How many of the last events `history` keeps; 0 for none.
        ssl_context: Stands in for the usual one, such as for a certificate of one's own.
        headers: Further headers of the upgrade request.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        authorizer: Authorizer | None = None,
        token: TokenSource | None = None,
        activity_timeout: float = 120.0,
        pong_timeout: float = 30.0,
        connect_timeout: float = 10.0,
        max_attempts: int | None = None,
        min_delay: float = 1.0,
        max_delay: float = 30.0,
        history: int = 100,
        ssl_context: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.state = ConnectionState.INITIALIZED
        self.history: deque[Event] = deque(maxlen=history)
        self.valve = Valve()
        if authorizer is None and settings.auth_url:
            authorizer = HttpAuthorizer(settings.auth_url, token=token)
        self._authorizer = authorizer
        self._subscriptions = Subscriptions(self, authorizer)
        self.channels = self._subscriptions.channels
        self._activity_timeout = activity_timeout
        self._pong_timeout = pong_timeout
        self._connect_timeout = connect_timeout
        self._backoff = Backoff(
            random.random,
            minimum=min_delay,
            maximum=max_delay,
            max_attempts=None if max_attempts is None else max(0, max_attempts - 1),
        )
        self._max_attempts = max_attempts
        self._ssl_context = ssl_context
        self._headers = headers
        self._url = settings.websocket_url
        self._bindings: Bindings | None = None
        self._observers: tuple[Callable[[Observation], None], ...] = ()
        self._inboxes: set[Inbox[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._settled: asyncio.Future[None] | None = None
        self._error: ConnectionFailed | None = None
        self._hurry = asyncio.Event()
        self._unavailable: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        """Server and state."""
        return f"<Client {self.settings.http_url} {self.state}>"

    # Life

    async def connect(self) -> None:
        """Connect, and stay connected from then on; returns when the connection stands.

        Raises:
            Refused: The server refuses this client: wrong key, quota, version.
            Unreachable: Given up after `max_attempts`.
            ConnectionLost: Likewise, after the server had answered.
            ClientClosed: `disconnect()` or `close()` was called meanwhile.
        """
        while self._running is not None and self._running.cancelling():
            await self._ended(self._running)  # a disconnect() is under way
        if self._running is None or self._running.done():
            self._error = None
            self._subscriptions.ended = None
            self._backoff.reset()
            self._running = asyncio.create_task(self._run(), name="antiphon client")
        if self.state is not ConnectionState.CONNECTED:
            if self._settled is None:
                self._settled = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._settled)

    async def disconnect(self) -> None:
        """Close the connection and stay away; channels and handlers are kept for `connect()`."""
        running = self._running
        if running is not None:
            if not running.cancelling():
                running.cancel()
            await self._ended(running)
        if self._running is None:
            self._settle(ClientClosed("The client was closed."))

    async def _ended(self, running: asyncio.Task[None]) -> None:
        """Wait for the reconnect loop to end; whoever waits may be cancelled, it is not."""
        await asyncio.wait([running])
        if self._running is running:
            self._running = None

    async def close(self) -> None:
        """Disconnect and let go of everything: channels, handlers, streams, the authorizer."""
        await self.disconnect()
        self._subscriptions.close()
        if self._bindings is not None:
            self._bindings.close()
        for inbox in tuple(self._inboxes):
            inbox.close()
        self._observers, self._bindings = (), None
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._authorizer is not None:
            await self._authorizer.close()

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def retry_now(self) -> None:
        """Dial at once instead of waiting: the network has come back."""
        self._hurry.set()

    async def wait_closed(self) -> None:
        """Wait until the client has given up or was told to end.

        Raises:
            ConnectionFailed: Why it gave up.
        """
        if self._running is not None:
            await asyncio.wait([self._running])
        if self.state is ConnectionState.FAILED and self._error is not None:
            raise self._error

    # Channels

    def subscribe(self, name: str) -> Channel:
        """Join a channel, now and at every later connection.

        Subscribing to a channel again gives the same `Channel`; it is left when every hold on
        it has been given back with `unsubscribe()`.

        Raises:
            InvalidName: No channel can have this name.
            SubscriptionFailed: It needs a signature, and there is no authorizer.
        """
        return self._subscriptions.subscribe(name)

    def channel(self, name: str) -> Channel | None:
        """A channel that is held, or None."""
        return self.channels.get(name)

    # Observing

    @property
    def socket_id(self) -> str | None:
        """The connection's id, for the `X-Socket-ID` header of one's own requests."""
        if self.state is not ConnectionState.CONNECTED or self._connection is None:
            return None
        return self._connection.protocol.socket_id

    def bind(
        self,
        event: str,
        handler: Handler | None = None,
        *,
        type: type[Any] | None = None,
        limit: int = DEFAULT_LIMIT,
        policy: Policy = "pause",
    ) -> Any:
        """Like `Channel.bind`, for an event of any channel."""
        return bind(self._global(), event, handler, type, limit, policy)

    def bind_all(
        self,
        handler: Handler | None = None,
        *,
        limit: int = DEFAULT_LIMIT,
        policy: Policy = "pause",
    ) -> Any:
        """Like `Channel.bind_all`, for all events of all channels."""
        return bind(self._global(), None, handler, None, limit, policy)

    def unbind(self, event: str | None = None, handler: Handler | None = None) -> None:
        """Take off what `bind` and `bind_all` put on."""
        if self._bindings is not None:
            self._bindings.unbind(event, handler)

    def observe(self, observer: Callable[[Observation], None]) -> Callable[[], None]:
        """Call a function with everything that happens, in order.

        That is: state changes, delays before the next attempt, channels joined, events, errors.
        What is returned takes the observer off.
        """
        self._observers += (observer,)

        def remove() -> None:
            self._observers = tuple(o for o in self._observers if o is not observer)

        return remove

    def changes(self) -> Stream[StateChange]:
        """State changes from now on; of those nobody reads, the oldest are dropped."""
        return self._observations(StateChange)

    def errors(self) -> Stream[AntiphonError]:
        """Errors from now on; of those nobody reads, the oldest are dropped."""
        return self._observations(AntiphonError)

    def events(self, *, limit: int = DEFAULT_LIMIT, policy: Policy = "pause") -> Stream[Event]:
        """Events of all channels from now on."""
        return self._global().stream(None, None, limit=limit, policy=policy)

    def _global(self) -> Bindings:
        """The handlers for all channels: an observer like others, once there are any."""
        if self._bindings is None:
            bindings = self._bindings = Bindings(self)

            def deliver(observation: Observation) -> None:
                if isinstance(observation, Event):
                    bindings.deliver(observation)

            self.observe(deliver)
        return self._bindings

    def _observations(self, kind: type[T]) -> Stream[T]:
        inbox: Inbox[T] = Inbox(self.valve, policy="drop_oldest")
        self._inboxes.add(inbox)

        def put(observation: object) -> None:
            if isinstance(observation, kind):
                inbox.put(observation)

        remove = self.observe(put)

        def detach() -> None:
            self._inboxes.discard(inbox)
            remove()

        return Stream(inbox, detach)

    # The reconnect loop

    async def _run(self) -> None:
        """Dial, stay until it ends, wait, again; the only place that decides to reconnect."""
        self._move(ConnectionState.CONNECTING)
        self._watch_availability()
        try:
            while True:
                closed, lasted = await self._connect_once()
                self._backoff.connection_lasted(lasted)
                if closed.action is Action.USE_TLS and not self._switch_to_tls():
                    return self._fail(Refused(_TLS_ONLY, code=closed.code))
                delay = self._backoff.next_delay(closed.action)
                if delay is None:
                    return self._fail(self._last_error(closed))
                self._lost(self._error_of(closed))
                await self._pause(delay)
        except asyncio.CancelledError:
            self._move(ConnectionState.DISCONNECTED)
            self._settle(ClientClosed("The client was closed."))
            raise
        except Exception as exc:  # ours, and nobody awaits this task
            log.exception("the reconnect loop failed")
            self._fail(ConnectionFailed(f"An error in antiphon itself: {exc!r}"))
        finally:
            self._connection = None
            self._subscriptions.lost()
            self._stop_watching_availability()

    async def _connect_once(self) -> tuple[Closed, float]:
        """One connection, from dial to end: how it ended, and how long it was open."""
        connection = self._connection = Connection(
            ClientProtocol(
                monotonic(),
                activity_timeout=self._activity_timeout,
                pong_timeout=self._pong_timeout,
                handshake_timeout=2 * self._connect_timeout,
            ),
            self.receive,
            self._notice,
            self.valve,
        )
        opened_at = monotonic()
        try:
            await connection.open(
                self._url,
                timeout=self._connect_timeout,
                ssl_context=self._ssl_context if self._url.startswith("wss") else None,
                headers=self._headers,
            )
            opened_at = monotonic()
            closed = await asyncio.shield(connection.closed)
        except Unreachable as exc:
            self._error = exc
            return Closed(Action.BACK_OFF, exc.code, str(exc), opened=False), 0.0
        except asyncio.CancelledError:
            await connection.close()
            raise
        finally:
            connection.drop()
        self._error = self._error_of(closed)
        lasted = monotonic() - opened_at if closed.opened else 0.0
        if closed.opened and not closed.clean:
            self._activity_timeout = adapted_activity_timeout(
                connection.protocol.activity_timeout, lasted
            )
        return closed, lasted

    async def _pause(self, delay: float) -> None:
        """Wait for the next attempt, or for `retry_now()`."""
        attempt = self._backoff.attempts + 1
        self.tell(ConnectingIn(delay, attempt, self._max_attempts))
        log.info("dialling again in %.1f s (attempt %d)", delay, attempt)
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), delay)

    def _lost(self, error: ConnectionFailed) -> None:
        """The connection has ended, or did not come about; another attempt follows."""
        self.report(error)
        self._subscriptions.lost()
        if self.state is ConnectionState.CONNECTED:
            self._move(ConnectionState.CONNECTING, error)
            self._watch_availability()

    def _fail(self, error: ConnectionFailed) -> None:
        """Give up."""
        self._error = error
        self.report(error)
        self._move(ConnectionState.FAILED, error)
        self._settle(error)

    def _last_error(self, closed: Closed) -> ConnectionFailed:
        error = self._error_of(closed)
        if closed.action is Action.STOP:
            return error
        count = self._backoff.attempts + 1
        attempts = "1 attempt" if count == 1 else f"{count} attempts"
        return type(error)(f"Given up after {attempts}. {error}", code=error.code)

    def _error_of(self, closed: Closed) -> ConnectionFailed:
        """The error that the end of a connection is."""
        where = urlsplit(self._url).netloc
        if closed.action is Action.STOP:
            hint = "; check the app key" if closed.code == Code.UNKNOWN_APP else ""
            reason = sentence(f"{closed.reason.rstrip('.')} ({closed.code}){hint}")
            return Refused(f"{where} refuses this client: {reason}", code=closed.code)
        if closed.opened:
            text = sentence(f"The connection to {where} was lost: {closed.reason}")
            return ConnectionLost(text, code=closed.code)
        text = closed.reason if where in closed.reason else f"{where}: {closed.reason}"
        return Unreachable(sentence(text), code=closed.code)

    def _switch_to_tls(self) -> bool:
        """Use TLS from now on (close code 4000); False if nobody can know where it is spoken."""
        if self._url.startswith("wss") or self.settings.port != 80:
            return False
        secure = msgspec.structs.replace(self.settings, scheme="https", port=443)
        self._url = secure.websocket_url
        return True

    # State

    def _move(self, state: ConnectionState, error: AntiphonError | None = None) -> None:
        """Enter a state; the only place that writes it."""
        if state is self.state:
            return
        previous, self.state = self.state, state
        log.info("%s -> %s", previous, state)
        self.tell(StateChange(previous, state, error))

    def _settle(self, error: ConnectionFailed | None) -> None:
        """Let go who waits in `connect()`, and, if all is over, who waits for a channel."""
        if error is not None:
            self._subscriptions.end(error)
            if self._bindings is not None and self.state is ConnectionState.FAILED:
                self._bindings.fail(error)
        settled, self._settled = self._settled, None
        if settled is None or settled.done():
            return
        if error is None:
            settled.set_result(None)
        else:
            settled.set_exception(error)
            settled.exception()  # whoever waited may be gone

    def _watch_availability(self) -> None:
        loop = asyncio.get_running_loop()
        self._unavailable = loop.call_later(
            UNAVAILABLE_AFTER, self._move, ConnectionState.UNAVAILABLE
        )

    def _stop_watching_availability(self) -> None:
        if self._unavailable is not None:
            self._unavailable.cancel()
            self._unavailable = None

    # What arrives

    def receive(self, event: Event) -> None:
        """Take an event of a channel: the hot path."""
        self.history.append(event)
        channel = self.channels.get(event.channel)  # type: ignore[arg-type]  # None is in no dict
        if channel is not None:
            channel.deliver(event)
        if self._observers:
            self.tell(event)

    def _notice(self, event: Received) -> None:
        """Take what the protocol says; `Closed` is the reconnect loop's."""
        if isinstance(event, Connected):
            self._connected(event)
        elif not self._subscriptions.notice(event) and isinstance(event, AntiphonError):
            self.report(event)

    def _connected(self, event: Connected) -> None:
        self._stop_watching_availability()
        log.info("connected as %s, activity timeout %g s", event.socket_id, event.activity_timeout)
        self._move(ConnectionState.CONNECTED)
        self._settle(None)
        if self._connection is not None:
            self._subscriptions.opened(self._connection)

    # What subscriptions and handlers ask of their client

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> Callable[[], None]:
        """Run a task that ends with the client; what is returned ends it earlier."""
        # What the task calls, and the tasks it makes, are told from strangers by their context.
        context = copy_context()
        context.run(_client.set, self)
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def end() -> None:
            if task is not asyncio.current_task():
                task.cancel()

        return end

    def runs_here(self) -> bool:
        """Whether one of this client's handlers runs here, or a task that one has made."""
        return _client.get() is self

    def report(self, error: AntiphonError) -> None:
        """Tell whoever observes errors; with nobody there, the log has it."""
        level = logging.INFO if isinstance(error, ServerReportedError) else logging.WARNING
        # Only a handler's error needs its traceback: the others say all there is.
        cause = error.__cause__ if isinstance(error, HandlerFailed) else None
        log.log(level, "%s: %s", type(error).__name__, error, exc_info=cause)
        self.tell(error)

    def tell(self, observation: Observation) -> None:
        """Tell whoever observes."""
        for observer in self._observers:
            try:
                observer(observation)
            except Exception:
                log.exception("an observer raised")

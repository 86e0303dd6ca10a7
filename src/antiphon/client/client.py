"""The client: one socket at a time, the one reconnect loop, and the channels that outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, overload
from urllib.parse import urlsplit

import msgspec

from antiphon.errors import (
    AntiphonError,
    ClientClosed,
    ConnectionFailed,
    ConnectionLost,
    Refused,
    SettingsError,
    SignInFailed,
    Unreachable,
    sentence,
)
from antiphon.protocol.backoff import Backoff
from antiphon.protocol.client import ClientProtocol, Received, adapted_activity_timeout
from antiphon.protocol.closing import Action, Code
from antiphon.protocol.events import Closed, Connected
from antiphon.protocol.frames import Event

from .auth import Authorizer, HttpAuthorizer, TokenSource, UserAuthenticator
from .bindings import Bindings
from .channel import Channel
from .clock import monotonic
from .connection import Connection
from .flow import DEFAULT_LIMIT, Inbox, Policy, Stream
from .host import Host
from .roll import Roll
from .source import EventSource
from .states import (
    ConnectingIn,
    ConnectionState,
    Frame,
    Observation,
    Reconnected,
    StateChange,
    Stats,
)
from .subscriptions import Subscriptions
from .transport import Traffic, check_proxy
from .user import SIGN_IN, User

if TYPE_CHECKING:
    from antiphon.settings import Settings

__all__ = ["Client"]

C = TypeVar("C", bound=Channel)
T = TypeVar("T")

log = logging.getLogger("antiphon.connection")
log_frames = logging.getLogger("antiphon.frames")

UNAVAILABLE_AFTER = 10.0
LEAST_GAP: Final = 0.05
"""Seconds between two dials, however much `retry_now()` hurries."""
_ANEW: Final = Closed(Action.RECONNECT, None, "A new attempt is wanted.", opened=False)
_EXCERPT: Final = 200
_SIGNED: Final = ('{"event":"pusher:subscribe"', '{"event":"pusher:signin"')
_TLS_ONLY = "The application only accepts TLS: set the scheme to https, and the port to match."


class Client(EventSource):
    """A client of one application on a Pusher-protocol server.

    Use it as an async context manager, or `connect()` and `close()` it. It stays connected by
    itself: after a loss it dials again, and every channel is subscribed again with a fresh
    signature. What it cannot mend it reports to `errors()`, and nothing a handler does stops it.

    What is bound on the client itself gets the events of all channels.

    Args:
        settings: Where the server is.
        authorizer: Signs private and presence channels. By default the backend is asked at
            `settings.auth_url`, if there is one.
        authenticator: Says who the user is, for `signin()`. By default the authorizer does.
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
        ssl_context: Stands in for the usual one, such as for a certificate of one's own; the
            backend is asked with it, too.
        headers: Further headers of the upgrade request.
        proxy: Address of a proxy: `http://`, `https://`, `socks4://` or `socks5://`.
        source_address: Address of this machine to dial from.

    Raises:
        SettingsError: `proxy` is no address of a proxy.

    Attributes:
        settings: Where the server is.
        state: The connection's state, in pusher-js's words.
        channels: The channels that are held, by name.
        history: The last events, oldest first.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        authorizer: Authorizer | None = None,
        authenticator: UserAuthenticator | None = None,
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
        proxy: str | None = None,
        source_address: str | None = None,
    ) -> None:
        if proxy is not None:
            check_proxy(proxy)
        for name, seconds in (
            ("activity_timeout", activity_timeout),
            ("pong_timeout", pong_timeout),
            ("connect_timeout", connect_timeout),
        ):
            if not 0 < seconds < float("inf"):
                raise SettingsError(f"{name} is a number of seconds above 0, not {seconds!r}.")
        for name, seconds in (("min_delay", min_delay), ("max_delay", max_delay)):
            if not 0 <= seconds < float("inf"):
                raise SettingsError(f"{name} is a number of seconds from 0, not {seconds!r}.")
        super().__init__(Host())
        self.settings = settings
        self.state = ConnectionState.INITIALIZED
        self.history: deque[Event] = deque(maxlen=history)
        if authorizer is None and settings.auth_url:
            authorizer = HttpAuthorizer(
                settings.auth_url,
                user_auth_url=settings.user_auth_url,
                token=token,
                ssl_context=ssl_context,
            )
        self._authorizer = authorizer
        self._authenticator = authenticator
        self._user: User | None = None
        new_backoff = partial(Backoff, random.random, minimum=min_delay, maximum=max_delay)
        self._new_backoff = new_backoff
        self._roll = Roll(self._host)
        self._subscriptions = Subscriptions(
            self._host, authorizer, self.history, new_backoff, self._roll
        )
        self.channels: Mapping[str, Channel] = self._subscriptions.channels
        self._activity_timeout = activity_timeout
        self._pong_timeout = pong_timeout
        self._connect_timeout = connect_timeout
        self._max_attempts = max_attempts
        self._backoff = new_backoff(
            max_attempts=None if max_attempts is None else max(0, max_attempts - 1)
        )
        self._ssl_context = ssl_context
        self._headers = headers
        self._proxy = proxy
        self._source_address = source_address
        self._url = settings.websocket_url
        self._is_listening = False
        self._is_closing = False
        self._dialled_at: float | None = None
        self._inboxes: set[Inbox[Any]] = set()
        self._frames: tuple[Inbox[Frame], ...] = ()
        self._running: asyncio.Task[None] | None = None
        # The same, once it was told to end. A task's own word for it is no good: a time-out within
        # it looks alike.
        self._leaving: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._settled: asyncio.Future[None] | None = None
        self._error: ConnectionFailed | None = None
        self._dialling: asyncio.Timeout | None = None
        self._hurry = asyncio.Event()
        self._unavailable: asyncio.TimerHandle | None = None
        self._connections = 0
        self._lost_at: float | None = None
        self._traffic = Traffic()
        self._round_trip: float | None = None

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
        if self._is_closing:
            raise ClientClosed("The client is being closed.")
        while self._leaving is not None:
            await self._ended(self._leaving)  # a disconnect() is under way
        if self._settled is None and self.state is not ConnectionState.CONNECTED:
            self._settled = asyncio.get_running_loop().create_future()
        settled = self._settled
        if self._running is None or self._running.done():
            self._error = None
            self._host.ended = None
            self._backoff.reset()
            self._running = asyncio.create_task(self._run(), name="antiphon client")
        try:
            if settled is not None:
                await asyncio.shield(settled)
        finally:
            del settled  # its error's traceback holds this frame

    async def disconnect(self) -> None:
        """Close the connection and stay away; channels and handlers are kept for `connect()`."""
        running = self._running
        if running is not None:
            if self._leaving is None:
                self._leaving = running
                running.cancel()
            await self._ended(running)
        if self._running is None:
            self._settle(ClientClosed("The client was closed."))

    async def _ended(self, running: asyncio.Task[None]) -> None:
        """Wait for the reconnect loop to end; whoever waits may be cancelled, it is not."""
        await asyncio.wait([running])
        if self._running is running:
            self._running = self._leaving = None

    async def close(self) -> None:
        """Disconnect and let go of everything: channels, handlers, streams, the authorizer.

        Cancelled, it does so all the same, but does not wait for the server to say goodbye.
        """
        self._is_closing = True
        async with contextlib.AsyncExitStack() as last:  # from here upwards, whatever happens
            last.callback(self._closed)
            if self._authenticator is not None:  # perhaps the same: closing twice does no harm
                last.push_async_callback(self._authenticator.close)
            if self._authorizer is not None:
                last.push_async_callback(self._authorizer.close)
            last.push_async_callback(self._host.close)
            last.callback(self._let_go)
            await self.disconnect()

    def _closed(self) -> None:
        self._is_closing = False
        # One that nobody has raised: a traceback would hold whoever waited.
        self._host.ended = ClientClosed("The client was closed.")

    def _let_go(self) -> None:
        """Leave all channels, take off all handlers, end all streams."""
        self._subscriptions.close()
        if self._user is not None:
            self._user.close()
        self._bindings.close()
        for inbox in tuple(self._inboxes):
            inbox.close()
        self._inboxes.clear()
        self._frames = ()
        self._error = None

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
        """Dial at once: the network has come back. A dial that is under way begins anew."""
        if self.state in (ConnectionState.CONNECTING, ConnectionState.UNAVAILABLE):
            self._hurry.set()
            if self._dialling is not None and not self._dialling.expired():
                self._dialling.reschedule(0)
            elif self._connection is not None:
                self._connection.give_up(_ANEW)  # it waits for the server's first word

    async def wait_closed(self) -> None:
        """Wait until the client has given up or was told to end.

        Raises:
            ConnectionFailed: Why it gave up.
        """
        if self._running is not None:
            await asyncio.wait([self._running])
        if self.state is ConnectionState.FAILED and self._error is not None:
            raise self._error.again()

    # Channels, and the user

    @overload
    def subscribe(self, name: str) -> Channel: ...

    @overload
    def subscribe(self, name: str, kind: type[C]) -> C: ...

    def subscribe(self, name: str, kind: type[Channel] = Channel) -> Channel:
        """Join a channel, now and at every later connection.

        Subscribing to a channel again gives the same `Channel`; it is left when every hold on
        it has been given back with `unsubscribe()`.

        Args:
            name: The channel's name; what it begins with says what it is.
            kind: What the caller takes it for, such as `PresenceChannel`: for type checkers.

        Raises:
            InvalidName: No channel can have this name, or none of this kind.
            SubscriptionFailed: It needs a signature, and there is no authorizer.
            SettingsError: It is encrypted, and PyNaCl is missing.
        """
        return self._subscriptions.subscribe(name, kind)

    def channel(self, name: str) -> Channel | None:
        """A channel that is held, or None."""
        return self.channels.get(name)

    def signin(self) -> User:
        """Sign in as the user the backend says this is, now and at every later connection.

        Signing in again gives the same `User`; one whose sign-in has failed tries again.

        Raises:
            SignInFailed: There is nobody to ask who the user is.
        """
        if self._user is not None:
            self._user.again()
            return self._user
        authenticator: Any = self._authenticator or self._authorizer
        if not hasattr(authenticator, "authenticate"):
            raise SignInFailed(
                "A sign-in needs somebody who says who the user is: give the client an"
                " authenticator, or settings an api_url."
            )
        user = self._user = User(self._host, authenticator, self._roll, self._new_backoff())
        self._subscriptions.otherwise = user.receive
        if self._connection is not None and self.state is ConnectionState.CONNECTED:
            user.opened(self._connection)
        return user

    @property
    def user(self) -> User | None:
        """The user, once `signin()` was called."""
        return self._user

    # Observing

    @property
    def socket_id(self) -> str | None:
        """The connection's id; None while there is none."""
        if self.state is not ConnectionState.CONNECTED or self._connection is None:
            return None
        return self._connection.protocol.socket_id

    @property
    def to_others(self) -> dict[str, str]:
        """Headers for one's own requests: what they broadcast goes to others, not to this client.

        That is Laravel's `->toOthers()`, which reads `X-Socket-ID`; empty while not connected.
        """
        socket_id = self.socket_id
        return {} if socket_id is None else {"X-Socket-ID": socket_id}

    @property
    def stats(self) -> Stats:
        """What the client has done since it was made, counted up to now."""
        traffic, valve = self._traffic, self._host.valve
        round_trip = None if self._connection is None else self._connection.protocol.round_trip
        return Stats(
            frames_received=traffic.frames_received,
            bytes_received=traffic.bytes_received,
            frames_sent=traffic.frames_sent,
            bytes_sent=traffic.bytes_sent,
            connections=self._connections,
            reconnects=max(0, self._connections - 1),
            lag=sum(map(len, valve.inboxes)),
            dropped=valve.dropped,
            paused=valve.paused,
            round_trip=self._round_trip if round_trip is None else round_trip,
        )

    def observe(self, observer: Callable[[Observation], None]) -> Callable[[], None]:
        """Call a function with everything that happens, in order.

        That is: state changes, delays before the next attempt, channels joined, reconnections,
        events, errors. What is returned takes the observer off.
        """
        return self._host.observe(observer)

    def changes(self) -> Stream[StateChange]:
        """State changes from now on; of those nobody reads, the oldest are dropped."""
        return self._observations(StateChange)

    def errors(self) -> Stream[AntiphonError]:
        """Errors from now on; of those nobody reads, the oldest are dropped."""
        return self._observations(AntiphonError)

    def reconnections(self) -> Stream[Reconnected]:
        """A signal for each later connection, once every channel is subscribed again on it."""
        return self._observations(Reconnected)

    def events(self, *, limit: int = DEFAULT_LIMIT, policy: Policy = "pause") -> Stream[Event]:
        """Events of all channels from now on."""
        return self.stream(limit=limit, policy=policy)

    def frames(self) -> Stream[Frame]:
        """Text messages in both directions from now on, without signatures.

        Of those nobody reads, the oldest are dropped.
        """
        inbox: Inbox[Frame] = Inbox(self._host.valve, policy="drop_oldest")
        self._inboxes.add(inbox)
        self._frames += (inbox,)
        self._set_tap()

        def detach() -> None:
            self._inboxes.discard(inbox)
            self._frames = tuple(other for other in self._frames if other is not inbox)
            self._set_tap()

        return Stream(inbox, detach)

    def _bound(self) -> Bindings:
        """The handlers for all channels: an observer like others, once there are any."""
        if not self._is_listening:
            self._is_listening = True
            bindings = self._bindings

            def deliver(observation: Observation) -> None:
                if isinstance(observation, Event):
                    bindings.deliver(observation)

            self.observe(deliver)
        return self._bindings

    def _observations(self, kind: type[T]) -> Stream[T]:
        inbox: Inbox[T] = Inbox(self._host.valve, policy="drop_oldest")
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
        self._hurry, self._dialled_at = asyncio.Event(), None  # of this event loop
        try:
            while True:
                await self._keep_apart()
                closed, lasted = await self._connect_once()
                if closed is _ANEW and self.state is not ConnectionState.CONNECTED:
                    self._hurry.clear()
                    continue
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
            self._gone()
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
            self._subscriptions.receive,
            self._notice,
            self._host.valve,
            self._traffic,
        )
        self._set_tap()
        opened_at = monotonic()
        try:
            await self._dial(connection)
            opened_at = monotonic()
            closed = await asyncio.shield(connection.closed)
        except Unreachable as exc:
            return Closed(Action.BACK_OFF, exc.code, str(exc), opened=False), 0.0
        except TimeoutError:
            return _ANEW, 0.0
        except asyncio.CancelledError:
            await connection.close()
            raise
        finally:
            connection.drop()
        now = monotonic()
        lasted = now - opened_at if closed.opened else 0.0
        if closed.opened and not closed.clean:
            machine = connection.protocol
            self._activity_timeout = adapted_activity_timeout(
                machine.activity_timeout, machine.quiet_for(now)
            )
        return closed, lasted

    async def _dial(self, connection: Connection) -> None:
        """Open the connection, unless `retry_now()` ends the attempt for a better one.

        Raises:
            Unreachable: No WebSocket connection came about.
            TimeoutError: A new attempt is wanted.
        """
        try:
            async with asyncio.timeout(None) as self._dialling:
                await connection.open(
                    self._url,
                    timeout=self._connect_timeout,
                    ssl_context=self._ssl_context if self._url.startswith("wss") else None,
                    headers=self._headers,
                    proxy=self._proxy,
                    source_address=self._source_address,
                )
        finally:
            self._dialling = None

    async def _keep_apart(self) -> None:
        """Let a moment pass since the last dial, however much the program hurries."""
        now = asyncio.get_running_loop().time()
        if self._dialled_at is not None and now < self._dialled_at + LEAST_GAP:
            await asyncio.sleep(self._dialled_at + LEAST_GAP - now)
        self._dialled_at = asyncio.get_running_loop().time()

    async def _pause(self, delay: float) -> None:
        """Wait for the next attempt, or for `retry_now()`."""
        attempt = self._backoff.attempts + 1
        self._host.tell(ConnectingIn(delay, attempt, self._max_attempts))
        log.info("dialling again in %.1f s (attempt %d)", delay, attempt)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._hurry.wait()
        self._hurry.clear()

    def _lost(self, error: ConnectionFailed) -> None:
        """The connection has ended, or did not come about; another attempt follows."""
        self._host.report(error)
        self._gone()
        if self.state is ConnectionState.CONNECTED:
            self._move(ConnectionState.CONNECTING, error)
            self._watch_availability()

    def _gone(self) -> None:
        """There is no connection any more: nothing is subscribed, nobody signed in."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._round_trip = connection.protocol.round_trip or self._round_trip
        if self.state is ConnectionState.CONNECTED or self._lost_at is None:
            self._lost_at = monotonic()
        self._roll.forget()
        self._subscriptions.lost()
        if self._user is not None:
            self._user.lost()

    def _fail(self, error: ConnectionFailed) -> None:
        """Give up."""
        self._error = error
        self._host.report(error)
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
        self._host.tell(StateChange(previous, state, error))

    def _settle(self, error: ConnectionFailed | None) -> None:
        """Let go who waits in `connect()`, and, if all is over, who waits for anything else."""
        if error is not None:
            self._host.ended = error
            self._subscriptions.end(error)
            for source in (self, self._user):
                if source is None:
                    continue
                if isinstance(error, ClientClosed):
                    source.give_up(error)
                else:
                    source.fail(error)
        settled, self._settled = self._settled, None
        if settled is None or settled.done():
            return
        if error is None:
            settled.set_result(None)
        else:
            settled.set_exception(error.again())
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

    def _notice(self, event: Received) -> None:
        """Take what the protocol says; `Closed` is the reconnect loop's."""
        if isinstance(event, Connected):
            self._connected(event)
            return
        if self._user is not None and self._user.notice(event):
            return
        if self._subscriptions.notice(event):
            return
        if isinstance(event, AntiphonError):
            self._host.report(event)

    def _connected(self, event: Connected) -> None:
        self._stop_watching_availability()
        self._hurry.clear()
        log.info("connected as %s, activity timeout %g s", event.socket_id, event.activity_timeout)
        connection = self._connection
        assert connection is not None
        lost_at, self._lost_at = self._lost_at, None
        is_first, connected_at = self._connections == 0, monotonic()
        self._connections += 1
        self._move(ConnectionState.CONNECTED)
        self._settle(None)
        if self._connection is not connection:
            return  # whoever was told has closed it
        if not is_first and lost_at is not None:
            names = [*self.channels] if self._user is None else [*self.channels, SIGN_IN]
            self._roll.call(names, connected_at - lost_at)
        if self._user is not None:
            self._user.opened(connection)
        self._subscriptions.opened(connection)

    # Raw frames

    def _tap(self, direction: Literal["in", "out"], message: bytes) -> None:
        text = message.decode("utf-8", "replace")
        if direction == "out" and text.startswith(_SIGNED):
            text = _without_signature(message)
        log_frames.debug("%s %s", "<" if direction == "in" else ">", text[:_EXCERPT])
        for inbox in self._frames:
            inbox.put(Frame(direction, text))

    def _set_tap(self) -> None:
        if self._connection is not None:
            asked = self._frames or log_frames.isEnabledFor(logging.DEBUG)
            self._connection.tap(self._tap if asked else None)


def _without_signature(message: bytes) -> str:
    """A subscribe or a sign-in, with what it signs but not how."""
    frame = msgspec.json.decode(message)
    if "auth" in frame["data"]:
        frame["data"]["auth"] = "…"
    return msgspec.json.encode(frame).decode()

"""The way to the server: who one is, the user's own channel, and the state that shows."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from antiphon.client import (
    ChannelState,
    ConnectingIn,
    ConnectionState,
    Observation,
    StateChange,
    Subscribed,
)
from antiphon.errors import (
    AntiphonError,
    ApiError,
    ClientClosed,
    ConnectionFailed,
    LoginFailed,
    QueueOverflow,
    ServerReportedError,
    SubscriptionFailed,
)
from antiphon.protocol.closing import Code

from .inbox import FIRST_DELAY, MAX_DELAY, is_passing
from .models import Id, User
from .observations import ChatState, StateChanged
from .problems import Problem, explain

if TYPE_CHECKING:
    from .core import Core

__all__ = ["Link"]

log = logging.getLogger("antiphon.chat")


class Link:
    """Follows the SDK's client, and says in a session's words where it stands.

    Args:
        core: The session.
        user_id: The user, if it is known whose session it is.
        max_attempts: Attempts in a row before it has failed; None for no end.

    Attributes:
        state: Where the session stands.
        problem: Why it is not connected, while it is not.
        connecting_in: The next attempt, while it is waited for.
        retry_at: When that is, by `time.monotonic()`.
    """

    def __init__(self, core: Core, user_id: Id | None, max_attempts: int | None) -> None:
        self.state = ChatState.CLOSED
        self.problem: Problem | None = None
        self.connecting_in: ConnectingIn | None = None
        self.retry_at: float | None = None
        self._core = core
        self._user_id = user_id
        self._max_attempts = max_attempts
        self._mine = ""  # the name of the user's own channel, once known
        self._refusals = 0  # of that channel, in a row
        self._ready: asyncio.Future[None] | None = None
        self._over = asyncio.Event()
        self._over.set()

    # Begin and end

    async def start(self) -> None:
        """Show what the file has kept, and begin to connect.

        Raises:
            SettingsError: The file cannot be used.
        """
        core = self._core
        self._move(ChatState.CONNECTING)
        try:
            if self._user_id is not None:
                await core.open_store(self._user_id)
        except BaseException:
            self._move(ChatState.CLOSED)
            raise
        if not core.is_closed:
            core.client.observe(self._observe)
            core.client.bind_all(core.inbox.receive)
            core.spawn(self._begin())

    def retry(self) -> None:
        """Try again now."""
        core = self._core
        self._refusals = 0
        if self.state is ChatState.FAILED:
            was_here = core.inbox.has_been_whole
            self._move(ChatState.RECONNECTING if was_here else ChatState.CONNECTING)
            core.spawn(self._begin())
        else:
            core.client.retry_now()
            self._subscribe()
            core.inbox.ask()

    def end(self) -> None:
        """The session is being closed, for good: nothing new begins."""
        self._core.is_closed = True
        self._core.is_connected = False
        self.settle(ClientClosed("The chat was closed."))

    def ended(self) -> None:
        """The session is closed: the last that is told of it."""
        self._move(ChatState.CLOSED)

    # Who waits

    async def ready(self) -> None:
        """Wait until it is connected and nothing is missing.

        Raises:
            AntiphonError: It has failed, or the backend refuses to say what was missed.
            ClientClosed: It was closed, or is not started.
        """
        inbox = self._core.inbox
        if self._core.is_connected and inbox.is_whole:
            return
        if self._core.is_closed or self.state is ChatState.CLOSED:
            raise ClientClosed("The chat is not started, or was closed.")
        self._raise_if_failed()
        if inbox.refusal is not None:
            raise inbox.refusal.with_traceback(None)
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._ready)

    def settle(self, error: AntiphonError | None) -> None:
        """Let go who waits in `ready()`: nothing is missing, or this is why it cannot be had."""
        ready, self._ready = self._ready, None
        if ready is None or ready.done():
            return
        if error is None:
            ready.set_result(None)
        else:
            ready.set_exception(error)
            ready.exception()  # whoever waited may be gone

    async def wait_closed(self) -> None:
        """Wait until the session has failed or is closed.

        Raises:
            AntiphonError: It has failed.
        """
        while self.state not in (ChatState.FAILED, ChatState.CLOSED):
            await self._over.wait()  # who is told that it has failed may have made it try again
        self._raise_if_failed()

    def _raise_if_failed(self) -> None:
        if self.state is ChatState.FAILED and self.problem is not None:
            raise self.problem.error.with_traceback(None)  # raised again, it would gather them

    # On the way

    async def _begin(self) -> None:
        """Find out who the user is, join the user's own channel, and connect."""
        core = self._core
        try:
            if core.me is None:
                core.introduce(await self._who())
            if core.me is not None:
                await core.open_store(core.me.id)
            self._subscribe()
            core.outbox.again()
            await core.client.connect()
        except ConnectionFailed:
            pass  # the client has told
        except AntiphonError as exc:
            core.report(exc)
            self._fail(exc)
        except Exception as exc:
            log.exception("the chat could not begin")
            error = AntiphonError(f"An error in antiphon itself: {exc!r}")
            core.report(error)
            self._fail(error)

    async def _who(self) -> User:
        """The user; a backend that does not answer is asked again, as often as a server is dialled.

        Raises:
            ApiError: It refused, or did not answer.
        """
        if self._user_id is not None and not self._core.dialect.me:
            return User(id=self._user_id)
        attempt = 1
        while True:
            try:
                me = await self._core.rest.me()
            except ApiError as exc:
                if not is_passing(exc):
                    if self._user_id is not None and not isinstance(exc, LoginFailed):
                        return User(id=self._user_id)  # its name will do without
                    raise
                if attempt == self._max_attempts:
                    raise
                self.problem = explain(exc)
            else:
                if self._user_id is not None and str(me.id) != str(self._user_id):
                    raise LoginFailed(
                        f"The token is that of user {me.id}, and not of user {self._user_id}."
                    )
                return me
            delay = min(FIRST_DELAY * 2.0 ** (attempt - 1), MAX_DELAY)
            attempt += 1
            self._told_connecting(ConnectingIn(delay, attempt, self._max_attempts))
            await self._core.pause(delay)

    def _subscribe(self) -> None:
        """Hold the user's own channel; ask again for it if it was refused."""
        core = self._core
        if core.me is None:
            return
        self._mine = core.dialect.user_channel.replace("{user_id}", core.my_id)
        mine = core.client.channel(self._mine)
        if mine is None:
            core.client.subscribe(self._mine)
        elif mine.state is ChannelState.FAILED:
            core.client.subscribe(self._mine)
            mine.unsubscribe()  # one hold is enough

    # What the client tells

    def _observe(self, observation: Observation) -> None:
        if self._core.is_closed:
            return
        match observation:
            case StateChange(current=current, error=error):
                self._client_moved(current, error)
            case ConnectingIn():
                self._told_connecting(observation)
            case Subscribed(channel=channel):
                self._joined(channel)
            case AntiphonError():
                self._trouble(observation)

    def _told_connecting(self, connecting: ConnectingIn) -> None:
        self.connecting_in = connecting
        self.retry_at = time.monotonic() + connecting.seconds
        self._core.tell(connecting)

    def _client_moved(self, current: ConnectionState, error: AntiphonError | None) -> None:
        core = self._core
        match current:
            case ConnectionState.CONNECTED:
                self.connecting_in = self.retry_at = None
                core.presence.takes_whispers = True
            case ConnectionState.CONNECTING | ConnectionState.UNAVAILABLE:
                core.inbox.lost()
                if self.state is ChatState.CONNECTED:
                    self._move(ChatState.RECONNECTING, self.problem)
                    core.presence.lost()
            case ConnectionState.FAILED | ConnectionState.DISCONNECTED:
                core.inbox.lost()
                self._fail(error or ClientClosed("The program has disconnected the chat."))

    def _joined(self, channel: str) -> None:
        if channel != self._mine:
            self._core.presence.joined(channel)
            return
        self.problem = None
        self._refusals = 0
        self._move(ChatState.CONNECTED)
        self._core.inbox.joined()

    def _trouble(self, error: AntiphonError) -> None:
        """The client reports an error."""
        match error:
            case ServerReportedError(code=Code.CLIENT_EVENT_REJECTED):
                if self._core.presence.takes_whispers:
                    log.info("the server takes no client events: %s", error)
                self._core.presence.takes_whispers = False
                return
            case QueueOverflow():
                log.info("%s", error)  # whispers, of which none was important
                return
            case SubscriptionFailed(channel=channel) if channel == self._mine:
                self._refused(error)
                return
            case ConnectionFailed():
                self.problem = explain(error)
        self._core.report(error)

    def _refused(self, error: SubscriptionFailed) -> None:
        """The user's own channel was refused, without which nothing is heard."""
        if self.state is ChatState.FAILED:
            return  # it was told
        self._refusals += 1
        self.problem = explain(error)
        self._core.report(error)
        if not error.temporary or self._refusals == self._max_attempts:
            self._fail(error)

    def _fail(self, error: AntiphonError) -> None:
        """There is no way on without somebody's help."""
        self.problem = explain(error)
        self.connecting_in = self.retry_at = None
        self._core.inbox.release()
        if self.state is ChatState.CONNECTED:
            self._core.presence.lost()
        self._move(ChatState.FAILED, self.problem)
        self.settle(error)

    def _move(self, state: ChatState, problem: Problem | None = None) -> None:
        """Enter a state; the only place that writes it."""
        if state is self.state or (self._core.is_closed and state is not ChatState.CLOSED):
            return
        previous, self.state = self.state, state
        self._core.is_connected = state is ChatState.CONNECTED
        if state in (ChatState.FAILED, ChatState.CLOSED):
            self._over.set()
        else:
            self._over.clear()
        log.info("%s -> %s", previous, state)
        self._core.tell(StateChanged(previous, state, problem))

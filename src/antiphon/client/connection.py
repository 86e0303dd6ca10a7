"""One connection: a socket, its protocol machine and its timer, from dial to end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Final, Literal

from antiphon.protocol.client import ClientProtocol, Received, State
from antiphon.protocol.closing import Action
from antiphon.protocol.events import Closed, Connected
from antiphon.protocol.frames import Event

from .clock import monotonic
from .flow import Valve
from .transport import Link, Receive, Traffic, dial

__all__ = ["Connection", "Tap"]

MAX_NAP: Final = 15.0
"""Seconds after which a timer looks at the clock again, though nothing is due."""

Tap = Callable[[Literal["in", "out"], bytes], None]
"""Gets every text message, as it comes and as it goes."""


class Connection:
    """A connection to a Pusher server.

    Args:
        protocol: A fresh machine.
        deliver: Gets each event of a channel: the hot path.
        notify: Gets everything else the machine says, `Closed` last.
        valve: Decides whether the socket is read.
        traffic: Counts what goes over it.
    """

    def __init__(
        self,
        protocol: ClientProtocol,
        deliver: Callable[[Event], None],
        notify: Callable[[Received], None],
        valve: Valve,
        traffic: Traffic | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.protocol = protocol
        self.closed: asyncio.Future[Closed] = loop.create_future()
        # Hot path: the link calls the machine, and who gets its events, without a detour.
        self.receive: Receive = protocol.receive_message
        self.deliver = deliver
        self._notify = notify
        self._valve = valve
        self._traffic = traffic
        self._tap: Tap | None = None
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(
        self,
        url: str,
        *,
        timeout: float,
        ssl_context: ssl.SSLContext | None,
        headers: Mapping[str, str] | None,
        proxy: str | None = None,
        source_address: str | None = None,
    ) -> None:
        """Dial; the handshake's outcome is notified.

        Raises:
            Unreachable: No WebSocket connection came about.
        """
        await dial(
            url,
            self,
            timeout=timeout,
            traffic=self._traffic,
            ssl_context=ssl_context,
            headers=headers,
            proxy=proxy,
            source_address=source_address,
        )

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done, and nobody has said goodbye."""
        is_open = self.protocol.state is State.OPEN
        return is_open and self._link is not None and not self._link.is_closing

    async def close(self) -> None:
        """Say goodbye, and wait until the socket is closed."""
        if self._link is not None:
            self._link.close()
            await asyncio.wait([self.closed])
        self.drop()

    def give_up(self, closed: Closed) -> None:
        """End it at once, and say why in the server's place."""
        if not self.closed.done():
            self.closed.set_result(closed)
        self.drop()

    def drop(self) -> None:
        """Let go of socket and timer at once."""
        self.protocol.receive_close(None)  # what still arrives means nothing any more
        self._valve.connect(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._link is not None:
            self._link.abort()
            self._link = None

    def tap(self, tap: Tap | None) -> None:
        """Show somebody every text message from now on; None for nobody."""
        self._tap = tap
        receive = self.protocol.receive_message

        def receive_tapped(payload: bytes, now: float) -> Received | None:
            assert tap is not None
            tap("in", payload)
            return receive(payload, now)

        self.receive = receive if tap is None else receive_tapped
        if self._link is not None:
            self._link.receive = self.receive

    # What the client sends

    def subscribe(self, channel: str, auth: str | None, channel_data: str | None) -> None:
        """Ask to join a channel."""
        self.protocol.subscribe(channel, auth, channel_data)
        self._flush()

    def unsubscribe(self, channel: str) -> None:
        """Leave a channel."""
        self.protocol.unsubscribe(channel)
        self._flush()

    def sign_in(self, auth: str, user_data: str) -> None:
        """Say who the user is."""
        self.protocol.sign_in(auth, user_data)
        self._flush()

    def trigger(self, channel: str, event: str, data: object) -> None:
        """Send a client event."""
        self.protocol.trigger(channel, event, data)
        self._flush()

    # What the link calls

    def connected(self, link: Link) -> None:
        """The upgrade is done; messages may come from now on."""
        if self.protocol.state is State.CLOSED:  # the dial was given up at the same moment
            link.abort()
            return
        self._link = link
        link.receive = self.receive  # somebody may have asked for the frames meanwhile
        self._arm()

    def alive(self) -> None:
        """A WebSocket ping or pong has arrived."""
        self.protocol.receive_activity(monotonic())
        self._arm()

    def disconnected(self, code: int | None, reason: str) -> None:
        """The socket is closed."""
        self._link = None
        self.handle(self.protocol.receive_close(code, reason))
        if not self.closed.done():  # the machine had ended before the socket did
            self.closed.set_result(Closed(Action.BACK_OFF, code, reason, opened=True))

    # Time

    def _obey_valve(self) -> None:
        # Not before the handshake is done: a slow handler must not keep it from being heard.
        if self._link is not None and self.protocol.state is State.OPEN:
            # In a context of the connection's own: picows reads in that of who turns the valve,
            # which may be a handler's.
            context, read = copy_context(), self._link.read
            self._valve.connect(lambda on: context.run(read, on))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self.protocol.next_timer()
        if due is not None and self._link is not None:
            # No later than the next ping could be due: events clear a pending one, unseen here.
            # And soon enough after the machine has slept: the loop's own clock stood still then.
            delay = min(max(0.0, due - monotonic()), self.protocol.activity_timeout, MAX_NAP)
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        if not self._valve.is_open:
            # Nothing is heard because nothing is read: that is not the peer's silence. Its own
            # pings are not read either, so it is told that this end lives.
            self.protocol.keep_alive(monotonic())
        self.handle(self.protocol.handle_timer(monotonic()))

    def handle(self, event: Received | None) -> None:
        """Do what the machine wants done, and pass on what it says."""
        self._flush()
        if event is None:
            self._arm()  # a pong may have brought the next ping forward
            return
        self._notify(event)
        if isinstance(event, Connected):
            self._obey_valve()
            self._arm()
        if isinstance(event, Closed) and not self.closed.done():
            self.closed.set_result(event)
            if self._link is not None:
                self._link.close()

    def _flush(self) -> None:
        if self._link is None:
            return
        for message in self.protocol.data_to_send():
            if self._tap is not None:
                self._tap("out", message)
            self._link.send(message)

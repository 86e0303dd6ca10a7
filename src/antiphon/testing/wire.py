"""Both machines back to back over a wire that a test can slow down, thin out and cut.

No socket, no event loop, no waiting: a `Clock` is turned by hand, and what falls due on the way
(frames on the wire, pings, time-outs) happens in order and at its exact time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

from antiphon.protocol import signing
from antiphon.protocol.channels import needs_authorization
from antiphon.protocol.client import ClientProtocol, Received, State
from antiphon.protocol.frames import encode
from antiphon.protocol.presence import Member
from antiphon.protocol.server import (
    Close,
    Outcome,
    Relay,
    Reply,
    ServerProtocol,
    SignIn,
    Subscribe,
    Unsubscribe,
)
from antiphon.settings import App

__all__ = ["Clock", "Wire"]

End = Literal["client", "server"]
_Frame = str | bytes | Close
_NEVER: Final = float("inf")


class Timed(Protocol):
    """Something that a clock drives."""

    def next_due(self) -> float:
        """When it must be called next; infinity for never."""

    def handle_due(self) -> None:
        """Do what is due."""

    def flush(self) -> None:
        """Take up what has been asked of it directly."""


class Clock:
    """Time, in seconds, that passes when it is told to.

    `now` and `advance` are all that one's own sans-I/O tests need; wires on the clock act by
    themselves while it advances.

    Args:
        now: The time it begins with.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._timed: list[Timed] = []

    def drive(self, timed: Timed) -> None:
        """Let something act at its times; a `Wire` does this itself."""
        self._timed.append(timed)

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass, and all happen that falls due, in order.

        Args:
            seconds: How long; 0 only lets happen what is due now.
        """
        end = self.now + seconds
        for timed in self._timed:
            timed.flush()
        while self._timed:
            first = min(self._timed, key=lambda timed: timed.next_due())
            due = first.next_due()
            if due > end:
                break
            self.now = max(self.now, due)
            first.handle_due()
        self.now = end


class Wire:
    """One connection: a `ClientProtocol` and a `ServerProtocol`, and the wire between them.

    The handshake is done once the clock has advanced by `delay`, and without one at once.
    What a test has the machines do directly (`wire.client.sign_in(…)`) goes out with the next
    `flush`, or when the clock advances; the methods here see to it themselves.

    Args:
        clock: The time of both ends.
        app: The application, with its limits.
        delay: Seconds that each frame takes, either way; it may be changed at any time, and
            frames never overtake each other.
        socket_id: The id that the server gives.
        **options: Of `ClientProtocol`: `activity_timeout`, `pong_timeout`, `handshake_timeout`,
            `max_message_size`.

    Attributes:
        client: The client's machine.
        server: The server's machine.
        received: All that the client's machine has reported and `news` has not given yet.
        closed_by_server: The code and the reason, once the server has closed the connection.
    """

    def __init__(
        self,
        clock: Clock,
        app: App | None = None,
        *,
        delay: float = 0.0,
        socket_id: str = "1.1",
        **options: Any,
    ) -> None:
        self.clock = clock
        self.app = app or App(id="test", key="test-key", secret="test-secret")  # noqa: S106
        self.delay = delay
        self.client = ClientProtocol(clock.now, **options)
        self.server = ServerProtocol(self.app, socket_id, clock.now)
        self.received: list[Received] = []
        self.closed_by_server: Close | None = None
        self._everyone = [self]
        self._server_is_there = True
        self._to_client = _Way(self._at_client)
        self._to_server = _Way(self._at_server)
        clock.drive(self)
        self._send(self._to_client, self.server.connection_established())

    def another(self, **options: Any) -> Wire:
        """A further connection to the same server: they meet in presence channels and events.

        Args:
            **options: As for `Wire`; the `socket_id` is chosen unless it is given.
        """
        options = {"socket_id": f"{len(self._everyone) + 1}.1", "delay": self.delay, **options}
        wire = Wire(self.clock, self.app, **options)
        self._everyone.append(wire)
        wire._everyone = self._everyone
        return wire

    # What clients and backends do

    def subscribe(self, channel: str, channel_data: str | None = None) -> None:
        """Have the client join a channel, signed as the channel needs it.

        Args:
            channel: The channel's name.
            channel_data: The user, on presence channels: `'{"user_id":"ann"}'`.
        """
        auth = None
        if needs_authorization(channel):
            key, secret = self.app.key, self.app.secret
            socket_id = self.client.socket_id or ""
            auth = signing.channel_auth(key, secret, socket_id, channel, channel_data)
        self.client.subscribe(channel, auth, channel_data)
        self.flush()

    def unsubscribe(self, channel: str) -> None:
        """Have the client leave a channel."""
        self.client.unsubscribe(channel)
        self.flush()

    def trigger(self, channel: str, event: str, data: Any = None) -> None:
        """Have the client send a client event."""
        self.client.trigger(channel, event, data)
        self.flush()

    def publish(self, channel: str, event: str, data: Any = None) -> None:
        """Have the server send an event to all that are in a channel, on every wire it has."""
        self._broadcast(channel, encode(event, data, channel))

    def send_to_client(self, message: str | bytes) -> None:
        """Have the server send a text message as it is, right or wrong."""
        self._send(self._to_client, message)

    def send_to_server(self, message: str | bytes) -> None:
        """Have the client send a text message as it is, right or wrong."""
        self._send(self._to_server, message)

    def flush(self) -> None:
        """Send what the client's machine has to send."""
        for message in self.client.data_to_send():
            self._send(self._to_server, message)

    def news(self) -> list[Received]:
        """What the client's machine has reported since the last look."""
        news, self.received = self.received, []
        return news

    # Faults

    def drop(self, frames: int | None = None, *, to: End | None = None) -> None:
        """Lose what is sent from now on; nobody is told, as when a cable is pulled.

        Args:
            frames: How many frames are lost; None for all, 0 mends the wire.
            to: Whose frames are lost on the way to them; None for both ends'.
        """
        if to in (None, "client"):
            self._to_client.losing = frames
        if to in (None, "server"):
            self._to_server.losing = frames

    def cut(self, code: int | None = None, reason: str = "") -> None:
        """End the connection.

        Args:
            code: What the server closes with; the client learns of it behind all that is on its
                way to it. None ends it for both at once, and what is on its way is lost.
            reason: The close frame's words.
        """
        if code is not None:
            self._close(Close(code, reason))
            return
        self._to_client.frames.clear()
        self._leave()
        self._report(self.client.receive_close(None, reason))

    # What the clock calls

    def next_due(self) -> float:
        """When something happens next."""
        times = [self._to_client.next_due(), self._to_server.next_due()]
        timer = self.client.next_timer()
        if timer is not None:
            times.append(timer)
        if self._server_is_there:
            times.append(self.server.next_timer())
        return min(times)

    def handle_due(self) -> None:
        """Deliver what has arrived, then let both machines look at the time."""
        now = self.clock.now
        for way in (self._to_client, self._to_server):
            while way.next_due() <= now:
                way.deliver()
        if self._server_is_there:
            self._do(self.server.handle_timer(now))
        self._report(self.client.handle_timer(now))
        self.flush()

    # The client's end

    def _at_client(self, frame: _Frame) -> None:
        if isinstance(frame, Close):
            self._report(self.client.receive_close(frame.code, frame.reason))
        else:
            self._report(self.client.receive_message(frame, self.clock.now))
            self.flush()

    def _report(self, outcome: Received | None) -> None:
        if outcome is not None:
            self.received.append(outcome)
            if self.client.state is State.CLOSED and self._server_is_there:
                self._send(self._to_server, Close(1000, ""))

    # The server's end

    def _at_server(self, frame: _Frame) -> None:
        if not self._server_is_there:
            return
        if isinstance(frame, Close):
            self._leave()
        else:
            text = frame if isinstance(frame, str) else frame.decode()
            self._do(self.server.receive_message(text, self.clock.now))

    def _do(self, outcome: Outcome | None) -> None:
        match outcome:
            case Reply(message):
                self._send(self._to_client, message)
            case Subscribe():
                self._join(outcome)
            case Unsubscribe(channel):
                self._leave_channel(channel)
            case SignIn(messages=messages):
                for message in messages:
                    self._send(self._to_client, message)
            case Relay(channel, message):
                self._broadcast(channel, message, but=self)
            case Close():
                self._close(outcome)

    def _close(self, close: Close) -> None:
        if not self._server_is_there:
            return
        self.closed_by_server = close
        self._leave()
        self._send(self._to_client, close)

    def _join(self, request: Subscribe) -> None:
        channel, member = request.channel, request.member
        members: dict[str, Member] | None = None
        if member is not None:
            members = self._members(channel)
            if member.id not in members:
                added = {"user_id": member.id, "user_info": member.info}
                self._tell(channel, "pusher_internal:member_added", added)
            members[member.id] = member
        self._send(self._to_client, self.server.accept(request, members))

    def _leave_channel(self, channel: str) -> None:
        member = self.server.channels.pop(channel)
        if member is not None and member.id not in self._members(channel):
            self._tell(channel, "pusher_internal:member_removed", {"user_id": member.id})

    def _leave(self) -> None:
        self._server_is_there = False
        self._to_server.frames.clear()
        for channel in list(self.server.channels):
            self._leave_channel(channel)

    def _members(self, channel: str) -> dict[str, Member]:
        here = (wire.server.channels.get(channel) for wire in self._everyone)
        return {member.id: member for member in here if member is not None}

    def _tell(self, channel: str, event: str, data: dict[str, Any]) -> None:
        self._broadcast(channel, encode(event, data, channel), but=self)

    def _broadcast(self, channel: str, message: bytes, but: Wire | None = None) -> None:
        for wire in self._everyone:
            if wire is not but and channel in wire.server.channels:
                wire._send(wire._to_client, message)

    # The wire

    def _send(self, way: _Way, frame: _Frame) -> None:
        way.send(frame, self.clock.now + self.delay)
        while not self.delay and way.next_due() <= self.clock.now:
            way.deliver()


class _Way:
    """One direction of a wire."""

    def __init__(self, arrive: Callable[[_Frame], None]) -> None:
        self.frames: deque[tuple[float, _Frame]] = deque()
        self.losing: int | None = 0
        self._arrive = arrive

    def send(self, frame: _Frame, due: float) -> None:
        """Put a frame on the wire, behind what is there already."""
        if self.losing is None:
            return
        if self.losing:
            self.losing -= 1
            return
        if self.frames:
            due = max(due, self.frames[-1][0])
        self.frames.append((due, frame))

    def next_due(self) -> float:
        """When the next frame arrives."""
        return self.frames[0][0] if self.frames else _NEVER

    def deliver(self) -> None:
        """Hand over the next frame."""
        self._arrive(self.frames.popleft()[1])

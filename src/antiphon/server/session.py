"""One client's connection: it does what the protocol says, for its link and its hub."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from antiphon.protocol.server import (
    Close,
    Outcome,
    Relay,
    Reply,
    ServerProtocol,
    Subscribe,
    Unsubscribe,
)

from .hub import PresenceFull

if TYPE_CHECKING:
    from antiphon.protocol.presence import Member

    from .hub import Hub
    from .liveness import Liveness
    from .transport import Link

__all__ = ["Session"]


class Session:
    """A connected client of one application."""

    __slots__ = ("_hub", "_link", "_liveness", "due", "protocol")

    def __init__(self, link: Link, hub: Hub, liveness: Liveness, socket_id: str) -> None:
        self.protocol = ServerProtocol(hub.app, socket_id, time.monotonic())
        self.due = 0
        self._link = link
        self._hub = hub
        self._liveness = liveness

    @property
    def channels(self) -> Mapping[str, Member | None]:
        """The channels this client is in."""
        return self.protocol.channels

    def write(self, frames: bytes) -> None:
        """Send WebSocket frames as they are."""
        self._link.write(frames)

    def close(self, code: int, reason: str) -> None:
        """End the connection; its channels are left at once."""
        self._leave()
        self._link.close(code, reason)

    # What the link calls

    def connected(self) -> None:
        """Greet the client."""
        self._hub.sockets[self.protocol.socket_id] = self
        self._liveness.add(self)
        self._link.send(self.protocol.connection_established())

    def received(self, text: str) -> None:
        """Do what a message asks for."""
        outcome = self.protocol.receive_message(text, time.monotonic())
        if outcome is not None:
            self._do(outcome)

    def received_binary(self) -> None:
        """Answer a binary message as one that cannot be read."""
        self.received("")

    def alive(self) -> None:
        """Take note of a WebSocket ping or pong."""
        self.protocol.receive_activity(time.monotonic())

    def disconnected(self) -> None:
        """Leave everything."""
        self._leave()

    # What the liveness sweep calls

    def next_timer(self) -> float:
        """When this client must be looked at."""
        return self.protocol.next_timer()

    def tick(self, now: float) -> bool:
        """Ping or give up a silent client; whether it is still connected."""
        outcome = self.protocol.handle_timer(now)
        if outcome is not None:
            self._do(outcome)
        return not isinstance(outcome, Close)

    def _do(self, outcome: Outcome) -> None:
        match outcome:
            case Reply(message):
                self._link.send(message)
            case Relay(channel, message):
                self._hub.publish(channel, message, self.protocol.socket_id)
            case Subscribe():
                self._subscribe(outcome)
            case Unsubscribe(channel):
                self._hub.leave(self, channel)
                del self.protocol.channels[channel]
            case Close(code, reason):
                self.close(code, reason)

    def _subscribe(self, request: Subscribe) -> None:
        try:
            channel = self._hub.join(self, request.channel, request.member)
        except PresenceFull:
            limit = self._hub.app.max_presence_members
            reason = f"A presence channel has at most {limit} users"
            self._link.send(self.protocol.reject(request.channel, reason, 403))
            return
        members = channel.members if channel.is_presence else None
        self._link.send(self.protocol.accept(request, members))

    def _leave(self) -> None:
        self._liveness.remove(self)
        self._hub.disconnect(self, self.protocol.socket_id)
        self.protocol.channels.clear()

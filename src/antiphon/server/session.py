"""One client's connection: it does what the protocol says, for its link and its hub."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from antiphon.protocol.frames import decode_event
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

if TYPE_CHECKING:
    from antiphon.protocol.presence import Member
    from antiphon.settings import App

    from .hub import Hub
    from .liveness import Liveness
    from .transport import Link

__all__ = ["Session"]

_REFUSALS: Final = {
    "pusher:error": "error",
    "pusher:subscription_error": "subscription_refused",
}
_MAX_SHARED: Final = 1_000
_MAX_SHARED_SIZE: Final = 100
_origins: Final[dict[str, str]] = {}


class Session:
    """A connected client of one application.

    Attributes:
        address: Where it comes from; empty where that is not known.
        origin: The page it belongs to, as the browser tells it; programs have none.
        since: When it came, in seconds since 1970.
    """

    __slots__ = ("_hub", "_link", "_liveness", "address", "due", "origin", "protocol", "since")

    def __init__(
        self,
        link: Link,
        hub: Hub,
        liveness: Liveness,
        socket_id: str,
        address: str,
        origin: str | None = None,
    ) -> None:
        self.address = address
        self.origin = _shared(origin or "")
        self.since = time.time()
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

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._link.send(message)

    def joined(self, channel: str, member: Member | None, members: Mapping[str, Member]) -> None:
        """Tell the client that it is in a channel."""
        if channel not in self.protocol.channels:
            self._note("subscribed", channel, user_id="" if member is None else member.id)
        self._link.send(self.protocol.accept(Subscribe(channel, member), members))

    def refused(self, channel: str, reason: str, status: int) -> None:
        """Tell the client that it is not let into a channel."""
        self._reply(self.protocol.reject(channel, reason, status))

    def kick(self, channel: str) -> None:
        """Leave a channel, and let it not be joined again on this connection."""
        self._hub.leave(self, channel)
        message = self.protocol.bar(channel)
        if message is not None:
            self._note("unsubscribed", channel, '{"reason":"taken out of the channel"}')
            self._link.send(message)

    def change(self, app: App) -> None:
        """Take the application's new limits, all but that of a message, which stays."""
        self.protocol.change(app, time.monotonic())
        self._liveness.remove(self)
        self._liveness.add(self)

    def close(self, code: int, reason: str) -> None:
        """End the connection; its channels are left at once."""
        self._leave(code, reason)
        self._link.close(code, reason)

    # What the link calls

    def connected(self) -> None:
        """Greet the client."""
        self._hub.sockets[self.protocol.socket_id] = self
        self._hub.addresses.opened(self.address)
        if self._hub.tap is not None:
            self._note("connected", data=_json({"address": self.address, "origin": self.origin}))
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
        """Take note of a WebSocket ping or pong, or of a fragment."""
        outcome = self.protocol.receive_activity(time.monotonic())
        if outcome is not None:
            self._do(outcome)

    def disconnected(self) -> None:
        """Leave everything."""
        self._leave()

    # What the liveness sweep calls

    def next_timer(self) -> float:
        """When this client must be looked at.

        Who answers a ping may be due for the next one before that answer would have been missed.
        """
        soon = time.monotonic() + self.protocol.app.activity_timeout
        return min(self.protocol.next_timer(), soon)

    def tick(self, now: float) -> bool:
        """Ping or give up a silent client; whether it is still connected."""
        outcome = self.protocol.handle_timer(now)
        if outcome is not None:
            self._do(outcome)
        return not isinstance(outcome, Close)

    def _do(self, outcome: Outcome) -> None:
        match outcome:
            case Reply(message):
                # A pong says that everything that was published before has been told.
                self._hub.fanout.flush()
                self._reply(message)
            case Relay():
                self._hub.relay(outcome, self.protocol.socket_id)
            case SignIn(user_id, watchlist, messages):
                for message in messages:
                    self._link.send(message)
                self._hub.users.sign_in(self, user_id, watchlist)
                self._note("signed_in", user_id=user_id)
            case Subscribe(channel, member):
                self._hub.join(self, channel, member)
            case Unsubscribe(channel):
                if channel in self.protocol.channels:
                    self._note("unsubscribed", channel)
                self._hub.leave(self, channel)
                self.protocol.channels.pop(channel, None)
            case Close(code, reason):
                self.close(code, reason)

    def _reply(self, message: bytes) -> None:
        if self._hub.tap is not None:
            told = decode_event(message)
            if told.name in _REFUSALS:
                raw = told.raw
                why = raw if isinstance(raw, str) else _json(raw)
                self._note(_REFUSALS[told.name], told.channel or "", why)
        self._link.send(message)

    def _note(self, kind: str, channel: str = "", data: str = "", user_id: str = "") -> None:
        """Tell who looks on, if anybody does."""
        if self._hub.tap is not None:
            self._hub.tap.note(
                kind,
                channel=channel,
                data=data,
                socket_id=self.protocol.socket_id,
                user_id=user_id,
            )

    def _leave(self, code: int = 0, reason: str = "") -> None:
        if self.protocol.socket_id in self._hub.sockets:  # else it has left already
            self._hub.addresses.closed(self.address)
            if self._hub.tap is not None:
                for channel in self.protocol.channels:
                    self._note("unsubscribed", channel)
                why = {"code": int(code), "reason": reason}
                self._note("disconnected", data=_json(why) if code else "")
        self._liveness.remove(self)
        self._hub.disconnect(self, self.protocol.socket_id)
        self.protocol.channels.clear()


def _shared(origin: str) -> str:
    """The same text once for all: thousands come from one page, but a stranger may say anything."""
    if len(origin) > _MAX_SHARED_SIZE or len(_origins) >= _MAX_SHARED:
        return _origins.get(origin, origin)
    return _origins.setdefault(origin, origin)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()

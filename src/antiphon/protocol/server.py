"""One connection as the server sees it: what a client may ask for, and what it is told.

No I/O and no clock. Whatever a stranger sends, `receive_message` gives back exactly one outcome
and raises nothing. What concerns other connections (who else is in a channel) is the hub's.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from antiphon.errors import InvalidName, MalformedFrame
from antiphon.settings import App

from . import signing
from .channels import (
    Access,
    access_of,
    check_channel_name,
    check_event_name,
    needs_authorization,
    takes_client_events,
    user_channel,
)
from .closing import Code
from .frames import ClientFrame, decode_client_frame, encode
from .presence import Member, parse_channel_data

__all__ = ["Close", "Outcome", "Relay", "Reply", "ServerProtocol", "Subscribe", "Unsubscribe"]

T = TypeVar("T")

PONG_TIMEOUT: Final = 30.0
_PING: Final = encode("pusher:ping", {})
_PONG: Final = encode("pusher:pong", {})


class Reply(msgspec.Struct, frozen=True):
    """Send this to the client; nobody else is concerned."""

    message: bytes


class Subscribe(msgspec.Struct, frozen=True):
    """The client may join a channel: add it, then send what `accept` gives.

    Attributes:
        channel: The channel's name.
        member: Who the client is there, on presence channels.
    """

    channel: str
    member: Member | None = None


class Unsubscribe(msgspec.Struct, frozen=True):
    """The client has left a channel it was in."""

    channel: str


class Relay(msgspec.Struct, frozen=True):
    """Send this client event to the channel's other members.

    Attributes:
        channel: The channel's name.
        message: The whole frame, as the others get it.
    """

    channel: str
    message: bytes


class Close(msgspec.Struct, frozen=True):
    """Close the connection with this code."""

    code: int
    reason: str


Outcome = Reply | Subscribe | Unsubscribe | Relay | Close


class ServerProtocol:
    r"""The server's half of one connection.

    Args:
        app: The application the client connected to, with its limits.
        socket_id: This connection's id, as `\d+.\d+`.
        now: The time, in seconds of any clock that does not run backwards.
    """

    __slots__ = (
        "_event_count",
        "_event_window",
        "_last_heard",
        "_pinged_at",
        "app",
        "channels",
        "socket_id",
        "user_id",
    )

    def __init__(self, app: App, socket_id: str, now: float) -> None:
        self.app = app
        self.socket_id = socket_id
        self.user_id: str | None = None
        # The channels this connection is in, and who it is there.
        self.channels: dict[str, Member | None] = {}
        self._last_heard = now
        self._pinged_at: float | None = None
        self._event_window = now
        self._event_count = 0

    def connection_established(self) -> bytes:
        """The first message to send."""
        data = {"socket_id": self.socket_id, "activity_timeout": self.app.activity_timeout}
        return encode("pusher:connection_established", _json(data))

    # Coming in

    def receive_message(self, text: str, now: float) -> Outcome | None:
        """Take one text message from the client.

        Returns:
            What is to be done; None for nothing.
        """
        self._last_heard = now
        try:
            frame = decode_client_frame(text)
        except MalformedFrame as exc:
            return _error(Code.RECONNECT, f"Invalid message format: {exc}")
        match frame.event:
            case "pusher:ping":
                return Reply(_PONG)
            case "pusher:pong":
                return None
            case "pusher:subscribe":
                return self._subscribe(frame)
            case "pusher:unsubscribe":
                return self._unsubscribe(frame)
            case "pusher:signin":
                return self._sign_in(frame)
            case event if event.startswith("client-"):
                return self._client_event(frame, now)
            case event:
                return _error(Code.RECONNECT, f"Unknown event {event[:80]!r}")

    def receive_activity(self, now: float) -> None:
        """Take note of a WebSocket ping or pong: the client lives."""
        self._last_heard = now

    # Time

    def next_timer(self) -> float:
        """When `handle_timer` must be called at the latest."""
        if self._pinged_at is not None and self._last_heard < self._pinged_at:
            return self._pinged_at + PONG_TIMEOUT
        return self._last_heard + self.app.activity_timeout

    def handle_timer(self, now: float) -> Reply | Close | None:
        """Ping who has been silent, close who stays so; calling it too early does nothing."""
        if now < self.next_timer():
            return None
        if self._pinged_at is not None and self._last_heard < self._pinged_at:
            return Close(Code.NO_PONG, "Pong reply not received in time")
        self._pinged_at = now
        return Reply(_PING)

    # Subscriptions

    def accept(self, request: Subscribe, members: dict[str, Member] | None = None) -> bytes:
        """Take note of a channel joined; the message to send.

        Args:
            request: What the client asked for.
            members: Who is in a presence channel, this client among them, by id.
        """
        self.channels[request.channel] = request.member
        data: dict[str, Any] = {}
        if members is not None:
            hash_ = {member.id: member.info for member in members.values()}
            data["presence"] = {"ids": list(hash_), "hash": hash_, "count": len(hash_)}
        return encode("pusher_internal:subscription_succeeded", _json(data), request.channel)

    def reject(self, channel: str, reason: str, status: int) -> bytes:
        """The message that tells a client why it is not in a channel."""
        data = {"type": "AuthError", "error": reason, "status": status}
        return encode("pusher:subscription_error", _json(data), channel)

    def _subscribe(self, frame: ClientFrame) -> Outcome:
        try:
            request = _data(frame, _SubscribeData)
            check_channel_name(request.channel, self.app.max_channel_name)
        except (MalformedFrame, InvalidName) as exc:
            return _error(Code.RECONNECT, f"Invalid subscription: {exc}")
        channel = request.channel
        if channel in self.channels:
            # Asked for twice, joined once: the answer is given again (as Reverb does).
            return Subscribe(channel, self.channels[channel])
        if len(self.channels) >= self.app.max_channels:
            limit = self.app.max_channels
            return Reply(self.reject(channel, f"A connection may join {limit} channels", 403))
        if needs_authorization(channel):
            return self._authorize(request)
        if access_of(channel) is Access.USER and (
            self.user_id is None or channel != user_channel(self.user_id)
        ):
            return Reply(self.reject(channel, "Sign in as this user first", 401))
        return Subscribe(channel)

    def _authorize(self, request: _SubscribeData) -> Outcome:
        app, channel = self.app, request.channel
        if not signing.verify_channel_auth(
            request.auth or "", app.key, app.secret, self.socket_id, channel, request.channel_data
        ):
            reason = "The signature is missing or not valid for this socket_id and channel"
            return Reply(self.reject(channel, reason, 401))
        if access_of(channel) is not Access.PRESENCE:
            return Subscribe(channel)
        channel_data = request.channel_data or ""
        if len(channel_data.encode("utf-8", "surrogatepass")) > app.max_member_size:
            reason = f"channel_data may have {app.max_member_size} bytes"
            return Reply(self.reject(channel, reason, 413))
        member = parse_channel_data(channel_data)
        if member is None:
            return Reply(self.reject(channel, "channel_data must name a user_id", 422))
        return Subscribe(channel, member)

    def _unsubscribe(self, frame: ClientFrame) -> Outcome | None:
        try:
            channel = _data(frame, _SubscribeData).channel
        except MalformedFrame as exc:
            return _error(Code.RECONNECT, f"Invalid unsubscription: {exc}")
        return Unsubscribe(channel) if channel in self.channels else None

    # Users

    def _sign_in(self, frame: ClientFrame) -> Outcome:
        try:
            request = _data(frame, _SignInData)
            user = msgspec.json.decode(request.user_data, type=_User)
        except (MalformedFrame, msgspec.MsgspecError, RecursionError):
            return _error(Code.UNAUTHORIZED, "Sign-in needs auth and user_data with an id")
        app = self.app
        if not user.id or not signing.verify_user_auth(
            request.auth, app.key, app.secret, self.socket_id, request.user_data
        ):
            return _error(Code.UNAUTHORIZED, "The sign-in's signature is not valid")
        if self.user_id not in (None, user.id):
            return _error(Code.UNAUTHORIZED, "This connection is signed in as another user")
        self.user_id = user.id
        return Reply(encode("pusher:signin_success", _json({"user_data": request.user_data})))

    # Client events

    def _client_event(self, frame: ClientFrame, now: float) -> Outcome | None:
        refusal = self._client_event_refusal(frame)
        if refusal is not None:
            return _error(Code.CLIENT_EVENT_REJECTED, refusal)
        if self._over_rate(now):
            limit = self.app.client_events_per_second
            return _error(
                Code.CLIENT_EVENT_REJECTED, f"More than {limit} client events in a second"
            )
        channel = frame.channel or ""
        member = self.channels[channel]
        user_id = member.id if member is not None else None
        data = frame.data if bytes(frame.data) else None
        return Relay(channel, encode(frame.event, data, channel, user_id))

    def _client_event_refusal(self, frame: ClientFrame) -> str | None:
        """Why a client event is not passed on, or None."""
        app, channel = self.app, frame.channel
        if not app.client_events:
            return "The app does not have client messaging enabled"
        if channel is None or channel not in self.channels:
            return "The client is not a member of the specified channel"
        if not takes_client_events(channel):
            return "Client events go through private and presence channels only"
        if len(bytes(frame.data)) > app.max_event_size:
            return f"A client event's data may have {app.max_event_size} bytes"
        try:
            check_event_name(frame.event)
        except InvalidName as exc:
            return str(exc)
        return None

    def _over_rate(self, now: float) -> bool:
        limit = self.app.client_events_per_second
        if now - self._event_window >= 1.0:
            self._event_window, self._event_count = now, 0
        self._event_count += 1
        return 0 < limit < self._event_count


class _SubscribeData(msgspec.Struct, frozen=True):
    channel: str
    auth: str | None = None
    channel_data: str | None = None


class _SignInData(msgspec.Struct, frozen=True):
    auth: str
    user_data: str


class _User(msgspec.Struct, frozen=True):
    id: str


def _data(frame: ClientFrame, type_: type[T]) -> T:
    """The `data` of a frame as a type; Reverb's clients may send it as a JSON string.

    Raises:
        MalformedFrame: It does not fit.
    """
    try:
        raw = bytes(frame.data)
        inner = msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else raw
        return msgspec.json.decode(inner, type=type_)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise MalformedFrame(str(exc)) from exc


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _error(code: int, message: str) -> Reply:
    return Reply(encode("pusher:error", {"code": int(code), "message": message}))

"""One connection as the server sees it: what a client may ask for, and what it is told.

No I/O and no clock. Whatever a stranger sends, `receive_message` gives back exactly one outcome
and raises nothing. What concerns other connections (who else is in a channel) is the hub's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

__all__ = [
    "Close",
    "Outcome",
    "Relay",
    "Reply",
    "ServerProtocol",
    "SignIn",
    "Subscribe",
    "Unsubscribe",
    "cache_miss",
    "subscription_count",
    "watchlist_events",
]

T = TypeVar("T")

MESSAGE_WINDOW: Final = 10
"""Seconds over which messages are counted: a page that joins its channels sends many at once."""
PONG_TIMEOUT: Final = 30.0
_PING: Final = encode("pusher:ping", {})
_PONG: Final = encode("pusher:pong", {})
_BARRED: Final = "This connection was taken out of the channel"


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
    """The client is in a channel no longer, nor on its way into it, if it was."""

    channel: str


class Relay(msgspec.Struct, frozen=True):
    """Send this client event to the channel's other members.

    Attributes:
        channel: The channel's name.
        message: The whole frame, as the others get it.
        event: The event's name.
        data: Its data, as JSON; empty without any.
        user_id: Who has sent it, on a presence channel.
    """

    channel: str
    message: bytes
    event: str
    data: bytes
    user_id: str | None


class SignIn(msgspec.Struct, frozen=True):
    """The client has proven who it is: send the messages, then what is known of the watched.

    Attributes:
        user_id: Who it is.
        watchlist: Users whose coming and going it wants to be told of.
        messages: The answer, and a complaint about a watchlist that is too long.
    """

    user_id: str
    watchlist: tuple[str, ...]
    messages: tuple[bytes, ...]


class Close(msgspec.Struct, frozen=True):
    """Close the connection with this code."""

    code: int
    reason: str


Outcome = Reply | Subscribe | Unsubscribe | SignIn | Relay | Close


class ServerProtocol:
    r"""The server's half of one connection.

    Args:
        app: The application the client connected to, with its limits.
        socket_id: This connection's id, as `\d+.\d+`.
        now: The time, in seconds of any clock that does not run backwards.
    """

    __slots__ = (
        "_authorize_by",
        "_barred",
        "_event_count",
        "_event_window",
        "_last_heard",
        "_message_count",
        "_message_window",
        "_pinged_at",
        "_subscribe_by",
        "app",
        "channels",
        "socket_id",
        "user",
    )

    def __init__(self, app: App, socket_id: str, now: float) -> None:
        self.app = app
        self.socket_id = socket_id
        # Who has signed in, and what was said of them.
        self.user: Member | None = None
        # The channels this connection is in, and who it is there.
        self.channels: dict[str, Member | None] = {}
        self._last_heard = now
        self._pinged_at: float | None = None
        self._event_window = now
        self._event_count = 0
        self._message_window = now
        self._message_count = 0
        # When it must have shown that it may be here; None once it has.
        timeout = app.authorization_timeout
        self._authorize_by = now + timeout if timeout else None
        # When it is looked whether it is in a channel; None if nobody asks.
        timeout = app.subscription_timeout
        self._subscribe_by = now + timeout if timeout else None
        # Channels it was taken out of; None for none, as nearly always.
        self._barred: set[str] | None = None

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
        if self._talks_too_much(now):
            return self._too_much()
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

    def receive_activity(self, now: float) -> Close | None:
        """Take note of a WebSocket ping or pong, or of a fragment: the client lives.

        Returns:
            The end, if there are too many of them; they count as messages.
        """
        self._last_heard = now
        return self._too_much() if self._talks_too_much(now) else None

    def change(self, app: App, now: float) -> None:
        """Serve the application as it is from now on; what is in time is counted anew from here."""
        before, self.app = self.app, app
        if app.authorization_timeout != before.authorization_timeout:
            is_known = self.user is not None or any(map(needs_authorization, self.channels))
            timeout = 0 if is_known else app.authorization_timeout
            self._authorize_by = now + timeout if timeout else None
        if app.subscription_timeout != before.subscription_timeout:
            timeout = app.subscription_timeout
            self._subscribe_by = now + timeout if timeout else None

    # Time

    def next_timer(self) -> float:
        """When `handle_timer` must be called at the latest."""
        due = self._last_heard + self.app.activity_timeout
        if self._pinged_at is not None and self._last_heard < self._pinged_at:
            due = self._pinged_at + PONG_TIMEOUT
        if self._authorize_by is not None:
            due = min(due, self._authorize_by)
        return due if self._subscribe_by is None else min(due, self._subscribe_by)

    def handle_timer(self, now: float) -> Reply | Close | None:
        """Ping who has been silent, close who stays so; calling it too early does nothing.

        Who has to sign in or join a private channel and has not is closed too (Pusher
        documentation, *authorized connections*); so is who is in no channel for longer than the
        application allows.
        """
        if now < self.next_timer():
            return None
        if self._authorize_by is not None and now >= self._authorize_by:
            return Close(Code.UNAUTHORIZED, "Connection not authorized within timeout")
        if self._subscribe_by is not None and now >= self._subscribe_by:
            if not self.channels and self.user is None:
                return Close(Code.INACTIVE, "In no channel for too long")
            self._subscribe_by = now + self.app.subscription_timeout
            if now < self.next_timer():
                return None
        if self._pinged_at is not None and self._last_heard < self._pinged_at:
            return Close(Code.NO_PONG, "Pong reply not received in time")
        self._pinged_at = now
        return Reply(_PING)

    # Subscriptions

    def accept(self, request: Subscribe, members: Mapping[str, Member] | None = None) -> bytes:
        """Take note of a channel joined; the message to send.

        Args:
            request: What the client asked for.
            members: Who is in a presence channel, this client among them, by id; it says nothing
                for another kind.
        """
        self.channels[request.channel] = request.member
        if needs_authorization(request.channel):
            self._authorize_by = None
        data: dict[str, Any] = {}
        if members is not None and access_of(request.channel) is Access.PRESENCE:
            hash_ = {member.id: member.info for member in members.values()}
            data["presence"] = {"ids": list(hash_), "hash": hash_, "count": len(hash_)}
        return encode("pusher_internal:subscription_succeeded", _json(data), request.channel)

    def reject(self, channel: str, reason: str, status: int) -> bytes:
        """The message that tells a client why it is not in a channel."""
        data = {"type": "AuthError", "error": reason, "status": status}
        return encode("pusher:subscription_error", _json(data), channel)

    def bar(self, channel: str) -> bytes | None:
        """Take the client out of a channel for good; the message that tells it, if it was in.

        A signature holds as long as the connection, so the one it has must not serve again.
        """
        if self._barred is None:
            self._barred = set()
        self._barred.add(channel)
        if channel not in self.channels:
            return None
        del self.channels[channel]
        return self.reject(channel, _BARRED, 403)

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
        if self._barred is not None and channel in self._barred:
            return Reply(self.reject(channel, _BARRED, 403))
        if len(self.channels) >= self.app.max_channels:
            limit = self.app.max_channels
            return Reply(self.reject(channel, f"A connection may join {limit} channels", 403))
        if needs_authorization(channel):
            return self._authorize(request)
        if access_of(channel) is Access.USER and (
            self.user is None or channel != user_channel(self.user.id)
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
        if request.channel_data is None and self.user is not None:
            return Subscribe(channel, self.user)  # as pusher-js does it after a sign-in
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
        return Unsubscribe(channel)

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
        if self.user is not None and self.user.id != user.id:
            return _error(Code.UNAUTHORIZED, "This connection is signed in as another user")
        self.user = Member(user.id, user.user_info)
        self._authorize_by = None
        success = encode("pusher:signin_success", _json({"user_data": request.user_data}))
        watchlist = tuple(dict.fromkeys(user.watchlist))
        limit = app.max_watchlist
        if len(watchlist) <= limit:
            return SignIn(user.id, watchlist, (success,))
        complaint = f"A watchlist has at most {limit} users; the first {limit} are watched"
        error = _error(Code.WATCHLIST_LIMIT, complaint).message
        return SignIn(user.id, watchlist[:limit], (success, error))

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
        data = bytes(frame.data)
        message = encode(frame.event, frame.data if data else None, channel, user_id)
        return Relay(channel, message, frame.event, data, user_id)

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

    def _talks_too_much(self, now: float) -> bool:
        if now - self._message_window >= MESSAGE_WINDOW:
            self._message_window, self._message_count = now, 0
        self._message_count += 1
        return 0 < self.app.messages_per_second * MESSAGE_WINDOW < self._message_count

    def _too_much(self) -> Close:
        limit = self.app.messages_per_second
        return Close(Code.OVER_CAPACITY, f"More than {limit} messages a second")

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
    user_info: Any = None
    watchlist: tuple[str, ...] = ()


# What concerns more than one connection


def cache_miss(channel: str) -> bytes:
    """The message that tells a subscriber of a cache channel that nothing is kept of it."""
    return encode("pusher:cache_miss", None, channel)


def subscription_count(channel: str, count: int) -> bytes:
    """The message that tells subscribers how many they are."""
    data = _json({"subscription_count": count})
    return encode("pusher_internal:subscription_count", data, channel)


def watchlist_events(*events: tuple[str, Iterable[str]]) -> bytes:
    """The message that tells who has come or gone.

    Args:
        *events: `online` or `offline`, and the users' ids.
    """
    told = [{"name": name, "user_ids": list(user_ids)} for name, user_ids in events]
    return encode("pusher_internal:watchlist_events", _json({"events": told}))


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

"""One connection as the client sees it: handshake, events, liveness, end.

No I/O and no clock. Text goes in through `receive_message`, the passing of time through
`handle_timer`; each gives back at most one event. What must be written is in `data_to_send`.
A machine lives as long as one connection; the next one needs a new machine.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from antiphon.errors import (
    AntiphonError,
    MalformedFrame,
    ServerReportedError,
    SignInFailed,
    SubscriptionFailed,
)

from .channels import needs_authorization
from .closing import Action, Code, action_for
from .events import (
    CacheMissed,
    Closed,
    Connected,
    MemberAdded,
    MemberRemoved,
    ProtocolEvent,
    SignedIn,
    SubscriptionCounted,
    SubscriptionSucceeded,
    WatchlistChanged,
)
from .frames import (
    NAMELESS,
    UNUSUAL,
    Event,
    decode_event,
    decode_odd_event,
    decode_usual_event,
    encode,
)
from .presence import parse_member, parse_members

__all__ = ["ClientProtocol", "Received", "State", "adapted_activity_timeout"]

Received = Event | ProtocolEvent | AntiphonError
"""What one message or timer gives: an event of the application's, of the protocol's, or an error.

Errors are values here; none of them is raised, and none of them ends the connection: `Closed` does.
"""

_MIN_ACTIVITY_TIMEOUT: Final = 10.0
_LEAST_TIMEOUT: Final = 1.0
_SIGN_IN: Final = "pusher:signin"


class State(Enum):
    """Where a connection is in its life."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSED = "closed"


# Hot path: no look-up in the enum, no call in between.
_OPEN: Final = State.OPEN
_decode_usual_event: Final = decode_usual_event


class ClientProtocol:
    """The client's half of one connection.

    Args:
        now: The time, in seconds of any clock that does not run backwards.
        activity_timeout: Seconds of silence before the client pings; the server's is used if
            it is smaller (Pusher protocol 7, *ping and pong*; 120 is the recommended value).
        pong_timeout: Seconds to wait for any answer to that ping.
        handshake_timeout: Seconds to wait for `pusher:connection_established`.
    """

    def __init__(
        self,
        now: float,
        *,
        activity_timeout: float = 120.0,
        pong_timeout: float = 30.0,
        handshake_timeout: float = 10.0,
    ) -> None:
        self.state = State.HANDSHAKE
        self.socket_id: str | None = None
        self.activity_timeout = activity_timeout
        self._pong_timeout = pong_timeout
        # Longer, and nobody was awake to ping: this machine slept, and the server has gone.
        self._longest_silence = activity_timeout + pong_timeout
        self._handshake_deadline = now + handshake_timeout
        self._last_heard = now
        self._pinged_at: float | None = None
        self.round_trip: float | None = None
        self._outgoing: list[bytes] = []
        # Subscribes (and a sign-in) without an answer yet, oldest first: answers come in order.
        self._pending: dict[str, None] = {}
        # The last frame, if it was an error that says when to come back: servers that cannot
        # close with a code say it so.
        self._last_error: int | None = None

    # Coming in

    def receive_message(self, payload: str | bytes | memoryview, now: float) -> Received | None:
        """Take one message from the server.

        The protocol has only text; what comes as binary is taken as if it were, as Reverb does.

        Returns:
            What it means, or None for what the machine deals with itself, such as a ping.
        """
        if self.state is not _OPEN:
            return self._receive_early(payload, now)
        if now is not self._last_heard:  # all messages of one read have the same
            if now - self._last_heard > self._longest_silence:
                return self._fell_silent(now)
            self._last_heard = now
        try:
            event = _decode_usual_event(payload)
        except UNUSUAL:
            try:
                event = decode_odd_event(payload)
            except MalformedFrame as exc:
                # Frames would keep the message for as long as somebody keeps the error.
                exc.__cause__ = exc.__context__ = None
                return exc.with_traceback(None)
        self._last_error = None
        return _HANDLERS[event.name](self, event) if event.name in _HANDLERS else event

    def _receive_early(self, payload: str | bytes | memoryview, now: float) -> Received | None:
        if self.state is State.CLOSED:
            return None
        self._last_heard = now
        try:
            return self._handshake(decode_event(payload))
        except MalformedFrame as exc:
            return self._close(Action.BACK_OFF, None, f"This is no Pusher server: {exc}")

    def receive_activity(self, now: float) -> None:
        """Take note of a WebSocket ping or pong: the peer lives."""
        self._last_heard = now

    def keep_alive(self, now: float) -> None:
        """Tell the peer that this end lives, and take its silence for the reader's own doing."""
        self._last_heard = now
        self._pinged_at = None
        self._outgoing.append(encode("pusher:ping", {}))

    def receive_close(self, code: int | None, reason: str = "") -> Closed | None:
        """Take the end of the connection.

        Args:
            code: The code of the peer's close frame; None if TCP ended without one.
            reason: The close frame's words.

        Returns:
            What to do next; None if the machine has already said so.
        """
        if self.state is State.CLOSED:
            return None
        clean = code is not None and code != Code.ABNORMAL
        # Reverb sends its reason in-band and then ends without a code (PROTOCOL §1.10).
        if (code is None or code < 4000) and self._last_error is not None:
            code = self._last_error
        if not reason:
            reason = "The connection ended" + ("." if code is None else f" with code {code}.")
        return self._close(action_for(code), code, reason, clean=clean)

    # Time

    def next_timer(self) -> float | None:
        """When `handle_timer` must be called at the latest; None once closed."""
        if self.state is State.CLOSED:
            return None
        if self.state is State.HANDSHAKE:
            return self._handshake_deadline
        if self._pinged_at is not None and self._last_heard < self._pinged_at:
            return self._pinged_at + self._pong_timeout
        return self._last_heard + self.activity_timeout

    def handle_timer(self, now: float) -> Received | None:
        """Do what is due; calling it too early does nothing."""
        due = self.next_timer()
        if due is None or now < due:
            return None
        if self.state is State.HANDSHAKE:
            reason = "The server did not say pusher:connection_established in time."
            return self._close(Action.BACK_OFF, None, reason)
        waiting = self._pinged_at is not None and self._last_heard < self._pinged_at
        # After a machine has slept, a ping would only prove what the silence already does.
        if waiting or now - self._last_heard >= self._longest_silence:
            return self._fell_silent(now)
        self._pinged_at = now
        self._outgoing.append(encode("pusher:ping", {}))
        return None

    def _fell_silent(self, now: float) -> Closed:
        reason = f"The server was silent for {now - self._last_heard:.0f} seconds."
        return self._close(Action.RECONNECT, Code.NO_PONG, reason)

    def quiet_for(self, now: float) -> float:
        """Seconds for which nothing has come."""
        return now - self._last_heard

    # Going out

    def data_to_send(self) -> list[bytes]:
        """Messages to write now, in order; each is given once."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing if self.state is not State.CLOSED else []

    def subscribe(
        self, channel: str, auth: str | None = None, channel_data: str | None = None
    ) -> None:
        """Ask to join a channel; `SubscriptionSucceeded` or `SubscriptionFailed` follows.

        Args:
            channel: The channel's name.
            auth: The signature, on private and presence channels.
            channel_data: The signed user, on presence channels: sent exactly as signed.
        """
        data = {"channel": channel}
        if auth is not None:
            data["auth"] = auth
        if channel_data is not None:
            data["channel_data"] = channel_data
        self._pending[channel] = None
        self._outgoing.append(encode("pusher:subscribe", data))

    def unsubscribe(self, channel: str) -> None:
        """Leave a channel; no answer follows."""
        self._pending.pop(channel, None)
        self._outgoing.append(encode("pusher:unsubscribe", {"channel": channel}))

    def trigger(self, channel: str, event: str, data: Any) -> None:
        """Send a client event to the other members of a channel."""
        self._outgoing.append(encode(event, data, channel))

    def sign_in(self, auth: str, user_data: str) -> None:
        """Say who the user is; `SignedIn` follows."""
        self._pending[_SIGN_IN] = None
        self._outgoing.append(encode(_SIGN_IN, {"auth": auth, "user_data": user_data}))

    # The handshake

    def _handshake(self, event: Event) -> Received:
        if event.name == "pusher:error":
            code, message = _error(event)
            return self._close(action_for(code), code, message)
        data = event.data
        if event.name != "pusher:connection_established" or not isinstance(data, dict):
            reason = f"This is no Pusher server: its first word was {event.name[:60]!r}."
            return self._close(Action.BACK_OFF, None, reason)
        socket_id, timeout = data.get("socket_id"), data.get("activity_timeout")
        if not isinstance(socket_id, str) or not socket_id:
            return self._close(Action.BACK_OFF, None, "The server gave no socket_id.")
        # pusher-js fails without it; a missing number costs us nothing.
        if isinstance(timeout, int | float) and 0 < timeout < self.activity_timeout:
            self.activity_timeout = min(self.activity_timeout, max(float(timeout), _LEAST_TIMEOUT))
        self._longest_silence = self.activity_timeout + self._pong_timeout
        self.state = State.OPEN
        self.socket_id = socket_id
        return Connected(socket_id, self.activity_timeout)

    # Frames of the protocol, on an open connection

    def _on_nothing(self, event: Event) -> Received:
        return MalformedFrame(NAMELESS)

    def _on_ping(self, event: Event) -> None:
        self._outgoing.append(encode("pusher:pong", {}))

    def _on_pong(self, event: Event) -> None:
        # Any message proves that the peer lives; this one also says how far away it is.
        if self._pinged_at is not None:
            self.round_trip = self._last_heard - self._pinged_at
            self._pinged_at = None

    def _on_error(self, event: Event) -> Received:
        code, message = _error(event)
        meant = self._meant_by(code, message)
        if meant == _SIGN_IN:
            del self._pending[_SIGN_IN]
            words = message.rstrip(".")
            text = f"The server refused the sign-in: {words}. (Laravel Reverb has none.)"
            return SignInFailed(text, code=code)
        if meant is not None:
            return self._refused(meant, message, code)
        if code is not None and 4000 <= code < 4100 and code != Code.UNAUTHORIZED:
            return self._close(action_for(code), code, message)
        if code is not None and 4100 <= code < 4300:
            self._last_error = code
        return ServerReportedError(f"The server reports: {message}", code=code)

    def _meant_by(self, code: int | None, message: str) -> str | None:
        """What an error without a channel answers, as Reverb's do: a subscribe, a sign-in, or None.

        Reverb answers in order, so it is the oldest without an answer that can be meant: with
        4009 "Connection is unauthorized" one that is signed, with 4200 "Invalid message format"
        one whose `channel_data` it dislikes. The same codes in other words are about client
        events or a sign-in (PROTOCOL §1.3, §1.10).
        """
        words = message.lower()
        if code == Code.UNAUTHORIZED and "unauthorized" in words:
            return next((name for name in self._pending if needs_authorization(name)), None)
        if code == Code.RECONNECT and "invalid message" in words:
            # Reverb knows no sign-in.
            odd = (n for n in self._pending if n == _SIGN_IN or n.startswith("presence-"))
            return next(odd, None)
        return None

    def _on_subscription_succeeded(self, event: Event) -> Received:
        if event.channel is None:
            return event
        self._answered(event.channel)
        members = parse_members(event.raw) if event.channel.startswith("presence-") else {}
        return SubscriptionSucceeded(event.channel, members)

    def _on_subscription_error(self, event: Event) -> Received:
        if event.channel is None:
            return event
        data = event.data
        fields = data if isinstance(data, dict) else {}
        status = fields.get("status", fields.get("code"))
        message = _words(fields.get("error") or fields.get("message"), "no reason given")
        return self._refused(event.channel, message, status if isinstance(status, int) else None)

    def _refused(self, channel: str, message: str, code: int | None) -> SubscriptionFailed:
        self._answered(channel)
        return SubscriptionFailed(
            f"The server refused {channel}: {message.rstrip('.')}.", channel=channel, code=code
        )

    def _answered(self, channel: str) -> None:
        """A subscribe has its answer, and so have all before it: some servers leave one out."""
        if channel in self._pending:
            while next(iter(self._pending)) != channel:
                del self._pending[next(iter(self._pending))]
            del self._pending[channel]

    def _on_subscription_count(self, event: Event) -> Received:
        data = event.data
        count = data.get("subscription_count") if isinstance(data, dict) else None
        if event.channel is None or not isinstance(count, int):
            return event
        return SubscriptionCounted(event.channel, count)

    def _on_member_added(self, event: Event) -> Received:
        member = parse_member(event.raw)
        if event.channel is None or member is None:
            return event
        return MemberAdded(event.channel, member)

    def _on_member_removed(self, event: Event) -> Received:
        member = parse_member(event.raw)
        if event.channel is None or member is None:
            return event
        return MemberRemoved(event.channel, member.id)

    def _on_cache_miss(self, event: Event) -> Received:
        return event if event.channel is None else CacheMissed(event.channel)

    def _on_signin_success(self, event: Event) -> Received:
        was_asked = _SIGN_IN in self._pending
        self._answered(_SIGN_IN)
        data = event.data
        # `user_data` is JSON in a string, inside `data`, which is JSON in a string.
        user = Event(name="", raw=data.get("user_data") if isinstance(data, dict) else None).data
        id_ = user.get("id") if isinstance(user, dict) else None
        if not isinstance(id_, str | int) or isinstance(id_, bool) or id_ == "":
            if was_asked:
                return SignInFailed("The server accepted the sign-in, but of no user with an id.")
            return event
        return SignedIn(str(id_), user)

    def _on_watchlist(self, event: Event) -> Received:
        data = event.data
        changes = data.get("events") if isinstance(data, dict) else None
        if not isinstance(changes, list):
            return event
        # In one frame a user may go and come again: the last word counts.
        last: dict[str, Any] = {}
        for change in changes:
            if isinstance(change, dict) and isinstance(change.get("user_ids"), list):
                name = change.get("name")
                if name in ("online", "offline"):
                    last.update(dict.fromkeys(map(str, change["user_ids"]), name))
        online = tuple(user for user, name in last.items() if name == "online")
        offline = tuple(user for user, name in last.items() if name == "offline")
        return WatchlistChanged(online, offline)

    # The end

    def _close(
        self, action: Action, code: int | None, reason: str, *, clean: bool = False
    ) -> Closed:
        opened = self.state is State.OPEN
        self.state = State.CLOSED
        self._outgoing.clear()
        return Closed(action, code, reason, opened, clean)


_HANDLERS: Final[dict[str, Callable[[ClientProtocol, Event], Received | None]]] = {
    "": ClientProtocol._on_nothing,
    "pusher:ping": ClientProtocol._on_ping,
    "pusher:pong": ClientProtocol._on_pong,
    "pusher:error": ClientProtocol._on_error,
    "pusher_internal:subscription_succeeded": ClientProtocol._on_subscription_succeeded,
    "pusher:subscription_error": ClientProtocol._on_subscription_error,
    "pusher_internal:subscription_count": ClientProtocol._on_subscription_count,
    "pusher_internal:member_added": ClientProtocol._on_member_added,
    "pusher_internal:member_removed": ClientProtocol._on_member_removed,
    "pusher:cache_miss": ClientProtocol._on_cache_miss,
    "pusher:signin_success": ClientProtocol._on_signin_success,
    "pusher_internal:watchlist_events": ClientProtocol._on_watchlist,
}


def adapted_activity_timeout(activity_timeout: float, quiet: float) -> float:
    """The activity timeout to use after a connection broke without a word.

    A network that drops quiet connections is pinged more often the next time: half of what it
    let live, at least 10 s (pusher-js, `assistant_to_the_transport_manager.ts`, which goes by how
    long the connection was open; but one that breaks in the midst of talk says nothing of that).

    Args:
        activity_timeout: Seconds, as used on the broken connection.
        quiet: Seconds for which nothing had come when it broke.
    """
    if quiet < _MIN_ACTIVITY_TIMEOUT:
        return activity_timeout
    return min(activity_timeout, max(quiet / 2, _MIN_ACTIVITY_TIMEOUT))


def _error(event: Event) -> tuple[int | None, str]:
    """Code and words of a `pusher:error`, whatever its shape."""
    data = event.data
    if not isinstance(data, dict):
        return None, _words(data)
    code = data.get("code")
    if isinstance(code, str) and len(code) == 4 and code.isascii() and code.isdigit():
        code = int(code)
    # Nothing above fits into a close frame, and a number of a million digits cannot be printed.
    known = isinstance(code, int) and not isinstance(code, bool) and 0 <= code <= 0xFFFF
    return code if known else None, _words(data.get("message"))


def _words(value: Any, default: str = "an error without a reason") -> str:
    """What a server says, as text, whatever it is."""
    try:
        return str(value or default)
    except (RecursionError, ValueError):  # nested too deep, or a number of a million digits
        return default

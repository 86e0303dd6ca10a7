"""The WebSocket connection of an examination, and what can be seen on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from antiphon.errors import AntiphonError, MalformedFrame, ServerReportedError, SubscriptionFailed
from antiphon.protocol.channels import Access, access_of, needs_authorization
from antiphon.protocol.client import ClientProtocol, Received
from antiphon.protocol.closing import Action, Code, action_for
from antiphon.protocol.events import Closed, Connected, SubscriptionSucceeded
from antiphon.protocol.frames import Event, decode_event
from antiphon.protocol.signing import channel_auth

from .steps import Advice, Finding, failed, ok, warning

if TYPE_CHECKING:
    from antiphon.client.transport import Link

    from .case import Case

__all__ = ["Session", "check_activity", "check_key", "check_subscription", "why_closed"]


class Heard(NamedTuple):
    """A message, or an end: as it came, and what it means to a client."""

    event: Event | None
    meaning: Received | None


class Session:
    """One connection, read message by message.

    Args:
        timeout: Seconds to wait for a message.

    Attributes:
        link: The socket, once it is open.
        socket_id: The connection's id, once the server has named it.
        activity_timeout: Seconds of silence after which the server wants to be pinged; None if it
            has not said so.
        joined: The channels that it has let this connection join.
        closed: How it has ended, if it has.
    """

    def __init__(self, timeout: float) -> None:
        self.link: Link | None = None
        self.socket_id = ""
        self.activity_timeout: float | None = None
        self.joined: set[str] = set()
        self.closed: Closed | None = None
        self._timeout = timeout
        self._machine = ClientProtocol(monotonic(), handshake_timeout=timeout)
        self._heard: asyncio.Queue[Heard] = asyncio.Queue()

    async def hear(self, wanted: Callable[[Heard], bool]) -> Heard:
        """The next message that is wanted, or the end; what comes before is passed over.

        Raises:
            TimeoutError: Neither came.
        """
        async with asyncio.timeout(self._timeout):
            while self.closed is None or not self._heard.empty():
                heard = await self._heard.get()
                if isinstance(heard.meaning, Closed) or wanted(heard):
                    return heard
        return Heard(None, self.closed)

    def ping(self) -> None:
        """Say `pusher:ping`."""
        self._machine.keep_alive(monotonic())
        self._flush()

    def subscribe(self, channel: str, auth: str | None, channel_data: str | None) -> None:
        """Ask to join a channel."""
        self._machine.subscribe(channel, auth, channel_data)
        self._flush()

    def close(self) -> None:
        """Hang up."""
        if self.link is not None:
            self.link.abort()

    # What the link calls

    def receive(self, payload: bytes, now: float) -> Received | None:
        """A text message has arrived."""
        try:
            event = decode_event(payload)
        except MalformedFrame:
            event = None
        meaning = self._machine.receive_message(payload, now)
        self._take(event, meaning)
        return meaning

    def deliver(self, event: Event) -> None:
        """It was an event, and is taken note of."""

    def handle(self, received: Received | None) -> None:
        """It was something else, and is taken note of."""

    def connected(self, link: Link) -> None:
        """The upgrade is done."""
        self.link = link

    def alive(self) -> None:
        """A WebSocket ping or pong has arrived."""

    def disconnected(self, code: int | None, reason: str) -> None:
        """The socket is closed."""
        self._take(None, self._machine.receive_close(code, reason))

    def _take(self, event: Event | None, meaning: Received | None) -> None:
        match meaning:
            case Connected():
                self.socket_id = meaning.socket_id
                data = event.data if event is not None else None
                number = data.get("activity_timeout") if isinstance(data, dict) else None
                if isinstance(number, int | float) and number > 0:
                    self.activity_timeout = number
            case SubscriptionSucceeded():
                self.joined.add(meaning.channel)
            case Closed():
                self.closed = meaning
        self._heard.put_nowait(Heard(event, meaning))
        self._flush()

    def _flush(self) -> None:
        if self.link is not None:
            for message in self._machine.data_to_send():
                self.link.send(message)


# The key


async def check_key(case: Case) -> Finding:
    """Whether the server knows the application, and takes this connection."""
    session = _session(case)
    try:
        heard = await session.hear(lambda heard: isinstance(heard.meaning, Connected))
    except TimeoutError:
        return failed(f"no pusher:connection_established in {case.timeout:g} s", _NOT_PUSHER)
    if isinstance(heard.meaning, Closed):
        return failed(_told(case, heard.meaning), why_closed(case, heard.meaning))
    return ok(case.hide(f"the application exists; socket_id {session.socket_id}"))


_NOT_PUSHER: Final = Advice(
    "Something else speaks WebSocket at this address, such as Vite's own server (5173) or"
    " laravel-echo-server's Socket.IO (6001).",
    "Check REVERB_HOST and REVERB_PORT: 8080 is Reverb's own port unless REVERB_SERVER_PORT says"
    " another.",
)


def _told(case: Case, closed: Closed) -> str:
    code = f"{closed.code}: " if closed.code is not None else ""
    return case.hide(f"{code}{closed.reason[:200]}")


def why_closed(case: Case, closed: Closed) -> Advice:
    """What the end of a connection means."""
    code = closed.code
    if code == Code.UNKNOWN_APP:
        return Advice(
            f"No application of this server has the key {case.hide(case.settings.app_key)!r}.",
            "Compare REVERB_APP_KEY here with the server's .env (config/reverb.php, apps); after a"
            " change there: php artisan config:clear, then php artisan reverb:restart.",
        )
    if code == Code.UNAUTHORIZED and not closed.opened:
        said = case.origin or "none"
        return Advice(
            f"The server takes certain origins only, and not the one it was told ({said}).",
            "Add the page's host to allowed_origins in config/reverb.php, or '*'. To try as a page"
            " would: --origin https://your.site.",
        )
    if code is None and not closed.opened and closed.reason.startswith("This is no Pusher"):
        return _NOT_PUSHER
    if code in _CODES:
        return _CODES[code]
    if code is None or code < 4000:
        return _HUNG_UP
    match action_for(code):
        case Action.BACK_OFF:
            return Advice("The server cannot take the connection now.", "Try again in a minute.")
        case Action.RECONNECT:
            return _RESTARTING
    return Advice("The server refuses this client for good.", "See the server's own words.")


_VERSION: Final = Advice(
    "The server does not take this version of the protocol, or a proxy cuts the query string off.",
    "Update the server; in nginx, proxy_pass without a path of its own keeps the query.",
)
_RESTARTING: Final = Advice(
    "The server asks to come back at once: it is being restarted, or ends by itself.",
    "Try again; if it goes on, look at Supervisor's log for what ends the server.",
)
_HUNG_UP: Final = Advice(
    "The server or a proxy ended the connection without saying why.",
    "See what the server says: php artisan reverb:start --debug. A proxy ends quiet connections"
    " (nginx: proxy_read_timeout, 60 s), and Reverb without ext-uv ends at 1,024 connections.",
)
_CODES: Final = {
    4000: Advice(
        "The application takes connections with TLS only.",
        "Set REVERB_SCHEME=https and REVERB_PORT to the TLS port (443).",
    ),
    4003: Advice("The application is disabled on the server.", "Enable it there."),
    4004: Advice(
        "The application has as many connections as it may.",
        "Raise max_connections (REVERB_APP_MAX_CONNECTIONS), or find out who keeps so many open.",
    ),
    4005: Advice(
        "The server knows no application at this path.",
        "Check the path (--path here, path in Settings, wsPath in Echo).",
    ),
    4006: _VERSION,
    4007: _VERSION,
    4008: _VERSION,
    4009: Advice(
        "The server wants every connection to sign in, or to join a private channel, soon.",
        "Give --channel with a private channel, or switch authorized connections off.",
    ),
    4100: Advice(
        "The server has no room for another connection.",
        "Try again in a minute; if it goes on, raise its limits (max connections, ulimit -n), or"
        " run more servers.",
    ),
    1009: Advice(
        "The server takes no message as large as the one it was sent.",
        "Raise max_message_size in config/reverb.php.",
    ),
    1011: Advice(
        "The server met an error of its own.",
        "Look at its log: php artisan reverb:start --debug.",
    ),
    1012: _RESTARTING,
    1013: Advice("The server is overloaded.", "Try again in a minute."),
}


# The activity


async def check_activity(case: Case) -> Finding:
    """Whether messages go there and back."""
    session = _session(case)
    started = monotonic()
    session.ping()
    try:
        heard = await session.hear(
            lambda heard: heard.event is not None and heard.event.name == "pusher:pong"
        )
    except TimeoutError:
        return failed(
            f"no pusher:pong in {case.timeout:g} s",
            Advice(
                "What is sent does not reach the server, or nothing comes back: a proxy holds"
                " messages up, or the server hangs.",
                "Connect to the server's own port: if that works it is the proxy, otherwise restart"
                " the server (php artisan reverb:restart).",
            ),
        )
    if isinstance(heard.meaning, Closed):
        return failed(_told(case, heard.meaning), why_closed(case, heard.meaning))
    back = f"pusher:ping and back in {(monotonic() - started) * 1000:.1f} ms"
    if session.activity_timeout is not None:
        return ok(f"activity_timeout {session.activity_timeout:g} s; {back}")
    return warning(
        f"no activity_timeout; {back}",
        Advice(
            "The server does not say after how much silence it wants to be pinged.",
            "Update the server: pusher-js and Echo do not connect without it.",
        ),
    )


# The subscription


async def check_subscription(case: Case) -> Finding:
    """Whether the server lets this connection join the channel."""
    session, settings = _session(case), case.settings
    channel = case.channel or case.own_channel
    auth = channel_data = None
    if case.authorization is not None:
        auth, channel_data = case.authorization.auth, case.authorization.channel_data
        signer = "signed by the auth endpoint"
    elif needs_authorization(channel):
        if access_of(channel) is Access.PRESENCE:
            channel_data = '{"user_id":"antiphon-doctor","user_info":{}}'
        auth = channel_auth(
            settings.app_key, settings.app_secret, session.socket_id, channel, channel_data
        )
        signer = "signed here"
    else:
        signer = "public"
    session.subscribe(channel, auth, channel_data)
    try:
        heard = await session.hear(lambda heard: _is_answer(heard.meaning, channel))
    except TimeoutError:
        return failed(
            f"no answer for {channel} in {case.timeout:g} s",
            Advice(
                "The server dislikes the subscription and does not say why, or it hangs.",
                "See what it says: php artisan reverb:start --debug.",
            ),
        )
    meaning = heard.meaning
    if isinstance(meaning, SubscriptionSucceeded):
        return ok(f"joined {channel} ({signer})")
    if isinstance(meaning, Closed):
        return failed(_told(case, meaning), why_closed(case, meaning))
    assert isinstance(meaning, AntiphonError)
    return failed(case.hide(str(meaning)), _why_refused(case, meaning))


def _is_answer(meaning: Received | None, channel: str) -> bool:
    if isinstance(meaning, SubscriptionSucceeded | SubscriptionFailed):
        return meaning.channel == channel
    return isinstance(meaning, ServerReportedError)


def _why_refused(case: Case, refusal: AntiphonError) -> Advice:
    signed = needs_authorization(case.channel)
    if signed and refusal.code in (401, 403, Code.UNAUTHORIZED):
        if case.suspicion:
            who = f"The auth endpoint signs with another {case.suspicion} than the server has."
        elif case.authorization is None:
            who = "The server has another secret than REVERB_APP_SECRET here."
        elif case.settings.app_secret:
            who = "The server has another secret than REVERB_APP_SECRET here and at the endpoint."
        else:
            who = "The auth endpoint signs with another key or secret than the server has."
        return Advice(
            who,
            "Let REVERB_APP_KEY and REVERB_APP_SECRET be the same for the web application and for"
            " Reverb; then php artisan config:clear, php artisan reverb:restart.",
        )
    if refusal.code == Code.RECONNECT and case.channel.startswith("presence-"):
        return Advice(
            "Reverb dislikes the channel_data: a presence channel needs user_id and user_info.",
            "Let the channel's callback in routes/channels.php return an array such as"
            " ['id' => $user->id, 'name' => $user->name].",
        )
    if refusal.code in (4004, 4100) or "limit" in str(refusal).lower():
        return Advice(
            "A limit of the server is reached: members of the channel, channels, or messages.",
            "Raise it on the server, or try another channel.",
        )
    return Advice(
        "The server does not take this channel.",
        "Check its name: letters, digits and _ - = @ , . ; and at most 164 characters.",
    )


def _session(case: Case) -> Session:
    assert case.session is not None, "the upgrade was a success"
    return case.session

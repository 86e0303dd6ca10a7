"""Every error antiphon raises or reports.

AntiphonError
├── SettingsError                 a setting is missing or wrong (also a ValueError)
├── InvalidName                   a name the protocol does not allow (also a ValueError)
├── ConnectionFailed              no connection, or no longer one
│   ├── Refused                   the server said not to come back unchanged (4000-4099)
│   ├── Unreachable               DNS, TCP, TLS, HTTP or the handshake failed
│   ├── ConnectionLost            it was open and has ended
│   └── ClientClosed              the program closed the client
├── SubscriptionFailed            one channel; the connection and the other channels go on
│   └── AuthorizationFailed       the authorizer did not get a signature
│       ├── Unauthorized          401
│       ├── Forbidden             403
│       ├── SessionExpired        419
│       ├── EmptyAuthResponse     200 without a body
│       ├── MalformedAuthResponse 200 with something that is no signature
│       ├── AuthServerError       5xx, a redirect or another unexpected status
│       └── AuthTimeout           no answer in time
├── SignInFailed                  the server did not accept `pusher:signin`
├── EventFailed                   one event; nothing else is touched
│   ├── MalformedFrame            text that is no Pusher frame
│   ├── PayloadInvalid            data that does not fit the bound type
│   ├── DecryptionFailed          an encrypted event that the channel's key does not open
│   ├── QueueOverflow             a bounded queue was full: events, or one's own, were lost
│   ├── HandlerFailed             a handler raised
│   └── ServerReportedError       a `pusher:error` that leaves the connection open
├── PublishFailed                 the HTTP API refused or could not be reached
├── ApiError                      the chat backend refused or could not be reached
│   └── LoginFailed               wrong e-mail or password, or a token that is not accepted
└── WebhookInvalid                a webhook whose signature, key or time is wrong

No text here ever holds a secret, a token or a signature. Every text is one line that can be
printed: what a stranger has said in it cannot steer a terminal or forge a log's line.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

__all__ = [
    "AntiphonError",
    "ApiError",
    "AuthServerError",
    "AuthTimeout",
    "AuthorizationFailed",
    "ClientClosed",
    "ConnectionFailed",
    "ConnectionLost",
    "DecryptionFailed",
    "EmptyAuthResponse",
    "ErrorKind",
    "EventFailed",
    "Forbidden",
    "HandlerFailed",
    "InvalidName",
    "LoginFailed",
    "MalformedAuthResponse",
    "MalformedFrame",
    "PayloadInvalid",
    "PublishFailed",
    "QueueOverflow",
    "Refused",
    "ServerReportedError",
    "SessionExpired",
    "SettingsError",
    "SignInFailed",
    "SubscriptionFailed",
    "Unauthorized",
    "Unreachable",
    "WebhookInvalid",
    "sentence",
]

ErrorKind = Literal["connection", "subscription", "event"]
"""What an error concerns: the whole connection, one subscription or one event."""

_MAX_TEXT: Final = 600


class AntiphonError(Exception):
    """Base of everything antiphon raises.

    Attributes:
        kind: What the error concerns: the whole connection, one subscription or one event.
        code: The protocol's or HTTP's number for it, if it has one.
    """

    kind: ClassVar[ErrorKind] = "connection"
    code: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class SettingsError(AntiphonError, ValueError):
    """A setting is missing or cannot be used; the text names it."""


class InvalidName(AntiphonError, ValueError):
    """A channel or event name that the protocol does not allow."""

    kind: ClassVar[ErrorKind] = "event"


class ConnectionFailed(AntiphonError):
    """There is no connection.

    Attributes:
        code: WebSocket close code or Pusher error code, or None when there was no socket.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code

    def again(self) -> ConnectionFailed:
        """The same error, to be raised once more: one raised twice gathers tracebacks."""
        return type(self)(str(self), code=self.code)


class Refused(ConnectionFailed):
    """The server refuses this client as it is; dialling again unchanged is pointless."""


class Unreachable(ConnectionFailed):
    """No Pusher server could be reached at the address."""


class ConnectionLost(ConnectionFailed):
    """An open connection has ended."""


class ClientClosed(ConnectionFailed):
    """The program closed the client, or never connected it."""


class SubscriptionFailed(AntiphonError):
    """The server or the authorizer refused a channel.

    Attributes:
        channel: The channel's name.
        code: Pusher error code or HTTP status, if there was one.
    """

    kind: ClassVar[ErrorKind] = "subscription"

    def __init__(self, message: str, *, channel: str, code: int | None = None) -> None:
        super().__init__(message)
        self.channel = channel
        self.code = code

    @property
    def temporary(self) -> bool:
        """Whether asking again later, with nothing changed, may help: codes 4100 to 4199."""
        return self.code is not None and 4100 <= self.code < 4200


class AuthorizationFailed(SubscriptionFailed):
    """No signature could be had: for a private or presence channel, or for signing in.

    Attributes:
        channel: The channel's name; empty where it was for signing in.
    """

    @property
    def temporary(self) -> bool:
        """Whether asking again later, with nothing changed, may help."""
        return False


class Unauthorized(AuthorizationFailed):
    """The endpoint answered 401: the token is missing, wrong or expired."""


class Forbidden(AuthorizationFailed):
    """The endpoint answered 403: this user may not join this channel, or not sign in."""


class SessionExpired(AuthorizationFailed):
    """The endpoint answered 419: Laravel's word for a stale CSRF token or session."""


class EmptyAuthResponse(AuthorizationFailed):
    """The endpoint answered 200 with an empty body (laravel/reverb#284: a guard mismatch)."""


class MalformedAuthResponse(AuthorizationFailed):
    """The endpoint answered 200 with something that is no signature."""


class AuthServerError(AuthorizationFailed):
    """The endpoint failed: no connection, 5xx, a redirect, or a status no authorizer expects."""

    @property
    def temporary(self) -> bool:
        """True for 5xx and 429, and where there was no answer at all."""
        return self.code is None or self.code == 429 or self.code >= 500


class AuthTimeout(AuthorizationFailed):
    """The endpoint did not answer in time."""

    @property
    def temporary(self) -> bool:
        """True: a server that was slow may be quick again."""
        return True


class SignInFailed(AntiphonError):
    """The server did not accept `pusher:signin`; the connection and its channels go on."""

    kind: ClassVar[ErrorKind] = "subscription"

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class EventFailed(AntiphonError):
    """One event could not be used; the connection and later events are untouched.

    Attributes:
        event: The event's name, if it has one.
        channel: The channel's name, if the event belongs to one.
    """

    kind: ClassVar[ErrorKind] = "event"

    def __init__(
        self,
        message: str,
        *,
        event: str | None = None,
        channel: str | None = None,
        code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.event = event
        self.channel = channel
        self.code = code


class MalformedFrame(EventFailed):
    """The peer sent something that is no Pusher frame."""


class PayloadInvalid(EventFailed):
    """An event's data does not fit the type its handler was bound with."""


class DecryptionFailed(EventFailed):
    """An event of an encrypted channel could not be decrypted, not even with a fresh key."""


class QueueOverflow(EventFailed):
    """A bounded queue was full: what its policy or the channel's end did not let wait was lost."""


class HandlerFailed(EventFailed):
    """A handler raised; `__cause__` is what it raised."""


class ServerReportedError(EventFailed):
    """The server sent `pusher:error` and left the connection open."""


class PublishFailed(AntiphonError):
    """The HTTP API did not take what was published.

    Attributes:
        code: The HTTP status, or None if there was no answer.
    """

    kind: ClassVar[ErrorKind] = "event"

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class ApiError(AntiphonError):
    """The chat backend refused a request, or could not be reached.

    Attributes:
        code: The HTTP status, or None if there was no answer.
        retry_after: Seconds after which the backend wants to be asked again, an hour at the most;
            None if it has not said.
    """

    def __init__(
        self, message: str, *, code: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class LoginFailed(ApiError):
    """Wrong e-mail or password, or a token that the backend does not accept."""


class WebhookInvalid(AntiphonError, ValueError):
    """A webhook that did not come from the application's server, or came too late."""

    kind: ClassVar[ErrorKind] = "event"


def sentence(text: str) -> str:
    """Text with one mark at its end."""
    return text if text.endswith(("?", "!", "…")) else text.rstrip(".") + "."


def _one_line(text: str) -> str:
    line = "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT])
    return line if len(text) <= _MAX_TEXT else line + "…"

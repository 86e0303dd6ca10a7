"""What an auth endpoint's answers mean: a signature, or an error that says what to do."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

import msgspec

from antiphon.errors import (
    AuthorizationFailed,
    AuthServerError,
    AuthTimeout,
    EmptyAuthResponse,
    Forbidden,
    MalformedAuthResponse,
    SessionExpired,
    Unauthorized,
    sentence,
)
from antiphon.protocol.channels import Access, access_of

from .authorizer import Authentication, Authorization

__all__ = ["MAX_ANSWER", "Question", "Result", "read_batch", "read_one", "shown"]

E = TypeVar("E", bound=AuthorizationFailed)

MAX_ANSWER: Final = 1024 * 1024
"""Bytes of one answer; a hundred presence channels with large users need a fifth of it."""

Result = Authorization | Authentication | AuthorizationFailed
"""What becomes of one question; errors are values until whoever asked raises them."""


class Question(NamedTuple):
    """What was asked of an endpoint: it knows what an answer to it means.

    Attributes:
        url: The endpoint, as it may be shown.
        channel: The channel; empty for signing in.
        tries: How often it was asked.
        renewed: Whether with a token renewed for it.
    """

    url: str
    channel: str
    tries: int = 1
    renewed: bool = False

    def read(self, status: int, body: bytes) -> Result:
        """What an answer means; nothing of its body is ever shown."""
        if not 200 <= status < 300:
            return self._refused(status)
        if not body.strip():
            return self.failed(
                EmptyAuthResponse,
                f"answered {status} without a body",
                "in Laravel the route's guard is not the one the token belongs to, or"
                " BROADCAST_CONNECTION is null or log",
                status,
            )
        kind: type[Authorization | Authentication]
        kind = Authorization if self.channel else Authentication
        try:
            answer = msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return self.malformed(status, body)
        if not answer.auth:
            return self.malformed(status, body)
        return answer if isinstance(answer, Authentication) else self._checked(answer, status)

    def malformed(self, status: int, body: bytes) -> AuthorizationFailed:
        """What an answer means that is no signature."""
        hint = f"expected is JSON with {'auth' if self.channel else 'auth and user_data'}"
        if body.lstrip().startswith(b"<"):
            hint = "it looks like a web page: is this the auth endpoint, and is the token accepted?"
        what = f"answered {status} with {len(body)} bytes that are no signature"
        return self.failed(MalformedAuthResponse, what, hint, status)

    def too_large(self, status: int) -> AuthorizationFailed:
        """What an answer means that was not read to its end."""
        if not 200 <= status < 300:
            return self._refused(status)
        return self.failed(
            MalformedAuthResponse,
            f"answered {status} with more than {MAX_ANSWER} bytes",
            "is this the right auth endpoint?",
            status,
        )

    def missing(self, status: int) -> AuthorizationFailed:
        """What a batch means that does not name the channel."""
        return self.failed(
            MalformedAuthResponse,
            f"answered {status} without this channel",
            "a batch endpoint has to answer for every channel_name[] it is asked for",
            status,
        )

    def unanswered(self, reason: str, late: float | None) -> AuthorizationFailed:
        """What it means that there was no answer, or none in so many seconds."""
        if late is not None:
            return self.failed(AuthTimeout, f"did not answer in {late:g} seconds", "try later")
        return self.failed(AuthServerError, "could not be reached", reason)

    def not_sent(self, reason: Exception) -> AuthorizationFailed:
        """What it means that there was nothing to ask with."""
        error = self.failed(AuthorizationFailed, "was not asked", str(reason))
        error.__cause__ = reason.__cause__
        return error

    def not_renewed(self, status: int, cause: BaseException) -> AuthorizationFailed:
        """What it means that a refused token could not be renewed."""
        kind = SessionExpired if status == 419 else Unauthorized
        error = self.failed(
            kind,
            f"answered {status} and the refresh failed with {type(cause).__name__}: no signature",
            "log in again",
            status,
        )
        error.__cause__ = cause
        return error

    def failed(self, kind: type[E], what: str, hint: str, code: int | None = None) -> E:
        """An error: what the endpoint did, and what to do."""
        tries = f" after {self.tries} tries" if self.tries > 1 else ""
        text = f"{self.url} {what} for {self.channel or 'signing in'}{tries}; {hint}"
        return kind(sentence(text), channel=self.channel, code=code)

    def _refused(self, status: int) -> AuthorizationFailed:
        kind, hint = _REFUSALS.get(status, (AuthServerError, "look into the backend's log"))
        if 300 <= status < 400:
            hint = "it redirects, usually to a login page: is the token sent and accepted?"
        if status == 403 and not self.channel:
            hint = "this user may not sign in"
        again = " again, with a renewed token," if self.renewed and status in (401, 419) else ""
        return self.failed(kind, f"answered {status}{again}", hint, status)

    def _checked(self, answer: Authorization, status: int) -> Result:
        """The answer, if it has all that this kind of channel needs."""
        match access_of(self.channel):
            case Access.PRESENCE if not answer.channel_data:
                what = "gave no channel_data"
                hint = "a presence channel needs it to name the user"
            case Access.ENCRYPTED if not answer.shared_secret:
                what = "gave no shared_secret"
                hint = "an encrypted channel needs it: has the backend an encryption master key?"
            case _:
                return answer
        return self.failed(MalformedAuthResponse, what, hint, status)


class _Entry(msgspec.Struct):
    """One channel's part of a batch; a success may leave its status out."""

    status: int | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


def read_one(questions: list[Question], status: int, body: bytes) -> dict[str, Result]:
    """What the answer to one question means."""
    return {question.channel: question.read(status, body) for question in questions}


def read_batch(questions: list[Question], status: int, body: bytes) -> dict[str, Result]:
    """What the answer to several questions means to each; the form is pusher-js-auth's.

    `{"private-a": {"status": 200, "data": {"auth": …}}, "private-b": {"status": 403}}`
    """
    if not 200 <= status < 300 or not body.strip():
        return read_one(questions, status, body)
    try:
        entries = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {question.channel: question.malformed(status, body) for question in questions}
    return {q.channel: _read_entry(q, entries.get(q.channel), status) for q in questions}


def _read_entry(question: Question, raw: msgspec.Raw | None, status: int) -> Result:
    if raw is None:
        return question.missing(status)
    try:
        entry = msgspec.json.decode(raw, type=_Entry)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return question.malformed(status, bytes(raw))
    return question.read(entry.status or 200, bytes(entry.data))


def shown(url: str) -> str:
    """An address without what may be secret in it: user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


_REFUSALS: Final[dict[int, tuple[type[AuthorizationFailed], str]]] = {
    401: (Unauthorized, "the token is missing, wrong or expired: log in again"),
    403: (Forbidden, "this user may not join it"),
    404: (AuthServerError, "is this the right auth endpoint?"),
    405: (AuthServerError, "is this the right auth endpoint?"),
    419: (SessionExpired, "the session or CSRF token is stale: log in again, or use a token"),
    429: (AuthServerError, "it was asked too often: ask for fewer channels, or raise its limit"),
}

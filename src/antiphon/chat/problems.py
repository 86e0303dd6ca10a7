"""What has gone wrong, for people: a title, what it means, what to do, and the detail."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from antiphon.errors import (
    AntiphonError,
    ApiError,
    AuthorizationFailed,
    AuthServerError,
    AuthTimeout,
    ClientClosed,
    ConnectionFailed,
    ConnectionLost,
    DecryptionFailed,
    EmptyAuthResponse,
    ErrorKind,
    EventFailed,
    Forbidden,
    HandlerFailed,
    InvalidName,
    LoginFailed,
    MalformedAuthResponse,
    MalformedFrame,
    PayloadInvalid,
    PublishFailed,
    QueueOverflow,
    Refused,
    ServerReportedError,
    SessionExpired,
    SettingsError,
    SignInFailed,
    SubscriptionFailed,
    Unauthorized,
    Unreachable,
    WebhookInvalid,
    sentence,
)

__all__ = ["Problem", "explain"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One trouble, as a screen shows it.

    Attributes:
        kind: What it concerns: `connection`, `subscription` or `event`; a request that the backend
            has answered and refused is an `event`.
        title: A few words, such as "No connection".
        explanation: What it means, in a sentence or two, for somebody who knows no protocol.
        advice: What to do now.
        can_retry: Whether trying again, with nothing changed, may help.
        needs_login: Whether only a new log-in helps.
        detail: For whoever mends it, a line each: the error's type, code, channel and event where
            it has them, and its text, which names the server; no secret.
        error: The error itself.
    """

    kind: ErrorKind
    title: str
    explanation: str
    advice: str
    can_retry: bool
    needs_login: bool = False
    detail: str
    error: AntiphonError


def explain(error: AntiphonError) -> Problem:
    """An error of antiphon's, explained."""
    words = _words(error)
    is_refusal = isinstance(error, ApiError) and error.code is not None
    is_login = isinstance(error, LoginFailed) or words.needs_login
    return Problem(
        kind="event" if is_refusal and not is_login else error.kind,
        title=words.title,
        explanation=words.explanation,
        advice=words.advice,
        can_retry=words.can_retry,
        needs_login=words.needs_login,
        detail=_detail(error),
        error=error,
    )


class _Words(NamedTuple):
    title: str
    explanation: str
    advice: str
    can_retry: bool = False
    needs_login: bool = False


def _words(error: AntiphonError) -> _Words:
    match error:
        case ConnectionFailed():
            return _of_connection(error)
        case SubscriptionFailed():
            return _of_subscription(error)
        case SignInFailed():
            return _Words(
                "Not signed in",
                "The chat server does not accept who you say you are; the rest goes on.",
                "Log in again; if that does not help, tell whoever runs the server.",
                can_retry=True,
            )
        case EventFailed():
            return _of_event(error)
        case PublishFailed():
            return _of_publishing(error)
        case LoginFailed():
            return _of_login(error)
        case ApiError():
            return _of_request(error)
        case SettingsError():
            return _of_settings(error)
        case InvalidName():
            return _Words(
                "Name not allowed",
                f"A channel or an event has a name that cannot be used: {_text(error)}",
                "Choose another name.",
            )
        case WebhookInvalid():
            return _Words(
                "Notice not accepted",
                "A notice came that is not from the chat server, or came too late.",
                "Compare the secret and the clock of both machines.",
            )
    return _Words(
        "Something went wrong",
        f"The chat met an error: {_text(error)}",
        "Try again; if it happens again, send the details to whoever runs the chat.",
        can_retry=True,
    )


# The connection


def _of_connection(error: ConnectionFailed) -> _Words:
    match error:
        case Refused():
            return _REFUSALS.get(error.code, _REFUSED)
        case ClientClosed():
            return _Words(
                "Chat closed",
                "The chat was closed, so nothing arrives and nothing is sent.",
                "Open the chat again.",
            )
        case ConnectionLost():
            words = _RESTARTING if _is_restarting(error.code) else _LOST
        case Unreachable():
            words = _of_address(error)
        case _:
            words = _Words(
                "Connection failed",
                "The connection has ended because of an error in the program.",
                "Try again; if it happens again, report it with the details.",
                can_retry=True,
            )
    if not str(error).startswith("Given up"):
        return words
    return words._replace(
        explanation=f"{words.explanation} It was tried several times without success.",
        advice=words.advice if words.advice not in (_LOST.advice, _WAIT) else _CHECK_AND_RETRY,
    )


def _of_address(error: Unreachable) -> _Words:
    """Why the server cannot be reached, by its answer or by the reason that there was none."""
    code = error.code
    if code is None or 1000 <= code < 4000:
        return _unanswered(str(error), "chat server")
    if 4100 <= code < 4200:
        return _Words(
            "Server is full",
            "The chat server has no room for another connection now.",
            "Wait a minute and try again.",
            can_retry=True,
        )
    if _is_restarting(code) or code in (500, 502, 503, 504):
        return _RESTARTING
    if code in (401, 403, 407):
        return _Words(
            "Connection not allowed",
            "Something between here and the chat server, such as a proxy or a firewall, lets"
            " nothing through.",
            "Try another network, or ask whoever runs this one.",
            can_retry=True,
        )
    return _NO_CHAT_SERVER


def _is_restarting(code: int | None) -> bool:
    return code in (1001, 1012) or (code is not None and 4200 <= code < 4300 and code != 4201)


def _unanswered(text: str, who: str) -> _Words:
    """Why who did not answer where: the errors' texts tell the reasons apart."""
    reason = next((words for mark, words in _REASONS.items() if mark in text), _UNKNOWN_REASON)
    tried = _TRIED.search(_masked(text))
    if tried is not None:
        is_proxy = f"the proxy {tried[0]}" in text
        who = f"{'proxy' if is_proxy else who} at {tried[0]}"
    return reason._replace(explanation=reason.explanation.format(who=who))


# The first address of those texts: https://host:port/path, host:port, or a name.
_TRIED: Final = re.compile(
    r"https?://[^\s?#;,]*[^\s?#;,:.]|[^\s;,]+:\d+(?=[\s;,:.]|$)|(?<=The name )\S+"
)


_WAIT: Final = "It is tried again by itself; you can go on writing."
_CHECK_AND_RETRY: Final = "Check the network, then try again."

_LOST: Final = _Words(
    "Connection lost",
    "The connection to the chat server has ended. What you write meanwhile is kept and sent later.",
    "It is connected again by itself; you can go on writing.",
    can_retry=True,
)
_RESTARTING: Final = _Words(
    "Server is restarting",
    "The chat server is being restarted, or is not ready yet. What you write is kept and sent"
    " later.",
    _WAIT,
    can_retry=True,
)
_NO_CHAT_SERVER: Final = _Words(
    "No chat server there",
    "Something answers at this address, and it is not a chat server.",
    "Check the server's address, port and path.",
    can_retry=True,
)
_UNKNOWN_REASON: Final = _Words(
    "No connection",
    "The {who} cannot be reached.",
    _CHECK_AND_RETRY,
    can_retry=True,
)

# By what stands in the texts of the SDK's dialler (client/transport.py) and of HTTP (http.py).
_REASONS: Final = {
    "cannot be found": _Words(
        "Server not found",
        "The {who} cannot be found by its name: either this machine has no network, or the name is"
        " wrong.",
        "Check the network and the name, then try again.",
        can_retry=True,
    ),
    "ertificate": _Words(
        "Server not trusted",
        "The {who} does not prove that it is the right one, so nothing is sent to it.",
        "Check this machine's clock and the network; else the server's certificate has to be"
        " mended.",
        can_retry=True,
    ),
    "speak TLS": _Words(
        "No secure connection",
        "The {who} was asked for an encrypted connection, and does not offer one.",
        "Check its scheme (http or https) and its port.",
    ),
    "did not answer in": _Words(
        "No answer",
        "The {who} did not answer in time: the network is slow or blocked, or the server hangs.",
        _CHECK_AND_RETRY,
        can_retry=True,
    ),
    "othing listens": _Words(
        "Server not running",
        "The machine is there, but the {who} is not running.",
        "Start it, or check that this is its address and port; then try again.",
        can_retry=True,
    ),
    "hung up": _Words(
        "No connection",
        "The {who} hung up instead of answering.",
        "Try again; if it goes on, check the address and the scheme (http or https).",
        can_retry=True,
    ),
    "no WebSocket server": _NO_CHAT_SERVER,
    "This is no Pusher": _NO_CHAT_SERVER,
    "no address": _Words(
        "Wrong address",
        "The {who} cannot be asked: its address is none that can be used.",
        "Check the address.",
    ),
}

_REFUSED: Final = _Words(
    "Connection refused",
    "The chat server does not accept this program as it is.",
    "Tell whoever runs the server, and send the details.",
)
_OUTDATED: Final = _Words(
    "Versions do not fit",
    "The chat server does not speak this program's version of the protocol.",
    "Update the program or the server.",
)
_REFUSALS: Final[dict[int | None, _Words]] = {
    4000: _Words(
        "Secure connection needed",
        "The chat server only takes encrypted connections.",
        "Set the scheme to https (--scheme, or REVERB_SCHEME) and the port to match (usually 443).",
    ),
    4001: _Words(
        "Wrong app key",
        "The chat server does not know the application this program was set up for.",
        "Check the app key (--app-key, or REVERB_APP_KEY) and the server's address where this chat"
        " was started; if somebody else runs it, tell them.",
    ),
    4003: _Words(
        "Chat switched off",
        "The application is switched off at the chat server.",
        "Ask whoever runs the server to switch it on.",
    ),
    4004: _Words(
        "Too many connections",
        "The application has as many connections as it may have at once.",
        "Close other windows of the chat, wait a minute and try again; whoever runs the server can"
        " raise the limit.",
        can_retry=True,
    ),
    4005: _NO_CHAT_SERVER._replace(
        explanation="The chat server has nothing at this path.", can_retry=False
    ),
    4006: _OUTDATED,
    4007: _OUTDATED,
    4008: _OUTDATED,
    4009: _Words(
        "Not signed in in time",
        "The chat server ends connections of which it does not know soon whose they are.",
        "Log in again; if that does not help, tell whoever runs the server.",
        can_retry=True,
    ),
}


# A channel


def _of_subscription(error: SubscriptionFailed) -> _Words:
    """Why a channel was not joined, and what that means for its user."""
    loss = _loss(error.channel)
    match error:
        case Unauthorized() | SessionExpired():
            return _Words(
                "Please log in again",
                f"Your log-in is no longer valid. {loss}",
                "Log in again.",
                needs_login=True,
            )
        case Forbidden():
            return _Words(
                "No access",
                f"You are not allowed to take part here. {loss}",
                "Ask whoever runs the chat, or the conversation, to let you in.",
            )
        case EmptyAuthResponse():
            return _Words(
                "Access not confirmed",
                f"The backend did not say whether you may take part. {loss}",
                "Tell whoever runs the backend: its broadcasting, or the guard of its auth route,"
                " is not set up.",
            )
        case MalformedAuthResponse():
            return _Words(
                "Access not confirmed",
                f"The backend answered with something else than a permission. {loss}",
                "Log in again; if that does not help, check the auth endpoint.",
            )
        case AuthTimeout():
            return _Words(
                "Backend too slow",
                f"The backend did not say in time whether you may take part. {loss}",
                "Wait a moment and try again.",
                can_retry=True,
            )
        case AuthServerError():
            return _of_auth_server(error, loss)
        case AuthorizationFailed():
            return _Words(
                "Access not confirmed",
                f"The backend could not be asked whether you may take part. {loss}",
                "Try again; if it happens again, log in again.",
                can_retry=True,
            )
    if error.temporary:
        return _Words(
            "Server is full",
            f"The chat server cannot let you in now. {loss}",
            "Wait a minute and try again.",
            can_retry=True,
        )
    if error.code is None:
        return _Words(
            "Channel not joined",
            f"The chat server did not let you in. {loss}",
            "Tell whoever runs the chat, and send the details.",
        )
    return _Words(
        "Channel refused",
        f"The chat server refused to let you in. {loss}",
        "Tell whoever runs the chat: the backend and the chat server may not have the same app"
        " secret, or a limit is reached.",
    )


def _of_auth_server(error: AuthServerError, loss: str) -> _Words:
    code = error.code
    if code is None:
        reason = _unanswered(str(error), "backend")
        return reason._replace(explanation=f"{reason.explanation} {loss}")
    if code == 429:
        return _Words(
            "Too many requests",
            f"The backend was asked too often. {loss}",
            "Wait a minute and try again.",
            can_retry=True,
        )
    if code >= 500:
        return _Words(
            "Backend trouble",
            f"The backend met an error when it was asked whether you may take part. {loss}",
            "Try again in a minute; if it goes on, its log says why.",
            can_retry=True,
        )
    return _Words(
        "Wrong auth endpoint",
        f"What answers for the backend cannot say whether you may take part. {loss}",
        "Check the backend's address and the auth endpoint.",
    )


def _loss(channel: str) -> str:
    """What does not work without a channel, as far as its name tells."""
    if not channel:
        return "You are not signed in at the chat server."
    if channel.startswith("presence-"):
        return "You do not see who is online in this conversation."
    if channel.startswith("private-"):
        return "New messages do not arrive by themselves."
    return "What is sent on this channel does not arrive."


# An event


def _of_event(error: EventFailed) -> _Words:
    match error:
        case PayloadInvalid():
            return _Words(
                "Message not understood",
                "Something arrived that the chat cannot read, and it was left out.",
                "Go on; if something is missing, tell whoever runs the backend, and send the"
                " details.",
            )
        case MalformedFrame():
            return _Words(
                "Message not understood",
                "The chat server sent something that is not in its own language; it was left out.",
                "Go on; if it happens often, check that the address is that of a chat server.",
            )
        case HandlerFailed():
            return _Words(
                "Error in the program",
                "The program has a fault in what it does with an event; the chat itself goes on.",
                "Report it to whoever made the program, with the details.",
            )
        case DecryptionFailed():
            return _Words(
                "Message not decrypted",
                "An encrypted message arrived that cannot be opened, and it was left out.",
                "Tell whoever runs the backend: it and the chat server's publisher need the same"
                " master key.",
            )
        case QueueOverflow():
            return _Words(
                "Events were lost",
                "More came at once than could be worked off, and some of it was left out.",
                "Open the conversation again to see all of it.",
            )
        case ServerReportedError():
            return _Words(
                "Notice from the server",
                "The chat server did not take something that was sent, such as a typing notice; the"
                " connection goes on.",
                "Go on; if something does not work, tell whoever runs the server.",
            )
    return _Words(
        "Event left out",
        "One event could not be used; the chat itself goes on.",
        "Go on; if something is missing, open the conversation again.",
    )


def _of_publishing(error: PublishFailed) -> _Words:
    code = error.code
    if code is None and "could not be reached" in str(error):
        return _unanswered(str(error), "chat server")
    title = "Not published"
    if code in (401, 403):
        return _Words(
            title,
            "The chat server does not accept the credentials, so nobody was told.",
            "Check the app id, the app key and the app secret, and this machine's clock.",
        )
    if code == 404:
        return _Words(
            title,
            "The chat server does not know this application, so nobody was told.",
            "Check the app id, and the server's address and path.",
        )
    if code == 413:
        return _Words(title, "It is too long, so nobody was told.", "Send less at once.")
    if code is not None and (code in (408, 425, 429) or 500 <= code < 600):
        return _Words(
            title,
            "The chat server cannot take it now, so nobody was told.",
            "Wait a moment and try again.",
            can_retry=True,
        )
    return _Words(
        title,
        f"The chat server did not take it, so nobody was told: {_text(error)}",
        "Mend what the text says.",
    )


# A request to the backend


def _of_login(error: LoginFailed) -> _Words:
    if "refused the login" in str(error):  # rest.py's words
        return _Words(
            "Log-in failed",
            "The e-mail address or the password is wrong.",
            "Check both and try again.",
        )
    return _Words(
        "Please log in again",
        "Your log-in is no longer valid. What you have written is kept.",
        "Log in again.",
        needs_login=True,
    )


def _of_request(error: ApiError) -> _Words:
    code = error.code
    if code is None:
        return _of_no_answer(error)
    if code < 400:
        return _Words(
            "Wrong backend address",
            "The backend points to another address instead of answering.",
            "Check the backend's address, also http or https.",
        )
    if code == 429 or (code == 503 and error.retry_after is not None):
        return _Words(
            "Too many requests" if code == 429 else "Backend not ready",
            "The backend takes no more for the moment.",
            f"Try again in {_duration(error.retry_after)}.",
            can_retry=True,
        )
    if code >= 500:
        return _Words(
            "Backend trouble",
            "The backend met an error. Nothing that you have written is lost.",
            "Try again in a minute; if it goes on, its log says why.",
            can_retry=True,
        )
    words = _REQUESTS.get(code, _NOT_ACCEPTED)
    if code not in (400, 409, 422) and words is not _NOT_ACCEPTED:
        return words
    # Here the backend's own words are what a person can act on.
    said = _text(error).partition(f"answered {code}: ")[2]
    if not said or said.startswith("no reason given"):
        return words
    return words._replace(explanation=f"{words.explanation} It says: {sentence(said)}")


def _of_no_answer(error: ApiError) -> _Words:
    text = str(error)
    if text.startswith("No answer"):
        return _unanswered(text, "backend")
    if "no token" in text or text.startswith("The token"):
        return _Words(
            "Please log in again",
            "There is no log-in with which the backend can be asked.",
            "Log in again.",
            needs_login=True,
        )
    if "no path for this" in text:
        return _Words("Not available", "This backend does not offer that.", "Go on without it.")
    return _Words(
        "Backend not understood",
        "The backend answered with something else than the chat expects.",
        "Check the backend's address and its dialect.",
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "a minute"
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds" if round(seconds) > 1 else "a second"
    return f"{round(seconds / 60)} minutes"


_NOT_ACCEPTED: Final = _Words(
    "Not accepted",
    "The backend does not accept this.",
    "Change it and try again.",
)
_LATE: Final = _Words(
    "No answer",
    "The backend did not get the whole request in time.",
    _CHECK_AND_RETRY,
    can_retry=True,
)
_REQUESTS: Final = {
    401: _Words(
        "Please log in again",
        "Your log-in is no longer valid. What you have written is kept.",
        "Log in again.",
        needs_login=True,
    ),
    403: _Words(
        "Not allowed",
        "You are not allowed to do this.",
        "Ask whoever runs the chat, or the conversation, to let you.",
    ),
    404: _Words(
        "Not found",
        "The backend does not know this: it may be gone, or you are not in this conversation.",
        "Reload the list; if nothing is found at all, check the backend's address.",
    ),
    408: _LATE,
    409: _NOT_ACCEPTED,
    413: _Words(
        "Too long",
        "This is longer than the backend takes.",
        "Make it shorter, or send it in parts.",
    ),
    419: _Words(
        "Please log in again",
        "Your session has expired. What you have written is kept.",
        "Log in again.",
        needs_login=True,
    ),
    425: _LATE,
}


# The settings


def _of_settings(error: SettingsError) -> _Words:
    text = _text(error)
    if "The chat's file" in text or "cannot be kept in" in text:  # store.py's words
        return _Words(
            "Chat file not usable",
            f"The file in which the chat keeps its messages cannot be used. {text}",
            "Mend what it says, or choose another file.",
        )
    return _Words(
        "Wrong setting",
        f"The chat cannot work with its settings. {text}",
        "Correct the setting and start again.",
    )


# The details


def _detail(error: AntiphonError) -> str:
    lines = [f"Error: {type(error).__name__}"]
    if error.code is not None:
        lines.append(f"Code: {error.code}")
    for name in ("channel", "event"):
        value = getattr(error, name, None)
        if value:
            lines.append(f"{name.capitalize()}: {_masked(value)}")
    lines.append(f"Text: {_text(error)}")
    return "\n".join(lines)


def _text(error: AntiphonError) -> str:
    """What an error says, as a sentence, without what is nobody's business."""
    return sentence(_masked(str(error)) or "no text")


def _masked(text: str) -> str:
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


# antiphon's own texts hold none of these; a handler's exception and a server's reason may.
_SECRETS: Final = (
    (re.compile(r"://[^\s/@]*@"), "://…@"),  # user and password in an address
    (re.compile(r"(?i)\b(bearer\s+)[^\s\"',;]+"), r"\1…"),
    (re.compile(r"(?i)\b(app key )\S+(?= (?:not|does)\b)"), r"\1…"),  # with code 4001
    (re.compile(r"(/app/)[^\s?/]+(?=\?)"), r"\1…"),
    (
        re.compile(
            r"(?i)((?:token|secret|password|signature|api_?key|app_?key|auth_key)"
            r"(?:=|[\"']\s*:\s*[\"'])[\"']?)[^\s\"',;&]+"
        ),
        r"\1…",
    ),
    (re.compile(r"(?:[\w.+-]+:)?\b[0-9a-f]{64}\b"), "…"),  # a signature
    (re.compile(r"\b\d+\|\w{20,}"), "…"),  # a token of Sanctum's
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "…"),  # a JSON web token
)

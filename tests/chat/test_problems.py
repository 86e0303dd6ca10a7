"""What has gone wrong, in words a person understands, and without a secret."""

from __future__ import annotations

import inspect
import socket
import ssl
from pathlib import Path
from typing import Any, Final

import pytest

from antiphon import errors, http
from antiphon.chat.problems import Problem, explain
from antiphon.chat.rest import RestClient
from antiphon.chat.store import ChatStore
from antiphon.client import Client
from antiphon.client.transport import _explain
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
)
from antiphon.settings import Settings
from tests.cli.strangers import kept_port

from .house import open_house

MINE: Final = "private-user.1"
ROOM: Final = "presence-conversation.7"
AUTH: Final = "http://127.0.0.1:8000/broadcasting/auth"

EVERY_CLASS: Final = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, AntiphonError)
]


def made(cls: type[AntiphonError], text: str = "Words.", **named: Any) -> AntiphonError:
    if issubclass(cls, SubscriptionFailed):
        named.setdefault("channel", MINE)
    return cls(text, **named)


def takes_code(cls: type[AntiphonError]) -> bool:
    return "code" in inspect.signature(cls).parameters


# An error, and what its reader is to find: title, whether a retry or a log-in helps, a few words
# of what it means, and a few of what to do.
TABLE: Final[list[tuple[AntiphonError, str, str, str, str]]] = [
    (AntiphonError("Odd."), "Something went wrong", "retry", "Odd.", "details"),
    (SettingsError("No application key."), "Wrong setting", "", "No application key.", "setting"),
    (
        SettingsError("The chat cannot be kept in /x/y: it is no SQLite file. Choose another."),
        "Chat file not usable",
        "",
        "/x/y",
        "another file",
    ),
    (InvalidName("'a b' is no channel."), "Name not allowed", "", "'a b'", "another name"),
    (ConnectionFailed("An error in antiphon itself."), "Connection failed", "retry", "", "report"),
    (Refused("h refuses this client: Over.", code=4000), "Secure connection", "", "", "https"),
    (Refused("h refuses this client: No. (4001)", code=4001), "Wrong app key", "", "", "app key"),
    (Refused("h refuses this client: Off.", code=4003), "Chat switched off", "", "", "switch"),
    (Refused("h refuses this client: Over.", code=4004), "Too many conn", "retry", "", "limit"),
    (Refused("h refuses this client: Path.", code=4005), "No chat server", "", "path", "path"),
    (Refused("h refuses this client: Old.", code=4007), "Versions", "", "", "Update"),
    (Refused("h refuses this client: Who?", code=4009), "Not signed in", "retry", "", "Log in"),
    (Refused("h refuses this client: Odd.", code=4042), "Connection refused", "", "", "details"),
    (Unreachable("The name h cannot be found: check."), "Server not found", "retry", "", "network"),
    (Unreachable("Nothing listens on h:1: is it?"), "Server not running", "retry", "", "Start"),
    (
        Unreachable("The certificate of h is not trusted: expired."),
        "Server not trusted",
        "retry",
        "nothing is sent",
        "clock",
    ),
    (Unreachable("h:1 does not speak TLS (X): is it?"), "No secure connection", "", "", "scheme"),
    (Unreachable("h:1 did not answer in 5 seconds: a?"), "No answer", "retry", "time", "network"),
    (Unreachable("h:1 hung up instead of answering: is it?"), "No connection", "retry", "", "addr"),
    (Unreachable("h:1 is no WebSocket server: x."), "No chat server there", "retry", "", "port"),
    (Unreachable("h: This is no Pusher server: x."), "No chat server there", "retry", "", "port"),
    (Unreachable("h cannot be reached: OSError: x."), "No connection", "retry", "", "network"),
    (Unreachable("h answered 404 instead of.", code=404), "No chat server", "retry", "", "path"),
    (Unreachable("h answered 403 instead of.", code=403), "Connection not", "retry", "proxy", ""),
    (Unreachable("h answered 502 instead of.", code=502), "Server is restart", "retry", "kept", ""),
    (Unreachable("h: Over capacity.", code=4100), "Server is full", "retry", "room", "minute"),
    (ConnectionLost("The connection was lost.", code=1006), "Connection lost", "retry", "kept", ""),
    (ConnectionLost("The connection was lost.", code=4201), "Connection lost", "retry", "kept", ""),
    (ConnectionLost("The connection was lost.", code=4200), "Server is rest", "retry", "kept", ""),
    (
        ConnectionLost("Given up after 5 attempts. The connection was lost.", code=1006),
        "Connection lost",
        "retry",
        "without success",
        "try again",
    ),
    (
        Unreachable("Given up after 5 attempts. Nothing listens on h:1: is it?"),
        "Server not running",
        "retry",
        "without success",
        "Start",
    ),
    (ClientClosed("The client was closed."), "Chat closed", "", "", "Open"),
    (SubscriptionFailed("No.", channel=MINE), "Channel not joined", "", "New messages", "details"),
    (SubscriptionFailed("No.", channel=MINE, code=4009), "Channel refused", "", "New mess", "secr"),
    (SubscriptionFailed("No.", channel=ROOM, code=4100), "Server is full", "retry", "online", ""),
    (AuthorizationFailed(f"{AUTH} was not asked.", channel=MINE), "Access not", "retry", "", "log"),
    (Unauthorized("401.", channel=MINE, code=401), "Please log in", "login", "New messages", "Log"),
    (SessionExpired("419.", channel=ROOM, code=419), "Please log in", "login", "online", "Log in"),
    (Forbidden("403.", channel=ROOM, code=403), "No access", "", "not allowed", "Ask"),
    (EmptyAuthResponse("200.", channel=MINE, code=200), "Access not", "", "New messages", "guard"),
    (MalformedAuthResponse("200.", channel=MINE, code=200), "Access not", "", "New", "endpoint"),
    (
        AuthServerError("503.", channel=MINE, code=503),
        "Backend trouble",
        "retry",
        "New mess",
        "log",
    ),
    (AuthServerError("429.", channel=MINE, code=429), "Too many requests", "retry", "", "minute"),
    (AuthServerError("404.", channel=MINE, code=404), "Wrong auth endpoint", "", "New", "endpoint"),
    (
        AuthServerError(f"{AUTH} could not be reached; nothing listens; is it?", channel=MINE),
        "Server not running",
        "retry",
        "New messages",
        "Start",
    ),
    (AuthTimeout("Late.", channel=""), "Backend too slow", "retry", "not signed in", "Wait"),
    (SignInFailed("No.", code=4009), "Not signed in", "retry", "", "Log in"),
    (EventFailed("Odd."), "Event left out", "", "goes on", ""),
    (MalformedFrame("No JSON."), "Message not understood", "", "left out", ""),
    (PayloadInvalid("No."), "Message not understood", "", "cannot read", "backend"),
    (DecryptionFailed("No."), "Message not decrypted", "", "encrypted", "key"),
    (QueueOverflow("9 lost."), "Events were lost", "", "", "Open the conversation"),
    (HandlerFailed("A handler of x raised."), "Error in the program", "", "goes on", "Report"),
    (ServerReportedError("No.", code=4301), "Notice from", "", "typing", ""),
    (
        PublishFailed("The HTTP API at h could not be reached: it hung up."),
        "No conn",
        "retry",
        "",
        "",
    ),
    (PublishFailed("401.", code=401), "Not published", "", "credentials", "app secret"),
    (PublishFailed("404.", code=404), "Not published", "", "application", "app id"),
    (PublishFailed("413.", code=413), "Not published", "", "too long", ""),
    (PublishFailed("503.", code=503), "Not published", "retry", "", "Wait"),
    (PublishFailed("An event goes to 1 to 100."), "Not published", "", "An event goes to 1", ""),
    (
        ApiError("No answer from the backend at h: nothing listens."),
        "Server not r",
        "retry",
        "",
        "",
    ),
    (
        ApiError("No answer from the backend at h: it did not answer in time."),
        "No answer",
        "retry",
        "backend",
        "",
    ),
    (ApiError("There is no token to ask h with: x."), "Please log in", "login", "", "Log in"),
    (ApiError("This backend has no path for this: x."), "Not available", "", "", ""),
    (ApiError("h answered with something else than."), "Backend not under", "", "", "address"),
    (ApiError("h answered 302, a redirect.", code=302), "Wrong backend address", "", "", "address"),
    (ApiError("h answered 401: No.", code=401), "Please log in", "login", "kept", "Log in"),
    (ApiError("h answered 403: No.", code=403), "Not allowed", "", "", "Ask"),
    (ApiError("h answered 404: No.", code=404), "Not found", "", "", ""),
    (ApiError("h answered 408: No.", code=408), "No answer", "retry", "", ""),
    (ApiError("h answered 409: Taken.", code=409), "Not accepted", "", "It says: Taken.", ""),
    (ApiError("h answered 413: No.", code=413), "Too long", "", "", "shorter"),
    (ApiError("h answered 419: No.", code=419), "Please log in", "login", "expired", "Log in"),
    (ApiError("h answered 422: Too rude.", code=422), "Not accepted", "", "says: Too rude.", ""),
    (ApiError("h answered 418: Tea.", code=418), "Not accepted", "", "says: Tea.", ""),
    (ApiError("h answered 429: No.", code=429), "Too many requests", "retry", "", "a minute"),
    (
        ApiError("h answered 429: No.", code=429, retry_after=30.0),
        "Too many requests",
        "retry",
        "",
        "30 seconds",
    ),
    (
        ApiError("h answered 503: No.", code=503, retry_after=600.0),
        "Backend not ready",
        "retry",
        "",
        "10 minutes",
    ),
    (ApiError("h answered 500: No.", code=500), "Backend trouble", "retry", "is lost", "its log"),
    (LoginFailed("h/api/login refused the login: No.", code=401), "Log-in failed", "", "pass", ""),
    (
        LoginFailed("h/api/me does not accept the token: No.", code=401),
        "Please",
        "login",
        "",
        "Log",
    ),
    (WebhookInvalid("The webhook is late."), "Notice not accepted", "", "", "clock"),
]


def test_the_table_has_every_class() -> None:
    assert {type(error) for error, *_ in TABLE} == set(EVERY_CLASS)
    assert len(EVERY_CLASS) > 25


@pytest.mark.parametrize(
    ("error", "title", "helps", "explanation", "advice"),
    TABLE,
    ids=[f"{type(error).__name__} {error}"[:60] for error, *_ in TABLE],
)
def test_each_trouble_is_explained_as_what_it_is(
    error: AntiphonError, title: str, helps: str, explanation: str, advice: str
) -> None:
    problem = explain(error)
    assert problem.title.startswith(title)
    assert problem.can_retry == (helps == "retry")
    assert problem.needs_login == (helps == "login")
    assert explanation in problem.explanation
    assert advice in problem.advice
    check(problem)


def check(problem: Problem) -> None:
    """What is true of every problem."""
    assert 3 < len(problem.title) < 40
    assert problem.title[-1].isalnum()
    for text in (problem.explanation, problem.advice):
        assert text[0].isupper()
        assert text.endswith((".", "!", "?", "…"))
        assert ".." not in text.replace("…", "")
        assert "{" not in text
    assert "\n" not in problem.explanation + problem.advice + problem.title
    # A retry that helps and a log-in without which nothing helps exclude each other.
    assert not (problem.can_retry and problem.needs_login)
    assert problem.detail.startswith(f"Error: {type(problem.error).__name__}\n")


CODES: Final = (None, 0, 101, 200, 302, 400, 401, 403, 404, 408, 409, 413, 418, 419, 422, 425, 429)
MORE_CODES: Final = (500, 502, 503, 504, 520, 999, 1000, 1006, 1009, 1012, 3000, *range(3999, 4010))
LATE_CODES: Final = (4099, 4100, 4199, 4200, 4201, 4299, 4300, 4301, 4999, 70_000)


@pytest.mark.parametrize("cls", EVERY_CLASS)
@pytest.mark.parametrize("given_up", [False, True])
def test_every_class_is_explained_with_every_code(cls: type[AntiphonError], given_up: bool) -> None:
    text = "Given up after 5 attempts. Words" if given_up else ""
    codes = (*CODES, *MORE_CODES, *LATE_CODES) if takes_code(cls) else (None,)
    for code in codes:
        error = made(cls, text, code=code) if takes_code(cls) else made(cls, text)
        problem = explain(error)
        check(problem)
        assert problem.error is error
        if code is not None:
            assert f"\nCode: {code}\n" in problem.detail
        if cls is not AntiphonError:
            assert problem.title != "Something went wrong"


def test_a_class_of_the_programs_own_is_explained_as_its_base() -> None:
    class Throttled(AuthServerError):
        """One more."""

    problem = explain(Throttled("Slow down.", channel=MINE, code=429))
    assert problem.title == "Too many requests"
    assert problem.detail.startswith("Error: Throttled\n")


def test_it_says_what_is_concerned() -> None:
    def kind(error: AntiphonError) -> str:
        return explain(error).kind

    assert kind(ConnectionLost("x")) == "connection"
    assert kind(Forbidden("x", channel=MINE)) == "subscription"
    assert kind(PayloadInvalid("x")) == "event"
    # No answer is a matter of the connection; a refused request is one of that request.
    assert kind(ApiError("No answer from the backend at h: x")) == "connection"
    assert kind(ApiError("h answered 422: x", code=422)) == "event"
    assert kind(LoginFailed("h does not accept the token: x", code=401)) == "connection"
    assert kind(ApiError("h answered 419: x", code=419)) == "connection"


def test_the_detail_has_type_code_channel_event_and_text() -> None:
    error = Forbidden(f"{AUTH} answered 403; this user may not join it", channel=ROOM, code=403)
    assert explain(error).detail.splitlines() == [
        "Error: Forbidden",
        "Code: 403",
        f"Channel: {ROOM}",
        f"Text: {AUTH} answered 403; this user may not join it.",
    ]
    failed = PayloadInvalid("It does not fit.", event="MessageSent", channel=MINE)
    assert explain(failed).detail.splitlines() == [
        "Error: PayloadInvalid",
        f"Channel: {MINE}",
        "Event: MessageSent",
        "Text: It does not fit.",
    ]


def test_an_app_without_a_reason_of_the_backends_gives_none() -> None:
    problem = explain(ApiError("h answered 422: no reason given.", code=422))
    assert problem.explanation == "The backend does not accept this."


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("App key dhsjk3h2kj4h not in this cluster. Did you forget it?", "dhsjk3h2kj4h"),
        ("App key app-key does not exist.", "app-key"),
        ("No answer at wss://h/app/dhsjk3h2?protocol=7", "dhsjk3h2"),
        ("The header was Authorization: Bearer abcdef", "abcdef"),
        ("KeyError: '12|Zq5mTn8rVb2xKw9pLs4dHf7gJc1yAe3u'", "Zq5mTn8rVb2xKw9pLs4dHf7gJc1yAe3u"),
        ("It was eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl", "c2lnbmF0dXJl"),
        (f"auth: app-key-9:{'0f' * 32}", "app-key-9"),
        (f"It signed {'0f' * 32}", "0f0f"),
        ("https://ali:hunter2@chat.example.com answered 500", "hunter2"),
        ("/api?token=abc123&x=1", "abc123"),
        ('{"app_secret": "abc123"}', "abc123"),
        ("{'password': 'abc123'}", "abc123"),
        ("APP_KEY=abc123", "abc123"),
    ],
)
@pytest.mark.parametrize("cls", EVERY_CLASS)
def test_no_secret_is_shown(cls: type[AntiphonError], text: str, secret: str) -> None:
    problem = explain(made(cls, text))
    shown = (problem.title, problem.explanation, problem.advice, problem.detail)
    assert not [part for part in shown if secret in part]
    assert "…" in problem.detail


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:80 refuses this client: No application. (4001); check the app key.",
        "http://h/api/me does not accept the token: Unauthenticated. Log in again.",
        "The webhook's X-Pusher-Signature is wrong; check app_secret, and that it came.",
        "No application key: give app_key (--app-key), or set REVERB_APP_KEY.",
        "Publishing needs app_id and app_secret (--app-id, or REVERB_APP_ID).",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert explain(AntiphonError(text)).detail == f"Error: AntiphonError\nText: {text}"


# The texts by which reasons are told apart are those that are really given


@pytest.mark.parametrize(
    ("cause", "title"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Server not found"),
        (ConnectionRefusedError(111, "refused"), "Server not running"),
        (TimeoutError(), "No answer"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "Server not trusted"),
        (ssl.SSLError(1, "wrong version number"), "No secure connection"),
        (OSError(101, "Network is unreachable"), "No connection"),
    ],
)
def test_every_reason_of_the_diallers_is_known(cause: Exception, title: str) -> None:
    if isinstance(cause, ssl.SSLError):  # what only the ssl module sets
        vars(cause).update(reason="WRONG_VERSION_NUMBER", verify_message="self-signed certificate")
    error = Unreachable(_explain("wss://chat.example.com:443/app/k", None, cause, 5))
    assert explain(error).title == title


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("ClientConnectorCertificateError", "Server not trusted"),
        ("ClientConnectorSSLError", "No secure connection"),
        ("ClientConnectorDNSError", "Server not found"),
        ("ClientConnectorError", "Server not running"),
        ("ServerDisconnectedError", "No connection"),
        ("InvalidURL", "Wrong address"),
    ],
)
def test_every_reason_of_http_is_known(name: str, title: str) -> None:
    error = ApiError(f"No answer from the backend at http://h: {http._REASONS[name]}.")
    assert explain(error).title == title


async def test_a_wrong_password_and_an_old_token_are_told_apart(tmp_path: Path) -> None:
    server = Settings(app_id="1", app_key="k", app_secret="s", port=9, scheme="http")  # not asked
    async with open_house(server, tmp_path) as house, RestClient(house.api_url) as rest:
        with pytest.raises(LoginFailed) as wrong:
            await rest.login(house.ali.email, "no password of theirs")
        rest.token = "an-old-token"
        with pytest.raises(LoginFailed) as old:
            await rest.me()
    problem = explain(wrong.value)
    assert (problem.title, problem.needs_login) == ("Log-in failed", False)
    problem = explain(old.value)
    assert (problem.title, problem.needs_login) == ("Please log in again", True)
    assert "an-old-token" not in problem.detail


async def test_a_backend_and_a_server_that_do_not_run_are_explained() -> None:
    with kept_port() as port:
        async with RestClient(f"http://127.0.0.1:{port}") as rest:
            with pytest.raises(ApiError) as unanswered:
                await rest.me()
        settings = Settings(app_key="dhsjk3h2", host="127.0.0.1", port=port, scheme="http")
        with pytest.raises(Unreachable) as unreachable:
            async with Client(settings, max_attempts=1):
                pass
    assert explain(unanswered.value).title == "Server not running"
    problem = explain(unreachable.value)
    assert (problem.title, problem.can_retry) == ("Server not running", True)
    assert "without success" in problem.explanation
    assert f"127.0.0.1:{port}" in problem.detail
    assert "dhsjk3h2" not in problem.detail


@pytest.mark.parametrize(
    ("error", "tried"),
    [
        (Unreachable("Nothing listens on ::1:8080: is the server running?"), "server at ::1:8080"),
        (
            Unreachable("The name chat.example.com cannot be found: c."),
            "server at chat.example.com",
        ),
        (Unreachable("Given up after 5 attempts. h:80 hung up instead of."), "server at h:80"),
        (Unreachable("the proxy p:3128 did not answer in 5 seconds: is?"), "proxy at p:3128"),
        (Unreachable("h:80 cannot be reached through the proxy p:1: x."), "chat server at h:80"),
        (
            ApiError("No answer from the backend at http://h:9/chat: x."),
            "backend at http://h:9/chat",
        ),
        (AuthServerError(f"{AUTH} could not be reached; x", channel=MINE), f"backend at {AUTH}"),
        (
            PublishFailed("The HTTP API at http://u:hunter2@h could not be reached: x"),
            "chat server at http://…@h",
        ),
    ],
)
def test_who_did_not_answer_is_named_by_the_address_that_was_tried(
    error: AntiphonError, tried: str
) -> None:
    problem = explain(error)
    assert f"{tried} " in problem.explanation
    assert "hunter2" not in problem.explanation


def test_it_speaks_of_no_settings_that_its_reader_may_not_have() -> None:
    for error, *_ in TABLE:
        assert "in the settings" not in explain(error).advice


def test_a_wrong_app_key_says_where_the_key_is_set() -> None:
    advice = explain(Refused("h refuses this client: No. (4001)", code=4001)).advice
    assert "--app-key" in advice
    assert "REVERB_APP_KEY" in advice
    assert "somebody else" in advice  # who opens a deployed app has started nothing


async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "chat.db"
    with pytest.raises(SettingsError) as no_folder:
        await ChatStore(path, "me").open()
    with pytest.raises(SettingsError) as not_open:
        await ChatStore(path, "me").drafts()
    for raised in (no_folder, not_open):
        problem = explain(raised.value)
        assert problem.title == "Chat file not usable"
        assert str(path) in problem.explanation

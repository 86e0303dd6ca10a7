"""The auth endpoint: whether it signs, and with what."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec

from antiphon.client import Authorization
from antiphon.errors import AntiphonError
from antiphon.http import Answer, HttpClient, NoAnswer
from antiphon.protocol.channels import Access, access_of, needs_authorization
from antiphon.protocol.signing import channel_auth

from .case import Case
from .steps import Advice, Finding, failed, ok, skipped

__all__ = ["check_auth", "check_login", "check_signature"]

_DEFAULT: Final = "/broadcasting/auth"
_NO_SOCKET: Final = "1.1"


# Logging in


async def check_login(case: Case) -> Finding:
    """Whether the chat backend knows the user."""
    if case.log_in is None:
        return skipped("a token is given" if case.token else "no user is given (--email)")
    try:
        case.token, channel = await case.log_in()
    except AntiphonError as exc:
        code = getattr(exc, "code", None)
        return failed(case.hide(str(exc)), _LOGIN.get(code, _LOGIN_ODD))
    case.channel = case.channel or channel
    return ok(f"the user's own channel is {channel}" if channel else "the token goes as it is")


_LOGIN_ODD: Final = Advice(
    "The chat backend failed, or something else is at its address.",
    "Check --api (or APP_URL) and the backend's log; with a backend of another kind, give --token"
    " and --channel.",
)
_LOGIN: Final = {
    None: Advice(
        "The chat backend cannot be reached.",
        "Start it (php artisan serve, or antiphon demo), and check --api (or APP_URL).",
    ),
    401: Advice(
        "E-mail, password or token are wrong, or the token has expired.",
        "Log in again; the password is ANTIPHON_PASSWORD, the token ANTIPHON_TOKEN.",
    ),
}


# The endpoint


async def check_auth(case: Case) -> Finding:
    """Whether the endpoint signs the channel for this user."""
    if not needs_authorization(case.channel):
        return skipped("no private or presence channel is asked for (--channel)")
    url = case.settings.auth_url
    if not url:
        return skipped("no endpoint is given (--api or --auth-url): signed with the secret here")
    shown = case.hide(_shown(url))
    try:
        answer = await _ask(case, url)
    except NoAnswer as exc:
        return failed(f"{shown} gave no answer: {case.hide(str(exc))}", _UNREACHABLE)
    if answer.status != 200:
        return failed(f"{shown} answered {answer.status}", await _refusal(case, answer))
    try:
        signed = msgspec.json.decode(answer.body, type=Authorization)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return failed(f"{shown} answered 200 with {_kind(answer)}", _no_signature(answer))
    if access_of(case.channel) is Access.PRESENCE and signed.channel_data is None:
        return failed(f"{shown} signed {case.channel}, but gave no channel_data", _NO_USER)
    case.authorization = signed
    return ok(f"{shown} signed {case.channel}")


async def _ask(case: Case, url: str) -> Answer:
    socket_id = case.session.socket_id if case.session is not None else ""
    form = {"socket_id": socket_id or _NO_SOCKET, "channel_name": case.channel}
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    if case.token:
        headers["Authorization"] = f"Bearer {case.token}"
    client = HttpClient(case.timeout)
    try:
        return await client.request("POST", url, headers=headers, body=urlencode(form).encode())
    finally:
        await client.close()


def _shown(url: str) -> str:
    """An address without what may be secret in it."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


_UNREACHABLE: Final = Advice(
    "The web application is not running there, or the address is wrong.",
    "Start it (php artisan serve, or the web server), and check APP_URL (--api) or --auth-url with"
    " its port.",
)
_NO_USER: Final = Advice(
    "A presence channel's signature must name the user.",
    "Let the channel's callback in routes/channels.php return an array such as"
    " ['id' => $user->id, 'name' => $user->name].",
)
_ROUTES: Final = (
    "For tokens: Broadcast::routes(['middleware' => ['auth:sanctum']]) in routes/channels.php"
    " or a service provider."
)


async def _refusal(case: Case, answer: Answer) -> Advice:
    """What a status other than 200 means."""
    status = answer.status
    if 300 <= status < 400:
        return _redirect(case, answer)
    if status in (404, 405):
        other = await _other_address(case)
        if other:
            return Advice(
                f"The route is at another address: something answers at {other}.",
                f"Use --auth-url {other} (auth_endpoint in Settings, authEndpoint in Echo).",
            )
    if status == 403 and not case.token:
        return _FORBIDDEN_GUEST
    if status == 401 and not case.token:
        return _UNAUTHORIZED_GUEST
    return _STATUS.get(status) or (_SERVER if status >= 500 else _ODD)


def _redirect(case: Case, answer: Answer) -> Advice:
    to = _shown_target(case, answer)
    if to.startswith("https://") and case.settings.auth_url.startswith("http://"):
        return Advice(
            f"The web server sends plain HTTP on to {to}.",
            "Set APP_URL (--api) to the https address: a redirected POST would lose its form.",
        )
    return Advice(
        f"The endpoint redirects to {to or 'nowhere'}: usually a login page, because the"
        " route's guard did not accept the token.",
        f"Give --token with a fresh token. {_ROUTES}",
    )


def _shown_target(case: Case, answer: Answer) -> str:
    """Where an answer redirects to; a query may hold a secret."""
    to = answer.headers.get("location", "").partition("?")[0].partition("#")[0]
    return case.excerpt(_shown(to) if "://" in to else to)


async def _other_address(case: Case) -> str:
    """The usual other address of the endpoint, if a route is there."""
    url = urlsplit(case.settings.auth_url)
    if url.path.endswith(f"/api{_DEFAULT}"):
        path = _DEFAULT
    elif url.path.endswith(_DEFAULT):
        path = f"/api{_DEFAULT}"
    else:
        return ""
    other = url._replace(path=path, query="").geturl()
    try:
        answer = await _ask(case, other)
    except NoAnswer:
        return ""
    found = answer.status in (200, 401, 403, 419, 422) and not _is_page(answer)
    return _shown(other) if found else ""


_FORBIDDEN_GUEST: Final = Advice(
    "No token was sent, and Laravel answers 403 to guests.",
    "Give --token (or --email) to ask as a user.",
)
_UNAUTHORIZED_GUEST: Final = Advice(
    "No token was sent, and the endpoint is for users only.",
    "Give --token (or --email) to ask as a user.",
)
_SERVER: Final = Advice(
    "The web application failed.",
    "Look at storage/logs/laravel.log (or the backend's own). Common: pusher/pusher-php-server is"
    " not installed (composer require pusher/pusher-php-server), or a callback in"
    " routes/channels.php fails.",
)
_DOWN: Final = Advice(
    "The web server is there, but no application behind it, or it is in maintenance mode.",
    "Start PHP-FPM, Octane or php artisan serve; php artisan up.",
)
_ODD: Final = Advice(
    "This is no answer of an auth endpoint.",
    "Check --auth-url with php artisan route:list --path=broadcasting.",
)
_FORM: Final = Advice(
    "The endpoint misses something in the form it is sent.",
    "If the route is one of your own, let it read socket_id and channel_name from a form;"
    " otherwise look for a middleware that validates other fields.",
)
_STATUS: Final = {
    400: _FORM,
    401: Advice(
        "The token is wrong or has expired, or the route's guard is not the one it belongs to.",
        f"Log in again. {_ROUTES}",
    ),
    403: Advice(
        "This user may not join this channel, or no channel of routes/channels.php has this name"
        " (there it stands without private- or presence-), or the guard does not know the token.",
        f"Check the channel's callback in routes/channels.php. {_ROUTES}",
    ),
    404: Advice(
        "The route does not exist.",
        "php artisan install:broadcasting (before Laravel 11: enable BroadcastServiceProvider in"
        " config/app.php); php artisan route:list --path=broadcasting shows where it is.",
    ),
    405: Advice(
        "The route does not take POST: it is another route, or a redirect has changed the method.",
        "php artisan route:list --path=broadcasting shows where the endpoint is; give it in"
        " --auth-url.",
    ),
    419: Advice(
        "The route is in the web group, which wants a session and a CSRF token; clients with"
        " tokens have neither.",
        f"{_ROUTES} Or leave it out of the check, in bootstrap/app.php:"
        " $middleware->validateCsrfTokens(except: ['broadcasting/auth']).",
    ),
    422: _FORM,
    429: Advice(
        "The endpoint limits how often one user may ask (throttle).",
        "Wait a minute; then take the throttle middleware off the route, because every reconnect"
        " asks once for each channel.",
    ),
    502: _DOWN,
    503: _DOWN,
    504: _DOWN,
}


def _kind(answer: Answer) -> str:
    """What a body is, without showing it: it may hold a secret."""
    body = answer.body.strip()
    if not body:
        return "an empty body"
    if _is_page(answer):
        return "a page of HTML"
    return "true" if body in (b"true", b"1") else f"{len(body)} bytes that are no signature"


def _is_page(answer: Answer) -> bool:
    return answer.body.lstrip()[:1] == b"<"


def _no_signature(answer: Answer) -> Advice:
    """Why 200 came without a signature."""
    kind = _kind(answer)
    if kind == "an empty body":
        return Advice(
            "Laravel signs nothing where BROADCAST_CONNECTION is log or null (as in a new .env),"
            " or the route's guard is not the one the token belongs to.",
            "Set BROADCAST_CONNECTION=reverb (BROADCAST_DRIVER before Laravel 11), then php artisan"
            f" config:clear. {_ROUTES}",
        )
    if kind == "true":
        return Advice(
            "BROADCAST_CONNECTION is redis, which lets in without signing.",
            "Set BROADCAST_CONNECTION=reverb (BROADCAST_DRIVER before Laravel 11), then php artisan"
            " config:clear.",
        )
    if kind == "a page of HTML":
        return Advice(
            "A page of the web application answers, such as a login page or a single-page"
            " application's catch-all route.",
            "php artisan route:list --path=broadcasting shows where the endpoint is; give it in"
            " --auth-url.",
        )
    return Advice(
        "The endpoint answers something else than JSON with an auth field.",
        'Let it answer {"auth": "key:signature"}, as Broadcast::routes() does.',
    )


# The signature


async def check_signature(case: Case) -> Finding:
    """Whether the endpoint signs with the key and secret that are known here."""
    if case.authorization is None:
        return skipped("no endpoint has signed anything")
    settings, signed = case.settings, case.authorization
    key, colon, signature = signed.auth.partition(":")
    if not colon or len(signature) != 64 or signature.strip("0123456789abcdef"):
        return failed(
            "the endpoint's signature has not the form of one",
            Advice(
                "It must be the key, a colon and 64 hexadecimal digits in lower case.",
                "Let the endpoint sign with a Pusher library, as Broadcast::routes() does.",
            ),
        )
    differs = ["key"] if key != settings.app_key else []
    if settings.app_secret:
        socket_id = case.session.socket_id if case.session is not None else ""
        own = channel_auth(
            key, settings.app_secret, socket_id or _NO_SOCKET, case.channel, signed.channel_data
        )
        differs += ["secret"] if own != signed.auth else []
    if not differs:
        same = "key and secret are" if settings.app_secret else "the key is"
        return ok(f"{same} the same here and at the endpoint")
    case.suspicion = " and ".join(differs)
    names = " and ".join(f"REVERB_APP_{name.upper()}" for name in differs)
    return failed(
        f"the endpoint signs with another {case.suspicion} than {names} here",
        Advice(
            "The web application has another .env than the one given here, or an old one cached.",
            f"Compare {names} in both (neither is printed here), then php artisan config:clear"
            " there.",
        ),
    )

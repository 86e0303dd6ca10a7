"""The HTTP API with which backends publish, and an event's way from there to here."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from antiphon.errors import PublishFailed
from antiphon.http import Answer, HttpClient, NoAnswer
from antiphon.protocol.events import Closed
from antiphon.protocol.signing import HTTP_WINDOW, sign_request
from antiphon.publisher import Publisher

from .case import Case
from .session import why_closed
from .steps import Advice, Finding, failed, ok, skipped, warning

__all__ = ["check_api", "check_event"]

EVENT: Final = "antiphon-doctor"


# The HTTP API


async def check_api(case: Case) -> Finding:
    """Whether the server takes requests signed with the id, key and secret known here."""
    settings = case.settings
    if not settings.app_id or not settings.app_secret:
        return skipped(_NO_SECRET)
    path = f"/apps/{settings.app_id}/channels"
    asked = time.time()
    query = sign_request(settings.app_key, settings.app_secret, "GET", path, timestamp=int(asked))
    client = HttpClient(case.timeout)
    try:
        answer = await client.request("GET", f"{settings.http_url}{path}?{urlencode(query)}")
    except NoAnswer as exc:
        return failed(f"{settings.http_url} gave no answer: {exc}", _UNREACHABLE)
    finally:
        await client.close()
    ahead = _seconds_ahead(answer.headers, asked, time.time())
    status, body = _status(answer)
    if status in (200, 202) and isinstance(body, dict) and "channels" in body:
        return _clocks(len(body["channels"] or ()), ahead)
    words = case.excerpt(answer.body)
    detail = f"{settings.http_url}{path} answered {status}" + (f': "{words}"' if words else "")
    return failed(detail, _refusal(case, status, words, ahead))


_NO_SECRET: Final = "no id or secret is given (REVERB_APP_ID, REVERB_APP_SECRET)"  # noqa: S105
_UNREACHABLE: Final = Advice(
    "The HTTP API does not answer, although the WebSocket side is reached in the same way.",
    "Check that the proxy passes /apps on as it does /app.",
)


def _status(answer: Answer) -> tuple[int, Any]:
    """Status and decoded body; soketi answers 200 with the status in the body."""
    try:
        body = msgspec.json.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return answer.status, None
    code = body.get("code") if isinstance(body, dict) else None
    return (code if isinstance(code, int) and code >= 400 else answer.status), body


def _seconds_ahead(headers: Mapping[str, str], before: float, after: float) -> int | None:
    """By how much this machine's clock is ahead of the server's; None if it does not say."""
    try:
        theirs = parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return None
    # Their second began at most one second before they wrote it.
    if before - 1 <= theirs <= after:
        return 0
    return round((before + after) / 2 - theirs)


def _clocks(count: int, ahead: int | None) -> Finding:
    detail = f"the signature is accepted; {count} occupied channels"
    if ahead is None or abs(ahead) <= HTTP_WINDOW // 10:
        return ok(detail)
    return warning(
        f"{detail}; {_apart(ahead)}",
        Advice(
            f"Servers may refuse requests that are {HTTP_WINDOW} s old or early (Reverb does not).",
            "Let both machines keep time: timedatectl set-ntp true.",
        ),
    )


def _apart(ahead: int) -> str:
    word = "ahead of" if ahead > 0 else "behind"
    return f"this machine's clock is {abs(ahead):,} s {word} the server's"


def _refusal(case: Case, status: int, words: str, ahead: int | None) -> Advice:
    if status == 401:
        return _unauthorized(case, ahead)
    if status == 404:
        return _not_found(case, words)
    if 300 <= status < 400:
        return _REDIRECT
    return _STATUS.get(status) or (_SERVER if status >= 500 else _ODD)


def _unauthorized(case: Case, ahead: int | None) -> Advice:
    if ahead is not None and abs(ahead) > HTTP_WINDOW:
        return Advice(
            f"The request seems too old or too early: {_apart(ahead)}, and {HTTP_WINDOW} s are"
            " allowed.",
            "Set the clock of the machine that is wrong: timedatectl set-ntp true.",
        )
    clocks = "" if ahead is None else " (the clocks agree)"
    agreed = case.session is not None and case.channel in case.session.joined
    if case.suspicion and agreed:
        cause = "The endpoint and this server agree, and what is given here differs"
    else:
        cause = "REVERB_APP_SECRET here is not the server's, or REVERB_APP_KEY is not"
    return Advice(
        f"{cause}{clocks}, or a proxy changes the path before the server checks its signature.",
        "Compare REVERB_APP_KEY and REVERB_APP_SECRET with the server's; after a change there:"
        " php artisan config:clear, then php artisan reverb:restart.",
    )


def _not_found(case: Case, words: str) -> Advice:
    if re.search(r"\bapp(lication)?\b", words, re.IGNORECASE):
        return Advice(
            f"The server has no application with the id {case.settings.app_id!r}.",
            "Compare REVERB_APP_ID with the server's .env (config/reverb.php, apps).",
        )
    return Advice(
        "The proxy passes /app on to the server, but not /apps; or the path's prefix is wrong.",
        "Let the proxy pass both on: in nginx, location ~ ^/apps?/ { proxy_pass"
        " http://127.0.0.1:8080; … }.",
    )


_SERVER: Final = Advice(
    "The server, or a proxy in front of it, failed.",
    "Look at the server's log: php artisan reverb:start --debug.",
)
_ODD: Final = Advice(
    "This is no answer of a Pusher server's HTTP API.",
    "Let the proxy pass /apps on to the server, as it does /app.",
)
_REDIRECT: Final = Advice(
    "The web server redirects; a signed request cannot follow.",
    "Set REVERB_SCHEME, REVERB_HOST and REVERB_PORT to where it redirects.",
)
_STATUS: Final = {
    403: Advice(
        "The application is disabled, or a proxy forbids /apps from here.",
        "Publish from a machine that may, or allow this one's address there.",
    ),
    429: Advice("The server limits requests.", "Wait a minute, or raise its limit."),
}


# The round trip


async def check_event(case: Case) -> Finding:
    """Whether what is published arrives."""
    session, settings = case.session, case.settings
    if not settings.app_id or not settings.app_secret:
        return skipped(_NO_SECRET)
    assert session is not None, "the upgrade was a success"
    channel = case.own_channel
    try:
        if channel not in session.joined:
            session.subscribe(channel, None, None)
            try:
                joined = await session.hear(lambda _: channel in session.joined)
            except TimeoutError:
                return failed(f"no answer for {channel} in {case.timeout:g} s", _NOT_JOINED)
            if isinstance(joined.meaning, Closed):
                return failed(case.hide(joined.meaning.reason), why_closed(case, joined.meaning))
        return await _round_trip(case, channel)
    except PublishFailed as exc:
        return failed(case.hide(str(exc)), _why_not_published(exc))
    except TimeoutError:
        return failed(f"published on {channel}, not received in {case.timeout:g} s", _LOST)


async def _round_trip(case: Case, channel: str) -> Finding:
    session = case.session
    assert session is not None
    async with Publisher(case.settings, timeout=case.timeout) as publisher:
        started = time.monotonic()
        await publisher.trigger(channel, EVENT, {})
        heard = await session.hear(
            lambda heard: (
                heard.event is not None
                and (heard.event.name, heard.event.channel) == (EVENT, channel)
            )
        )
        took = time.monotonic() - started
    if isinstance(heard.meaning, Closed):
        return failed(case.hide(heard.meaning.reason), why_closed(case, heard.meaning))
    return ok(f"published, and received in {took * 1000:.1f} ms")


_NOT_JOINED: Final = Advice(
    "The server does not let this connection join a public channel, and does not say why.",
    "See what it says: php artisan reverb:start --debug.",
)
_LOST: Final = Advice(
    "The server that takes the publication is not the one that holds this connection: several"
    " run, and do not tell each other; or a proxy passes /apps and /app on to different ones.",
    "Set REVERB_SCALING_ENABLED=true with one Redis for all of them, or run only one.",
)


def _why_not_published(exc: PublishFailed) -> Advice:
    if exc.code == 429:
        return _STATUS[429]
    return Advice(
        "The server takes questions but no publications.",
        "Look at the server's log: php artisan reverb:start --debug.",
    )

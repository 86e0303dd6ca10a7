"""The upgrade from HTTP to WebSocket: where proxies stand in the way."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final
from urllib.parse import urlsplit

from antiphon.client.transport import dial
from antiphon.errors import Unreachable

from .case import Case, Reply
from .network import speaks_tls
from .session import Session
from .steps import Advice, Finding, failed, ok

__all__ = ["check_upgrade"]

_NGINX: Final = (
    "In nginx: location /app { proxy_pass http://127.0.0.1:8080; proxy_http_version 1.1;"
    ' proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "Upgrade";'
    " proxy_set_header Host $http_host; }."
)
_OTHER_PROXIES: Final = (
    " Caddy's reverse_proxy does it by itself, Apache needs mod_proxy_wstunnel, Cloudflare has"
    " Network → WebSockets."
)


async def check_upgrade(case: Case) -> Finding:
    """Whether the server agrees to speak WebSocket; the session begins here."""
    url = case.settings.websocket_url
    session = Session(case.timeout)
    try:
        await dial(
            url,
            session,
            timeout=case.timeout,
            ssl_context=case.usual_tls() if case.settings.secure else None,
            headers={"Origin": case.origin} if case.origin else None,
        )
    except Unreachable as exc:
        return await _refused(case, exc)
    case.session = session
    return ok(f"101 from {url.partition('?')[0]}")


async def _refused(case: Case, exc: Unreachable) -> Finding:
    try:
        reply = await case.ask(tls=_tls(case))
    except OSError:
        return failed(case.hide(str(exc)), _HANGS_UP)
    if reply.status == 101:
        return failed(case.hide(str(exc)), _NO_WEBSOCKET)
    if not case.settings.secure and await _wants_tls(case, reply):
        return failed(f"{case.where} speaks TLS, not plain HTTP", _SCHEME)
    if reply.status:
        return failed(f"{case.where} answered {_seen(case, reply)}", await _status(case, reply))
    if reply.raw:
        words = case.excerpt(reply.raw, 40)
        return failed(f'{case.where} is no web server, it says "{words}"', _NO_WEBSOCKET)
    if reply.ended:
        return failed(f"{case.where} hung up instead of answering", _HANGS_UP)
    return failed(f"{case.where} did not answer in {case.timeout:g} s", _HANGS)


def _seen(case: Case, reply: Reply) -> str:
    """The answer in a few words: status, who says so, and the beginning of the body."""
    who, words = case.excerpt(reply.headers.get("server", ""), 30), case.excerpt(reply.body)
    by = f" ({who})" if who else ""
    return (
        f"{reply.status} {case.hide(reply.reason)}".strip() + by + (f': "{words}"' if words else "")
    )


_SCHEME: Final = Advice(
    "The scheme is http, but this port speaks TLS.",
    "Set REVERB_SCHEME=https, and REVERB_HOST to the name in the certificate.",
)
_NO_WEBSOCKET: Final = Advice(
    "Something else than a Pusher server listens on this port.",
    "Check REVERB_HOST and REVERB_PORT: 8080 is Reverb's own port unless REVERB_SERVER_PORT says"
    " another.",
)
_HANGS_UP: Final = Advice(
    "What listens there ends connections at once: it expects another protocol, or it is a proxy"
    " (or a container's published port) with nothing behind it.",
    "Check that Reverb runs behind it (php artisan reverb:start --host=0.0.0.0 in a container),"
    " and check REVERB_SCHEME.",
)
_HANGS: Final = Advice(
    "The port takes connections, but what is behind it hangs, or waits for another protocol.",
    "Restart the server, and look at its log: php artisan reverb:start --debug.",
)


def _tls(case: Case) -> ssl.SSLContext | None:
    return case.usual_tls() if case.settings.secure else None


async def _wants_tls(case: Case, reply: Reply) -> bool:
    """Whether the answer to plain HTTP is that of a port that speaks TLS."""
    if reply.status:
        return reply.status == 400 and "https" in reply.body.lower()  # nginx, Apache, Go
    is_alert = reply.raw.startswith(b"\x15\x03")
    return is_alert or (not reply.raw and await speaks_tls(case))


async def _status(case: Case, reply: Reply) -> Advice:
    """What a status in place of 101 means."""
    if 300 <= reply.status < 400:
        return _redirect(case, reply)
    if reply.status == 404:
        return await _not_found(case)
    return _STATUS.get(reply.status) or _ODD


def _redirect(case: Case, reply: Reply) -> Advice:
    to = case.excerpt(reply.headers.get("location", "").partition("?")[0])
    try:
        target = urlsplit(to)
    except ValueError:
        target = urlsplit("")
    if target.scheme in ("https", "wss") and not case.settings.secure:
        return Advice(
            f"The server sends plain HTTP on to {to}.",
            "Set REVERB_SCHEME=https and REVERB_PORT=443 (or the port of that address).",
        )
    return Advice(
        f"Something in front of Reverb redirects to {to or 'nowhere'}: a WebSocket client"
        " does not follow.",
        "If the name differs, set REVERB_HOST to the new one; if it is a login page, the web"
        f" application answers and not Reverb. {_NGINX}",
    )


async def _not_found(case: Case) -> Advice:
    prefix = await _other_prefix(case)
    if prefix is not None:
        what = f"Set the path to {prefix}" if prefix else "Leave the path out"
        return Advice(
            f"A Pusher server answers at {prefix}/app/…, not at {case.settings.path}/app/….",
            f"{what}: --path here, path in Settings, wsPath in Echo; REVERB_SERVER_PATH is"
            " Reverb's own.",
        )
    return Advice(
        "A web server answers, but no Pusher server is at this path, or a proxy has dropped the"
        " Upgrade header on the way to it.",
        "Let the proxy pass /app and /apps on to Reverb, or connect to Reverb's own port."
        f" {_NGINX}{_OTHER_PROXIES}",
    )


async def _other_prefix(case: Case) -> str | None:
    """Another prefix of the path where a WebSocket is to be had, if there is one."""
    path = case.settings.path
    usual = dict.fromkeys(("", path.removesuffix("/app"), f"{path}/app", "/ws", "/reverb"))
    prefixes = [prefix for prefix in usual if prefix != path]
    replies = await asyncio.gather(
        *(case.ask(path=prefix, tls=_tls(case)) for prefix in prefixes), return_exceptions=True
    )
    answered = zip(prefixes, replies, strict=True)
    return next((p for p, r in answered if isinstance(r, Reply) and r.status == 101), None)


_DROPPED: Final = Advice(
    "A proxy has dropped the Upgrade header on the way to the server.",
    f"{_NGINX}{_OTHER_PROXIES}",
)
_NOTHING_BEHIND: Final = Advice(
    "The proxy is there, but no server behind it.",
    "Start Reverb (php artisan reverb:start, kept alive by Supervisor), and let the proxy's"
    " address for /app be the one Reverb listens on (REVERB_SERVER_HOST, REVERB_SERVER_PORT;"
    " in a container 0.0.0.0, not 127.0.0.1).",
)
_FORBIDDEN: Final = Advice(
    "A firewall, a bot protection or an allow-list in front of the server forbids it.",
    "Let requests to /app pass there: WebSocket clients cannot solve challenges.",
)
_CLOUDFLARE: Final = Advice(
    "Cloudflare does not reach the server behind it.",
    "Start the server, let Cloudflare's addresses through its firewall, and use a port that"
    " Cloudflare passes on (443, 8443, …).",
)
_CLOUDFLARE_TLS: Final = Advice(
    "Cloudflare and the server behind it do not agree on TLS.",
    "Check SSL/TLS → Overview at Cloudflare, and the server's own certificate.",
)
_STATUS: Final = {
    200: Advice(
        "A web page is at this address: the proxy does not pass /app on to Reverb, or drops the"
        " Upgrade header.",
        f"{_NGINX}{_OTHER_PROXIES}",
    ),
    400: _DROPPED,
    401: Advice(
        "A proxy wants a password (basic authentication), which no WebSocket client sends.",
        "Take /app out of the password's protection.",
    ),
    403: _FORBIDDEN,
    405: _DROPPED,
    426: _DROPPED,
    429: Advice(
        "A proxy limits how often one address may connect.",
        "Wait a minute; then raise the limit for /app (limit_req, limit_conn).",
    ),
    500: Advice(
        "The server failed. Reverb answers 500 when the Upgrade header is missing, so it is most"
        " likely a proxy that drops it.",
        f"{_NGINX}{_OTHER_PROXIES} Otherwise: php artisan reverb:start --debug.",
    ),
    502: _NOTHING_BEHIND,
    503: Advice(
        "The server or the proxy is not ready: maintenance mode, a restart, or no healthy server"
        " behind a balancer.",
        "php artisan up; then start Reverb (php artisan reverb:start). A balancer's health check"
        " can ask for /up.",
    ),
    504: Advice(
        "The proxy waits for a server behind it that does not answer.",
        "Restart Reverb (php artisan reverb:restart), and check the proxy's address for /app.",
    ),
    520: _CLOUDFLARE,
    521: _CLOUDFLARE,
    522: _CLOUDFLARE,
    523: _CLOUDFLARE,
    525: _CLOUDFLARE_TLS,
    526: _CLOUDFLARE_TLS,
}
_ODD: Final = Advice(
    "A web server answers, and does not speak WebSocket at this path.",
    "Look at the server's or proxy's log for this request; let the proxy pass /app on to Reverb."
    f" {_NGINX}",
)

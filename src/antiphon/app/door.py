"""What stands before the pages: who may ask at all, and which browser it is that asks."""

from __future__ import annotations

import ipaddress
import secrets
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse

from antiphon.errors import SettingsError

__all__ = ["Door"]

_COOKIE_LENGTH: Final = 43
# Vue compiles its templates in the browser, which is what needs `unsafe-eval`.
_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval'; img-src 'self' data:;"
        b" frame-ancestors 'self'; form-action 'self'; base-uri 'none'; object-src 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Door:
    """Lets nobody in but browsers on a page of ours, and gives each an unguessable cookie.

    A page of another site, open in the same browser, can reach every port of this machine. It is
    refused: by the name it asks for, if it had a name of its own point here (DNS rebinding); by
    its origin, which every WebSocket tells; and by what the browser says of where a request comes
    from. Our own pages are told to load nothing from elsewhere.

    Args:
        app: The pages, as an ASGI application.
        address: The address listened on. On a loopback one, only this machine's names are answered.
        port: The port listened on. Cookies know no ports: the cookie's name has it, so that two
            apps on one machine do not put each other's people out.
        public_url: Where people reach it, if that is another address; its name is then answered
            besides this machine's, and no other.

    Raises:
        SettingsError: `public_url` is no address.
    """

    def __init__(self, app: Any, *, address: str, port: int, public_url: str) -> None:
        self._app = app
        self._cookie = f"antiphon-{port}"
        self._origin, self._name = _parts(public_url)
        self._is_narrow = bool(public_url) or _is_this_machine(address)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse a request, or hand it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(headers)
        if refusal and scope["type"] == "http":
            await PlainTextResponse(refusal, 403)(scope, receive, send)
        elif refusal:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif not scope["path"].isprintable():  # such a path misleads the router about its prefix
            await PlainTextResponse("There is no such page.", 404)(scope, receive, send)
        elif scope["type"] == "websocket" or scope["path"].startswith("/_nicegui"):
            await self._app(scope, receive, send)
        else:
            await self._page(headers, scope, receive, send)

    def _refusal(self, headers: Headers) -> str:
        """Why nothing is answered; empty if it is."""
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        if self._is_narrow and not self._is_ours(host):
            return (
                "This app does not answer to that name. Behind a web server, start it with"
                " --public-url and the address that people open."
            )
        # Browsers leave the origin out where they get a page of ours, and nowhere else.
        is_own = not origin or origin == self._origin or urlsplit(origin).netloc == host
        comes_from = headers.get("sec-fetch-site", "none")
        is_link = headers.get("sec-fetch-dest") == "document"
        if not is_own or (comes_from in ("cross-site", "same-site") and not is_link):
            return "This app answers its own pages only, and not another site's."
        return ""

    def _is_ours(self, host: str) -> bool:
        name = _name(f"//{host}")
        return bool(name) and (name == self._name or _is_this_machine(name))

    async def _page(self, headers: Headers, scope: Any, receive: Any, send: Any) -> None:
        is_secure = scope["scheme"] == "https" or self._origin.startswith("https:")
        # With this prefix no neighbour, such as another name of the domain, can set the cookie.
        name = f"__Host-{self._cookie}" if is_secure else self._cookie
        id_ = cookie_parser(headers.get("cookie", "")).get(name, "")
        new: list[tuple[bytes, bytes]] = []
        if len(id_) != _COOKIE_LENGTH:
            id_ = secrets.token_urlsafe(32)
            cookie = f"{name}={id_}; Path=/; HttpOnly; SameSite=Lax{'; Secure' * is_secure}"
            new.append((b"set-cookie", cookie.encode()))
        scope.setdefault("state", {})["browser"] = id_

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS, *new]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _parts(url: str) -> tuple[str, str]:
    """An address's origin, as browsers write it, and its name."""
    if not url:
        return "", ""
    name = _name(url)
    try:
        parts = urlsplit(url.lower())
        port = parts.port
    except ValueError:
        name = ""
    if not name or parts.scheme not in ("http", "https"):
        raise SettingsError(f"{url!r} is no public address: write it as https://chat.example.com.")
    shown = f"[{name}]" if ":" in name else name
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{shown}{'' if port in (None, usual) else f':{port}'}", name


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_this_machine(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")

"""What is asked, and what is known so far; and plain requests, to see what a client does not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from antiphon.client import Authorization
    from antiphon.settings import Settings

    from .session import Session

__all__ = ["Case", "LogIn", "Reply"]

LogIn = Callable[[], Awaitable[tuple[str, str]]]
"""Logs in; gives the token, and the user's own channel or an empty string."""

_MAX_REPLY: Final = 16_384
_BODY_WAIT: Final = 0.5
_EXCERPT: Final = 80
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d{1,9})\b", re.IGNORECASE)
_SIGNATURE: Final = re.compile(r"[0-9a-fA-F]{64}")
_TITLE: Final = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
_TAG: Final = re.compile(r"<(script|style).*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


class Case:
    """One examination.

    Attributes:
        settings: Where the server is.
        channel: What to subscribe to; empty until it is known.
        own_channel: A public channel that nobody else is in.
        token: Bearer token for the auth endpoint.
        log_in: How to get one.
        origin: The `Origin` header of the upgrade request.
        timeout: Seconds to wait for any one answer.
        ssl_context: Stands in for the usual one.
        addresses: What the host's name stands for.
        address: The first address that took a connection.
        session: The WebSocket connection.
        authorization: What the auth endpoint signed.
        suspicion: What the endpoint's signature differs in from one made here.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        channel: str,
        token: str,
        log_in: LogIn | None,
        origin: str,
        timeout: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self.settings = settings
        self.channel = channel
        self.own_channel = f"antiphon-doctor-{secrets.token_hex(8)}"
        self.token = token
        self.log_in = log_in
        self.origin = origin
        self.timeout = timeout
        self.ssl_context = ssl_context
        self.addresses: list[str] = []
        self.address = ""
        self.session: Session | None = None
        self.authorization: Authorization | None = None
        self.suspicion = ""

    @property
    def where(self) -> str:
        """Host and port."""
        return urlsplit(self.settings.websocket_url).netloc

    def excerpt(self, raw: bytes | str, length: int = _EXCERPT) -> str:
        """The beginning of what a stranger says; of a page its title, of JSON its message."""
        text = raw if isinstance(raw, str) else raw[:_MAX_REPLY].decode("utf-8", "replace")
        text = self.hide(text)  # first: half a secret would not be known for one
        title = _TITLE.search(text)
        words = " ".join((title[1] if title else _message(text) or _TAG.sub(" ", text)).split())
        return words if len(words) <= length else words[:length].rstrip() + "…"

    def hide(self, text: str) -> str:
        """A text as it may be shown, whatever a stranger has said in it."""
        for secret in (self.settings.app_secret, self.token):
            if len(secret) >= 8:  # replacing shorter ones would only mark where they stand
                text = text.replace(secret, "…")
        text = _SIGNATURE.sub("…", text)
        return "".join(c if c.isprintable() else " " for c in text)

    def usual_tls(self) -> ssl.SSLContext:
        """The context that a client would use."""
        return self.ssl_context or ssl.create_default_context()

    @contextlib.asynccontextmanager
    async def connected(
        self, tls: ssl.SSLContext | None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to the address that takes one.

        Raises:
            OSError: There is none, or none with TLS.
            TimeoutError: Likewise, in time.
        """
        async with asyncio.timeout(self.timeout):
            reader, writer = await asyncio.open_connection(
                self.address,
                self.settings.port,
                ssl=tls,
                server_hostname=self.settings.host if tls is not None else None,
            )
        try:
            yield reader, writer
        finally:
            writer.transport.abort()  # a farewell could take as long as the peer likes
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def ask(self, *, path: str | None = None, tls: ssl.SSLContext | None = None) -> Reply:
        """Ask for a WebSocket, and see what is answered.

        Args:
            path: Stands in for the settings' own prefix.
            tls: How to speak TLS; None for plain text.

        Raises:
            OSError: There is no connection.
        """
        async with self.connected(tls) as (reader, writer):
            writer.write(self._upgrade_request(path))
            return await _read(reader, self.timeout)

    def _upgrade_request(self, path: str | None) -> bytes:
        parts = urlsplit(self.settings.websocket_url)
        prefix = self.settings.path if path is None else path
        target = f"{prefix}{parts.path.removeprefix(self.settings.path)}?{parts.query}"
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        if self.origin:
            lines.append(f"Origin: {self.origin}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Reply:
    """What came back to a plain request.

    Attributes:
        raw: All that was read.
        ended: Whether the peer hung up without a whole answer.
        status: The HTTP status; 0 if this is no HTTP.
        headers: The header fields; names in lower case.
        body: The body's beginning.
    """

    def __init__(self, raw: bytes, *, ended: bool) -> None:
        self.raw = raw
        self.ended = ended
        head, _, body = raw.decode("utf-8", "replace").partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        line = re.match(r"HTTP/1\.\d ([1-9]\d\d) ?(.*)", first)
        self.status = int(line[1]) if line else 0
        self.reason = line[2].strip()[:40] if line else ""
        fields = (field.partition(":") for field in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        self.body = body


async def _read(reader: asyncio.StreamReader, timeout: float) -> Reply:
    """Read the head of an answer, and the beginning of its body."""
    heard = bytearray()
    try:
        async with asyncio.timeout(timeout):
            while b"\r\n\r\n" not in heard and len(heard) < _MAX_REPLY:
                part = await reader.read(_MAX_REPLY)
                heard += part
                if not part or not b"HTTP/".startswith(heard[:5]):
                    return Reply(bytes(heard), ended=not part)
        async with asyncio.timeout(_BODY_WAIT):
            while len(heard) < _wanted(heard) and (part := await reader.read(_MAX_REPLY)):
                heard += part
    except TimeoutError:
        return Reply(bytes(heard), ended=False)
    except OSError:
        return Reply(bytes(heard), ended=True)
    return Reply(bytes(heard), ended=False)


def _wanted(heard: bytearray) -> int:
    """How many bytes of an answer to read, as far as its head says so."""
    head, _, _ = bytes(heard).partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 101"):
        return 0
    length = _LENGTH.search(head)
    return min(len(head) + 4 + int(length[1]), _MAX_REPLY) if length else _MAX_REPLY


def _message(text: str) -> str:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    fields = found if isinstance(found, dict) else {}
    return next((str(fields[name]) for name in ("error", "message") if fields.get(name)), "")

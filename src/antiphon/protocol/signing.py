"""Signatures: made and checked here and nowhere else.

All are hexadecimal HMAC-SHA256 under the application's secret. Pusher documentation,
*auth signatures* and *REST API, authentication*.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = [
    "HTTP_WINDOW",
    "RequestSignatureInvalid",
    "channel_auth",
    "sign_request",
    "sign_webhook",
    "user_auth",
    "verify_channel_auth",
    "verify_request",
    "verify_user_auth",
    "verify_webhook",
]

HTTP_WINDOW: Final = 600
"""Seconds by which a request's `auth_timestamp` may differ from the server's clock."""


def channel_auth(
    key: str, secret: str, socket_id: str, channel: str, channel_data: str | None = None
) -> str:
    """The `auth` field for a private or (with `channel_data`) presence channel: `key:signature`."""
    return f"{key}:{_hmac(secret, _channel_text(socket_id, channel, channel_data))}"


def verify_channel_auth(
    auth: str,
    key: str,
    secret: str,
    socket_id: str,
    channel: str,
    channel_data: str | None = None,
) -> bool:
    """Whether `auth` was signed for exactly this socket, channel and `channel_data`."""
    return _same(auth, channel_auth(key, secret, socket_id, channel, channel_data))


def user_auth(key: str, secret: str, socket_id: str, user_data: str) -> str:
    """The `auth` field of `pusher:signin`."""
    return f"{key}:{_hmac(secret, f'{socket_id}::user::{user_data}')}"


def verify_user_auth(auth: str, key: str, secret: str, socket_id: str, user_data: str) -> bool:
    """Whether `auth` was signed for exactly this socket and user."""
    return _same(auth, user_auth(key, secret, socket_id, user_data))


class RequestSignatureInvalid(Exception):
    """A request to the HTTP API is not signed as it must be; the text says what is wrong."""


def sign_request(
    key: str,
    secret: str,
    method: str,
    path: str,
    *,
    timestamp: int,
    body: bytes = b"",
    query: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The whole query of a signed request to the HTTP API.

    Args:
        key: Application key.
        secret: Application secret.
        method: `GET` or `POST`.
        path: Path without the server's prefix, such as `/apps/3/events`.
        timestamp: Seconds since the epoch.
        body: The request's body as it will be sent.
        query: Further parameters, such as `info`.
    """
    signed = {
        **(query or {}),
        "auth_key": key,
        "auth_timestamp": str(timestamp),
        "auth_version": "1.0",
    }
    if body:
        signed["body_md5"] = _md5(body)
    signed["auth_signature"] = _hmac(secret, _request_text(method, path, signed.items()))
    return signed


def verify_request(
    key: str,
    secret: str,
    method: str,
    path: str,
    query: Iterable[tuple[str, str]],
    body: bytes,
    *,
    now: float,
) -> None:
    """Check a signed request to the HTTP API.

    `body_md5` must be the body's where it is sent (PyPI `pusher` sends it with every GET) and
    may be absent only where there is no body.

    Args:
        key: Application key.
        secret: Application secret.
        method: The request's method.
        path: Path as it was sent, without the server's prefix.
        query: The query's parameters, percent-decoded, as they came.
        body: The request's body.
        now: Seconds since the epoch.

    Raises:
        RequestSignatureInvalid: Wrong key, version, time, body digest or signature.
    """
    pairs = [(name.lower(), value) for name, value in query]
    given = dict(pairs)
    if not _same(given.get("auth_key", ""), key):
        raise RequestSignatureInvalid("auth_key is missing or not this application's key")
    if given.get("auth_version") != "1.0":
        raise RequestSignatureInvalid("auth_version must be 1.0")
    try:
        timestamp = int(given.get("auth_timestamp", ""))
    except ValueError:
        raise RequestSignatureInvalid("auth_timestamp must be seconds since the epoch") from None
    # Compared, not subtracted: a stranger's number may be too large for a float.
    if not now - HTTP_WINDOW <= timestamp <= now + HTTP_WINDOW:
        raise RequestSignatureInvalid(
            f"auth_timestamp is more than {HTTP_WINDOW} seconds from the server's time;"
            " check both clocks"
        )
    if (body or "body_md5" in given) and not _same(given.get("body_md5", ""), _md5(body)):
        raise RequestSignatureInvalid("body_md5 is missing or not the body's MD5")
    text = _request_text(method, path, (p for p in pairs if p[0] != "auth_signature"))
    if not _same(given.get("auth_signature", ""), _hmac(secret, text)):
        raise RequestSignatureInvalid("auth_signature is wrong; check the secret and the path")


def sign_webhook(secret: str, body: bytes) -> str:
    """The `X-Pusher-Signature` header of a webhook."""
    return hmac.digest(secret.encode(), body, "sha256").hex()


def verify_webhook(secret: str, body: bytes, signature: str) -> bool:
    """Whether a webhook's body was signed with this secret."""
    return _same(signature, sign_webhook(secret, body))


def _channel_text(socket_id: str, channel: str, channel_data: str | None) -> str:
    text = f"{socket_id}:{channel}"
    return text if channel_data is None else f"{text}:{channel_data}"


def _request_text(method: str, path: str, query: Iterable[tuple[str, str]]) -> str:
    # Values stand unescaped; names are lower-cased and sorted.
    pairs = "&".join(f"{name}={value}" for name, value in sorted((n.lower(), v) for n, v in query))
    return f"{method.upper()}\n{path}\n{pairs}"


def _hmac(secret: str, text: str) -> str:
    # A stranger's text may hold lone surrogates; they sign to something, and match nothing.
    return hmac.digest(secret.encode(), text.encode("utf-8", "surrogatepass"), "sha256").hex()


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _same(given: str, expected: str) -> bool:
    # compare_digest refuses non-ASCII text, which a stranger may send: compare bytes.
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())

"""Encrypted channels: NaCl's secretbox over an event's data, end to end.

Pusher documentation, *encrypted channels*. Only the data is encrypted: channel and event names
are seen by the server. PyNaCl comes with `antiphon[encryption]` and is loaded when first needed.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final

from antiphon.errors import SettingsError

from .frames import decode_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from nacl.secret import SecretBox

__all__ = [
    "KEY_SIZE",
    "NONCE_SIZE",
    "Sealed",
    "check_available",
    "decode_key",
    "decrypt",
    "encrypt",
    "shared_secret",
]

KEY_SIZE: Final = 32
"""Bytes of a key, a master key and a channel's shared secret alike."""

NONCE_SIZE: Final = 24

Sealed = dict[str, str]
"""Encrypted data as it travels: `nonce` and `ciphertext`, both base64."""


def check_available() -> None:
    """Find out, before it is too late, whether there is anything to decrypt with.

    Raises:
        SettingsError: PyNaCl is missing.
    """
    _secret_box(bytes(KEY_SIZE))


def decode_key(text: str, what: str) -> bytes:
    """A key from its base64.

    Args:
        text: The base64.
        what: What it is, for the error's text: `The encryption master key`.

    Raises:
        SettingsError: It is no base64 of 32 bytes. The text never holds the key.
    """
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one
        raise SettingsError(f"{what} is no base64.") from None
    if len(key) != KEY_SIZE:
        raise SettingsError(f"{what} has {KEY_SIZE} bytes, this one has {len(key)}.")
    return key


def shared_secret(channel: str, master_key: bytes) -> bytes:
    """The key of one channel: SHA-256 of its name and the master key."""
    # A name with lone surrogates has a key as well, and is refused where it is sent.
    return hashlib.sha256(channel.encode("utf-8", "surrogatepass") + master_key).digest()


def encrypt(key: bytes, text: str, nonce: bytes) -> Sealed:
    """Encrypt an event's data.

    Args:
        key: The channel's shared secret.
        text: The data, as it would have been sent.
        nonce: 24 bytes, never used twice with one key; random ones are not.

    Raises:
        SettingsError: PyNaCl is missing.
        ValueError: The text holds a lone surrogate, which no UTF-8 can carry.
    """
    try:
        plain = text.encode()
    except UnicodeEncodeError:
        # Its own text shows the character, and the exception holds all of the data.
        raise ValueError("The data holds half of a character (a lone surrogate).") from None
    sealed = _secret_box(key).encrypt(plain, nonce)
    return {
        "nonce": base64.b64encode(nonce).decode(),
        "ciphertext": base64.b64encode(sealed.ciphertext).decode(),
    }


def decrypt(key: bytes, raw: Any) -> str | None:
    """Decrypt an event's data; None if it is not encrypted with this key.

    Args:
        key: The channel's shared secret.
        raw: The event's data as it stood on the wire: whatever a server has sent.

    Raises:
        SettingsError: PyNaCl is missing.
    """
    data = decode_data(raw)
    if not isinstance(data, dict):
        return None
    try:
        nonce = base64.b64decode(data.get("nonce", ""), validate=True)
        ciphertext = base64.b64decode(data.get("ciphertext", ""), validate=True)
    except (TypeError, ValueError):
        return None
    if len(nonce) != NONCE_SIZE:
        return None
    return _open(_secret_box(key).decrypt, ciphertext, nonce)


def _open(unseal: Callable[[bytes, bytes], bytes], ciphertext: bytes, nonce: bytes) -> str | None:
    from nacl.exceptions import CryptoError

    try:
        return unseal(ciphertext, nonce).decode()
    except (CryptoError, UnicodeDecodeError):
        return None


def _secret_box(key: bytes) -> SecretBox:
    try:
        from nacl.secret import SecretBox
    except ImportError:
        raise SettingsError(
            "Encrypted channels need PyNaCl: pip install 'antiphon[encryption]'."
        ) from None
    return SecretBox(key)

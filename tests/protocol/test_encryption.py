from __future__ import annotations

import base64
import hashlib
import sys
import traceback
from typing import Any

import msgspec
import pusher.crypto
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import SettingsError
from antiphon.protocol.encryption import (
    KEY_SIZE,
    NONCE_SIZE,
    check_available,
    decode_key,
    decrypt,
    encrypt,
    shared_secret,
)

CHANNEL = "private-encrypted-room"
MASTER_KEY = bytes(range(32))
NONCE = bytes(range(24))
TEXT = '{"text":"дело 🎉"}'

KEY = shared_secret(CHANNEL, MASTER_KEY)

# Made with PyPI `pusher` 3.3.4: `encrypt(CHANNEL, TEXT, MASTER_KEY, NONCE)`.
SHARED_SECRET = "jLl7T7Vic8zzeBQOhI8a5zJ4iMwqc2omg0xT37NC5hs="
CIPHERTEXT = "ZRJh0WCQ4UXcmOy5N+JZTTnkP/Cd6Kl64v2nNfEJsLSMbXwhqawQIw=="

# Any text a stranger may send, lone surrogates among it.
texts = st.text(st.characters(exclude_categories=()), max_size=40)
whole_texts = st.text(max_size=2_000)
keys = st.binary(min_size=KEY_SIZE, max_size=KEY_SIZE)
nonces = st.binary(min_size=NONCE_SIZE, max_size=NONCE_SIZE)
base64s = st.binary(max_size=80).map(lambda raw: base64.b64encode(raw).decode())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | base64s,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts | st.sampled_from(["nonce", "ciphertext"]), inner, max_size=4)
    ),
    max_leaves=12,
)


# Vectors


def test_a_channels_key_is_the_one_of_every_library() -> None:
    assert base64.b64encode(KEY).decode() == SHARED_SECRET
    assert hashlib.sha256(CHANNEL.encode() + MASTER_KEY).digest() == KEY
    assert shared_secret("private-encrypted-other", MASTER_KEY) != KEY
    assert shared_secret(CHANNEL, bytes(32)) != KEY


def test_what_is_encrypted_is_what_every_library_makes_of_it() -> None:
    sealed = encrypt(KEY, TEXT, NONCE)
    assert sealed == {"nonce": base64.b64encode(NONCE).decode(), "ciphertext": CIPHERTEXT}
    assert list(sealed) == ["nonce", "ciphertext"]
    assert decrypt(KEY, sealed) == TEXT


@given(channel=whole_texts, master_key=keys)
def test_pypi_pusher_makes_the_same_key(channel: str, master_key: bytes) -> None:
    theirs = pusher.crypto.generate_shared_secret(channel.encode(), master_key)
    assert shared_secret(channel, master_key) == theirs


@given(texts)
def test_a_channel_of_any_name_has_a_key(channel: str) -> None:
    assert len(shared_secret(channel, MASTER_KEY)) == KEY_SIZE


@given(text=whole_texts, master_key=keys, nonce=nonces)
def test_pypi_pusher_encrypts_alike(text: str, master_key: bytes, nonce: bytes) -> None:
    theirs = pusher.crypto.encrypt(CHANNEL, text, master_key, nonce)
    key = shared_secret(CHANNEL, master_key)
    assert encrypt(key, text, nonce) == theirs
    assert decrypt(key, theirs) == text


# There and back


@pytest.mark.parametrize("text", ["", " ", '"', "null", "5", "дело 🎉", "x" * 100_000, "\x00"])
def test_what_was_encrypted_comes_back(text: str) -> None:
    sealed = encrypt(KEY, text, NONCE)
    assert decrypt(KEY, sealed) == text
    assert decrypt(KEY, msgspec.json.encode(sealed).decode()) == text


def test_what_else_is_sent_along_does_no_harm() -> None:
    assert decrypt(KEY, {**encrypt(KEY, TEXT, NONCE), "version": 2}) == TEXT


@pytest.mark.parametrize("text", ["\ud800", "never-print-this \udfff"], ids=ascii)
def test_text_that_no_utf_8_can_carry_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="lone surrogate") as caught:
        encrypt(KEY, text, NONCE)
    assert "never-print-this" not in "".join(traceback.format_exception(caught.value))
    assert not isinstance(caught.value, UnicodeError), "it would hold the text"


# What is not encrypted with this key


def test_another_channels_key_opens_nothing() -> None:
    other = shared_secret("private-encrypted-other", MASTER_KEY)
    assert decrypt(other, encrypt(KEY, TEXT, NONCE)) is None


@pytest.mark.parametrize("index", range(0, 43, 7))
def test_a_changed_byte_is_noticed(index: int) -> None:
    sealed = encrypt(KEY, TEXT, NONCE)
    for field in ("nonce", "ciphertext"):
        raw = bytearray(base64.b64decode(sealed[field]))
        raw[index % len(raw)] ^= 1
        assert decrypt(KEY, {**sealed, field: base64.b64encode(raw).decode()}) is None


def test_bytes_that_are_no_text_are_none() -> None:
    from nacl.secret import SecretBox

    sealed = SecretBox(KEY).encrypt(b"\xff\xfe", NONCE)
    data = {
        "nonce": base64.b64encode(NONCE).decode(),
        "ciphertext": base64.b64encode(sealed.ciphertext).decode(),
    }
    assert decrypt(KEY, data) is None


SEALED = encrypt(KEY, TEXT, NONCE)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "",
        "plain text",
        '{"text":"in clear"}',
        {"text": "in clear"},
        5,
        True,
        [],
        [SEALED],
        "{" * 100_000,
        "[" * 100_000,
        '"\ud800"',
        {},
        {"nonce": SEALED["nonce"]},
        {"ciphertext": SEALED["ciphertext"]},
        {**SEALED, "nonce": None},
        {**SEALED, "nonce": 24},
        {**SEALED, "nonce": True},
        {**SEALED, "nonce": [1] * 24},
        {**SEALED, "nonce": "ü"},
        {**SEALED, "nonce": "\ud800"},
        {**SEALED, "nonce": "not base64!"},
        {**SEALED, "nonce": ""},
        {**SEALED, "nonce": base64.b64encode(NONCE[:-1]).decode()},
        {**SEALED, "nonce": base64.b64encode(NONCE + b"x").decode()},
        {**SEALED, "nonce": SEALED["nonce"] + "\n"},
        {**SEALED, "ciphertext": ""},
        {**SEALED, "ciphertext": {}},
        {**SEALED, "ciphertext": 1.5},
        {**SEALED, "ciphertext": SEALED["ciphertext"][:-4]},
        {**SEALED, "ciphertext": SEALED["ciphertext"][:8]},
    ],
    ids=lambda raw: ascii(raw)[:60],
)
def test_data_that_is_not_encrypted_is_none(raw: Any) -> None:
    assert decrypt(KEY, raw) is None


@given(json_values)
def test_whatever_a_server_sends_is_survived(raw: Any) -> None:
    assert decrypt(KEY, raw) is None


@given(nonce=json_values | base64s, ciphertext=json_values | base64s)
def test_whatever_a_server_sends_as_encrypted_is_survived(nonce: Any, ciphertext: Any) -> None:
    assert decrypt(KEY, {"nonce": nonce, "ciphertext": ciphertext}) is None


@given(texts)
def test_whatever_text_a_server_sends_is_survived(raw: str) -> None:
    assert decrypt(KEY, raw) is None


# Keys


def test_a_key_is_read_from_its_base64() -> None:
    assert decode_key(base64.b64encode(MASTER_KEY).decode(), "The key") == MASTER_KEY


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has 32 bytes, this one has 0"),
        (base64.b64encode(MASTER_KEY[:-1]).decode(), "this one has 31"),
        (base64.b64encode(MASTER_KEY + b"x").decode(), "this one has 33"),
        ("never-print-this", "no base64"),
        ("never+print/this!", "no base64"),
        ("ü", "no base64"),
        ("\ud800", "no base64"),
        (base64.b64encode(MASTER_KEY).decode() + "\n", "no base64"),
        (base64.b64encode(MASTER_KEY).decode()[:-1], "no base64"),
    ],
    ids=ascii,
)
def test_a_key_that_is_none_is_refused_without_being_shown(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=r"^The key") as caught:
        decode_key(text, "The key")
    assert words in str(caught.value)
    assert not text or text not in "".join(traceback.format_exception(caught.value))


# Without PyNaCl


def test_without_pynacl_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = encrypt(KEY, TEXT, NONCE)
    monkeypatch.setitem(sys.modules, "nacl.secret", None)
    with pytest.raises(SettingsError, match=r"pip install 'antiphon\[encryption\]'"):
        encrypt(KEY, TEXT, NONCE)
    with pytest.raises(SettingsError, match="PyNaCl"):
        decrypt(KEY, sealed)
    assert decrypt(KEY, "in clear") is None
    assert shared_secret(CHANNEL, MASTER_KEY) == KEY


def test_it_can_be_found_out_beforehand_that_pynacl_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_available()
    monkeypatch.setitem(sys.modules, "nacl.secret", None)
    with pytest.raises(SettingsError, match="PyNaCl"):
        check_available()

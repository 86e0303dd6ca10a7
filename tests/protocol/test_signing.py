from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.protocol.signing import (
    HTTP_WINDOW,
    RequestSignatureInvalid,
    channel_auth,
    sign_request,
    sign_webhook,
    user_auth,
    verify_channel_auth,
    verify_request,
    verify_user_auth,
    verify_webhook,
)

from .recordings import HttpRequest, http_requests, objects

KEY, SECRET, SOCKET = "278d425bdf160c739803", "7ad3773142a6692b25b8", "1234.1234"
MR_PUSHER = '{"user_id":10,"user_info":{"name":"Mr. Pusher"}}'
MR_CHANNELS = '{"user_id":10,"user_info":{"name":"Mr. Channels"}}'

# Any text a stranger may send, lone surrogates among it.
texts = st.text(st.characters(exclude_categories=()), max_size=30)


# Channels (PROTOCOL 1.5)


@pytest.mark.parametrize(
    ("channel", "channel_data", "signature"),
    [
        (
            "private-foobar",
            None,
            "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
        ),
        # Pusher's page prints this signature next to "Mr. Channels". That is wrong: it is the
        # one for "Mr. Pusher", and "Mr. Channels" has the next.
        (
            "presence-foobar",
            MR_PUSHER,
            "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c",
        ),
        (
            "presence-foobar",
            MR_CHANNELS,
            "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
        ),
    ],
)
def test_a_channel_is_signed_as_pusher_documents_it(
    channel: str, channel_data: str | None, signature: str
) -> None:
    auth = channel_auth(KEY, SECRET, SOCKET, channel, channel_data)
    assert auth == f"{KEY}:{signature}"
    assert verify_channel_auth(auth, KEY, SECRET, SOCKET, channel, channel_data)


@pytest.mark.parametrize(
    "change",
    [
        {"key": "other"},
        {"secret": "other"},
        {"socket_id": "1234.1235"},
        {"channel": "presence-foobaz"},
        {"channel_data": MR_CHANNELS},
        {"channel_data": None},
        {"channel_data": ""},
        {"channel_data": MR_PUSHER + " "},
    ],
)
def test_an_auth_holds_for_exactly_what_was_signed(change: Mapping[str, Any]) -> None:
    signed: dict[str, Any] = {
        "key": KEY,
        "secret": SECRET,
        "socket_id": SOCKET,
        "channel": "presence-foobar",
        "channel_data": MR_PUSHER,
    }
    auth = channel_auth(**signed)
    assert verify_channel_auth(auth, **signed)
    assert not verify_channel_auth(auth, **{**signed, **change})


@pytest.mark.parametrize(
    "auth",
    [
        "",
        ":",
        KEY,
        f"{KEY}:",
        "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
        f"{KEY}:58DF8B0C36D6982B82C3ECF6B4662E34FE8C25BBA48F5369F135BF843651C3A4",
        f"{KEY}:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4 ",
        "ünïcode",
        "\ud800",
    ],
)
def test_anything_but_the_whole_auth_is_refused(auth: str) -> None:
    assert not verify_channel_auth(auth, KEY, SECRET, SOCKET, "private-foobar")


@settings(derandomize=True, deadline=None)
@given(auth=texts, channel=texts, channel_data=st.none() | texts)
def test_no_text_of_a_stranger_is_an_auth(
    auth: str, channel: str, channel_data: str | None
) -> None:
    assert not verify_channel_auth(auth, KEY, SECRET, SOCKET, channel, channel_data)
    made = channel_auth(KEY, SECRET, SOCKET, channel, channel_data)
    assert verify_channel_auth(made, KEY, SECRET, SOCKET, channel, channel_data)


# Users


def test_a_user_is_signed_as_pusher_documents_it() -> None:
    auth = user_auth(KEY, SECRET, SOCKET, '{"id":"12345"}')
    assert auth == f"{KEY}:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"
    assert verify_user_auth(auth, KEY, SECRET, SOCKET, '{"id":"12345"}')


@pytest.mark.parametrize(
    ("key", "secret", "socket_id", "user_data"),
    [
        ("other", SECRET, SOCKET, '{"id":"12345"}'),
        (KEY, "other", SOCKET, '{"id":"12345"}'),
        (KEY, SECRET, "1234.1235", '{"id":"12345"}'),
        (KEY, SECRET, SOCKET, '{"id":"12346"}'),
    ],
)
def test_a_sign_in_holds_for_exactly_what_was_signed(
    key: str, secret: str, socket_id: str, user_data: str
) -> None:
    auth = user_auth(KEY, SECRET, SOCKET, '{"id":"12345"}')
    assert not verify_user_auth(auth, key, secret, socket_id, user_data)


# Requests to the HTTP API (PROTOCOL 1.6)

BODY = b'{"name":"foo","channels":["project-3"],"data":"{\\"some\\":\\"data\\"}"}'
SIGNED = {
    "auth_key": KEY,
    "auth_timestamp": "1353088179",
    "auth_version": "1.0",
    "body_md5": "ec365a775a4cd0599faeb73354201b6f",
    "auth_signature": "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
}


def verify(
    query: Mapping[str, str] = SIGNED,
    *,
    key: str = KEY,
    secret: str = SECRET,
    method: str = "POST",
    path: str = "/apps/3/events",
    body: bytes = BODY,
    now: float = 1353088179,
) -> None:
    verify_request(key, secret, method, path, query.items(), body, now=now)


def resigned(query: Mapping[str, str], method: str = "POST") -> dict[str, str]:
    """The query with a signature that is right for it."""
    rest = {name: value for name, value in query.items() if name != "auth_signature"}
    pairs = "&".join(f"{name}={rest[name]}" for name in sorted(rest))
    text = f"{method}\n/apps/3/events\n{pairs}"
    signature = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
    return {**rest, "auth_signature": signature}


def test_a_request_is_signed_as_pusher_documents_it() -> None:
    signed = sign_request(KEY, SECRET, "POST", "/apps/3/events", timestamp=1353088179, body=BODY)
    assert signed == SIGNED
    verify()


def test_a_request_without_a_body_has_no_digest() -> None:
    signed = sign_request(KEY, SECRET, "GET", "/apps/3/channels", timestamp=5)
    assert "body_md5" not in signed
    verify(signed, method="GET", path="/apps/3/channels", body=b"", now=5)


def test_further_parameters_are_signed_too() -> None:
    query = {"info": "user_count", "filter_by_prefix": "presence-"}
    signed = sign_request(KEY, SECRET, "GET", "/c", timestamp=5, query=query)
    assert query.items() <= signed.items()
    verify(signed, method="GET", path="/c", body=b"", now=5)
    with pytest.raises(RequestSignatureInvalid, match="auth_signature"):
        verify({**signed, "info": "cache"}, method="GET", path="/c", body=b"", now=5)
    with pytest.raises(RequestSignatureInvalid, match="auth_signature"):
        verify({**signed, "more": "1"}, method="GET", path="/c", body=b"", now=5)


def test_names_are_signed_in_lower_case_and_in_order_and_the_method_in_upper() -> None:
    signed = sign_request(KEY, SECRET, "get", "/c", timestamp=5, query={"Zeta": "1", "Info": "x"})
    text = f"GET\n/c\nauth_key={KEY}&auth_timestamp=5&auth_version=1.0&info=x&zeta=1"
    expected = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
    assert signed["auth_signature"] == expected
    verify({k.upper(): v for k, v in signed.items()}, method="get", path="/c", body=b"", now=5)


def test_values_are_signed_without_escapes() -> None:
    signed = sign_request(KEY, SECRET, "GET", "/c", timestamp=5, query={"filter": "a&b=c é%20"})
    verify(signed, method="GET", path="/c", body=b"", now=5)


def test_the_digest_of_no_body_may_be_sent() -> None:
    # PyPI's pusher sends it with every GET.
    empty = hashlib.md5(b"").hexdigest()
    query = resigned({**SIGNED, "body_md5": empty}, method="GET")
    verify(query, method="GET", body=b"")


def test_the_digest_of_another_body_is_refused_where_there_is_none() -> None:
    with pytest.raises(RequestSignatureInvalid, match="body_md5"):
        verify(resigned(SIGNED, method="GET"), method="GET", body=b"")


@pytest.mark.parametrize("seconds", [0, HTTP_WINDOW, -HTTP_WINDOW, HTTP_WINDOW - 0.5])
def test_a_request_is_taken_within_the_window_on_either_side(seconds: float) -> None:
    verify(now=1353088179 + seconds)


@pytest.mark.parametrize("seconds", [HTTP_WINDOW + 0.5, -HTTP_WINDOW - 0.5, 1e9, -1e9])
def test_a_request_outside_the_window_is_refused(seconds: float) -> None:
    with pytest.raises(RequestSignatureInvalid, match="auth_timestamp is more than 600 seconds"):
        verify(now=1353088179 + seconds)


@pytest.mark.parametrize("timestamp", ["", "soon", "1.5", "1e3", "9" * 5_000, "\ud800", None])
def test_a_time_that_is_no_number_is_refused(timestamp: str | None) -> None:
    query = {name: value for name, value in SIGNED.items() if name != "auth_timestamp"}
    if timestamp is not None:
        query["auth_timestamp"] = timestamp
    with pytest.raises(RequestSignatureInvalid, match="auth_timestamp must be seconds"):
        verify(query)


@pytest.mark.parametrize("timestamp", ["9" * 20, "9" * 400, "-" + "9" * 400, "9" * 4_300])
def test_a_time_beyond_all_clocks_is_refused_like_any_other(timestamp: str) -> None:
    with pytest.raises(RequestSignatureInvalid, match="auth_timestamp"):
        verify({**SIGNED, "auth_timestamp": timestamp}, now=1353088179.25)


@pytest.mark.parametrize("key", ["", "other", KEY.upper(), "\ud800", "ünï"])
def test_the_key_must_be_the_applications(key: str) -> None:
    with pytest.raises(RequestSignatureInvalid, match="auth_key"):
        verify(resigned({**SIGNED, "auth_key": key}) if key.isascii() else {"auth_key": key})


@pytest.mark.parametrize("version", ["", "1", "1.1", "2.0"])
def test_the_version_must_be_the_one_there_is(version: str) -> None:
    with pytest.raises(RequestSignatureInvalid, match=r"auth_version must be 1\.0"):
        verify(resigned({**SIGNED, "auth_version": version}))


@pytest.mark.parametrize("digest", ["", "ec365a775a4cd0599faeb73354201b60", "é"])
def test_the_digest_must_be_the_bodys(digest: str) -> None:
    with pytest.raises(RequestSignatureInvalid, match="body_md5"):
        verify(resigned({**SIGNED, "body_md5": digest}))


def test_a_body_must_have_a_digest() -> None:
    query = {name: value for name, value in SIGNED.items() if name != "body_md5"}
    with pytest.raises(RequestSignatureInvalid, match="body_md5"):
        verify(resigned(query))


def test_a_body_that_was_changed_is_refused() -> None:
    with pytest.raises(RequestSignatureInvalid, match="body_md5"):
        verify(body=BODY + b" ")


@pytest.mark.parametrize(
    "change",
    [
        {"secret": "other"},
        {"method": "PUT"},
        {"path": "/apps/4/events"},
        {"path": "/prefix/apps/3/events"},
        {"query": {**SIGNED, "auth_signature": "0" * 64}},
        {"query": {**SIGNED, "auth_signature": SIGNED["auth_signature"].upper()}},
        {"query": {**SIGNED, "auth_signature": "\ud800"}},
        {"query": {k: v for k, v in SIGNED.items() if k != "auth_signature"}},
    ],
)
def test_a_signature_holds_for_exactly_what_was_signed(change: Any) -> None:
    with pytest.raises(RequestSignatureInvalid, match="auth_signature is wrong"):
        verify(**change)


def test_a_parameter_given_twice_is_signed_twice() -> None:
    twice = [*SIGNED.items(), ("auth_timestamp", SIGNED["auth_timestamp"])]
    with pytest.raises(RequestSignatureInvalid, match="auth_signature"):
        verify_request(KEY, SECRET, "POST", "/apps/3/events", twice, BODY, now=1353088179)


def test_no_refusal_tells_a_secret() -> None:
    for query in ({}, {**SIGNED, "auth_signature": ""}, {**SIGNED, "body_md5": ""}):
        with pytest.raises(RequestSignatureInvalid) as caught:
            verify(query)
        assert SECRET not in str(caught.value)
        assert SIGNED["auth_signature"] not in str(caught.value)


@settings(derandomize=True, deadline=None)
@given(
    query=st.dictionaries(st.sampled_from([*SIGNED, "info", "\ud800"]) | texts, texts),
    known=st.lists(st.sampled_from(list(SIGNED))),
    method=texts,
    path=texts,
    body=st.binary(max_size=20),
)
def test_no_request_of_a_stranger_is_taken_and_none_raises_anything_else(
    query: dict[str, str], known: list[str], method: str, path: str, body: bytes
) -> None:
    query |= {name: SIGNED[name] for name in known if name != "auth_signature"}
    with pytest.raises(RequestSignatureInvalid):
        verify(query, method=method, path=path, body=body)


# Recorded requests of other libraries


def recorded(*clients: str) -> list[Any]:
    return [
        pytest.param(request, id=f"{client}-{number}")
        for client in clients
        for number, request in enumerate(http_requests(client))
    ]


CLIENTS = ("http_npm_pusher-5.3.4", "http_pypi_pusher-3.3.4")


def verify_recorded(request: HttpRequest, now: float) -> None:
    verify_request(
        "peer-key",
        "peer-secret",
        request.method,
        request.path,
        request.query,
        request.body,
        now=now,
    )


@pytest.mark.parametrize("request_", recorded(*CLIENTS))
def test_what_other_libraries_sign_is_verified(request_: HttpRequest) -> None:
    if request_.cut:
        # The recorder kept the first part of a large body only: all but its digest is right.
        with pytest.raises(RequestSignatureInvalid, match="body_md5"):
            verify_recorded(request_, request_.timestamp)
    elif request_.refused:
        with pytest.raises(RequestSignatureInvalid, match="auth_signature"):
            verify_recorded(request_, request_.timestamp)
    else:
        verify_recorded(request_, request_.timestamp)
        verify_recorded(request_, request_.timestamp - HTTP_WINDOW)
        with pytest.raises(RequestSignatureInvalid, match="auth_timestamp"):
            verify_recorded(request_, request_.timestamp + HTTP_WINDOW + 1)


@pytest.mark.parametrize("client", CLIENTS)
def test_most_of_what_was_recorded_was_signed_well(client: str) -> None:
    requests = list(http_requests(client))
    assert sum(request.refused for request in requests) == 1
    assert sum(not request.cut and not request.refused for request in requests) >= 9


# Webhooks


def test_the_webhooks_of_soketi_are_verified() -> None:
    hooks = [line for line in objects("soketi/webhooks") if line["dir"] == "webhook"]
    assert len(hooks) == 10
    for hook in hooks:
        body, signature = hook["body"].encode(), hook["headers"]["x-pusher-signature"]
        assert verify_webhook("peer-hook-secret", body, signature) is hook["signature_ok"] is True
        assert not verify_webhook("other", body, signature)


def test_a_webhook_is_signed_over_its_raw_body() -> None:
    body = b'{"time_ms":1,"events":[]}'
    signature = sign_webhook("secret", body)
    assert signature == hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    assert verify_webhook("secret", body, signature)
    for wrong in ("", signature.upper(), signature[:-1], "é", "\ud800"):
        assert not verify_webhook("secret", body, wrong)
    assert not verify_webhook("secret", body + b" ", signature)

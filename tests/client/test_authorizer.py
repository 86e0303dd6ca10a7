"""Who signs a channel, and what a refusal says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from antiphon.client import Authorization, HttpAuthorizer, SecretAuthorizer
from antiphon.errors import (
    AuthorizationFailed,
    AuthServerError,
    AuthTimeout,
    EmptyAuthResponse,
    Forbidden,
    MalformedAuthResponse,
    SessionExpired,
    SettingsError,
    Unauthorized,
)
from antiphon.protocol.signing import verify_channel_auth
from antiphon.settings import Settings

from .endpoint import SIGNED, Asked, Endpoint
from .linked import impatient, soon

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "secret-token-12345"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Endpoint]:
    async with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(running: Endpoint) -> Endpoint:
    running.asked.clear()
    running.answers(200, SIGNED)
    return running


@contextlib.asynccontextmanager
async def asking(url: str, **options: Any) -> AsyncIterator[HttpAuthorizer]:
    authorizer = HttpAuthorizer(url, **options)
    try:
        yield authorizer
    finally:
        await authorizer.close()


async def failure(url: str, channel: str = "private-x", **options: Any) -> AuthorizationFailed:
    async with asking(url, **options) as authorizer:
        with pytest.raises(AuthorizationFailed) as caught:
            await soon(authorizer.authorize(channel, "1.2"))
    return caught.value


# What is asked


async def test_the_endpoint_is_asked_with_the_fields_every_pusher_endpoint_expects(
    endpoint: Endpoint,
) -> None:
    async with asking(endpoint.url) as authorizer:
        answer = await authorizer.authorize("private-user.7", "12.34")
    assert answer == Authorization("k:sig")
    (asked,) = endpoint.asked
    assert asked.method == "POST"
    assert asked.path == "/broadcasting/auth"
    assert asked.form == {"socket_id": "12.34", "channel_name": "private-user.7"}
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert asked.headers["accept"] == "application/json"
    assert "authorization" not in asked.headers


async def test_nothing_is_sent_that_nobody_asked_for(endpoint: Endpoint) -> None:
    async with asking(endpoint.url, token=TOKEN) as authorizer:
        await authorizer.authorize("private-x", "1.2")
    assert set(endpoint.asked[0].headers) <= {
        "host", "accept", "accept-encoding", "authorization", "content-length", "content-type",
        "user-agent", "connection",
    }  # fmt: skip


async def test_a_channel_with_odd_characters_arrives_as_it_is(endpoint: Endpoint) -> None:
    name = "private-a_b-c=d@e,f.g;h"
    async with asking(endpoint.url) as authorizer:
        await authorizer.authorize(name, "1.2")
    assert endpoint.asked[0].form["channel_name"] == name


async def test_a_query_in_the_address_is_kept(endpoint: Endpoint) -> None:
    async with asking(f"{endpoint.url}?tenant=a%20b") as authorizer:
        await authorizer.authorize("private-x", "1.2")
    assert endpoint.asked[0].path == "/broadcasting/auth?tenant=a%20b"


async def test_headers_are_sent_along_and_may_replace_the_usual_ones(endpoint: Endpoint) -> None:
    headers = {"Accept-Language": "uz", "accept": "text/plain"}
    async with asking(endpoint.url, headers=headers) as authorizer:
        await authorizer.authorize("private-x", "1.2")
    assert endpoint.asked[0].headers["accept-language"] == "uz"
    assert endpoint.asked[0].headers["accept"] == "text/plain"


async def test_a_token_is_sent_as_bearer(endpoint: Endpoint) -> None:
    async with asking(endpoint.url, token=TOKEN) as authorizer:
        await authorizer.authorize("private-x", "1.2")
    assert endpoint.asked[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_a_function_is_asked_for_the_token_at_every_request(endpoint: Endpoint) -> None:
    tokens = iter(["one", "two"])
    async with asking(endpoint.url, token=lambda: next(tokens)) as authorizer:
        await authorizer.authorize("private-x", "1.2")
        await authorizer.authorize("private-y", "1.2")
    assert [a.headers["authorization"] for a in endpoint.asked] == ["Bearer one", "Bearer two"]


async def test_an_asynchronous_function_is_asked_for_the_token_too(endpoint: Endpoint) -> None:
    async def token() -> str:
        await asyncio.sleep(0)
        return "three"

    async with asking(endpoint.url, token=token) as authorizer:
        await authorizer.authorize("private-x", "1.2")
    assert endpoint.asked[0].headers["authorization"] == "Bearer three"


async def test_no_cookie_is_kept_from_one_request_to_the_next(endpoint: Endpoint) -> None:
    endpoint.answers(200, SIGNED, Set_Cookie="laravel_session=of-another-user; path=/")
    async with asking(endpoint.url.replace("127.0.0.1", "localhost")) as authorizer:
        await authorizer.authorize("private-x", "1.2")
        await authorizer.authorize("private-x", "1.2")
    assert "cookie" not in endpoint.asked[1].headers


# What is answered


async def test_all_fields_of_an_answer_arrive(endpoint: Endpoint) -> None:
    data = json.dumps({"user_id": "7", "user_info": {"name": "Ann"}})
    answer = {"auth": "k:sig", "channel_data": data, "shared_secret": "c2VjcmV0", "more": [1]}
    endpoint.answers(200, json.dumps(answer))
    async with asking(endpoint.url) as authorizer:
        got = await authorizer.authorize("presence-x", "1.2")
    assert got == Authorization("k:sig", data, "c2VjcmV0")


async def test_fields_that_are_null_count_as_absent(endpoint: Endpoint) -> None:
    endpoint.answers(200, '{"auth":"k:sig","channel_data":null,"shared_secret":null}')
    async with asking(endpoint.url) as authorizer:
        assert await authorizer.authorize("private-x", "1.2") == Authorization("k:sig")


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (401, Unauthorized, "log in again"),
        (403, Forbidden, "this user may not join it"),
        (419, SessionExpired, "CSRF"),
        (404, AuthServerError, "the right auth endpoint"),
        (301, AuthServerError, "redirects"),
        (302, AuthServerError, "login page"),
        (307, AuthServerError, "redirects"),
        (204, AuthServerError, "log"),
        (400, AuthServerError, "log"),
        (422, AuthServerError, "log"),
        (500, AuthServerError, "log"),
        (503, AuthServerError, "log"),
    ],
)
async def test_a_refusal_says_which_it_is_of_what_and_what_to_try(
    endpoint: Endpoint, status: int, kind: type[AuthorizationFailed], hint: str
) -> None:
    endpoint.answers(status, "<html>secret page</html>" if status != 204 else "", Location="/login")
    error = await failure(endpoint.url)
    assert type(error) is kind
    assert error.code == status
    assert error.channel == "private-x"
    text = str(error)
    assert endpoint.url in text
    assert "private-x" in text
    assert str(status) in text
    assert hint in text
    assert "secret page" not in text
    assert "\n" not in text
    assert len(endpoint.asked) == 1, "a redirect is not followed"


@pytest.mark.parametrize("body", [b"", b"  ", b"\r\n"])
async def test_200_without_a_body_is_a_failure_of_its_own(endpoint: Endpoint, body: bytes) -> None:
    endpoint.answers(200, body)
    error = await failure(endpoint.url)
    assert type(error) is EmptyAuthResponse
    assert error.code == 200
    assert "guard" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><title>Log in</title>",
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'"k:sig"',
        b'{"auth":null}',
        b'{"auth":5}',
        b'{"auth":["k:sig"]}',
        b'{"auth":"k:sig","channel_data":{"user_id":"1"}}',
        b'{"auth":"k:sig"',
        b"\xff\xfe",
        b'{"auth":"\xff"}',
        b"[" * 100_000,
    ],
)
async def test_200_with_something_else_than_a_signature_is_told_without_showing_it(
    endpoint: Endpoint, body: bytes
) -> None:
    endpoint.answers(200, body)
    error = await failure(endpoint.url)
    assert type(error) is MalformedAuthResponse
    assert error.code == 200
    assert f"{len(body)} bytes" in str(error)
    assert "Log in" not in everything_in(error)


async def test_a_presence_channel_needs_channel_data(endpoint: Endpoint) -> None:
    error = await failure(endpoint.url, "presence-x")
    assert type(error) is MalformedAuthResponse
    assert "channel_data" in str(error)


# No answer


async def test_an_endpoint_that_does_not_answer_is_not_waited_for_long(
    endpoint: Endpoint,
) -> None:
    free = endpoint.hangs()
    error = await failure(endpoint.url, timeout=0.05)
    free.set()
    assert type(error) is AuthTimeout
    assert error.code is None
    assert "0.05 seconds" in str(error)
    assert endpoint.url in str(error)


async def test_an_endpoint_where_nobody_listens_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = await failure(f"http://127.0.0.1:{port}/auth")
    assert type(error) is AuthServerError
    assert error.code is None
    assert f"http://127.0.0.1:{port}/auth" in str(error)


async def test_an_endpoint_that_hangs_up_is_told(endpoint: Endpoint) -> None:
    endpoint.drops()
    assert type(await failure(endpoint.url)) is AuthServerError


@pytest.mark.parametrize(
    "url", ["", "nonsense", "/broadcasting/auth", "ftp://h/x", "http://", "http://a:b/"]
)
async def test_an_address_that_is_none_is_told(url: str) -> None:
    assert isinstance(await failure(url), AuthorizationFailed)


async def test_an_authorizer_may_be_used_again_after_it_was_closed(endpoint: Endpoint) -> None:
    async with asking(endpoint.url) as authorizer:
        await authorizer.authorize("private-x", "1.2")
        await authorizer.close()
        await authorizer.close()
        await authorizer.authorize("private-x", "1.2")
    assert len(endpoint.asked) == 2


async def test_one_pool_of_connections_serves_many_requests(endpoint: Endpoint) -> None:
    async with asking(endpoint.url) as authorizer:
        await asyncio.gather(*(authorizer.authorize(f"private-{i}", "1.2") for i in range(20)))
    assert {asked.form["channel_name"] for asked in endpoint.asked} == {
        f"private-{i}" for i in range(20)
    }


async def test_a_request_that_is_cancelled_leaves_the_authorizer_usable(
    endpoint: Endpoint,
) -> None:
    free = endpoint.hangs()
    async with asking(endpoint.url) as authorizer:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await authorizer.authorize("private-x", "1.2")
        free.set()
        assert await soon(authorizer.authorize("private-x", "1.2")) == Authorization("k:sig")


# Secrets


def everything_in(error: BaseException) -> str:
    """All that a traceback, a log or a debugger shows of an error and what caused it."""
    seen: list[str] = ["".join(traceback.format_exception(error))]
    link: BaseException | None = error
    while link is not None:
        seen += [str(link), repr(link), repr(link.args), repr(vars(link))]
        link = link.__cause__ or link.__context__
    return "\n".join(seen)


@pytest.mark.parametrize(
    "status", [200, 302, 401, 403, 419, 500], ids=lambda status: f"answer {status}"
)
async def test_no_token_stands_in_an_error_or_a_log(
    endpoint: Endpoint, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def echo(asked: Asked) -> Any:
        from aiohttp import web

        return web.Response(status=status, text=f"your token was {asked.headers['authorization']}")

    endpoint.answers_with(echo)
    error = await failure(f"{endpoint.url}?api_token={TOKEN}", token=TOKEN)
    assert TOKEN not in everything_in(error)
    assert TOKEN not in caplog.text


async def test_no_token_stands_in_the_error_of_a_request_that_did_not_get_through(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.drops()
    error = await failure(f"{endpoint.url}?api_token={TOKEN}", token=TOKEN)
    assert TOKEN not in everything_in(error)
    free = endpoint.hangs()
    error = await failure(f"{endpoint.url}?api_token={TOKEN}", token=TOKEN, timeout=0.05)
    free.set()
    assert TOKEN not in everything_in(error)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = await failure(f"http://127.0.0.1:{port}/auth?api_token={TOKEN}", token=TOKEN)
    assert TOKEN not in everything_in(error)
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("token", [TOKEN + "\n", TOKEN + "\r\nX-Admin: 1", TOKEN + "\0"], ids=repr)
async def test_a_token_that_no_header_can_hold_is_told_without_showing_it(
    endpoint: Endpoint, token: str
) -> None:
    error = await failure(endpoint.url, token=token)
    assert TOKEN not in everything_in(error)
    assert endpoint.asked == []


async def test_no_token_stands_in_what_an_authorizer_shows_of_itself(endpoint: Endpoint) -> None:
    async with asking(endpoint.url, token=TOKEN) as authorizer:
        assert TOKEN not in repr(authorizer)
    settings = Settings(app_key="k", app_secret=TOKEN, api_url="http://127.0.0.1:1")
    client = impatient(settings, token=TOKEN)
    assert TOKEN not in repr(client)
    assert TOKEN not in repr(client.settings)
    assert TOKEN not in repr(SecretAuthorizer(settings, user_id="1"))


# The application's own secret


def secret_settings() -> Settings:
    # Pusher documentation, "auth signatures".
    return Settings(app_key="278d425bdf160c739803", app_secret="7ad3773142a6692b25b8")


async def test_a_secret_signs_private_channels() -> None:
    answer = await SecretAuthorizer(secret_settings()).authorize("private-foobar", "1234.1234")
    assert answer == Authorization(
        "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    )


async def test_a_secret_signs_presence_channels_with_the_user_as_sent() -> None:
    authorizer = SecretAuthorizer(secret_settings(), user_id="10", user_info={"name": "Ü"})
    answer = await authorizer.authorize("presence-foobar", "1234.1234")
    assert answer.channel_data is not None
    assert json.loads(answer.channel_data) == {"user_id": "10", "user_info": {"name": "Ü"}}
    settings = secret_settings()
    assert verify_channel_auth(
        answer.auth,
        settings.app_key,
        settings.app_secret,
        "1234.1234",
        "presence-foobar",
        answer.channel_data,
    )
    await authorizer.close()


async def test_a_user_is_not_named_on_private_channels() -> None:
    authorizer = SecretAuthorizer(secret_settings(), user_id="10")
    assert (await authorizer.authorize("private-foobar", "1.2")).channel_data is None


async def test_a_presence_channel_needs_a_user() -> None:
    with pytest.raises(AuthorizationFailed, match="give SecretAuthorizer a user_id") as caught:
        await SecretAuthorizer(secret_settings()).authorize("presence-foobar", "1.2")
    assert caught.value.channel == "presence-foobar"


async def test_signing_needs_a_secret() -> None:
    with pytest.raises(SettingsError, match="app_secret"):
        SecretAuthorizer(Settings(app_key="k"))

"""What an auth endpoint is asked, and what becomes of each of its answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from antiphon.client.auth import Authentication, Authorization, HttpAuthorizer, SecretAuthorizer
from antiphon.client.auth.http import REQUESTS_AT_ONCE
from antiphon.client.auth.request import AuthRequest
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
from antiphon.settings import Settings
from tests.client.endpoint import SIGNED, Asked, Endpoint
from tests.client.linked import impatient, soon
from tests.server.wire import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "secret-token-12345"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Endpoint]:
    async with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(running: Endpoint) -> Endpoint:
    running.asked.clear()
    running.most_at_once = 0
    running.answers(200, SIGNED)
    return running


@contextlib.asynccontextmanager
async def asking(url: str, **options: Any) -> AsyncIterator[HttpAuthorizer]:
    """An authorizer whose delays are short."""
    authorizer = HttpAuthorizer(url, **{"min_delay": 0.001, "max_delay": 0.002, **options})
    try:
        yield authorizer
    finally:
        await authorizer.close()


async def failure(url: str, channel: str = "private-x", **options: Any) -> AuthorizationFailed:
    async with asking(url, **options) as authorizer:
        return await refusal(authorizer, channel)


async def refusal(authorizer: HttpAuthorizer, channel: str = "private-x") -> AuthorizationFailed:
    with pytest.raises(AuthorizationFailed) as caught:
        await soon(authorizer.authorize(channel, "1.2"))
    return caught.value


def bearers(endpoint: Endpoint) -> list[str]:
    """The tokens the endpoint was sent, in order."""
    return [asked.headers["authorization"].removeprefix("Bearer ") for asked in endpoint.asked]


def nothing_is_left_of(authorizer: HttpAuthorizer) -> bool:
    """Whether no request, no refresh and no slot of an authorizer is taken."""
    tasks = {task.get_name() for task in asyncio.all_tasks()}
    return (
        not any(name.startswith("antiphon-") for name in tasks)
        and authorizer._slots._value == REQUESTS_AT_ONCE
    )


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
        (204, EmptyAuthResponse, "guard"),
        (400, AuthServerError, "log"),
        (422, AuthServerError, "log"),
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
    assert len(endpoint.asked) == 1, "a redirect is not followed, and no refusal asked about twice"
    assert not error.temporary


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_any_success_with_a_signature_is_one(endpoint: Endpoint, status: int) -> None:
    endpoint.answers(status, SIGNED)
    async with asking(endpoint.url) as authorizer:
        assert await authorizer.authorize("private-x", "1.2") == Authorization("k:sig")


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
        b'{"auth":""}',
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
    assert not error.temporary
    assert len(endpoint.asked) == 1


async def test_a_web_page_is_told_for_what_it_is(endpoint: Endpoint) -> None:
    endpoint.answers(200, "\n<!DOCTYPE html><title>Log in</title>")
    assert "looks like a web page" in str(await failure(endpoint.url))


@pytest.mark.parametrize(
    ("channel", "field"),
    [
        ("presence-x", "channel_data"),
        ("presence-cache-x", "channel_data"),
        ("private-encrypted-x", "shared_secret"),
        ("private-encrypted-cache-x", "shared_secret"),
    ],
)
async def test_what_a_kind_of_channel_needs_must_be_there(
    endpoint: Endpoint, channel: str, field: str
) -> None:
    error = await failure(endpoint.url, channel)
    assert type(error) is MalformedAuthResponse
    assert f"gave no {field} for {channel}" in str(error)


@pytest.mark.parametrize("encoding", [None, "gzip"])
async def test_a_huge_answer_is_not_read_to_its_end(
    endpoint: Endpoint, encoding: str | None
) -> None:
    sent = 0

    async def flood(asked: Asked) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        if encoding:
            response.enable_compression(web.ContentCoding(encoding))
        await response.prepare(asked.raw)
        with contextlib.suppress(ConnectionError):
            for _ in range(2_000):
                await response.write(b" " * 65_536)
                sent += 65_536
        return response

    endpoint.answers_with(flood)
    error = await failure(endpoint.url)
    assert type(error) is MalformedAuthResponse
    assert "more than 1048576 bytes" in str(error)
    assert len(endpoint.asked) == 1
    assert encoding or sent < 32_000_000, "the rest was not waited for"


async def test_the_status_of_a_huge_answer_counts(endpoint: Endpoint) -> None:
    endpoint.answers(403, b"x" * 2_000_000)
    assert type(await failure(endpoint.url)) is Forbidden


# No answer, and asking again


def taken_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
async def test_a_server_that_fails_is_asked_four_times(endpoint: Endpoint, status: int) -> None:
    endpoint.answers(status, "<html>secret page</html>")
    error = await failure(endpoint.url)
    assert type(error) is AuthServerError
    assert error.code == status
    assert error.temporary
    assert f"answered {status} for private-x after 4 tries; " in str(error)
    assert "secret page" not in str(error)
    assert len(endpoint.asked) == 4


async def test_a_server_that_recovers_has_its_say(endpoint: Endpoint) -> None:
    endpoint.answers_in_turn((503, ""), (429, ""), (500, ""), (200, SIGNED))
    async with asking(endpoint.url) as authorizer:
        assert await soon(authorizer.authorize("private-x", "1.2")) == Authorization("k:sig")
        assert nothing_is_left_of(authorizer)
    assert len(endpoint.asked) == 4


async def test_a_refusal_after_a_failure_is_final(endpoint: Endpoint) -> None:
    endpoint.answers_in_turn((503, ""), (403, ""))
    error = await failure(endpoint.url)
    assert type(error) is Forbidden
    assert len(endpoint.asked) == 2


async def test_a_dropped_connection_is_tried_again(endpoint: Endpoint) -> None:
    endpoint.drops(3)
    async with asking(endpoint.url) as authorizer:
        assert await soon(authorizer.authorize("private-x", "1.2")) == Authorization("k:sig")
    assert len(endpoint.asked) == 4


async def test_an_endpoint_that_keeps_hanging_up_is_told(endpoint: Endpoint) -> None:
    endpoint.drops()
    error = await failure(endpoint.url)
    assert type(error) is AuthServerError
    assert (error.code, error.temporary) == (None, True)
    assert "hung up" in str(error)
    assert "after 4 tries" in str(error)
    assert len(endpoint.asked) == 4


async def test_an_endpoint_that_does_not_answer_is_not_waited_for_long(
    endpoint: Endpoint,
) -> None:
    free = endpoint.hangs()
    error = await failure(endpoint.url, timeout=0.5)
    free.set()
    assert type(error) is AuthTimeout
    assert (error.code, error.temporary) == (None, True)
    assert "0.5 seconds for private-x after 4 tries" in str(error)
    assert endpoint.url in str(error)
    assert len(endpoint.asked) == 4


async def test_an_endpoint_where_nobody_listens_is_told() -> None:
    url = f"http://127.0.0.1:{taken_port()}/auth"
    error = await failure(url)
    assert type(error) is AuthServerError
    assert (error.code, error.temporary) == (None, True)
    assert str(error) == (
        f"{url} could not be reached for private-x after 4 tries;"
        " nothing listens; is the server running there?"
    )


async def test_what_speaks_no_http_is_told() -> None:
    async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(mumble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(f"http://127.0.0.1:{port}/auth?api_token={TOKEN}", token=TOKEN)
    assert type(error) is AuthServerError
    assert error.temporary
    assert TOKEN not in everything_in(error)


@pytest.mark.parametrize(
    ("asked_for", "least", "most"),
    [("7", 7.0, 7.1), ("30", 30.0, 30.1), ("3600", 30.0, 30.1), ("9" * 5_000, 30.0, 30.1)],
    ids=["7", "30", "3600", "9999…"],
)
async def test_a_server_that_says_when_to_come_back_is_heeded_within_reason(
    endpoint: Endpoint,
    asked_for: str,
    least: float,
    most: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "antiphon.auth")
    endpoint.answers(503, "", Retry_After=asked_for)
    async with asking(endpoint.url) as authorizer:
        asking_it = asyncio.ensure_future(authorizer.authorize("private-x", "1.2"))
        await until(lambda: caplog.records)
        delay = float(caplog.messages[0].split()[3])
        assert least <= delay <= most
        asking_it.cancel()
        await until(lambda: nothing_is_left_of(authorizer))
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "asked_for", ["0", "-1", "1.5", "", "soon", "²", "Wed, 21 Oct 2065 07:28:00 GMT"]
)
async def test_what_is_no_number_of_seconds_is_not_heeded(
    endpoint: Endpoint, asked_for: str
) -> None:
    endpoint.answers_in_turn((503, "", {"Retry_After": asked_for}), (200, SIGNED))
    async with asking(endpoint.url) as authorizer:
        await soon(authorizer.authorize("private-x", "1.2"))
    assert len(endpoint.asked) == 2


async def test_the_delays_grow_up_to_their_bounds(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "antiphon.auth")
    endpoint.answers(503)
    await failure(endpoint.url, min_delay=0.01, max_delay=0.05)
    records = [record for record in caplog.records if record.name == "antiphon.auth"]
    delays = [record.args[0] for record in records if isinstance(record.args, tuple)]
    assert len(delays) == 3
    for delay, most in zip(delays, [0.02, 0.04, 0.05], strict=True):
        assert isinstance(delay, float)
        assert 0.01 <= delay <= most


async def test_who_waits_to_ask_again_lets_others_ask(endpoint: Endpoint) -> None:
    async def answer(asked: Asked) -> web.StreamResponse:
        busy = asked.form["channel_name"].startswith("private-busy")
        return web.Response(status=503 if busy else 200, text=SIGNED)

    endpoint.answers_with(answer)
    async with asking(endpoint.url, min_delay=60, max_delay=60) as authorizer:
        waiting = [
            asyncio.ensure_future(authorizer.authorize(f"private-busy-{i}", "1.2"))
            for i in range(3 * REQUESTS_AT_ONCE)
        ]
        await until(lambda: len(endpoint.asked) == len(waiting))
        assert await soon(authorizer.authorize("private-x", "1.2")) == Authorization("k:sig")
        for each in waiting:
            each.cancel()
        await until(lambda: nothing_is_left_of(authorizer))


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "/auth", "ftp://h/x", "http://", "http://a:b/", "http://[::1/", "http://h:0"],
)
async def test_an_address_that_is_none_is_told_at_once(url: str) -> None:
    with pytest.raises(SettingsError, match="auth endpoint"):
        HttpAuthorizer(url)
    if url:
        with pytest.raises(SettingsError, match="auth endpoint"):
            HttpAuthorizer("http://h/", user_auth_url=url)


async def test_a_user_in_the_address_leaves_no_room_for_a_token() -> None:
    with pytest.raises(SettingsError, match="room for one of them") as caught:
        HttpAuthorizer(f"http://ann:{TOKEN}@h/auth?x={TOKEN}", token="t")
    assert TOKEN not in str(caught.value)


async def test_a_user_in_the_address_is_sent_and_never_shown(endpoint: Endpoint) -> None:
    endpoint.answers(403)
    error = await failure(endpoint.url.replace("://", f"://ann:{TOKEN}@") + f"?x={TOKEN}#{TOKEN}")
    assert endpoint.asked[0].headers["authorization"].startswith("Basic ")
    assert TOKEN not in everything_in(error)
    assert str(error).startswith(endpoint.url + " answered 403")


# Life and end


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


async def test_a_request_that_is_cancelled_lets_go_of_everything(endpoint: Endpoint) -> None:
    free = endpoint.hangs()
    async with asking(endpoint.url) as authorizer:
        all_of_them = [
            asyncio.ensure_future(authorizer.authorize(f"private-{i}", "1.2")) for i in range(40)
        ]
        await until(lambda: len(endpoint.asked) == REQUESTS_AT_ONCE)
        for each in all_of_them:
            each.cancel()
        await asyncio.wait(all_of_them)
        assert all(each.cancelled() for each in all_of_them)
        await until(lambda: nothing_is_left_of(authorizer))
        free.set()
        assert len(endpoint.asked) == REQUESTS_AT_ONCE, "those who still waited never asked"


async def test_a_request_that_is_cancelled_before_it_began_asks_nothing(
    endpoint: Endpoint,
) -> None:
    async with asking(endpoint.url) as authorizer:
        asking_it = asyncio.ensure_future(authorizer.authorize("private-x", "1.2"))
        await asyncio.sleep(0)
        asking_it.cancel()
        await asyncio.wait([asking_it])
        await until(lambda: nothing_is_left_of(authorizer))
    assert endpoint.asked == []


@pytest.mark.parametrize("source", ["token", "headers", "refresh"])
async def test_a_request_may_be_cancelled_while_its_headers_are_made(
    endpoint: Endpoint, source: str
) -> None:
    endpoint.answers(401)
    begun, free = asyncio.Event(), asyncio.Event()

    async def slow() -> Any:
        begun.set()
        await free.wait()
        return {} if source == "headers" else "late"

    async with asking(endpoint.url, **{source: slow}) as authorizer:
        asking_it = asyncio.ensure_future(authorizer.authorize("private-x", "1.2"))
        await soon(begun.wait())
        asking_it.cancel()
        await asyncio.wait([asking_it])
        await until(lambda: authorizer._slots._value == REQUESTS_AT_ONCE)
        free.set()
        await until(lambda: nothing_is_left_of(authorizer))


async def test_an_answer_may_come_just_as_somebody_leaves() -> None:
    request = AuthRequest("http://127.0.0.1:1/auth", "1.2")
    leaving, staying = request.wait_for("private-x"), request.wait_for("private-x")
    leaving.cancel()
    request.settle({"private-x": Authorization("k:sig")})
    assert await staying == Authorization("k:sig")
    request.leave("private-x", leaving)
    request.leave("private-x", staying)
    assert request.waiting == {}


async def test_the_end_may_come_just_as_somebody_leaves() -> None:
    request = AuthRequest("http://127.0.0.1:1/auth", "1.2")
    leaving, staying = request.wait_for("private-x"), request.wait_for("private-x")
    leaving.cancel()
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await asyncio.wait([task])
    request.ended(task)
    with pytest.raises(AuthorizationFailed, match="closed before it had an answer"):
        await staying


async def test_an_error_nobody_foresaw_reaches_who_waits(endpoint: Endpoint) -> None:
    class Odd(dict[str, str]):
        def items(self) -> Any:
            raise ZeroDivisionError

    async with asking(endpoint.url, headers=Odd(x="y")) as authorizer:
        with pytest.raises(ZeroDivisionError):
            await soon(authorizer.authorize("private-x", "1.2"))
        await until(lambda: nothing_is_left_of(authorizer))


async def test_closing_ends_what_is_under_way(endpoint: Endpoint) -> None:
    free = endpoint.hangs()
    async with asking(endpoint.url) as authorizer:
        all_of_them = [
            asyncio.ensure_future(authorizer.authorize(f"private-{i}", "1.2")) for i in range(20)
        ]
        await until(lambda: len(endpoint.asked) == REQUESTS_AT_ONCE)
        at_once = asyncio.ensure_future(authorizer.authorize("private-late", "1.2"))
        await asyncio.sleep(0)
        await soon(authorizer.close())
        for error in await asyncio.gather(*all_of_them, at_once, return_exceptions=True):
            assert isinstance(error, AuthServerError)
            assert error.temporary, "another client may have closed it"
            assert "was closed before it had an answer for private-" in str(error)
        assert nothing_is_left_of(authorizer)
        free.set()
        endpoint.answers(200, SIGNED)
        assert await soon(authorizer.authorize("private-x", "1.2")) == Authorization("k:sig")


async def test_a_token_function_may_close_the_authorizer(endpoint: Endpoint) -> None:
    async def token() -> str:
        await authorizer.close()
        return "t"

    async with asking(endpoint.url, token=token) as authorizer:
        assert await soon(authorizer.authorize("private-x", "1.2")) == Authorization("k:sig")


async def test_a_refresh_may_close_the_authorizer(endpoint: Endpoint) -> None:
    endpoint.answers(401)
    authorizer = HttpAuthorizer(endpoint.url, refresh=lambda: authorizer.close())
    with pytest.raises(AuthorizationFailed, match="closed"):
        await soon(authorizer.authorize("private-x", "1.2"))
    await until(lambda: nothing_is_left_of(authorizer))


async def test_closing_ends_a_refresh_and_a_back_off(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.answers(401)
    begun = asyncio.Event()

    async def refresh() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with asking(endpoint.url, refresh=refresh) as authorizer:
        asking_it = asyncio.ensure_future(authorizer.authorize("private-x", "1.2"))
        await soon(begun.wait())
        await soon(authorizer.close())
        with pytest.raises(AuthorizationFailed, match="closed"):
            await asking_it
        assert nothing_is_left_of(authorizer)
    assert caplog.records == [], "an end that was wished for is no failure"
    endpoint.answers(503)
    async with asking(endpoint.url, min_delay=60, max_delay=60) as authorizer:
        asking_it = asyncio.ensure_future(authorizer.authorize("private-x", "1.2"))
        await until(lambda: len(endpoint.asked) == 2)
        await soon(authorizer.close())
        with pytest.raises(AuthorizationFailed, match="closed"):
            await asking_it


# Headers


async def test_a_function_is_asked_for_the_headers_at_every_request(endpoint: Endpoint) -> None:
    numbers = iter("12")
    async with asking(endpoint.url, headers=lambda: {"X-Number": next(numbers)}) as authorizer:
        await authorizer.authorize("private-x", "1.2")
        await authorizer.authorize("private-y", "1.2")
    assert [asked.headers["x-number"] for asked in endpoint.asked] == ["1", "2"]


async def test_an_asynchronous_function_is_asked_for_the_headers_too(endpoint: Endpoint) -> None:
    async def headers() -> Mapping[str, str]:
        await asyncio.sleep(0)
        return {"X-CSRF-TOKEN": "abc", "Authorization": "Basic x"}

    async with asking(endpoint.url, headers=headers, token="wins") as authorizer:
        await authorizer.authorize("private-x", "1.2")
    assert endpoint.asked[0].headers["x-csrf-token"] == "abc"
    assert bearers(endpoint) == ["wins"]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X-Key": TOKEN + "\n"}, "the header X-Key holds characters that no header can carry"),
        ({"X-Key\r\nX-Admin": "1"}, "a header's name holds characters"),
        ({"X-Key": None}, "the header X-Key is no text but NoneType"),
        ({5: "x"}, "a header's name is no text but int"),
        (lambda: {"X-Key": TOKEN + "\0"}, "the header X-Key holds characters"),
        (lambda: [TOKEN], "the headers are no mapping but list"),
        (lambda: {"": ""}[TOKEN], "the headers function failed with KeyError"),
    ],
)
async def test_headers_that_cannot_be_sent_are_told_without_showing_them(
    endpoint: Endpoint, headers: Any, said: str
) -> None:
    error = await failure(endpoint.url, headers=headers)
    assert type(error) is AuthorizationFailed
    assert error.channel == "private-x"
    assert said in str(error)
    assert TOKEN not in str(error)
    assert endpoint.asked == []


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (lambda: 5, "the token is no text but int"),
        (lambda: {"": ""}["secret"], "the token function failed with KeyError"),
        (lambda: next(iter(())), "the token function failed with StopIteration"),
    ],
)
async def test_a_token_that_cannot_be_had_is_told(
    endpoint: Endpoint, token: Any, said: str
) -> None:
    error = await failure(endpoint.url, token=token)
    assert type(error) is AuthorizationFailed
    assert said in str(error)
    assert "secret" not in str(error)
    assert endpoint.asked == []


async def test_a_token_that_is_not_there_yet_is_not_sent(endpoint: Endpoint) -> None:
    endpoint.answers_in_turn((401, ""), (200, SIGNED))
    tokens: list[str | None] = [None]

    async def refresh() -> None:
        tokens[0] = "new"

    async with asking(endpoint.url, token=lambda: tokens[0], refresh=refresh) as authorizer:
        await soon(authorizer.authorize("private-x", "1.2"))
    assert [asked.headers.get("authorization") for asked in endpoint.asked] == [None, "Bearer new"]


async def test_a_token_function_that_is_cancelled_from_within_is_a_failure(
    endpoint: Endpoint,
) -> None:
    async def token() -> str:
        raise asyncio.CancelledError

    error = await failure(endpoint.url, token=token)
    assert "the token function failed with CancelledError" in str(error)


# The refresh


@pytest.mark.parametrize("status", [401, 419])
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_refused_token_is_refreshed_and_the_request_sent_again(
    endpoint: Endpoint, status: int, is_async: bool
) -> None:
    endpoint.knows("new", otherwise=status)

    async def later() -> str:
        await asyncio.sleep(0)
        return "new"

    refresh = later if is_async else lambda: "new"
    async with asking(endpoint.url, token="old", refresh=refresh) as authorizer:
        assert await soon(authorizer.authorize("private-x", "1.2")) == Authorization("k:sig")
        assert await soon(authorizer.authorize("private-y", "1.2")) == Authorization("k:sig")
        assert nothing_is_left_of(authorizer)
    assert bearers(endpoint) == ["old", "new", "new"]


async def test_a_refresh_may_leave_the_new_token_to_its_function(endpoint: Endpoint) -> None:
    endpoint.knows("new")
    tokens = ["old"]

    def refresh() -> None:
        tokens[0] = "new"

    async with asking(endpoint.url, token=lambda: tokens[0], refresh=refresh) as authorizer:
        await soon(authorizer.authorize("private-x", "1.2"))
    assert bearers(endpoint) == ["old", "new"]


async def test_a_refresh_may_renew_what_only_the_headers_hold(endpoint: Endpoint) -> None:
    endpoint.answers_in_turn((419, ""), (200, SIGNED))
    csrf = ["stale"]

    async def refresh() -> None:
        csrf[0] = "fresh"

    async with asking(
        endpoint.url, headers=lambda: {"X-CSRF-TOKEN": csrf[0]}, refresh=refresh
    ) as authorizer:
        await soon(authorizer.authorize("private-x", "1.2"))
    assert [asked.headers["x-csrf-token"] for asked in endpoint.asked] == ["stale", "fresh"]


@pytest.mark.parametrize(("status", "kind"), [(401, Unauthorized), (419, SessionExpired)])
async def test_a_refreshed_token_that_is_refused_too_is_the_end(
    endpoint: Endpoint, status: int, kind: type[AuthorizationFailed]
) -> None:
    endpoint.answers(status)
    refreshed = []
    async with asking(endpoint.url, token="old", refresh=lambda: refreshed.append(1)) as authorizer:
        error = await refusal(authorizer)
        assert type(error) is kind
        assert (error.code, error.temporary) == (status, False)
        assert f"answered {status} again, with a renewed token, for private-x" in str(error)
        assert (len(refreshed), len(endpoint.asked)) == (1, 2)
        assert type(await refusal(authorizer)) is kind
        assert (len(refreshed), len(endpoint.asked)) == (2, 4), "a later call tries anew"


@pytest.mark.parametrize(("status", "kind"), [(401, Unauthorized), (419, SessionExpired)])
async def test_a_refresh_that_fails_is_told_by_its_kind(
    endpoint: Endpoint,
    status: int,
    kind: type[AuthorizationFailed],
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint.answers(status)
    cause = RuntimeError(TOKEN)

    async def refresh() -> str:
        raise cause

    async with asking(endpoint.url, token="old", refresh=refresh) as authorizer:
        error = await refusal(authorizer)
        assert nothing_is_left_of(authorizer)
    assert type(error) is kind
    assert (error.code, error.channel, error.temporary) == (status, "private-x", False)
    assert str(error) == (
        f"{endpoint.url} answered {status} and the refresh failed with RuntimeError: no signature"
        " for private-x; log in again."
    )
    assert error.__cause__ is cause
    assert TOKEN not in caplog.text
    assert len(endpoint.asked) == 1


async def test_a_later_refresh_may_succeed(endpoint: Endpoint) -> None:
    endpoint.knows("new")
    tries = iter([RuntimeError(), None])

    def refresh() -> str:
        if (error := next(tries)) is not None:
            raise error
        return "new"

    async with asking(endpoint.url, token="old", refresh=refresh) as authorizer:
        assert type(await refusal(authorizer)) is Unauthorized
        assert await soon(authorizer.authorize("private-x", "1.2")) == Authorization("k:sig")
    assert bearers(endpoint) == ["old", "old", "new"]


async def test_a_refresh_that_gives_no_text_is_told(endpoint: Endpoint) -> None:
    endpoint.answers(401)
    error = await failure(endpoint.url, token="old", refresh=lambda: 5)
    assert "the token is no text but int" in str(error)


async def test_without_a_refresh_a_refused_token_is_the_end(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "antiphon.auth")
    endpoint.answers(401)
    assert type(await failure(endpoint.url, token="old")) is Unauthorized
    assert type(await failure(endpoint.url)) is Unauthorized
    assert len(endpoint.asked) == 2
    assert [r for r in caplog.records if r.name == "antiphon.auth"] == [], "nothing was renewed"


async def test_a_token_function_that_knows_a_newer_token_has_refreshed_it(
    endpoint: Endpoint,
) -> None:
    endpoint.knows("new")
    tokens = iter(["old", "new", "new"])
    async with asking(endpoint.url, token=lambda: next(tokens)) as authorizer:
        assert await soon(authorizer.authorize("private-x", "1.2")) == Authorization("k:sig")
    assert bearers(endpoint) == ["old", "new"]


async def test_a_token_function_that_knows_no_newer_token_is_not_sent_again(
    endpoint: Endpoint,
) -> None:
    endpoint.answers(401)
    error = await failure(endpoint.url, token=lambda: "old")
    assert type(error) is Unauthorized
    assert "renewed" not in str(error)
    assert len(endpoint.asked) == 1


async def test_a_token_function_that_fails_when_asked_again_has_not_refreshed_it(
    endpoint: Endpoint,
) -> None:
    endpoint.answers(401)
    tokens = iter(["old"])
    error = await failure(endpoint.url, token=lambda: next(tokens))
    assert type(error) is Unauthorized
    assert "the refresh failed with StopIteration" in str(error)


async def test_one_refresh_serves_a_thousand_channels(endpoint: Endpoint) -> None:
    refreshed = 0

    async def answer(asked: Asked) -> web.StreamResponse:
        if asked.headers["authorization"] == "Bearer new":
            return web.Response(text=SIGNED)
        await until(lambda: endpoint.most_at_once == REQUESTS_AT_ONCE)
        return web.Response(status=401)

    async def refresh() -> str:
        nonlocal refreshed
        refreshed += 1
        await asyncio.sleep(0)
        return "new"

    endpoint.answers_with(answer)
    async with asking(endpoint.url, token="old", refresh=refresh) as authorizer:
        calls = (authorizer.authorize(f"private-{i}", "1.2") for i in range(1_000))
        answers = await asyncio.wait_for(asyncio.gather(*calls), 60)
        assert nothing_is_left_of(authorizer)
    assert answers == [Authorization("k:sig")] * 1_000
    assert refreshed == 1
    assert endpoint.most_at_once == REQUESTS_AT_ONCE
    assert bearers(endpoint).count("old") == REQUESTS_AT_ONCE, "while it renews nobody asks"
    assert bearers(endpoint).count("new") == 1_000


async def test_a_thousand_channels_are_never_asked_for_at_once(endpoint: Endpoint) -> None:
    async def answer(asked: Asked) -> web.StreamResponse:
        await asyncio.sleep(0.001)
        return web.Response(text=SIGNED)

    endpoint.answers_with(answer)
    async with asking(endpoint.url) as authorizer:
        calls = (authorizer.authorize(f"private-{i}", "1.2") for i in range(1_000))
        await asyncio.wait_for(asyncio.gather(*calls), 60)
    assert endpoint.most_at_once <= REQUESTS_AT_ONCE
    assert len(endpoint.asked) == 1_000


@pytest.mark.parametrize("outcome", ["refused again", "failed"])
async def test_a_thousand_channels_are_refused_after_one_refresh(
    endpoint: Endpoint, outcome: str
) -> None:
    endpoint.answers(401)
    refreshed = 0

    def refresh() -> str:
        nonlocal refreshed
        refreshed += 1
        if outcome == "failed":
            raise ValueError
        return "new"

    async with asking(endpoint.url, token="old", refresh=refresh) as authorizer:
        calls = (authorizer.authorize(f"private-{i}", "1.2") for i in range(1_000))
        errors = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
    assert {type(error) for error in errors} == {Unauthorized}
    assert [error.channel for error in errors if isinstance(error, Unauthorized)] == [
        f"private-{i}" for i in range(1_000)
    ]
    assert refreshed == 1
    assert endpoint.most_at_once <= REQUESTS_AT_ONCE
    if outcome == "failed":
        assert len(endpoint.asked) <= 2 * REQUESTS_AT_ONCE, "a token known to be bad is not sent"


async def test_a_request_refused_after_a_refresh_is_only_sent_again(endpoint: Endpoint) -> None:
    refreshed = 0
    late = asyncio.Event()

    async def answer(asked: Asked) -> web.StreamResponse:
        if asked.headers["authorization"] == "Bearer new":
            return web.Response(text=SIGNED)
        if asked.form["channel_name"] == "private-late":
            await late.wait()
        return web.Response(status=401)

    def refresh() -> str:
        nonlocal refreshed
        refreshed += 1
        return "new"

    endpoint.answers_with(answer)
    async with asking(endpoint.url, token="old", refresh=refresh) as authorizer:
        last = asyncio.ensure_future(authorizer.authorize("private-late", "1.2"))
        await until(lambda: endpoint.asked)
        await soon(authorizer.authorize("private-early", "1.2"))
        assert refreshed == 1
        late.set()
        assert await soon(last) == Authorization("k:sig")
    assert refreshed == 1
    assert bearers(endpoint) == ["old", "old", "new", "new"]


async def test_the_refresh_outlives_who_asked_for_it_first(endpoint: Endpoint) -> None:
    endpoint.knows("new")
    begun, free = asyncio.Event(), asyncio.Event()

    async def refresh() -> str:
        begun.set()
        await free.wait()
        return "new"

    async with asking(endpoint.url, token="old", refresh=refresh) as authorizer:
        first = asyncio.ensure_future(authorizer.authorize("private-x", "1.2"))
        await soon(begun.wait())
        second = asyncio.ensure_future(authorizer.authorize("private-y", "1.2"))
        first.cancel()
        await asyncio.wait([first])
        free.set()
        assert await soon(second) == Authorization("k:sig")
    assert bearers(endpoint) == ["old", "new"]


async def test_a_refresh_is_waited_for_without_a_slot(endpoint: Endpoint) -> None:
    endpoint.answers(401)
    free = asyncio.Event()

    async def refresh() -> str:
        await free.wait()
        return "new"

    async with asking(endpoint.url, token="old", refresh=refresh) as authorizer:
        waiting = [
            asyncio.ensure_future(authorizer.authorize(f"private-{i}", "1.2")) for i in range(40)
        ]
        await until(lambda: len(endpoint.asked) >= REQUESTS_AT_ONCE)
        await until(lambda: authorizer._slots._value == REQUESTS_AT_ONCE)
        endpoint.answers(200, SIGNED)
        free.set()
        assert await soon(asyncio.gather(*waiting)) == [Authorization("k:sig")] * 40


async def test_retries_and_refreshes_are_logged(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "antiphon.auth")
    endpoint.answers_in_turn((401, ""), (503, ""), (200, SIGNED))
    async with asking(endpoint.url, token=TOKEN, refresh=lambda: TOKEN + "new") as authorizer:
        await soon(authorizer.authorize("private-x", "1.2"))
    said = [record.getMessage() for record in caplog.records if record.name == "antiphon.auth"]
    assert said[0] == "the token was refused with 401: renewing it"
    assert said[1] == "the token is renewed"
    assert "(1 of 4 tries)" in said[2]
    assert "answered 503 for private-x" in said[2]
    assert len(said) == 3
    assert TOKEN not in caplog.text


# Signing in


async def test_a_user_is_signed_in_at_an_endpoint_of_its_own(endpoint: Endpoint) -> None:
    data = json.dumps({"id": "7"})
    endpoint.answers(200, json.dumps({"auth": "k:sig", "user_data": data}))
    url = endpoint.url.replace("/auth", "/user-auth")
    async with asking(endpoint.url, user_auth_url=url, token="t", batch=True) as authorizer:
        assert await soon(authorizer.authenticate("12.34")) == Authentication("k:sig", data)
    (asked,) = endpoint.asked
    assert asked.method == "POST"
    assert asked.path == "/broadcasting/user-auth"
    assert asked.form == {"socket_id": "12.34"}
    assert asked.headers["authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, "", Unauthorized, "answered 401 for signing in; the token is missing"),
        (403, "", Forbidden, "answered 403 for signing in; this user may not sign in."),
        (419, "", SessionExpired, "answered 419 for signing in; the session"),
        (200, "", EmptyAuthResponse, "without a body for signing in; in Laravel"),
        (200, SIGNED, MalformedAuthResponse, "for signing in; expected is JSON with auth and user"),
        (500, "", AuthServerError, "answered 500 for signing in after 4 tries; look into"),
    ],
)
async def test_a_sign_in_that_is_refused_says_so(
    endpoint: Endpoint, status: int, body: str, kind: type[AuthorizationFailed], said: str
) -> None:
    endpoint.answers(status, body)
    async with asking(endpoint.url, user_auth_url=endpoint.url) as authorizer:
        with pytest.raises(kind) as caught:
            await soon(authorizer.authenticate("1.2"))
    assert caught.value.channel == ""
    assert said in str(caught.value)


async def test_a_sign_in_shares_the_refresh(endpoint: Endpoint) -> None:
    endpoint.knows(
        "new",
        answer=endpoint._plain(200, '{"auth":"k:sig","user_data":"{}"}'),
    )
    refreshed = []

    def refresh() -> str:
        refreshed.append(1)
        return "new"

    async with asking(
        endpoint.url, user_auth_url=endpoint.url, token="old", refresh=refresh
    ) as authorizer:
        await soon(
            asyncio.gather(authorizer.authenticate("1.2"), authorizer.authorize("private-x", "1.2"))
        )
    assert len(refreshed) == 1


async def test_signing_in_needs_an_endpoint(endpoint: Endpoint) -> None:
    async with asking(endpoint.url) as authorizer:
        with pytest.raises(AuthorizationFailed, match="give HttpAuthorizer a user_auth_url"):
            await authorizer.authenticate("1.2")


# Batches


def channels_of(asked: Asked) -> list[str]:
    """The channels of a batch, after a look at its form."""
    fields = asked.form
    channels = list(fields.values())[1:]
    assert list(fields) == ["socket_id", *(f"channel_name[{i}]" for i in range(len(channels)))]
    return channels


def signs_batches(endpoint: Endpoint) -> None:
    """Sign every channel of every batch."""

    async def answer(asked: Asked) -> web.StreamResponse:
        return web.json_response(
            {
                name: {"status": 200, "data": {"auth": f"k:{asked.form['socket_id']}-{name}"}}
                for name in channels_of(asked)
            }
        )

    endpoint.answers_with(answer)


async def ask_all(authorizer: HttpAuthorizer, *channels: str) -> list[Any]:
    """What becomes of each channel, all asked for at once."""
    calls = (authorizer.authorize(channel, "1.2") for channel in channels)
    return await soon(asyncio.gather(*calls, return_exceptions=True))


async def test_channels_asked_for_at_once_are_asked_in_one_request(endpoint: Endpoint) -> None:
    signs_batches(endpoint)
    async with asking(endpoint.url, batch=True) as authorizer:
        answers = await ask_all(authorizer, "private-a", "private-b", "private-a")
        assert answers == [
            Authorization("k:1.2-private-a"),
            Authorization("k:1.2-private-b"),
            Authorization("k:1.2-private-a"),
        ]
        assert nothing_is_left_of(authorizer)
        assert await ask_all(authorizer, "private-c") == [Authorization("k:1.2-private-c")]
    assert [channels_of(asked) for asked in endpoint.asked] == [
        ["private-a", "private-b"],
        ["private-c"],
    ]


async def test_a_batch_has_a_hundred_channels_at_most(endpoint: Endpoint) -> None:
    signs_batches(endpoint)
    names = [f"private-{i}" for i in range(250)]
    async with asking(endpoint.url, batch=True) as authorizer:
        answers = await ask_all(authorizer, *names)
    assert [answer.auth for answer in answers] == [f"k:1.2-{name}" for name in names]
    assert sorted(len(channels_of(asked)) for asked in endpoint.asked) == [50, 100, 100]


async def test_each_connection_has_its_own_batch(endpoint: Endpoint) -> None:
    signs_batches(endpoint)
    async with asking(endpoint.url, batch=True) as authorizer:
        answers = await soon(
            asyncio.gather(
                authorizer.authorize("private-a", "1.1"),
                authorizer.authorize("private-a", "2.2"),
                authorizer.authorize("private-b", "2.2"),
            )
        )
    assert [answer.auth for answer in answers] == [
        "k:1.1-private-a",
        "k:2.2-private-a",
        "k:2.2-private-b",
    ]
    assert len(endpoint.asked) == 2


async def test_channels_gather_while_all_slots_are_taken(endpoint: Endpoint) -> None:
    free = asyncio.Event()

    async def answer(asked: Asked) -> web.StreamResponse:
        await free.wait()
        return web.json_response({name: {"data": {"auth": "k:s"}} for name in channels_of(asked)})

    endpoint.answers_with(answer)
    async with asking(endpoint.url, batch=True) as authorizer:
        calls = []
        for i in range(REQUESTS_AT_ONCE):
            calls.append(asyncio.ensure_future(authorizer.authorize(f"private-{i}", "1.2")))
            await until(lambda: len(endpoint.asked) == len(calls))
        for name in ("private-a", "private-b", "private-c"):
            calls.append(asyncio.ensure_future(authorizer.authorize(name, "1.2")))
            await asyncio.sleep(0.01)
        free.set()
        await soon(asyncio.gather(*calls))
    assert channels_of(endpoint.asked[-1]) == ["private-a", "private-b", "private-c"]
    assert len(endpoint.asked) == REQUESTS_AT_ONCE + 1


async def test_each_channel_of_a_batch_has_its_own_outcome(endpoint: Endpoint) -> None:
    entries = {
        "private-ok": {"status": 200, "data": {"auth": "k:sig"}},
        "private-bare": {"data": {"auth": "k:sig"}},
        "private-created": {"status": 201, "data": {"auth": "k:sig"}},
        "private-403": {"status": 403},
        "private-401": {"status": 401},
        "private-419": {"status": 419, "data": "x"},
        "private-404": {"status": 404},
        "private-empty": {"status": 200},
        "private-odd": {"status": "no"},
        "private-list": [],
        "private-page": {"status": 200, "data": "<html>"},
        "presence-x": {"status": 200, "data": {"auth": "k:sig"}},
        "presence-ok": {"status": 200, "data": {"auth": "k:sig", "channel_data": "{}"}},
    }
    endpoint.answers(200, json.dumps(entries))
    async with asking(endpoint.url, batch=True) as authorizer:
        answers = await ask_all(authorizer, *entries, "private-forgotten")
    names = [*entries, "private-forgotten"]
    assert {name: type(answer) for name, answer in zip(names, answers, strict=True)} == {
        "private-ok": Authorization,
        "private-bare": Authorization,
        "private-created": Authorization,
        "private-403": Forbidden,
        "private-401": Unauthorized,
        "private-419": SessionExpired,
        "private-404": AuthServerError,
        "private-empty": EmptyAuthResponse,
        "private-odd": MalformedAuthResponse,
        "private-list": MalformedAuthResponse,
        "private-page": MalformedAuthResponse,
        "presence-x": MalformedAuthResponse,
        "presence-ok": Authorization,
        "private-forgotten": MalformedAuthResponse,
    }
    for name, answer in zip([*entries, "private-forgotten"], answers, strict=True):
        if isinstance(answer, AuthorizationFailed):
            assert answer.channel == name
            assert name in str(answer)
    assert "without this channel" in str(answers[-1])
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "times"),
    [
        (200, "", EmptyAuthResponse, 1),
        (200, "<html>", MalformedAuthResponse, 1),
        (200, "[]", MalformedAuthResponse, 1),
        (200, SIGNED, MalformedAuthResponse, 1),
        (200, "[" * 100_000, MalformedAuthResponse, 1),
        (401, "", Unauthorized, 1),
        (403, "{}", Forbidden, 1),
        (302, "", AuthServerError, 1),
        (500, "", AuthServerError, 4),
    ],
)
async def test_what_is_said_to_the_whole_batch_is_said_to_each(
    endpoint: Endpoint, status: int, body: str, kind: type[AuthorizationFailed], times: int
) -> None:
    endpoint.answers(status, body)
    async with asking(endpoint.url, batch=True) as authorizer:
        errors = await ask_all(authorizer, "private-a", "private-b")
    assert [type(error) for error in errors] == [kind, kind]
    assert [error.channel for error in errors] == ["private-a", "private-b"]
    assert len(endpoint.asked) == times, "a batch is asked again as one"


async def test_only_what_failed_is_asked_again(endpoint: Endpoint) -> None:
    first = {
        "private-ok": {"status": 200, "data": {"auth": "k:1"}},
        "private-busy": {"status": 503},
        "private-stale": {"status": 401},
    }
    second = {
        "private-busy": {"status": 200, "data": {"auth": "k:2"}},
        "private-stale": {"status": 200, "data": {"auth": "k:2"}},
    }
    endpoint.answers_in_turn((200, json.dumps(first)), (200, json.dumps(second)))
    async with asking(endpoint.url, batch=True, refresh=lambda: "new") as authorizer:
        answers = await ask_all(authorizer, *first)
    assert [answer.auth for answer in answers] == ["k:1", "k:2", "k:2"]
    assert channels_of(endpoint.asked[1]) == ["private-busy", "private-stale"]


async def test_a_channel_nobody_waits_for_leaves_its_batch(endpoint: Endpoint) -> None:
    signs_batches(endpoint)
    free = asyncio.Event()

    async def token() -> str:
        await free.wait()
        return "t"

    async with asking(endpoint.url, batch=True, token=token) as authorizer:
        calls = [asyncio.ensure_future(authorizer.authorize(f"private-{i}", "1.2")) for i in "abbc"]
        await asyncio.sleep(0)
        for leaving in (calls[0], calls[1], calls[3]):
            leaving.cancel()
        await asyncio.wait([calls[0], calls[1], calls[3]])
        free.set()
        assert await soon(calls[2]) == Authorization("k:1.2-private-b")
        assert nothing_is_left_of(authorizer)
    assert [channels_of(asked) for asked in endpoint.asked] == [["private-b"]]


async def test_a_batch_that_all_have_left_is_not_joined(endpoint: Endpoint) -> None:
    signs_batches(endpoint)
    begun, free = asyncio.Event(), asyncio.Event()

    async def token() -> str:
        begun.set()
        await free.wait()
        return "t"

    async with asking(endpoint.url, batch=True, token=token) as authorizer:
        gone = asyncio.ensure_future(authorizer.authorize("private-a", "1.2"))
        await soon(begun.wait())
        gone.cancel()
        await asyncio.wait([gone])
        free.set()
        assert await ask_all(authorizer, "private-b") == [Authorization("k:1.2-private-b")]
    assert len(endpoint.asked) == 1


async def test_one_who_leaves_a_batch_under_way_does_not_end_it(endpoint: Endpoint) -> None:
    free = asyncio.Event()

    async def answer(asked: Asked) -> web.StreamResponse:
        await free.wait()
        return web.json_response({name: {"data": {"auth": "k:s"}} for name in channels_of(asked)})

    endpoint.answers_with(answer)
    async with asking(endpoint.url, batch=True) as authorizer:
        calls = [asyncio.ensure_future(authorizer.authorize(f"private-{i}", "1.2")) for i in "ab"]
        await until(lambda: endpoint.asked)
        calls[0].cancel()
        await asyncio.wait([calls[0]])
        free.set()
        assert await soon(calls[1]) == Authorization("k:s")
    assert len(endpoint.asked) == 1


async def test_one_refresh_serves_all_batches(endpoint: Endpoint) -> None:
    async def answer(asked: Asked) -> web.StreamResponse:
        return web.json_response({name: {"data": {"auth": "k:s"}} for name in channels_of(asked)})

    endpoint.knows("new", answer=answer)
    refreshed = []

    def refresh() -> str:
        refreshed.append(1)
        return "new"

    names = [f"private-{i}" for i in range(1_000)]
    async with asking(endpoint.url, batch=True, token="old", refresh=refresh) as authorizer:
        answers = await ask_all(authorizer, *names)
    assert answers == [Authorization("k:s")] * 1_000
    assert len(refreshed) == 1
    assert len(endpoint.asked) <= 20


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
    await client.close()

"""Login, auth endpoint and signature: what Laravel answers, and why."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from antiphon.client import Authorization
from antiphon.doctor.endpoint import check_auth, check_login, check_signature
from antiphon.doctor.steps import Finding
from antiphon.errors import ApiError, LoginFailed
from antiphon.protocol.signing import channel_auth
from antiphon.settings import Settings
from tests.client.endpoint import SIGNED, Asked, Endpoint

from .examined import a_case

TOKEN = "token-never-to-be-printed"
SECRET = "secret-never-to-be-printed"


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint() as endpoint:
        yield endpoint


async def auth(
    endpoint: Endpoint | str, channel: str = "private-a", token: str = TOKEN, **options: Any
) -> Finding:
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    settings = Settings(app_key="k", scheme="http", auth_endpoint=url)
    found = await check_auth(a_case(settings, channel=channel, token=token, **options))
    assert TOKEN not in str(found)
    return found


# The endpoint


async def test_an_endpoint_that_signs_is_well(endpoint: Endpoint) -> None:
    found = await auth(endpoint)
    assert (found.outcome, found.detail) == ("ok", f"{endpoint.url} signed private-a")


async def test_it_is_asked_as_every_client_asks(endpoint: Endpoint) -> None:
    await auth(endpoint)
    (asked,) = endpoint.asked
    assert asked.method == "POST"
    assert asked.form == {"socket_id": "1.1", "channel_name": "private-a"}
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["accept"] == "application/json"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"


async def test_without_a_token_none_is_sent(endpoint: Endpoint) -> None:
    await auth(endpoint, token="")
    assert "authorization" not in endpoint.asked[0].headers


async def test_a_public_channel_needs_no_endpoint(endpoint: Endpoint) -> None:
    assert (await auth(endpoint, "public")).outcome == "skipped"
    assert endpoint.asked == []


async def test_without_an_endpoint_nothing_is_asked() -> None:
    found = await check_auth(a_case(Settings(app_key="k"), channel="private-a"))
    assert (found.outcome, found.detail[:23]) == ("skipped", "no endpoint is given (-")


REFUSALS = {
    400: ("misses something in the form", "socket_id and channel_name"),
    401: ("wrong or has expired", "Broadcast::routes(['middleware' => ['auth:sanctum']])"),
    402: ("no answer of an auth endpoint", "route:list"),
    403: ("may not join", "routes/channels.php"),
    404: ("does not exist", "install:broadcasting"),
    405: ("does not take POST", "route:list"),
    419: ("CSRF", "validateCsrfTokens"),
    422: ("misses something in the form", "socket_id and channel_name"),
    429: ("how often", "throttle"),
    500: ("web application failed", "laravel.log"),
    502: ("no application behind it", "php artisan up"),
    503: ("maintenance", "php artisan up"),
    504: ("no application behind it", "PHP-FPM"),
    507: ("web application failed", "pusher/pusher-php-server"),
}


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refusal_has_its_cause_and_its_fix(endpoint: Endpoint, status: int) -> None:
    endpoint.answers(status, f'{{"message":"{TOKEN}"}}')
    found = await auth(endpoint)
    cause, fix = REFUSALS[status]
    assert found.outcome == "failed"
    assert found.detail == f"{endpoint.url} answered {status}"
    assert cause in found.advice.cause
    assert fix in found.advice.fix


@pytest.mark.parametrize("status", [401, 403])
async def test_who_sends_no_token_is_told_to(endpoint: Endpoint, status: int) -> None:
    endpoint.answers(status)
    found = await auth(endpoint, token="")
    assert "No token was sent" in found.advice.cause
    assert "--token" in found.advice.fix


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ("/broadcasting/auth", "/api/broadcasting/auth"),
        ("/api/broadcasting/auth", "/broadcasting/auth"),
    ],
)
@pytest.mark.parametrize("status", [404, 405])
async def test_an_endpoint_at_the_other_usual_address_is_found(
    endpoint: Endpoint, asked: str, there: str, status: int
) -> None:
    async def route(request: Asked) -> web.StreamResponse:
        return web.Response(status=401 if request.path == there else status)

    endpoint.answers_with(route)
    base = endpoint.url.removesuffix("/broadcasting/auth")
    found = await auth(base + asked)
    assert f"answers at {base}{there}." in found.advice.cause
    assert f"--auth-url {base}{there} " in found.advice.fix


async def test_a_page_at_the_other_address_is_no_endpoint(endpoint: Endpoint) -> None:
    async def route(request: Asked) -> web.StreamResponse:
        is_api = request.path.startswith("/api/")
        return web.Response(status=200 if is_api else 404, text="<!doctype html>")

    endpoint.answers_with(route)
    assert "does not exist" in (await auth(endpoint)).advice.cause


async def test_an_endpoint_that_hangs_up_when_asked_elsewhere_is_not_there(
    endpoint: Endpoint,
) -> None:
    async def route(request: Asked) -> web.StreamResponse:
        if request.path.startswith("/api/"):
            assert request.raw.transport is not None
            request.raw.transport.abort()
        return web.Response(status=404)

    endpoint.answers_with(route)
    assert "does not exist" in (await auth(endpoint)).advice.cause


async def test_an_address_of_ones_own_is_not_guessed_at(endpoint: Endpoint) -> None:
    endpoint.answers(404)
    await auth(endpoint.url.replace("broadcasting", "pusher"))
    assert len(endpoint.asked) == 1


async def test_a_redirect_to_a_login_page_is_the_guards(endpoint: Endpoint) -> None:
    endpoint.answers(302, Location=f"https://user:{TOKEN}@shop.example.com/login?t={TOKEN}")
    found = await auth(endpoint, token="")
    assert found.detail.endswith("answered 302")
    assert "https://shop.example.com/login" in found.advice.cause
    endpoint.answers(302, Location="/login")
    found = await auth(endpoint)
    assert "redirects to /login" in found.advice.cause
    assert "auth:sanctum" in found.advice.fix


async def test_a_redirect_to_https_is_the_addresss(endpoint: Endpoint) -> None:
    endpoint.answers(301, Location="https://shop.example.com/broadcasting/auth")
    found = await auth(endpoint)
    assert "plain HTTP on to https://shop.example.com/broadcasting/auth" in found.advice.cause
    assert "APP_URL" in found.advice.fix


UNSIGNED = {
    "": ("an empty body", "BROADCAST_CONNECTION is log or null", "BROADCAST_CONNECTION=reverb"),
    " \n": ("an empty body", "guard", "auth:sanctum"),
    "true": ("true", "BROADCAST_CONNECTION is redis", "BROADCAST_CONNECTION=reverb"),
    "<!doctype html><p>": ("a page of HTML", "login page", "route:list"),
    '{"ok":1}': ("8 bytes that are no signature", "auth field", "Broadcast::routes()"),
}


@pytest.mark.parametrize("body", UNSIGNED)
async def test_200_without_a_signature_has_its_cause(endpoint: Endpoint, body: str) -> None:
    endpoint.answers(200, body)
    found = await auth(endpoint)
    detail, cause, fix = UNSIGNED[body]
    assert found.outcome == "failed"
    assert found.detail.endswith(f"answered 200 with {detail}")
    assert cause in found.advice.cause
    assert fix in found.advice.fix


async def test_a_presence_channel_needs_the_user(endpoint: Endpoint) -> None:
    found = await auth(endpoint, "presence-a")
    assert found.outcome == "failed"
    assert "no channel_data" in found.detail
    assert "return an array" in found.advice.fix
    endpoint.answers(200, json.dumps({"auth": "k:s", "channel_data": "{}"}))
    assert (await auth(endpoint, "presence-a")).outcome == "ok"


async def test_an_endpoint_that_does_not_answer_is_told_so(endpoint: Endpoint) -> None:
    free = endpoint.hangs()
    found = await auth(endpoint, timeout=0.2)
    free.set()
    assert found.outcome == "failed"
    assert "gave no answer" in found.detail
    assert "php artisan serve" in found.advice.fix
    endpoint.drops()
    assert "gave no answer" in (await auth(endpoint)).detail


async def test_the_address_is_shown_without_its_secrets(endpoint: Endpoint) -> None:
    url = endpoint.url.replace("http://", f"http://user:{TOKEN}@") + f"?t={TOKEN}"
    assert (await auth(url, token="")).detail == f"{endpoint.url} signed private-a"


# The signature


def signed_with(auth: str, *, secret: str = SECRET, channel_data: str | None = None) -> Any:
    settings = Settings(app_key="k", app_secret=secret)
    case = a_case(settings, channel="private-a")
    case.authorization = Authorization(auth, channel_data)
    return case


async def test_nothing_signed_is_nothing_to_compare() -> None:
    found = await check_signature(a_case(Settings(app_key="k"), channel="private-a"))
    assert found.outcome == "skipped"


async def test_the_same_secret_makes_the_same_signature() -> None:
    case = signed_with(channel_auth("k", SECRET, "1.1", "private-a", "{}"), channel_data="{}")
    found = await check_signature(case)
    assert (found.outcome, found.detail) == (
        "ok",
        "key and secret are the same here and at the endpoint",
    )
    assert case.suspicion == ""


async def test_without_the_secret_the_key_alone_is_compared() -> None:
    found = await check_signature(signed_with("k:" + "0" * 64, secret=""))
    assert (found.outcome, found.detail) == ("ok", "the key is the same here and at the endpoint")


@pytest.mark.parametrize(
    ("key", "secret", "differs", "names"),
    [
        ("k", "other", "secret", "REVERB_APP_SECRET"),
        ("o", SECRET, "key", "REVERB_APP_KEY"),
        ("o", "other", "key and secret", "REVERB_APP_KEY and REVERB_APP_SECRET"),
    ],
)
async def test_what_differs_is_named_and_not_shown(
    key: str, secret: str, differs: str, names: str
) -> None:
    signature = channel_auth(key, secret, "1.1", "private-a")
    case = signed_with(signature)
    found = await check_signature(case)
    assert found.outcome == "failed"
    assert found.detail == f"the endpoint signs with another {differs} than {names} here"
    assert f"Compare {names} in both" in found.advice.fix
    assert case.suspicion == differs
    assert SECRET not in str(found)
    assert signature.partition(":")[2] not in str(found)


@pytest.mark.parametrize("auth", ["nothing", "k:", "k:" + "A" * 64, "k:" + "0" * 63, SIGNED])
async def test_what_has_not_the_form_of_a_signature_is_told_so(auth: str) -> None:
    found = await check_signature(signed_with(auth))
    assert found.outcome == "failed"
    assert "not the form" in found.detail


# Logging in


async def log_in(answer: tuple[str, str] | Exception, channel: str = "") -> tuple[Finding, Any]:
    async def answers() -> tuple[str, str]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    case = a_case(Settings(app_key="k"), log_in=answers, channel=channel)
    return await check_login(case), case


async def test_a_login_gives_the_token_and_the_users_own_channel() -> None:
    found, case = await log_in((TOKEN, "private-user.1"))
    assert (found.outcome, found.detail) == ("ok", "the user's own channel is private-user.1")
    assert (case.token, case.channel) == (TOKEN, "private-user.1")


async def test_another_channel_asked_for_stays() -> None:
    _, case = await log_in((TOKEN, "private-user.1"), channel="private-a")
    assert case.channel == "private-a"


async def test_a_token_may_have_no_channel() -> None:
    found, case = await log_in((TOKEN, ""))
    assert (found.outcome, case.channel) == ("ok", "")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (LoginFailed("Refused.", code=401), "have expired|has expired"),
        (ApiError("No answer."), "cannot be reached"),
        (ApiError("Answered 500.", code=500), "backend failed"),
    ],
)
async def test_a_login_that_fails_has_its_cause(error: ApiError, says: str) -> None:
    found, _ = await log_in(error)
    assert (found.outcome, found.detail) == ("failed", str(error))
    assert any(word in found.advice.cause for word in says.split("|"))


async def test_nobody_logs_in_unasked() -> None:
    found = await check_login(a_case(Settings(app_key="k")))
    assert found.detail == "no user is given (--email)"
    found = await check_login(a_case(Settings(app_key="k"), token=TOKEN))
    assert found.detail == "a token is given"

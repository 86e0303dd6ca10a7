from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from .harness import PASSWORD, Backend


async def test_a_log_in_gives_a_token_that_opens_everything_else(backend: Backend) -> None:
    ali = (await backend.user("Ali")).user

    answer = await backend.http.post(
        "/api/login", json={"email": ali.email.upper(), "password": PASSWORD}
    )

    assert answer.status_code == 200
    assert list(answer.json()) == ["token", "expires_at", "user"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer.json()["expires_at"])
    shown = {"id": ali.id, "firstName": "Ali", "lastName": "Vali", "email": ali.email}
    assert answer.json()["user"] == shown
    for scheme in ("Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} {answer.json()['token']}"}
        me = await backend.http.get("/api/me", headers=headers)
        assert (me.status_code, me.json()) == (200, shown)


async def test_wrong_credentials_are_refused_alike(backend: Backend) -> None:
    ali = (await backend.user("Ali")).user

    for email, password in ((ali.email, "wrong"), ("nobody@example.com", PASSWORD)):
        answer = await backend.http.post("/api/login", json={"email": email, "password": password})
        assert answer.status_code == 401
        assert answer.json() == {"message": "The e-mail address or the password is wrong."}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": "a@b.c"},
        {"email": "", "password": "x"},
        {"email": "a@b.c", "password": ""},
        {"email": ["a@b.c"], "password": "x"},
        {"email": "a\x00@b.c", "password": "x"},
        {"email": "a" * 255, "password": "x"},
        {"email": "a@b.c", "password": "x" * 1025},
    ],
)
async def test_a_log_in_that_is_none_is_refused(local_backend: Backend, body: Any) -> None:
    answer = await local_backend.http.post("/api/login", json=body)

    assert answer.status_code == 422
    assert list(answer.json()) == ["message"]


async def test_guessing_is_stopped_and_told_when_to_come_back(local_backend: Backend) -> None:
    ali = (await local_backend.user("Ali")).user
    wrong, right = [{"email": ali.email, "password": text} for text in ("wrong", PASSWORD)]
    for _ in range(10):
        assert (await local_backend.http.post("/api/login", json=wrong)).status_code == 401

    answer = await local_backend.http.post("/api/login", json=right)

    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert "Too many attempts" in answer.json()["message"]


async def test_who_logs_in_often_is_not_stopped(local_backend: Backend) -> None:
    ali = (await local_backend.user("Ali")).user
    right = {"email": ali.email, "password": PASSWORD}

    for _ in range(12):
        assert (await local_backend.http.post("/api/login", json=right)).status_code == 200


async def test_after_logging_out_the_token_is_worthless(backend: Backend) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")

    assert (await ali.post("/api/logout")).status_code == 204

    assert (await ali.get("/api/me")).status_code == 401
    assert (await john.get("/api/me")).status_code == 200


async def test_an_expired_token_is_worthless(backend: Backend) -> None:
    ali = await backend.user("Ali")
    await ali.post("/api/logout")
    ali.token = await backend.token(ali.user, lifetime=timedelta(0))

    assert (await ali.get("/api/me")).status_code == 401


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer unknown", "Basic dG9rZW4=", "token-of-1"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/logout"),
        ("GET", "/api/me"),
        ("GET", "/api/users"),
        ("GET", "/api/conversations"),
        ("POST", "/api/conversations"),
        ("GET", "/api/conversations/1/messages"),
        ("POST", "/api/conversations/1/messages"),
        ("POST", "/api/conversations/1/typing"),
        ("POST", "/api/conversations/1/read"),
        ("POST", "/broadcasting/auth"),
        ("POST", "/broadcasting/user-auth"),
    ],
)
async def test_without_a_token_nothing_is_done(
    local_backend: Backend, header: str, method: str, path: str
) -> None:
    await local_backend.user("Ali")

    answer = await local_backend.http.request(method, path, headers={"Authorization": header})

    assert answer.status_code == 401
    assert answer.json() == {"message": "Unauthenticated."}
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_users_are_found_by_name_and_address_in_any_case(backend: Backend) -> None:
    me = await backend.user("Me")
    for first, last in (("Юлия", "Ёлкина"), ("Ali", "Qo'chqorov"), ("100%", "a_b")):
        await backend.user(first, last)

    async def found(search: str) -> list[str]:
        answer = await me.get("/api/users", search=search)
        assert answer.status_code == 200
        return [user["firstName"] for user in answer.json()]

    assert await found("") == ["100%", "Ali", "Юлия"]
    assert await found("юлия ё") == ["Юлия"]
    assert await found("QO'CH") == ["Ali"]
    assert await found("ali.3@EXAMPLE") == ["Ali"]
    assert await found("%") == ["100%"]
    assert await found("_") == ["100%"]
    assert await found("/") == []
    assert await found("me") == []  # not oneself


async def test_a_search_shows_users_as_everywhere_and_at_most_fifty(
    local_backend: Backend,
) -> None:
    me = await local_backend.user("Me")
    for _ in range(51):
        await local_backend.user("Ali")

    answer = await me.get("/api/users")

    assert len(answer.json()) == 50
    assert list(answer.json()[0]) == ["id", "firstName", "lastName", "email"]


@pytest.mark.parametrize("search", ["%00", "x" * 201])
async def test_a_search_that_no_database_takes_is_refused(backend: Backend, search: str) -> None:
    me = await backend.user("Me")

    answer = await me.get(f"/api/users?search={search}")

    assert answer.status_code == 422
    assert answer.json()["message"].startswith("search: ")


@pytest.mark.parametrize("search", ["%ED%A0%80", "%FF", "%F0%9F%98%80"])
async def test_a_search_may_be_any_bytes(backend: Backend, search: str) -> None:
    me = await backend.user("Me")

    assert (await me.get(f"/api/users?search={search}")).json() == []

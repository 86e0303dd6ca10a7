from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from antiphon.backend.store import Conversations

from .harness import Backend


async def test_an_unknown_route_is_answered_as_json(local_backend: Backend) -> None:
    answer = await local_backend.http.get("/nowhere")

    assert (answer.status_code, answer.json()) == (404, {"message": "Not Found"})


async def test_a_wrong_method_is_answered_as_json(local_backend: Backend) -> None:
    answer = await local_backend.http.get("/api/login")

    assert (answer.status_code, answer.json()) == (405, {"message": "Method Not Allowed"})


async def test_a_body_over_64_kib_is_refused(local_backend: Backend) -> None:
    ali = await local_backend.user("Ali")

    async def in_parts() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield b"x" * 1024

    signing = ("/broadcasting/auth", "/broadcasting/user-auth")
    for path in ("/api/login", "/api/conversations/1/messages", *signing):
        for body in (b"x" * 65_537, in_parts()):
            answer = await ali.http.post(
                path,
                content=body,
                headers={
                    "Authorization": f"Bearer {ali.token}",
                    "Content-Type": "application/x-www-form-urlencoded",
                },
            )
            assert answer.status_code == 413
            assert answer.json() == {"message": "Request Entity Too Large"}


async def test_a_failure_inside_shows_nothing_of_itself(
    local_backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ali = await local_backend.user("Ali")

    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("inner workings")

    monkeypatch.setattr(Conversations, "of", fail)

    with caplog.at_level(logging.ERROR, "antiphon.backend"):
        answer = await ali.get("/api/conversations", secret="in the query")

    assert (answer.status_code, answer.json()) == (500, {"message": "Server Error"})
    (record,) = caplog.records
    assert record.name == "antiphon.backend"
    assert record.getMessage() == "GET '/api/conversations' failed."
    assert record.exc_info is not None
    assert ali.token not in caplog.text


async def test_a_refusal_does_not_repeat_what_was_sent(local_backend: Backend) -> None:
    answer = await local_backend.http.post(
        "/api/login?token=hidden", json={"email": 5, "password": "hidden"}
    )

    assert answer.status_code == 422
    assert "hidden" not in answer.text

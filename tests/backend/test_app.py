from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from antiphon.backend import BackendConfig, create_app
from antiphon.errors import SettingsError

from .harness import Backend, Recorder, calling, running_backend


@pytest.fixture
async def open_backend(sqlite_url: str, recorder: Recorder) -> AsyncIterator[Backend]:
    origins = ("https://chat.example.com",)
    async with running_backend(sqlite_url, recorder, allowed_origins=origins) as backend:
        yield backend


async def test_it_says_that_it_is_up(local_backend: Backend) -> None:
    answer = await local_backend.http.get("/up")

    assert (answer.status_code, answer.json()) == (200, {"health": "OK"})


@pytest.mark.parametrize("path", ["/schema", "/schema/openapi.json"])
async def test_the_openapi_document_is_served_without_a_token(
    local_backend: Backend, path: str
) -> None:
    answer = await local_backend.http.get(path)

    assert answer.status_code == 200
    document = answer.json()
    assert {
        (path, method.upper()) for path, item in document["paths"].items() for method in item
    } == {
        ("/up", "GET"),
        ("/api/login", "POST"),
        ("/api/logout", "POST"),
        ("/api/me", "GET"),
        ("/api/users", "GET"),
        ("/api/conversations", "GET"),
        ("/api/conversations", "POST"),
        ("/api/conversations/{conversation_id}/messages", "GET"),
        ("/api/conversations/{conversation_id}/messages", "POST"),
        ("/api/conversations/{conversation_id}/typing", "POST"),
        ("/api/conversations/{conversation_id}/read", "POST"),
        ("/broadcasting/auth", "POST"),
        ("/broadcasting/user-auth", "POST"),
    }


async def test_the_openapi_document_tells_tokens_bodies_and_refusals(
    local_backend: Backend,
) -> None:
    paths = (await local_backend.http.get("/schema/openapi.json")).json()["paths"]

    for path, item in paths.items():
        for operation in item.values():
            is_open = path in ("/up", "/api/login")
            assert operation.get("security") == (None if is_open else [{"token": []}])
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema["$ref"].endswith("Refusal")
    for path, fields in (
        ("/broadcasting/auth", ["socket_id", "channel_name"]),
        ("/broadcasting/user-auth", ["socket_id"]),
    ):
        body = paths[path]["post"]["requestBody"]["content"]
        assert list(body) == ["application/x-www-form-urlencoded", "application/json"]
        assert body["application/json"]["schema"]["required"] == fields


async def test_the_openapi_document_says_that_a_message_may_carry_its_temp_id(
    local_backend: Backend,
) -> None:
    document = (await local_backend.http.get("/schema/openapi.json")).json()
    (schema,) = (
        schema
        for name, schema in document["components"]["schemas"].items()
        if name.rpartition("_")[2] == "Message" and "chat_id" in schema["properties"]
    )

    assert sorted(set(schema["properties"]) - set(schema["required"])) == ["tempId"]


async def test_other_origins_are_not_let_in_unless_they_are_named(
    local_backend: Backend, open_backend: Backend
) -> None:
    def asking(origin: str) -> dict[str, str]:
        return {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, x-socket-id",
        }

    chat, evil = "https://chat.example.com", "https://chat.example.com.evil.org"

    for backend, origin in ((local_backend, chat), (open_backend, evil)):
        answer = await backend.http.get("/up", headers={"Origin": origin})
        assert "Access-Control-Allow-Origin" not in answer.headers
        answer = await backend.http.options("/api/me", headers=asking(origin))
        assert "Access-Control-Allow-Origin" not in answer.headers

    answer = await open_backend.http.options("/api/me", headers=asking(chat))
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == chat
    answer = await open_backend.http.get("/api/me", headers={"Origin": chat})
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == chat


async def test_what_was_said_is_still_there_after_a_restart(
    database_url: str, recorder: Recorder
) -> None:
    async with running_backend(database_url, recorder) as backend:
        ali, john = await backend.user("Ali"), await backend.user("John")
        here = await backend.conversation(ali, john)
        await ali.say(here, "still here")
        token = ali.token

    async with running_backend(database_url, recorder) as backend:
        answer = await backend.http.get(
            f"/api/conversations/{here}/messages", headers={"Authorization": f"Bearer {token}"}
        )

    assert answer.json()["messages"][0]["content"] == "still here"


async def test_one_application_may_be_started_again(database_url: str, recorder: Recorder) -> None:
    app = create_app(BackendConfig(settings=recorder.settings(), database_url=database_url))
    for _ in range(2):
        async with app.lifespan(), calling(app) as http:
            body = {"email": "a@b.c", "password": "x"}
            assert (await http.post("/api/login", json=body)).status_code == 401


async def test_a_database_that_cannot_be_opened_stops_the_start(
    tmp_path: Path, recorder: Recorder
) -> None:
    (tmp_path / "file").touch()
    url = f"sqlite:///{tmp_path}/file/chat.db"
    app = create_app(BackendConfig(settings=recorder.settings(), database_url=url))

    with pytest.raises(SettingsError, match="cannot be used"):
        async with app.lifespan():
            pass

from __future__ import annotations

from typing import Any

import pytest

from antiphon.protocol.signing import verify_channel_auth, verify_user_auth

from .harness import APP_KEY, APP_SECRET, Backend, Caller

SOCKET = "1234.5678"


async def authorize(caller: Caller, channel: str, socket_id: str = SOCKET) -> Any:
    return await caller.post(
        "/broadcasting/auth", data={"socket_id": socket_id, "channel_name": channel}
    )


async def sign_in(caller: Caller, socket_id: str = SOCKET) -> Any:
    return await caller.post("/broadcasting/user-auth", data={"socket_id": socket_id})


# Channels


async def test_ones_own_channel_is_signed(backend: Backend) -> None:
    ali = await backend.user("Ali")
    channel = f"private-user.{ali.id}"

    answer = await authorize(ali, channel)

    assert answer.status_code == 200
    assert list(answer.json()) == ["auth"]
    assert verify_channel_auth(answer.json()["auth"], APP_KEY, APP_SECRET, SOCKET, channel)


async def test_json_is_taken_as_well_as_a_form(backend: Backend) -> None:
    ali = await backend.user("Ali")
    channel = f"private-user.{ali.id}"

    as_form = await authorize(ali, channel)
    as_json = await ali.post("/broadcasting/auth", {"socket_id": SOCKET, "channel_name": channel})

    assert as_json.status_code == 200
    assert as_json.json() == as_form.json()


async def test_members_may_join_their_conversations_channels(backend: Backend) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)
    private, presence = f"private-conversation.{here}", f"presence-conversation.{here}"

    answer = (await authorize(john, private)).json()
    assert verify_channel_auth(answer["auth"], APP_KEY, APP_SECRET, SOCKET, private)
    assert list(answer) == ["auth"]

    answer = (await authorize(john, presence)).json()
    data = answer["channel_data"]
    assert data == (
        f'{{"user_id":"{john.id}","user_info":{{"firstName":"John","lastName":"Vali",'
        f'"email":"{john.user.email}"}}}}'
    )
    assert verify_channel_auth(answer["auth"], APP_KEY, APP_SECRET, SOCKET, presence, data)


@pytest.mark.parametrize(
    "channel",
    [
        "private-user.2",
        "private-user.01",
        "private-user.1\n",
        "private-user.1.2",
        "private-user.",
        "private-user.-1",
        "private-user.١",
        "presence-user.1",
        "private-encrypted-user.1",
        "private-conversation.1",
        "presence-conversation.1",
        "private-conversation.0",
        "private-conversation.99",
        "private-conversation.9223372036854775808",
        "private-conversation.9999999999999999999",
        f"private-conversation.{'9' * 5000}",
        "conversation.1",
        "user.1",
        "private-\x00",
        "",
    ],
)
async def test_every_other_channel_is_forbidden(backend: Backend, channel: str) -> None:
    ali, john, eve = [await backend.user(name) for name in ("Ali", "John", "Eve")]
    await backend.conversation(john, eve)

    answer = await authorize(ali, channel)

    assert (answer.status_code, answer.json()) == (403, {"message": "This channel is not yours."})


@pytest.mark.parametrize(
    "socket_id", ["", "1", "1.", ".1", "1.2.3", "1.2\n", " 1.2", "a.b", "١.٢", "1.2:private-x"]
)
async def test_a_malformed_socket_id_is_refused(local_backend: Backend, socket_id: str) -> None:
    ali = await local_backend.user("Ali")

    for answer in (
        await authorize(ali, "private-user.1", socket_id),
        await sign_in(ali, socket_id),
    ):
        refusal = {"message": "The socket_id is malformed."}
        assert (answer.status_code, answer.json()) == (422, refusal)


@pytest.mark.parametrize(
    "request_body",
    [
        {},
        {"data": {"socket_id": SOCKET}},
        {"data": {"channel_name": "private-user.1"}},
        {"json": {}},
        {"json": []},
        {"json": {"socket_id": 1.2, "channel_name": "private-user.1"}},
        {"content": b"{", "type": "application/json"},
        {"content": b'{"socket_id":"\xff"}', "type": "application/json"},
        {"content": b"x", "type": "text/plain"},
        {"content": b"socket_id=1.2&channel_name=private-user.1", "type": "text/plain"},
        {"content": b"x", "type": "multipart/form-data"},
        {"content": b"x", "type": "multipart/form-data; boundary=b"},
        {"files": {"socket_id": b"1.2", "channel_name": b"private-user.1"}},
    ],
)
async def test_a_request_with_a_field_missing_is_refused(
    local_backend: Backend, request_body: dict[str, Any]
) -> None:
    ali = await local_backend.user("Ali")
    content_type = request_body.pop("type", None)
    headers = {"Authorization": f"Bearer {ali.token}"}
    if content_type:
        headers["Content-Type"] = content_type

    answer = await ali.http.post("/broadcasting/auth", headers=headers, **request_body)

    assert answer.status_code in (400, 422), answer.text
    assert list(answer.json()) == ["message"]


# Signing in


async def test_the_tokens_user_is_signed_in(backend: Backend) -> None:
    await backend.user("Ali")
    john = await backend.user("Жон", "O'Neil")

    answer = await sign_in(john)

    assert answer.status_code == 200
    assert list(answer.json()) == ["auth", "user_data"]
    data = answer.json()["user_data"]
    assert data == (
        f'{{"id":"{john.id}","user_info":{{"firstName":"Жон","lastName":"O\'Neil",'
        f'"email":"{john.user.email}"}}}}'
    )
    assert verify_user_auth(answer.json()["auth"], APP_KEY, APP_SECRET, SOCKET, data)


async def test_a_sign_in_takes_json_as_well_as_a_form(local_backend: Backend) -> None:
    ali = await local_backend.user("Ali")

    as_json = await ali.post("/broadcasting/user-auth", {"socket_id": SOCKET})

    assert as_json.status_code == 200
    assert as_json.json() == (await sign_in(ali)).json()


@pytest.mark.parametrize(
    "request_body", [{}, {"data": {"channel_name": "x"}}, {"json": []}, {"json": {"socket_id": 1}}]
)
async def test_a_sign_in_without_a_socket_id_is_refused(
    local_backend: Backend, request_body: dict[str, Any]
) -> None:
    ali = await local_backend.user("Ali")
    headers = {"Authorization": f"Bearer {ali.token}"}

    answer = await ali.http.post("/broadcasting/user-auth", headers=headers, **request_body)

    assert answer.status_code in (400, 422), answer.text
    assert list(answer.json()) == ["message"]


async def test_nobody_chooses_whom_to_sign_in(local_backend: Backend) -> None:
    ali, john = await local_backend.user("Ali"), await local_backend.user("John")

    answer = await ali.post(
        "/broadcasting/user-auth",
        {"socket_id": SOCKET, "id": str(john.id), "user_data": f'{{"id":"{john.id}"}}'},
    )

    assert f'"id":"{ali.id}"' in answer.json()["user_data"]

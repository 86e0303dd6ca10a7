from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from antiphon.backend.broadcasts import Broadcasts, MessagesRead
from antiphon.publisher import Publisher

from .harness import APP_SECRET, Backend, Recorder, running_backend


async def test_publishing_that_fails_does_not_fail_the_request(
    sqlite_url: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.status = 500
    async with running_backend(sqlite_url, recorder) as backend:
        ali, john = await backend.user("Ali"), await backend.user("John")
        here = await backend.conversation(ali, john)
        with caplog.at_level(logging.DEBUG, "antiphon.backend"):
            first = await ali.say(here)
            assert (await ali.post(f"/api/conversations/{here}/typing")).status_code == 204
            path = f"/api/conversations/{here}/read"
            read = await john.post(path, {"message_id": first})
        assert read.json() == {"message_ids": [str(first)]}

    assert len(caplog.records) == 3
    assert {record.name for record in caplog.records} == {"antiphon.backend"}
    assert "MessageSent was not published" in caplog.text
    assert_no_secret(caplog.text, ali.token)


async def test_a_server_that_is_not_there_does_not_fail_the_request(
    sqlite_url: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = msgspec.structs.replace(recorder.settings(), port=1)
    async with running_backend(sqlite_url, recorder, settings=nowhere) as backend:
        ali, john = await backend.user("Ali"), await backend.user("John")
        await ali.say(await backend.conversation(ali, john))

    assert "MessageSent was not published" in caplog.text
    assert_no_secret(caplog.text, ali.token)


async def test_a_server_that_does_not_answer_is_not_waited_for(
    sqlite_url: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.go_on.clear()
    async with running_backend(sqlite_url, recorder, publish_timeout=0.05) as backend:
        ali, john = await backend.user("Ali"), await backend.user("John")
        await ali.say(await backend.conversation(ali, john))

    assert "MessageSent was not published in 0.05 seconds." in caplog.text


async def test_a_publisher_that_breaks_does_not_fail_the_request(
    local_backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"inner workings with {APP_SECRET}")

    monkeypatch.setattr(Publisher, "trigger", fail)
    ali, john = await local_backend.user("Ali"), await local_backend.user("John")

    await local_backend.conversation(ali, john)
    await ali.say(await local_backend.conversation(ali, john))

    assert "MessageSent was not published (RuntimeError)." in caplog.text
    assert_no_secret(caplog.text, ali.token)


@pytest.mark.parametrize("socket_id", ["1", "1.2.3", "1.2;drop", "a.b", "1.x"])
async def test_a_malformed_socket_id_header_is_ignored(
    local_backend: Backend, socket_id: str
) -> None:
    ali, john = await local_backend.user("Ali"), await local_backend.user("John")
    here = await local_backend.conversation(ali, john)

    answer = await ali.post(
        f"/api/conversations/{here}/messages", {"content": "hi"}, socket_id=socket_id
    )

    assert answer.status_code == 201
    assert local_backend.recorder.publications[0].socket_id is None


async def test_more_than_100_members_are_reached_in_several_requests(
    local_backend: Backend,
) -> None:
    members = [await local_backend.user() for _ in range(205)]
    here = await local_backend.conversation(*members)

    await members[0].say(here)

    publications = local_backend.recorder.publications
    assert [len(publication.channels) for publication in publications] == [100, 100, 5]
    reached = [channel for publication in publications for channel in publication.channels]
    assert reached == [f"private-user.{member.id}" for member in members]
    assert len({publication.data for publication in publications}) == 1


async def test_many_read_messages_are_told_in_parts_and_in_order(recorder: Recorder) -> None:
    ids = [str(number) for number in range(1, 1_202)]
    async with Publisher(recorder.settings()) as publisher:
        await Broadcasts(publisher, timeout=30).messages_read(
            MessagesRead(conversation_id=1, reader_id=2, message_ids=ids), [2, 3], socket_id=None
        )

    parts = [msgspec.json.decode(item.data, type=MessagesRead) for item in recorder.publications]
    assert [len(part.message_ids) for part in parts] == [500, 500, 201]
    assert [message_id for part in parts for message_id in part.message_ids] == ids
    assert {(part.conversation_id, part.reader_id) for part in parts} == {(1, 2)}


async def test_nothing_is_sent_where_there_is_nobody_to_hear_it(local_backend: Backend) -> None:
    ali = await local_backend.user("Ali")
    here = await local_backend.conversation(ali)

    assert (await ali.post(f"/api/conversations/{here}/typing")).status_code == 204

    assert local_backend.recorder.publications == []


async def test_events_of_one_user_are_published_in_their_order(local_backend: Backend) -> None:
    ali, john = await local_backend.user("Ali"), await local_backend.user("John")
    here = await local_backend.conversation(ali, john)

    await ali.post(f"/api/conversations/{here}/typing")
    first = await ali.say(here)
    await john.post(f"/api/conversations/{here}/read", {"message_id": first})

    assert [item.name.rpartition("\\")[2] for item in local_backend.recorder.publications] == [
        "UserIsTyping",
        "MessageSent",
        "MessagesRead",
    ]


def assert_no_secret(text: str, token: str) -> None:
    for secret in (APP_SECRET, token, "auth_signature", "Authorization"):
        assert secret not in text

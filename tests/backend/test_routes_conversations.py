from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event, insert

from antiphon.backend.store import tables

from .harness import Backend


async def test_a_message_answers_as_laravel_does_and_reaches_every_member(backend: Backend) -> None:
    john, ali = await backend.user("John", "Doe"), await backend.user("Ali")
    here = await backend.conversation(john, ali)

    answer = await john.post(
        f"/api/conversations/{here}/messages",
        {"content": "Hello!", "tempId": "temp-msg-xyz"},
        socket_id="1234.5678",
    )

    assert answer.status_code == 201
    sent_at = answer.json()["message"]["sent_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", sent_at)
    expected = (
        f'{{"message":{{"id":"1","chat_id":"{here}","sender_id":"{john.id}",'
        f'"sender_name":"John Doe","content":"Hello!","sent_at":"{sent_at}","status":"sent"}},'
        '"tempId":"temp-msg-xyz"}'
    )
    assert answer.text == expected
    (publication,) = backend.recorder.publications
    assert publication.name == "App\\Events\\MessageSent"
    assert publication.channels == [f"private-user.{john.id}", f"private-user.{ali.id}"]
    assert publication.data == expected
    assert publication.socket_id == "1234.5678"


async def test_typing_reaches_the_others_only(backend: Backend) -> None:
    ali, john, eve = [await backend.user(name) for name in ("Ali", "John", "Eve")]
    here = await backend.conversation(ali, john, eve)

    answer = await ali.post(f"/api/conversations/{here}/typing", socket_id="1.2")

    assert answer.status_code == 204
    (publication,) = backend.recorder.publications
    assert publication.name == "App\\Events\\UserIsTyping"
    assert publication.channels == [f"private-user.{john.id}", f"private-user.{eve.id}"]
    assert publication.socket_id == "1.2"
    assert publication.data == (
        f'{{"conversation_id":{here},"user":{{"id":{ali.id},"firstName":"Ali","lastName":"Vali",'
        f'"email":"{ali.user.email}"}}}}'
    )


async def test_reading_reaches_every_member_and_counts_only_messages_of_others(
    backend: Backend,
) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)
    first, _own, third, later = [await caller.say(here) for caller in (ali, john, ali, ali)]
    backend.recorder.publications.clear()

    answer = await john.post(
        f"/api/conversations/{here}/read", {"message_id": third}, socket_id="1.2"
    )

    assert answer.status_code == 200
    assert answer.json() == {"message_ids": [str(first), str(third)]}
    (publication,) = backend.recorder.publications
    assert publication.name == "App\\Events\\MessagesRead"
    assert publication.channels == [f"private-user.{ali.id}", f"private-user.{john.id}"]
    assert publication.socket_id == "1.2"
    assert publication.data == (
        f'{{"conversation_id":{here},"reader_id":{john.id},"message_ids":["{first}","{third}"]}}'
    )
    shown = (await ali.get(f"/api/conversations/{here}/messages")).json()["messages"]
    assert [message["status"] for message in shown] == ["read", "sent", "read", "sent"]
    assert shown[-1]["id"] == str(later)


async def test_reading_again_makes_nothing_newly_read_and_sends_nothing(backend: Backend) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)
    first, second = await ali.say(here), await ali.say(here)
    path = f"/api/conversations/{here}/read"
    await john.post(path, {"message_id": str(second)})  # events carry ids as strings
    backend.recorder.publications.clear()

    for message_id in (second, first):
        assert (await john.post(path, {"message_id": message_id})).json() == {"message_ids": []}
    assert (await ali.post(path, {"message_id": second})).json() == {"message_ids": []}

    assert backend.recorder.publications == []


async def test_a_read_mark_beyond_the_last_message_does_not_read_later_ones(
    backend: Backend,
) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)
    first = await ali.say(here)
    path = f"/api/conversations/{here}/read"

    assert (await john.post(path, {"message_id": 2**63 - 1})).json()["message_ids"] == [str(first)]
    second = await ali.say(here)

    assert (await john.post(path, {"message_id": second})).json()["message_ids"] == [str(second)]


async def test_the_same_temp_id_never_makes_two_messages(backend: Backend) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)
    path = f"/api/conversations/{here}/messages"
    body = {"content": "once", "tempId": "t1"}

    answers = await asyncio.gather(*(ali.post(path, body) for _ in range(10)))
    answers.append(await ali.post(path, {"content": "other words", "tempId": "t1"}))

    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [201]
    assert len({answer.text for answer in answers}) == 1
    assert len((await ali.get(path)).json()["messages"]) == 1


async def test_a_message_that_is_sent_again_is_told_again(backend: Backend) -> None:
    """The backend may have been killed between keeping it and telling it."""
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)
    path = f"/api/conversations/{here}/messages"
    backend.recorder.status = 500

    first = await ali.post(path, {"content": "once", "tempId": "t1"}, socket_id="1.2")
    backend.recorder.status = 200
    backend.recorder.publications.clear()
    again = await ali.post(path, {"content": "once", "tempId": "t1"}, socket_id="3.4")

    assert (first.status_code, again.status_code) == (201, 200)
    (publication,) = backend.recorder.publications
    assert publication.channels == [f"private-user.{ali.id}", f"private-user.{john.id}"]
    assert publication.socket_id == "3.4"
    assert publication.data == first.text == again.text


async def test_a_temp_id_is_listed_to_its_sender_and_to_nobody_else(backend: Backend) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)
    path = f"/api/conversations/{here}/messages"
    await ali.say(here)
    await ali.say(here, tempId="alis")
    await john.say(here, tempId="johns")

    def temp_ids(messages: list[Any]) -> list[str]:
        return [message.get("tempId", "left out") for message in messages]

    assert temp_ids((await ali.get(path)).json()["messages"]) == ["left out", "alis", "left out"]
    assert temp_ids((await john.get(path)).json()["messages"]) == ["left out", "left out", "johns"]
    for caller, expected in ((ali, "left out"), (john, "johns")):
        (listed,) = (await caller.get("/api/conversations")).json()
        assert temp_ids([listed["last_message"]]) == [expected]
    assert all(item.data.count("tempId") == 1 for item in backend.recorder.publications)


async def test_two_senders_may_use_the_same_temp_id(backend: Backend) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)

    assert await ali.say(here, tempId="t1") != await john.say(here, tempId="t1")


async def test_messages_without_temp_id_are_all_new(backend: Backend) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)

    assert await ali.say(here) != await ali.say(here)

    assert [p.data.endswith(',"tempId":null}') for p in backend.recorder.publications] == [True] * 2


async def test_a_temp_id_of_another_conversation_is_a_conflict(backend: Backend) -> None:
    ali, john, eve = [await backend.user(name) for name in ("Ali", "John", "Eve")]
    with_john, with_eve = (
        await backend.conversation(ali, john),
        await backend.conversation(ali, eve),
    )
    await ali.say(with_john, tempId="t1")
    backend.recorder.publications.clear()

    answer = await ali.post(
        f"/api/conversations/{with_eve}/messages", {"content": "hi", "tempId": "t1"}
    )

    assert answer.status_code == 409
    assert answer.json() == {"message": "This tempId belongs to another conversation."}
    assert backend.recorder.publications == []


@pytest.mark.parametrize(
    "content",
    [
        "<b>bold</b> & <script>alert(1)</script>",
        "שלום עולם \u202eabc",
        "👩‍👩‍👧‍👦 🇺🇿",
        " two\nlines\r\n\tand blanks ",
        "Qo'chqorov \\ \" / \u2028 \x01",
        "x" * 4_000,
        "я" * 4_000,
    ],
)
async def test_a_content_is_kept_and_sent_as_it_is(backend: Backend, content: str) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)

    await ali.say(here, content)

    (message,) = (await john.get(f"/api/conversations/{here}/messages")).json()["messages"]
    assert message["content"] == content
    assert len(backend.recorder.publications[0].data.encode()) <= 10_240


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Object missing required field `content`"),
        ([], "Expected `object`, got `array`"),
        ({"content": None}, "content: Expected `str`, got `null`"),
        ({"content": 5}, "content: Expected `str`, got `int`"),
        ({"content": ""}, "The content is blank."),
        ({"content": " \n\t\u2003"}, "The content is blank."),
        ({"content": "a\x00b"}, "The content holds a NUL."),
        ({"content": "x" * 4_001}, "content: Expected `str` of length <= 4000"),
        ({"content": "€" * 2_667}, "The content is longer than 8000 bytes."),
        ({"content": "\x01" * 2_000}, "The content has too many characters that JSON escapes."),
        ({"content": "hi", "tempId": "t" * 65}, "tempId: Expected `str` of length <= 64"),
        ({"content": "hi", "tempId": ""}, "tempId: Expected `str` of length >= 1"),
        ({"content": "hi", "tempId": "a\x00"}, "The tempId holds a NUL."),
        ({"content": "hi", "tempId": 7}, "tempId: Expected `str | null`, got `int`"),
    ],
)
async def test_a_message_that_breaks_a_rule_is_refused_with_the_reason(
    local_backend: Backend, body: Any, text: str
) -> None:
    ali, john = await local_backend.user("Ali"), await local_backend.user("John")
    here = await local_backend.conversation(ali, john)

    answer = await ali.post(f"/api/conversations/{here}/messages", body)

    assert (answer.status_code, answer.json()) == (422, {"message": text})
    assert local_backend.recorder.publications == []


@pytest.mark.parametrize(
    "raw", [b"", b"{", b'{"content":"\\ud800"}', b'{"content":"\\udc00x"}', b'{"content":"\xff"}']
)
async def test_a_body_that_is_no_json_is_refused(local_backend: Backend, raw: bytes) -> None:
    ali, john = await local_backend.user("Ali"), await local_backend.user("John")
    here = await local_backend.conversation(ali, john)

    answer = await ali.post(f"/api/conversations/{here}/messages", content=raw)

    assert answer.status_code in (400, 422)
    assert list(answer.json()) == ["message"]


async def test_history_is_paged_in_both_directions(backend: Backend) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)
    elsewhere = await backend.conversation(ali, john, await backend.user("Eve"))
    ids = []
    for number in range(5):
        ids.append(await ali.say(here, str(number)))
        await ali.say(elsewhere)
    path = f"/api/conversations/{here}/messages"

    async def page(**params: int) -> tuple[list[int], bool]:
        answer = (await john.get(path, **params)).json()
        return [int(message["id"]) for message in answer["messages"]], answer["has_more"]

    assert await page() == (ids, False)
    assert await page(limit=5) == (ids, False)
    assert await page(limit=2) == (ids[3:], True)
    assert await page(limit=2, before_id=ids[3]) == (ids[1:3], True)
    assert await page(limit=2, before_id=ids[1]) == (ids[:1], False)
    assert await page(limit=2, after_id=ids[0]) == (ids[1:3], True)
    assert await page(limit=2, after_id=ids[2]) == (ids[3:], False)
    assert await page(after_id=0) == (ids, False)
    assert await page(after_id=ids[0], before_id=ids[3]) == (ids[1:3], False)
    assert await page(after_id=2**63 - 1) == ([], False)


async def test_a_page_has_fifty_messages_unless_more_are_asked_for(local_backend: Backend) -> None:
    ali, john = await local_backend.user("Ali"), await local_backend.user("John")
    here = await local_backend.conversation(ali, john)
    for number in range(101):
        await local_backend.store.conversations.add_message(here, ali.id, str(number))
    path = f"/api/conversations/{here}/messages"

    assert len((await ali.get(path)).json()["messages"]) == 50
    assert len((await ali.get(path, limit=100)).json()["messages"]) == 100
    for limit in ("101", "0", "-1", "x", "9" * 30):
        assert (await ali.get(path, limit=limit)).status_code == 422


@pytest.mark.parametrize("number", ["9223372036854775807", "9223372036854775808", "9" * 5_000])
async def test_an_id_of_any_size_is_answered(backend: Backend, number: str) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)
    path = f"/api/conversations/{here}"

    for answer in (
        await ali.get(f"/api/conversations/{number}/messages"),
        await ali.post(f"/api/conversations/{number}/messages", {"content": "hi"}),
        await ali.post(f"/api/conversations/{number}/typing"),
        await ali.post(f"/api/conversations/{number}/read", {"message_id": 1}),
        await ali.get(f"{path}/messages", before_id=number),
        await ali.get(f"{path}/messages", after_id=number),
        await ali.post(f"{path}/read", {"message_id": number}),
        await ali.post("/api/conversations", {"member_ids": [number]}),
    ):
        assert answer.status_code in (200, 404, 422), answer.text
        assert answer.status_code == 200 or list(answer.json()) == ["message"]


async def test_a_conversation_does_not_exist_for_who_is_not_in_it(backend: Backend) -> None:
    ali, john, eve = [await backend.user(name) for name in ("Ali", "John", "Eve")]
    here = await backend.conversation(ali, john)
    await ali.say(here)
    backend.recorder.publications.clear()

    for conversation_id in (here, here + 1, 0, -1):
        path = f"/api/conversations/{conversation_id}"
        for answer in (
            await eve.get(f"{path}/messages"),
            await eve.post(f"{path}/messages", {"content": "hi"}),
            await eve.post(f"{path}/typing"),
            await eve.post(f"{path}/read", {"message_id": 1}),
        ):
            assert answer.status_code == 404
            assert answer.json() == {"message": "There is no such conversation."}
    assert (await eve.get("/api/conversations")).json() == []
    assert backend.recorder.publications == []


async def test_conversations_are_listed_with_news_first(backend: Backend) -> None:
    ali, john, eve = [await backend.user(name) for name in ("Ali", "John", "Eve")]
    with_john = await backend.conversation(ali, john)
    empty = await backend.conversation(ali, eve)
    group = await backend.conversation(ali, john, eve, title="Team <3")
    await ali.say(group, "first")
    await john.say(with_john, "old")
    await john.say(with_john, "new")

    listed = (await ali.get("/api/conversations")).json()

    assert [item["id"] for item in listed] == [with_john, group, empty]
    assert list(listed[0]) == ["id", "title", "members", "last_message", "unread_count"]
    assert [item["title"] for item in listed] == [None, "Team <3", None]
    assert [item["unread_count"] for item in listed] == [2, 0, 0]
    assert listed[0]["last_message"]["content"] == "new"
    assert listed[2]["last_message"] is None
    assert listed[0]["members"] == [
        {"id": user.id, "firstName": name, "lastName": "Vali", "email": user.user.email}
        for user, name in ((ali, "Ali"), (john, "John"))
    ]
    page = (await ali.get(f"/api/conversations/{with_john}/messages")).json()
    assert listed[0]["last_message"] == page["messages"][-1]


async def test_thousands_of_conversations_take_no_more_questions_than_a_few(
    backend: Backend,
) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    asked: list[str] = []
    engine = backend.store._database._engine.sync_engine
    await john.say(await backend.conversation(ali, john))
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))

    few = await backend.store.conversations.of(ali.id)
    of_few = len(asked)
    await grow(backend, ali.id, john.id, 2_000)
    asked.clear()
    many = await backend.store.conversations.of(ali.id)

    assert (len(few), len(many), len(asked)) == (1, 2_001, of_few)
    assert {item.unread_count for item in many} == {1}
    assert len({item.last_message.id for item in many if item.last_message}) == 2_001
    listed = (await ali.get("/api/conversations")).json()
    assert [item["id"] for item in listed] == [item.id for item in many]


async def grow(backend: Backend, to: int, sender: int, count: int) -> None:
    """Conversations with a message each, put straight into the tables."""
    now = datetime.now(UTC)
    async with backend.store._database.writing() as db:
        new = [{"title": "x", "created_at": now}] * count
        query = insert(tables.conversations).returning(tables.conversations.c.id)
        ids = list((await db.execute(query, new)).scalars())
        rows = [{"conversation_id": id_, "user_id": user} for id_ in ids for user in (to, sender)]
        await db.execute(insert(tables.members), rows)
        said = {"sender_id": sender, "content": "Hello!", "sent_at": now}
        await db.execute(insert(tables.messages), [{"conversation_id": i, **said} for i in ids])


async def test_what_is_read_is_no_longer_counted_as_unread(backend: Backend) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")
    here = await backend.conversation(ali, john)
    first = await ali.say(here)
    await ali.say(here)
    await john.post(f"/api/conversations/{here}/read", {"message_id": first})

    (listed,) = (await john.get("/api/conversations")).json()

    assert listed["unread_count"] == 1
    assert (await ali.get("/api/conversations")).json()[0]["last_message"]["status"] == "sent"


async def test_a_group_may_be_made_again_and_again(backend: Backend) -> None:
    ali, john, eve = [await backend.user(name) for name in ("Ali", "John", "Eve")]
    body = {"member_ids": [john.id, eve.id, eve.id, ali.id], "title": "Team"}

    first = await ali.post("/api/conversations", body)
    second = await ali.post("/api/conversations", body)

    assert first.status_code == second.status_code == 201
    assert first.json()["id"] != second.json()["id"]
    assert first.json()["title"] == "Team"
    assert [user["id"] for user in first.json()["members"]] == [ali.id, john.id, eve.id]
    assert first.json()["last_message"] is None
    assert first.json()["unread_count"] == 0


async def test_two_people_have_one_conversation_even_when_both_start_it_at_once(
    backend: Backend,
) -> None:
    ali, john = await backend.user("Ali"), await backend.user("John")

    answers = await asyncio.gather(
        *(ali.post("/api/conversations", {"member_ids": [john.id]}) for _ in range(4)),
        *(john.post("/api/conversations", {"member_ids": [ali.id, john.id]}) for _ in range(4)),
    )

    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Object missing required field `member_ids`"),
        ({"member_ids": []}, "member_ids: Expected `array` of length >= 1"),
        ({"member_ids": [1]}, "A conversation needs somebody else."),
        ({"member_ids": [1, 99]}, "One of the users does not exist."),
        ({"member_ids": [2, 99]}, "One of the users does not exist."),
        ({"member_ids": [0]}, "member_ids[0]: Expected `int` >= 1"),
        ({"member_ids": [2], "title": "  "}, "The title is blank."),
        ({"member_ids": [2], "title": "\x00a"}, "The title holds a NUL."),
        ({"member_ids": [2], "title": "x" * 201}, "title: Expected `str` of length <= 200"),
    ],
)
async def test_a_conversation_that_breaks_a_rule_is_refused_with_the_reason(
    backend: Backend, body: Any, text: str
) -> None:
    ali, _john = await backend.user("Ali"), await backend.user("John")

    answer = await ali.post("/api/conversations", body)

    assert (answer.status_code, answer.json()) == (422, {"message": text})
    assert (await ali.get("/api/conversations")).json() == []

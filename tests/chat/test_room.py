"""A conversation: its history, what is sent there, who types and who has read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.chat import (
    ChatSession,
    Room,
    Status,
    TimelineChanged,
    Typing,
)
from antiphon.chat import history as history_module
from antiphon.chat import outbox as outbox_module
from antiphon.chat import pace as pace_module
from antiphon.chat import who_types as who_types_module
from antiphon.chat.marks import DELIVERED_EVERY
from antiphon.errors import ApiError

from .stage import (
    PAGES,
    POSTS,
    SENT,
    Stage,
    Told,
    channel,
    contents,
    open_stage,
    until,
)

READ = "POST /api/conversations/.*/read"
TYPES = "POST /api/conversations/.*/typing"
READ_EVENT = r"App\Events\MessagesRead"


async def fill(stage: Stage, count: int) -> None:
    for number in range(count):
        await stage.say(f"no {number}", told=False)


async def longer(room: Room, count: int) -> None:
    await until(lambda: len(room.timeline) > count)


def statuses(room: Room) -> list[Status]:
    return [entry.status for entry in room.timeline.entries]


def whispers(chat: ChatSession) -> list[tuple[str, Any]]:
    """What others have whispered to a session, until now."""
    return [
        (event.name, event.data)
        for event in chat.client.history
        if event.name.startswith("client-")
    ]


# History


async def test_it_opens_with_a_page_and_goes_back_to_the_beginning(stage: Stage) -> None:
    await fill(stage, 120)
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        told = Told(chat)
        assert len(room.timeline) == 1
        await room.open()
        assert len(room.timeline) == 51
        assert room.first_unread == room.timeline.entries[0].key
        assert await room.older()
        assert not await room.older()
        assert not await room.older()
        assert contents(room) == [f"no {number}" for number in range(120)]
        assert all(changed.is_history for changed in told.of(TimelineChanged))
        assert room.unread == 120


async def test_two_who_ask_for_history_at_once_get_two_pages(stage: Stage) -> None:
    await fill(stage, 160)
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        await room.open()
        await asyncio.gather(room.older(), room.older())
        assert contents(room) == [f"no {number}" for number in range(9, 160)]


async def test_history_catching_up_and_live_messages_at_once_lose_and_double_nothing(
    stage: Stage,
) -> None:
    await fill(stage, 130)
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        told = Told(chat)
        await room.open()
        await stage.cut(chat)
        await fill(stage, 30)
        held = stage.gate.hold(PAGES, late=True)
        stage.line.up()
        chat.retry()
        older = [asyncio.ensure_future(room.older()) for _ in range(2)]
        again = asyncio.ensure_future(room.open())
        await until(lambda: chat.is_connected)
        for number in range(5):
            await stage.say(f"live {number}")
        stage.gate.open()
        held.set()
        await asyncio.gather(*older, again)
        await until(lambda: chat.is_whole)
        await until(lambda: "live 4" in told.said)
        assert contents(room) == (await stage.house.everything())[-len(room.timeline) :]
        assert len(room.timeline) >= 51 + 30 + 5
        assert told.said == [f"no {n}" for n in range(30)] + [f"live {n}" for n in range(5)]
        assert room.unread == 165


async def test_a_message_that_comes_while_the_first_page_does_is_there_once(stage: Stage) -> None:
    await fill(stage, 60)
    house = stage.house
    async with await stage.session(house.ali) as chat:
        room = chat.room(house.conversation)
        held = stage.gate.hold(PAGES, late=True)
        opening = asyncio.ensure_future(room.open())
        await until(lambda: stage.gate.count(PAGES))
        await stage.say("meanwhile")
        await until(lambda: "meanwhile" in contents(room))
        stage.gate.open()
        held.set()
        await opening
        assert contents(room)[-3:] == ["no 58", "no 59", "meanwhile"]
        assert len(room.timeline) == 52


async def test_a_page_that_no_longer_fits_leaves_no_hole(stage: Stage) -> None:
    await fill(stage, 320)
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        await room.open()
        while len(room.timeline) < 250:
            await room.older()
        held = stage.gate.hold(PAGES, late=True)
        before = stage.gate.count(PAGES)
        older = asyncio.ensure_future(room.older())
        await until(lambda: stage.gate.count(PAGES) > before)
        room.close()
        assert len(room.timeline) == history_module.KEPT_CLOSED
        stage.gate.open()
        held.set()
        assert await older
        assert contents(room) == [f"no {number}" for number in range(120, 320)]


async def test_history_that_is_refused_raises_and_can_be_asked_for_again(stage: Stage) -> None:
    await fill(stage, 60)
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        told = Told(chat)
        stage.gate.refuse(PAGES, 500)
        await room.open()
        assert [problem.error.code for problem in told.problems] == [500]
        with pytest.raises(ApiError):
            await room.older()
        assert not room.is_loading
        stage.gate.open()
        assert await room.older()
        assert len(room.timeline) == 51


async def test_one_opened_without_an_answer_is_filled_with_the_next_connection(
    stage: Stage,
) -> None:
    await fill(stage, 60)
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        await stage.cut(chat)
        stage.gate.refuse(PAGES, 0)
        await room.open()
        assert len(room.timeline) == 1
        stage.gate.open()
        await stage.mend(chat)
        assert len(room.timeline) == 51


async def test_a_conversation_that_does_not_exist_is_an_error_and_disturbs_nothing(
    stage: Stage,
) -> None:
    async with await stage.session(stage.house.ali) as chat:
        told = Told(chat)
        for id_ in (999, "no such/thing?", "…", " "):
            room = chat.room(id_)
            await room.open()
            room.close()
        assert {problem.kind for problem in told.problems} <= {"event", "subscription"}
        await stage.say("hello")
        await until(lambda: told.said == ["hello"])


async def test_each_open_needs_its_close(stage: Stage) -> None:
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        await room.open()
        await room.open()
        held = channel(room)
        assert held is not None
        room.close()
        assert room.is_open
        assert channel(room) is held
        room.close()
        room.close()
        assert held.name not in chat.client.channels


# Sending


async def test_what_is_sent_is_shown_at_once_and_comes_back_once(stage: Stage) -> None:
    house = stage.house
    async with await stage.session(house.ali) as ali, await stage.session(house.ali) as desk:
        room = ali.room(house.conversation)
        stage.gate.hold(POSTS)
        entry = await room.send("hello")
        assert entry.status is Status.SENDING
        assert entry.id is None
        assert entry.is_mine
        assert contents(room) == ["hello"]
        assert room.last is not None
        assert room.last.key == entry.key
        stage.gate.open()
        await until(lambda: statuses(room) == [Status.SENT])
        sent = room.timeline.get(entry.key)
        assert sent is not None
        assert sent.id is not None
        # The user's other device hears of it; this one, which said so itself, does not.
        await until(lambda: contents(desk.room(house.conversation)) == ["hello"])
        posts = [asked for asked in stage.gate.asked if asked.line.startswith("POST /api/conv")]
        assert [asked.headers.get("X-Socket-ID") for asked in posts] == [ali.client.socket_id]
        assert not any(event.name == SENT for event in ali.client.history)
        assert ali.room(house.conversation).unread == desk.room(house.conversation).unread == 0


async def test_a_message_whose_answer_is_lost_is_not_doubled(stage: Stage) -> None:
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        stage.gate.lose(POSTS, times=2)
        await room.send("once")
        await until(lambda: not chat.outbox.waiting())
        assert contents(room) == ["once"] == await stage.house.everything()


async def test_the_same_temp_id_is_the_same_message(stage: Stage) -> None:
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        first, second = await room.send("once", temp_id="a"), await room.send("once", temp_id="a")
        assert first.key == second.key
        await until(lambda: not chat.outbox.waiting())
        assert (await room.send("once", temp_id="a")).id is not None
        assert await stage.house.everything() == ["once"]


async def test_one_that_is_refused_says_why_and_the_next_one_goes(stage: Stage) -> None:
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        told = Told(chat)
        await room.send("x" * 4_001)
        await room.send("fine")
        await room.send("a\x00b")
        await room.send("\u202eright to left <script>alert(1)</script>\n\x1b[31m")
        await until(lambda: not any(e.status is Status.SENDING for e in room.timeline.entries))
        by_text = {entry.content: entry for entry in room.timeline.entries}
        for text in ("x" * 4_001, "a\x00b"):
            assert by_text[text].status is Status.FAILED
            assert by_text[text].failure.endswith((".", "!"))
            assert "422" not in by_text[text].failure
        assert by_text["fine"].status is Status.SENT
        assert len(await stage.house.everything()) == 2
        assert len(told.problems) == 2
        assert {problem.kind for problem in told.problems} == {"event"}


async def test_ten_megabytes_are_refused_and_nothing_else_waits_for_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "FIRST_DELAY", 0.001)
    direct = stage.settings
    settings = msgspec.structs.replace(direct, api_url=stage.house.api_url)
    async with await stage.session(stage.house.ali, settings=settings) as chat:
        room = chat.room(stage.house.conversation)
        await room.send("y" * 10_000_000)
        await room.send("fine")
        await until(
            lambda: (
                statuses(room)[-1] is not Status.SENDING
                and not any(e.status is Status.SENDING for e in room.timeline.entries)
            )
        )
        assert sorted(statuses(room)) == [Status.FAILED, Status.SENT]
        assert await stage.house.everything() == ["fine"]


@pytest.mark.parametrize("text", ["", " \n\t", "half \ud83d", "\udc00"])
@pytest.mark.parametrize("kept", [False, True])
async def test_what_no_message_can_be_is_an_error_and_leaves_no_trace(
    stage: Stage, tmp_path: Path, text: str, kept: bool
) -> None:
    path = tmp_path / "ali.sqlite3" if kept else None
    async with await stage.session(stage.house.ali, path=path) as chat:
        room = chat.room(stage.house.conversation)
        with pytest.raises(ValueError, match=r"\.$"):
            await room.send(text)
        assert contents(room) == []
        assert chat.outbox.waiting() == ()
        await room.send("fine")
        await until(lambda: statuses(room) == [Status.SENT])


async def test_one_that_failed_can_be_sent_again_or_discarded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "FIRST_DELAY", 0.001)
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        told = Told(chat)
        stage.gate.refuse(POSTS, 0)
        for text in ("one", "two", "three"):
            await room.send(text)
        await until(lambda: statuses(room) == [Status.FAILED] * 3)
        assert all(entry.failure for entry in room.timeline.entries)
        assert len(told.problems) == 1  # one trouble, though it keeps three back
        await room.discard(room.timeline.entries[1].key)
        assert contents(room) == ["one", "three"]
        stage.gate.open()
        await room.retry(room.timeline.entries[0].key)
        await until(lambda: statuses(room) == [Status.SENT] * 2)
        assert await stage.house.everything() == ["one", "three"]
        assert not any(entry.failure for entry in room.timeline.entries)


async def test_what_failed_without_an_answer_goes_with_the_next_connection(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "FIRST_DELAY", 0.001)
    path = tmp_path / "ali.sqlite3"
    async with await stage.session(stage.house.ali, path=path) as chat:
        room = chat.room(stage.house.conversation)
        await stage.cut(chat)
        stage.gate.refuse(POSTS, 503)
        await room.send("one")
        await room.send("two")
        await until(lambda: statuses(room) == [Status.FAILED] * 2)
        stage.gate.open()
        await stage.mend(chat)
        await until(lambda: statuses(room) == [Status.SENT] * 2)
        # Also after a restart of the program.
        stage.gate.refuse(POSTS, 503)
        await room.send("three")
        await until(lambda: statuses(room)[-1] is Status.FAILED)
    chat = await stage.session(stage.house.ali, path=path)
    held = stage.gate.hold("GET /api/me")
    await chat.start()
    room = chat.room(stage.house.conversation)
    assert contents(room)[-1] == "three"
    stage.gate.open()
    held.set()
    await chat.ready()
    await until(lambda: not chat.outbox.waiting())
    await chat.close()
    assert await stage.house.everything() == ["one", "two", "three"]


async def test_cancelled_while_it_is_kept_a_message_is_whole_or_not_there(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "ali.sqlite3"
    async with await stage.session(stage.house.ali, path=path) as chat:
        room = chat.room(stage.house.conversation)
        sends = [asyncio.ensure_future(room.send(f"no {number}")) for number in range(5)]
        await asyncio.sleep(0)
        for send in sends:
            send.cancel()
        await asyncio.wait(sends)
        await until(lambda: not chat.outbox.waiting())
        assert contents(room) == await stage.house.everything()
        assert all(status is Status.SENT for status in statuses(room))


# Typing


async def test_typing_is_told_at_most_every_two_seconds_and_ends_by_a_whisper(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the notice is, it counts, and is not overtaken by the whisper.
    for name in ("TYPING_EVERY", "TYPING_LASTS", "IDLE_AFTER"):
        monkeypatch.setattr(pace_module, name, 60.0)
    house = stage.house
    async with await stage.session(house.ali) as ali, await stage.session(house.john) as john:
        room, his = ali.room(house.conversation), john.room(house.conversation)
        await room.open()
        await his.open()
        await until(lambda: ali.is_online(house.john.id) and john.is_online(house.ali.id))
        told = Told(john)
        typing: list[Typing] = []
        john.on_typing(typing.append)
        for _ in range(20):
            room.keystroke()
        await until(lambda: [user.name for user in his.typing] == ["Ali Qo'chqorov"])
        assert stage.gate.count(TYPES) == 1
        monkeypatch.setattr(pace_module, "IDLE_AFTER", 0.1)
        room.keystroke()
        await until(lambda: his.typing == ())
        assert ("client-stopped-typing", {}) in whispers(john)
        assert [len(event.users) for event in typing] == [1, 0]
        assert typing == told.of(Typing)
        room.keystroke()
        await until(lambda: not ali._core._tasks)
        assert stage.gate.count(TYPES) == 1


async def test_who_leaves_types_no_more_and_who_sends_says_so_by_the_message(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace_module, "TYPING_EVERY", 0.0)
    monkeypatch.setattr(pace_module, "TYPING_LASTS", 60.0)
    monkeypatch.setattr(pace_module, "IDLE_AFTER", 60.0)
    monkeypatch.setattr(who_types_module, "OVERTAKES", 0.0)
    house = stage.house
    async with await stage.session(house.ali) as ali, await stage.session(house.john) as john:
        room, his = ali.room(house.conversation), john.room(house.conversation)
        await room.open()
        await his.open()
        await until(lambda: ali.is_online(house.john.id))
        room.keystroke()
        await until(lambda: his.typing)
        await room.send("done")
        await until(lambda: contents(his) == ["done"])
        assert his.typing == ()
        assert [name for name, _ in whispers(john)] == []
        room.keystroke()
        await until(lambda: his.typing)
        room.close()
        await until(lambda: not his.typing)
        assert ("client-stopped-typing", {}) in whispers(john) or not john.is_online(house.ali.id)


async def test_a_notice_that_its_message_has_overtaken_shows_nobody_typing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(who_types_module, "OVERTAKES", 60.0)
    house = stage.house
    async with await stage.session(house.john) as john:
        room = john.room(house.conversation)
        told = Told(john)
        async with house.as_(house.ali) as ali:
            await ali.send(house.conversation, "pasted")
            await until(lambda: contents(room) == ["pasted"])
            await ali.typing(house.conversation)
            await ali.send(house.conversation, "and sent")
        await until(lambda: contents(room) == ["pasted", "and sent"])
        assert told.of(Typing) == []


async def test_several_type_at_once_and_are_forgotten_when_nothing_more_is_heard(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace_module, "TYPING_LASTS", 60.0)
    ali = stage.house.ali
    async with await stage.session(ali) as chat:
        room = chat.room(stage.house.conversation)
        told = Told(chat)

        async def all_type() -> None:
            for id_, name in ((5, "Ann"), (6, "Bob"), (int(ali.id), "oneself")):
                user = {"id": id_, "firstName": name, "lastName": ""}
                data = {"conversation_id": room.id, "user": user}
                await stage.event(ali, r"App\Events\UserIsTyping", data)

        await all_type()
        await until(lambda: any(len(event.users) == 2 for event in told.of(Typing)))
        # What is heard from now on counts for a moment only.
        monkeypatch.setattr(pace_module, "TYPING_LASTS", 0.4)
        await all_type()
        await until(lambda: room.typing == ())
        names = [tuple(user.first_name for user in event.users) for event in told.of(Typing)]
        assert names[:2] == [("Ann",), ("Ann", "Bob")]
        assert names[-1] == ()
        assert all("oneself" not in each for each in names)


async def test_typing_that_nobody_can_be_told_of_is_no_error(stage: Stage) -> None:
    async with await stage.session(stage.house.ali) as chat:
        told = Told(chat)
        stage.gate.refuse(TYPES, 500)
        chat.room(stage.house.conversation).keystroke()
        await until(lambda: stage.gate.count(TYPES))
        await until(lambda: not chat._core._tasks)
        assert told.problems == []


# Read and delivered


async def test_what_comes_is_marked_as_read_once_a_second_and_only_when_attended(
    stage: Stage,
) -> None:
    house = stage.house
    async with await stage.session(house.ali) as ali, await stage.session(house.john) as john:
        room, his = ali.room(house.conversation), john.room(house.conversation)
        await room.open()
        for number in range(3):
            await his.send(f"no {number}")
        await until(lambda: room.unread == 3)
        assert stage.gate.count(READ) == 0
        began = asyncio.get_running_loop().time()
        room.attended = True
        assert room.unread == 0
        for number in range(3, 12):
            await his.send(f"no {number}")
        await room.send("my own needs no mark")
        await until(lambda: len(room.timeline) == 13)
        await until(
            lambda: [e.status for e in his.timeline.entries if e.is_mine] == [Status.READ] * 12
        )
        took = asyncio.get_running_loop().time() - began
        assert 1 <= stage.gate.count(READ) <= took + 1
        asked = stage.gate.count(READ)
        room.seen()
        room.seen(room.timeline.entries[2].id)
        assert room.unread == 0
        room.attended = False
        await his.send("unseen")
        await until(lambda: room.unread == 1)
        assert stage.gate.count(READ) == asked
        room.seen(room.timeline.entries[-1].key)
        await until(lambda: stage.gate.count(READ) == asked + 1)


async def test_seeing_old_messages_again_marks_nothing(stage: Stage, patient: None) -> None:
    await fill(stage, 10)
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        await room.open()
        room.seen(room.timeline.entries[6].id)
        assert room.unread == 3
        await until(lambda: stage.gate.count(READ) == 1)
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        await room.open()
        assert room.unread == 3
        room.seen(room.timeline.entries[2].id)
        assert room.unread == 3
        assert room.first_unread == room.timeline.entries[7].key
        room.seen("nonsense")
        assert room.unread == 3


async def test_a_read_mark_that_fails_is_repeated(stage: Stage, patient: None) -> None:
    await fill(stage, 2)
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        told = Told(chat)
        await room.open()
        stage.gate.refuse(READ, 500, times=1)
        room.attended = True
        await until(lambda: stage.gate.count(READ) == 2)
        assert told.problems == []
    async with stage.house.as_(stage.house.ali) as api:
        (conversation,) = await api.conversations()
    assert conversation.unread_count == 0


async def test_a_read_mark_is_not_lost_by_closing(stage: Stage, patient: None) -> None:
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        await room.open()
        room.attended = True
        await stage.say("one")
        await until(lambda: stage.gate.count(READ) == 1)
        await stage.say("two")
        await until(lambda: len(room.timeline) == 2)
    async with stage.house.as_(stage.house.ali) as api:
        (conversation,) = await api.conversations()
    assert conversation.unread_count == 0


async def test_delivered_is_whispered_also_to_who_comes_later(stage: Stage) -> None:
    house = stage.house
    async with await stage.session(house.ali) as ali, await stage.session(house.john) as john:
        room, his = ali.room(house.conversation), john.room(house.conversation)
        await his.open()
        began = asyncio.get_running_loop().time()
        await room.send("one")
        await until(lambda: contents(his) == ["one"])
        await until(lambda: statuses(room) == [Status.SENT])  # the answer may come after the event
        await room.open()
        await until(lambda: statuses(room) == [Status.DELIVERED])
        for number in range(5):
            await room.send(f"more {number}")
        await until(lambda: statuses(room) == [Status.DELIVERED] * 6)
        took = asyncio.get_running_loop().time() - began
        whispered = [name for name, _ in whispers(ali) if name == "client-delivered"]
        assert len(whispered) <= took / DELIVERED_EVERY + 1
        assert statuses(his) == [Status.SENT] * 6


async def test_forged_whispers_do_no_harm(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "TYPING_LASTS", 60.0)
    house = stage.house
    async with await stage.session(house.ali) as ali, await stage.session(house.john) as john:
        room, his = ali.room(house.conversation), john.room(house.conversation)
        told = Told(ali)
        await room.open()
        await his.open()
        await until(lambda: ali.is_online(house.john.id) and john.is_online(house.ali.id))
        held = channel(his)
        assert held is not None
        await stage.event(
            house.ali,
            r"App\Events\UserIsTyping",
            {"conversation_id": room.id, "user": {"id": house.eve.id, "firstName": "Eve"}},
        )
        await until(lambda: room.typing)
        forged: list[Any] = [
            {"message_id": "9" * 60},
            {"message_id": 2**70},
            {"message_id": "01J"},
            {"message_id": -1},
            {"message_id": None},
            {"message_id": [1]},
            "text",
            None,
            [1, 2],
            {"user_id": str(house.eve.id)},
        ]
        for data in forged:
            held.trigger("client-delivered", data)
            held.trigger("client-stopped-typing", data)
        held.trigger("client-last", {})
        await until(lambda: ("client-last", {}) in whispers(ali))
        assert [user.first_name for user in room.typing] == ["Eve"]  # about himself only
        john._core.presence.takes_whispers = False  # no honest one comes between
        await room.send("hello")
        await until(lambda: contents(his) == ["hello"])
        await until(lambda: statuses(room) == [Status.SENT])  # the answer may come after the event
        assert told.problems == []


async def test_where_the_server_takes_no_whispers_nobody_is_troubled(tmp_path: Path) -> None:
    async with open_stage(tmp_path, client_events=False) as stage:
        house = stage.house
        async with await stage.session(house.ali) as ali, await stage.session(house.john) as john:
            told = Told(ali)
            room, his = ali.room(house.conversation), john.room(house.conversation)
            await room.open()
            await his.open()
            await until(lambda: ali.is_online(house.john.id))
            for number in range(3):
                await his.send(f"no {number}")
                await longer(room, number)
                room.keystroke()
            await until(lambda: not ali._core.presence.takes_whispers)
            assert told.problems == []
            assert contents(room) == ["no 0", "no 1", "no 2"]


async def test_others_read_marks_make_ones_own_messages_read(stage: Stage) -> None:
    house = stage.house
    async with await stage.session(house.ali) as ali:
        room = ali.room(house.conversation)
        for number in range(3):
            await room.send(f"no {number}")
        await until(lambda: statuses(room) == [Status.SENT] * 3)
        read: list[Any] = []
        ali.on_read(read.append)
        second = room.timeline.entries[1].id
        data = {"conversation_id": room.id, "reader_id": house.john.id, "message_ids": [second]}
        await stage.event(house.ali, READ_EVENT, {**data, "message_ids": []})
        await stage.event(house.ali, READ_EVENT, data)
        await until(lambda: len(read) == 2)
        assert statuses(room) == [Status.READ, Status.READ, Status.SENT]
        await stage.event(house.ali, READ_EVENT, {**data, "message_ids": ["9" * 50]})
        await until(lambda: len(read) == 3)
        await room.send("later")
        await until(lambda: statuses(room)[-1] is Status.SENT)
        assert statuses(room) == [Status.READ, Status.READ, Status.SENT, Status.SENT]

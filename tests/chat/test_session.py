"""The session: it begins, is cut off, catches up, fails, is renewed, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from antiphon.chat import (
    DEFAULT_EVENT_NAMES,
    ChatSession,
    ChatState,
    ConversationsChanged,
    Message,
    PresenceChanged,
    Problem,
    RestClient,
    StateChanged,
    Status,
    TimelineChanged,
    TimelineReplaced,
)
from antiphon.chat import history as history_module
from antiphon.chat import inbox as inbox_module
from antiphon.chat import session as module
from antiphon.client import Authorization, ConnectingIn
from antiphon.errors import (
    ApiError,
    ClientClosed,
    LoginFailed,
    PayloadInvalid,
    Refused,
    SettingsError,
    SubscriptionFailed,
    Unreachable,
)
from antiphon.protocol.frames import Event
from antiphon.settings import Settings

from .stage import (
    LIST,
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

READ = r"App\Events\MessagesRead"
TYPING = r"App\Events\UserIsTyping"


def state(chat: ChatSession) -> ChatState:
    return chat.state


async def asked_more(stage: Stage, pattern: str, before: int) -> None:
    await until(lambda: stage.gate.count(pattern) > before)


def tasks() -> set[str]:
    names = {task.get_name() for task in asyncio.all_tasks()}
    return {name for name in names if "antiphon" in name} - {"antiphon http"}  # the servers'


# Life


async def test_in_one_block_it_connects_and_knows_its_conversations(stage: Stage) -> None:
    await stage.say("hello", told=False)
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        assert state(chat) is ChatState.CONNECTED
        assert chat.me is not None
        assert chat.me.name == "Ali Qo'chqorov"
        (room,) = chat.conversations
        assert room.title == "John Doe"
        assert room.unread == 1
        assert room.last is not None
        assert room.last.content == "hello"
        assert f"private-user.{stage.house.ali.id}" in chat.client.channels
    assert state(chat) is ChatState.CLOSED
    assert told.states == [ChatState.CONNECTING, ChatState.CONNECTED, ChatState.CLOSED]
    assert told.said == []  # what was said before is no news
    assert told.problems == []


async def test_the_backend_is_asked_who_the_user_is(stage: Stage, tmp_path: Path) -> None:
    chat = await stage.session(stage.house.ali, user_id=None, path=tmp_path / "ali.sqlite3")
    await chat.start()
    # Before anybody knows whose messages are one's own.
    room = chat.room(stage.house.conversation)
    await room.send("early")
    await chat.ready()
    await until(lambda: [e.status for e in room.timeline.entries] == [Status.SENT])
    assert room.timeline.entries[0].is_mine
    assert chat.me is not None
    assert chat.me.id == stage.house.ali.id
    await chat.close()
    assert await stage.house.everything() == ["early"]


async def test_it_needs_to_know_its_backend() -> None:
    with pytest.raises(SettingsError, match="api_url"):
        ChatSession(Settings(app_key="k"))


async def test_a_wrong_key_fails_at_once_and_says_so(stage: Stage) -> None:
    wrong = msgspec.structs.replace(stage.settings, app_key="nobody")
    chat = await stage.session(stage.house.ali, settings=wrong)
    told = Told(chat)
    with pytest.raises(Refused):
        async with chat:
            pytest.fail("it must not get here")
    assert told.states[-2:] == [ChatState.FAILED, ChatState.CLOSED]
    (problem,) = told.problems
    assert not problem.can_retry
    assert "nobody" not in problem.detail


async def test_a_wrong_token_asks_for_a_log_in_once(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali, token="nonsense")
    told = Told(chat)
    await chat.start()
    with pytest.raises(LoginFailed):
        await chat.ready()
    assert state(chat) is ChatState.FAILED
    assert [problem.needs_login for problem in told.problems] == [True]
    with pytest.raises(LoginFailed):
        await chat.wait_closed()
    chat.renew(await stage.token(stage.house.ali))
    await chat.ready()
    assert state(chat) is ChatState.CONNECTED
    assert chat.problem is None
    await chat.close()


async def test_somebody_elses_token_is_refused(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali, token=await stage.token(stage.house.eve))
    with pytest.raises(LoginFailed, match="not of user"):
        async with chat:
            pytest.fail("it must not get here")


async def test_a_backend_that_is_down_is_asked_five_times_then_retry_works(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    stage.hurry(chat)
    me = stage.gate.refuse("GET /api/me", 503)
    await chat.start()
    with pytest.raises(ApiError):
        await chat.ready()
    assert state(chat) is ChatState.FAILED
    assert me.met == 5
    assert [c.attempt for c in told.of(ConnectingIn)] == [2, 3, 4, 5]
    stage.gate.open()
    chat.retry()
    await chat.ready()
    assert state(chat) is ChatState.CONNECTED
    await chat.close()


async def test_a_server_that_is_down_is_dialled_five_times_then_retry_works(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    stage.hurry(chat)
    stage.line.down()
    await chat.start()
    with pytest.raises(Unreachable, match="5 attempts"):
        await chat.ready()
    assert state(chat) is ChatState.FAILED
    assert chat.retry_at is None
    assert told.states == [ChatState.CONNECTING, ChatState.FAILED]
    assert chat.problem is not None
    assert chat.problem.can_retry
    stage.line.up()
    chat.retry()
    chat.retry()
    await chat.ready()
    assert told.states[-2:] == [ChatState.CONNECTING, ChatState.CONNECTED]
    await chat.close()


async def test_retry_from_within_an_observer_is_not_undone(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali, max_attempts=1)
    stage.line.down()

    def again(observation: object) -> None:
        if getattr(observation, "current", None) is ChatState.FAILED:
            stage.line.up()
            chat.retry()

    chat.observe(again)
    await chat.start()
    await until(lambda: chat.is_connected and chat.is_whole)
    assert state(chat) is ChatState.CONNECTED
    await chat.close()


async def test_a_channel_that_is_refused_too_often_fails_the_session(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali, max_attempts=2)
    told = Told(chat)
    stage.gate.refuse("POST /broadcasting/auth", 503)
    await chat.start()
    with pytest.raises(SubscriptionFailed):
        await chat.ready()
    assert [problem.kind for problem in told.problems] == ["subscription"] * 2
    assert state(chat) is ChatState.FAILED
    stage.gate.open()
    chat.retry()
    await chat.ready()
    await chat.close()


async def test_a_list_that_is_refused_is_an_error_of_ready(stage: Stage) -> None:
    stage.gate.refuse(LIST, 404)
    chat = await stage.session(stage.house.ali)
    with pytest.raises(ApiError) as caught:
        async with chat:
            pytest.fail("it must not get here")
    assert caught.value.code == 404


async def test_a_list_that_was_refused_is_no_error_of_the_next_try(stage: Stage) -> None:
    stage.gate.refuse(LIST, 404)
    chat = await stage.session(stage.house.ali)
    await chat.start()
    with pytest.raises(ApiError):
        await chat.ready()
    stage.gate.open()
    chat.retry()
    await chat.ready()
    assert set(chat.rooms) == {str(stage.house.conversation)}
    await chat.close()


async def test_started_and_closed_twice_it_is_one(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    await chat.start()
    await chat.start()
    await asyncio.gather(chat.ready(), chat.ready())
    assert stage.gate.count("GET /api/me") == 1
    await asyncio.gather(chat.close(), chat.close())
    await chat.close()
    with pytest.raises(ClientClosed):
        await chat.start()
    with pytest.raises(ClientClosed):
        await chat.ready()
    await chat.wait_closed()


async def test_who_waits_for_the_end_is_not_misled_by_a_failure_that_is_tried_again(
    stage: Stage,
) -> None:
    chat = await stage.session(stage.house.ali, max_attempts=1)
    async with chat:

        def again(observation: object) -> None:
            if getattr(observation, "current", None) is ChatState.FAILED:
                stage.line.up()
                chat.retry()

        chat.observe(again)
        told = Told(chat)
        waiting = asyncio.ensure_future(chat.wait_closed())
        stage.line.down()
        await until(lambda: ChatState.FAILED in told.states)
        await chat.ready()
        assert not waiting.done()
    await waiting


async def test_a_second_close_waits_for_the_first_and_cuts_nothing_short(
    stage: Stage, patient: None
) -> None:
    chat = await stage.session(stage.house.ali)
    async with chat:
        held = stage.gate.hold(POSTS)
        await chat.send(stage.house.conversation, "the last word")
        await until(lambda: stage.gate.count(POSTS))
        closing = [asyncio.ensure_future(chat.close()) for _ in range(2)]
        done, _ = await asyncio.wait(closing, timeout=0.1)
        assert not done
        stage.gate.open()
        held.set()
        await asyncio.wait(closing)
    assert await stage.house.everything() == ["the last word"]


async def test_closed_while_its_file_opens_it_leaves_the_file_closed(
    stage: Stage, tmp_path: Path
) -> None:
    chat = await stage.session(stage.house.ali, path=tmp_path / "ali.sqlite3")
    starting = asyncio.ensure_future(chat.start())
    await asyncio.sleep(0)  # the file is being opened in its thread
    await chat.close()
    await starting
    assert state(chat) is ChatState.CLOSED
    assert tasks() == set()
    await until(
        lambda: not any("antiphon-chat-store" in thread.name for thread in threading.enumerate())
    )


def test_what_a_program_sees_is_what_is_documented() -> None:
    def public(thing: object) -> set[str]:
        return {name for name in dir(thing) if not name.startswith("_")}

    chat = ChatSession(Settings(app_key="k", api_url="http://127.0.0.1:1"))
    assert public(chat) == {
        *("settings", "dialect", "client", "rest", "rooms", "conversations", "outbox"),
        *("state", "is_connected", "is_whole", "problem", "connecting_in", "retry_at", "me"),
        *("start", "ready", "wait_closed", "close", "retry", "renew", "authorize_channel"),
        *("on_message", "on_typing", "on_read", "on_error", "observe"),
        *("room", "start_conversation", "send", "is_online", "last_seen"),
    }
    assert public(chat.room(1)) == {
        *("id", "title", "members", "others", "timeline", "last", "unread", "typing"),
        *("is_open", "is_loading", "first_unread", "attended"),
        *("open", "close", "older", "seen", "keystroke", "send", "retry", "discard"),
    }


if TYPE_CHECKING:  # a handler that takes something else is an error to mypy

    def takes_messages(message: Message) -> None: ...
    async def takes_anything(event: object) -> int: ...

    def give(chat: ChatSession) -> None:
        chat.on_message(takes_messages)
        chat.on_message(takes_anything)
        chat.on_message(lambda message: print(message.content))
        chat.on_typing(lambda typing: print(typing.users))
        chat.on_error(takes_messages)  # type: ignore[type-var]
        chat.on_read(takes_messages)  # type: ignore[type-var]
        chat.on_typing(takes_messages)  # type: ignore[type-var]
        chat.on_message(print)
        chat.observe(takes_anything)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "held",
    ["GET /api/me", "POST /broadcasting/auth", LIST, PAGES],
    ids=["me", "auth", "list", "page"],
)
async def test_closed_in_the_middle_it_leaves_nothing(stage: Stage, held: str) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    stage.gate.hold(held)
    await chat.start()
    opening = asyncio.ensure_future(chat.room(stage.house.conversation).open())
    ready = asyncio.ensure_future(chat.ready())
    await until(lambda: stage.gate.count(held) > 0)
    await chat.close()
    with pytest.raises(ClientClosed):
        await ready
    await asyncio.wait([opening])
    assert opening.exception() is None
    assert tasks() == set()
    assert state(chat) is ChatState.CLOSED
    assert told.states[-1] is ChatState.CLOSED
    assert not told.problems


async def test_closed_while_sending_it_ends_soon_and_keeps_the_message(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER", 0.1)
    chat = await stage.session(stage.house.ali, path=tmp_path / "ali.sqlite3")
    async with chat:
        stage.gate.hold(POSTS)
        await chat.send(stage.house.conversation, "kept")
        await until(lambda: stage.gate.count(POSTS) > 0)
    assert tasks() == set()
    stage.gate.open()
    chat = await stage.session(stage.house.ali, path=tmp_path / "ali.sqlite3")
    async with chat:
        await until(lambda: not chat.outbox.waiting())
    assert await stage.house.everything() == ["kept"]


async def test_what_was_just_sent_is_sent_before_it_closes(stage: Stage, patient: None) -> None:
    async with await stage.session(stage.house.ali) as chat:
        await chat.send(stage.house.conversation, "and good-bye")
    assert await stage.house.everything() == ["and good-bye"]


async def test_the_last_it_tells_is_that_it_is_closed(stage: Stage, patient: None) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        held = stage.gate.hold(POSTS)
        await chat.send(stage.house.conversation, "the last word")
        await until(lambda: stage.gate.count(POSTS))
        waiting = asyncio.ensure_future(chat.wait_closed())
        closing = asyncio.ensure_future(chat.close())
        await asyncio.wait([waiting, closing], timeout=0.1)
        assert (state(chat), chat.is_connected) == (ChatState.CONNECTED, False)
        assert not waiting.done()
        with pytest.raises(ClientClosed):
            await chat.ready()
        asked = len(stage.gate.asked)
        chat.retry()
        stage.gate.open()
        held.set()
        await closing
    await waiting
    assert len(stage.gate.asked) == asked
    last = told.of(TimelineChanged)[-1]
    assert [change.entry.status for change in last.changes] == [Status.SENT]
    assert told.all[-1] == StateChanged(ChatState.CONNECTED, ChatState.CLOSED)
    assert told.states == [ChatState.CONNECTING, ChatState.CONNECTED, ChatState.CLOSED]


async def test_a_closed_session_does_nothing_more(stage: Stage) -> None:
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        await stage.say("hello")
        await until(lambda: room.unread)
    asked = len(stage.gate.asked)
    told = Told(chat)
    with pytest.raises(ClientClosed):
        await room.send("too late")
    room.keystroke()
    room.seen()
    room.attended = True
    chat.retry()
    chat.renew("another")
    await room.open()
    with pytest.raises(ApiError):
        await room.older()
    assert contents(room) == ["hello"]
    assert len(stage.gate.asked) == asked
    assert tasks() == set()
    assert told.states == []
    assert told.problems == []


async def test_nothing_of_it_stays_in_memory(stage: Stage) -> None:
    async def use() -> weakref.ref[ChatSession]:
        chat = await stage.session(stage.house.ali)
        stage.gate.refuse(PAGES, 500, times=1)
        async with chat:
            await chat.room(stage.house.conversation).open()
            await chat.send(stage.house.conversation, "hello")
            await stage.cut(chat)
            await stage.mend(chat)
        return weakref.ref(chat)

    gone = await use()
    gc.collect()
    assert gone() is None
    assert tasks() == set()


def test_each_event_loop_may_have_its_own(tmp_path: Path) -> None:
    async def once(folder: Path) -> None:
        async with open_stage(folder) as stage, await stage.session(stage.house.ali) as chat:
            await chat.send(stage.house.conversation, "hello")
            await until(lambda: not chat.outbox.waiting())

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        asyncio.run(once(tmp_path / name))


async def test_two_sessions_of_one_program_talk(stage: Stage) -> None:
    house = stage.house
    async with await stage.session(house.ali) as ali, await stage.session(house.john) as john:
        told = Told(john)

        @ali.on_message
        async def answer(message: Message) -> None:
            await ali.send(message.chat_id, f"{message.content} too")

        await john.send(house.conversation, "hello")
        await until(lambda: told.said == ["hello too"])
        rooms = [chat.room(house.conversation) for chat in (ali, john)]
        await until(lambda: [contents(room) for room in rooms] == [["hello", "hello too"]] * 2)


async def test_a_subclass_may_sign_in_its_own_way(stage: Stage) -> None:
    signed: list[str] = []

    class Own(ChatSession):
        async def authorize_channel(self, channel: str, socket_id: str) -> Authorization:
            signed.append(channel)
            return await super().authorize_channel(channel, socket_id)

    token = await stage.token(stage.house.ali)
    async with Own(stage.settings, token=token) as chat:
        await chat.room(stage.house.conversation).open()
        await until(lambda: len(signed) == 2)
    assert signed == [
        f"private-user.{stage.house.ali.id}",
        f"presence-conversation.{stage.house.conversation}",
    ]


async def test_one_that_signs_with_an_exception_fails_and_does_not_hang(stage: Stage) -> None:
    class Broken(ChatSession):
        async def authorize_channel(self, channel: str, socket_id: str) -> Authorization:
            raise RuntimeError("not today")

    token = await stage.token(stage.house.ali)
    chat = Broken(stage.settings, token=token, max_attempts=1)
    with pytest.raises(SubscriptionFailed):
        async with chat:
            pytest.fail("it must not get here")


# Catching up


async def test_it_subscribes_before_it_fetches(stage: Stage) -> None:
    held = stage.gate.hold(LIST)
    chat = await stage.session(stage.house.ali)
    await chat.start()
    await until(lambda: stage.gate.count(LIST) == 1)
    mine = chat.client.channel(f"private-user.{stage.house.ali.id}")
    assert mine is not None
    assert mine.is_subscribed
    held.set()
    await chat.close()


async def test_live_messages_come_after_those_that_were_missed_each_once(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    slowly: list[str] = []

    async with chat:

        @chat.on_message
        async def handle(message: Message) -> None:
            await asyncio.sleep(0)
            slowly.append(message.content)

        await stage.cut(chat)
        for number in range(3):
            await stage.say(f"missed {number}")
        held = stage.gate.hold(PAGES)
        stage.line.up()
        chat.retry()
        await until(lambda: stage.gate.count(PAGES))
        for number in range(3):
            await stage.say(f"live {number}")
        await until(lambda: len(chat.client.history) >= 4)
        assert told.said == []
        stage.gate.open()
        held.set()
        wanted = [f"missed {n}" for n in range(3)] + [f"live {n}" for n in range(3)]
        await until(lambda: len(slowly) >= 6)
        assert told.said == slowly == wanted
        room = chat.room(stage.house.conversation)
        assert contents(room) == wanted
        assert room.unread == 6


async def test_while_the_fetch_fails_for_a_moment_what_comes_waits_for_its_turn(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(inbox_module, "HOLD", 60.0)
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        await stage.cut(chat)
        await stage.say("missed", told=False)
        failing = stage.gate.refuse(PAGES, 500)
        stage.line.up()
        chat.retry()
        await until(lambda: failing.met >= 2)
        await stage.say("live")
        await until(lambda: failing.met >= 4)
        assert told.said == []
        stage.gate.open()
        chat.retry()
        await until(lambda: told.said == ["missed", "live"])
        assert sum(problem.kind == "event" for problem in told.problems) == 1


async def test_while_the_fetch_fails_messages_still_show_and_nothing_stays_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(inbox_module, "HOLD", 0.5)
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        await stage.cut(chat)
        for number in range(30):
            await stage.say(f"missed {number}", told=False)
        failing = stage.gate.refuse(PAGES, 500)
        stage.line.up()
        chat.retry()
        await until(lambda: failing.met >= 2)
        for number in range(25):
            await stage.say(f"live {number}")
        await until(lambda: len(told.said) == 25)
        assert sum(problem.kind == "event" for problem in told.problems) == 1
        stage.gate.open()
        chat.retry()
        await until(lambda: len(told.said) == 55)
        room = chat.room(stage.house.conversation)
        assert contents(room) == await stage.house.everything()
        assert room.unread == 55
        assert sorted(told.said) == sorted(contents(room))


async def test_lost_again_while_catching_up_it_begins_again(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        room = chat.room(stage.house.conversation)
        for round_ in range(3):
            await stage.cut(chat)
            for number in range(3):
                await stage.say(f"{round_} {number}")
            stage.gate.open()
            before = stage.gate.count(PAGES)
            stage.gate.hold(PAGES, late=True)
            stage.line.up()
            chat.retry()
            await asked_more(stage, PAGES, before)
        await stage.cut(chat)
        stage.gate.open()
        await stage.mend(chat)
        assert contents(room) == await stage.house.everything()
        assert told.said == contents(room)
        assert room.unread == 9


async def test_a_gap_that_is_too_large_begins_anew_and_says_why(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "CATCH_UP_PAGES", 3)
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        room = chat.room(stage.house.conversation)
        await room.open()
        await stage.say("before")
        await until(lambda: len(room.timeline) == 1)
        await stage.cut(chat)
        for number in range(310):
            await stage.say(f"missed {number}", told=False)
        del told.all[:]
        await stage.mend(chat)
        assert contents(room) == [f"missed {number}" for number in range(260, 310)]
        (replaced,) = told.of(TimelineReplaced)
        assert replaced.reason == "Many messages came meanwhile: here are the newest."
        assert room.timeline.has_older
        assert room.unread == 311
        # From there it goes on as ever.
        await stage.say("after")
        await until(lambda: room.unread == 312)
        assert await room.older()
        assert contents(room)[:1] == ["missed 210"]


async def test_a_thousand_missed_messages_all_come(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        await stage.say("before")
        await until(lambda: told.said)
        await stage.cut(chat)
        for number in range(1_000):
            await stage.say(f"missed {number}", told=False)
        await stage.mend(chat)
        room = chat.room(stage.house.conversation)
        assert told.said == ["before", *(f"missed {number}" for number in range(1_000))]
        assert told.of(TimelineReplaced) == []
        assert room.unread == 1_001


async def test_one_that_was_overtaken_and_then_lost_is_found(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        await stage.say("first")
        await until(lambda: told.said == ["first"])
        await stage.say("lost", told=False)
        await stage.say("overtook it")
        await until(lambda: told.said == ["first", "overtook it"])
        await stage.cut(chat)
        await stage.mend(chat)
        room = chat.room(stage.house.conversation)
        assert contents(room) == ["first", "lost", "overtook it"]
        assert told.said == ["first", "overtook it", "lost"]
        assert room.unread == 3


async def test_events_that_overtake_each_other_are_put_in_order(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        room = chat.room(stage.house.conversation)
        for id_ in (11, 10, 12, 10):
            await stage.event(stage.house.ali, SENT, stage.message(str(id_), f"no {id_}"))
        await until(lambda: len(told.said) >= 3)
        await stage.event(stage.house.ali, SENT, stage.message("13", "no 13"))
        await until(lambda: "no 13" in told.said)
        assert contents(room) == ["no 10", "no 11", "no 12", "no 13"]
        assert told.said == ["no 11", "no 10", "no 12", "no 13"]
        assert room.unread == 4


async def test_two_equal_messages_are_two(stage: Stage) -> None:
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        for _ in range(2):
            await stage.say("hello")
        await until(lambda: len(room.timeline) == 2)
        await stage.cut(chat)
        await stage.mend(chat)
        assert contents(room) == ["hello", "hello"]


async def test_conversations_that_began_while_one_was_away_are_there(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        await stage.cut(chat)
        house = stage.house
        new, _ = await house.store.conversations.create([house.ali.id, house.eve.id])
        for number in range(3):
            await stage.say(f"hi {number}", sender=house.eve, room=new)
        await stage.mend(chat)
        room = chat.room(new)
        assert room.title == "Eve Stranger"
        assert told.said == contents(room) == ["hi 0", "hi 1", "hi 2"]
        assert room.unread == 3
        assert chat.conversations[0] is room


async def test_conversations_that_begin_while_one_is_there_get_their_names(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        house, store = stage.house, stage.house.store.conversations
        one, _ = await store.create([house.ali.id, house.eve.id])
        two, _ = await store.create([house.ali.id, house.eve.id, house.john.id], title="Three")
        for room in (one, two):  # within less than the time between two looks at the list
            await stage.say("hi", sender=house.eve, room=room)
        await until(
            lambda: [chat.room(id_).title for id_ in (one, two)] == ["Eve Stranger", "Three"]
        )
        assert told.said == ["hi", "hi"]
        assert [chat.room(id_).unread for id_ in (one, two)] == [1, 1]
        assert stage.gate.count(LIST) <= 3


async def test_one_conversation_that_is_refused_keeps_no_other_from_catching_up(
    stage: Stage,
) -> None:
    house = stage.house
    second, _ = await house.store.conversations.create([house.ali.id, house.eve.id])
    chat = await stage.session(house.ali)
    told = Told(chat)
    async with chat:
        await stage.cut(chat)
        await stage.say("lost")
        await stage.say("found", sender=house.eve, room=second)
        stage.gate.refuse(f"GET /api/conversations/{house.conversation}/messages", 403)
        await stage.mend(chat)
        assert told.said == ["found"]
        assert any(problem.error.code == 403 for problem in told.problems)


async def test_read_marks_and_statuses_that_were_missed_are_caught_up(stage: Stage) -> None:
    house = stage.house
    async with await stage.session(house.ali) as ali:
        room = ali.room(house.conversation)
        await room.send("read me")
        await until(lambda: not ali.outbox.waiting())
        id_ = room.timeline.entries[0].id
        assert id_ is not None
        await stage.cut(ali)
        async with house.as_(house.john) as john:
            await john.read(house.conversation, id_)
        await stage.say("and read")
        await stage.mend(ali)
        assert contents(room) == ["read me", "and read"]
        assert [entry.status for entry in room.timeline.entries] == [Status.READ, Status.SENT]
        # Also where nothing else has happened, and nobody has it open.
        await room.send("and this")
        await until(lambda: not ali.outbox.waiting())
        id_ = room.timeline.entries[2].id
        assert id_ is not None
        await stage.cut(ali)
        async with house.as_(house.john) as john:
            await john.read(house.conversation, id_)
        await stage.mend(ali)
        assert room.timeline.entries[2].status is Status.READ


async def test_unread_counts_are_those_of_the_backend_through_it_all(stage: Stage) -> None:
    house = stage.house
    await stage.say("old", told=False)

    async def of_backend() -> int:
        async with house.as_(house.ali) as api:
            (conversation,) = await api.conversations()
            return conversation.unread_count

    async with (
        await stage.session(house.ali) as phone,
        await stage.session(house.ali) as desk,
    ):
        on_phone, on_desk = (chat.room(house.conversation) for chat in (phone, desk))
        assert on_phone.unread == on_desk.unread == 1
        for number in range(3):
            await stage.say(f"live {number}")
        await until(lambda: on_phone.unread == on_desk.unread == 4)
        await stage.cut(phone, desk)
        for number in range(4):
            await stage.say(f"missed {number}")
        await stage.mend(phone, desk)
        assert on_phone.unread == on_desk.unread == 8 == await of_backend()
        # Read up to the middle on one, all of it on the other.
        await on_desk.open()
        middle = on_desk.timeline.entries[3].id
        on_desk.seen(middle)
        assert on_desk.unread == 4
        await until(lambda: on_phone.unread == 4)
        assert await of_backend() == 4
        await phone.room(house.conversation).send("mine do not count")
        await stage.say("one more")
        await until(lambda: on_phone.unread == on_desk.unread == 5)
        on_desk.attended = True
        assert on_desk.unread == 0
        await until(lambda: on_phone.unread == 0)
        await stage.say("read at once")
        await until(lambda: len(on_phone.timeline) == len(on_desk.timeline) == 11)
        assert on_desk.unread == 0
        await until(lambda: on_phone.unread == 0)
        assert await of_backend() == 0
        on_desk.attended = False
        on_desk.seen(middle)  # a mark never goes back
        assert on_desk.unread == 0


async def test_a_list_that_is_older_than_what_was_read_since_does_not_count_it(
    stage: Stage,
) -> None:
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        await room.open()
        await stage.say("hello")
        await until(lambda: room.unread == 1)
        held = stage.gate.hold(LIST, late=True, times=1)
        before = stage.gate.count(LIST)
        chat.retry()
        await until(lambda: stage.gate.count(LIST) > before)
        room.attended = True
        held.set()
        changes = Told(chat)
        await until(lambda: changes.of(ConversationsChanged))
        assert room.unread == 0


async def test_a_conversation_opened_while_it_catches_up_counts_right(stage: Stage) -> None:
    async with await stage.session(stage.house.ali) as chat:
        room = chat.room(stage.house.conversation)
        await stage.say("one")
        await until(lambda: room.unread == 1)
        await stage.cut(chat)
        for number in range(4):
            await stage.say(f"missed {number}")
        held = stage.gate.hold(PAGES, late=True)
        stage.line.up()
        chat.retry()
        await until(lambda: stage.gate.count(PAGES))
        opening = asyncio.ensure_future(room.open())
        stage.gate.open()
        held.set()
        await opening
        await until(lambda: chat.is_whole)
        assert room.unread == 5
        assert room.first_unread == room.timeline.entries[0].key


async def test_a_program_that_names_no_user_hears_of_what_it_has_missed_too(
    stage: Stage, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"user_id": None, "path": tmp_path / "ali.sqlite3"}
    async with await stage.session(stage.house.ali, **options) as chat:
        await stage.say("before")
        await until(lambda: chat.conversations[0].unread)
    await stage.say("missed")
    chat = await stage.session(stage.house.ali, **options)
    told = Told(chat)
    async with chat:
        assert contents(chat.conversations[0]) == ["before", "missed"]
        await until(lambda: told.said == ["missed"])


async def test_who_has_left_the_last_conversation_does_not_see_it_again(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "ali.sqlite3"
    async with await stage.session(stage.house.ali, path=path) as chat:
        assert len(chat.rooms) == 1
    stage.gate.answer(LIST, [])
    for _ in range(2):
        chat = await stage.session(stage.house.ali, path=path)
        await chat.start()
        shown = len(chat.rooms)
        await chat.ready()
        await chat.close()
    assert shown == 0


async def test_what_was_missed_while_the_program_was_not_there_is_news(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "ali.sqlite3"
    await stage.say("long ago")
    async with await stage.session(stage.house.ali, path=path) as chat:
        await chat.room(stage.house.conversation).open()
        await stage.say("seen by the first")
        await until(lambda: len(chat.room(stage.house.conversation).timeline) == 2)
    for number in range(3):
        await stage.say(f"missed {number}")
    chat = await stage.session(stage.house.ali, path=path)
    told = Told(chat)
    held = stage.gate.hold("GET /api/me")
    await chat.start()
    room = chat.room(stage.house.conversation)
    assert contents(room) == ["long ago", "seen by the first"]  # at once
    assert room.title == "John Doe"
    held.set()
    await chat.ready()
    assert contents(room) == ["long ago", "seen by the first", *(f"missed {n}" for n in range(3))]
    assert told.said == [f"missed {n}" for n in range(3)]
    assert room.unread == 5
    await chat.close()


async def test_handlers_that_the_block_gives_hear_of_what_was_missed_before(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "ali.sqlite3"
    await stage.say("long ago")
    async with await stage.session(stage.house.ali, path=path):
        pass
    for number in range(3):
        await stage.say(f"missed {number}")
    said: list[str] = []
    async with await stage.session(stage.house.ali, path=path) as chat:

        @chat.on_message
        def hear(message: Message) -> None:
            said.append(message.content)

        await stage.say("live")
        await until(lambda: "live" in said)
    assert said == ["missed 0", "missed 1", "missed 2", "live"]


async def test_a_block_that_fails_to_begin_tells_its_handlers_why(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali, token="nonsense")
    problems: list[Problem] = []
    chat.on_error(problems.append)
    with pytest.raises(LoginFailed):
        async with chat:
            pytest.fail("it must not get here")
    assert [problem.needs_login for problem in problems] == [True]


async def test_an_error_of_our_own_while_catching_up_is_told_and_holds_nothing_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "FIRST_DELAY", 0.05)
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        real, tries = chat.rest.conversations, 0

        async def broken() -> Any:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise ZeroDivisionError
            return await real()

        monkeypatch.setattr(chat.rest, "conversations", broken)
        await stage.cut(chat)
        await stage.mend(chat)
        assert tries == 3
        assert len([p for p in told.problems if "antiphon itself" in p.detail]) == 1


# The token


async def test_a_token_that_expires_is_asked_for_once_and_renewed_nothing_is_lost(
    stage: Stage,
) -> None:
    house = stage.house
    token = await stage.token(house.ali)
    chat = await stage.session(house.ali, token=token)
    told = Told(chat)
    async with chat:
        room = chat.room(house.conversation)
        await room.open()
        await stage.say("hello")
        await until(lambda: room.unread == 1)
        async with RestClient(house.api_url, token=token) as api:
            await api.logout()
        for number in range(5):
            await room.send(f"unsent {number}")
        room.attended = True
        room.keystroke()
        chat._core.inbox.ask()
        await until(lambda: all(e.status is Status.FAILED for e in room.timeline.entries[1:]))
        await until(lambda: stage.gate.count("POST .*/read") and stage.gate.count(LIST) > 1)
        assert [problem.needs_login for problem in told.problems] == [True]
        chat.renew(await stage.token(house.ali))
        await until(lambda: all(e.status is Status.SENT for e in room.timeline.entries[1:]))
        assert await house.everything() == ["hello", *(f"unsent {n}" for n in range(5))]
        assert len(told.problems) == 1
        await until(lambda: chat.is_whole)


async def test_a_token_that_expires_before_a_reconnection_fails_until_it_is_renewed(
    stage: Stage,
) -> None:
    house = stage.house
    token = await stage.token(house.ali)
    chat = await stage.session(house.ali, token=token, presence=5)
    told = Told(chat)
    async with chat:
        await until(lambda: channel(chat.room(house.conversation)) is not None)
        async with RestClient(house.api_url, token=token) as api:
            await api.logout()
        await stage.cut(chat)
        await stage.say("missed")
        stage.line.up()
        chat.retry()
        await until(lambda: chat.state is ChatState.FAILED)
        assert sum(problem.needs_login for problem in told.problems) == 1
        assert chat.problem is not None
        assert chat.problem.needs_login
        chat.renew(await stage.token(house.ali))
        await chat.ready()
        assert told.said == ["missed"]


async def test_a_function_that_gives_the_token_is_asked_again_without_a_word(stage: Stage) -> None:
    house = stage.house
    tokens = [await stage.token(house.ali) for _ in range(2)]
    current = 0
    chat = await stage.session(house.ali, token=lambda: tokens[current])
    told = Told(chat)
    async with chat:
        async with RestClient(house.api_url, token=tokens[0]) as api:
            await api.logout()
        current = 1
        await chat.send(house.conversation, "hello")
        await until(lambda: not chat.outbox.waiting())
        await stage.cut(chat)
        await stage.mend(chat)
    assert [p for p in told.problems if p.needs_login] == []
    assert await house.everything() == ["hello"]


# Errors


async def test_while_it_reconnects_it_says_when_it_will_try(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        before = time.monotonic()
        await stage.cut(chat)
        await until(lambda: chat.retry_at is not None)
        assert state(chat) is ChatState.RECONNECTING
        assert chat.retry_at is not None
        assert chat.retry_at > before
        assert chat.connecting_in is not None
        assert chat.problem is not None
        assert chat.problem.kind == "connection"
        # pusher-js's `unavailable` says no more than that it takes long.
        waiting = chat.connecting_in
        chat.client._move(chat.client.state.UNAVAILABLE)
        assert chat.connecting_in is waiting
        problem = told.problems[0]
        assert problem.title
        assert problem.explanation
        assert problem.advice
        assert problem.detail
        assert problem.can_retry
        await stage.mend(chat)
        assert [chat.retry_at, chat.connecting_in, chat.problem] == [None] * 3


async def test_lost_for_good_it_fails_and_says_that_nobody_is_known_to_be_there(
    stage: Stage,
) -> None:
    house = stage.house
    async with await stage.session(house.john) as john:
        await john.room(house.conversation).open()
        chat = await stage.session(house.ali)
        told = Told(chat)
        async with chat:
            await chat.room(house.conversation).open()
            await until(lambda: chat.is_online(house.john.id))
            stage.hurry(chat)
            await stage.cut(chat)
            assert not chat.is_online(house.john.id)
            await until(lambda: chat.state is ChatState.FAILED)
            assert told.states[-2:] == [ChatState.RECONNECTING, ChatState.FAILED]
            assert any(str(house.john.id) in p.user_ids for p in told.of(PresenceChanged))
            with pytest.raises(Unreachable):
                await chat.wait_closed()


async def test_a_program_that_disconnects_the_client_gets_it_told(stage: Stage) -> None:
    async with await stage.session(stage.house.ali) as chat:
        await chat.client.disconnect()
        assert state(chat) is ChatState.FAILED
        chat.retry()
        await chat.ready()


async def test_a_handler_that_raises_is_a_problem_and_disturbs_nobody(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    async with chat:

        @chat.on_message
        async def broken(message: Message) -> None:
            raise ValueError("a handler's fault")

        told = Told(chat)
        errors: list[Any] = []
        chat.on_error(errors.append)
        for number in range(2):
            await stage.say(f"no {number}")
        await until(lambda: len(told.problems) == 2)
        assert told.said == ["no 0", "no 1"]
        assert errors == told.problems


# Who is there


async def test_the_newest_conversations_are_watched_and_no_more_of_them(stage: Stage) -> None:
    house = stage.house
    rooms = [house.conversation]
    for number in range(4):
        room, _ = await house.store.conversations.create(
            [house.ali.id, house.john.id, house.eve.id], title=f"Group {number}"
        )
        rooms.append(room)
        await stage.say("hi", room=room, told=False)
    async with (
        await stage.session(house.ali, presence=2) as ali,
        await stage.session(house.john, presence=5),
    ):

        def watched() -> set[str]:
            return {name for name in ali.client.channels if name.startswith("presence-")}

        assert watched() == {f"presence-conversation.{room}" for room in rooms[-2:]}
        await until(lambda: ali.is_online(house.john.id))
        await ali.room(rooms[-1]).open()
        for room in rooms[:2]:
            await stage.say("news", room=room, told=False)
        await stage.cut(ali)
        await stage.mend(ali)
        # What is open stays.
        assert watched() == {f"presence-conversation.{room}" for room in (*rooms[:2], rooms[-1])}
        ali.room(rooms[-1]).close()
        assert len(watched()) == 2


async def test_it_knows_who_was_there_and_until_when(stage: Stage) -> None:
    house = stage.house
    async with await stage.session(house.ali) as ali:
        told = Told(ali)
        await ali.room(house.conversation).open()
        assert not ali.is_online(house.john.id)
        async with await stage.session(house.john) as john:
            await john.room(house.conversation).open()
            await until(lambda: ali.is_online(house.john.id))
        await until(lambda: not ali.is_online(house.john.id))
        assert ali.last_seen(house.john.id) is not None
        assert ali.last_seen("nobody") is None
        assert all(
            set(p.user_ids) <= {str(house.john.id), str(house.ali.id)}
            for p in told.of(PresenceChanged)
        )


# Nonsense

json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "data",
                    "message",
                    "id",
                    "chat_id",
                    "sender_id",
                    "content",
                    "sent_at",
                    "conversation_id",
                    "user",
                    "reader_id",
                    "message_ids",
                    "status",
                    "tempId",
                    "x",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=8,
)


async def test_whatever_data_an_event_has_the_session_lives(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        examples: list[tuple[str, Any]] = []

        @hypothesis_settings(
            max_examples=400, database=None, suppress_health_check=list(HealthCheck), deadline=None
        )
        @given(st.sampled_from([*DEFAULT_EVENT_NAMES, "x", "client-x"]), json)
        def collect(name: str, data: Any) -> None:
            examples.append((name, data))

        collect()
        for name, data in examples:
            await stage.event(stage.house.ali, name, data)
        await stage.event(stage.house.ali, SENT, stage.message("99999999", "still here"))
        await until(lambda: "still here" in told.said, 60)
        kinds = {type(problem.error) for problem in told.problems}
        assert kinds <= {PayloadInvalid}
        assert PayloadInvalid in kinds
        assert state(chat) is ChatState.CONNECTED


async def test_one_unusable_event_is_one_problem(stage: Stage) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        await stage.event(stage.house.ali, SENT, {"message": 5})
        await until(lambda: told.problems)
        await stage.event(stage.house.ali, SENT, stage.message("7", "fine"))
        await until(lambda: told.said == ["fine"])
        (problem,) = told.problems
        assert isinstance(problem.error, PayloadInvalid)
        assert problem.kind == "event"


async def test_events_of_unknown_conversations_make_no_rooms_and_no_storm(stage: Stage) -> None:
    ali = stage.house.ali
    async with await stage.session(ali) as chat:
        before = stage.gate.count(LIST)
        began = time.monotonic()
        user = {"id": 77, "firstName": "No", "lastName": "Body"}
        for _ in range(5):
            for number in range(900, 910):
                await stage.event(ali, TYPING, {"conversation_id": number, "user": user})
                read = {"conversation_id": number, "reader_id": 77, "message_ids": ["1"]}
                await stage.event(ali, READ, read)
        await stage.event(ali, SENT, stage.message("7", "the last"))
        await until(lambda: contents(chat.room(stage.house.conversation)) == ["the last"])
        assert set(chat.rooms) == {str(stage.house.conversation)}
        took = time.monotonic() - began
        assert stage.gate.count(LIST) - before <= 3 + took / inbox_module.ASK_EVERY


@pytest.mark.parametrize("sent_at", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", None])
async def test_a_wrong_clock_changes_no_order(stage: Stage, sent_at: str | None) -> None:
    ali, john = stage.house.ali, stage.house.john
    async with await stage.session(ali) as chat:
        room = chat.room(stage.house.conversation)
        for number, at in ((5, "2026-11-23T10:00:00Z"), (6, sent_at), (7, "2026-11-23T10:00:01Z")):
            await stage.event(ali, SENT, stage.message(str(number), f"no {number}", sent_at=at))
        await until(lambda: len(room.timeline) == 3)
        assert contents(room) == ["no 5", "no 6", "no 7"]
        assert chat.conversations == [room]
        seen = chat.last_seen(john.id)
        assert seen is not None
        assert abs(seen.timestamp() - time.time()) < 3 * 365 * 86_400


@contextlib.contextmanager
def counting_calls() -> Iterator[Counter[str]]:
    """How often anything was called, which no other work of the machine changes."""
    calls: Counter[str] = Counter()
    sys.setprofile(lambda frame, event, arg: calls.update((event,)))
    try:
        yield calls
    finally:
        sys.setprofile(None)


async def test_thousands_of_conversations_take_as_long_as_they_are_many(stage: Stage) -> None:
    people = [{"id": n, "firstName": f"P{n}", "lastName": ""} for n in range(100, 3_100)]
    everything = [
        {
            "id": number,
            "members": [person],
            "unread_count": 1,
            "last_message": stage.message(str(number), "hello", chat_id=number)["message"],
        }
        for number, person in enumerate(people, 1_000)
    ]
    steps = []
    for count in (1_000, 3_000):
        stage.gate.answer(LIST, everything[:count])
        chat = await stage.session(stage.house.ali)
        async with contextlib.AsyncExitStack() as stack:
            with counting_calls() as calls:
                await stack.enter_async_context(chat)
            steps.append(calls.total())
            assert len(chat.rooms) == count
            assert sum(room.unread for room in chat.conversations) == count
            # Nothing was fetched but the list, and nothing is fetched again after a loss.
            assert stage.gate.count(PAGES) == 0
            await stage.cut(chat)
            await stage.mend(chat)
            assert stage.gate.count(PAGES) == 0
    assert steps[1] < 4 * steps[0]


@pytest.mark.parametrize("rooms", [1, 1_000])
async def test_a_burst_of_events_takes_as_long_as_it_has_events(stage: Stage, rooms: int) -> None:
    chat = await stage.session(stage.house.ali)
    told = Told(chat)
    async with chat:
        if rooms == 1:
            await chat.room(stage.house.conversation).open()
        first = stage.house.conversation
        events = [
            Event(
                name=SENT,
                channel=f"private-user.{stage.house.ali.id}",
                raw=msgspec.json.encode(
                    stage.message(str(n), f"no {n}", chat_id=first + n % rooms)
                ).decode(),
            )
            for n in range(1, 5_001)
        ]
        asked = stage.gate.count(LIST)
        steps = []
        began = time.perf_counter()
        await asyncio.sleep(0)  # the block has no more handlers to give
        for half in (events[:2_500], events[2_500:]):
            with counting_calls() as calls:
                for event in half:
                    await chat._core.inbox.receive(event)
            steps.append(calls.total())
        took = time.perf_counter() - began
        assert len(chat.rooms) == rooms
        assert sum(room.unread for room in chat.conversations) == 5_000
        assert len(told.said) == 5_000
        assert stage.gate.count(LIST) <= asked + 1 + took / inbox_module.ASK_EVERY
        # The second half takes no more work than the first did, but for a look at the list.
        assert steps[1] < 2 * steps[0]

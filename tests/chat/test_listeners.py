"""Observers and handlers: told in order, and none of them disturbs another."""

from __future__ import annotations

import asyncio
import functools

import pytest

from antiphon.chat import listeners as module
from antiphon.chat.listeners import Listeners
from antiphon.errors import AntiphonError, HandlerFailed


class Heard:
    def __init__(self) -> None:
        self.errors: list[AntiphonError] = []
        self.listeners = Listeners(self.errors.append)
        self.events: list[object] = []

    async def later(self, event: object) -> None:
        await asyncio.sleep(0)
        self.events.append(event)

    async def ended(self) -> None:
        async with asyncio.timeout(5):
            while self.listeners._tasks:
                await asyncio.wait(self.listeners._tasks)


async def test_an_observer_hears_everything_until_it_is_taken_off() -> None:
    heard = Heard()
    remove = heard.listeners.observe(heard.events.append)
    heard.listeners.tell(1)
    remove()
    remove()
    heard.listeners.tell(2)
    assert heard.events == [1]


async def test_an_observer_that_raises_keeps_nothing_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = Heard()

    def broken(event: object) -> None:
        raise asyncio.CancelledError if event == 2 else ValueError

    heard.listeners.observe(broken)
    heard.listeners.observe(heard.events.append)
    heard.listeners.tell(1)
    heard.listeners.tell(2)
    assert heard.events == [1, 2]
    assert caplog.text.count("an observer of the chat failed") == 2


async def test_an_observer_for_which_nobody_would_wait_is_refused() -> None:
    heard = Heard()
    with pytest.raises(TypeError, match="on_message"):
        heard.listeners.observe(heard.later)  # type: ignore[arg-type]


async def test_a_plain_handler_that_raises_a_cancellation_is_reported_too() -> None:
    heard = Heard()

    def broken(event: object) -> None:
        raise asyncio.CancelledError

    heard.listeners.add("message", broken)
    heard.listeners.add("message", heard.events.append)
    heard.listeners.call("message", 1)
    assert heard.events == [1]
    assert [type(error) for error in heard.errors] == [HandlerFailed]


async def test_an_asynchronous_handler_gets_one_event_after_the_other() -> None:
    heard = Heard()
    at_once = most = 0

    async def slow(event: int) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        heard.events.append(event)
        at_once -= 1

    heard.listeners.add("message", slow)
    for number in range(10):
        heard.listeners.call("message", number)
    await heard.ended()
    assert heard.events == list(range(10))
    assert most == 1
    heard.listeners.call("message", 10)  # it begins again when it had nothing to do
    await heard.ended()
    assert heard.events[-1] == 10


async def test_what_a_plain_function_gives_to_await_is_awaited_in_order() -> None:
    heard = Heard()
    heard.listeners.add("message", lambda event: heard.later(event))
    heard.listeners.add("message", functools.partial(Heard.later, heard))
    for number in range(3):
        heard.listeners.call("message", number)
    await heard.ended()
    assert sorted(map(str, heard.events)) == ["0", "0", "1", "1", "2", "2"]
    assert heard.events[::2] == [0, 1, 2]


async def test_an_object_with_an_asynchronous_call_is_a_handler() -> None:
    heard = Heard()

    class Handler:
        async def __call__(self, event: object) -> None:
            await heard.later(event)

    heard.listeners.add("message", Handler())
    heard.listeners.call("message", 1)
    await heard.ended()
    assert heard.events == [1]


@pytest.mark.parametrize("raised", [ValueError, asyncio.CancelledError])
async def test_a_handler_that_raises_is_reported_and_called_again(
    raised: type[BaseException],
) -> None:
    heard = Heard()

    async def broken(event: int) -> None:
        if event < 2:
            raise raised
        await heard.later(event)

    heard.listeners.add("message", broken)
    for number in range(4):
        heard.listeners.call("message", number)
    await heard.ended()
    assert heard.events == [2, 3]
    assert [type(error) for error in heard.errors] == [HandlerFailed] * 2
    assert "broken" in str(heard.errors[0])


async def test_a_handler_of_errors_that_raises_is_not_told_of_itself() -> None:
    heard = Heard()

    def broken(event: object) -> None:
        raise ValueError

    heard.listeners.add("error", broken)
    heard.listeners.call("error", 1)
    assert heard.errors == []


async def test_a_handler_added_while_another_is_called_gets_the_next_event() -> None:
    heard = Heard()

    def add(event: object) -> None:
        heard.listeners.add("message", heard.events.append)

    heard.listeners.add("message", add)
    heard.listeners.call("message", 1)
    assert heard.events == []
    heard.listeners.call("message", 2)
    assert heard.events == [2]


async def test_who_is_far_behind_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 3)
    heard = Heard()
    gate = asyncio.Event()

    async def slow(event: object) -> None:
        await gate.wait()

    heard.listeners.add("message", slow)
    for number in range(3):
        heard.listeners.call("message", number)
    await heard.listeners.keep_pace()
    for number in range(3):
        heard.listeners.call("message", number)
    waiting = asyncio.ensure_future(heard.listeners.keep_pace())
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    gate.set()
    async with asyncio.timeout(5):
        await waiting
    await heard.ended()


async def test_closing_ends_what_runs_and_forgets_what_waits() -> None:
    heard = Heard()
    began = asyncio.Event()

    async def hang(event: object) -> None:
        began.set()
        await asyncio.Event().wait()

    heard.listeners.observe(heard.events.append)
    heard.listeners.add("message", lambda event: hang(event))
    for number in range(3):
        heard.listeners.call("message", number)
    await began.wait()
    await heard.listeners.close()
    assert not heard.listeners._tasks
    heard.listeners.call("message", 4)
    heard.listeners.tell(4)
    assert heard.events == []


async def test_a_handler_may_close_those_who_call_it() -> None:
    heard = Heard()

    async def end(event: object) -> None:
        await heard.listeners.close()
        heard.events.append(event)

    heard.listeners.add("message", end)
    heard.listeners.call("message", 1)
    await heard.ended()
    assert heard.events == [1]

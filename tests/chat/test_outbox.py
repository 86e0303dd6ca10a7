"""The outbox against a network that does what it likes, and against the end of the program."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from antiphon.chat import outbox
from antiphon.chat.models import Draft, Message
from antiphon.chat.outbox import RETRIES, Outbox, retry_delay
from antiphon.chat.problems import explain
from antiphon.chat.store import ChatStore
from antiphon.errors import AntiphonError, ApiError, ClientClosed, LoginFailed, SettingsError

TIMEOUT: Final = 20.0
NOON: Final = datetime(2026, 1, 2, 12, tzinfo=UTC)
LOST: Final = ApiError("No answer from the backend.")
REFUSED: Final = ApiError("The backend answered 422: too long.", code=422)


def draft(temp_id: str, conversation_id: str = "45") -> Draft:
    return Draft(
        temp_id=temp_id, conversation_id=conversation_id, content=f"I am {temp_id}", created_at=NOON
    )


class Network:
    """Stands for the way to the backend, and for a backend that makes one message of one `temp_id`.

    Attributes:
        posted: Every attempt.
        has: What the backend has, in the order it came.
        told: What was told of each: `sending`, `sent`, or the error's text.
        answers: What the next attempts meet, one each: an error, a wait, or nothing in their way.
        always: The error that a `temp_id` meets at each attempt.
        down: The error that all attempts meet.
        most_at_once: How many were under way at once in a conversation.
    """

    def __init__(self) -> None:
        self.posted: list[str] = []
        self.has: dict[str, Message] = {}
        self.told: list[tuple[str, str]] = []
        self.answers: list[Exception | asyncio.Future[None] | None] = []
        self.always: dict[str, Exception] = {}
        self.down: Exception | None = None
        self.most_at_once: dict[str, int] = {}
        self._under_way: dict[str, int] = {}
        self._changed = asyncio.Event()

    async def post(self, draft: Draft) -> Message:
        self.posted.append(draft.temp_id)
        self._changed.set()
        where = draft.conversation_id
        self._under_way[where] = now = self._under_way.get(where, 0) + 1
        self.most_at_once[where] = max(now, self.most_at_once.get(where, 0))
        try:
            answer = self.answers.pop(0) if self.answers else None
            if isinstance(answer, asyncio.Future):
                await answer
            else:
                await asyncio.sleep(0)
            if isinstance(answer, Exception):
                raise answer
            if draft.temp_id in self.always:
                raise self.always[draft.temp_id]
            if self.down is not None:
                raise self.down
            return self.take(draft)
        finally:
            self._under_way[where] -= 1

    def take(self, draft: Draft) -> Message:
        message = Message(
            id=len(self.has), chat_id=draft.conversation_id, sender_id=1, content=draft.content
        )
        return self.has.setdefault(draft.temp_id, message)

    def tell(self, draft: Draft, message: Message | None, error: AntiphonError | None) -> None:
        if message is not None:
            assert message == self.has[draft.temp_id]
            assert error is None
        self.told.append((draft.temp_id, "sent" if message else str(error or "sending")))
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def hold(self) -> asyncio.Future[None]:
        """The next answer comes when this is done."""
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers.append(held)
        return held


@pytest.fixture
async def network() -> Network:
    return Network()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """No delay is waited for; what they were made of."""
    asked: list[tuple[Any, ...]] = []

    def delay(*of: Any) -> float:
        asked.append(of)
        return 0.0

    monkeypatch.setattr(outbox, "retry_delay", delay)
    return asked


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays last longer than any test: what goes on does so for another reason."""
    monkeypatch.setattr(outbox, "retry_delay", lambda *_: 3600.0)


@contextlib.asynccontextmanager
async def boxed(network: Network, store: ChatStore | None = None) -> AsyncIterator[Outbox]:
    box = Outbox(network.post, network.tell, store)
    async with asyncio.timeout(TIMEOUT):
        yield box
        await box.close()
    assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("antiphon outbox")]


def temp_ids(drafts: tuple[Draft, ...] | list[Draft]) -> list[str]:
    return [draft.temp_id for draft in drafts]


# The delay


@pytest.mark.parametrize(
    ("retries", "number", "seconds"),
    [
        (0, 0.5, 0.2),
        (1, 0.5, 0.4),
        (2, 0.5, 0.8),
        (5, 0.5, 6.4),
        (0, 0.0, 0.15),
        (0, 1.0, 0.25),
        (5, 0.0, 4.8),
        (5, 1.0, 8.0),
        (7, 0.5, 25.6),
        (7, 1.0, 30.0),
        (60, 0.0, 30.0),
    ],
)
def test_delays_double_from_200_ms_give_or_take_a_quarter_up_to_30_s(
    retries: int, number: float, seconds: float
) -> None:
    assert retry_delay(retries, number) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(None, 0.2), (0.0, 0.2), (0.1, 0.2), (7.0, 7.0), (3600.0, 30.0), (math.inf, 30.0), (-5, 0.2)],
)
def test_the_backend_may_ask_for_a_longer_delay_and_for_no_shorter_one(
    asked: float | None, seconds: float
) -> None:
    assert retry_delay(0, 0.5, asked) == pytest.approx(seconds)


@given(st.integers(0, 1000), st.floats(0, 1), st.none() | st.floats())
def test_no_delay_is_negative_or_longer_than_30_s(
    retries: int, number: float, asked: float | None
) -> None:
    assert 0.15 <= retry_delay(retries, number, asked) <= 30.0


async def test_delays_are_made_of_the_attempts_the_jitter_and_what_the_backend_asks(
    network: Network, at_once: list[tuple[Any, ...]]
) -> None:
    numbers = iter([0.1, 0.2, 0.3, 0.4])
    box = Outbox(network.post, network.tell, rng=lambda: next(numbers))
    network.answers = [LOST, ApiError("Too many.", code=429, retry_after=3.0), LOST, None, LOST]
    await box.put(draft("a"))
    await box.put(draft("b"))
    await box.drained()
    # The next message begins at the first delay again.
    assert at_once == [(0, 0.1, None), (1, 0.2, 3.0), (2, 0.3, None), (0, 0.4, None)]
    assert list(network.has) == ["a", "b"]


# In order, one at a time


async def test_messages_are_sent_in_order_and_one_at_a_time_per_conversation(
    network: Network,
) -> None:
    async with boxed(network) as box:
        drafts = [draft(f"{c}{n}", c) for n in range(30) for c in "xyz"]
        await asyncio.gather(*map(box.put, drafts))
        await box.drained()
        assert not box.waiting()
    for c in "xyz":
        assert [t for t in network.has if t[0] == c] == [f"{c}{n}" for n in range(30)]
        assert network.most_at_once[c] == 1
    assert len(network.posted) == 90
    assert sorted(network.told) == sorted((t, "sent") for t in temp_ids(drafts))


async def test_a_conversation_that_waits_does_not_hold_up_another(network: Network) -> None:
    held = network.hold()
    async with boxed(network) as box:
        await box.put(draft("a", "1"))
        await box.put(draft("b", "1"))
        await network.until(lambda: network.posted == ["a"])
        await box.put(draft("c", "2"))
        await network.until(lambda: "c" in network.has)
        assert network.posted == ["a", "c"]
        assert temp_ids(box.waiting("1")) == ["a", "b"]
        assert box.waiting("2") == ()
        assert box.waiting("nowhere") == ()
        held.set_result(None)
        await box.drained()
    assert list(network.has) == ["c", "a", "b"]


async def test_an_outbox_with_nothing_to_send_has_no_task(network: Network) -> None:
    async with boxed(network) as box:
        before = asyncio.all_tasks()
        await box.put(draft("a"))
        assert len(asyncio.all_tasks() - before) == 1
        await box.drained()
        assert asyncio.all_tasks() == before
        assert not box._lines


# Sent again


async def test_a_message_without_an_answer_is_sent_again_under_the_same_id(
    network: Network, at_once: list[tuple[Any, ...]]
) -> None:
    async with boxed(network) as box:
        network.answers = [
            LOST,
            *(ApiError("Later.", code=code) for code in (302, 408, 425, 429, 503)),
        ]
        await box.put(draft("a"))
        await box.drained()
    assert network.posted == ["a"] * 7
    assert network.told == [("a", "sent")]


async def test_a_message_whose_answer_was_lost_is_still_one_message(
    network: Network, at_once: list[tuple[Any, ...]]
) -> None:
    async def post(draft: Draft) -> Message:
        message = await network.post(draft)
        if network.posted.count(draft.temp_id) < 3:
            raise LOST
        return message

    box = Outbox(post, network.tell)
    for name in "abc":
        await box.put(draft(name))
    await box.drained()
    assert network.posted == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert list(network.has) == ["a", "b", "c"]
    assert network.told == [("a", "sent"), ("b", "sent"), ("c", "sent")]


async def test_after_six_retries_it_has_failed_and_with_it_what_waits_behind_it(
    network: Network, at_once: list[tuple[Any, ...]]
) -> None:
    async with boxed(network) as box:
        network.down = LOST
        for name in "abc":
            await box.put(draft(name))
        await box.drained()
        assert network.posted == ["a"] * (1 + RETRIES)
        assert network.told == [(name, str(LOST)) for name in "abc"]
        assert [d.failure for d in box.waiting()] == [explain(LOST).explanation] * 3
        assert not any(d.refused for d in box.waiting())

        # Again all the retries, as long as it is down.
        network.told.clear()
        box.again()
        assert network.told == [(name, "sending") for name in "abc"]
        assert not any(d.failure for d in box.waiting())
        await box.drained()
        assert network.posted == ["a"] * 2 * (1 + RETRIES)

        network.down = None
        box.again()
        await box.drained()
        assert list(network.has) == ["a", "b", "c"]
        assert box.waiting() == ()


async def test_a_new_message_after_a_failure_starts_with_the_one_that_failed_first(
    network: Network, at_once: list[tuple[Any, ...]]
) -> None:
    async with boxed(network) as box:
        network.down = LOST
        await box.put(draft("a"))
        await box.drained()
        await box.put(draft("b"))
        await box.drained()
        # It starts over, with all its retries.
        assert network.posted == ["a"] * 2 * (1 + RETRIES)
        network.down = None
        network.told.clear()
        await box.put(draft("c"))
        await box.drained()
    assert list(network.has) == ["a", "b", "c"]
    assert network.told[:2] == [("a", "sending"), ("b", "sending")]


@pytest.mark.parametrize("code", [401, 419])
async def test_without_a_token_nothing_is_tried_twice(
    network: Network, never: None, code: int
) -> None:
    async with boxed(network) as box:
        network.down = LoginFailed("The token is not accepted. Log in again.", code=code)
        await box.put(draft("a"))
        await box.put(draft("b"))
        await box.drained()
        assert network.posted == ["a"]
        assert network.told == [(name, str(network.down)) for name in "ab"]
        network.down = None
        box.again()
        await box.drained()
    assert list(network.has) == ["a", "b"]


async def test_a_network_that_comes_back_cuts_the_delay_short_and_counts_anew(
    network: Network, never: None
) -> None:
    async with boxed(network) as box:
        network.down = LOST
        await box.put(draft("a"))
        for attempt in range(1, 3 * RETRIES):
            await network.until(lambda n=attempt: len(network.posted) == n)  # type: ignore[misc]
            box.again()
        assert not any(error == str(LOST) for _, error in network.told)
        network.down = None
        box.again()
        await box.drained()
    assert list(network.has) == ["a"]


async def test_a_network_that_comes_back_once_cuts_one_delay_short(
    network: Network, never: None
) -> None:
    async with boxed(network) as box:
        network.always["a"] = LOST
        await box.put(draft("a"))
        await network.until(lambda: network.posted)
        box.again()
        # Another conversation is sent meanwhile, so there is time enough for more.
        for n in range(20):
            await box.put(draft(f"other {n}", "46"))
        await network.until(lambda: "other 19" in network.has)
        assert network.posted.count("a") == 2


async def test_a_new_message_does_not_cut_the_delay_short(network: Network, never: None) -> None:
    async with boxed(network) as box:
        network.answers = [LOST]
        await box.put(draft("a"))
        await network.until(lambda: network.posted)
        for name in "bcd":
            await box.put(draft(name))
        # Another conversation is sent while this one waits, so there was time enough.
        for n in range(20):
            await box.put(draft(f"other {n}", "46"))
        await network.until(lambda: "other 19" in network.has)
        assert network.posted.count("a") == 1
        box.again()
        await box.drained()
        assert [t for t in network.has if len(t) == 1] == ["a", "b", "c", "d"]


# Refused


async def test_a_refused_message_fails_for_good_and_the_next_one_goes(
    network: Network, never: None
) -> None:
    async with boxed(network) as box:
        network.always["b"] = REFUSED
        for name in "abc":
            await box.put(draft(name))
        await box.drained()
        assert network.told == [("a", "sent"), ("b", str(REFUSED)), ("c", "sent")]
        (kept,) = box.waiting()
        assert (kept.temp_id, kept.failure, kept.refused) == (
            "b",
            explain(REFUSED).explanation,
            True,
        )

        # Neither the network nor a new message sends it again; a person does.
        box.again()
        await box.put(draft("d"))
        await box.drained()
        assert network.posted == ["a", "b", "c", "d"]
        network.told.clear()
        await box.retry("b")
        await box.drained()
        assert network.told == [("b", "sending"), ("b", str(REFUSED))]
        network.always.clear()
        await box.retry("b")
        await box.drained()
    assert list(network.has) == ["a", "c", "d", "b"]


@pytest.mark.parametrize("code", [400, 403, 404, 409, 413, 422])
async def test_a_refusal_is_never_tried_twice(network: Network, never: None, code: int) -> None:
    async with boxed(network) as box:
        network.answers = [ApiError("No.", code=code)]
        await box.put(draft("a"))
        await box.drained()
        assert network.posted == ["a"]
        assert box.waiting()[0].refused


async def test_retrying_one_that_failed_sends_what_failed_with_it_in_order(
    network: Network, at_once: list[tuple[Any, ...]]
) -> None:
    async with boxed(network) as box:
        network.down = LOST
        for name in "abc":
            await box.put(draft(name))
        await box.put(draft("elsewhere", "46"))
        await box.drained()
        network.down = None
        await box.retry("b")
        await box.drained()
        assert list(network.has) == ["a", "b", "c"]
        assert temp_ids(box.waiting()) == ["elsewhere"]


async def test_retrying_what_is_not_there_or_has_not_failed_does_nothing(
    network: Network, never: None
) -> None:
    async with boxed(network) as box:
        network.answers = [LOST]
        await box.put(draft("a"))
        await network.until(lambda: network.posted)
        await box.retry("a")
        await box.retry("nobody's")
        await box.put(draft("b", "46"))
        await network.until(lambda: "b" in network.has)
        assert network.posted == ["a", "b"]
        assert network.told == [("b", "sent")]


async def test_a_fault_of_the_program_fails_one_message_and_is_logged(
    network: Network, never: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with boxed(network) as box:
        network.always["a"] = KeyError("what")
        await box.put(draft("a"))
        await box.put(draft("b"))
        await box.drained()
        assert network.told == [
            ("a", "The program failed to send the message (KeyError)."),
            ("b", "sent"),
        ]
        assert box.waiting()[0].refused
    assert "the message a cannot be sent" in caplog.text


async def test_an_error_without_words_is_still_a_failure(network: Network) -> None:
    async with boxed(network) as box:
        network.always["a"] = ApiError("", code=422)
        await box.put(draft("a"))
        await box.drained()
        assert box.waiting()[0].failure != ""
        assert network.posted == ["a"]


# Discarded


async def test_a_message_is_discarded_unless_it_is_being_sent_at_this_moment(
    network: Network,
) -> None:
    held = network.hold()
    async with boxed(network) as box:
        for name in "abc":
            await box.put(draft(name))
        await network.until(lambda: network.posted)
        assert not await box.discard("a")
        assert await box.discard("b")
        assert not await box.discard("b")
        assert not await box.discard("nobody's")
        held.set_result(None)
        await box.drained()
        assert not await box.discard("a")
    assert list(network.has) == ["a", "c"]


async def test_discarding_the_one_that_waits_for_its_retry_lets_the_next_one_go(
    network: Network, never: None
) -> None:
    async with boxed(network) as box:
        network.always["a"] = LOST
        await box.put(draft("a"))
        await box.put(draft("b"))
        await network.until(lambda: network.posted)
        discarded = False
        while not discarded:  # until its answer is there
            discarded = await box.discard("a")
            await asyncio.sleep(0)
        await box.drained()
        assert network.posted == ["a", "b"]
        assert network.told == [("b", "sent")]


async def test_a_failed_message_is_discarded_and_leaves_nothing_behind(network: Network) -> None:
    async with boxed(network) as box:
        network.always["a"] = REFUSED
        await box.put(draft("a"))
        await box.drained()
        assert await box.discard("a")
        assert box.waiting() == ()
        assert not box._lines


# Who is told


async def test_one_who_is_told_and_raises_does_not_stop_the_sending(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    def told(draft: Draft, message: Message | None, error: AntiphonError | None) -> None:
        raise RuntimeError("the screen is gone")

    box = Outbox(network.post, told)
    network.always["b"] = REFUSED
    for name in "abc":
        await box.put(draft(name))
    await box.drained()
    assert list(network.has) == ["a", "c"]
    assert caplog.text.count("RuntimeError: the screen is gone") == 3
    await box.close()


async def test_one_who_is_told_of_a_failure_may_send_it_again_at_once(
    network: Network, at_once: list[tuple[Any, ...]]
) -> None:
    def told(draft: Draft, message: Message | None, error: AntiphonError | None) -> None:
        network.tell(draft, message, error)
        if error is not None:
            network.down = None
            box.again()

    box = Outbox(network.post, told)
    network.down = LOST
    for name in "abc":
        await box.put(draft(name))
    await box.drained()
    assert list(network.has) == ["a", "b", "c"]
    # Each was told its end last, and nobody that it failed after it was under way again.
    assert [what for _, what in network.told] == [str(LOST), *["sending"] * 3, *["sent"] * 3]
    await box.close()


# Kept


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


async def test_a_message_is_kept_before_it_is_put_and_gone_when_it_is_sent(
    network: Network, path: Path
) -> None:
    held = network.hold()
    async with ChatStore(path, "me") as store, boxed(network, store) as box:
        await box.put(draft("a"))
        await box.put(draft("b"))
        assert temp_ids(await store.drafts()) == ["a", "b"]
        held.set_result(None)
        await box.drained()
        assert await store.drafts() == []


async def test_many_put_at_once_are_kept_and_sent_in_the_order_they_were_put(
    network: Network, path: Path
) -> None:
    held = network.hold()
    drafts = [draft(str(n)) for n in range(100)]
    async with ChatStore(path, "me") as store, boxed(network, store) as box:
        await asyncio.gather(*map(box.put, drafts))
        assert await store.drafts() == drafts
        held.set_result(None)
        await box.drained()
    assert list(network.has) == temp_ids(drafts)


async def test_a_message_that_cannot_be_kept_is_not_sent_either(
    network: Network, path: Path
) -> None:
    store = ChatStore(path, "me")  # not open, so it keeps nothing
    async with boxed(network, store) as box:
        with pytest.raises(SettingsError):
            await box.put(draft("a"))
        assert box.waiting() == ()
        with pytest.raises(SettingsError):
            await box.load()
    async with store, boxed(network, store) as box:
        with pytest.raises(ValueError, match="surrogates"):
            await box.put(draft("\ud83d"))
        await box.put(draft("b"))
        await box.drained()
    assert network.posted == ["b"]


async def test_a_store_that_closes_first_does_not_stop_the_sending(
    network: Network, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = network.hold()
    network.always["b"] = REFUSED
    async with boxed(network) as _:
        store = ChatStore(path, "me")
        await store.open()
        box = Outbox(network.post, network.tell, store)
        for name in "abc":
            await box.put(draft(name))
        await store.close()
        held.set_result(None)
        await box.drained()
        assert list(network.has) == ["a", "c"]
        await box.close()
    assert "message a stays in the store" in caplog.text
    assert "what became of message b is not kept" in caplog.text


async def test_closing_while_a_message_is_under_way_keeps_it(network: Network, path: Path) -> None:
    network.hold()
    async with ChatStore(path, "me") as store:
        async with boxed(network, store) as box:
            await box.put(draft("a"))
            await box.put(draft("b"))
            await network.until(lambda: network.posted)
        assert network.told == []
        with pytest.raises(ClientClosed, match="not kept"):
            await box.put(draft("c"))
        box.again()
        await box.drained()
        assert network.posted == ["a"]
    async with ChatStore(path, "me") as store, boxed(network, store) as box:
        assert temp_ids(await box.load()) == ["a", "b"]
        assert network.posted == ["a"]  # nothing is sent before the network is there
        box.again()
        await box.drained()
    assert network.posted == ["a", "a", "b"]
    assert list(network.has) == ["a", "b"]


async def test_a_message_put_by_one_who_is_cancelled_meanwhile_is_sent_and_let_go_of(
    network: Network, path: Path
) -> None:
    async with ChatStore(path, "me") as store, boxed(network, store) as box:
        putting = asyncio.create_task(box.put(draft("a")))
        await asyncio.sleep(0)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        await box.put(draft("b"))
        await box.drained()
        assert list(network.has) == ["a", "b"]
        assert await store.drafts() == []


async def test_failed_messages_come_back_after_a_restart_with_what_made_them_fail(
    network: Network, path: Path, at_once: list[tuple[Any, ...]]
) -> None:
    network.always["a"] = REFUSED
    network.always["b"] = LOST
    async with ChatStore(path, "me") as store, boxed(network, store) as box:
        for name in "abc":
            await box.put(draft(name))
        await box.drained()
        kept = box.waiting()
    async with ChatStore(path, "me") as store, boxed(network, store) as box:
        network.always.clear()
        network.told.clear()
        network.posted.clear()
        loaded = await box.load()
        assert tuple(loaded) == kept
        assert [d.failure for d in loaded] == [
            explain(error).explanation for error in (REFUSED, LOST, LOST)
        ]
        assert [d.refused for d in loaded] == [True, False, False]
        box.again()
        await box.drained()
        assert network.posted == ["b", "c"]
        assert temp_ids(await store.drafts()) == ["a"]
    async with ChatStore(path, "me") as store, boxed(network, store) as box:
        await box.load()
        await box.retry("a")
        await box.drained()
        assert await store.drafts() == []
    assert list(network.has) == ["b", "c", "a"]


async def test_a_persons_retry_holds_after_a_restart(network: Network, path: Path) -> None:
    network.always["a"] = REFUSED
    async with ChatStore(path, "me") as store, boxed(network, store) as box:
        await box.put(draft("a"))
        await box.drained()
        network.hold()
        await box.retry("a")
        assert await store.drafts() == [draft("a")]
    network.always.clear()
    network.answers.clear()
    async with ChatStore(path, "me") as store, boxed(network, store) as box:
        await box.load()
        box.again()
        await box.drained()
    assert list(network.has) == ["a"]


async def test_what_is_discarded_while_failures_are_kept_does_not_come_back(
    network: Network, path: Path, at_once: list[tuple[Any, ...]]
) -> None:
    network.down = LOST
    held = network.hold()
    async with ChatStore(path, "me") as store, boxed(network, store) as box:
        for n in range(20):
            await box.put(draft(str(n)))
        held.set_result(None)
        await network.until(lambda: len(network.told) == 20)
        # The first is being kept as failed at this moment; the others' turn comes.
        for n in range(10, 20):
            assert await box.discard(str(n))
        await box.drained()
        assert temp_ids(await store.drafts()) == [str(n) for n in range(10)]
        assert all(d.failure for d in await store.drafts())
        assert await box.discard("3")
        assert len(await store.drafts()) == 9


# The end of the program


class Backend:
    """Counts by `temp_id`, makes one message of one, and loses some answers.

    Attributes:
        has: Per conversation, the contents by `temp_id` in the order they came.
        arrived: How often a message has arrived, twice the same or not.
        twice: How many were sent twice, as their answer was lost.
        come_to: Called when a message has `arrived`, and when it is `taken`.
    """

    def __init__(self) -> None:
        self.has: dict[str, dict[str, str]] = {}
        self.arrived = self.twice = 0
        self.come_to: Callable[[str], None] = lambda moment: None

    async def post(self, request: web.Request) -> web.Response:
        conversation = self.has.setdefault(request.match_info["id"], {})
        body = await request.json()
        self.come_to("arrived")
        self.arrived += 1
        is_new = body["temp_id"] not in conversation
        self.twice += not is_new
        assert conversation.setdefault(body["temp_id"], body["content"]) == body["content"]
        self.come_to("taken")
        if is_new and self.arrived % 7 == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(self.arrived)


@contextlib.asynccontextmanager
async def serving(post: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{id}", post)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_killed_program_loses_no_message_and_sends_none_twice(path: Path) -> None:
    conversations, messages = 3, 150
    total = conversations * messages
    backend = Backend()
    safe: list[str] = []  # what the program has said is kept
    found: list[int] = []  # how many its file had at each start

    async def run(url: str, *, kill_at: int = total + 1, when: str = "") -> int:
        """Run the program until it ends, or is killed when so many are safe; its status."""
        arguments = (path, url, conversations, messages, len(safe))
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chat.outbox_program", *map(str, arguments)),
            stdout=asyncio.subprocess.PIPE,
        )

        def come_to(moment: str) -> None:
            if len(safe) >= kill_at and when == moment and program.returncode is None:
                program.kill()

        backend.come_to = come_to
        assert program.stdout is not None
        try:
            async for line in program.stdout:
                word, *names = line.decode().split()
                if word == "kept":
                    found.append(len(names))
                elif word == "put":
                    safe.extend(names)
                    come_to("put")
            return await program.wait()
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()

    async with asyncio.timeout(250), serving(backend.post) as url:
        # In the middle of writing, and with a message under way: not yet there, and there.
        moments = ["put", "arrived", "taken"] * 2
        for number, when in enumerate(moments):
            assert await run(url, kill_at=60 * (1 + number), when=when) == -9
        assert await run(url) == 0

    assert len(safe) == len(set(safe)) == total
    for conversation in range(conversations):
        sent = backend.has[str(conversation)]
        assert list(sent) == [f"{conversation}-{turn}" for turn in range(messages)]
        assert list(sent.values()) == [
            f"message {turn} of {conversation}" for turn in range(messages)
        ]
    # It was what it looks like: messages were left over each time, and some were sent twice.
    assert found[0] == 0
    assert all(found[1:])
    assert len(found) == 1 + len(moments)
    assert backend.twice > total // 20

"""What webhooks tell, on a loop that does not wait; and how they are sent, to a real receiver."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
import selectors
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, ParamSpec

import msgspec
import pusher
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from antiphon.http import MAX_ANSWER, Answer, AnswerTooLarge, HttpClient, NoAnswer
from antiphon.publisher import Publisher, WebhookEvent
from antiphon.server.webhooks import Webhooks
from antiphon.settings import WEBHOOK_EVENTS, App, Settings, WebhookEndpoint
from tests.client.endpoint import Endpoint as Receiver
from tests.interop.node import Node

from .wire import until

P = ParamSpec("P")

SECRET = "never-print-this"
URL = "http://127.0.0.1:1/webhooks"
NEWS = {"name": "channel_occupied", "channel": "news"}


# A loop that does not wait


class Hasty(asyncio.SelectorEventLoop):
    """A loop whose clock jumps ahead wherever it would wait: time costs nothing, and is exact."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now

    def timers(self) -> int:
        """How many timers there are, those not counted that are cancelled."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: Hasty) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing will ever happen"
        self._loop.now += timeout
        return super().select(0)


def hastily(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on such a loop, and see that it leaves nothing there."""

    async def run(*args: P.args, **kwargs: P.kwargs) -> None:
        await test(*args, **kwargs)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert loop().timers() == 0

    @functools.wraps(test)
    def run_hastily(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=Hasty) as runner:
            runner.run(run(*args, **kwargs))

    return run_hastily


def loop() -> Hasty:
    found = asyncio.get_running_loop()
    assert isinstance(found, Hasty)
    return found


class Backend(HttpClient):
    """Takes requests where they would be sent.

    Attributes:
        asked: Each with its time, url and body.
        answers: How the next ones are answered, where not with 200.
        refuses: The address whose requests are answered with 500.
        delay: Seconds that an answer takes.
        open: While it is not set, nothing is answered.
    """

    def __init__(self, *answers: int | NoAnswer) -> None:
        super().__init__(10)
        self.asked: list[tuple[float, str, bytes]] = []
        self.answers = list(answers)
        self.refuses = ""
        self.delay = 0.0
        self.open = asyncio.Event()
        self.open.set()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        assert body is not None
        self.asked.append((asyncio.get_running_loop().time(), url, body))
        await self.open.wait()
        await asyncio.sleep(self.delay)
        if url == self.refuses:
            return Answer(500, {}, b"")
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, NoAnswer):
            raise answer
        return Answer(answer, {}, b"")

    def requests(self, url: str = URL) -> list[list[dict[str, Any]]]:
        """The events of each request to an address."""
        return [json.loads(body)["events"] for _, to, body in self.asked if to == url]

    def told(self, url: str = URL) -> list[dict[str, Any]]:
        """All events that came to an address, in order."""
        return list(itertools.chain.from_iterable(self.requests(url)))

    def times(self) -> list[float]:
        """When the requests came, after the first."""
        return [round(at - self.asked[0][0], 3) for at, _, _ in self.asked]


def app_with(*endpoints: WebhookEndpoint) -> App:
    return App(id="1", key="k", secret=SECRET, webhooks=endpoints)


def telling(http: HttpClient, *, rng: float = 0, **endpoint: Any) -> Webhooks:
    """Webhooks with one endpoint."""
    return Webhooks(app_with(WebhookEndpoint(**{"url": URL, **endpoint})), http, rng=lambda: rng)


# What is told


@hastily
async def test_each_kind_is_told_in_the_words_of_pusher() -> None:
    backend = Backend()
    webhooks = telling(backend)
    webhooks.occupied("presence-room")
    webhooks.member_added("presence-room", "ali")
    webhooks.client_event("presence-room", "client-typing", '{"a":"дело"}', "1.2", "ali")
    webhooks.client_event("private-room", "client-typing", "", "1.2")
    webhooks.cache_miss("cache-news")
    webhooks.subscription_count("news", 2)
    webhooks.member_removed("presence-room", "ali")
    webhooks.vacated("presence-room")
    await asyncio.sleep(4)
    typing = {"name": "client_event", "event": "client-typing", "socket_id": "1.2"}
    assert backend.told() == [
        {"name": "channel_occupied", "channel": "presence-room"},
        {"name": "member_added", "channel": "presence-room", "user_id": "ali"},
        {**typing, "channel": "presence-room", "data": '{"a":"дело"}', "user_id": "ali"},
        {**typing, "channel": "private-room", "data": ""},
        {"name": "cache_miss", "channel": "cache-news"},
        {"name": "subscription_count", "channel": "news", "subscription_count": 2},
        {"name": "member_removed", "channel": "presence-room", "user_id": "ali"},
        {"name": "channel_vacated", "channel": "presence-room"},
    ]
    assert {event["name"] for event in backend.told()} == set(WEBHOOK_EVENTS)
    await webhooks.close()


def tell_everything(webhooks: Webhooks) -> None:
    for channel in ("presence-room", "cache-news"):
        webhooks.occupied(channel)
        webhooks.member_added(channel, "ali")
        webhooks.client_event(channel, "client-typing", "1", "1.2")
        webhooks.cache_miss(channel)
        webhooks.subscription_count(channel, 2)
        webhooks.subscription_count(channel, 200)
        webhooks.subscription_count(channel, 300)
        webhooks.member_removed(channel, "ali")
        webhooks.vacated(channel)


@pytest.mark.parametrize("kind", WEBHOOK_EVENTS)
@hastily
async def test_an_endpoint_is_told_the_kinds_it_wants(kind: str) -> None:
    backend = Backend()
    webhooks = telling(backend, events=(kind,))
    tell_everything(webhooks)
    await webhooks.close()
    assert {event["name"] for event in backend.told()} == {kind}


@pytest.mark.parametrize(
    ("globs", "channels"),
    [
        ((), {"presence-room", "cache-news"}),
        (("presence-*",), {"presence-room"}),
        (("nothing", "cache-*"), {"cache-news"}),
        (("Cache-*",), set()),
    ],
)
@hastily
async def test_an_endpoint_is_told_of_the_channels_it_wants(
    globs: tuple[str, ...], channels: set[str]
) -> None:
    backend = Backend()
    webhooks = telling(backend, channels=globs)
    tell_everything(webhooks)
    await webhooks.close()
    assert {event["channel"] for event in backend.told()} == channels


@hastily
async def test_each_endpoint_is_told_what_it_wants() -> None:
    backend = Backend()
    comings = WebhookEndpoint(url=URL + "/comings", events=("member_added",))
    rooms = WebhookEndpoint(url=URL + "/rooms", channels=("presence-*",))
    webhooks = Webhooks(app_with(comings, rooms), backend)
    webhooks.member_added("presence-room", "ali")
    webhooks.occupied("presence-hall")
    webhooks.member_added("cache-news", "ali")
    await webhooks.close()
    assert [event["channel"] for event in backend.told(comings.url)] == [
        "presence-room",
        "cache-news",
    ]
    assert [event["channel"] for event in backend.told(rooms.url)] == [
        "presence-room",
        "presence-hall",
    ]
    assert webhooks.sent == 4


@hastily
async def test_nothing_happens_where_nobody_is_told_anything() -> None:
    webhooks = Webhooks(app_with(), Backend())
    tell_everything(webhooks)
    assert loop().timers() == 0
    assert webhooks.queued == 0
    await webhooks.close()


# Who comes back


@hastily
async def test_who_comes_back_within_three_seconds_has_never_gone() -> None:
    backend = Backend()
    webhooks = telling(backend)
    webhooks.vacated("news")
    webhooks.member_removed("presence-room", "ali")
    await asyncio.sleep(2.9)
    webhooks.occupied("news")
    webhooks.member_added("presence-room", "ali")
    await asyncio.sleep(10)
    await webhooks.close()
    assert backend.told() == []


@hastily
async def test_who_comes_back_later_has_gone_and_come() -> None:
    backend = Backend()
    webhooks = telling(backend)
    webhooks.vacated("news")
    webhooks.member_removed("presence-room", "ali")
    await asyncio.sleep(3.1)
    webhooks.occupied("news")
    webhooks.member_added("presence-room", "ali")
    await webhooks.close()
    assert [event["name"] for event in backend.told()] == [
        "channel_vacated",
        "member_removed",
        "channel_occupied",
        "member_added",
    ]


@hastily
async def test_only_the_same_member_of_the_same_channel_comes_back() -> None:
    backend = Backend()
    webhooks = telling(backend)
    webhooks.member_removed("presence-room", "ali")
    webhooks.member_added("presence-room", "john")
    webhooks.member_added("presence-hall", "ali")
    webhooks.vacated("presence-room")
    webhooks.occupied("presence-hall")
    await webhooks.close()
    assert len(backend.told()) == 5


@pytest.mark.parametrize("kind", ["channel_occupied", "channel_vacated"])
@hastily
async def test_who_wants_one_of_two_kinds_is_spared_those_who_come_back_too(kind: str) -> None:
    backend = Backend()
    webhooks = telling(backend, events=(kind,))
    webhooks.vacated("news")
    webhooks.occupied("news")
    await webhooks.close()
    assert backend.told() == []


@hastily
async def test_who_waits_is_told_in_order_though_others_came_back() -> None:
    backend = Backend()
    webhooks = telling(backend)
    for number in range(10):
        webhooks.vacated(f"c{number}")
        await asyncio.sleep(0.1)
    webhooks.occupied("c0")
    webhooks.occupied("c5")
    webhooks.vacated("c7")  # goes on waiting from when it was vacated
    await asyncio.sleep(4)
    assert [event["channel"] for event in backend.told()] == [
        f"c{number}" for number in (1, 2, 3, 4, 6, 7, 8, 9)
    ]
    await webhooks.close()


@hastily
async def test_a_hundred_thousand_who_wait_have_one_timer_and_none_is_lost() -> None:
    webhooks = telling(Backend())
    for number in range(100_000):
        webhooks.vacated(str(number))
    assert loop().timers() == 1
    for number in range(0, 100_000, 2):
        webhooks.occupied(str(number))
    await asyncio.sleep(10)
    assert (webhooks.sent, webhooks.dropped) == (50_000, 0)
    await webhooks.close()


@given(
    st.lists(st.sampled_from(["a", "b", "c"]) | st.sampled_from([0.01, 1.0, 2.9, 3.2]), max_size=40)
)
def test_comings_and_goings_alternate_and_end_as_things_are(steps: list[str | float]) -> None:
    @hastily
    async def come_and_go() -> None:
        backend = Backend()
        urls = {kinds: URL + "/" + "-".join(kinds) for kinds in KINDS}
        endpoints = (WebhookEndpoint(url=urls[kinds], events=kinds) for kinds in KINDS)
        webhooks = Webhooks(app_with(*endpoints), backend)
        there: set[str] = set()
        for step in steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif step in there:
                there.remove(step)
                webhooks.member_removed("presence-room", step)
                webhooks.vacated(step)
            else:
                there.add(step)
                webhooks.occupied(step)
                webhooks.member_added("presence-room", step)
        await webhooks.close()
        told = backend.told(urls[KINDS[0]])
        for name in ("a", "b", "c"):
            for come, go, words in (
                ("channel_occupied", "channel_vacated", {"channel": name}),
                ("member_added", "member_removed", {"user_id": name}),
            ):
                mine = [
                    event["name"]
                    for event in told
                    if event["name"] in (come, go) and words.items() <= event.items()
                ]
                assert mine == list(itertools.islice(itertools.cycle((come, go)), len(mine)))
                assert len(mine) % 2 == (name in there)
        for kinds in KINDS:
            assert backend.told(urls[kinds]) == [event for event in told if event["name"] in kinds]

    come_and_go()


KINDS: tuple[tuple[str, ...], ...] = (
    ("channel_occupied", "channel_vacated", "member_added", "member_removed"),
    ("channel_occupied",),
    ("channel_vacated", "member_added"),
)


@hastily
async def test_one_of_many_nodes_tells_what_all_agree_on_and_not_what_it_sees() -> None:
    backend = Backend()
    webhooks = telling(backend)
    webhooks.is_one_of_many = True
    webhooks.occupied("presence-a")
    webhooks.member_added("presence-a", "1")
    webhooks.subscription_count("news", 1)
    webhooks.member_removed("presence-a", "1")
    webhooks.vacated("presence-a")
    await asyncio.sleep(4)
    assert backend.told() == []
    webhooks.tell_change("member_removed", "presence-a", "1")
    webhooks.tell_change("channel_vacated", "presence-a")
    webhooks.tell_count("news", 7)
    webhooks.cache_miss("cache-a")  # a node's own matter
    await asyncio.sleep(0.1)
    assert backend.told() == [
        {"name": "member_removed", "channel": "presence-a", "user_id": "1"},
        {"name": "channel_vacated", "channel": "presence-a"},
        {"name": "subscription_count", "channel": "news", "subscription_count": 7},
        {"name": "cache_miss", "channel": "cache-a"},
    ]
    await webhooks.close()


# What would be told too often


@hastily
async def test_a_channels_cache_miss_is_told_once_in_ten_seconds() -> None:
    backend = Backend()
    webhooks = telling(backend)
    for _ in range(99):
        webhooks.cache_miss("cache-news")
        webhooks.cache_miss("cache-sport")
        await asyncio.sleep(0.1)
    assert [event["channel"] for event in backend.told()] == ["cache-news", "cache-sport"]
    await asyncio.sleep(0.3)
    webhooks.cache_miss("cache-news")
    await webhooks.close()
    assert len(backend.told()) == 3


@hastily
async def test_cache_misses_are_forgotten_once_they_may_be_told_again() -> None:
    webhooks = telling(Backend())
    for number in range(1_000):
        webhooks.cache_miss(f"cache-{number}")
    await asyncio.sleep(11)
    assert not webhooks._missed._due
    assert loop().timers() == 0
    await webhooks.close()


@hastily
async def test_each_count_of_up_to_a_hundred_subscribers_is_told() -> None:
    backend = Backend()
    webhooks = telling(backend)
    for count in range(101):
        webhooks.subscription_count("news", count)
    await webhooks.close()
    assert [event["subscription_count"] for event in backend.told()] == list(range(101))


@hastily
async def test_the_count_of_a_large_channel_is_told_every_five_seconds() -> None:
    backend = Backend()
    webhooks = telling(backend)
    for count in range(101, 221):
        webhooks.subscription_count("news", count)
        await asyncio.sleep(0.1)
    counts = [event["subscription_count"] for event in backend.told()]
    assert counts == pytest.approx([101, 151, 201], abs=2)
    assert backend.times() == pytest.approx([0, 5, 10], abs=0.2)
    await asyncio.sleep(20)
    assert backend.told()[3:] == [
        {"name": "subscription_count", "channel": "news", "subscription_count": 220}
    ]
    assert not webhooks._newest
    assert not webhooks._counted._due
    await webhooks.close()


@hastily
async def test_a_channel_that_becomes_small_is_told_at_once_and_not_what_it_was() -> None:
    backend = Backend()
    webhooks = telling(backend)
    for count in (101, 102, 100, 103, 99):
        webhooks.subscription_count("news", count)
    webhooks.subscription_count("sport", 500)
    await asyncio.sleep(20)
    assert [event["subscription_count"] for event in backend.told()] == [101, 100, 99, 500]
    await webhooks.close()


# Batches


@hastily
async def test_the_events_of_fifty_milliseconds_go_in_one_request() -> None:
    backend = Backend()
    webhooks = telling(backend)
    for number in range(8):
        webhooks.occupied(f"c{number}")
        await asyncio.sleep(0.015)
    await webhooks.close()
    assert [len(events) for events in backend.requests()] == [4, 4]


@hastily
async def test_a_request_holds_a_thousand_events() -> None:
    backend = Backend()
    webhooks = telling(backend)
    for number in range(2_500):
        webhooks.occupied(f"c{number}")
    assert webhooks.queued == 2_500
    await asyncio.sleep(1)
    assert [len(events) for events in backend.requests()] == [1_000, 1_000, 500]
    assert [event["channel"] for event in backend.told()] == [f"c{n}" for n in range(2_500)]
    assert (webhooks.queued, webhooks.sent) == (0, 2_500)
    await webhooks.close()


@hastily
async def test_a_request_holds_a_quarter_of_a_mebibyte_or_a_single_event() -> None:
    backend = Backend()
    webhooks = telling(backend)
    for size in (100_000, 100_000, 100_000, 300_000, 10):
        webhooks.client_event("private-room", "client-e", "x" * size, "1.2")
    await asyncio.sleep(1)
    assert [len(events) for events in backend.requests()] == [2, 1, 1, 1]
    await webhooks.close()


@hastily
async def test_a_batch_has_the_time_at_which_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 1_700_000_000.5

        def time(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr("antiphon.server.endpoint.time", clock)
    backend = Backend(500, 500)
    webhooks = telling(backend)
    webhooks.occupied("news")
    await asyncio.sleep(0.1)
    clock.now += 60
    await asyncio.sleep(10)
    bodies = {body for _, _, body in backend.asked}
    assert len(backend.asked) == 3
    assert [json.loads(body) for body in bodies] == [
        {"time_ms": 1_700_000_000_500, "events": [NEWS]}
    ]
    await webhooks.close()


# Once more


@hastily
async def test_a_batch_is_tried_again_ever_later_for_five_minutes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = Backend(*[500] * 9)
    webhooks = telling(backend, rng=1)
    webhooks.occupied("news")
    await asyncio.sleep(1)
    webhooks.occupied("sport")
    await asyncio.sleep(400)
    assert backend.times()[:9] == [0, 2, 6, 14, 30, 62, 122, 182, 242]
    assert [event["channel"] for event in backend.told()] == ["news"] * 9 + ["sport"]
    assert (webhooks.failed, webhooks.sent, webhooks.queued) == (1, 1, 0)
    assert [record.message for record in caplog.records] == [
        "webhook 1 of app 1 (127.0.0.1): events given up: 1; it answered 500"
    ]
    await webhooks.close()


@hastily
async def test_no_two_tries_are_less_than_a_second_or_more_than_a_minute_apart() -> None:
    for rng in (0, 0.5, 0.999):
        backend = Backend(*[503] * 400)
        webhooks = telling(backend, rng=rng)
        webhooks.occupied("news")
        await asyncio.sleep(400)
        times = backend.times()
        assert all(1 <= b - a <= 60 for a, b in itertools.pairwise(times))
        assert 230 < times[-1] <= 300
        await webhooks.close()


@pytest.mark.parametrize("status", [100, 199, 300, 301, 304, 307, 400, 404, 410, 429, 500, 503])
@hastily
async def test_anything_but_2xx_is_a_refusal(status: int) -> None:
    backend = Backend(status)
    webhooks = telling(backend)
    webhooks.occupied("news")
    await asyncio.sleep(5)
    assert backend.told() == [NEWS, NEWS]
    assert webhooks.sent == 1
    await webhooks.close()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@hastily
async def test_2xx_is_an_agreement_however_long_the_answer_is(status: int) -> None:
    backend = Backend(status, AnswerTooLarge(status, MAX_ANSWER))
    webhooks = telling(backend)
    webhooks.occupied("news")
    await asyncio.sleep(1)
    webhooks.occupied("news")
    await asyncio.sleep(5)
    assert backend.told() == [NEWS, NEWS]
    assert webhooks.sent == 2
    await webhooks.close()


@hastily
async def test_an_answer_is_waited_for_ten_seconds() -> None:
    backend = Backend()
    backend.open.clear()
    webhooks = telling(backend)
    webhooks.occupied("news")
    await asyncio.sleep(10.5)
    backend.open.set()
    await asyncio.sleep(5)
    assert backend.times() == [0, 11]
    await webhooks.close()


@hastily
async def test_an_endpoint_that_fails_keeps_no_other_waiting() -> None:
    backend = Backend()
    bad, good = (WebhookEndpoint(url=f"{URL}/{name}") for name in ("bad", "good"))
    backend.refuses = bad.url
    webhooks = Webhooks(app_with(bad, good), backend)
    for channel in ("news", "sport"):
        webhooks.occupied(channel)
        await asyncio.sleep(0.1)
    assert [event["channel"] for event in backend.told(good.url)] == ["news", "sport"]
    assert (webhooks.sent, webhooks.queued) == (2, 2)
    await webhooks.close()
    assert webhooks.failed == 2


# More than there is room for


@hastily
async def test_the_newest_are_dropped_where_there_is_no_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = Backend()
    backend.open.clear()
    webhooks = telling(backend)
    for number in range(10_010):
        webhooks.occupied(f"c{number}")
    assert (webhooks.queued, webhooks.dropped) == (10_000, 10)
    assert [record.message for record in caplog.records] == [
        "webhook 1 of app 1 (127.0.0.1): its queue is full; events are dropped"
    ]
    backend.open.set()
    await asyncio.sleep(1)
    assert [event["channel"] for event in backend.told()] == [f"c{n}" for n in range(10_000)]
    assert [record.message for record in caplog.records[1:]] == [
        "webhook 1 of app 1 (127.0.0.1): its queue has room again; events dropped: 10"
    ]
    webhooks.occupied("news")
    await webhooks.close()
    assert (webhooks.sent, webhooks.dropped) == (10_001, 10)
    assert len(caplog.records) == 2


@hastily
async def test_a_queue_holds_sixteen_mebibytes() -> None:
    backend = Backend()
    backend.open.clear()
    webhooks = telling(backend)
    for _ in range(20):
        webhooks.client_event("private-room", "client-e", "x" * 1024 * 1024, "1.2")
    assert (webhooks.queued, webhooks.dropped) == (15, 5)
    webhooks.occupied("news")  # which is small enough
    assert webhooks.queued == 16
    backend.open.set()
    await asyncio.sleep(10)
    assert webhooks.sent == 16
    assert webhooks._endpoints[0]._size == 0
    await webhooks.close()


@hastily
async def test_an_endpoint_that_is_always_too_slow_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.server.endpoint.MAX_BATCH", 10)
    monkeypatch.setattr("antiphon.server.endpoint.MAX_QUEUE", 100)
    backend = Backend()
    backend.delay = 0.1
    webhooks = telling(backend)
    for _ in range(1_000):
        webhooks.occupied("news")
        webhooks.occupied("sport")
        await asyncio.sleep(0.01)  # in which half of it goes
    assert webhooks.dropped > 800
    assert len(caplog.records) == 1
    await webhooks.close()
    assert len(caplog.records) == 2


# The end


@hastily
async def test_closing_sends_what_waits_without_waiting() -> None:
    backend = Backend()
    webhooks = telling(backend)
    webhooks.subscription_count("news", 101)
    webhooks.subscription_count("news", 102)
    webhooks.occupied("news")
    webhooks.vacated("sport")
    webhooks.member_removed("presence-room", "ali")
    began = loop().time()
    await webhooks.close()
    assert loop().time() == began
    assert [event["name"] for event in backend.told()] == [
        "subscription_count",
        "channel_occupied",
        "channel_vacated",
        "member_removed",
        "subscription_count",
    ]
    assert backend.told()[-1]["subscription_count"] == 102


@hastily
async def test_closing_tries_once_more_what_failed() -> None:
    backend = Backend(500)
    webhooks = telling(backend, rng=1)
    webhooks.occupied("news")
    await asyncio.sleep(0.1)
    webhooks.occupied("sport")
    await webhooks.close()
    assert [event["channel"] for event in backend.told()] == ["news", "news", "sport"]
    assert (webhooks.sent, webhooks.failed) == (2, 0)


@hastily
async def test_closing_gives_up_an_endpoint_that_refuses(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.server.endpoint.MAX_BATCH", 1)
    backend = Backend(500, NoAnswer("it hung up", timed_out=False), 500)
    webhooks = telling(backend)
    for number in range(5):
        webhooks.occupied(f"c{number}")
    await asyncio.sleep(0.5)
    await webhooks.close()
    assert len(backend.asked) == 2
    assert (webhooks.queued, webhooks.failed) == (0, 5)
    assert [record.message for record in caplog.records] == [
        "webhook 1 of app 1 (127.0.0.1): events given up: 5; it hung up"
    ]


@hastily
async def test_closing_waits_two_seconds_for_an_endpoint_that_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = Backend()
    backend.open.clear()
    endpoints = (WebhookEndpoint(url=f"{URL}/{name}") for name in ("a", "b"))
    webhooks = Webhooks(app_with(*endpoints), backend)
    webhooks.occupied("news")
    webhooks.vacated("sport")
    began = loop().time()
    await webhooks.close()
    assert loop().time() - began == pytest.approx(2)
    assert (webhooks.queued, webhooks.failed) == (0, 4)
    assert sorted(record.message for record in caplog.records) == [
        f"webhook {number} of app 1 (127.0.0.1): events given up: 2; there was no time left"
        for number in (1, 2)
    ]


@hastily
async def test_who_is_told_to_stop_closing_leaves_nothing_behind() -> None:
    backend = Backend()
    backend.open.clear()
    webhooks = telling(backend)
    webhooks.occupied("news")
    closing = asyncio.create_task(webhooks.close())
    await asyncio.sleep(0.1)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert webhooks.queued == 0


@hastily
async def test_what_happens_after_the_end_is_not_told() -> None:
    backend = Backend()
    webhooks = telling(backend)
    await webhooks.close()
    tell_everything(webhooks)
    await webhooks.close()
    assert backend.told() == []


# To a real receiver


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    http = HttpClient(10)
    yield http
    await http.close()


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """A receiver that answers 200; what it refuses comes again soon, and is waited for."""
    monkeypatch.setattr("antiphon.server.webhooks.CLOSE_PATIENCE", 60.0)
    monkeypatch.setattr("antiphon.server.endpoint.BATCH_DELAY", 0.001)
    monkeypatch.setattr("antiphon.server.endpoint.MIN_RETRY", 0.001)
    async with Receiver() as receiver:
        yield receiver


async def test_a_webhook_is_valid_to_the_libraries_of_backends(
    http: HttpClient, receiver: Receiver
) -> None:
    webhooks = telling(http, url=receiver.url)
    webhooks.occupied("news")
    webhooks.client_event("presence-room", "client-e", '"дело 🎉"', "1.2", "ali")
    await webhooks.close()
    (asked,) = receiver.asked
    assert (asked.method, asked.headers["content-type"]) == ("POST", "application/json")
    key, signature = asked.headers["x-pusher-key"], asked.headers["x-pusher-signature"]
    events = json.loads(asked.body)["events"]

    settings = Settings(app_key="k", app_id="1", app_secret=SECRET, scheme="http")
    async with Publisher(settings) as publisher:
        got = publisher.validate_webhook(key, signature, asked.body.encode())
    assert got.time == pytest.approx(time.time(), abs=60)
    assert got.events == tuple(msgspec.convert(events, list[WebhookEvent]))

    client = pusher.Pusher("1", "k", SECRET, ssl=False, host="127.0.0.1", port=1)
    try:
        assert client.validate_webhook(key, signature, asked.body)["events"] == events
    finally:
        client._pusher_client.http.session.close()

    async with Node("publisher.js") as node:
        await node.call("open", name="p", options={"appId": "1", "key": "k", "secret": SECRET})
        words = {"headers": asked.headers, "body": asked.body}
        assert (await node.call("validate_webhook", name="p", **words))["events"] == events


async def test_an_endpoints_own_headers_are_sent_but_not_in_place_of_what_is_signed(
    http: HttpClient, receiver: Receiver
) -> None:
    headers = {
        "Authorization": "Bearer token",
        "x-pusher-key": "other",
        "X-PUSHER-SIGNATURE": "other",
        "content-type": "text/plain",
    }
    webhooks = telling(http, url=receiver.url, headers=headers)
    webhooks.occupied("news")
    await webhooks.close()
    (asked,) = receiver.asked  # who also looks that no header came twice
    assert asked.headers["authorization"] == "Bearer token"
    assert asked.headers["x-pusher-key"] == "k"
    assert len(asked.headers["x-pusher-signature"]) == 64
    assert asked.headers["content-type"] == "application/json"


@pytest.mark.parametrize("trouble", ["500", "redirect", "hangs", "hangs up"])
async def test_what_a_receiver_does_not_take_comes_again_in_order(
    http: HttpClient, receiver: Receiver, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trouble == "500":
        receiver.answers_in_turn((500, ""), (503, ""), (200, ""))
    elif trouble == "redirect":
        receiver.answers_in_turn((307, "", {"Location": receiver.url}), (200, ""))
    elif trouble == "hangs":
        monkeypatch.setattr("antiphon.server.endpoint.REQUEST_TIMEOUT", 0.05)
        receiver.hangs()
    else:
        receiver.drops(2)
    webhooks = telling(http, url=receiver.url)
    for number in range(5):
        webhooks.occupied(f"c{number}")
        await until(lambda: receiver.asked)
    if trouble == "hangs":
        await until(lambda: len(receiver.asked) > 1)
        monkeypatch.setattr("antiphon.server.endpoint.REQUEST_TIMEOUT", 10)
        receiver.answers(200)
    await until(lambda: webhooks.queued == 0)
    assert webhooks.sent == 5
    assert len(receiver.asked) >= 3
    bodies = dict.fromkeys(asked.body for asked in receiver.asked)
    told = [event["channel"] for body in bodies for event in json.loads(body)["events"]]
    assert told == [f"c{number}" for number in range(5)]
    await webhooks.close()


async def test_events_arrive_in_the_order_they_were_told(
    http: HttpClient, receiver: Receiver
) -> None:
    async def slowly(asked: object) -> web.Response:
        await asyncio.sleep(0.002)
        return web.Response()

    receiver.answers_with(slowly)
    webhooks = telling(http, url=receiver.url)
    for number in range(200):
        webhooks.occupied(f"c{number}")
        if number % 3 == 0:
            await asyncio.sleep(0.001)
    await webhooks.close()
    told = [e["channel"] for asked in receiver.asked for e in json.loads(asked.body)["events"]]
    assert told == [f"c{number}" for number in range(200)]
    assert receiver.most_at_once == 1
    assert len(receiver.asked) > 2


async def test_a_receiver_that_hangs_does_not_hold_up_the_end(
    http: HttpClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.server.webhooks.CLOSE_PATIENCE", 0.05)
    free = receiver.hangs()
    webhooks = telling(http, url=receiver.url)
    webhooks.occupied("news")
    before = asyncio.all_tasks()
    await until(lambda: receiver.asked)
    await webhooks.close()
    assert not {task for task in asyncio.all_tasks() - before if "webhooks" in task.get_name()}
    assert (webhooks.failed, webhooks.queued) == (1, 0)
    free.set()


async def test_the_log_names_neither_address_nor_header(
    http: HttpClient, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.answers(401, SECRET)
    host = receiver.url.removeprefix("http://")
    url = f"http://ali:{SECRET}@{host}/{SECRET}?token={SECRET}"
    webhooks = telling(http, url=url, headers={"X-Token": SECRET})
    webhooks.occupied("news")
    await webhooks.close()
    assert receiver.asked[0].headers["authorization"].startswith("Basic ")
    assert receiver.asked[0].path.endswith(f"/{SECRET}?token={SECRET}")
    assert "events given up: 1; it answered 401" in caplog.text
    assert SECRET not in caplog.text
    assert "ali" not in caplog.text

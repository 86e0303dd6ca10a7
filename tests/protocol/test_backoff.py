from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.protocol.backoff import Backoff
from antiphon.protocol.closing import Action


def always(number: float) -> Callable[[], float]:
    return lambda: number


def delays(backoff: Backoff, action: Action, count: int) -> list[float | None]:
    return [backoff.next_delay(action) for _ in range(count)]


def test_delays_lie_between_a_second_and_half_a_minute_unless_told_otherwise() -> None:
    backoff = Backoff(always(0.0))
    assert (backoff.minimum, backoff.maximum) == (1.0, 30.0)
    assert (backoff.max_attempts, backoff.stable_after) == (None, 10.0)


def test_the_least_delay_is_the_minimum_at_every_attempt() -> None:
    assert delays(Backoff(always(0.0)), Action.BACK_OFF, 6) == [1.0] * 6


def test_the_greatest_delay_doubles_up_to_the_maximum() -> None:
    backoff = Backoff(always(1.0), maximum=30.0)
    assert delays(backoff, Action.BACK_OFF, 6) == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_the_jitter_lies_anywhere_in_between() -> None:
    numbers = iter([0.5, 0.25, 0.75])
    backoff = Backoff(lambda: next(numbers))
    assert delays(backoff, Action.BACK_OFF, 3) == [1.5, 1.75, 6.25]


@pytest.mark.parametrize("action", [Action.RECONNECT, Action.USE_TLS])
def test_reconnecting_at_once_costs_nothing_but_only_once(action: Action) -> None:
    backoff = Backoff(always(1.0))
    assert delays(backoff, action, 4) == [0.0, 4.0, 8.0, 16.0]


def test_reconnecting_at_once_after_a_failure_is_backed_off_too() -> None:
    backoff = Backoff(always(1.0))
    assert backoff.next_delay(Action.BACK_OFF) == 2.0
    assert backoff.next_delay(Action.RECONNECT) == 4.0


def test_a_refused_client_never_comes_back() -> None:
    backoff = Backoff(always(0.0))
    assert backoff.next_delay(Action.STOP) is None
    assert backoff.attempts == 0


def test_after_the_last_attempt_there_is_no_other() -> None:
    backoff = Backoff(always(0.0), max_attempts=2)
    assert delays(backoff, Action.BACK_OFF, 4) == [1.0, 1.0, None, None]
    assert backoff.attempts == 2


def test_no_attempt_at_all_can_be_allowed() -> None:
    assert Backoff(always(0.0), max_attempts=0).next_delay(Action.RECONNECT) is None


def test_without_a_limit_attempts_go_on_and_the_delay_stays_finite() -> None:
    backoff = Backoff(always(1.0), maximum=60.0)
    assert set(delays(backoff, Action.BACK_OFF, 5_000)[10:]) == {60.0}
    assert backoff.attempts == 5_000


def test_a_connection_that_lasted_begins_the_count_anew() -> None:
    backoff = Backoff(always(1.0), stable_after=10.0)
    delays(backoff, Action.BACK_OFF, 3)
    backoff.connection_lasted(10.0)
    assert backoff.attempts == 0
    assert backoff.next_delay(Action.RECONNECT) == 0.0


def test_a_connection_that_ended_at_once_counts_as_an_attempt() -> None:
    backoff = Backoff(always(1.0), stable_after=10.0)
    assert backoff.next_delay(Action.RECONNECT) == 0.0
    backoff.connection_lasted(9.99)
    assert backoff.next_delay(Action.RECONNECT) == 4.0


def test_a_reset_begins_the_count_anew() -> None:
    backoff = Backoff(always(1.0), max_attempts=1)
    delays(backoff, Action.BACK_OFF, 2)
    backoff.reset()
    assert backoff.next_delay(Action.BACK_OFF) == 2.0


def test_clients_that_lost_a_server_together_do_not_come_back_together() -> None:
    firsts = [Backoff(random.Random(seed).random).next_delay(Action.BACK_OFF) for seed in range(99)]
    assert len(set(firsts)) == 99


@settings(derandomize=True, deadline=None)
@given(
    numbers=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=80),
    minimum=st.floats(0.001, 60),
    extra=st.floats(0, 600),
    actions=st.data(),
)
def test_no_delay_lies_outside_its_limits(
    numbers: list[float], minimum: float, extra: float, actions: st.DataObject
) -> None:
    stream = iter(numbers)
    maximum = minimum + extra
    backoff = Backoff(lambda: next(stream), minimum=minimum, maximum=maximum)
    for attempt in range(1, len(numbers) + 1):
        action = actions.draw(st.sampled_from([Action.BACK_OFF, Action.RECONNECT, Action.USE_TLS]))
        delay = backoff.next_delay(action)
        assert delay is not None
        if attempt == 1 and action is not Action.BACK_OFF:
            assert delay == 0.0
        else:
            ceiling = min(maximum, minimum * 2.0**attempt)
            assert minimum <= delay <= ceiling * 1.000001

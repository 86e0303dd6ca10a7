"""Typing and read marks, with numbers for time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from antiphon.chat.events import TypingUser
from antiphon.chat.pace import (
    IDLE_AFTER,
    READ_EVERY,
    READ_TRIES,
    TYPING_EVERY,
    TYPING_LASTS,
    Keystrokes,
    ReadMark,
    Typists,
)

ALI = TypingUser(id=2, first_name="Ali")
MARY = TypingUser(id="3", first_name="Mary")

# Moments that ascend, in hundredths of a second.
_MOMENTS = st.lists(st.integers(0, 400), max_size=60).map(
    lambda gaps: [sum(gaps[: index + 1]) / 100 for index in range(len(gaps))]
)


def test_the_numbers_are_those_that_were_agreed_on() -> None:
    assert (TYPING_EVERY, IDLE_AFTER, TYPING_LASTS, READ_EVERY) == (2, 1, 7, 1)


# One's own typing


def test_the_first_key_is_told_at_once_and_the_next_after_two_seconds() -> None:
    keys = Keystrokes()
    pressed = [100 + tenth / 10 for tenth in range(45)]
    assert [now for now in pressed if keys.press(now)] == [100, 102, 104]


def test_one_types_until_a_second_after_the_last_key() -> None:
    keys = Keystrokes()
    idle_at = [keys.idle_at]
    for now in (10, 10.75):
        keys.press(now)
        idle_at.append(keys.idle_at)
    assert keys.stop(11.75)
    assert [*idle_at, keys.idle_at] == [None, 11, 11.75, None]


def test_who_has_stopped_has_not_to_stop_again() -> None:
    keys = Keystrokes()
    assert not keys.stop(1)
    keys.press(2)
    assert keys.stop(3)
    assert not keys.stop(4)


def test_a_pause_does_not_let_one_be_told_of_more_often() -> None:
    keys = Keystrokes()
    assert keys.press(10)
    assert keys.stop(10.5)
    assert not keys.press(11)
    assert keys.idle_at == 12
    # Nobody was told of this beginning, so nobody is told of its end.
    assert not keys.stop(11.25)
    assert keys.press(12)


def test_nobody_is_told_of_the_end_of_what_all_have_forgotten() -> None:
    keys = Keystrokes()
    keys.press(10)
    assert not keys.stop(10 + TYPING_LASTS)  # a timer that has slept with its machine


@given(_MOMENTS)
def test_while_one_types_the_others_never_forget_it(moments: list[float]) -> None:
    keys = Keystrokes()
    told = [now for now in moments if keys.press(now)]
    assert told[:1] == moments[:1]
    assert all(later - earlier >= TYPING_EVERY - 1e-9 for earlier, later in pairwise(told))
    for now in moments:
        assert any(now - TYPING_LASTS < notice <= now for notice in told)


# Others' typing


def test_several_people_type_at_once_in_the_order_they_began() -> None:
    assert Typists().users == ()
    typists = Typists()
    assert typists.typed(ALI, 0)
    assert typists.typed(MARY, 1)
    assert not typists.typed(ALI, 2)
    assert typists.users == (ALI, MARY)


def test_who_was_not_heard_of_for_seven_seconds_types_no_more() -> None:
    typists = Typists()
    typists.typed(ALI, 10)
    typists.typed(MARY, 12)
    typists.typed(ALI, 13)
    assert typists.expires_at == 19
    assert not typists.expire(18.99)
    assert typists.expire(19)
    left = [(*typists.users, typists.expires_at)]
    assert typists.expire(25)
    left.append((*typists.users, typists.expires_at))
    assert left == [(ALI, 20), (None,)]
    assert not typists.expire(26)


def test_who_has_sent_or_gone_types_no_more_whichever_way_the_id_is_written() -> None:
    typists = Typists()
    typists.typed(ALI, 0)
    typists.typed(MARY, 0)
    assert typists.stopped("2")
    assert not typists.stopped(2)
    assert typists.stopped(3)
    assert typists.users == ()


def test_one_who_is_written_in_two_ways_is_one() -> None:
    typists = Typists()
    typists.typed(TypingUser(id=2), 0)
    assert typists.typed(TypingUser(id="2", first_name="Ali"), 1)
    assert [user.first_name for user in typists.users] == ["Ali"]


def test_who_begins_anew_after_being_forgotten_stands_last() -> None:
    typists = Typists()
    typists.typed(ALI, 0)
    typists.typed(MARY, 5)
    assert typists.typed(ALI, 8)  # nobody had called `expire`
    assert typists.users == (MARY, ALI)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.floats(0, 1e6)), max_size=20))
def test_there_is_something_to_do_when_the_time_for_it_has_come(
    heard: list[tuple[int, float]],
) -> None:
    typists = Typists()
    for id_, now in sorted(heard, key=lambda one: one[1]):
        before = typists.users
        assert typists.typed(TypingUser(id=id_), now) == (typists.users != before)
    while (when := typists.expires_at) is not None:
        assert typists.expire(when)
    assert typists.users == ()


# Read marks


def test_the_first_mark_is_sent_at_once_and_the_next_a_second_later() -> None:
    mark = ReadMark()
    assert mark.due(0) is None
    assert mark.seen("1", 10) == 10
    assert mark.due(10) == "1"
    assert mark.due(10) is None  # it is under way
    mark.sent("1")
    assert mark.seen("2", 10.25) == 11
    assert mark.due(10.25) is None
    assert mark.seen("3", 10.5) == 11
    assert mark.due(11) == "3"
    mark.sent("3")
    assert mark.due(99) is None


def test_a_newer_mark_does_not_wait_for_the_answer_to_the_one_before() -> None:
    mark = ReadMark()
    mark.seen("1", 0)
    assert mark.due(0) == "1"
    assert mark.seen("2", 0.5) == 1
    assert mark.due(1) == "2"
    mark.sent("2")
    mark.sent("1")  # overtaken
    assert mark.due(9) is None
    assert mark.failed(9) is None


def test_the_answer_to_an_older_mark_is_not_that_to_the_newest() -> None:
    mark = ReadMark()
    mark.seen("1", 0)
    mark.due(0)
    mark.seen("2", 0.5)
    mark.sent("1")
    assert mark.due(1) == "2"


def test_what_was_seen_already_is_not_told_again() -> None:
    mark = ReadMark()
    mark.seen("1", 0)
    assert mark.due(0) == "1"
    assert mark.seen("1", 5) == 5
    assert mark.due(5) is None
    mark.sent("1")
    mark.seen("1", 6)
    assert mark.due(6) is None


def test_a_mark_that_was_not_taken_is_sent_again_with_the_newest_id() -> None:
    mark = ReadMark()
    mark.seen("1", 0)
    mark.due(0)
    assert mark.failed(10) == 11
    assert mark.seen("2", 10.5) == 11
    assert mark.due(10.5) is None
    assert mark.due(11) == "2"


def test_a_mark_is_tried_less_and_less_often_and_then_waits() -> None:
    mark = ReadMark()
    now: float | None = mark.seen("1", 0)
    tried: list[float] = []
    while now is not None:
        assert mark.due(now) == "1"
        tried.append(now)
        now = mark.failed(now)
    assert tried == [0, 1, 3, 7, 15, 31]
    assert len(tried) == READ_TRIES
    # Something newer begins anew, and so does success.
    assert mark.seen("2", 40) == 40
    assert mark.due(40) == "2"
    assert mark.failed(40) == 41
    assert mark.due(41) == "2"
    mark.sent("2")
    mark.seen("3", 50)
    assert mark.due(50) == "3"
    assert mark.failed(50) == 51


def test_a_mark_that_was_given_up_goes_with_the_next_occasion() -> None:
    mark = ReadMark()
    mark.seen("1", 0)
    now = 0.0
    for _ in range(READ_TRIES):
        mark.due(now)
        now = mark.failed(now) or now
    assert mark.due(now + 100) == "1"


def test_nothing_has_failed_where_nothing_was_seen() -> None:
    assert ReadMark().failed(1) is None


def test_a_timer_that_goes_off_a_moment_early_sends_the_mark_all_the_same() -> None:
    mark = ReadMark()
    mark.seen("1", 0)
    mark.due(0)
    assert mark.seen("2", 0.5) == 1
    assert mark.due(0.99) == "2"
    assert mark.seen("3", 1) == 2  # early timers do not add up


@given(_MOMENTS, st.data())
def test_marks_go_forward_at_most_once_a_second_and_the_last_arrives(
    moments: list[float], data: st.DataObject
) -> None:
    mark = ReadMark()
    sent: list[tuple[float, int]] = []
    when: float | None = None

    def send(now: float) -> float | None:
        id_ = mark.due(now)
        if id_ is None:
            return None
        sent.append((now, int(id_)))
        if data.draw(st.booleans()):
            mark.sent(id_)
            return None
        return mark.failed(now)

    for number, now in enumerate(moments):
        while when is not None and when <= now:
            when = send(when)
        when = mark.seen(str(number), now)
    mark_taken = False
    while when is not None and not mark_taken:
        id_ = mark.due(when)
        assert id_ is not None
        sent.append((when, int(id_)))
        mark.sent(id_)
        mark_taken = True
    assert all(b[0] - a[0] >= READ_EVERY - 1e-9 for a, b in pairwise(sent))
    assert [number for _, number in sent] == sorted(number for _, number in sent)
    if moments:
        assert sent[-1][1] == len(moments) - 1

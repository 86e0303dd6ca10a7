"""A conversation's messages: in the backend's order, each once, whatever comes when."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.chat.models import Draft, Entry, Id, Message, Status
from antiphon.chat.timeline import AHEAD, Change, Timeline

ME: Final = 1
ALI: Final = 2
NOON: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def message(id_: Id, sender: Id = ALI, **fields: Any) -> Message:
    if "sent_at" not in fields:
        fields["sent_at"] = at(int(id_)) if str(id_).isdecimal() else NOON
    return Message(id=id_, chat_id=7, sender_id=sender, **{"content": f"text {id_}", **fields})


def messages(*ids: Id, sender: Id = ALI) -> list[Message]:
    return [message(id_, sender) for id_ in ids]


def draft(temp_id: str, **fields: Any) -> Draft:
    return Draft(
        **{
            "temp_id": temp_id,
            "conversation_id": "7",
            "content": f"text {temp_id}",
            "created_at": at(0),
            **fields,
        }
    )


def begun(*ids: Id, has_older: bool = False, sender: Id = ALI, **options: Any) -> Timeline:
    """A timeline that began with a page."""
    timeline = Timeline(ME, **options)
    timeline.replace(messages(*ids, sender=sender), has_older=has_older)
    return timeline


def keys(timeline: Timeline) -> list[str]:
    return [entry.key for entry in timeline.entries]


def statuses(timeline: Timeline) -> list[str]:
    return [entry.status.value for entry in timeline.entries]


def kinds(changes: Iterable[Change]) -> list[tuple[str, str]]:
    return [(change.kind, change.entry.key) for change in changes]


@dataclass
class Screen:
    """Shows entries, and knows of them only by the changes it is told."""

    shown: list[Entry] = field(default_factory=list)

    def apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            at = [entry.key for entry in self.shown]
            key = change.entry.key
            match change.kind:
                case "added":
                    assert key not in at
                case "updated":
                    index = at.index(key)
                    assert change.after == (at[index - 1] if index else None)
                    self.shown[index] = change.entry
                    continue
                case "moved" | "removed":
                    del self.shown[at.index(key)]
            if change.kind != "removed":
                at = [entry.key for entry in self.shown]
                index = 0 if change.after is None else at.index(change.after) + 1
                self.shown.insert(index, change.entry)


# Order


def test_numbers_are_in_the_order_of_numbers_whether_written_as_numbers_or_as_text() -> None:
    timeline = Timeline(ME)
    for id_ in ("10", 9, "100", 11, "2"):
        timeline.add(message(id_))
    assert keys(timeline) == ["2", "9", "10", "11", "100"]
    assert (timeline.oldest_id, timeline.newest_id) == ("2", "100")


def test_a_number_counts_for_more_than_a_time() -> None:
    timeline = Timeline(ME)
    timeline.add(message(2, sent_at=at(0)))
    timeline.add(message(1, sent_at=at(99)))
    assert keys(timeline) == ["1", "2"]


def test_a_number_of_ten_thousand_digits_is_a_number() -> None:
    timeline = Timeline(ME)
    long = "9" * 10_000
    for id_ in (long, "8" * 10_000, "7"):
        timeline.add(message(id_, sent_at=None))
    assert timeline.oldest_id == "7"
    assert timeline.newest_id == long


def test_ids_that_are_no_numbers_are_in_the_order_of_their_time_and_then_of_their_text() -> None:
    timeline = Timeline(ME)
    timeline.add(message("b", sent_at=at(1)))
    timeline.add(message("z", sent_at=at(0)))
    timeline.add(message("c", sent_at=at(1)))
    timeline.add(message("a", sent_at=at(1)))
    timeline.add(message("²", sent_at=at(0.5)))  # a digit, and no number
    assert keys(timeline) == ["z", "²", "a", "b", "c"]


def test_numbers_stand_before_the_others() -> None:
    timeline = Timeline(ME)
    timeline.add(message("01J", sent_at=at(0)))
    timeline.add(message(7, sent_at=at(5)))
    assert keys(timeline) == ["7", "01J"]


def test_without_any_time_ids_are_in_the_order_of_their_text() -> None:
    ids = [f"01J{letter}" for letter in "ABCDEFGH"]
    timeline = Timeline(ME)
    for id_ in random.Random(4).sample(ids, len(ids)):
        timeline.add(message(id_, sent_at=None))
    assert keys(timeline) == ids


def test_one_without_a_time_stands_with_the_newest_until_its_time_is_known() -> None:
    timeline = Timeline(ME)
    timeline.replace([message("m1", sent_at=at(1)), message("m2", sent_at=at(2))], has_older=False)
    [change] = timeline.add(message("m3", sent_at=None))
    assert (change.after, change.is_news) == ("m2", True)
    [change] = timeline.add(message("m4", sent_at=at(4)))
    assert (change.after, change.is_news) == ("m3", True)
    assert kinds(timeline.add(message("m3", sent_at=at(1.5)))) == [("moved", "m3")]
    assert keys(timeline) == ["m1", "m3", "m2", "m4"]
    assert timeline.add(message("m3", sent_at=at(9))) == []  # the first time is the one


def test_an_older_page_without_times_stands_before_what_is_there() -> None:
    timeline = Timeline(ME)
    timeline.replace([message("x", sent_at=None), message("y", sent_at=None)], has_older=True)
    timeline.add_older([message("v", sent_at=None), message("w", sent_at=None)], has_older=False)
    assert keys(timeline) == ["v", "w", "x", "y"]
    timed = Timeline(ME)
    timed.replace([message("x", sent_at=at(1)), message("y", sent_at=at(2))], has_older=True)
    timed.add_older([message("v", sent_at=at(0)), message("w", sent_at=None)], has_older=False)
    assert keys(timed) == ["v", "w", "x", "y"]


def test_a_message_that_comes_late_is_put_where_it_belongs() -> None:
    timeline = begun(1)
    timeline.add(message(4))
    [change] = timeline.add(message(3))
    assert (change.kind, change.after) == ("added", "1")
    [change] = timeline.add(message(2))
    assert (change.kind, change.after) == ("added", "1")
    assert keys(timeline) == ["1", "2", "3", "4"]


# Each once


def test_a_message_that_comes_twice_is_shown_once() -> None:
    timeline = Timeline(ME)
    assert kinds(timeline.add(message(5))) == [("added", "5")]
    assert timeline.add(message("5")) == []
    assert keys(timeline) == ["5"]


def test_two_messages_that_say_the_same_at_the_same_moment_are_two() -> None:
    timeline = Timeline(ME)
    for id_ in (1, 2):
        timeline.add(message(id_, content="ok", sent_at=NOON))
    timeline.write(draft("t1", content="ok"))
    timeline.write(draft("t2", content="ok"))
    assert len(timeline) == len(timeline.entries) == 4


def test_what_a_further_copy_says_is_shown_where_the_message_stands() -> None:
    timeline = begun(1, 2)
    changes = timeline.add(message(1, content="mended", sender_name="Ali"))
    assert kinds(changes) == [("updated", "1")]
    first = timeline.entries[0]
    assert (first.content, first.sender_name) == ("mended", "Ali")
    timeline.add(message(1, content="mended"))
    assert timeline.entries[0].sender_name == "Ali"


# One's own


def test_a_draft_stands_at_the_end_in_the_order_it_was_written() -> None:
    timeline = begun(1)
    first = timeline.write(draft("t1"), "John")
    second = timeline.write(draft("t2", created_at=at(-60)))
    assert (first.kind, first.after, second.after) == ("added", "1", "t1")
    assert not first.is_news
    entry = first.entry
    assert (entry.id, entry.sender_id, entry.sender_name) == (None, "1", "John")
    assert (entry.is_mine, entry.status, entry.sent_at) == (True, Status.SENDING, at(0))
    [change] = timeline.add(message(2))
    assert change.after == "1"
    assert keys(timeline) == ["1", "2", "t1", "t2"]
    assert timeline.last == timeline.entries[-1]
    assert timeline.newest_id == "2"


@pytest.mark.parametrize("event_first", [True, False])
def test_an_own_message_is_one_whether_its_event_or_its_answer_comes_first(
    event_first: bool,
) -> None:
    timeline = begun(1)
    timeline.write(draft("t1"))
    event = (message(2, ME), "t1")
    answer = (message(2, ME, temp_id="t1"), None)
    one, other = (event, answer) if event_first else (answer, event)
    [change] = timeline.add(one[0], temp_id=one[1])
    assert (change.kind, change.entry.key, change.after) == ("updated", "t1", "1")
    assert not change.is_news
    assert change.entry.status is Status.SENT
    assert timeline.add(other[0], temp_id=other[1]) == []
    assert [(entry.key, entry.id) for entry in timeline.entries] == [("1", "1"), ("t1", "2")]


def test_an_own_message_moves_when_its_place_is_another() -> None:
    timeline = begun(1)
    timeline.write(draft("t1"))
    timeline.write(draft("t2"))
    [change] = timeline.add(message(2, ME), temp_id="t2")
    assert (change.kind, change.entry.key, change.entry.id, change.after) == (
        "moved",
        "t2",
        "2",
        "1",
    )
    assert keys(timeline) == ["1", "t2", "t1"]


def test_of_a_draft_and_its_message_on_a_page_one_goes_when_the_answer_says_they_are_one() -> None:
    timeline = begun(1)
    timeline.write(draft("t1"))
    timeline.add(message(2, ME))  # a page that tells no temp_id
    assert keys(timeline) == ["1", "2", "t1"]
    changes = timeline.add(message(2, ME), temp_id="t1")
    assert kinds(changes) == [("removed", "t1")]
    assert keys(timeline) == ["1", "2"]
    assert timeline.get("t1") == timeline.get("2") == timeline.entries[1]


def test_a_draft_that_a_page_has_becomes_that_message() -> None:
    timeline = Timeline(ME)
    timeline.write(draft("t1"))
    timeline.write(draft("t2"))
    timeline.replace([message(5), message(6, ME, temp_id="t1")], has_older=True)
    assert keys(timeline) == ["5", "t1", "t2"]
    assert timeline.entries[1].status is Status.SENT


def test_a_draft_that_the_page_has_already_shown_is_not_shown_again() -> None:
    timeline = Timeline(ME)
    timeline.replace([message(6, ME, temp_id="t1")], has_older=False)
    change = timeline.write(draft("t1"))
    assert (change.kind, change.entry.key, change.entry.status) == ("updated", "6", Status.SENT)
    assert len(timeline) == 1


def test_a_draft_whose_message_is_too_old_to_be_shown_goes() -> None:
    timeline = begun(50, 51, has_older=True)
    timeline.write(draft("t1"))
    changes = timeline.add(message(3, ME), temp_id="t1")
    assert kinds(changes) == [("removed", "t1")]
    assert keys(timeline) == ["50", "51"]
    assert timeline.get("t1") is None


def test_another_cannot_take_ones_draft_away_with_its_temp_id() -> None:
    timeline = begun(1)
    timeline.write(draft("t1"))
    timeline.add(message(2, ALI, temp_id="t1"))
    timeline.add(message(3, ALI), temp_id="t1")
    timeline.add(message(3, ALI), temp_id="t1")
    assert keys(timeline) == ["1", "2", "3", "t1"]
    assert timeline.get("t1") == timeline.entries[-1]
    assert timeline.entries[-1].status is Status.SENDING


def test_a_backend_that_makes_the_temp_id_the_id_makes_no_second_message() -> None:
    timeline = begun(1)
    timeline.write(draft("uuid-1"))
    timeline.add(message("uuid-1", ME))
    assert [(entry.key, entry.id) for entry in timeline.entries] == [
        ("1", "1"),
        ("uuid-1", "uuid-1"),
    ]


def test_an_empty_temp_id_names_no_draft() -> None:
    timeline = Timeline(ME)
    timeline.write(draft(""))
    timeline.add(message(1, ME, temp_id=""), temp_id="")
    assert keys(timeline) == ["1", ""]


def test_what_a_backend_without_idempotence_has_doubled_is_two_messages() -> None:
    timeline = Timeline(ME)
    timeline.write(draft("t1"))
    timeline.add(message(1, ME), temp_id="t1")
    timeline.add(message(2, ME), temp_id="t1")
    assert [(entry.key, entry.id) for entry in timeline.entries] == [("t1", "1"), ("2", "2")]
    first = timeline.get("t1")
    assert first is not None
    assert first.id == "1"


def test_a_sent_message_keeps_the_time_it_was_written_until_the_backend_tells_its_own() -> None:
    timeline = Timeline(ME)
    timeline.write(draft("t1", created_at=at(-5)))
    timeline.add(message(1, ME, sent_at=None), temp_id="t1")
    assert timeline.entries[0].sent_at == at(-5)
    timeline.add(message(1, ME, sent_at=at(3)))
    assert timeline.entries[0].sent_at == at(3)


def test_a_draft_fails_and_is_tried_again_in_its_place() -> None:
    timeline = begun(1)
    for temp_id in ("t1", "t2"):
        timeline.write(draft(temp_id))
    [change] = timeline.failed("t1", "No connection.")
    assert (change.kind, change.after, change.entry.failure) == ("updated", "1", "No connection.")
    assert change.entry.status is Status.FAILED
    assert timeline.failed("t1", "No connection.") == []
    [change] = timeline.sending("t1")
    assert (change.entry.status, change.entry.failure) == (Status.SENDING, "")
    assert timeline.sending("t1") == []
    assert keys(timeline) == ["1", "t1", "t2"]


def test_a_draft_that_had_failed_before_the_restart_is_shown_so() -> None:
    entry = Timeline(ME).write(draft("t1", failure="It is too long.")).entry
    assert (entry.status, entry.failure) == (Status.FAILED, "It is too long.")


def test_a_failure_that_is_told_late_does_not_undo_what_the_event_has_confirmed() -> None:
    timeline = Timeline(ME)
    timeline.write(draft("t1"))
    timeline.failed("t1", "No answer.")
    timeline.add(message(1, ME), temp_id="t1")
    assert timeline.failed("t1", "No answer.") == []
    assert timeline.sending("t1") == []
    assert timeline.discard("t1") == []
    [entry] = timeline.entries
    assert (entry.status, entry.failure) == (Status.SENT, "")


def test_a_draft_that_is_discarded_is_gone() -> None:
    timeline = begun(1)
    timeline.write(draft("t1"))
    assert kinds(timeline.discard("t1")) == [("removed", "t1")]
    assert timeline.discard("t1") == timeline.discard("1") == []
    assert keys(timeline) == ["1"]


def test_a_message_is_found_by_key_id_and_temp_id() -> None:
    timeline = begun(1)
    timeline.write(draft("t1"))
    timeline.write(draft("t2"))
    timeline.add(message(2, ME), temp_id="t1")
    timeline.add(message(3, ME, temp_id="elsewhere"))
    found = {name: timeline.get(name) for name in ("1", "2", "t1", "t2", "3", "elsewhere", "4")}
    first, own, other_device, unsent = timeline.entries
    assert found == {
        "1": first,
        "2": own,
        "t1": own,
        "t2": unsent,
        "3": other_device,
        "elsewhere": other_device,
        "4": None,
    }


# News


def test_news_is_what_has_come_since_the_page_it_began_with() -> None:
    timeline = begun(10, 11)
    assert [change.is_news for change in timeline.add(message(13))] == [True]
    assert timeline.add(message(13)) == []
    # Overtaken by 13, and news all the same: a catch-up brings it so.
    assert [change.is_news for change in timeline.add_newer(messages(11, 12, 13))] == [True]
    assert [change.is_news for change in timeline.add(message(9))] == [False]
    older = timeline.add_older(messages(7, 8), has_older=False)
    assert [change.is_news for change in older] == [False, False]


def test_an_update_of_a_message_is_no_news() -> None:
    timeline = begun(1)
    timeline.add(message(2, ME))
    assert not any(change.is_news for change in timeline.mark([2], Status.READ))
    assert not any(change.is_news for change in timeline.add(message(1, content="mended")))


def test_what_arrives_while_the_page_is_fetched_does_not_make_old_what_it_has_overtaken() -> None:
    timeline = Timeline(ME)
    timeline.add(message(13))
    timeline.replace(messages(10, 11), has_older=True)
    assert keys(timeline) == ["10", "11", "13"]
    assert [change.is_news for change in timeline.add(message(12))] == [True]


def test_everything_is_news_to_a_timeline_that_began_with_nothing() -> None:
    timeline = begun()
    changes = [*timeline.add(message(2)), *timeline.add(message(1))]
    assert [change.is_news for change in changes] == [True, True]


# History


def test_a_message_from_before_the_first_is_left_out_while_others_are_between() -> None:
    timeline = begun(10, 11, has_older=True)
    assert timeline.add(message(3)) == []
    assert keys(timeline) == ["10", "11"]
    timeline.add_older(messages(8, 9), has_older=False)
    assert kinds(timeline.add(message(3))) == [("added", "3")]


def test_an_older_page_is_put_in_front() -> None:
    timeline = begun(10, 11, has_older=True)
    changes = timeline.add_older(messages(7, 8, 9, 10), has_older=True)
    assert [(change.entry.key, change.after) for change in changes] == [
        ("7", None),
        ("8", "7"),
        ("9", "8"),
    ]
    assert keys(timeline) == ["7", "8", "9", "10", "11"]
    assert timeline.has_older


def test_an_empty_page_is_the_end_of_history_whatever_it_promises() -> None:
    timeline = begun(10, has_older=True)
    assert timeline.add_older([], has_older=True) == []
    assert not timeline.has_older


def test_a_new_beginning_keeps_what_is_unsent_and_what_arrived_while_it_was_fetched() -> None:
    timeline = begun(1, 2, 3)
    timeline.write(draft("t1"))
    timeline.add(message(60))
    timeline.add(message(50))
    timeline.add(message(20))
    timeline.replace(messages(40, 50), has_older=True)
    assert keys(timeline) == ["40", "50", "60", "t1"]
    assert timeline.has_older


def test_what_the_last_page_had_and_the_new_one_has_not_is_gone() -> None:
    timeline = begun(1, 2, 99)  # kept of a database that was made anew
    timeline.replace(messages(1, 2), has_older=False)
    assert keys(timeline) == ["1", "2"]
    assert timeline.get("99") is None


def test_a_new_beginning_changes_no_key_and_takes_no_status_back() -> None:
    timeline = begun(1)
    timeline.write(draft("t1"))
    timeline.add(message(2, ME), temp_id="t1")
    timeline.mark([2], Status.READ)
    timeline.replace([message(2, ME, status="sent")], has_older=True)
    [entry] = timeline.entries
    assert (entry.key, entry.id, entry.status) == ("t1", "2", Status.READ)
    assert timeline.get("t1") == entry


# No more than is kept


def test_beyond_what_is_kept_the_oldest_goes_and_can_be_fetched_again() -> None:
    timeline = begun(1, 2, 3, kept=3)
    timeline.write(draft("t1"))
    had_older = timeline.has_older
    changes = timeline.add(message(4))
    assert kinds(changes) == [("added", "4"), ("removed", "1")]
    assert keys(timeline) == ["2", "3", "4", "t1"]
    assert (had_older, timeline.has_older) == (False, True)
    assert timeline.add(message(1)) == []


def test_a_page_longer_than_what_is_kept_leaves_its_newest() -> None:
    timeline = begun(1, 2, 3, 4, kept=2)
    assert keys(timeline) == ["3", "4"]
    assert timeline.has_older


def test_history_that_a_reader_goes_back_to_stays_until_it_is_trimmed() -> None:
    timeline = begun(5, 6, 7, has_older=True, kept=3)
    timeline.add_older(messages(3, 4), has_older=False)
    assert keys(timeline) == ["3", "4", "5", "6", "7"]
    assert kinds(timeline.add(message(8))) == [("added", "8"), ("removed", "3")]
    timeline.write(draft("t1"))
    timeline.trim(2)
    assert keys(timeline) == ["7", "8", "t1"]
    assert timeline.has_older
    timeline.add(message(9))
    timeline.add(message(10))
    assert keys(timeline) == ["8", "9", "10", "t1"]


def test_trimming_what_is_short_enough_changes_nothing() -> None:
    timeline = begun(1, 2)
    timeline.trim(2)
    assert keys(timeline) == ["1", "2"]
    assert not timeline.has_older


def test_nothing_is_remembered_of_messages_that_are_let_go() -> None:
    timeline = Timeline(ME, kept=10)
    for number in range(1_000):
        timeline.write(draft(f"t{number}"))
        timeline.add(message(f"{number:04}m", ME, sent_at=None), temp_id=f"t{number}")
        timeline.add(message(f"{number:04}n", ME, sent_at=None), temp_id=f"u{number}")
    assert len(timeline) == 10
    timeline.mark((f"x{number}" for number in range(10 * AHEAD)), Status.READ)
    held = {name: len(value) for name, value in vars(timeline).items() if hasattr(value, "__len__")}
    assert max(held.values()) <= AHEAD
    assert sorted(held.values())[-2] <= 10


# How far a message has come


def test_a_status_never_goes_back() -> None:
    timeline = Timeline(ME)
    timeline.add(message(1, ME, status="delivered"))
    timeline.add(message(1, ME, status="sent"))
    assert statuses(timeline) == ["delivered"]
    assert kinds(timeline.mark(["1"], Status.READ)) == [("updated", "1")]
    assert timeline.mark([1], Status.READ) == []
    assert timeline.mark([1], Status.DELIVERED) == []
    assert timeline.mark([1], Status.SENDING) == timeline.mark([1], Status.FAILED) == []
    timeline.add(message(1, ME, status="sent"))
    assert statuses(timeline) == ["read"]


@pytest.mark.parametrize("said", ["", "seen?", "failed", "sending", "READ"])
def test_a_status_that_nobody_knows_is_sent(said: str) -> None:
    timeline = Timeline(ME)
    timeline.add(message(1, ME, status=said))
    timeline.add(message(2, ALI, status=said))
    assert statuses(timeline) == ["sent", "sent"]


def test_others_messages_are_sent_or_read() -> None:
    timeline = Timeline(ME)
    timeline.add(message(1, status="delivered"))
    timeline.add(message(2, status="read"))
    assert statuses(timeline) == ["sent", "read"]
    assert timeline.mark([1], Status.DELIVERED) == []
    assert kinds(timeline.mark([1], Status.READ)) == [("updated", "1")]


def test_a_read_message_makes_ones_own_earlier_ones_read_and_nobody_elses() -> None:
    timeline = Timeline(ME)
    for id_, sender in ((1, ME), (2, ALI), (3, ME), (4, ME), (5, ME)):
        timeline.add(message(id_, sender))
    changes = timeline.mark([4], Status.READ)
    assert kinds(changes) == [("updated", "1"), ("updated", "3"), ("updated", "4")]
    assert [change.after for change in changes] == [None, "2", "3"]
    assert statuses(timeline) == ["read", "sent", "read", "read", "sent"]


def test_anothers_read_message_makes_none_of_ones_own_read() -> None:
    timeline = begun(1, sender=ME)
    timeline.add(message(2, ALI, status="read"))
    timeline.mark([2], Status.READ)
    assert statuses(timeline) == ["sent", "read"]


def test_a_read_message_from_a_page_makes_earlier_ones_read() -> None:
    timeline = begun(1, sender=ME)
    changes = timeline.add(message(2, ME, status="read"))
    assert kinds(changes) == [("added", "2"), ("updated", "1")]
    timeline.add(message(3, ME))
    assert kinds(timeline.add(message(3, ME, status="read"))) == [("updated", "3")]


def test_an_own_message_that_comes_after_a_later_one_was_read_is_read() -> None:
    timeline = Timeline(ME)
    timeline.add(message(5, ME, status="read"))
    [change] = timeline.add(message(3, ME, status="sent"))
    assert change.entry.status is Status.READ
    timeline.add_older(messages(1, 2, sender=ME), has_older=False)
    assert statuses(timeline) == ["read"] * 4


def test_a_message_that_is_read_before_its_answer_has_come_is_read() -> None:
    timeline = Timeline(ME)
    timeline.write(draft("t1"))
    assert timeline.mark(["m1"], Status.READ) == []
    assert statuses(timeline) == ["sending"]
    [change] = timeline.add(message("m1", ME), temp_id="t1")
    assert (change.kind, change.entry.status) == ("updated", Status.READ)


def test_what_was_heard_of_a_message_that_is_not_here_says_nothing_of_others() -> None:
    timeline = Timeline(ME)
    timeline.add(message(1, ME))
    timeline.mark([2], Status.READ)
    assert statuses(timeline) == ["sent"]
    timeline.add(message(2, ALI))
    assert statuses(timeline) == ["sent", "read"]


def test_ones_own_up_to_one_that_is_not_here_have_come_further() -> None:
    timeline = begun(2, 4, 6, sender=ME)
    assert kinds(timeline.mark_up_to("5", Status.DELIVERED)) == [("updated", "2"), ("updated", "4")]
    assert statuses(timeline) == ["delivered", "delivered", "sent"]
    assert kinds(timeline.mark_up_to(2, Status.READ)) == [("updated", "2")]
    assert timeline.mark_up_to(2, Status.DELIVERED) == []
    assert timeline.mark_up_to(6, Status.FAILED) == []
    timeline.add(message(3, ME))
    assert statuses(timeline) == ["read", "delivered", "delivered", "sent"]


def test_up_to_one_that_is_not_here_and_no_number_nothing_is_known() -> None:
    timeline = Timeline(ME)
    timeline.add(message("b", ME))
    assert timeline.mark_up_to("c", Status.READ) == []
    assert kinds(timeline.mark_up_to("b", Status.READ)) == [("updated", "b")]


def test_a_draft_is_not_read_with_the_others() -> None:
    timeline = begun(1, sender=ME)
    timeline.write(draft("t1"))
    timeline.mark_up_to(99, Status.READ)
    assert statuses(timeline) == ["read", "sending"]


# What is unread


def test_messages_of_others_after_one_are_counted() -> None:
    timeline = begun(1, 3, 4)
    timeline.add(message(5, ME))
    timeline.write(draft("t1"))
    assert [timeline.others_after(id_) for id_ in (None, 0, 1, "2", 3, 4, 5, 99)] == [
        3,
        3,
        2,
        2,
        1,
        0,
        0,
        0,
    ]
    assert timeline.others_after("gone") == 3


def test_the_newest_message_of_somebody_else_is_found() -> None:
    timeline = begun(1, 3)
    timeline.add(message(4, ME))
    assert timeline.newest_of_others() == "3"
    assert timeline.newest_of_others("4") == "3"
    assert timeline.newest_of_others(2) == "1"
    assert timeline.newest_of_others(0) is None
    assert timeline.newest_of_others("nothing") is None
    assert Timeline(ME).newest_of_others() is None


def test_catching_up_begins_some_places_before_the_newest() -> None:
    timeline = begun(3, 5, 9)
    timeline.write(draft("t1"))
    assert [timeline.id_before_newest(count) for count in (0, 1, 2, 3, 99)] == [
        "9",
        "5",
        "3",
        "3",
        "3",
    ]
    assert Timeline(ME).id_before_newest(3) is None


def test_an_empty_timeline_has_nothing() -> None:
    timeline = Timeline("me")
    assert (len(timeline), timeline.entries, timeline.last) == (0, [], None)
    assert (timeline.oldest_id, timeline.newest_id, timeline.has_older) == (None, None, False)


def test_entries_are_a_copy() -> None:
    timeline = begun(1)
    before = timeline.entries
    timeline.add(message(2))
    assert [entry.key for entry in before] == ["1"]


# Whatever comes, in whatever order

_IDS: st.SearchStrategy[Id] = st.sampled_from(
    ["1", "2", "3", "9", "10", "11", "x", "y", "#1", "t1", "t2", "007", ""]
)
_NUMBERS: st.SearchStrategy[Id] = st.integers(0, 12)
_SENDERS: st.SearchStrategy[Id] = st.sampled_from([ME, str(ME), ALI])
_TEMP_IDS = st.sampled_from(["t1", "t2", "t3", "1", "x", "#1", ""])


@st.composite
def nonsense(draw: st.DrawFn) -> Message:
    """A message as a server in its worst hour might send it."""
    return message(
        draw(_IDS | _NUMBERS),
        draw(_SENDERS),
        content=draw(st.sampled_from(["a", "b"])),
        sent_at=draw(st.none() | st.integers(0, 3).map(at)),
        status=draw(st.sampled_from(["sent", "delivered", "read", "odd"])),
        temp_id=draw(st.none() | _TEMP_IDS),
    )


_STATUSES = st.sampled_from(list(Status))
_STEPS = st.one_of(
    st.tuples(st.just("add"), nonsense(), st.none() | _TEMP_IDS),
    st.tuples(st.just("add_newer"), st.lists(nonsense(), max_size=4)),
    st.tuples(st.just("add_older"), st.lists(nonsense(), max_size=4), st.booleans()),
    st.tuples(st.just("replace"), st.lists(nonsense(), max_size=4), st.booleans()),
    st.tuples(st.just("trim"), st.integers(1, 5)),
    st.tuples(st.just("write"), _TEMP_IDS),
    st.tuples(st.sampled_from(["sending", "discard"]), _TEMP_IDS),
    st.tuples(st.just("failed"), _TEMP_IDS, st.sampled_from(["", "why"])),
    st.tuples(st.just("mark"), st.lists(_IDS | _NUMBERS, max_size=3), _STATUSES),
    st.tuples(st.just("mark_up_to"), _IDS | _NUMBERS, _STATUSES),
)


def do(timeline: Timeline, step: Sequence[Any]) -> list[Change] | None:
    """Do one step; None where a screen is to be drawn anew."""
    match step:
        case ["add", some, temp_id]:
            return timeline.add(some, temp_id=temp_id)
        case ["add_older", page, has_older]:
            return timeline.add_older(page, has_older=has_older)
        case ["replace", page, has_older]:
            timeline.replace(page, has_older=has_older)
            return None
        case ["trim", kept]:
            timeline.trim(kept)
            return None
        case ["write", temp_id]:
            return [timeline.write(draft(temp_id))]
        case [name, *arguments]:
            changes: list[Change] = getattr(timeline, name)(*arguments)
            return changes
    raise AssertionError(step)


@settings(max_examples=150, deadline=None)
@given(st.lists(_STEPS, max_size=30), st.integers(1, 6))
def test_a_screen_that_applies_the_changes_shows_the_entries(
    steps: list[tuple[Any, ...]], kept: int
) -> None:
    timeline, screen = Timeline(ME, kept=kept), Screen()
    ranks = {Status.SENT: 0, Status.DELIVERED: 1, Status.READ: 2}
    for step in steps:
        before = {entry.key: entry for entry in timeline.entries if entry.id is not None}
        changes = do(timeline, step)
        entries = list(timeline.entries)
        if changes is None:
            screen.shown = list(entries)
        else:
            screen.apply(changes)
        assert screen.shown == entries
        assert len(timeline) == len(entries)
        assert timeline.last == (entries[-1] if entries else None)
        # Every entry once, by one key, and found by it.
        assert len({entry.key for entry in entries}) == len(entries)
        ids = [entry.id for entry in entries if entry.id is not None]
        assert len(set(ids)) == len(ids)
        assert all(timeline.get(entry.key) == entry for entry in entries)
        # What the backend has before what it has not; numbers in their order.
        assert all(entry.id is None for entry in entries[len(ids) :])
        numbers = [int(id_) for id_ in ids if id_.isdecimal()]
        assert numbers == sorted(numbers)
        # No status goes back, and none is skipped among one's own.
        for entry in entries:
            if entry.key in before and entry.id == before[entry.key].id:
                assert ranks[entry.status] >= ranks[before[entry.key].status]
        if step[0] != "add_older":
            assert len(ids) <= max(kept, len(before))


@dataclass
class History:
    """What a database holds, and what of it comes when."""

    rows: list[Message]
    steps: list[tuple[Any, ...]]
    seen: int


@st.composite
def histories(draw: st.DrawFn) -> History:
    """A database, a page of it, and all that came later: doubled, overtaken, cut into pages."""
    ids: list[Id]
    if draw(st.booleans()):
        ids = [number if draw(st.booleans()) else str(number) for number in range(5, 17)]
    else:
        ids = [f"01J{letter}" for letter in "ABCDEFGHIJKL"]
    time = 0
    rows: list[Message] = []
    for index, id_ in enumerate(ids):
        time += draw(st.integers(0, 1))
        sender = draw(st.sampled_from([ME, ALI]))
        temp_id = f"t{index}" if sender == ME else None
        rows.append(message(id_, sender, content="same", sent_at=at(time), temp_id=temp_id))
    page_start = draw(st.integers(0, 5))
    seen = draw(st.integers(page_start + 1 if page_start else 0, 8))
    copies: list[tuple[Any, ...]] = []
    for index, row in enumerate(rows):
        own = str(row.sender_id) == str(ME)
        bare = message(row.id, row.sender_id, content="same", sent_at=row.sent_at)
        if own and index >= seen and draw(st.booleans()):
            copies.append(("add", bare, row.temp_id))  # the answer, which says whose it is
            copies.append(("add", bare, None))  # a page that does not
        else:
            copies.append(("add", bare if draw(st.booleans()) else row, row.temp_id))
        if draw(st.booleans()):
            copies.append(("add", bare, row.temp_id))
    start = draw(st.integers(page_start, len(rows) - 1))
    copies.append(("add_newer", rows[start:]))
    if page_start:
        copies.append(("add_older", rows[:page_start], False))
    shuffled = draw(st.permutations(copies))
    page = ("replace", rows[page_start:seen], page_start > 0)
    # The page may be answered after some of the events.
    late = draw(st.integers(0, 3)) if page_start == 0 and seen > 0 else 0
    steps = [*shuffled[:late], page, *shuffled[late:]]
    return History(rows, steps, seen)


@settings(max_examples=150, deadline=None)
@given(histories(), st.data())
def test_whatever_comes_when_and_how_often_the_end_is_what_the_database_holds(
    history: History, data: st.DataObject
) -> None:
    timeline = Timeline(ME)
    told: list[str | None] = []
    unsent = [row for row in history.rows[history.seen :] if str(row.sender_id) == str(ME)]
    written = [row for row in unsent if data.draw(st.booleans())]
    for row in written:
        assert row.temp_id is not None
        timeline.write(draft(row.temp_id, content="same"))
    for step in history.steps:
        told += [change.entry.id for change in do(timeline, step) or () if change.is_news]
    assert [entry.id for entry in timeline.entries] == [str(row.id) for row in history.rows]
    assert all(entry.id is not None for entry in timeline.entries)
    # Told of is each once that no page had brought before, and no draft.
    assert len(told) == len(set(told))
    news = {str(row.id) for row in history.rows[history.seen :]} - {str(r.id) for r in written}
    assert news <= set(told)

"""Who is signed in, and what those are told who watch them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from antiphon.server.users import Users


class Listener:
    """A connection that keeps what it is told."""

    def __init__(self) -> None:
        self.online: set[str] = set()
        self.told: list[tuple[str, list[str]]] = []

    def send(self, message: bytes) -> None:
        frame: dict[str, Any] = json.loads(message)
        assert frame["event"] == "pusher_internal:watchlist_events"
        for event in json.loads(frame["data"])["events"]:
            self.told.append((event["name"], event["user_ids"]))
            change = self.online.update if event["name"] == "online" else self.online.__isub__
            change(set(event["user_ids"]))


def test_who_signs_in_is_told_who_of_the_watchlist_is_here() -> None:
    users: Users[Listener] = Users()
    users.sign_in(Listener(), "bob", ())
    ann = Listener()
    users.sign_in(ann, "ann", ("bob", "eve"))
    assert ann.told == [("online", ["bob"]), ("offline", ["eve"])]


def test_a_user_is_here_from_the_first_connection_to_the_last() -> None:
    users: Users[Listener] = Users()
    ann, bob, bobs_phone = Listener(), Listener(), Listener()
    users.sign_in(ann, "ann", ("bob",))
    users.sign_in(bob, "bob", ())
    users.sign_in(bobs_phone, "bob", ())
    users.sign_out(bob)
    assert ann.told == [("offline", ["bob"]), ("online", ["bob"])]
    users.sign_out(bobs_phone)
    users.sign_out(bobs_phone)
    assert ann.told[2:] == [("offline", ["bob"])]


def test_who_signs_in_again_watches_whom_it_says_last() -> None:
    users: Users[Listener] = Users()
    ann = Listener()
    users.sign_in(ann, "ann", ("bob",))
    users.sign_in(ann, "ann", ("eve",))
    ann.told.clear()
    users.sign_in(Listener(), "bob", ())
    users.sign_in(Listener(), "eve", ())
    assert ann.told == [("online", ["eve"])]


def test_one_can_watch_oneself() -> None:
    users: Users[Listener] = Users()
    ann = Listener()
    users.sign_in(ann, "ann", ("ann",))
    assert ann.told == [("online", ["ann"])]


def test_who_watches_nobody_is_told_nothing() -> None:
    users: Users[Listener] = Users()
    ann = Listener()
    users.sign_in(ann, "ann", ())
    users.sign_in(Listener(), "bob", ())
    assert ann.told == []


def test_a_connection_that_never_signed_in_ends_without_a_word() -> None:
    Users[Listener]().sign_out(Listener())


names = st.sampled_from("abcd")
steps = st.tuples(st.integers(0, 5), names, st.lists(names, max_size=4, unique=True))


@given(st.lists(st.one_of(steps, st.integers(0, 5)), max_size=40))
def test_whoever_comes_and_goes_each_watcher_knows_who_is_here(steps: list[Any]) -> None:
    users: Users[Listener] = Users()
    here: dict[int, tuple[Listener, str, list[str]]] = {}
    for step in steps:
        number = step if isinstance(step, int) else step[0]
        if isinstance(step, int):
            if number in here:
                users.sign_out(here.pop(number)[0])
        elif number not in here:
            _, name, watchlist = step
            here[number] = (Listener(), name, watchlist)
            users.sign_in(here[number][0], name, tuple(watchlist))
        online = {name for _, name, _ in here.values()}
        for listener, _, watchlist in here.values():
            assert listener.online == online & set(watchlist)
    for listener, _, _ in here.values():
        users.sign_out(listener)
    assert not any(vars(users).values()), "nothing is left of those who went"

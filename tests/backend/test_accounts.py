from __future__ import annotations

from datetime import timedelta

import pytest
from argon2 import extract_parameters

from antiphon.backend import Store, accounts, hash_password
from antiphon.backend.accounts import Accounts, Guesses

from .harness import PASSWORD, PASSWORD_HASH


class HandTurnedClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_somebody_unknown_costs_as_much_as_a_wrong_password(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []

    def verify(password_hash: str, password: str) -> bool:
        verified.append(password_hash)
        return False

    monkeypatch.setattr(accounts, "_verify", verify)

    assert await Accounts(store, timedelta(days=1)).log_in("nobody@example.com", "x") is None

    (nobodys_hash,) = verified
    assert extract_parameters(nobodys_hash) == extract_parameters(await hash_password("x"))


async def test_a_hash_that_is_none_lets_nobody_in(store: Store) -> None:
    await store.users.create(
        first_name="Ali", last_name="", email="ali@example.com", password_hash="plain"
    )

    assert await Accounts(store, timedelta(days=1)).log_in("ali@example.com", "plain") is None


async def test_two_hashes_of_a_password_differ() -> None:
    assert await hash_password("secret") != await hash_password("secret")


async def test_a_session_is_found_by_its_token_until_it_expires(store: Store) -> None:
    await store.users.create(
        first_name="Ali", last_name="", email="ali@example.com", password_hash=PASSWORD_HASH
    )
    lasting = Accounts(store, timedelta(days=1))
    expired = Accounts(store, timedelta(days=-1))

    good = await lasting.log_in("ALI@example.com", PASSWORD)
    bad = await expired.log_in("ali@example.com", PASSWORD)

    assert good is not None
    assert bad is not None
    assert await lasting.user_of(good.token) == good.user
    assert await lasting.user_of(bad.token) is None
    assert good.token not in repr(good)


def test_the_eleventh_guess_within_a_minute_has_to_wait() -> None:
    clock = HandTurnedClock()
    guesses = Guesses(clock=clock)
    for second in range(10):
        clock.now = float(second)
        assert guesses.attempt("ali@example.com") == 0

    clock.now = 20.5
    assert guesses.attempt("Ali@Example.com") == 40
    assert guesses.attempt("john@example.com") == 0
    clock.now = 60.0
    assert guesses.attempt("ali@example.com") == 0
    assert guesses.attempt("ali@example.com") == 1


def test_who_waits_is_not_made_to_wait_longer_by_trying() -> None:
    clock = HandTurnedClock()
    guesses = Guesses(limit=1, clock=clock)
    assert guesses.attempt("ali@example.com") == 0

    clock.now = 59.0
    assert guesses.attempt("ali@example.com") == 1
    clock.now = 60.0
    assert guesses.attempt("ali@example.com") == 0


def test_a_success_forgets_the_failures_before_it() -> None:
    guesses = Guesses(limit=1, clock=HandTurnedClock())
    guesses.attempt("ali@example.com")

    guesses.succeeded("ALI@example.com")

    assert guesses.attempt("ali@example.com") == 0


def test_the_memory_for_guesses_is_bounded_and_drops_the_oldest() -> None:
    guesses = Guesses(limit=1, addresses=2, clock=HandTurnedClock())
    for name in ("first", "second", "third"):
        guesses.attempt(name)

    assert guesses.attempt("third") > 0
    assert guesses.attempt("second") > 0
    assert guesses.attempt("first") == 0

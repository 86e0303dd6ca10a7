from __future__ import annotations

import pytest

from antiphon.protocol.closing import Action, Code, action_for


@pytest.mark.parametrize(
    ("first", "last", "action"),
    [
        (0, 999, Action.BACK_OFF),
        (1000, 1015, Action.BACK_OFF),
        (1016, 2999, Action.BACK_OFF),
        (3000, 3999, Action.BACK_OFF),
        (4000, 4000, Action.USE_TLS),
        (4001, 4099, Action.STOP),
        (4100, 4199, Action.BACK_OFF),
        (4200, 4299, Action.RECONNECT),
        (4300, 4999, Action.STOP),
        (5000, 65535, Action.STOP),
    ],
)
def test_a_range_of_codes_means_one_action_at_both_ends(
    first: int, last: int, action: Action
) -> None:
    assert action_for(first) is action
    assert action_for(last) is action
    assert {action_for(code) for code in range(first, last + 1)} == {action}


def test_an_end_without_a_code_is_backed_off_from() -> None:
    assert action_for(None) is Action.BACK_OFF


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (Code.ABNORMAL, Action.BACK_OFF),
        (Code.TOO_BIG, Action.BACK_OFF),
        (Code.TLS_ONLY, Action.USE_TLS),
        (Code.UNKNOWN_APP, Action.STOP),
        (Code.OVER_QUOTA, Action.STOP),
        (Code.BAD_PROTOCOL, Action.STOP),
        (Code.UNAUTHORIZED, Action.STOP),
        (Code.OVER_CAPACITY, Action.BACK_OFF),
        (Code.RECONNECT, Action.RECONNECT),
        (Code.NO_PONG, Action.RECONNECT),
        (Code.INACTIVE, Action.RECONNECT),
        (Code.CLIENT_EVENT_REJECTED, Action.STOP),
    ],
)
def test_every_named_code_leads_to_its_action(code: Code, action: Action) -> None:
    assert action_for(code) is action


def test_the_codes_are_those_of_the_protocol() -> None:
    # Pusher protocol 7, *error codes*; RFC 6455 for the first two.
    assert {code.name: code.value for code in Code} == {
        "ABNORMAL": 1006,
        "TOO_BIG": 1009,
        "TLS_ONLY": 4000,
        "UNKNOWN_APP": 4001,
        "APP_DISABLED": 4003,
        "OVER_QUOTA": 4004,
        "BAD_PROTOCOL": 4007,
        "UNAUTHORIZED": 4009,
        "OVER_CAPACITY": 4100,
        "RECONNECT": 4200,
        "NO_PONG": 4201,
        "INACTIVE": 4202,
        "CLIENT_EVENT_REJECTED": 4301,
        "WATCHLIST_LIMIT": 4302,
    }

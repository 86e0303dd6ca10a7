from __future__ import annotations

import pytest

from antiphon.errors import InvalidName
from antiphon.protocol.channels import (
    MAX_CHANNEL_NAME,
    MAX_EVENT_NAME,
    Access,
    access_of,
    check_channel_name,
    check_event_name,
    is_cache_channel,
    is_internal_event,
    needs_authorization,
    takes_client_events,
    user_channel,
)

# name: access, kept in a cache, needs a signature, takes client events
KINDS = {
    "news": (Access.PUBLIC, False, False, False),
    "cache-news": (Access.PUBLIC, True, False, False),
    "private-user.1": (Access.PRIVATE, False, True, True),
    "private-cache-user.1": (Access.PRIVATE, True, True, True),
    "presence-room": (Access.PRESENCE, False, True, True),
    "presence-cache-room": (Access.PRESENCE, True, True, True),
    "private-encrypted-vault": (Access.ENCRYPTED, False, True, False),
    "private-encrypted-cache-vault": (Access.ENCRYPTED, True, True, False),
    "#server-to-user-1": (Access.USER, False, False, False),
    # A prefix counts with its dash, from the start, in lower case.
    "privatefoo": (Access.PUBLIC, False, False, False),
    "presencefoo": (Access.PUBLIC, False, False, False),
    "cachefoo": (Access.PUBLIC, False, False, False),
    "Private-x": (Access.PUBLIC, False, False, False),
    "my-private-x": (Access.PUBLIC, False, False, False),
    "private-cachefoo": (Access.PRIVATE, False, True, True),
    "private-encryptedfoo": (Access.PRIVATE, False, True, True),
    "presence-encrypted-x": (Access.PRESENCE, False, True, True),
    "private-": (Access.PRIVATE, False, True, True),
    "presence-": (Access.PRESENCE, False, True, True),
}


@pytest.mark.parametrize("channel", KINDS)
def test_a_prefix_says_what_kind_of_channel_it_is(channel: str) -> None:
    kind = (
        access_of(channel),
        is_cache_channel(channel),
        needs_authorization(channel),
        takes_client_events(channel),
    )
    assert kind == KINDS[channel]


def test_the_channel_of_a_user_is_made_from_the_id() -> None:
    assert user_channel("user-1") == "#server-to-user-user-1"
    assert access_of(user_channel("1")) is Access.USER


@pytest.mark.parametrize(
    "channel",
    [
        "a",
        "ok_-=@,.;1",
        "App.Models.User.1",
        "private-",
        "c" * MAX_CHANNEL_NAME,
        "#server-to-user-1",
        "#server-to-user-ann@example.com / ünï",
    ],
)
def test_a_name_of_the_allowed_characters_is_a_channel_name(channel: str) -> None:
    check_channel_name(channel)


@pytest.mark.parametrize(
    "channel",
    [
        "",
        "has space",
        "sl/ash",
        "colon:x",
        "a$b",
        "ünïcode",
        "new\nline",
        "ends in a newline\n",
        "end\n",
        "nul\x00",
        "#bare",
        "#server-to-user-",
        "#server-to-user-1\n",
        "#server-to-user-\x7f",
        "x#server-to-user-1",
    ],
)
def test_any_other_character_makes_it_none(channel: str) -> None:
    with pytest.raises(InvalidName, match="is no channel name"):
        check_channel_name(channel)


def test_a_channel_name_one_character_too_long_is_refused_with_its_length() -> None:
    with pytest.raises(InvalidName, match=r"at most 200 characters.* has 201"):
        check_channel_name("c" * (MAX_CHANNEL_NAME + 1))


def test_the_greatest_length_of_a_channel_name_is_a_setting() -> None:
    check_channel_name("c" * 164, 164)
    with pytest.raises(InvalidName, match="at most 164 characters"):
        check_channel_name("c" * 165, 164)


@pytest.mark.parametrize("event", ["pusher:ping", "pusher:", "pusher_internal:member_added"])
def test_names_of_the_protocol_cannot_be_published(event: str) -> None:
    assert is_internal_event(event)
    with pytest.raises(InvalidName, match="belongs to the protocol"):
        check_event_name(event)


@pytest.mark.parametrize(
    "event", ["message", "client-typing", "App\\Events\\MessageSent", ".x", "pusher", "PUSHER:PING"]
)
def test_every_other_name_can(event: str) -> None:
    assert not is_internal_event(event)
    check_event_name(event)


def test_the_length_of_an_event_name_is_checked_at_both_ends() -> None:
    check_event_name("e")
    check_event_name("e" * MAX_EVENT_NAME)
    for event in ("", "e" * (MAX_EVENT_NAME + 1)):
        with pytest.raises(InvalidName, match="1 to 200 characters"):
            check_event_name(event)

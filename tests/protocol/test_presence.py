from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.protocol.presence import Member, parse_channel_data, parse_member, parse_members


def members(presence: Any) -> dict[str, Member]:
    return parse_members(json.dumps({"presence": presence}))


def test_members_come_by_id_in_the_order_of_ids() -> None:
    presence = {"ids": ["b", "a"], "hash": {"a": {"name": "Ann"}, "b": None}, "count": 2}
    assert members(presence) == {"b": Member("b"), "a": Member("a", {"name": "Ann"})}
    assert list(members(presence)) == ["b", "a"]


def test_members_are_read_from_bare_json_too() -> None:
    assert parse_members({"presence": {"ids": ["a"], "hash": {}}}) == {"a": Member("a")}


def test_ids_that_are_numbers_become_text() -> None:
    presence = {"count": 2, "ids": [7, 8], "hash": {"7": {"n": 1}, "8": {"n": 2}}}
    assert members(presence) == {"7": Member("7", {"n": 1}), "8": Member("8", {"n": 2})}


def test_the_same_id_as_number_and_text_is_one_member() -> None:
    assert members({"ids": [7, "7"], "hash": {"7": None}}) == {"7": Member("7")}


def test_a_list_in_place_of_the_hash_is_indexed_by_id() -> None:
    # Seen on Reverb 1.10: PHP writes an array whose keys are 0..n as a list.
    presence = {"count": 2, "ids": [0, 1], "hash": [{"n": 0}, {"n": 1}]}
    assert members(presence) == {"0": Member("0", {"n": 0}), "1": Member("1", {"n": 1})}


def test_an_empty_list_in_place_of_the_hash_is_an_empty_hash() -> None:
    assert members({"count": 0, "ids": [], "hash": []}) == {}
    assert members({"count": 1, "ids": ["u"], "hash": []}) == {"u": Member("u")}


@pytest.mark.parametrize("ids", [None, {"0": "a", "2": "b"}, "a", 5])
def test_without_a_list_of_ids_the_hash_names_the_members(ids: Any) -> None:
    hash_ = {"a": 1, "b": 2}
    assert members({"ids": ids, "hash": hash_}) == {"a": Member("a", 1), "b": Member("b", 2)}


def test_ids_that_are_none_are_left_out() -> None:
    assert members({"ids": ["", None, True, 1.5, ["a"], {}, "a"], "hash": 5}) == {"a": Member("a")}


@pytest.mark.parametrize(
    "raw", [None, "", "{}", "[]", "5", "plain", {}, {"presence": []}, {"presence": None}]
)
def test_data_without_presence_has_no_members(raw: Any) -> None:
    assert parse_members(raw) == {}


@pytest.mark.parametrize(
    ("raw", "member"),
    [
        ('{"user_id":"7","user_info":{"name":"Ann"}}', Member("7", {"name": "Ann"})),
        ({"user_id": "7"}, Member("7")),
        ('{"user_id":7}', Member("7")),
        ('{"user_id":0,"user_info":[]}', Member("0", [])),
        ('{"user_id":-1}', Member("-1")),
    ],
)
def test_a_member_has_an_id_and_perhaps_information(raw: Any, member: Member) -> None:
    assert parse_member(raw) == member


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "plain",
        "[]",
        "7",
        "{}",
        '{"user_info":{"x":1}}',
        '{"user_id":""}',
        '{"user_id":null}',
        '{"user_id":true}',
        '{"user_id":1.5}',
        '{"user_id":["7"]}',
        {"user_id": {}},
    ],
)
def test_without_an_id_there_is_no_member(raw: Any) -> None:
    assert parse_member(raw) is None


def test_channel_data_names_the_member_its_authorizer_signed() -> None:
    member = Member("10", {"name": "Mr. Pusher"})
    assert parse_channel_data('{"user_id":10,"user_info":{"name":"Mr. Pusher"}}') == member


@pytest.mark.parametrize(
    "text", ["", "nojson", "[]", '{"user_info":{}}', "\ud800", "[" * 1_000_000]
)
def test_channel_data_that_names_nobody_has_no_member(text: str) -> None:
    assert parse_channel_data(text) is None

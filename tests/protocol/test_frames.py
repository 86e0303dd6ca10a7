from __future__ import annotations

import json
import sys
from typing import Any

import msgspec
import pytest

from antiphon.errors import MalformedFrame
from antiphon.protocol.frames import (
    ClientFrame,
    Event,
    decode_client_frame,
    decode_data,
    decode_data_as,
    decode_event,
    encode,
)


class Note(msgspec.Struct):
    text: str


# Read by a client


def test_every_field_of_a_frame_is_read() -> None:
    event = decode_event(
        r'{"event":"message","channel":"room","data":"{\"n\":1}","user_id":"7","position":12}'
    )
    assert event == Event(name="message", channel="room", raw='{"n":1}', user_id="7")
    assert event.data == {"n": 1}


def test_a_frame_needs_a_name_and_nothing_else() -> None:
    event = decode_event('{"event":"message"}')
    assert event == Event(name="message")
    assert event.data is None


@pytest.mark.parametrize("wrap", [str, str.encode, lambda text: memoryview(text.encode())])
def test_a_frame_is_read_from_text_bytes_and_views(wrap: Any) -> None:
    assert decode_event(wrap('{"event":"é","data":"☃"}')) == Event(name="é", raw="☃")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (r'"{\"a\":1}"', {"a": 1}),
        (r'"[1,2]"', [1, 2]),
        (r'"\"quoted\""', "quoted"),
        ('"5"', 5),
        ('"null"', None),
        ('"plain text"', "plain text"),
        ('""', ""),
        (r'"{half"', "{half"),
        ('{"a":1}', {"a": 1}),
        ("[]", []),
        ("5", 5),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
    ],
)
def test_data_may_be_json_in_a_string_a_plain_string_or_bare_json(data: str, value: Any) -> None:
    assert decode_event(f'{{"event":"e","data":{data}}}').data == value


@pytest.mark.parametrize(
    ("user_id", "read"), [("7", "7"), ("0", "0"), ('"7"', "7"), ("null", None), ("true", "True")]
)
def test_a_user_id_is_text_whatever_it_was(user_id: str, read: str | None) -> None:
    event = decode_event(f'{{"event":"e","channel":"c","data":"d","user_id":{user_id}}}')
    assert event == Event(name="e", channel="c", raw="d", user_id=read)


def test_a_user_id_that_is_a_number_does_not_need_a_channel() -> None:
    event = decode_event('{"event":"e","channel":null,"user_id":7}')
    assert event == Event(name="e", user_id="7")


def test_an_event_does_not_change() -> None:
    event = decode_event('{"event":"e"}')
    with pytest.raises(AttributeError):
        event.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "{",
        '{"event":"e"',
        '{"event":"e"}x',
        '{"event":"e"}{"event":"e"}',
        r'{"event":"\ud800"}',
        '{"event":"\ud800"}',
        '{"event":"e","data":NaN}',
        '{"event":"e","data":1e999}',
        '{"event":"e","data":' + "9" * 5_000 + "}",
    ],
)
def test_text_that_is_no_json_is_no_frame(text: str) -> None:
    with pytest.raises(MalformedFrame, match="no JSON"):
        decode_event(text)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b'{"event":"\xff"}', b"\x00", b""])
def test_bytes_that_are_no_utf_8_are_no_frame(raw: bytes) -> None:
    for payload in (raw, memoryview(raw)):
        with pytest.raises(MalformedFrame, match="no JSON"):
            decode_event(payload)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "42",
        '"text"',
        "null",
        "true",
        "{}",
        '{"event":null}',
        '{"event":5}',
        '{"event":["e"]}',
        '{"event":{"a":1}}',
        '{"event":""}',
        '{"data":"{}","channel":"c"}',
    ],
)
def test_json_without_an_event_name_is_no_frame(text: str) -> None:
    with pytest.raises(MalformedFrame, match="without an event name"):
        decode_event(text)


@pytest.mark.parametrize("channel", ["5", "true", '["c"]', '{"a":1}'])
def test_a_channel_that_is_no_text_makes_it_no_frame(channel: str) -> None:
    with pytest.raises(MalformedFrame, match="unusable channel"):
        decode_event(f'{{"event":"e","channel":{channel}}}')


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"event":"e","data":['])
def test_nesting_that_never_ends_is_no_frame(opening: str) -> None:
    with pytest.raises(MalformedFrame, match=r"nested too deep|no JSON|event name"):
        decode_event(opening * 1_000_000)


def test_nesting_too_deep_is_named_as_the_reason() -> None:
    with pytest.raises(MalformedFrame, match="nested too deep"):
        decode_event('{"event":"e","data":' + "[" * 1_000_000 + "]" * 1_000_000 + "}")


def test_an_error_quotes_the_beginning_of_the_frame_only() -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode_event("x" * 1_000_000)
    assert len(str(caught.value)) < 300
    assert "x" * 80 + "'…" in str(caught.value)


@pytest.mark.parametrize("text", ["[1]", "[1]".ljust(80)])
def test_an_error_about_a_short_frame_quotes_all_of_it(text: str) -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode_event(text.encode())
    assert str(caught.value).endswith(repr(text))


# Data


def test_data_nested_too_deep_stays_the_string_it_is() -> None:
    text = "[" * 1_000_000 + "]" * 1_000_000
    assert decode_data(text) == text


@pytest.mark.parametrize("text", ["\ud800", '"\ud800"', r'"\ud800"', "9" * 5_000, "1e999"])
def test_data_that_no_decoder_takes_stays_the_string_it_is(text: str) -> None:
    assert decode_data(text) == text


@pytest.mark.parametrize("value", [None, True, 5, 1.5, [1], {"a": 1}])
def test_data_that_is_no_string_is_taken_as_it_is(value: Any) -> None:
    assert decode_data(value) is value


def test_data_is_decoded_once_and_not_twice() -> None:
    assert decode_data(json.dumps(json.dumps({"a": 1}))) == '{"a":1}'.replace(":", ": ")


def test_a_json_string_within_a_string_is_read_as_the_inner_text() -> None:
    assert decode_data_as('"quoted"', msgspec.json.Decoder(str)) == "quoted"


@pytest.mark.parametrize("raw", ['{"text":"hello"}', {"text": "hello"}])
def test_data_is_read_into_a_type_from_text_and_from_values(raw: Any) -> None:
    assert decode_data_as(raw, msgspec.json.Decoder(Note)) == Note("hello")


@pytest.mark.parametrize("raw", ['{"text":5}', "[]", "null", {"text": 5}, None, 5, "plain"])
def test_data_that_does_not_fit_the_type_is_refused(raw: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_data_as(raw, msgspec.json.Decoder(Note))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ('{"text":5}', r"Expected `str`, got `int` - at `\$\.text`"),
        ({"text": 5}, r"Expected `str`, got `int` - at `\$\.text`"),
        ("plain", "Expected `object`, got `str`"),
    ],
)
def test_a_refusal_says_where_data_does_not_fit(raw: Any, words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        decode_data_as(raw, msgspec.json.Decoder(Note))


@pytest.mark.parametrize("text", ["plain text", "", "\ud800", "☃"])
def test_a_plain_string_is_read_as_text(text: str) -> None:
    assert decode_data_as(text, msgspec.json.Decoder(str)) == text


@pytest.mark.parametrize(
    "text", ["42", "5 minutes", "true love", "null", "[smile] hi", "{half", "-1e5", "[" * 1_000_000]
)
def test_a_plain_string_that_begins_like_json_is_read_as_text_where_text_is_asked_for(
    text: str,
) -> None:
    # Who triggers "hello" and "5 minutes" sends two strings; a handler bound to `str` gets both.
    assert decode_data_as(text, msgspec.json.Decoder(str)) == text


# Read by a server


def test_the_data_of_a_client_frame_stays_as_it_stands() -> None:
    frame = decode_client_frame('{"event":"client-x","channel":"private-c","data": {"a" :1.0} }')
    assert (frame.event, frame.channel) == ("client-x", "private-c")
    assert bytes(frame.data).strip() == b'{"a" :1.0}'


def test_a_client_frame_without_data_has_empty_data() -> None:
    assert decode_client_frame('{"event":"pusher:ping"}') == ClientFrame("pusher:ping")
    assert bytes(decode_client_frame('{"event":"pusher:ping"}').data) == b""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "42",
        "null",
        "{}",
        '{"event":null}',
        '{"event":5}',
        '{"event":{"a":1}}',
        '{"event":"e","channel":5}',
        '{"event":"e","data":tru}',
        '{"event":"e","data":"\n"}',
        r'{"event":"e","data":"\q"}',
        r'{"event":"e","data":"\ud800"}',
        '{"event":"e","data":01}',
        '{"event":"\ud800"}',
        '{"event":"e","data":' + "[" * 1_000_000 + "]" * 1_000_000 + "}",
        "[" * 1_000_000,
    ],
)
def test_anything_else_from_a_client_is_no_frame(text: str) -> None:
    with pytest.raises(MalformedFrame):
        decode_client_frame(text)


def test_a_client_frame_with_an_empty_name_is_no_frame() -> None:
    with pytest.raises(MalformedFrame, match="no name"):
        decode_client_frame('{"event":""}')


# Written


def test_fields_stand_in_the_order_of_reverb_and_absent_ones_not_at_all() -> None:
    assert encode("e") == b'{"event":"e"}'
    assert encode("e", {}) == b'{"event":"e","data":{}}'
    assert encode("e", "text", "c", "7") == (
        b'{"event":"e","data":"text","channel":"c","user_id":"7"}'
    )


def test_data_that_is_already_json_is_passed_on_untouched() -> None:
    assert encode("e", msgspec.Raw(b'{"a" :1.0}')) == b'{"event":"e","data":{"a" :1.0}}'


@pytest.mark.parametrize("data", ['{"a":1}', "plain", {"a": [1, None]}, [1], 5, 1.5, True, "☃\x00"])
def test_what_is_written_is_read_back(data: Any) -> None:
    event = decode_event(encode("é", data, "room", "7"))
    assert event == Event(name="é", channel="room", raw=data, user_id="7")


def test_every_depth_of_nesting_is_either_read_or_refused() -> None:
    depths = range(1, sys.getrecursionlimit() + 50)
    read = []
    for depth in depths:
        try:
            event = decode_event('{"event":"e","data":' + "[" * depth + "]" * depth + "}")
        except MalformedFrame:
            read.append(False)
        else:
            read.append(isinstance(event.data, list))
    assert read == sorted(read, reverse=True)  # readable up to a depth, and never again
    assert read[:500] == [True] * 500

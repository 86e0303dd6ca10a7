"""What a hostile peer may send: frames by hypothesis, and some too large to be drawn."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

EVENTS = [
    "pusher:connection_established",
    "pusher:error",
    "pusher:ping",
    "pusher:pong",
    "pusher:subscribe",
    "pusher:unsubscribe",
    "pusher:signin",
    "pusher:signin_success",
    "pusher:subscription_error",
    "pusher:cache_miss",
    "pusher:made_up",
    "pusher_internal:subscription_succeeded",
    "pusher_internal:subscription_count",
    "pusher_internal:member_added",
    "pusher_internal:member_removed",
    "pusher_internal:watchlist_events",
    "client-typing",
    "client-",
    "message",
    "",
]
CHANNELS = [
    "news",
    "private-room",
    "private-encrypted-room",
    "presence-room",
    "cache-news",
    "#server-to-user-ann",
    "#",
    "",
    "has space",
    "c" * 201,
]
FIELDS = [
    "activity_timeout",
    "auth",
    "channel",
    "channel_data",
    "code",
    "count",
    "error",
    "event",
    "events",
    "hash",
    "id",
    "ids",
    "message",
    "name",
    "presence",
    "socket_id",
    "status",
    "subscription_count",
    "user_data",
    "user_id",
    "user_ids",
    "user_info",
]

# JSON, and what only looks like it, as it stands on the wire.
FRAGMENTS = [
    "null",
    "true",
    "0",
    "-1",
    "-0",
    "1.5",
    "4001",
    "4009",
    "4200",
    "4301",
    "1e308",
    "1e999",
    "-1e-999",
    "9" * 20,
    "9" * 400,
    "9" * 4_300,
    "9" * 5_000,
    "01",
    "NaN",
    "Infinity",
    "tru",
    '""',
    '"5"',
    '"4001"',
    '"' + "9" * 5_000 + '"',
    '"\\ud800"',
    '"\\ud83d\\ude00"',
    '"\ud800"',
    '"\x00"',
    '"\\u0000"',
    '"\\q"',
    '"open',
    '"{}"',
    '"{\\"channel\\":\\"news\\"}"',
    '"{\\"code\\":4009}"',
    '"[[[[[["',
    "[]",
    "{}",
    "[[[]]]",
    '{"a":{"a":{"a":{}}}}',
    "[" * 300 + "]" * 300,
    "[" * 2_000,
    "[" * 2_000 + "]" * 2_000,
    '{"a":' * 1_500 + "1" + "}" * 1_500,
    '"' + "[" * 5_000 + '"',
    '{"channel":"news"}',
    '{"channel":"private-room"}',
    '{"channel":"presence-room","auth":":","channel_data":"{}"}',
    '{"channel":5,"auth":[]}',
    '{"auth":"x","user_data":"nojson"}',
    '{"auth":"x","user_data":"{\\"id\\":\\"1\\"}"}',
    '{"auth":"x","user_data":"{\\"id\\":1}"}',
    '{"presence":{"ids":[7,"7",null],"hash":[1,2]}}',
    '{"presence":{"ids":{"0":1},"hash":{"":null}}}',
    '{"socket_id":"1.2","activity_timeout":' + "9" * 400 + "}",
    '{"code":"' + "9" * 5_000 + '"}',
    '{"user_data":"{\\"id\\":null}"}',
    '{"events":[{"name":[],"user_ids":[{}]},5,{"user_ids":5}]}',
]

_SHAPES = [
    '{{"event":{0},"data":{1},"channel":{2}}}',
    '{{"event":{0},"data":{1}}}',
    '{{"event":{0},"channel":{2},"data":{1},"user_id":{1},"extra":{2}}}',
    '{{"data":{1},"event":{0}}}',
    '{{"event":{1},"channel":{0}}}',
    '{{"event":{0},"event":{1},"channel":{2},"channel":{2}}}',
    "[{0},{1},{2}]",
    "{1}",
    '{{"event":{0},"data":{1}',
    ' {{ "event" : {0} , "data" : {1} , "channel" : {2} }} ',
    '{{"event":{0}}}{{"event":{0}}}',
]

assembled_text: st.SearchStrategy[str] = st.builds(
    str.format,
    st.sampled_from(_SHAPES),
    st.sampled_from([json.dumps(event) for event in EVENTS]),
    st.sampled_from(FRAGMENTS),
    st.sampled_from([json.dumps(channel) for channel in CHANNELS] + FRAGMENTS),
)
"""Frames put together from known parts: cheap to draw, and often all but right."""

_texts = st.text(st.characters(exclude_categories=()), max_size=20)
_scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(3_999, 4_400)
    | st.floats()
    | _texts
    | st.sampled_from(CHANNELS)
)
_values: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | _texts, inner, max_size=4)
    ),
    max_leaves=8,
)

# Shaped like a frame, its fields of any type, `data` perhaps encoded twice.
_shaped: st.SearchStrategy[str] = st.builds(
    json.dumps,
    st.fixed_dictionaries(
        {"event": st.sampled_from(EVENTS) | _values},
        optional={
            "channel": st.sampled_from(CHANNELS) | _values,
            "data": _values | _values.map(json.dumps),
            "user_id": _values,
            "position": _values,
        },
    ),
    ensure_ascii=st.booleans(),
)

_mangled: st.SearchStrategy[str] = st.builds(
    lambda text, at, instead: text[: at % (len(text) + 1)] + instead,
    _shaped | assembled_text,
    st.integers(0, 400),
    _texts,
)

hostile_text: st.SearchStrategy[str] = assembled_text | _shaped | _mangled | _texts
"""Any text a stranger may send."""

hostile_payload: st.SearchStrategy[str | bytes | memoryview] = st.one_of(
    hostile_text,
    hostile_text.map(lambda text: text.encode("utf-8", "surrogatepass")),
    hostile_text.map(lambda text: memoryview(text.encode("utf-8", "surrogatepass"))),
    st.binary(max_size=60),
)
"""Any payload of a message, as a transport may hand it over."""

MEGABYTES = 10 * 1024 * 1024

LARGE: dict[str, Callable[[], str]] = {
    "a long string": lambda: '{"event":"e","data":"' + "x" * MEGABYTES + '"}',
    "a long name": lambda: '{"event":"' + "x" * MEGABYTES + '"}',
    "a long client event": lambda: (
        '{"event":"client-x","channel":"private-room","data":"' + "x" * MEGABYTES + '"}'
    ),
    "a long channel": lambda: (
        '{"event":"pusher:subscribe","data":{"channel":"' + "x" * MEGABYTES + '"}}'
    ),
    "a long auth": lambda: (
        '{"event":"pusher:subscribe","data":{"channel":"private-x","auth":"'
        + "x" * MEGABYTES
        + '"}}'
    ),
    "a long sign-in": lambda: (
        '{"event":"pusher:signin","data":{"auth":"x","user_data":"' + "[" * MEGABYTES + '"}}'
    ),
    "brackets": lambda: "[" * MEGABYTES,
    "objects": lambda: '{"a":' * (MEGABYTES // 5),
    "nested data": lambda: (
        '{"event":"e","data":' + "[" * (MEGABYTES // 2) + "]" * (MEGABYTES // 2) + "}"
    ),
    "nested data in a string": lambda: '{"event":"e","data":"' + "[" * MEGABYTES + '"}',
    "digits": lambda: '{"event":"e","data":' + "9" * MEGABYTES + "}",
    "digits in an error": lambda: (
        '{"event":"pusher:error","data":{"code":"' + "9" * MEGABYTES + '"}}'
    ),
    "escapes": lambda: '{"event":"e","data":"' + "\\u0000" * (MEGABYTES // 6) + '"}',
    "astral text": lambda: '{"event":"e","data":"' + "😀" * (MEGABYTES // 4) + '"}',
    "many fields": lambda: '{"event":"e",' + '"a":1,' * (MEGABYTES // 6) + '"b":2}',
    "spaces": lambda: " " * MEGABYTES,
    "zeros": lambda: "\x00" * MEGABYTES,
    "surrogates": lambda: "\ud800" * (MEGABYTES // 3),
}


def nested(depth: int) -> str:
    """JSON of some depth."""
    return "[" * depth + "]" * depth


def depths() -> range:
    """Every depth up to one that no decoder takes."""
    return range(1, sys.getrecursionlimit() + 50)

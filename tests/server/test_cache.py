"""What is kept for those who join a cache channel later."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from antiphon.server import cache as module
from antiphon.server.cache import Cache, Cached


def test_a_channel_keeps_its_last_event() -> None:
    cache = Cache(10.0)
    assert cache.get("cache-a", 0.0) is None
    cache.put("cache-a", b"one", "1", 0.0)
    cache.put("cache-a", b"two", "2", 5.0)
    cache.put("cache-b", b"other", "3", 5.0)
    assert cache.get("cache-a", 5.0) == Cached(b"two", "2", 15.0)


def test_an_event_is_kept_for_its_time_and_no_longer() -> None:
    cache = Cache(10.0)
    cache.put("cache-a", b"one", "1", 0.0)
    assert cache.get("cache-a", 9.9) is not None
    assert cache.get("cache-a", 10.0) is None


def test_what_has_expired_takes_no_memory() -> None:
    cache = Cache(10.0)
    for n in range(100):
        cache.put(f"cache-{n}", b"x", "x", 0.0)
    cache.put("cache-new", b"x", "x", 10.0)
    assert list(cache._kept) == ["cache-new"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3_000)), max_size=60))
def test_beyond_its_bytes_the_oldest_go(puts: list[tuple[int, int]]) -> None:
    cache = Cache(10.0)
    with patch.object(module, "MAX_BYTES", 5_000):
        for number, size in puts:
            cache.put(f"cache-{number}", b"x" * size, "", 0.0)
            sizes = [module._size(name, kept) for name, kept in cache._kept.items()]
            assert cache._size == sum(sizes) <= 5_000
            assert cache.get(f"cache-{number}", 0.0) is not None


def test_an_event_larger_than_all_room_is_not_kept() -> None:
    cache = Cache(10.0)
    with patch.object(module, "MAX_BYTES", 100):
        cache.put("cache-a", b"x" * 200, "", 0.0)
    assert cache.get("cache-a", 0.0) is None

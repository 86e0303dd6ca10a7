"""How often subscribers are told how many they are."""

from __future__ import annotations

import asyncio
from collections import Counter
from unittest.mock import patch

from antiphon.server import counts as module
from antiphon.server.counts import LARGE, Counts

from .test_webhooks import hastily


class Channels:
    """How many there are, and what was told of it."""

    def __init__(self) -> None:
        self.sizes: Counter[str] = Counter()
        self.told: list[tuple[str, int]] = []
        self.counts = Counts(lambda name: self.sizes[name], lambda *told: self.told.append(told))

    def change(self, name: str, by: int = 1) -> None:
        self.sizes[name] += by
        self.counts.changed(name)


async def turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_turns_changes_are_told_once_with_the_last_number() -> None:
    channels = Channels()
    for _ in range(3):
        channels.change("a")
    channels.change("b")
    assert channels.told == []
    await turn()
    assert channels.told == [("a", 3), ("b", 1)]
    channels.change("a", -1)
    await turn()
    assert channels.told[2:] == [("a", 2)]


@hastily
async def test_of_a_large_channel_the_first_change_is_told_at_once_and_the_next_later() -> None:
    channels = Channels()
    with patch.object(module, "EVERY", 0.05):
        channels.change("a", LARGE + 1)
        await turn()
        for _ in range(5):
            channels.change("a")
            await turn()
        assert channels.told == [("a", LARGE + 1)]
        await asyncio.sleep(0.1)
        assert channels.told[1:] == [("a", LARGE + 6)]
    channels.counts.close()


async def test_a_channel_that_has_become_small_is_told_of_at_once_again() -> None:
    channels = Channels()
    with patch.object(module, "EVERY", 0.05):
        channels.change("a", LARGE + 1)
        await turn()
        channels.change("a", -1)
        await turn()
        assert channels.told[1:] == [("a", LARGE)]
        assert not channels.counts._told_at


async def test_after_the_end_nothing_is_told() -> None:
    channels = Channels()
    with patch.object(module, "EVERY", 0.01):
        channels.change("a", LARGE + 1)
        await turn()
        channels.change("a")
        channels.change("b")
        channels.counts.close()
        await asyncio.sleep(0.05)
        assert channels.told == [("a", LARGE + 1)]

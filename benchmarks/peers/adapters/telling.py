"""What all adapters share: the task they are given, and the lines they print."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

EVENT = "event"
SLOW = 0.2


@dataclass
class Task:
    """What an adapter is to do.

    Attributes:
        port: Where the server is, on 127.0.0.1.
        channels: What to subscribe to.
        auth_url: Who signs.
        timeout: Seconds for every time-out that the client lets one set, None for its own.
        slow: Whether a handler takes 0.2 seconds.
    """

    port: int
    channels: list[str]
    auth_url: str
    timeout: float | None
    slow: bool


def task() -> Task:
    return Task(**json.loads(sys.argv[1]))


def say(**fields: Any) -> None:
    print(json.dumps(fields, default=repr), flush=True)


def say_event(channel: str, data: Any) -> None:
    text = data if isinstance(data, str) else json.dumps(data, default=repr)
    if len(text) > 200:
        text = f"{len(text)} {hashlib.sha256(text.encode()).hexdigest()}"
    say(channel=channel, data=text)


async def watch(state: Callable[[], str]) -> None:
    """Tell the state whenever it is another one; for ever."""
    last = ""
    while True:
        if (now := state().lower()) != last:
            last = now
            say(state=now)
        await asyncio.sleep(0.05)

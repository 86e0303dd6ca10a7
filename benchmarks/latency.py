"""From the moment a publish was due to the frame's arrival, at every subscriber."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack

from .loader import CHANNEL
from .measure import python
from .native import Native

WARM_UP = 2.0
_LEAD = 2.0


def delays(
    native: Native,
    subscribe_at: int,
    publish_at: int,
    *,
    subscribers: int,
    per_second: int,
    seconds: float,
    idle: int = 0,
) -> list[float]:
    """The delays of all deliveries after a warm-up, in milliseconds, sorted.

    Args:
        native: Has the subscribers.
        subscribe_at: The port at which the subscribers are.
        publish_at: The port at which the publisher is.
        subscribers: How many get each event.
        per_second: Publishes.
        seconds: How long, without the warm-up.
        idle: How many further connections are held, in a channel in which nothing is published.
    """
    count = round(per_second * (WARM_UP + seconds))
    with ExitStack() as stack:
        if idle:
            stack.enter_context(native.listeners([subscribe_at], idle, "idle"))
        crowd = stack.enter_context(native.listeners([subscribe_at], subscribers))
        begins = time.monotonic_ns() + round(_LEAD * 1e9)
        crowd.expect(begins + round(WARM_UP * 1e9), count * subscribers)
        publisher = subprocess.Popen(
            python("publishing", publish_at, begins, per_second, count, CHANNEL)
        )
        stack.callback(publisher.wait)
        stack.callback(publisher.kill)
        return crowd.delays()


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

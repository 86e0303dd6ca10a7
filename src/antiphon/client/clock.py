"""The clock by which a connection is judged: it goes on while the machine sleeps.

Python's own monotonic clock stands still then on Linux and macOS, so that a laptop would wake up
and take an hour of silence for none. Where there is no better clock, that one has to do.
"""

from __future__ import annotations

import time
from functools import partial

__all__ = ["monotonic"]

if hasattr(time, "CLOCK_BOOTTIME"):
    monotonic = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
else:
    monotonic = partial(time.monotonic)

"""The two clocks of this process, in microseconds."""

from __future__ import annotations

import time


def wall_clock_us() -> int:
    """Unix time."""
    return time.time_ns() // 1000


def monotonic_us() -> int:
    """A clock that never goes back. No other process has the same one."""
    return time.monotonic_ns() // 1000

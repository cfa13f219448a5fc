"""Wait for what a test needs: look at it again and again, until it is there or the time is up."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(holds: Callable[[], T], seconds: float = 5.0, every: float = 0.02) -> T:
    """What `holds` returns once that is true; its last value where the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        value = holds()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(every)


async def until(holds: Callable[[], object], seconds: float = 5.0, every: float = 0.005) -> float:
    """Wait in an event loop until `holds`, a function or a coroutine function, is true; how long that took."""
    began = time.monotonic()
    while not await _value_of(holds):
        assert time.monotonic() < began + seconds, f"it did not happen within {seconds} s"
        await asyncio.sleep(every)
    return time.monotonic() - began


async def _value_of(holds: Callable[[], object]) -> object:
    value = holds()
    return await value if inspect.isawaitable(value) else value

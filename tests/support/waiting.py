"""Wait for what a test needs: look at it again and again, until it is there or the time is up."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

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


def during(seconds: float, every: float = 0.02) -> Iterator[None]:
    """Yield again and again until the time is over: for what must hold all the time, and for steady callers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(every)


async def during_async(seconds: float, every: float = 0.02) -> AsyncIterator[None]:
    """The same in an event loop."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        await asyncio.sleep(every)


async def next_turn() -> None:
    """One turn of the event loop, for tests of what happens in each."""
    await asyncio.sleep(0)


def is_waiting(task: asyncio.Task[Any]) -> bool:
    """Whether a task has begun, and now waits for something."""
    coroutine = task.get_coro()
    return inspect.iscoroutine(coroutine) and coroutine.cr_await is not None

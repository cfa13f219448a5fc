"""Work that waits for its turn, so that no loop turn is long, however many connections keep the server busy."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Runs what was put off, first come first served: in each loop turn for `seconds`, and at most `most` of it."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_scheduled = False

    def __len__(self) -> int:
        return len(self._waiting)

    def later(self, run: Callable[[], None]) -> None:
        """Put `run` off to one of the next loop turns."""
        self._waiting.append(run)
        self._schedule()

    async def next(self) -> None:
        """Let others go first."""
        future = asyncio.get_running_loop().create_future()
        self.later(lambda: None if future.done() else future.set_result(None))
        await future

    def _schedule(self) -> None:
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        clock = asyncio.get_running_loop().time
        end = clock() + self._seconds
        try:
            for _ in range(min(len(self._waiting), self._most)):
                self._waiting.popleft()()
                if clock() >= end:
                    break
        finally:  # whatever one of them raises, the others still get their turn
            self._schedule()

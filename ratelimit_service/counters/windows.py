"""Where plain limits are counted: in Redis by windows.lua, or in this process by its twin."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import Any, Protocol

from ratelimit_service.clocks import wall_clock_us
from ratelimit_service.counters.scripts import Arguments, Script
from ratelimit_service.limits import NEVER
from ratelimit_service.windows import Reading, Spend, passes, slot_us

_COMPACT_AT = 64


class Windows(Protocol):
    """Counts all spends of a request, or none. `spend` raises CountersUnavailable when it cannot tell.

    No two spends of a request have the same key.
    """

    async def spend(self, spends: Sequence[Spend]) -> tuple[int, list[Reading]]:
        """The time by the store's clock, and what each counter held before."""
        ...


class Scripted(Protocol):
    """A store that runs a script; `counters.redis.RedisCounters` is one."""

    async def call(self, script: Script, arguments: Arguments) -> Any: ...


class RedisWindows:
    """In Redis, shared by all replicas. One server: the counters of a request have no slot in common."""

    def __init__(self, store: Scripted) -> None:
        self._store = store
        self._script = Script("windows.lua")

    async def spend(self, spends: Sequence[Spend], now_us: int = 0) -> tuple[int, list[Reading]]:
        """One decision. `now_us` replaces the server's clock, in tests only."""
        values = [
            number
            for _, unit, limit, hits, is_shadow, is_quota in spends
            for number in (unit.window_us, slot_us(unit), limit, hits, is_shadow + 2 * is_quota)
        ]
        names = [f"mgw:rls:{spend.key}" for spend in spends]
        now_us, *numbers = await self._store.call(self._script, (len(names), *names, now_us, *values))
        return now_us, [Reading(*numbers[at : at + 3]) for at in range(0, len(numbers), 3)]


class MemoryWindows:
    """In this process alone. Of more than `max_counters` counters the least recently used gives way."""

    def __init__(self, max_counters: int) -> None:
        self._most = max_counters
        self._counters: OrderedDict[str, _Log | _Slots] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counters)

    async def spend(self, spends: Sequence[Spend], now_us: int = 0) -> tuple[int, list[Reading]]:
        now_us = now_us or wall_clock_us()
        counters = [self._counter(spend) for spend in spends]
        readings = [counter.read(spend, now_us) for counter, spend in zip(counters, spends, strict=True)]
        if passes(spends, readings):
            for counter, spend, reading in zip(counters, spends, readings, strict=True):
                if not reading.wait_us and spend.hits:
                    counter.add(spend, now_us)
        return now_us, readings

    def _counter(self, spend: Spend) -> _Log | _Slots:
        counter = self._counters.get(spend.key)
        if counter is None:
            counter = self._counters[spend.key] = _Slots() if slot_us(spend.unit) else _Log()
            if len(self._counters) > self._most:
                self._counters.popitem(last=False)
        self._counters.move_to_end(spend.key)
        return counter


class _Log:
    """Moments at which hits leave, oldest first, and the total up to each."""

    def __init__(self) -> None:
        self._leaves: list[int] = []
        self._totals: list[int] = []
        self._gone = 0
        """The total of what was let go of."""

    def read(self, spend: Spend, now_us: int) -> Reading:
        first = bisect_right(self._leaves, now_us)
        base = self._totals[first - 1] if first else self._gone
        used = (self._totals[-1] if self._totals else self._gone) - base
        leaves_us = self._leaves[first] if first < len(self._leaves) else 0
        excess = used + spend.hits - spend.limit
        if spend.hits > spend.limit:
            return Reading(used, leaves_us, NEVER)
        if excess <= 0:
            return Reading(used, leaves_us, 0)
        return Reading(used, leaves_us, self._leaves[bisect_left(self._totals, base + excess)] - now_us)

    def add(self, spend: Spend, now_us: int) -> None:
        latest = self._leaves[-1] if self._leaves else 0
        total = self._totals[-1] if self._totals else self._gone
        self._leaves.append(max(now_us + spend.unit.window_us, latest))
        self._totals.append(total + spend.hits)
        first = bisect_right(self._leaves, now_us)
        if first >= _COMPACT_AT:
            self._gone = self._totals[first - 1]
            del self._leaves[:first], self._totals[:first]


class _Slots:
    """Hits by the moment at which their slot leaves."""

    def __init__(self) -> None:
        self._hits: dict[int, int] = {}

    def read(self, spend: Spend, now_us: int) -> Reading:
        live = sorted((moment, hits) for moment, hits in self._hits.items() if moment > now_us)
        used = sum(hits for _, hits in live)
        leaves_us = live[0][0] if live else 0
        excess = used + spend.hits - spend.limit
        if spend.hits > spend.limit:
            return Reading(used, leaves_us, NEVER)
        wait_us = 0
        for moment, hits in live:
            if excess <= 0:
                break
            excess, wait_us = excess - hits, moment - now_us
        return Reading(used, leaves_us, wait_us)

    def add(self, spend: Spend, now_us: int) -> None:
        slot = slot_us(spend.unit)
        leaves_us = (now_us // slot + 1) * slot + spend.unit.window_us
        self._hits[leaves_us] = self._hits.get(leaves_us, 0) + spend.hits
        for moment in list(islice(self._hits, len(self._hits) - 1)):
            if moment <= now_us:
                del self._hits[moment]

"""After an outage: tells a store that is back what this replica let pass meanwhile, and what the store has lost."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import ResponseError

from ratelimit_service.clocks import wall_clock_us
from ratelimit_service.counters.base import StoreMetrics
from ratelimit_service.counters.link import Link
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.counters.scripts import Arguments, Script, reconcile_arguments, store_keys
from ratelimit_service.counters.tally import Tally
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.limits import SECOND_US, CounterKey

_SECONDS = 1.0
_AT_ONCE = 32
_MARK_SECONDS = 86_400

RunScript = Callable[[Link, Script, Arguments], Awaitable[Any]]


class Settlement:
    """What one replica owes one store. `owns` tells whether a key of the store is on this server."""

    script = Script("reconcile.lua")

    def __init__(
        self, local: MemoryCounters, metrics: StoreMetrics, owns: Callable[[str], bool], run_script: RunScript
    ) -> None:
        self._local = local
        self._metrics = metrics
        self._owns = owns
        self._run_script = run_script
        self._mark: bytes | None = None

    async def settle(self, link: Link, mark_key: str) -> None:
        """Tell the store of every caller that counts. Bounded in time: the least recently seen are left out."""
        mark = await _read_mark(link, mark_key)
        is_emptied = None not in (mark, self._mark) and mark != self._mark
        ahead_us = await _read_clock(link) - wall_clock_us()
        await self._tell_all(link, ahead_us, is_emptied)
        self._mark = mark or self._mark

    async def _tell_all(self, link: Link, ahead_us: int, is_emptied: bool) -> None:
        deadline = time.monotonic() + _SECONDS
        waiting = self._owed(is_emptied)
        told = 0
        while waiting and time.monotonic() < deadline:
            batch, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            outcomes = await asyncio.gather(
                *(self._tell(link, key, tally, ahead_us, is_emptied) for key, tally in batch), return_exceptions=True
            )
            if link.has_failed:
                raise CountersUnavailable("lost again while it was told what was spent")
            told += sum(not isinstance(outcome, BaseException) for outcome in outcomes)
            if not waiting:
                waiting = [(key, tally) for key, tally in self._owed(False) if tally.log.unconfirmed]
        self._metrics.reconciled(told, len(waiting))

    def _owed(self, is_emptied: bool) -> list[tuple[CounterKey, Tally]]:
        """What a store may not know. Only of one that has lost everything is it known that it lost others' hits."""
        return [
            (key, tally)
            for key, tally in self._local.active()
            if (is_emptied or tally.log.confirmed_here or tally.log.unconfirmed) and self._owns(store_keys(key).bucket)
        ]

    async def _tell(self, link: Link, key: CounterKey, tally: Tally, ahead_us: int, is_emptied: bool) -> None:
        tally.log.gather()
        arguments = reconcile_arguments(key, tally, wall_clock_us(), ahead_us, is_emptied)
        tally.log.confirm_all(ahead_us)
        await self._run_script(link, self.script, arguments)


async def _read_mark(link: Link, key: str) -> bytes | None:
    """A store's mark; another one means that it came back empty. It is made by whoever comes first.

    None where something else has the key: that is no reason to take the store for one that is away.
    """
    await link.ask("SET", key, secrets.token_hex(8), "NX", "EX", _MARK_SECONDS)
    try:
        mark: bytes | None = await link.ask("GET", key)
    except ResponseError:
        return None
    return mark


async def _read_clock(link: Link) -> int:
    seconds, microseconds = await link.ask("TIME")
    return int(seconds) * SECOND_US + int(microseconds)

"""Makes the store's state known: in health, in metrics, and in one log line an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from ratelimit_service.counters.eviction import Eviction
from ratelimit_service.metrics import Metrics

log = structlog.get_logger()

STORE = "store"
"""What health checks ask about to learn whether decisions are exact."""

EVICTS = "store.evicts"
"""What they ask about to learn whether the store forgets counters: serving means that it does."""


class StoreMonitor:
    """What the counters report to."""

    def __init__(self, metrics: Metrics, set_health: Callable[[str, bool], Coroutine[Any, Any, None]]) -> None:
        self._metrics = metrics
        self._set_health = set_health
        self._is_up: bool | None = None
        self._evicts = False
        self._tells = True
        self._health_tasks: set[asyncio.Task[None]] = set()

    def store_up(self) -> None:
        self._change(True)
        log.info("store.up")

    def store_down(self, reason: str) -> None:
        """Called at every failed attempt; only the first of an outage is news."""
        if self._is_up is not False:
            self._metrics.store_outages.inc()
            log.warning("store.down", reason=reason)
        self._change(False)

    def store_error(self, reason: str) -> None:
        self._metrics.store_errors.inc()
        log.debug("store.error", reason=reason)

    def batch_sent(self, requests: int) -> None:
        self._metrics.batch_size.observe(requests)

    def batch_answered(self, seconds: float) -> None:
        self._metrics.store_seconds.observe(seconds)

    def reconciled(self, callers: int, left_out: int) -> None:
        self._metrics.reconciled.inc(callers)
        self._metrics.unreconciled.inc(left_out)

    def eviction(self, found: Eviction | None) -> None:
        """Called about once a minute with what the store says. Told when that changes, or counters were dropped."""
        if found is None:
            if self._tells:
                log.warning("store.eviction_unknown", effect="whether the store drops counters is not checked")
            self._tells = False
            return
        self._tells = True
        self._metrics.store_evicts.set(int(found.drops_counters))
        self._metrics.store_evicted.set(found.evicted_keys)
        if found.newly_evicted or (found.drops_counters and not self._evicts):
            log.warning(
                "store.evicts",
                maxmemory_policy=found.policy,
                evicted_keys=found.evicted_keys,
                newly_evicted=found.newly_evicted,
                effect="an evicted counter is a limit forgotten: set maxmemory-policy to noeviction",
            )
        elif self._evicts and not found.drops_counters:
            log.info("store.keeps", maxmemory_policy=found.policy)
        if found.drops_counters is not self._evicts:
            self._evicts = found.drops_counters
            self._tell_health(EVICTS, self._evicts)

    def _change(self, is_up: bool) -> None:
        if self._is_up is is_up:
            return
        self._is_up = is_up
        self._metrics.store_up.set(int(is_up))
        self._tell_health(STORE, is_up)

    def _tell_health(self, name: str, holds: bool) -> None:
        task = asyncio.create_task(self._set_health(name, holds))
        self._health_tasks.add(task)
        task.add_done_callback(self._health_tasks.discard)

"""Makes the store's state known: in health, in metrics, and in one log line an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from ratelimit_service.metrics import Metrics

log = structlog.get_logger()


class StoreMonitor:
    """What the counters report to."""

    def __init__(self, metrics: Metrics, set_health: Callable[[bool], Coroutine[Any, Any, None]]) -> None:
        self._metrics = metrics
        self._set_health = set_health
        self._is_up: bool | None = None
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

    def _change(self, is_up: bool) -> None:
        if self._is_up is is_up:
            return
        self._is_up = is_up
        self._metrics.store_up.set(int(is_up))
        task = asyncio.create_task(self._set_health(is_up))
        self._health_tasks.add(task)
        task.add_done_callback(self._health_tasks.discard)

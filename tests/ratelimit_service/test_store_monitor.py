"""What becomes known of the store: in health, in metrics, and in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from ratelimit_service.counters.eviction import Eviction
from ratelimit_service.metrics import Metrics
from ratelimit_service.store_monitor import STORE, StoreMonitor
from tests.support.waiting import until


class Watched:
    """A monitor, what health was told, and what was logged."""

    def __init__(self, logs: list[Any]) -> None:
        self.metrics = Metrics()
        self.health: list[bool] = []
        self.evicts: list[bool] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.monitor = StoreMonitor(self.metrics, self.set_health)
        self._logs = logs

    async def set_health(self, name: str, holds: bool) -> None:
        await self.goes_on.wait()
        (self.health if name == STORE else self.evicts).append(holds)

    @property
    def events(self) -> list[str]:
        return [entry["event"] for entry in self._logs]

    def value(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"mgw_ratelimit_{name}")


@pytest.fixture
def watched() -> Iterator[Watched]:
    with capture_logs() as logs:
        yield Watched(logs)


async def test_an_outage_is_told_once(watched: Watched) -> None:
    """However many attempts fail; the next one is news again."""
    monitor = watched.monitor
    monitor.store_up()
    for _ in range(3):
        monitor.store_down("refused")
    assert (watched.value("store_outages_total"), watched.value("store_up")) == (1, 0)

    monitor.store_up()
    assert watched.value("store_up") == 1
    monitor.store_down("stalled")

    assert watched.events == ["store.up", "store.down", "store.up", "store.down"]
    assert watched.value("store_outages_total") == 2
    await until(lambda: len(watched.health) == 4)
    assert watched.health == [True, False, True, False]


async def test_a_store_that_was_never_there_is_an_outage(watched: Watched) -> None:
    """From the first failed attempt on."""
    watched.monitor.store_down("no such host")

    await until(lambda: watched.health == [False])
    assert (watched.value("store_outages_total"), watched.value("store_up")) == (1, 0)


async def test_health_hears_of_changes_alone_and_in_their_order(watched: Watched) -> None:
    """Also where it is slow to take them."""
    watched.goes_on.clear()
    for _ in range(2):
        watched.monitor.store_up()
        watched.monitor.store_up()
        watched.monitor.store_down("refused")
        watched.monitor.store_down("refused")

    watched.goes_on.set()
    await until(lambda: len(watched.health) >= 4)

    assert watched.health == [True, False, True, False]


async def test_an_error_of_the_store_is_no_outage(watched: Watched) -> None:
    """It is counted, and is no line in a log at its usual level."""
    watched.monitor.store_up()
    watched.monitor.store_error("READONLY")
    watched.monitor.store_error("OOM")

    assert watched.value("store_errors_total") == 2
    assert (watched.value("store_outages_total"), watched.value("store_up")) == (0, 1)


async def test_batches_and_reconciled_counters_are_counted(watched: Watched) -> None:
    """How many went in one write, how long it took, and what was left out after an outage."""
    watched.monitor.batch_sent(3)
    watched.monitor.batch_sent(5)
    watched.monitor.batch_answered(0.25)
    watched.monitor.reconciled(7, 2)

    assert (watched.value("batch_requests_sum"), watched.value("batch_requests_count")) == (8, 2)
    assert watched.value("store_seconds_sum") == 0.25
    assert (watched.value("settled_callers_total"), watched.value("unsettled_callers_total")) == (7, 2)


async def test_a_store_that_evicts(watched: Watched) -> None:
    """It is told when that begins and ends, and again when it has dropped something."""
    for found in (
        Eviction("noeviction", 5),
        Eviction("allkeys-lru", 5),
        Eviction("allkeys-lru", 5),
        Eviction("allkeys-lru", 9, 4),
        Eviction("noeviction", 9),
        Eviction("noeviction", 9),
        Eviction("noeviction", 10, 1),
    ):
        watched.monitor.eviction(found)

    await until(lambda: len(watched.evicts) == 3)
    assert watched.evicts == [True, False, True]
    assert watched.events == ["store.evicts", "store.evicts", "store.keeps", "store.evicts"]
    assert (watched.value("store_evicts"), watched.value("store_evicted_keys")) == (1, 10)
    assert watched.health == []


async def test_a_store_that_does_not_say(watched: Watched) -> None:
    """That is told once, and what was known of it stays."""
    watched.monitor.eviction(Eviction("volatile-ttl", 0))
    watched.monitor.eviction(None)
    watched.monitor.eviction(None)

    assert watched.events == ["store.evicts", "store.eviction_unknown"]
    assert watched.value("store_evicts") == 1

"""The controller: what Envoys report becomes caps for them, a log line and a metric, and an operator's word is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from controlplane import protos
from controlplane.breakers.controller import BreakerController
from controlplane.breakers.override_file import OverrideFile
from controlplane.breakers.registry import CALM_SECONDS, OPEN_SECONDS, BreakerRegistry
from controlplane.errors import StateUnwritable
from controlplane.protos import load_stats, prometheus_metrics
from controlplane.publish import Change, Publisher
from controlplane.store.memory import MemoryStore
from controlplane.xds.cache import Group, SnapshotCache
from controlplane.xds.resources import CLUSTER
from controlplane.xds.runtime import RENEW_SECONDS, RuntimeLayers
from tests.support.clock import FakeClock
from tests.support.configs import TOPOLOGY, default_text
from tests.support.waiting import until

CAP = "circuit_breakers.sona.default.max_requests"


class Kept:
    """A controller of the default document's breakers, which another test's metrics do not reach."""

    def __init__(self, clock: FakeClock, directory: Path | None) -> None:
        self.cache = SnapshotCache()
        self.publisher = Publisher(MemoryStore(), self.cache, TOPOLOGY, {}, frozenset(), None)
        self.layers = RuntimeLayers()
        self.directory = directory
        self.clock = clock
        self.controller = self.another()

    def another(self) -> BreakerController:
        return BreakerController(
            BreakerRegistry(self.clock),
            self.layers,
            OverrideFile(self.directory),
            self.publisher.current_config,
            self.publisher.use_forces,
            self.clock,
        )

    def reports(self, **sona: int) -> None:
        message = load_stats.LoadStatsRequest()
        message.cluster_stats.add(cluster_name="mgw-authz").upstream_locality_stats.add(total_error_requests=99)
        stats = message.cluster_stats.add(cluster_name="sona", total_dropped_requests=sona.pop("dropped", 0))
        stats.upstream_locality_stats.add(**sona)
        self.controller.on_load("envoy-0", message)

    def ejects(self, hosts: float) -> None:
        families = []
        for name, value in (("membership_total", 1.0), ("outlier_detection.ejections_active", hosts), ("other", 7.0)):
            family = prometheus_metrics.MetricFamily(name=f"cluster.{name}")
            metric = family.metric.add(gauge=prometheus_metrics.Gauge(value=value))
            metric.label.add(name="envoy.cluster_name", value="sona")
            families.append(family)
        self.controller.on_metrics("envoy-0", families)

    def cap(self) -> Any:
        """What the Envoy is told of the service, as its runtime has it."""
        return self.layers.says_something("envoy-0") and self.controller.registry.layers()["envoy-0"][CAP]

    def cluster(self) -> Any:
        resource = self.cache.snapshot(Group()).resources[CLUSTER]["sona"]
        return protos.cluster.Cluster.FromString(protos.Any.FromString(resource).value)


@pytest.fixture
async def make(clock: FakeClock) -> Callable[..., Any]:
    async def make_one(directory: Path | None = None) -> Kept:
        kept = Kept(clock, directory)
        await kept.publisher.publish(Change(default_text(), "application/yaml", "test", "", None))
        kept.controller.restore()
        kept.reports()
        return kept

    return make_one


def changes(to: str) -> float:
    return REGISTRY.get_sample_value("mgw_breaker_changes_total", {"service": "sona", "to": to}) or 0.0


async def test_failures_become_caps_a_log_line_and_a_metric(make: Callable[..., Any], clock: FakeClock) -> None:
    """Ten failures in load reports: capped at zero; after the open time at one; a success, and free."""
    kept = await make()
    before = changes("open")
    with capture_logs() as logs:
        kept.reports(total_issued_requests=10, total_error_requests=10)
        capped = [kept.cap()]
        pace = kept.controller.report_seconds()
        clock.advance(2)
        kept.reports(total_error_requests=50, dropped=50)
        capped.append(kept.cap())
        kept.reports(total_issued_requests=1, total_successful_requests=1)

    assert (capped, kept.cap(), pace) == ([0, 1], False, OPEN_SECONDS)
    assert [entry["event"] for entry in logs] == ["breaker.open", "breaker.half_open", "breaker.closed"]
    assert {entry["service"] for entry in logs} == {"sona"}
    assert changes("open") == before + 1
    assert REGISTRY.get_sample_value("mgw_breaker_state", {"service": "sona", "state": "closed"}) == 1
    assert REGISTRY.get_sample_value("mgw_breaker_state", {"service": "sona", "state": "open"}) == 0
    assert kept.controller.report_seconds() == CALM_SECONDS


async def test_connections_that_cannot_be_made_are_failures(make: Callable[..., Any]) -> None:
    """They reach no host, and are counted all the same."""
    kept = await make()
    kept.reports(total_error_requests=10, total_fail_connections=10)

    assert kept.controller.registry.state("sona") == "open"


async def test_an_ejection_opens_it_and_silence_forgets_it(make: Callable[..., Any]) -> None:
    """Gauges tell of an ejection; when they end, what they said is over, so that the next one is news."""
    kept = await make()
    kept.ejects(1)
    opened = kept.controller.registry.state("sona")
    kept.controller.on_silence("envoy-0")

    assert opened == "open"
    assert not kept.controller.registry.breakers()["sona"].views["envoy-0"].is_ejected


async def test_who_is_not_heard_is_not_capped(make: Callable[..., Any]) -> None:
    """The end of an Envoy's reports is the end of its caps."""
    kept = await make()
    kept.reports(total_issued_requests=10, total_error_requests=10)
    assert kept.cap() == 0

    kept.controller.on_load_end("envoy-0")

    assert not kept.layers.says_something("envoy-0")


async def test_time_goes_on_and_caps_are_renewed(make: Callable[..., Any], clock: FakeClock) -> None:
    """The loop ends the open time without any report, and renews what would expire; a new pace wakes who waits."""
    kept = await make()
    paced = kept.controller.pace_change()
    kept.reports(total_issued_requests=10, total_error_requests=10)
    assert paced.is_set()
    renewed = kept.layers.next_change()
    running = asyncio.create_task(kept.controller.run())
    try:
        clock.advance(RENEW_SECONDS)
        await asyncio.wait_for(renewed.wait(), 2)
        still = kept.controller.registry.state("sona")
        clock.advance(1)
        await until(lambda: kept.controller.registry.state("sona") != still, 2)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    assert (still, kept.controller.registry.state("sona")) == ("open", "half_open")


@pytest.mark.parametrize(("force", "cap", "enforcing"), [("open", 0, 100), ("closed", 1_000_000, 0)])
async def test_a_force_is_in_the_cluster_and_outlives_the_process(
    make: Callable[..., Any], tmp_path: Path, force: Any, cap: int, enforcing: int
) -> None:
    """Held open its cluster takes nothing; held closed nothing is ejected; the next process goes on with it."""
    kept = await make(tmp_path)
    kept.controller.force("sona", force, "because", "editor")
    held = kept.cluster()
    kept.publisher.use_forces({})
    free = kept.cluster()
    again = kept.another()
    again.restore()

    assert held == kept.cluster() != free
    (thresholds,) = held.circuit_breakers.thresholds
    assert thresholds.max_requests.value == cap
    outlier = held.outlier_detection
    assert outlier.enforcing_consecutive_5xx.value == outlier.enforcing_failure_percentage.value == enforcing
    assert (again.registry.state("sona"), again.registry.forced()["sona"].reason) == (force, "because")
    again.force("sona", "auto", "", "editor")
    assert kept.cluster() == free
    assert OverrideFile(tmp_path).load() == {}


async def test_what_cannot_be_kept_is_not_done(make: Callable[..., Any], tmp_path: Path) -> None:
    """A disk that takes nothing leaves the breaker as it was."""
    kept = await make(tmp_path / "state")
    (tmp_path / "state").write_text("a file where the directory would be")

    with pytest.raises(StateUnwritable):
        kept.controller.force("sona", "open", "", "editor")

    assert (kept.controller.registry.state("sona"), kept.controller.registry.forced()) == ("closed", {})

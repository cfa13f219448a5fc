"""Where breakers meet the world: reports come in, caps go out, and every change is logged and counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

import structlog

from controlplane import metrics
from controlplane.breakers.override_file import OverrideFile
from controlplane.breakers.registry import EJECTED, MEMBERS, BreakerRegistry, Force, Override
from controlplane.breakers.state_machine import Count, State
from controlplane.config.model import GatewayConfig
from controlplane.xds.runtime import RENEW_SECONDS, RuntimeLayers

log = structlog.get_logger()

TICK_SECONDS = 0.02


class BreakerController:
    """Feeds the registry, and tells what follows from it. Takes Envoys' reports from the discovery server."""

    def __init__(
        self,
        registry: BreakerRegistry,
        layers: RuntimeLayers,
        file: OverrideFile,
        config: Callable[[], GatewayConfig | None],
        use_forces: Callable[[Mapping[str, Force]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`config` returns the configuration in force; `use_forces` makes it hold services open or closed, by name."""
        self.registry = registry
        self._current_config = config
        self._use_forces = use_forces
        self._layers = layers
        self._file = file
        self._clock = clock
        self._shown: dict[str, tuple[State, bool]] = {}
        self._config: GatewayConfig | None = None
        self._seconds = registry.report_seconds()
        self._paced = asyncio.Event()
        self._renew_at = clock()

    # -- what Envoys report

    def on_metrics(self, node: str, families: Iterable[Any]) -> None:
        gauges: dict[str, dict[str, float]] = {}
        for service, name, value in _cluster_gauges(families):
            gauges.setdefault(service, {})[name] = value
        self.registry.gauges(node, gauges)
        self._settle()

    def on_silence(self, node: str) -> None:
        """Its ejections are not known any more."""
        self.registry.gauges(node, {service: {EJECTED: 0} for service in self.registry.breakers()})
        self._settle()

    def on_load(self, node: str, message: Any) -> None:
        counts = {each.cluster_name: _count(each) for each in message.cluster_stats}
        self.registry.report(node, counts, confirmed=self._layers.is_confirmed(node))
        self._settle()

    def on_load_end(self, node: str) -> None:
        self.registry.lose(node)
        self._settle()

    def report_seconds(self) -> float:
        return self._seconds

    def pace_change(self) -> asyncio.Event:
        return self._paced

    # -- what an operator wants

    def force(self, service: str, force: Force, reason: str, by: str) -> None:
        """Hold a breaker, or let it go. Raises KeyError for a service that there is not, and StateUnwritable."""
        if service not in self.registry.breakers():
            raise KeyError(service)
        forced = Override(force, reason, by, time.time())
        wanted = {name: held for name, held in self.registry.forced().items() if name != service}
        self._file.save(wanted | ({service: forced} if force != "auto" else {}))
        self.registry.force(service, forced)
        log.info("breaker.forced", service=service, force=force, reason=reason, by=by)
        self._tell()

    def restore(self) -> None:
        """Hold what was held before the process started. Raises StateUnwritable."""
        self._look()
        for service, forced in self._file.load().items():
            if service in self.registry.breakers():
                self.registry.force(service, forced)
        self._tell()

    def _tell(self) -> None:
        self._use_forces({service: forced.force for service, forced in self.registry.forced().items()})
        self._settle()

    # -- what follows

    async def run(self) -> None:
        """Let time go on, until cancelled."""
        while True:
            try:
                self._turn()
            except Exception:  # the loop is all that ends an open time: one bad turn must not be its last
                log.exception("breaker.turn_failed")
            await asyncio.sleep(TICK_SECONDS)

    def _turn(self) -> None:
        self._look()
        self.registry.tick()
        self._settle()
        if self._clock() >= self._renew_at:
            self._renew_at = self._clock() + RENEW_SECONDS
            if not self._layers.is_empty:
                self._layers.renew()

    def _look(self) -> None:
        config = self._current_config()
        if config is not None and config is not self._config:
            self._config = config
            self.registry.use(config.services)

    def _settle(self) -> None:
        """Tell what changed: to the log, to whoever scrapes, to Envoys."""
        for change in self.registry.changes():
            note = log.info if change.after == "closed" else log.warning
            note(f"breaker.{change.after}", service=change.service, before=change.before, why=change.why)
            metrics.BREAKER_CHANGES.labels(service=change.service, to=change.after).inc()
        for service in self.registry.breakers():
            shown = self.registry.state(service), service in self.registry.forced()
            if self._shown.get(service) != shown:
                self._shown[service] = shown
                _show(service, *shown)
        self._layers.set(self.registry.layers())
        seconds = self.registry.report_seconds()
        if seconds != self._seconds:
            self._seconds = seconds
            paced, self._paced = self._paced, asyncio.Event()
            paced.set()


def _show(service: str, state: State, is_forced: bool) -> None:
    for each in get_args(State):
        metrics.BREAKER_STATE.labels(service=service, state=each).set(each == state)
    metrics.BREAKER_FORCED.labels(service=service).set(is_forced)


def _count(stats: Any) -> Count:
    """A cluster's part of a load report. Priorities and localities are of no interest here."""
    parts = stats.upstream_locality_stats
    return Count(
        issued=sum(part.total_issued_requests for part in parts),
        successes=sum(part.total_successful_requests for part in parts),
        errors=sum(part.total_error_requests for part in parts),
        in_progress=sum(part.total_requests_in_progress for part in parts),
        dropped=stats.total_dropped_requests,
        unconnected=sum(part.total_fail_connections for part in parts),
    )


def _cluster_gauges(families: Iterable[Any]) -> Iterator[tuple[str, str, float]]:
    for family in families:
        name = family.name.removeprefix("cluster.")
        if name not in (EJECTED, MEMBERS):
            continue
        for metric in family.metric:
            for label in metric.label:
                if label.name == "envoy.cluster_name":
                    yield label.value, name, metric.gauge.value

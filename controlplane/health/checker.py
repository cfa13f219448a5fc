"""How the gateway and what is behind it are: probes side by side, one short answer kept for a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from controlplane.breakers.state_machine import State
from controlplane.config.model import GatewayConfig, Service

PROBE_TIMEOUT_SECONDS = 1.0
KEEP_SECONDS = 1.0

Probe = Callable[[], Awaitable[bool]]

FAULTS: Mapping[str, str] = {
    "redis": "redis drops counters when its memory is full, and a dropped counter is a limit forgotten: "
    "set its maxmemory-policy to noeviction",
}
"""What may be wrong with a dependency that works."""


@dataclass(frozen=True)
class Report:
    """What the probes found: services and dependencies by name, and which dependencies have a fault."""

    services: Mapping[str, bool] = field(default_factory=dict)
    dependencies: Mapping[str, bool] = field(default_factory=dict)
    faulty: frozenset[str] = frozenset()


class HealthChecker:
    """Probes on demand, at most once in KEEP_SECONDS however many ask."""

    def __init__(
        self,
        probe_service: Callable[[Service], Awaitable[bool]],
        probe_dependencies: Mapping[str, Probe],
        clock: Callable[[], float] = time.monotonic,
        *,
        probe_faults: Mapping[str, Probe] | None = None,
    ) -> None:
        """`probe_faults` tell of a dependency whether it has the fault that FAULTS names."""
        self._probe_service = probe_service
        self._probe_dependencies = probe_dependencies
        self._probe_faults = probe_faults or {}
        self._clock = clock
        self._report = Report()
        self._fresh_until = float("-inf")
        self._lock = asyncio.Lock()

    async def report(self, config: GatewayConfig) -> Report:
        """The newest report, no older than KEEP_SECONDS."""
        async with self._lock:
            if self._clock() >= self._fresh_until:
                self._report = await self._probe(config)
                self._fresh_until = self._clock() + KEEP_SECONDS
            return self._report

    async def _probe(self, config: GatewayConfig) -> Report:
        services, dependencies, faults = await asyncio.gather(
            _ask_all({service.name: self._probe_service(service) for service in config.services}),
            _ask_all({name: probe() for name, probe in self._probe_dependencies.items()}),
            _ask_all({name: probe() for name, probe in self._probe_faults.items()}),
        )
        return Report(services, dependencies, frozenset(name for name, has_it in faults.items() if has_it))


async def _ask_all(probes: Mapping[str, Awaitable[bool]]) -> dict[str, bool]:
    return dict(zip(probes, await asyncio.gather(*map(_bounded, probes.values())), strict=True))


async def _bounded(probe: Awaitable[bool]) -> bool:
    try:
        return await asyncio.wait_for(probe, PROBE_TIMEOUT_SECONDS)
    except TimeoutError:
        return False


def health(
    config: GatewayConfig, report: Report, breaker: Callable[[str], State], version: str, uptime_seconds: int
) -> tuple[int, dict[str, object]]:
    """The status code and body of GET /health. 503 only if every critical service is down."""
    checks = {
        service.name: {
            "status": _word(report.services.get(service.name, False) and breaker(service.name) != "open"),
            "circuit_breaker": breaker(service.name),
        }
        for service in config.services
    }
    up = {name: check["status"] == "healthy" for name, check in checks.items()}
    critical = [up[service.name] for service in config.services if service.critical]
    unhealthy = bool(critical) and not any(critical)
    everything = all(up.values()) and all(report.dependencies.values()) and not report.faulty
    body: dict[str, object] = {
        "status": "unhealthy" if unhealthy else "healthy" if everything else "degraded",
        "version": version,
        "uptime_seconds": uptime_seconds,
        "checks": checks,
        "dependencies": {
            name: "degraded" if well and name in report.faulty else _word(well)
            for name, well in report.dependencies.items()
        },
    }
    if report.faulty:
        body["warnings"] = [FAULTS[name] for name in sorted(report.faulty)]
    return (503 if unhealthy else 200), body


def readiness(report: Report, configured: bool) -> tuple[int, dict[str, object]]:
    """The status code and body of GET /health/ready. A sick upstream does not take the gateway out of rotation."""
    ready = configured and report.dependencies.get("authz", False)
    body: dict[str, object] = {
        "ready": ready,
        "services": dict(report.services),
        "dependencies": dict(report.dependencies),
    }
    return (200 if ready else 503), body


def _word(well: bool) -> str:
    return "healthy" if well else "unhealthy"

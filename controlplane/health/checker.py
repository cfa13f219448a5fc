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


@dataclass(frozen=True)
class Report:
    """What the probes found: services and dependencies by name."""

    services: Mapping[str, bool] = field(default_factory=dict)
    dependencies: Mapping[str, bool] = field(default_factory=dict)


class HealthChecker:
    """Probes on demand, at most once in KEEP_SECONDS however many ask."""

    def __init__(
        self,
        probe_service: Callable[[Service], Awaitable[bool]],
        probe_dependencies: Mapping[str, Probe],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probe_service = probe_service
        self._probe_dependencies = probe_dependencies
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
        services = [service.name for service in config.services]
        probes = [self._probe_service(service) for service in config.services]
        probes += [probe() for probe in self._probe_dependencies.values()]
        answers = await asyncio.gather(*(_bounded(probe) for probe in probes))
        dependencies = zip(self._probe_dependencies, answers[len(services) :], strict=True)
        return Report(dict(zip(services, answers, strict=False)), dict(dependencies))


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
    everything = all(up.values()) and all(report.dependencies.values())
    body: dict[str, object] = {
        "status": "unhealthy" if unhealthy else "healthy" if everything else "degraded",
        "version": version,
        "uptime_seconds": uptime_seconds,
        "checks": checks,
        "dependencies": {name: _word(well) for name, well in report.dependencies.items()},
    }
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

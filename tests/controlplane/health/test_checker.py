"""Health: what the probes find, and what is said about it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controlplane.breakers.state_machine import State
from controlplane.config.model import Service
from controlplane.health.checker import FAULTS, HealthChecker, Report, health, readiness
from tests.support.configs import a_config, a_service

SERVICES = [a_service("a", critical=True), a_service("b", critical=True), a_service("c")]
WELL = {"redis": True, "authz": True, "ratelimit": True}


@pytest.mark.parametrize(
    ("down", "open_breakers", "dependencies", "status", "word"),
    [
        ("", "", WELL, 200, "healthy"),
        ("c", "", WELL, 200, "degraded"),
        ("a", "", WELL, 200, "degraded"),
        ("ac", "", WELL, 200, "degraded"),
        ("ab", "", WELL, 503, "unhealthy"),
        ("abc", "", WELL, 503, "unhealthy"),
        ("", "c", WELL, 200, "degraded"),
        ("a", "b", WELL, 503, "unhealthy"),
        ("", "", WELL | {"redis": False}, 200, "degraded"),
        ("", "", WELL | {"authz": False}, 200, "degraded"),
        ("ab", "", WELL | {"authz": False}, 503, "unhealthy"),
    ],
)
def test_health(down: str, open_breakers: str, dependencies: dict[str, bool], status: int, word: str) -> None:
    """Unhealthy is only a gateway of whose critical services none is up; anything less than all well is degraded."""
    report = Report({name: name not in down for name in "abc"}, dependencies)

    found = health(
        a_config(services=SERVICES, routes=[]),
        report,
        lambda name: "open" if name in open_breakers else "closed",
        "1.2.3",
        42,
    )

    assert (found[0], found[1]["status"]) == (status, word)


def test_without_critical_services_nothing_is_unhealthy() -> None:
    """Where no service is critical, the worst is degraded."""
    report = Report({"c": False}, WELL)

    assert health(a_config(services=[SERVICES[2]], routes=[]), report, lambda _: "closed", "", 0)[0] == 200


def test_the_body_of_health() -> None:
    """Each service with its state and breaker, each dependency with its state, version and uptime."""
    report = Report({"a": True, "b": False}, {"redis": True, "authz": False})
    states: dict[str, State] = {"a": "open", "b": "closed", "c": "half_open"}

    _, body = health(
        a_config(services=SERVICES, routes=[]),
        report,
        states.__getitem__,
        "1",
        7,
    )

    assert body == {
        "status": "unhealthy",
        "version": "1",
        "uptime_seconds": 7,
        "checks": {
            "a": {"status": "unhealthy", "circuit_breaker": "open"},
            "b": {"status": "unhealthy", "circuit_breaker": "closed"},
            "c": {"status": "unhealthy", "circuit_breaker": "half_open"},
        },
        "dependencies": {"redis": "healthy", "authz": "unhealthy"},
    }


@pytest.mark.parametrize(
    ("services", "dependencies", "configured", "ready"),
    [
        ({"a": True}, WELL, True, True),
        ({"a": False}, WELL, True, True),
        ({"a": True}, WELL | {"redis": False, "ratelimit": False}, True, True),
        ({"a": True}, WELL | {"authz": False}, True, False),
        ({"a": True}, {}, True, False),
        ({"a": True}, WELL, False, False),
    ],
)
def test_readiness(services: dict[str, bool], dependencies: dict[str, bool], configured: bool, ready: bool) -> None:
    """Ready is a gateway with a configuration and authz; a sick service does not take it out of rotation."""
    status, body = readiness(Report(services, dependencies), configured)

    assert status == (200 if ready else 503)
    assert body == {"ready": ready, "services": services, "dependencies": dependencies}


class Probes:
    """Counts what is asked, and returns what it is told, but only when so many are asked at the same time."""

    def __init__(self, together: int) -> None:
        self.asked: list[str] = []
        self.down: set[str] = set()
        self.barrier = asyncio.Barrier(together)

    async def ask(self, name: str) -> bool:
        self.asked.append(name)
        async with asyncio.timeout(5):
            await self.barrier.wait()
        return name not in self.down

    async def service(self, service: Service) -> bool:
        return await self.ask(service.name)


async def test_probes_run_side_by_side_and_are_kept(clock: Any) -> None:
    """However many ask, each service and dependency is asked once a second, all at the same time."""
    probes = Probes(together=4)
    checker = HealthChecker(probes.service, {"authz": lambda: probes.ask("authz")}, clock)
    config = a_config(services=SERVICES, routes=[])

    reports = await asyncio.gather(*(checker.report(config) for _ in range(50)))
    clock.advance(0.99)
    probes.down = {"b"}
    still = await checker.report(config)
    clock.advance(0.02)
    fresh = await checker.report(config)

    assert probes.asked == ["a", "b", "c", "authz"] * 2
    assert reports == [Report({"a": True, "b": True, "c": True}, {"authz": True})] * 50
    assert still is reports[0]
    assert fresh.services == {"a": True, "b": False, "c": True}


async def test_a_probe_that_hangs_is_down_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """No probe holds the answer up for longer than its time."""
    monkeypatch.setattr("controlplane.health.checker.PROBE_TIMEOUT_SECONDS", 0.05)

    async def hangs(_service: Service) -> bool:
        await asyncio.Event().wait()
        return True

    async def is_well() -> bool:
        return True

    report = await HealthChecker(hangs, {"authz": is_well}).report(a_config(services=SERVICES, routes=[]))

    assert report == Report({"a": False, "b": False, "c": False}, {"authz": True})


def test_a_dependency_that_works_and_has_a_fault() -> None:
    """The gateway is degraded, the fault is told in words, and it stays in rotation."""
    report = Report({"a": True, "b": True, "c": True}, WELL, frozenset({"redis"}))

    status, body = health(a_config(services=SERVICES, routes=[]), report, lambda _: "closed", "", 0)

    assert (status, body["status"]) == (200, "degraded")
    assert body["dependencies"] == {name: "degraded" if name == "redis" else "healthy" for name in WELL}
    assert body["warnings"] == [FAULTS["redis"]]
    assert readiness(report, configured=True)[0] == 200


async def test_faults_are_asked_for(clock: Any) -> None:
    """Together with the rest; a dependency that is away has no fault beside that."""

    async def holds(_service: object = None) -> bool:
        return True

    checker = HealthChecker(holds, {"redis": holds}, clock, probe_faults={"redis": holds})
    report = await checker.report(a_config(services=SERVICES, routes=[]))

    assert report.dependencies == {"redis": True}
    assert report.faulty == {"redis"}
    away = Report({}, {"redis": False}, frozenset({"redis"}))
    _, body = health(a_config(services=SERVICES, routes=[]), away, lambda _: "closed", "", 0)
    assert body["dependencies"] == {"redis": "unhealthy"}

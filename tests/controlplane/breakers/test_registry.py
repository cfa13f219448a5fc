"""The registry of breakers: what callers meet, what each Envoy is told, and what an operator holds."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.breakers.registry import (
    CALM_SECONDS,
    EJECTED,
    HASTE_SECONDS,
    MEMBERS,
    OPEN_SECONDS,
    TRIAL_SECONDS,
    BreakerRegistry,
    Force,
    Override,
)
from controlplane.breakers.state_machine import Count
from tests.support.clock import FakeClock
from tests.support.configs import a_service

FAILING = Count(issued=10, errors=10)
REQUESTS, PENDING = "circuit_breakers.a.default.max_requests", "circuit_breakers.a.default.max_pending_requests"


@pytest.fixture
def registry(clock: FakeClock) -> BreakerRegistry:
    """Services a and b, and two Envoys that report."""
    registry = BreakerRegistry(clock)
    registry.use([a_service("a"), a_service("b")])
    for node in ("envoy-0", "envoy-1"):
        registry.report(node, {}, confirmed=True)
    return registry


def fail(registry: BreakerRegistry) -> None:
    registry.report("envoy-0", {"a": FAILING, "mgw-authz": FAILING}, confirmed=True)


def hold(force: Force) -> Override:
    return Override(force, "because", "editor", 1_800_000_000.0)


def test_every_envoy_is_told_to_leave_a_sick_service_alone(registry: BreakerRegistry, clock: FakeClock) -> None:
    """Open it is capped at zero everywhere, half-open at its share; the other service is not mentioned."""
    assert registry.layers() == {}
    fail(registry)
    opened = registry.layers()
    clock.advance(2)
    registry.tick()

    assert opened == {node: {REQUESTS: 0, PENDING: 0} for node in ("envoy-0", "envoy-1")}
    assert sorted(layer[REQUESTS] for layer in registry.layers().values()) == [0, 1]
    assert (registry.state("a"), registry.state("b")) == ("half_open", "closed")


@pytest.mark.parametrize(
    ("members", "ejected", "state"),
    [(1, 0, "closed"), (1, 1, "open"), (3, 2, "closed"), (3, 3, "open"), (0, 0, "closed")],
)
def test_a_breaker_is_open_when_no_host_is_left(
    registry: BreakerRegistry, members: int, ejected: int, state: str
) -> None:
    """A service is open at an Envoy that ejected every host; what is no service of the document is passed over."""
    registry.gauges("envoy-1", {"a": {MEMBERS: members, EJECTED: ejected}, "mgw-authz": {MEMBERS: 1, EJECTED: 1}})

    assert (registry.state("a"), registry.state("mgw-authz")) == (state, "closed")


def test_changes_are_told_once(registry: BreakerRegistry) -> None:
    """A change has the state before and after, and why."""
    fail(registry)
    (change,) = registry.changes()

    assert (change.service, change.before, change.after) == ("a", "closed", "open")
    assert "10 failures" in change.why
    assert registry.changes() == []


def test_reports_come_as_often_as_they_matter(registry: BreakerRegistry, clock: FakeClock) -> None:
    """Seldom while all is well, fast while a service may be tried, and no longer so fast where nobody tries it."""
    paces = [registry.report_seconds()]
    fail(registry)
    paces.append(registry.report_seconds())
    clock.advance(2)
    registry.tick()
    paces.append(registry.report_seconds())
    clock.advance(HASTE_SECONDS)
    paces.append(registry.report_seconds())

    assert paces == [CALM_SECONDS, OPEN_SECONDS, TRIAL_SECONDS, OPEN_SECONDS]


@pytest.mark.parametrize("force", ["open", "closed"])
def test_what_is_held_stays(registry: BreakerRegistry, clock: FakeClock, force: Force) -> None:
    """Whatever is seen of it, a held breaker is as the operator said, and Envoys are told nothing by their runtime."""
    fail(registry)
    registry.force("a", hold(force))
    for _ in range(3):
        fail(registry)
        registry.gauges("envoy-0", {"a": {MEMBERS: 1, EJECTED: 1}})
        clock.advance(3)
        registry.tick()

    assert (registry.state("a"), registry.layers()) == (force, {})
    assert registry.cap("a", "envoy-0") == (0 if force == "open" else None)
    assert registry.report_seconds() == CALM_SECONDS
    registry.force("a", hold("auto"))
    assert (registry.state("a"), registry.forced()) == ("closed", {})
    fail(registry)
    assert registry.state("a") == "open"


def test_a_service_that_is_gone_is_forgotten(registry: BreakerRegistry) -> None:
    """So is what was forced of it; an unknown one cannot be forced."""
    registry.force("a", hold("open"))
    registry.use([a_service("b")])

    assert (registry.forced(), list(registry.breakers())) == ({}, ["b"])
    with pytest.raises(KeyError):
        registry.force("a", hold("open"))


def test_changed_rules_begin_closed_and_others_stay(registry: BreakerRegistry) -> None:
    """A service whose numbers changed has a new cluster; a change elsewhere closes nothing."""
    fail(registry)
    registry.use([a_service("a"), a_service("b", breaker={"failures": 3})])
    unchanged = registry.state("a")
    registry.use([a_service("a", breaker={"failures": 3}), a_service("b")])

    assert (unchanged, registry.state("a")) == ("open", "closed")
    assert registry.breakers()["a"].heard == ("envoy-0", "envoy-1")


def test_types() -> None:
    """A force that the file should not hold is refused like any other nonsense."""
    values: dict[str, Any] = {"force": "ajar", "reason": "", "by": "", "at": 0}
    with pytest.raises(ValueError, match="ajar"):
        Override(**values)

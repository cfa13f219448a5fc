"""Every service's breaker, what an operator forces, and what follows for each Envoy. No clock and no I/O of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from controlplane.breakers.state_machine import (
    Breaker,
    Count,
    Ejection,
    Event,
    Lost,
    Reported,
    Rules,
    State,
    Tick,
    step,
)
from controlplane.config.model import Service

Force = Literal["auto", "open", "closed"]
Layer = Mapping[str, int]
"""Runtime keys of Envoy and their values."""

EJECTED = "outlier_detection.ejections_active"
MEMBERS = "membership_total"

CALM_SECONDS = 0.25
OPEN_SECONDS = 0.1
TRIAL_SECONDS = 0.005
"""How often an Envoy reports: while all is well, while a service is left alone, and while somebody tries one."""
HASTE_SECONDS = 5.0
"""For so long a half-open service is looked at with all haste; then nobody seems to want it."""

KEYS = ("circuit_breakers.{}.default.max_requests", "circuit_breakers.{}.default.max_pending_requests")
"""Both, or a request would wait for a connection, and one that cannot be made would be what answers it."""


@dataclass(frozen=True)
class Override:
    """What an operator wants of a breaker, and why."""

    force: Force
    reason: str
    by: str
    at: float
    """Unix seconds."""

    def __post_init__(self) -> None:
        if self.force not in get_args(Force):
            raise ValueError(f"{self.force!r} is none of {', '.join(get_args(Force))}")


@dataclass(frozen=True)
class Change:
    """A breaker that is in another state than before."""

    service: str
    before: State
    after: State
    why: str


class BreakerRegistry:
    """All breakers. Whoever feeds it asks it afterwards what follows."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}
        self._forced: dict[str, Override] = {}
        self._shown: dict[str, State] = {}

    # -- what happens

    def use(self, services: Iterable[Service]) -> None:
        """The services that there are now. One whose rules changed begins closed; Envoy made its cluster anew, too."""
        before, self._breakers = self._breakers, {}
        for service in services:
            rules = rules_of(service)
            held = before.get(service.name)
            if held is None or held.rules != rules:
                views = held.views if held else {}
                held = Breaker(rules, since=self._clock(), views=views)
            self._breakers[service.name] = held
        self._forced = {name: forced for name, forced in self._forced.items() if name in self._breakers}

    def report(self, node: str, counts: Mapping[str, Count], confirmed: bool) -> None:
        """An Envoy's load report; a service that it does not name had nothing to count."""
        for service, breaker in self._breakers.items():
            if service in counts or not _is_idle(breaker, node):
                self._step(service, Reported(node, counts.get(service, Count()), confirmed))

    def gauges(self, node: str, gauges: Mapping[str, Mapping[str, float]]) -> None:
        """An Envoy's gauges: by service, then by name (EJECTED, MEMBERS)."""
        for service, values in gauges.items():
            if service in self._breakers and EJECTED in values:
                members = values.get(MEMBERS, 0)
                self._step(service, Ejection(node, is_total=0 < members <= values[EJECTED]))

    def lose(self, node: str) -> None:
        """An Envoy sends no load reports any more."""
        for service in self._breakers:
            self._step(service, Lost(node))

    def tick(self) -> None:
        """Time went on."""
        for service in self._breakers:
            self._step(service, Tick())

    def force(self, service: str, forced: Override) -> None:
        """What an operator wants from now on. Raises KeyError for a service that there is not."""
        held = self._breakers[service]
        self._forced.pop(service, None)
        if forced.force != "auto":
            self._forced[service] = forced
        # Envoy makes the cluster anew for either, with nothing ejected and nothing counted.
        why = f"forced by {forced.by}: {forced.reason}"
        self._breakers[service] = Breaker(held.rules, since=self._clock(), why=why, views=held.views)

    # -- what follows

    def state(self, service: str) -> State:
        """As callers meet it, forced or not."""
        forced = self._forced.get(service)
        if forced:
            return "open" if forced.force == "open" else "closed"
        held = self._breakers.get(service)
        return held.state if held else "closed"

    def seconds_since(self, at: float) -> float:
        """How long ago that was, on the registry's clock; negative for what is to come."""
        return self._clock() - at

    def breakers(self) -> Mapping[str, Breaker]:
        """The breakers by service."""
        return self._breakers

    def forced(self) -> Mapping[str, Override]:
        """What operators force, by service; nothing is `auto` here."""
        return self._forced

    def changes(self) -> list[Change]:
        """What changed since this was last asked."""
        found = []
        for service, breaker in self._breakers.items():
            before, after = self._shown.get(service, "closed"), self.state(service)
            if before != after:
                found.append(Change(service, before, after, breaker.why))
        self._shown = {service: self.state(service) for service in self._breakers}
        return found

    def cap(self, service: str, node: str) -> int | None:
        """How many requests an Envoy may have at a service at once; None: as many as it likes."""
        forced = self._forced.get(service)
        if forced:
            return 0 if forced.force == "open" else None
        return self._breakers[service].cap(node)

    def layers(self) -> dict[str, Layer]:
        """The runtime layer of each Envoy that is capped at all. A force is in the cluster itself, and needs none."""
        layers: dict[str, dict[str, int]] = {}
        for service, breaker in self._breakers.items():
            if service in self._forced:
                continue
            for node in breaker.heard:
                cap = breaker.cap(node)
                if cap is not None:
                    layers.setdefault(node, {}).update({key.format(service): cap for key in KEYS})
        return dict(layers)

    def report_seconds(self) -> float:
        """How often Envoys should report."""
        now = self._clock()
        active = [breaker for breaker in self._breakers.values() if breaker.state != "closed"]
        if any(breaker.state == "half_open" and now < breaker.since + HASTE_SECONDS for breaker in active):
            return TRIAL_SECONDS
        return OPEN_SECONDS if active else CALM_SECONDS

    def _step(self, service: str, event: Event) -> None:
        before = self._breakers[service]
        after = step(before, event, self._clock())
        if service in self._forced:  # what is seen is kept, what would follow is not
            after = replace(
                after, state=before.state, since=before.since, why=before.why, rights={}, window=(), in_a_row=0
            )
        self._breakers[service] = after


def _is_idle(breaker: Breaker, node: str) -> bool:
    """Whether a report of nothing would change nothing. Most of them, most of the time."""
    view = breaker.views.get(node)
    is_known = view is not None and view.is_heard and not view.in_progress
    return is_known and breaker.state == "closed" and not breaker.window


def rules_of(service: Service) -> Rules:
    """A service's breaker as the configuration has it."""
    breaker = service.breaker
    return Rules(
        failures=breaker.failures,
        error_rate_percent=breaker.error_rate_percent,
        open_seconds=breaker.open_seconds,
        trials=breaker.half_open_requests,
        is_single=len(service.endpoints) == 1,
    )

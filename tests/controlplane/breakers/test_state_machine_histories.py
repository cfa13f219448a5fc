"""One breaker under any history at all, against a model of Envoys whose caps and reports come late."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controlplane.breakers.state_machine import Breaker, Count, Ejection, Event, Lost, Reported, Rules, Tick, step

WELL = Count(issued=1, successes=1)
ILL = Count(issued=1, errors=1)
TURNED_AWAY = Count(errors=7, dropped=7)


@dataclass
class Instance:
    """An Envoy as it treats one service: a cap that arrives late, requests, and what it will report."""

    cap: int | None = None
    """In force."""
    told: int | None = None
    """On its way; reports say `confirmed` only when both are alike."""
    trials: int = 0
    """At the service, sent while it was capped."""
    older: int = 0
    """At the service, sent before."""
    pending: dict[str, int] = field(default_factory=dict)
    is_connected: bool = True

    def count(self, name: str) -> None:
        self.pending[name] = self.pending.get(name, 0) + 1

    def report(self) -> Count:
        counted, self.pending = self.pending, {}
        return Count(**counted, in_progress=self.trials + self.older)


class Fleet(RuleBasedStateMachine):
    """Envoys of one service under any traffic, with caps and reports that come late."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(Rules())
        self.envoys: dict[str, Instance] = {}
        self.has_failed_since: float | None = None

    def _step(self, event: Event) -> None:
        before = self.breaker
        self.breaker = step(before, event, self.now)
        for node, envoy in self.envoys.items():
            envoy.told = self.breaker.cap(node)
        if before.state == "open" and self.breaker.state != "open":
            assert self.now >= before.until
        if before.state == "closed":
            assert self.breaker.state in ("closed", "open")
        if before.state != "open" and self.breaker.state == "open":
            for envoy in self.envoys.values():
                envoy.cap = envoy.told  # the open time is longer than anything takes to arrive
                envoy.older, envoy.trials = envoy.older + envoy.trials, 0

    @initialize(
        trials=st.sampled_from([1, 1, 2, 3]), failures=st.integers(1, 3), names=st.sampled_from([2, 2, 3, 4, 1])
    )
    def begin(self, trials: int, failures: int, names: int) -> None:
        """All Envoys are heard, and the service is half-open: that is where most can go wrong."""
        self.breaker = Breaker(Rules(failures=failures, trials=trials, error_rate_percent=100))
        self.envoys = {name: Instance() for name in "abcd"[:names]}
        for name in self.envoys:
            self._step(Reported(name, Count()))
        self._step(Ejection("a", is_total=True))
        self.now = 2.0
        self._step(Tick())
        for envoy in self.envoys.values():
            envoy.cap = envoy.told

    @rule(data=st.data(), ends=st.sampled_from(["later", "later", "well", "ill", "unconnected"]))
    def ask(self, data: st.DataObject, ends: str) -> None:
        """Somebody asks one Envoy."""
        self._ask(self.envoys[data.draw(st.sampled_from(sorted(self.envoys)))], ends)

    @rule(ends=st.sampled_from(["later", "later", "well", "ill"]))
    def ask_each(self, ends: str) -> None:
        """Somebody asks every Envoy."""
        for envoy in self.envoys.values():
            self._ask(envoy, ends)

    def _ask(self, envoy: Instance, ends: str) -> None:
        if envoy.cap is not None and envoy.trials + envoy.older >= envoy.cap:
            envoy.count("dropped")
            envoy.count("errors")
            return
        if ends == "unconnected":
            envoy.count("errors")
            envoy.count("unconnected")
            return
        envoy.count("issued")
        if envoy.cap is None:
            envoy.older += 1
        else:
            envoy.trials += 1
        if ends != "later":
            self._end(envoy, ends, is_trial=envoy.cap is not None)

    def _end(self, envoy: Instance, ends: str, *, is_trial: bool) -> None:
        if is_trial:
            envoy.trials -= 1
        else:
            envoy.older -= 1
        if ends == "well":
            envoy.count("successes")
        if ends == "ill":
            envoy.count("errors")

    @precondition(lambda self: any(envoy.trials + envoy.older for envoy in self.envoys.values()))
    @rule(data=st.data(), ends=st.sampled_from(["well", "ill", "left"]))
    def end(self, data: st.DataObject, ends: str) -> None:
        """A request that took its time ends."""
        busy = sorted(name for name, envoy in self.envoys.items() if envoy.trials + envoy.older)
        envoy = self.envoys[data.draw(st.sampled_from(busy))]
        self._end(envoy, ends, is_trial=not envoy.older)

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """A cap reaches one Envoy."""
        envoy = self.envoys[data.draw(st.sampled_from(sorted(self.envoys)))]
        envoy.cap = envoy.told

    @rule()
    def report_all(self) -> None:
        """All of them report, one after the other, a little later."""
        self.now += 0.15
        for name, envoy in self.envoys.items():
            self._step(Reported(name, envoy.report(), confirmed=envoy.cap == envoy.told))

    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        """One Envoy reports."""
        name = data.draw(st.sampled_from(sorted(self.envoys)))
        envoy = self.envoys[name]
        self._step(Reported(name, envoy.report(), confirmed=envoy.cap == envoy.told))

    @rule(data=st.data(), is_total=st.booleans())
    def eject(self, data: st.DataObject, is_total: bool) -> None:
        self._step(Ejection(data.draw(st.sampled_from(sorted(self.envoys))), is_total))

    @rule(seconds=st.sampled_from([0.02, 0.3, 1.0, 2.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._step(Tick())

    @invariant()
    def never_too_many(self) -> None:
        """While it is half-open, no more than K trials are at the service, over all Envoys."""
        if self.breaker.state == "half_open":
            trials = sum(envoy.trials for envoy in self.envoys.values())
            assert trials <= self.breaker.rules.trials

    @invariant()
    def rights_add_up(self) -> None:
        """Rights exist half-open alone, never more than K, and K but for those that move."""
        held = sum(self.breaker.rights.values())
        if self.breaker.state != "half_open":
            assert held == 0
        elif not self.breaker.moving:
            assert held == self.breaker.rules.trials

    @invariant()
    def closed_is_free(self) -> None:
        if self.breaker.state == "closed":
            assert all(self.breaker.cap(name) is None for name in self.envoys)


Fleet.TestCase.settings = settings(stateful_step_count=60, max_examples=300, deadline=None)
TestFleet = Fleet.TestCase


@pytest.mark.parametrize("seed", range(20))
def test_it_always_ends_closed(seed: int) -> None:
    """Whatever happened, a service that is well and asked is served by every Envoy after a few seconds."""
    dice = random.Random(seed)
    nodes = "abc"[: dice.randint(1, 3)]
    breaker, now = Breaker(Rules(failures=3, trials=dice.randint(1, 2))), 0.0
    for _ in range(200):
        now += dice.choice([0.01, 0.1, 1.0])
        node = dice.choice(nodes)
        held = breaker.cap(node)
        happens = [ILL, WELL, Count(issued=1, in_progress=1)] if held is None or held else [TURNED_AWAY]
        events: list[Event] = [Reported(node, dice.choice(happens)), Tick(), Lost(node)]
        breaker = step(breaker, dice.choice(events), now)
    for _ in range(60):
        now += 0.1
        for node in nodes:
            is_served = breaker.cap(node) is None or breaker.cap(node)
            breaker = step(breaker, Reported(node, WELL if is_served else TURNED_AWAY), now)

    assert breaker.state == "closed"

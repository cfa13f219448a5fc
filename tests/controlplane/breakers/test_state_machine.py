"""One breaker: what opens it, who may try, and what closes it; then any history at all, against a model of Envoys."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controlplane.breakers.state_machine import (
    MOVE_SECONDS,
    SETTLED_REPORTS,
    WINDOW_SECONDS,
    Breaker,
    Count,
    Ejection,
    Event,
    Lost,
    Reported,
    Rules,
    Tick,
    step,
)

RULES = Rules(failures=10, error_rate_percent=50, open_seconds=2.0, trials=1)
WELL = Count(issued=1, successes=1)
ILL = Count(issued=1, errors=1)
TURNED_AWAY = Count(errors=7, dropped=7)
HEARD = Reported("a", Count())


def run(events: Iterable[tuple[float, Event]], rules: Rules = RULES) -> Breaker:
    """A breaker after these events at these times."""
    breaker = Breaker(rules)
    for at, event in events:
        breaker = step(breaker, event, at)
    return breaker


def opened(*nodes: str, rules: Rules = RULES) -> Breaker:
    """A breaker that opened at 1, with these Envoys heard."""
    heard = [(0.0, Reported(node, Count())) for node in nodes or ("a",)]
    return run([*heard, (1.0, Ejection((nodes or ("a",))[0], is_total=True))], rules)


def half_open(*nodes: str, rules: Rules = RULES) -> Breaker:
    """A breaker that is half-open since 3, nothing ejected any more."""
    breaker = step(opened(*nodes, rules=rules), Ejection((nodes or ("a",))[0], is_total=False), 2.9)
    return step(breaker, Tick(), 3.0)


def count(*counts: Count) -> list[tuple[float, Event]]:
    """These reports of one Envoy, a quarter of a second apart, after one that makes it heard."""
    return [(0.0, HEARD), *((0.25 * number, Reported("a", each)) for number, each in enumerate(counts, 1))]


def failing(times: int) -> Count:
    return Count(issued=times, errors=times)


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        ([failing(9)], "closed"),
        ([failing(10)], "open"),
        ([failing(5), failing(5)], "open"),
        ([failing(9), WELL] * 3, "open"),  # not in a row, but nine of ten
        ([Count(issued=4, successes=4), failing(3)] * 5, "closed"),
        ([Count(issued=2, successes=1, errors=1)] * 4, "closed"),  # half, but not yet ten
        ([Count(issued=2, successes=1, errors=1)] * 5, "open"),
        ([Count(issued=40, successes=40)], "closed"),  # a 4xx is a success
        ([Count(unconnected=10)], "open"),
        ([TURNED_AWAY] * 9, "closed"),  # by a pool's own cap
        ([Count(issued=9)], "closed"),  # the callers left
    ],
)
def test_what_opens_it(counts: list[Count], state: str) -> None:
    """N failures in a row, or too many of N and more; neither a 4xx, nor an overflow, nor a caller who leaves."""
    assert run(count(*counts)).state == state


def test_old_failures_are_forgotten() -> None:
    """A rate is taken over the window alone."""
    half = Count(issued=8, successes=4, errors=4)
    late = WINDOW_SECONDS + 1

    assert run([(0, HEARD), (0.1, Reported("a", half)), (late, Reported("a", half))]).state == "closed"
    assert run([(0, HEARD), (0.1, Reported("a", half)), (1.0, Reported("a", half))]).state == "open"


def test_one_sick_endpoint_of_several_is_envoys_alone() -> None:
    """With several endpoints only the ejection of all opens it."""
    rules = Rules(is_single=False)
    failed = run(count(failing(100)), rules)

    assert failed.state == "closed"
    assert step(failed, Ejection("a", is_total=True), 9.0).state == "open"


def test_only_a_new_ejection_opens_it() -> None:
    """An Envoy whose ejection lasts a little longer than another's trial does not open it again."""
    breaker = step(half_open("a", "b"), Ejection("b", is_total=True), 3.0)
    closed = step(breaker, Reported("a", WELL), 3.1)

    assert step(closed, Ejection("b", is_total=True), 3.2).state == "closed"
    again = step(closed, Ejection("b", is_total=False), 3.3)
    assert step(again, Ejection("b", is_total=True), 3.4).state == "open"


def test_open_nothing_passes_for_its_time() -> None:
    """Whatever is reported, no Envoy may ask the service until the time is over; then one may."""
    breaker = opened("a", "b")
    for at in (1.0, 1.5, 2.99):
        breaker = step(breaker, Reported("a", Count(issued=1, successes=1)), at)
        assert (breaker.state, breaker.cap("a"), breaker.cap("b")) == ("open", 0, 0)

    breaker = step(breaker, Tick(), 3.0)

    assert (breaker.state, sorted([breaker.cap("a"), breaker.cap("b")], key=str)) == ("half_open", [0, 1])


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        ([WELL], "closed"),
        ([ILL], "open"),
        ([Count(unconnected=1)], "open"),
        ([TURNED_AWAY], "half_open"),
        ([Count(issued=1, in_progress=1)], "half_open"),
        (
            [Count(issued=1, in_progress=1), Count(errors=7, dropped=7, in_progress=1), Count(in_progress=1)],
            "half_open",
        ),
        ([Count(issued=1, in_progress=1), Count(successes=1)], "closed"),
        ([Count(issued=1, in_progress=1, errors=9, dropped=9), Count(errors=8, dropped=7)], "open"),
        ([Count(issued=1, in_progress=1), Count(errors=1, in_progress=1), Count()], "open"),  # a long error page
        ([Count(issued=1, in_progress=1), Count()], "half_open"),  # the caller left before there was an answer
        ([Count(issued=1, in_progress=1), Count(), WELL], "closed"),
    ],
)
def test_a_trial_decides(counts: list[Count], state: str) -> None:
    """Half-open, a success closes and a failure opens; what was turned away, or left, decides nothing."""
    breaker = half_open()
    for number, each in enumerate(counts, 1):
        breaker = step(breaker, Reported("a", each), 3.0 + number / 100)

    assert breaker.state == state


def test_requests_from_before_are_no_trials() -> None:
    """What was at the service when it opened, and fails or ends well only now, says nothing of how it is now."""
    breaker = step(opened(), Reported("a", Count(in_progress=2)), 2.5)
    breaker = step(breaker, Tick(), 3.0)

    for late in (Count(errors=1, in_progress=1), Count(successes=1)):
        breaker = step(breaker, Reported("a", late), 3.1)
        assert breaker.state == "half_open"


def test_a_failed_trial_opens_it_for_the_whole_time_again() -> None:
    """From the failure on, not from when it first opened."""
    breaker = step(half_open(), Reported("a", ILL), 3.5)

    assert (breaker.state, breaker.until, breaker.cap("a")) == ("open", 5.5, 0)


@pytest.mark.parametrize(
    ("trials", "nodes", "shares"),
    [(1, "a", [1]), (3, "a", [3]), (3, "ab", [1, 2]), (1, "ab", [0, 1]), (2, "abc", [0, 1, 1]), (7, "abc", [2, 2, 3])],
)
def test_trials_are_shared(trials: int, nodes: str, shares: list[int]) -> None:
    """Together the Envoys have as many rights as there are trials, each as nearly as many as another as can be."""
    breaker = half_open(*nodes, rules=Rules(trials=trials))

    assert sorted(breaker.cap(node) or 0 for node in nodes) == shares


def test_who_turns_callers_away_may_try_first() -> None:
    """The only right goes to the Envoy that somebody waits at."""
    breaker = step(opened("a", "b", "c"), Reported("b", TURNED_AWAY), 2.0)

    assert step(breaker, Tick(), 3.0).rights == {"b": 1}


def test_an_ejection_after_a_good_trial_is_news() -> None:
    """An Envoy may eject again before it ever told that it had let go: its good trial has told that."""
    breaker = step(half_open("a", "b"), Ejection("a", is_total=True), 3.1)
    breaker = step(breaker, Ejection("b", is_total=True), 3.1)
    breaker = step(breaker, Reported("a", Count(issued=1, successes=1)), 3.2)
    assert breaker.state == "closed"

    assert step(breaker, Ejection("b", is_total=True), 3.3).state == "closed"
    assert step(breaker, Ejection("a", is_total=True), 3.3).state == "open"


def test_an_unused_right_moves_to_where_somebody_waits() -> None:
    """It is taken back first, and handed on when the Envoy that had it is known to have nothing under way."""
    breaker = half_open("a", "b")
    assert breaker.rights == {"a": 1}

    breaker = step(breaker, Reported("b", TURNED_AWAY), 3.0 + MOVE_SECONDS)
    assert (breaker.rights, breaker.moving) == ({}, frozenset("a"))
    breaker = step(breaker, Reported("a", Count(), confirmed=False), 3.4)
    breaker = step(breaker, Reported("a", Count(in_progress=1, issued=1)), 3.4)
    assert breaker.rights == {}
    for _ in range(SETTLED_REPORTS):
        assert breaker.rights == {}
        breaker = step(breaker, Reported("a", Count()), 3.5)

    assert breaker.rights == {"b": 1}


def test_a_right_in_use_stays() -> None:
    """While a trial is under way nobody else gets the right, however many wait."""
    breaker = step(half_open("a", "b"), Reported("a", Count(issued=1, in_progress=1)), 3.1)
    for at in (3.4, 4.0, 30.0):
        breaker = step(breaker, Reported("a", Count(in_progress=1)), at)
        breaker = step(breaker, Reported("b", TURNED_AWAY), at)

    assert breaker.rights == {"a": 1}


def test_an_envoy_that_leaves_takes_no_right_with_it() -> None:
    """Its rights go to the others at once; it is not capped any more, for nobody would lift that."""
    breaker = step(half_open("a", "b", rules=Rules(trials=2)), Lost("a"), 3.1)

    assert (breaker.cap("a"), breaker.cap("b")) == (None, 2)


@pytest.mark.parametrize(("is_ejected", "state"), [(True, "open"), (False, "closed")])
def test_without_reports_it_is_as_envoy_has_it(is_ejected: bool, state: str) -> None:
    """Nobody tells how a trial went, so nobody is capped and Envoy's own ejection is the breaker."""
    breaker = step(step(opened(), Lost("a"), 2.0), Ejection("a", is_ejected), 2.5)
    breaker = step(breaker, Tick(), 3.0)

    assert (breaker.state, breaker.cap("a")) == (state, None)


# -- any history, against a model of Envoys


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

"""One breaker: what opens it, who may try, and what closes it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

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

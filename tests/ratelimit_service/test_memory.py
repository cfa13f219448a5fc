"""The exact model: what both rules allow, in tables and over random histories."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from ratelimit_service.counters.base import CounterReply
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.limits import SECOND_US, WINDOW_US, Charge, Limit, Reading, Rule, Verdict, judge

START_US = 1_800_000_000_000_000
TIER = Limit(10, 200, 20)


class Caller:
    """One caller against counters of its own, at times that the test names."""

    def __init__(self, limit: Limit = TIER, replicas: int = 0) -> None:
        self.now_us = START_US
        self.limit = limit
        self.replicas = replicas
        self.counters = MemoryCounters(clock=lambda: self.now_us)

    def spend(self, at_seconds: float, hits: int = 1) -> Verdict:
        self.now_us = START_US + round(at_seconds * SECOND_US)
        return self.spend_now(hits)

    def spend_now(self, hits: int = 1) -> Verdict:
        charges = [Charge("c" * 22, Rule("tier", self.limit), hits)]
        if self.replicas:
            readings = self.counters.decide_share(charges, self.replicas).readings
        else:
            readings = decide(self.counters, charges)
        verdict = judge(self.now_us, charges, readings)
        assert verdict
        return verdict


def decide(counters: MemoryCounters, charges: Sequence[Charge]) -> list[Reading]:
    """Counting in memory never waits, so the coroutine ends at its first step."""
    with pytest.raises(StopIteration) as stop:
        counters.decide(charges).send(None)
    reply: CounterReply = stop.value.value
    return reply.readings


@pytest.mark.parametrize(
    ("limit", "steps"),
    [
        pytest.param(
            Limit(1, 100, 2),
            [
                (0, 1, True, 99, 0),
                (0, 1, True, 98, 0),
                (0, 1, False, 0, 1),
                (0.999, 1, False, 0, 1),
                (1, 1, True, 97, 0),
            ],
            id="the bucket holds burst and fills at rps",
        ),
        pytest.param(
            Limit(100, 3, 100),
            [
                (0, 1, True, 2, 0),
                (10, 1, True, 1, 0),
                (20, 1, True, 0, 0),
                (30.5, 1, False, 0, 30),
                (60, 1, True, 0, 0),
            ],
            id="a hit leaves the window after exactly a minute",
        ),
        pytest.param(
            Limit(100, 10, 100),
            [(0, 4, True, 6, 0), (1, 4, True, 2, 0), (2, 4, False, 0, 58), (2, 2, True, 0, 0), (60, 4, True, 0, 0)],
            id="a charge takes that many hits",
        ),
        pytest.param(
            Limit(1, 10, 4),
            [(0, 5, False, 0, 60), (0, 4, True, 6, 0), (0, 4, False, 0, 4), (2, 4, False, 0, 2)],
            id="what costs more than the bucket holds never passes",
        ),
        pytest.param(
            Limit(1, 3, 3),
            [(0, 3, True, 0, 0), (1, 1, False, 0, 59), (59, 1, False, 0, 1), (60, 3, True, 0, 0)],
            id="when both rules are over limit, the later time is told",
        ),
        pytest.param(
            Limit(0.5, 100, 1),
            [(0, 1, True, 99, 0), (1.5, 1, False, 0, 1), (2, 1, True, 98, 0)],
            id="rps may be below one",
        ),
    ],
)
def test_table(limit: Limit, steps: list[tuple[float, int, bool, int, int]]) -> None:
    """At each time and hits: allowed or not, what remains, and how long to wait."""
    caller = Caller(limit)

    for at, hits, allowed, remaining, retry_after in steps:
        verdict = caller.spend(at, hits)
        assert (verdict.allowed, verdict.remaining, verdict.retry_after) == (allowed, remaining, retry_after), at


def test_exactly_burst_at_once() -> None:
    """From full, exactly `burst` pass at once."""
    caller = Caller(Limit(10, 1000, 20))

    assert [caller.spend(0).allowed for _ in range(25)] == [True] * 20 + [False] * 5


def test_over_limit_costs_nothing() -> None:
    """A caller that hammers is admitted as if it had waited."""
    caller = Caller(Limit(1, 1000, 1))
    passed = [at for at in range(0, 10_000, 50) if caller.spend(at / 1000).allowed]

    assert passed == list(range(0, 10_000, 1000))


@pytest.mark.parametrize(("rpm", "remaining"), [(80, 20), (200, 140), (60, 0)])
def test_changed_numbers(rpm: int, remaining: int) -> None:
    """60 of 100 spent: lowered to 80 leaves 20, raised to 200 leaves 140."""
    caller = Caller(Limit(1000, 100, 1000))
    caller.spend(0, 60)
    caller.limit = Limit(1000, rpm, 1000)

    passed = 0
    while caller.spend(1).allowed:
        passed += 1
    assert passed == remaining


def test_changed_bucket() -> None:
    """15 of a bucket of 20 spent: in one of 30, 15 are left; in one of 10, none until it has drained."""
    caller = Caller(Limit(10, 1000, 20))
    caller.spend(0, 15)

    caller.limit = Limit(10, 1000, 30)
    assert [caller.spend(0).allowed for _ in range(16)] == [True] * 15 + [False]
    caller.limit = Limit(10, 1000, 10)
    assert [caller.spend(at).allowed for at in (0, 2, 2.1)] == [False, False, True]


def test_clock_goes_back() -> None:
    """A clock that goes back an hour locks nobody out for longer than the window."""
    caller = Caller(Limit(10, 5, 5))
    caller.spend(3600, 5)

    refused = caller.spend(0)
    assert (refused.allowed, refused.retry_after) == (False, 60)
    assert caller.spend(60).allowed


def test_reset_on_success() -> None:
    """On a 200 the reset is the time at which the oldest counted hit leaves the window."""
    caller = Caller()

    assert caller.spend(0).reset_us == START_US + WINDOW_US
    assert caller.spend(7).reset_us == START_US + WINDOW_US
    assert caller.spend(61).reset_us == START_US + 7 * SECOND_US + WINDOW_US


def test_bounded() -> None:
    """Never more callers than allowed are held, and those that count no more go first."""
    now_us = START_US
    counters = MemoryCounters(max_tallies=100, clock=lambda: now_us)
    for number in range(1000):
        decide(counters, [Charge(f"{number:022}", Rule("tier", TIER), 1)])
    assert len(counters) == 100

    now_us += 2 * WINDOW_US
    for number in range(60):
        decide(counters, [Charge(f"{number:022}", Rule("tier", TIER), 1)])
    assert len(counters) == 60


limit_numbers = st.builds(
    Limit, rps=st.sampled_from([0.3, 1, 3, 10, 50]), rpm=st.integers(1, 30), burst=st.integers(1, 20)
)
waits_ms = st.one_of(st.just(0), st.integers(0, 300), st.integers(0, 70_000))
histories = st.lists(st.tuples(waits_ms, st.integers(1, 4)), max_size=60)


@given(limit_numbers, histories)
@settings(max_examples=150, deadline=None)
def test_never_more_than_the_rules_say(limit: Limit, history: list[tuple[int, int]]) -> None:
    """In any minute at most rpm; in any span at most burst + rps times the span."""
    caller, admitted = Caller(limit), list[tuple[int, int]]()
    for wait_ms, hits in history:
        caller.now_us += wait_ms * 1000
        if caller.spend_now(hits).allowed:
            admitted.append((caller.now_us, hits))

    for index, (start, _) in enumerate(admitted):
        total = 0
        for at, hits in admitted[index:]:
            total += hits
            assert total <= limit.burst + limit.rps * (at - start) / SECOND_US + 1e-6
            assert total <= limit.rpm or at - start >= WINDOW_US


@given(limit_numbers, histories)
@settings(max_examples=150, deadline=None)
def test_waiting_is_enough(limit: Limit, history: list[tuple[int, int]]) -> None:
    """After the told seconds the request passes; more than a second earlier it would not have."""
    caller = Caller(limit)
    for wait_ms, hits in history:
        caller.now_us += wait_ms * 1000
        refused = caller.spend_now(hits)
        if refused.allowed or hits > min(limit.burst, limit.rpm):
            continue
        now_us = caller.now_us
        caller.now_us = now_us + (refused.retry_after - 1) * SECOND_US - 1
        assert refused.retry_after == 1 or not caller.spend_now(hits).allowed
        caller.now_us = now_us + refused.retry_after * SECOND_US
        assert caller.spend_now(hits).allowed


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 3)), max_size=50))
@settings(max_examples=60, deadline=None)
def test_third_opinion(rpm: int, history: list[tuple[int, int]]) -> None:
    """The minute rule admits what the moving window of another library admits."""
    now = 1_800_000_000.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: now)
        storage = MemoryStorage()
        window, item = MovingWindowRateLimiter(storage), RateLimitItemPerMinute(rpm)
        caller = Caller(Limit(1000, rpm, 1000))
        for wait_ms, hits in history:
            # Times that no two sums share: at a tie the two libraries may differ by one comparison.
            now += wait_ms / 1000 + 0.000_5
            caller.now_us = round(now * SECOND_US)
            assert caller.spend_now(hits).allowed == window.hit(item, cost=hits)
        storage.timer.cancel()


@pytest.mark.parametrize(("replicas", "each"), [(1, 100), (2, 50), (3, 34), (7, 15)])
def test_share(replicas: int, each: int) -> None:
    """Alone, a replica admits the limit divided by the replicas, rounded up."""
    caller = Caller(Limit(1000, 100, 1000), replicas)

    assert sum(caller.spend(0).allowed for _ in range(300)) == each


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_share_of_what_was_left(replicas: int) -> None:
    """A replica that followed the store shares what was left: in all at most the limit and one hit for each replica."""
    limit, spent = Limit(1000, 100, 1000), 61
    admitted = spent
    for _ in range(replicas):
        caller = Caller(limit, replicas)
        charge = [Charge("c" * 22, Rule("tier", limit), 1)]
        caller.counters.observe(charge, START_US, [Reading(spent - 1, START_US, 0, 0, 0)])
        admitted += sum(caller.spend(1).allowed for _ in range(300))

    assert 100 <= admitted <= 100 + replicas - 1


def test_follows_the_store_down() -> None:
    """What has left the store is no longer counted here either."""
    caller = Caller(Limit(1000, 100, 1000), 1)
    charge = [Charge("c" * 22, Rule("tier", caller.limit), 1)]
    caller.counters.observe(charge, START_US, [Reading(99, START_US, 0, 0, 0)])
    caller.counters.observe(charge, START_US, [Reading(10, START_US, 0, 0, 0)])

    assert sum(caller.spend(0).allowed for _ in range(300)) == 100 - 11

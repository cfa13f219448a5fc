"""The arithmetic that script and model share."""

from __future__ import annotations

import pytest

from ratelimit_service.limits import (
    BURST,
    MINUTE,
    NEVER,
    SECOND_US,
    TOKEN,
    Charge,
    Limit,
    Reading,
    Rule,
    burst_wait_us,
    drained,
    hits_in_the_way,
    judge,
    whole_seconds,
)

NOW_US = 1_800_000_000_000_000
TIER = Charge("c" * 22, Rule("tier", Limit(10, 200, 20)), 1)
ROUTE = Charge("c" * 22, Rule("route:x", Limit(1, 5, 2)), 1)


@pytest.mark.parametrize(
    ("wait_us", "seconds"), [(1, 1), (SECOND_US, 1), (SECOND_US + 1, 2), (59 * SECOND_US, 59), (NEVER, 60)]
)
def test_whole_seconds(wait_us: int, seconds: int) -> None:
    """Waits are told in whole seconds, at least one, rounded up; what never passes is told a minute."""
    assert whole_seconds(wait_us) == seconds


def test_drained() -> None:
    """A level drains with time, never below empty, and not at all when the clock goes back."""
    refill = Limit(10, 1, 1).refill
    assert drained(5 * TOKEN, SECOND_US // 10, refill) == 4 * TOKEN
    assert drained(5 * TOKEN, 10**15, refill) == 0
    assert drained(5 * TOKEN, -1, refill) == 5 * TOKEN


@pytest.mark.parametrize(
    ("level", "hits", "wait_us"),
    [(0, 20, 0), (0, 21, NEVER), (19 * TOKEN, 1, 0), (20 * TOKEN, 1, 100_000), (20 * TOKEN - 1, 1, 100_000)],
)
def test_burst_wait(level: int, hits: int, wait_us: int) -> None:
    """The bucket of 20 at 10 a second lets a hits through as soon as there is room for it."""
    limit = Limit(10, 200, 20)
    assert burst_wait_us(level, hits, limit.capacity, limit.refill) == wait_us


@pytest.mark.parametrize(
    ("used", "hits", "in_the_way"), [(0, 5, 0), (5, 1, 1), (8, 2, 5), (0, 6, NEVER), (5, 6, NEVER)]
)
def test_hits_in_the_way(used: int, hits: int, in_the_way: int) -> None:
    """Of a minute of 5, so many of the oldest hits must leave first."""
    assert hits_in_the_way(used, hits, 5) == in_the_way


def test_success_tells_the_tightest_minute() -> None:
    """Where several counters are charged, the one with the least left is told."""
    verdict = judge(NOW_US, [TIER, ROUTE], [Reading(10, NOW_US, 0, 0, 0), Reading(2, NOW_US, 0, 0, 0)])

    assert verdict
    assert (verdict.allowed, verdict.charge, verdict.kind, verdict.remaining) == (True, ROUTE, MINUTE, 2)


@pytest.mark.parametrize(
    ("burst_us", "minute_us", "kind", "retry_after"),
    [(500_000, 0, BURST, 1), (0, 7_100_000, MINUTE, 8), (2_000_000, 7_100_000, MINUTE, 8), (NEVER, 1, BURST, 60)],
)
def test_refusal_tells_the_longest_wait(burst_us: int, minute_us: int, kind: str, retry_after: int) -> None:
    """If both rules refuse, the later time is told, with the rule that it comes from."""
    verdict = judge(NOW_US, [TIER], [Reading(200, NOW_US, 0, burst_us, minute_us)])

    assert verdict
    assert (verdict.allowed, verdict.kind, verdict.retry_after, verdict.remaining) == (False, kind, retry_after, 0)


def test_one_refusal_refuses_all() -> None:
    """One counter over its limit refuses the request, whatever the others say."""
    verdict = judge(NOW_US, [TIER, ROUTE], [Reading(0, 0, 0, 0, 0), Reading(5, NOW_US, 0, 0, SECOND_US)])

    assert verdict
    assert (verdict.allowed, verdict.charge) == (False, ROUTE)

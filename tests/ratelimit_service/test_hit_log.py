"""The log of one counter: what is inside the window, what waits for it, and what is forgotten."""

from __future__ import annotations

import pytest

from ratelimit_service.counters.hit_log import Entry, HitLog, Live, Weights
from ratelimit_service.limits import NEVER, SECOND_US, WINDOW_US

START_US = 1_800_000_000_000_000
CONFIRMED = Weights(confirmed=1)


def at(seconds: float) -> int:
    return START_US + round(seconds * SECOND_US)


@pytest.fixture
def log() -> HitLog:
    """Three confirmed hits, two of them from here; after ten seconds four that the store does not know of."""
    log = HitLog()
    log.add(at(0), confirmed=3, confirmed_here=2)
    log.add(at(10), unconfirmed=4)
    return log


def test_an_empty_log() -> None:
    """Nothing is in it, and nothing has a time."""
    log = HitLog()

    assert log.live(at(0)) == Live(0, 0, 0, 0, 0)
    assert (log.newest_us, list(log.entries())) == (0, [])


def test_hits_leave_after_a_minute(log: HitLog) -> None:
    """At exactly a minute an entry is out; reading forgets nothing, so that a clock may go back."""
    assert log.live(at(59.9))[1:] == (3, 2, 4, at(0))
    assert log.live(at(60))[1:] == (0, 0, 4, at(10))
    assert log.live(at(70))[1:] == (0, 0, 0, 0)
    assert log.live(at(1))[1:] == (3, 2, 4, at(0))


@pytest.mark.parametrize(
    ("weights", "weighed"),
    [(CONFIRMED, 3), (Weights(confirmed=1, unconfirmed=2), 11), (Weights(confirmed_here=2, unconfirmed=2), 12)],
)
def test_kinds_of_hits_have_weights(log: HitLog, weights: Weights, weighed: int) -> None:
    """A bound says how much each kind counts for."""
    assert log.live(at(20)).weighed(weights) == weighed


@pytest.mark.parametrize(("excess", "seconds"), [(0, 0), (1, 40), (3, 40), (4, 50), (11, 50)])
def test_the_wait_until_the_oldest_have_left(log: HitLog, excess: int, seconds: int) -> None:
    """Whole entries leave, the oldest first."""
    weights = Weights(confirmed=1, unconfirmed=2)

    assert log.wait_us(log.live(at(20)), excess, at(20), weights) == seconds * SECOND_US


def test_some_never_fit(log: HitLog) -> None:
    """More than a whole limit is told as it is asked."""
    assert log.wait_us(log.live(at(20)), NEVER, at(20), CONFIRMED) == NEVER


def test_after_the_store_was_told(log: HitLog) -> None:
    """Every hit is confirmed, and those from here stay from here."""
    log.confirm_all(5)

    assert log.live(at(20))[1:] == (7, 6, 0, at(0))
    assert list(log.entries()) == [Entry(at(0), 3, 2, 0), Entry(at(10), 4, 4, 0, at(10) + 5)]


def test_the_oldest_go_those_of_others_first(log: HitLog) -> None:
    """What has left the store is forgotten; what passed here is kept as long as the store may still know of it."""
    log.drop_oldest(1)
    assert log.live(at(20))[1:] == (2, 2, 4, at(0))

    log.drop_oldest(1)
    assert log.live(at(20))[1:] == (1, 1, 4, at(0))


def test_the_newest_go(log: HitLog) -> None:
    """Across entries; what is empty is no entry any more."""
    log.confirm_all(5)
    log.drop_newest(5)

    assert list(log.entries()) == [Entry(at(0), 2, 2, 0)]
    assert (log.confirmed, log.confirmed_here) == (2, 2)


def test_a_clock_that_goes_back(log: HitLog) -> None:
    """What lies in the future happened now."""
    log.move_to(at(5))

    assert [entry.at_us for entry in log.entries()] == [at(0), at(5)]


def test_what_has_left_is_forgotten_in_time() -> None:
    """However long a caller goes on, the array holds about what is inside the window."""
    log = HitLog()
    for second in range(1_000):
        log.keep(log.live(at(second)))
        log.add(at(second), confirmed=1, confirmed_here=1)
    log.keep(log.live(at(999)))

    assert log.confirmed == WINDOW_US // SECOND_US
    assert len(log._entries) // 5 <= 2 * log.confirmed + 64

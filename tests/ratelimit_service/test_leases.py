"""Leases: who is worth one, and how large."""

from __future__ import annotations

import pytest

from ratelimit_service.leases import (
    BUSY_US,
    MAX_CALLERS,
    MAX_UNITS,
    MIN_UNITS,
    NO_WISH,
    PAUSE_US,
    SHARE,
    SPAN_US,
    Leases,
    Report,
    Wish,
    read_report,
)

PLENTY = 1_000_000


class Worker:
    """An Envoy worker that asks once a millisecond, and spends this part of each lease."""

    def __init__(self, leases: Leases, name: str = "w", spends: float = 1.0, most: int = PLENTY) -> None:
        self.leases, self.name, self.spends, self.most = leases, name, spends, most
        self.serial, self.spent, self.now_us = 0, 0, 0

    def ask(self, wait_us: int = 1_000) -> int:
        """The units of the lease that came with the answer."""
        self.now_us += wait_us
        report = Report(self.name, self.serial, self.spent)
        wish = self.leases.wish("key", report, self.most, self.now_us)
        lease = self.leases.grant("key", report, wish.units, 1) if wish.units else None
        if lease is None:
            return 0
        self.serial, self.spent = lease.serial, round(lease.units * self.spends)
        return lease.units


def test_a_busy_caller_gets_larger_and_larger_leases() -> None:
    """The first question finds nobody busy; who spends what it got gets twice as much, up to the most."""
    worker = Worker(Leases())

    assert [worker.ask() for _ in range(11)] == [0, 1, 2, 4, 8, 16, 32, 64, 128, MAX_UNITS, MAX_UNITS]


def test_a_caller_who_asks_seldom_gets_none() -> None:
    """More than a quarter of a lease's life between questions is not busy."""
    worker = Worker(Leases())

    assert {worker.ask(BUSY_US + 1) for _ in range(50)} == {0}


def test_an_unspent_lease_is_the_last_for_a_while() -> None:
    """Then it begins again with one."""
    worker = Worker(Leases())
    for _ in range(5):
        worker.ask()
    worker.spent = 0

    assert {worker.ask() for _ in range(PAUSE_US // 1_000)} == {0}
    assert [worker.ask() for _ in range(3)] == [1, 2, 4]


def test_a_lease_half_spent_stays_as_large() -> None:
    """It neither grows nor ends."""
    worker = Worker(Leases())
    sizes = [worker.ask() for _ in range(6)]
    worker.spends = 0.5
    worker.spent = sizes[-1] // 2

    assert [worker.ask() for _ in range(3)] == [sizes[-1]] * 3


def test_one_lease_at_a_time() -> None:
    """What a worker's other requests ask while a lease is on its way brings no second one."""
    leases = Leases()
    leases.wish("key", Report("w", 0, 0), PLENTY, 0)
    first = leases.wish("key", Report("w", 0, 0), PLENTY, 1_000)

    assert first == Wish(1)
    assert leases.grant("key", Report("w", 0, 0), 1, 1) is not None
    assert leases.wish("key", Report("w", 0, 0), PLENTY, 2_000) is NO_WISH
    assert leases.wish("key", Report("w", 0, 0), PLENTY, 1_000 + SPAN_US) is NO_WISH  # lost: it pauses
    assert leases.wish("key", Report("other", 0, 0), PLENTY, 2_000) is NO_WISH


def test_what_the_store_refuses_is_no_lease() -> None:
    """The next question may try again."""
    leases, report = Leases(), Report("w", 0, 0)
    leases.wish("key", report, PLENTY, 0)

    assert leases.wish("key", report, PLENTY, 1).units == 1
    assert leases.grant("key", report, 0, 1) is None
    assert leases.wish("key", report, PLENTY, 2).units == 1


@pytest.mark.parametrize(("most", "units"), [(SHARE * MIN_UNITS - 1, 0), (SHARE * MIN_UNITS, 8), (400, 20)])
def test_a_lease_is_a_small_part_of_the_limit(most: int, units: int) -> None:
    """A twentieth; where that is next to nothing there is none."""
    worker = Worker(Leases(), most=most)

    assert max(worker.ask() for _ in range(20)) == units


def test_holders_share_the_part() -> None:
    """Two workers of one caller have half of it each."""
    leases = Leases()
    one, two = (Worker(leases, name, most=800) for name in ("one", "two"))

    assert [(one.ask(), two.ask()) for _ in range(12)][-1] == (20, 20)


def test_memory_is_bounded() -> None:
    """The least recently seen callers and workers are forgotten."""
    leases = Leases(max_callers=10)
    for number in range(100):
        leases.wish(f"key{number}", Report("w", 0, 0), PLENTY, number)
        leases.wish("key", Report(f"w{number}", 0, 0), PLENTY, number)

    assert len(leases) == 10 < MAX_CALLERS


@pytest.mark.parametrize("text", ["", "w", "w.", "w.1", ".1.1", "w.1.x", "w.-1.1", "w.1.1.1", "w" * 70 + ".1.1"])
def test_a_report_that_is_none(text: str) -> None:
    """Only Envoy's front door writes reports, but whoever does: nothing is taken that is none."""
    assert read_report(text) is None


def test_a_report() -> None:
    """Who, which lease, and how much of it was spent."""
    assert read_report("7f3a.12.30") == Report("7f3a", 12, 30)

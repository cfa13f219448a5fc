"""Leases: who is worth one, and how large."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.leases import (
    MAX_CALLERS,
    MIN_UNITS,
    RISK,
    SHARE,
    SPAN_US,
    Leases,
    Report,
    Wish,
    read_report,
)

PLENTY = 1_000_000


class Worker:
    """An Envoy worker whose requests come every `every_us`, and pass by a lease while there is one."""

    def __init__(self, leases: Leases, name: str = "w", every_us: int = 1_000, most: int = PLENTY) -> None:
        self.leases, self.name, self.every_us, self.most = leases, name, every_us, most
        self.serial, self.spent, self.left, self.ends_us, self.now_us = 0, 0, 0, 0, 0
        self.asks, self.granted, self.sizes = 0, 0, [0]

    def ask(self) -> Wish:
        """One question; what is granted is taken at once."""
        self.asks += 1
        report = Report(self.name, self.serial, self.spent)
        wish = self.leases.wish("key", report, self.most, self.now_us)
        lease = self.leases.grant("key", report, wish.units, 1) if wish.units else None
        if lease is not None:
            self.serial, self.left, self.ends_us = lease.serial, lease.units, self.now_us + lease.span_us
            self.granted += lease.units
            self.sizes.append(lease.units)
        return wish

    def run(self, requests: int) -> Worker:
        """So many requests."""
        for _ in range(requests):
            self.now_us += self.every_us
            if self.left and self.now_us < self.ends_us:
                self.left, self.spent = self.left - 1, self.spent + 1
            else:
                self.left = 0
                self.ask()
        return self


def test_a_busy_caller_soon_asks_seldom() -> None:
    """A thousand requests a second need a question for some sixty: two thirds of what passes in a lease's life."""
    worker = Worker(Leases()).run(5_000)
    before = worker.asks
    worker.run(1_000)

    assert worker.asks - before <= 1_000 // 40
    assert SPAN_US // 2 // 1_000 < max(worker.sizes) <= SPAN_US * 3 // 4 // 1_000


def test_a_caller_who_asks_seldom_gets_none() -> None:
    """Fewer than two requests in a lease's life are nothing to charge ahead for."""
    assert Worker(Leases(), every_us=SPAN_US).run(2_000).granted == 0


@given(
    st.lists(
        st.tuples(st.sampled_from([100, 1_000, 10_000, 60_000]), st.integers(1, 500), st.integers(0, 3_000_000)),
        max_size=20,
    )
)
def test_little_is_ever_lost(phases: list[tuple[int, int, int]]) -> None:
    """However requests come and pause: what was charged ahead and not spent is a small part of what passed."""
    worker = Worker(Leases())
    for every_us, requests, pause_us in phases:
        worker.every_us = every_us
        worker.run(requests)
        worker.now_us += pause_us
        assert worker.granted - worker.spent <= (worker.asks + worker.spent) / RISK


def test_one_lease_at_a_time() -> None:
    """What a worker's other requests ask while a lease is on its way brings no second one."""
    leases = Leases()
    report = Report("w", 0, 0)
    wishes = [leases.wish("key", report, PLENTY, number * 100) for number in range(3 * RISK)]

    assert [wish.units for wish in wishes if wish.units] == [1]


def test_a_lease_that_never_came_is_waited_for_once() -> None:
    """After its end the worker may have another; what it lost counts against it."""
    leases = Leases()
    report = Report("w", 0, 0)
    granted = []
    for number in range(8 * RISK):
        wish = leases.wish("key", report, PLENTY, number * 1_000)
        if wish.units:
            leases.grant("key", report, wish.units, 1)
            granted.append(number)

    assert granted[0] == RISK - 1
    assert granted[1] - granted[0] >= SPAN_US // 1_000


def test_what_the_store_refuses_is_no_lease() -> None:
    """Nothing was charged, so nothing is at risk."""
    leases, report = Leases(), Report("w", 0, 0)
    while not leases.wish("key", report, PLENTY, 0).units:
        pass

    assert leases.grant("key", report, 0, 1) is None
    assert leases.wish("key", report, PLENTY, SPAN_US // 2).units == 0
    assert leases.wish("key", report, PLENTY, SPAN_US).units >= 1


def test_a_worker_that_forgot_begins_anew() -> None:
    """An Envoy whose script was replaced, or that made room, counts from nothing again; a lie gains nothing."""
    leases = Leases()
    worker = Worker(leases).run(2_000)
    worker.serial = worker.spent = worker.left = 0

    assert {worker.ask().units for _ in range(RISK - 1)} == {0}
    assert leases.wish("key", Report("w", 10**6, 10**6), PLENTY, worker.now_us).units == 0


@pytest.mark.parametrize(("most", "units"), [(SHARE * MIN_UNITS - 1, 0), (SHARE * MIN_UNITS, 32), (800, 40)])
def test_a_lease_is_a_small_part_of_the_limit(most: int, units: int) -> None:
    """A twentieth; where that is next to nothing there is none."""
    assert max(Worker(Leases(), most=most).run(5_000).sizes) == units


def test_holders_share_the_part() -> None:
    """Two workers of one caller have half of it each."""
    leases = Leases()
    one, two = (Worker(leases, name, most=1600) for name in ("one", "two"))
    for _ in range(5_000):
        one.run(1)
        two.run(1)

    assert (max(one.sizes[-10:]), max(two.sizes[-10:])) == (40, 40)


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

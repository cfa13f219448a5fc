"""Leases: who is worth one, and how large."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.leases import (
    MAX_CALLERS,
    MIN_REQUESTS,
    RISK,
    SHARE,
    SPAN_US,
    Lease,
    LeaseRequest,
    Leases,
    LeaseUse,
    Report,
    read_report,
)
from ratelimit_service.limits import CounterKey

PLENTY = 1_000_000
KEY = CounterKey("c" * 22, "tier")


def a_report(holder: str = "w", serial: int = 0, spent: int = 0, *, wanted: bool = True) -> Report:
    """Of a worker that took leases of the one replica there is."""
    return Report(holder, wanted, {"r0": LeaseUse(serial, spent)})


def replicas(number: int) -> list[Leases]:
    return [Leases(f"r{index}") for index in range(number)]


class Worker:
    """An Envoy worker whose requests come every `every_us`, and pass by a lease while there is one.

    It asks its replicas in turn.
    """

    def __init__(self, *leases: Leases, name: str = "w", every_us: int = 1_000, most: int = PLENTY) -> None:
        self.replicas, self.name, self.every_us, self.most = leases, name, every_us, most
        self.uses: dict[str, LeaseUse] = {}
        self.of, self.left, self.ends_us, self.now_us = "", 0, 0, 0
        self.asks, self.granted, self.sizes = 0, 0, [0]

    @property
    def spent(self) -> int:
        return sum(taken.spent for taken in self.uses.values())

    def ask(self) -> LeaseRequest:
        """One descriptor; what is granted is taken at once."""
        leases = self.replicas[self.asks % len(self.replicas)]
        self.asks += 1
        report = Report(self.name, True, dict(self.uses))
        lease_request = leases.request(KEY, report, self.most, self.now_us)
        lease = leases.grant(KEY, report, lease_request.requests, 1) if lease_request.requests else None
        if lease is not None:
            self.of, self.left, self.ends_us = lease.replica, lease.requests, self.now_us + lease.span_us
            self.uses[self.of] = LeaseUse(lease.serial, self.uses.get(self.of, LeaseUse()).spent)
            self.granted += lease.requests
            self.sizes.append(lease.requests)
        return lease_request

    def run(self, requests: int) -> Worker:
        """So many requests."""
        for _ in range(requests):
            self.now_us += self.every_us
            if self.left and self.now_us < self.ends_us:
                self.left -= 1
                self.uses[self.of] = self.uses[self.of]._replace(spent=self.uses[self.of].spent + 1)
            else:
                self.left = 0
                self.ask()
        return self


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_busy_caller_soon_asks_seldom(number: int) -> None:
    """A thousand requests a second need a descriptor for some sixty: two thirds of what passes in a lease's life.

    However many replicas there are.
    """
    worker = Worker(*replicas(number)).run(5_000 * number)
    before = worker.asks
    worker.run(1_000)

    assert worker.asks - before <= 1_000 // 40
    assert SPAN_US // 2 // 1_000 < max(worker.sizes) <= SPAN_US * 3 // 4 // 1_000


def test_a_caller_who_asks_seldom_gets_none() -> None:
    """Fewer than two requests in a lease's life are too few to prepay for."""
    assert Worker(*replicas(1), every_us=SPAN_US).run(2_000).granted == 0


@given(
    st.lists(
        st.tuples(st.sampled_from([100, 1_000, 10_000, 60_000]), st.integers(1, 500), st.integers(0, 3_000_000)),
        max_size=20,
    ),
    st.integers(1, 3),
)
def test_little_is_ever_lost(phases: list[tuple[int, int, int]], number: int) -> None:
    """However requests come and pause: what was prepaid and not spent is a small part of what passed."""
    worker = Worker(*replicas(number))
    for every_us, requests, pause_us in phases:
        worker.every_us = every_us
        worker.run(requests)
        worker.now_us += pause_us
        assert worker.granted - worker.spent <= (worker.asks + worker.spent) / RISK


def test_one_lease_at_a_time() -> None:
    """What a worker's other requests ask while a lease is on its way brings no second one."""
    leases = Leases("r0")
    report = a_report()
    wishes = [leases.request(KEY, report, PLENTY, number * 100) for number in range(3 * RISK)]

    assert [lease_request.requests for lease_request in wishes if lease_request.requests] == [1]


def test_a_lease_that_never_came_is_waited_for_once() -> None:
    """After its end the worker may have another; what it lost counts against it."""
    leases = Leases("r0")
    report = a_report()
    granted = []
    for number in range(8 * RISK):
        lease_request = leases.request(KEY, report, PLENTY, number * 1_000)
        if lease_request.requests:
            leases.grant(KEY, report, lease_request.requests, 1)
            granted.append(number)

    assert granted[0] == RISK - 1
    assert granted[1] - granted[0] >= SPAN_US // 1_000


def test_what_the_store_refuses_is_no_lease() -> None:
    """Nothing was charged, so nothing is at risk."""
    leases, report = Leases("r0"), a_report()
    while not leases.request(KEY, report, PLENTY, 0).requests:
        pass

    assert leases.grant(KEY, report, 0, 1) is None
    assert leases.request(KEY, report, PLENTY, SPAN_US // 2).requests == 0
    assert leases.request(KEY, report, PLENTY, SPAN_US).requests >= 1


def test_a_worker_that_forgot_begins_anew() -> None:
    """An Envoy whose script was replaced, or that made room, counts from nothing again; a lie gains nothing."""
    leases = Leases("r0")
    worker = Worker(leases).run(2_000)
    worker.uses, worker.left = {}, 0

    assert {worker.ask().requests for _ in range(RISK - 1)} == {0}
    assert leases.request(KEY, a_report("w", 10**6, 10**6), PLENTY, worker.now_us).requests == 0


def test_a_replica_that_is_new_begins_anew() -> None:
    """It has granted nothing, whatever was taken of one that is gone, and is told how busy the worker is."""
    worker = Worker(Leases("gone")).run(2_000)
    worker.replicas, worker.left, before = (Leases("new"),), 0, worker.granted
    assert {worker.ask().requests for _ in range(RISK - 1)} == {0}

    worker.run(5_000)

    assert worker.granted > before
    assert worker.uses["new"].spent > 0


def test_a_replica_of_which_no_more_is_told() -> None:
    """A worker tells of few replicas only: what it seems to have spent may shrink, and nothing breaks."""
    one, other = replicas(2)
    worker = Worker(one, other).run(4_000)
    del worker.uses["r1"]
    worker.replicas, worker.left = (one,), 0

    assert worker.ask().requests >= 0
    worker.run(2_000)
    assert worker.sizes[-1] > 0


def test_a_worker_that_awaits_one_gets_none() -> None:
    """Another replica's lease may be on its way: two at once could not both be spent."""
    leases = Leases("r0")
    worker = Worker(leases).run(2_000)

    for _ in range(RISK):
        waiting = Report("w", False, worker.uses)
        assert leases.request(KEY, waiting, PLENTY, worker.now_us).requests == 0
    assert worker.ask().requests > 0


@pytest.mark.parametrize(("most", "requests"), [(SHARE * MIN_REQUESTS - 1, 0), (SHARE * MIN_REQUESTS, 32), (800, 40)])
def test_a_lease_is_a_small_part_of_the_limit(most: int, requests: int) -> None:
    """A twentieth; where that is next to nothing there is none."""
    assert max(Worker(*replicas(1), most=most).run(5_000).sizes) == requests


def test_holders_share_the_part() -> None:
    """Two workers of one caller have half of it each."""
    leases = Leases("r0")
    one, two = (Worker(leases, name=name, most=1600) for name in ("one", "two"))
    for _ in range(5_000):
        one.run(1)
        two.run(1)

    assert (max(one.sizes[-10:]), max(two.sizes[-10:])) == (40, 40)


def test_memory_is_bounded() -> None:
    """The least recently seen callers and workers are forgotten."""
    leases = Leases("r0", max_callers=10)
    for number in range(100):
        leases.request(CounterKey(f"{number}", "tier"), a_report(), PLENTY, number)
        leases.request(KEY, a_report(f"w{number}"), PLENTY, number)

    assert len(leases) == 10 < MAX_CALLERS


NO_REPORTS = ["", "w", "w.", ".1", "w.2", "w.1;", "w.1;r", "w.1;r.1", "w.1;r.1.x", "w.1;.1.1", "w.1;r.-1.1", "w.1.1"]


@pytest.mark.parametrize("text", [*NO_REPORTS, "w.1" + ";r.1.1" * 100])
def test_a_report_that_is_none(text: str) -> None:
    """Only Envoy's front door writes reports, but whoever does: nothing is taken that is none."""
    assert read_report(text) is None


def test_a_report() -> None:
    """Who, whether a lease is wanted, and of each replica which lease it took last, and how much was spent."""
    assert read_report("7f3a.1") == Report("7f3a", True, {})
    assert read_report("7f3a.0;ab.12.30;cd.1.0") == Report(
        "7f3a", False, {"ab": LeaseUse(12, 30), "cd": LeaseUse(1, 0)}
    )


def test_a_lease_as_envoy_reads_it() -> None:
    """Whose, which, how many requests, what each is charged, for how many milliseconds."""
    assert str(Lease("ab", 12, 40, 2)) == "ab 12 40 2 100"

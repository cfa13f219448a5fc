"""Which counters a request charges, and what a decision is when the store cannot say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ratelimit_service.counters.base import CounterReply
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.descriptors import Descriptor
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.leases import NO_LEASE, LeaseRequest, LeaseUse, Report
from ratelimit_service.limiter import Limiter, charges_for, failure_mode, may_lease
from ratelimit_service.limits import MAX_CHARGE, Charge
from ratelimit_service.policy import read_policy

NUMBERS = {"rps": 1000, "rpm": 10, "burst": 1000}
PLAN = read_policy(
    {
        "on_store_failure": "open",
        "replicas": 2,
        "tiers": {"anonymous": NUMBERS | {"rpm": 4}, "free": NUMBERS, "pro": NUMBERS | {"rpm": 20}},
        "routes": {
            "search": {"cost": 2},
            "login": {"limits": NUMBERS | {"rpm": 3}, "on_store_failure": "closed"},
            "export": {"on_store_failure": "share"},
            "ping": {"cost": 0},
        },
    }
)


def a_request_to_count(route: str = "content", tier: str = "free", caller: str = "p/u1", hits: int = 1) -> Descriptor:
    return Descriptor(route, tier, caller, "10.0.0.1", hits)


class NoCounters:
    """A store that is away."""

    async def decide(self, charges: Sequence[Charge], lease_request: LeaseRequest = NO_LEASE) -> CounterReply:
        raise CountersUnavailable("away")


async def admitted(limiter: Limiter, *descriptors: Descriptor, times: int = 50) -> int:
    decisions = [await limiter.check(descriptors, PLAN) for _ in range(times)]
    return sum(decision.verdict is None or decision.verdict.allowed for decision in decisions)


@pytest.fixture
def limiter(recorder: Any) -> Limiter:
    return Limiter(MemoryCounters(), None, recorder)


async def test_one_budget_over_routes(limiter: Limiter) -> None:
    """Routes without limits of their own share the caller's budget, each at its cost."""
    assert await admitted(limiter, a_request_to_count("content"), times=4) == 4
    assert await admitted(limiter, a_request_to_count("search")) == 3
    assert await admitted(limiter, a_request_to_count("content")) == 0


async def test_route_with_its_own_limit(limiter: Limiter) -> None:
    """A route with its own limits has its own counter, and leaves the caller's budget alone."""
    assert await admitted(limiter, a_request_to_count("login")) == 3
    assert await admitted(limiter, a_request_to_count("content")) == 10


async def test_moved_between_tiers(limiter: Limiter) -> None:
    """A caller whose tier changes keeps what it spent."""
    assert await admitted(limiter, a_request_to_count(tier="free")) == 10
    assert await admitted(limiter, a_request_to_count(tier="pro")) == 10
    assert await admitted(limiter, a_request_to_count(tier="free")) == 0


async def test_unknown_tier_has_its_own_bucket(limiter: Limiter) -> None:
    """An unknown tier has anonymous numbers, in the caller's own bucket."""
    assert await admitted(limiter, a_request_to_count(tier="gold", caller="p/u1")) == 4
    assert await admitted(limiter, a_request_to_count(tier="gold", caller="p/u2")) == 4
    assert await admitted(limiter, a_request_to_count(tier="anonymous", caller="-")) == 4


async def test_hits(limiter: Limiter) -> None:
    """Hits multiply the cost of the route."""
    assert await admitted(limiter, a_request_to_count("search", hits=2)) == 2


async def test_free_route(limiter: Limiter) -> None:
    """A route of cost 0 charges nothing, and is refused while nothing is left."""
    assert await admitted(limiter, a_request_to_count("ping")) == 50
    assert await admitted(limiter, a_request_to_count("content")) == 10
    assert await admitted(limiter, a_request_to_count("ping")) == 0


def test_same_counter_twice() -> None:
    """Two descriptors that name one counter charge it once, with the hits of both."""
    charges = charges_for([a_request_to_count("search"), a_request_to_count("content")], PLAN)

    assert [(charge.rule.name, charge.hits) for charge in charges] == [("tier", 3)]


def test_absurd_hits() -> None:
    """More hits than every limit are cut to a number that is still more."""
    assert charges_for([a_request_to_count(hits=2**32 - 1)] * 3, PLAN)[0].hits == MAX_CHARGE


def test_strictest_mode() -> None:
    """Several routes fail in the strictest of their ways."""
    assert failure_mode([a_request_to_count("content")], PLAN) == "open"
    assert failure_mode([a_request_to_count("content"), a_request_to_count("export")], PLAN) == "share"
    assert failure_mode([a_request_to_count("login"), a_request_to_count("export")], PLAN) == "closed"


@pytest.mark.parametrize(
    ("route", "mode", "passed"), [("content", "open", 50), ("export", "share", 5), ("login", "closed", 0)]
)
async def test_without_the_store(recorder: Any, route: str, mode: str, passed: int) -> None:
    """Each route fails in its own way, and every such decision is counted."""
    limiter = Limiter(NoCounters(), MemoryCounters(), recorder)

    assert await admitted(limiter, a_request_to_count(route)) == passed
    assert recorder.modes == [mode] * 50


LEASED_BURST = 4_800
LEASED_PLAN = read_policy(
    {
        "epoch": "e1",
        "replicas": 2,
        "tiers": {"anonymous": NUMBERS, "free": {"rps": 1_000_000, "rpm": 1_000_000, "burst": LEASED_BURST}},
        "routes": {"search": {"cost": 2}},
    }
)


class Granting(MemoryCounters):
    """A store that prepays whatever is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[int] = []

    async def decide(self, charges: Sequence[Charge], lease_request: LeaseRequest = NO_LEASE) -> CounterReply:
        self.requests.append(lease_request.requests)
        return (await super().decide(charges))._replace(leased=lease_request.requests)


def a_worker(lease: str = "e1/", route: str = "content") -> Descriptor:
    return a_request_to_count(route)._replace(report=Report("w", True, {}), lease=lease)


async def leased(limiter: Limiter, descriptor: Descriptor, times: int = 2_000) -> list[int]:
    """The requests in the leases that a worker gets who asks so often without a pause, and spends each."""
    units = []
    for _ in range(times):
        lease = (await limiter.check([descriptor], LEASED_PLAN)).lease
        units.append(lease.requests if lease else 0)
        if lease and descriptor.report:
            before = descriptor.report.uses.get(lease.replica, LeaseUse())
            taken = {lease.replica: LeaseUse(lease.serial, before.spent + lease.requests)}
            descriptor = descriptor._replace(report=descriptor.report._replace(uses=taken))
    return units


async def test_a_busy_worker_gets_leases(recorder: Any) -> None:
    """Up to this replica's part of a twentieth of the smaller number, in requests."""
    store = Granting()

    assert max(await leased(Limiter(store, None, recorder), a_worker())) == LEASED_BURST // 2 // 20
    search = a_worker("e1/search", "search")
    assert max(await leased(Limiter(store, None, recorder), search)) == LEASED_BURST // 2 // 2 // 20
    assert max(store.requests) == LEASED_BURST // 2 // 20


async def test_a_lease_is_observed_by_the_share(recorder: Any) -> None:
    """What was prepaid counts where the store goes away."""
    local = MemoryCounters()
    units: list[int] = []
    limiter = Limiter(Granting(), local, recorder)
    while not any(units):
        units += await leased(limiter, a_worker(), 1)

    nothing = [charge._replace(hits=0) for charge in charges_for([a_worker()], LEASED_PLAN)]
    assert (await local.decide(nothing))[1][0].used == len(units) + sum(units)


@pytest.mark.parametrize("lease", ["", "yes", "/", "e0/", "e1x/"])
async def test_other_numbers_no_lease(recorder: Any, lease: str) -> None:
    """An Envoy that goes by other numbers gets none: it would spend it under the wrong ones."""
    store = Granting()

    assert set(await leased(Limiter(store, None, recorder), a_worker(lease))) == {0}
    assert set(store.requests) == {0}


def test_a_policy_without_a_name_has_no_leases() -> None:
    """As it is where nobody told Envoy of it."""
    assert may_lease([a_worker("/")], PLAN) is None


def test_several_descriptors_no_lease() -> None:
    """What one descriptor of several would have to be prepaid, nobody says."""
    assert may_lease([a_worker(), a_request_to_count()], LEASED_PLAN) is None


def test_routes_that_depart_have_leases_of_their_own() -> None:
    """Their workers are told apart, as in the request filter."""
    reports = [may_lease([a_worker(f"e1/{route}")], LEASED_PLAN) for route in ("", "search")]

    assert [report and report.holder for report in reports] == ["w/", "w/search"]


def test_who_is_charged() -> None:
    """By caller, by address, or both; what is one is charged once."""
    plan = read_policy(
        {
            "tiers": {"anonymous": NUMBERS, "free": NUMBERS},
            "routes": {by: {"limits": NUMBERS | {"by": by}} for by in ("caller", "address", "both")},
        }
    )

    def charged(route: str, caller: str = "p/u1") -> list[str]:
        return [charge.tag for charge in charges_for([a_request_to_count(route, caller=caller)], plan)]

    (caller,), (address,), both = charged("caller"), charged("address"), charged("both")
    assert caller != address
    assert both == [caller, address]
    assert charged("caller", "-") == charged("address", "-") == charged("both", "-") == [address]

"""May this request pass: which counters it charges, what they say, and what holds when the store cannot say."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ratelimit_service.clocks import monotonic_us, wall_clock_us
from ratelimit_service.counters.base import Counters
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.descriptors import Descriptor, address_tag, caller_tag
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.leases import NO_LEASE, Lease, LeaseRequest, Leases, Report
from ratelimit_service.limits import (
    MAX_CHARGE,
    MINUTE,
    SECOND_US,
    Charge,
    CounterKey,
    Rule,
    Verdict,
    judge,
    shadows_over_limit,
)
from ratelimit_service.policy import OnStoreFailure, Plan

EXACT = "exact"
_STRICTNESS: dict[OnStoreFailure, int] = {"open": 0, "share": 1, "closed": 2}


class Decision(NamedTuple):
    """A verdict, and how it came about: `exact`, or the mode that holds while the store is away.

    There is no verdict where nothing limits the request.
    """

    verdict: Verdict | None
    mode: str
    shadows: Sequence[Verdict] = ()
    """The shadow rules that would have been over limit."""
    lease: Lease | None = None
    """What was prepaid, for the Envoy worker that asked."""


UNLIMITED = Decision(None, EXACT)


class LimiterMetrics(Protocol):
    """Counts each decision that was made without the store."""

    def degraded(self, mode: OnStoreFailure) -> None: ...


class Limiter:
    """Decides. `local` follows the store, so that a share can be enforced when it is away."""

    def __init__(self, counters: Counters, local: MemoryCounters | None, metrics: LimiterMetrics) -> None:
        self._counters = counters
        self._local = local
        self._metrics = metrics
        self._leases = Leases(secrets.token_hex(4))

    async def check(self, descriptors: Sequence[Descriptor], plan: Plan) -> Decision:
        """One decision for all descriptors of a request: all charges are made, or none."""
        charges = charges_for(descriptors, plan)
        if not charges or plan.exempt.has(descriptors[0].caller, descriptors[0].remote_address):
            return UNLIMITED
        report = may_lease(descriptors, plan)
        lease_request = NO_LEASE if report is None else self._lease_request(charges, report, plan)
        try:
            now_us, readings, leased = await self._counters.decide(charges, lease_request)
        except CountersUnavailable:
            return self._without_store(charges, plan, failure_mode(descriptors, plan))
        lease = self._leases.grant(charges[0].key, report, leased, charges[0].hits) if report and leased else None
        if self._local is not None:
            if leased:  # the store holds it at the lease's end
                held_us = now_us + lease_request.span_us
                self._local.observe(with_prepaid(charges, leased), now_us, readings, plan.replicas, held_us)
            else:
                self._local.observe(charges, now_us, readings, plan.replicas)
        shadows = shadows_over_limit(now_us, charges, readings)
        return Decision(judge(now_us, charges, readings), EXACT, shadows, lease)

    def _lease_request(self, charges: Sequence[Charge], report: Report, plan: Plan) -> LeaseRequest:
        """How many more of these requests to prepay, for the worker that asks."""
        if any(charge.is_post_charge for charge in charges):
            return NO_LEASE
        if charges[0].rule.shared_tag or charges[0].rule.is_shadow or not charges[0].hits:
            return NO_LEASE  # a lease is the caller's: one without limits of its own, or costs, needs none
        most = min(min(charge.rule.limit.burst, charge.rule.limit.rpm) // charge.asked for charge in charges)
        return self._leases.request(charges[0].key, report, most // plan.replicas, monotonic_us())

    def _without_store(self, charges: Sequence[Charge], plan: Plan, mode: OnStoreFailure) -> Decision:
        self._metrics.degraded(mode)
        if mode == "open":
            return Decision(None, mode)
        if mode == "closed" or self._local is None:
            first = next((charge for charge in charges if charge.is_enforced), None)
            return Decision(None if first is None else over_limit_briefly(first, wall_clock_us()), mode)
        now_us, readings, _ = self._local.decide_share(charges, plan.replicas)
        return Decision(judge(now_us, charges, readings), mode, shadows_over_limit(now_us, charges, readings))


def may_lease(descriptors: Sequence[Descriptor], plan: Plan) -> Report | None:
    """Who would hold a lease: an Envoy worker that goes by this plan's numbers. Each route that departs has its own."""
    report, (epoch, _, route) = descriptors[0].report, descriptors[0].lease.partition("/")
    if len(descriptors) > 1 or report is None or not epoch or epoch != plan.epoch:
        return None
    return report._replace(holder=f"{report.holder}/{route}")


def charges_for(descriptors: Sequence[Descriptor], plan: Plan) -> list[Charge]:
    """What the descriptors charge. Two that name the same counter charge it once, together."""
    charges: dict[CounterKey, Charge] = {}
    for descriptor in descriptors:
        route = plan.route(descriptor.route)
        hits = min(descriptor.hits if descriptor.is_post_charge else route.cost * descriptor.hits, MAX_CHARGE)
        tag = caller_tag(descriptor, plan.anonymous_key, plan.prefixes)
        charged = [(each, rule) for rule in route.rules(descriptor.tier) for each in tags(rule, tag, descriptor, plan)]
        for each, rule in charged:
            charge = Charge(each, rule, hits, descriptor.is_post_charge)
            key = charge.key
            earlier = charges.get(key)
            if earlier is not None:
                together = min(hits + earlier.hits, MAX_CHARGE)
                is_post_charge = descriptor.is_post_charge and earlier.is_post_charge
                charge = charge._replace(hits=together, is_post_charge=is_post_charge)
            charges[key] = charge
    return [charge for charge in charges.values() if charge.hits or not charge.is_post_charge]


def tags(rule: Rule, caller: str, descriptor: Descriptor, plan: Plan) -> tuple[str, ...]:
    """Whose counters the rule charges. An anonymous caller is its address, which is charged once."""
    if rule.by == "caller" or rule.shared_tag:
        return (rule.shared_tag or caller,)
    address = address_tag(descriptor.remote_address, plan.prefixes)
    return (address,) if rule.by == "address" or address == caller else (caller, address)


def with_prepaid(charges: Sequence[Charge], leased: int) -> list[Charge]:
    """The charges of a request and of those that were prepaid with it."""
    return [charge._replace(hits=charge.hits * (1 + leased)) for charge in charges]


def failure_mode(descriptors: Sequence[Descriptor], plan: Plan) -> OnStoreFailure:
    """The strictest of the modes of the routes asked about."""
    modes = (plan.route(descriptor.route).on_store_failure for descriptor in descriptors)
    return max(modes, key=_STRICTNESS.__getitem__)


def over_limit_briefly(charge: Charge, now_us: int) -> Verdict:
    """Over limit by `closed`: nothing is known, so the client is asked to come back in a second."""
    return Verdict(False, charge, MINUTE, 0, now_us + SECOND_US, 1, now_us)

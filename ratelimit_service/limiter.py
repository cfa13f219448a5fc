"""May this request pass: which counters it charges, what they say, and what holds when the store cannot say."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ratelimit_service.counters.base import Counters
from ratelimit_service.counters.memory import MemoryCounters, wall_clock_us
from ratelimit_service.descriptors import Question, caller_tag
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.leases import NO_WISH, Lease, Leases, Report, Wish
from ratelimit_service.limits import MAX_COST, MINUTE, SECOND_US, Charge, Verdict, judge, shadow_refusals
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
    """What shadow rules would have refused."""
    lease: Lease | None = None
    """What was charged ahead, for the Envoy worker that asked."""


UNLIMITED = Decision(None, EXACT)


class Watcher(Protocol):
    """Hears of each decision that was made without the store."""

    def degraded(self, mode: OnStoreFailure) -> None: ...


class Limiter:
    """Decides. `local` follows the store, so that a share can be enforced when it is away."""

    def __init__(self, counters: Counters, local: MemoryCounters | None, watcher: Watcher) -> None:
        self._counters = counters
        self._local = local
        self._watcher = watcher
        self._leases = Leases(secrets.token_hex(4))

    async def check(self, questions: Sequence[Question], plan: Plan) -> Decision:
        """One decision for all questions of a request: all charges are made, or none."""
        charges = charges_for(questions, plan)
        if not charges:
            return UNLIMITED
        report = may_lease(questions, plan)
        wish = NO_WISH if report is None else self._wish(charges, report, plan)
        lease, leased = None, 0
        try:
            if report is None or wish is NO_WISH:
                now_us, readings = await self._counters.decide(charges)
            else:
                now_us, leased, readings = await self._counters.lease(charges, wish)
                lease = self._leases.grant(charges[0].key, report, leased, charges[0].cost)
        except CountersUnavailable:
            return self._without_store(charges, plan, failure_mode(questions, plan))
        if self._local is not None:
            self._local.observe(ahead(charges, leased) if leased else charges, now_us, readings)
        shadows = shadow_refusals(now_us, charges, readings)
        return Decision(judge(now_us, charges, readings), EXACT, shadows, lease)

    def _wish(self, charges: Sequence[Charge], report: Report, plan: Plan) -> Wish:
        """How many more of these requests to charge ahead, for the worker that asks."""
        if any(charge.is_late for charge in charges):
            return NO_WISH
        most = min(min(charge.rule.limit.burst, charge.rule.limit.rpm) // charge.cost for charge in charges)
        return self._leases.wish(charges[0].key, report, most // plan.replicas, monotonic_us())

    def _without_store(self, charges: Sequence[Charge], plan: Plan, mode: OnStoreFailure) -> Decision:
        self._watcher.degraded(mode)
        if mode == "open":
            return Decision(None, mode)
        if mode == "closed" or self._local is None:
            first = next((charge for charge in charges if charge.can_refuse), None)
            return Decision(None if first is None else refuse_briefly(first, wall_clock_us()), mode)
        now_us, readings = self._local.decide_share(charges, plan.replicas)
        return Decision(judge(now_us, charges, readings), mode, shadow_refusals(now_us, charges, readings))


def may_lease(questions: Sequence[Question], plan: Plan) -> Report | None:
    """Who would hold a lease: an Envoy worker that goes by this plan's numbers. Each route that departs has its own."""
    report, (epoch, _, route) = questions[0].report, questions[0].lease.partition("/")
    if len(questions) > 1 or report is None or not epoch or epoch != plan.epoch:
        return None
    return report._replace(holder=f"{report.holder}/{route}")


def charges_for(questions: Sequence[Question], plan: Plan) -> list[Charge]:
    """What the questions charge. Two that name the same counter charge it once, together."""
    charges: dict[str, Charge] = {}
    for question in questions:
        route = plan.route(question.route)
        cost = min(question.hits if question.is_late else route.cost * question.hits, MAX_COST)
        tag = caller_tag(question, plan.anonymous_key)
        for rule in route.rules(question.tier):
            charge = Charge(rule.shared_tag or tag, rule, cost, question.is_late)
            earlier = charges.get(charge.key)
            if earlier is not None:
                together = min(cost + earlier.cost, MAX_COST)
                charge = charge._replace(cost=together, is_late=question.is_late and earlier.is_late)
            charges[charge.key] = charge
    return [charge for charge in charges.values() if charge.cost]


def ahead(charges: Sequence[Charge], leased: int) -> list[Charge]:
    """The charges of a request and of those that were charged ahead with it."""
    return [charge._replace(cost=charge.cost * (1 + leased)) for charge in charges]


def monotonic_us() -> int:
    """This process's own clock: how busy a caller is need not agree with the store's."""
    return time.monotonic_ns() // 1000


def failure_mode(questions: Sequence[Question], plan: Plan) -> OnStoreFailure:
    """The strictest of the modes of the routes asked about."""
    return max((plan.route(question.route).on_store_failure for question in questions), key=_STRICTNESS.__getitem__)


def refuse_briefly(charge: Charge, now_us: int) -> Verdict:
    """The refusal of `closed`: nothing is known, so the client is asked to come back in a second."""
    return Verdict(False, charge, MINUTE, 0, now_us + SECOND_US, 1, now_us)

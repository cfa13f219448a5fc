"""Envoy's RateLimitQuotaService: reports in, assignments out, one stream an Envoy."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol

import grpc
import structlog

from envoy_api.envoy.service.rate_limit_quota.v3 import rlqs_pb2
from ratelimit_service.clocks import monotonic_us
from ratelimit_service.descriptors import ANONYMOUS, DOMAIN, NOBODY, Descriptor, caller_tag
from ratelimit_service.limits import CounterKey
from ratelimit_service.policy import Plan
from ratelimit_service.quota import FILL_SECONDS, TTL_SECONDS, Assignment, Bucket, Budget, Quotas, in_messages

SERVICE = "envoy.service.rate_limit_quota.v3.RateLimitQuotaService"
MAX_ACTIONS = 1_000
"""Assignments in one message."""
TURN = 200
"""Usages taken in before others get the loop's next turn."""
TIDY_SECONDS = 10.0

log = structlog.get_logger()


class QuotaMetrics(Protocol):
    """Counts what Envoys report."""

    def quota_spent(self, tier: str, allowed: int, denied: int) -> None: ...
    def quota_streams(self, streams: int, buckets: int) -> None: ...


class QuotaServer:
    """Serves StreamRateLimitQuotas. Nothing is assigned until there is a policy: Envoy's local fallback limit holds."""

    def __init__(self, metrics: QuotaMetrics) -> None:
        self._metrics = metrics
        self._quotas = Quotas()
        self._plan: Plan | None = None
        self._streams: dict[int, _Outbox] = {}
        self._numbers = itertools.count()

    def handler(self) -> grpc.GenericRpcHandler:
        method = grpc.stream_stream_rpc_method_handler(
            self.stream_rate_limit_quotas,
            request_deserializer=rlqs_pb2.RateLimitQuotaUsageReports.FromString,
            response_serializer=rlqs_pb2.RateLimitQuotaResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamRateLimitQuotas": method})

    def adopt(self, plan: Plan) -> None:
        """A new policy: every Envoy is told of what changed at once."""
        self._plan = plan
        self._post(self._quotas.adopt(lambda bucket: find_budget(bucket, plan), monotonic_us()))

    async def run(self) -> None:
        """Until cancelled: let go of counters that nobody needs."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            self._quotas.forget_old(monotonic_us())

    async def stream_rate_limit_quotas(
        self, reports: AsyncIterator[rlqs_pb2.RateLimitQuotaUsageReports], context: Any
    ) -> None:
        """One Envoy, until it goes. Its share is then given to the others."""
        number, outbox = next(self._numbers), _Outbox()
        self._streams[number] = outbox
        writing = asyncio.create_task(outbox.write_to(context))
        log.info("quota.connected", stream=number)
        try:
            async for report in reports:
                await self._take(number, report)
                self._count()
        finally:
            del self._streams[number]
            self._post(self._quotas.leave(number, monotonic_us()))
            self._count()
            writing.cancel()
            log.info("quota.disconnected", stream=number)

    async def _take(self, number: int, report: rlqs_pb2.RateLimitQuotaUsageReports) -> None:
        """An Envoy reports all of its buckets in one message, so that others must get their turn in between."""
        if self._plan is None or report.domain != DOMAIN:
            return
        usages = report.bucket_quota_usages
        for start in range(0, len(usages), TURN):
            for usage in usages[start : start + TURN]:
                self._take_one(number, usage)
            await asyncio.sleep(0)

    def _take_one(self, number: int, usage: rlqs_pb2.RateLimitQuotaUsageReports.BucketQuotaUsage) -> None:
        bucket = tuple(sorted(usage.bucket_id.bucket.items()))
        allowed, denied = usage.num_requests_allowed, usage.num_requests_denied
        self._post(self._quotas.report(number, bucket, allowed, denied, monotonic_us()))
        if (allowed or denied) and self._plan is not None:
            tier = read_bucket(bucket).tier
            self._metrics.quota_spent(tier if tier in self._plan.tiers else "unknown", allowed, denied)

    def _post(self, told: Iterable[Assignment]) -> None:
        for each in told:
            outbox = self._streams.get(each.stream)
            if outbox is not None:
                outbox.put(each)

    def _count(self) -> None:
        self._metrics.quota_streams(len(self._streams), len(self._quotas))


class _Outbox:
    """What one Envoy is still to be told."""

    def __init__(self) -> None:
        self._waiting: list[Assignment] = []
        self._filled = asyncio.Event()

    def put(self, told: Assignment) -> None:
        self._waiting.append(told)
        self._filled.set()

    async def write_to(self, context: Any) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            waiting, self._waiting = self._waiting, []
            for message in in_messages(waiting, MAX_ACTIONS):
                await context.write(render(message))


def read_bucket(bucket: Bucket) -> Descriptor:
    """Who spends, and from what: a verified caller in a tier, or else a client's address."""
    said = dict(bucket)
    tier, _, caller = said.get("caller", f"{ANONYMOUS} {NOBODY}").partition(" ")
    return Descriptor(
        route=said.get("counter", ""), tier=tier, caller=caller, remote_address=said.get("address", ""), hits=1
    )


def find_budget(bucket: Bucket, plan: Plan) -> Budget | None:
    """The caller's own budget: of the route that has numbers of its own, else of the tier. None: it has no limit, and
    its Envoy is told nothing, so that the bucket stays open.
    """
    descriptor = read_bucket(bucket)
    rule = plan.route(descriptor.route).rule(descriptor.tier)
    if rule is None:
        return None
    return Budget(CounterKey(caller_tag(descriptor, plan.anonymous_key, plan.prefixes), rule.name), rule.limit)


def render(told: Iterable[Assignment]) -> rlqs_pb2.RateLimitQuotaResponse:
    """Assignments in Envoy's words."""
    response = rlqs_pb2.RateLimitQuotaResponse()
    for each in told:
        action = response.bucket_action.add()
        for key, value in each.bucket:
            action.bucket_id.bucket[key] = value
        if each.share is None:
            action.abandon_action.SetInParent()
            continue
        assigned = action.quota_assignment_action
        assigned.assignment_time_to_live.seconds = TTL_SECONDS
        strategy = assigned.rate_limit_strategy
        if each.share.tokens:
            strategy.token_bucket.max_tokens = each.share.tokens
            strategy.token_bucket.tokens_per_fill.value = each.share.per_minute
            # Whole seconds, and always the same: Envoy compares two buckets without them.
            strategy.token_bucket.fill_interval.seconds = FILL_SECONDS
        else:
            strategy.blanket_rule = strategy.DENY_ALL
    return response

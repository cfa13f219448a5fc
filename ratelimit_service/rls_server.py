"""Envoy's RateLimitService for policies of envoyproxy/ratelimit: each descriptor has its own limit and status."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple, Protocol

import grpc

from envoy_api.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy_api.envoy.service.ratelimit.v3 import rls_pb2
from envoy_api.envoy.type.v3 import ratelimit_unit_pb2
from ratelimit_service.counters.windows import MemoryWindows, RedisWindows, Scripted, Windows
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.limits import NEVER
from ratelimit_service.rate_limit_server import RequestMetrics, handler_of
from ratelimit_service.rls_policy import Entries, RlsLimit, RlsPolicy
from ratelimit_service.windows import MAX_HITS, Reading, Spend, Unit, counter_key, passes

_OK = rls_pb2.RateLimitResponse.OK
_OVER_LIMIT = rls_pb2.RateLimitResponse.OVER_LIMIT
_UNITS = {unit: rls_pb2.RateLimitResponse.RateLimit.Unit.Value(unit.name) for unit in Unit}
_BY_NUMBER = {
    number: Unit[name] for name, number in ratelimit_unit_pb2.RateLimitUnit.items() if name in Unit.__members__
}


class RlsMetrics(RequestMetrics, Protocol):
    """Counts each decision of a policy of envoyproxy/ratelimit."""

    def degraded(self, mode: str) -> None: ...


class Asked(NamedTuple):
    """One descriptor of a request: its limit, if it has one, and the counter that it spends from."""

    limit: RlsLimit | None
    spend: Spend | None


NOTHING_ASKED = Asked(None, None)


class RlsServer:
    """Serves ShouldRateLimit. While the store is away, each replica counts by itself, up to the whole limit."""

    def __init__(self, metrics: RlsMetrics, policy: RlsPolicy, max_counters: int, is_alone: bool = False) -> None:
        """`is_alone`: there is no store; this process alone counts."""
        self._policy = policy
        self._local = MemoryWindows(max_counters)
        self._windows: Windows | None = self._local if is_alone else None
        self._metrics = metrics

    def use_store(self, store: Scripted) -> None:
        """Count in Redis."""
        self._windows = RedisWindows(store)

    def handler(self) -> grpc.GenericRpcHandler:
        return handler_of(self.should_rate_limit)

    async def should_rate_limit(
        self, request: rls_pb2.RateLimitRequest, context: object = None
    ) -> rls_pb2.RateLimitResponse:
        """One decision for all descriptors. Any that is over its limit decides, and then none is charged."""
        asked = read_request(request, self._policy)
        spends = merged(asked)
        if not spends:
            self._metrics.unmatched()
            return render(0, asked, {})
        mode = "exact"
        try:
            if self._windows is None:
                raise CountersUnavailable("not connected yet")
            now_us, readings = await self._windows.spend(spends)
        except CountersUnavailable:
            mode = "share"
            self._metrics.degraded(mode)
            now_us, readings = await self._local.spend(spends)
        by_key = {spend.key: (spend, reading) for spend, reading in zip(spends, readings, strict=True)}
        response = render(now_us, asked, by_key)
        self._note(request.domain, asked, by_key, response, mode)
        return response

    def _note(
        self,
        domain: str,
        asked: Sequence[Asked],
        by_key: dict[str, tuple[Spend, Reading]],
        response: rls_pb2.RateLimitResponse,
        mode: str,
    ) -> None:
        self._metrics.decided(domain, response.overall_code == _OK, mode)
        for limit, spend in asked:
            if limit is None or spend is None or limit.unit is None or not by_key[spend.key][1].wait_us:
                continue
            tell = self._metrics.shadow_over_limit if spend.is_shadow else self._metrics.over_limit
            tell(limit.label, limit.unit.name.lower())


def read_request(request: rls_pb2.RateLimitRequest, policy: RlsPolicy) -> list[Asked]:
    """What each descriptor asks. A limit that another one in the request replaces holds nothing."""
    found = [_find(request.domain, descriptor, policy) for descriptor in request.descriptors]
    replaced = {name for limit, _ in found if limit is not None for name in limit.replaces}
    return [
        _asked(request, descriptor, None if _is_replaced(limit, replaced) else limit, counted)
        for descriptor, (limit, counted) in zip(request.descriptors, found, strict=True)
    ]


def _is_replaced(limit: RlsLimit | None, replaced: Set[str]) -> bool:
    """What is unlimited stays so."""
    return limit is not None and limit.unit is not None and limit.name in replaced


def _entries(descriptor: ratelimit_pb2.RateLimitDescriptor) -> Entries:
    return [(entry.key, entry.value) for entry in descriptor.entries]


def _find(
    domain: str, descriptor: ratelimit_pb2.RateLimitDescriptor, policy: RlsPolicy
) -> tuple[RlsLimit | None, Entries]:
    """The descriptor's own `limit` comes before the policy's, in a domain that the policy knows."""
    entries = _entries(descriptor)
    if descriptor.HasField("limit") and domain in policy.domains:
        unit = _BY_NUMBER.get(descriptor.limit.unit)
        if unit is not None:
            return RlsLimit(unit, descriptor.limit.requests_per_unit, "override"), entries
    return policy.find(domain, entries)


def _asked(
    request: rls_pb2.RateLimitRequest,
    descriptor: ratelimit_pb2.RateLimitDescriptor,
    limit: RlsLimit | None,
    counted: Entries,
) -> Asked:
    """A descriptor's own hits come before the request's, where 0 means 1; its own 0 only asks, and so do returns."""
    if limit is None or limit.unit is None:
        return Asked(limit, None)
    own = descriptor.HasField("hits_addend")
    hits = descriptor.hits_addend.value if own else request.hits_addend or 1
    hits = 0 if descriptor.is_negative_hits else min(hits, MAX_HITS)
    key = counter_key(request.domain, counted, limit.unit)
    return Asked(limit, Spend(key, limit.unit, limit.requests, hits, limit.is_shadow, limit.is_quota))


def merged(asked: Iterable[Asked]) -> list[Spend]:
    """One spend a counter: descriptors that name the same one charge it together, under the lower limit."""
    spends: dict[str, Spend] = {}
    for _, spend in asked:
        if spend is not None:
            earlier = spends.get(spend.key)
            spends[spend.key] = spend if earlier is None else _together(earlier, spend)
    return list(spends.values())


def _together(one: Spend, other: Spend) -> Spend:
    return one._replace(
        hits=min(one.hits + other.hits, MAX_HITS),
        limit=min(one.limit, other.limit),
        is_shadow=one.is_shadow and other.is_shadow,
        is_quota=one.is_quota and other.is_quota,
    )


def render(now_us: int, asked: Sequence[Asked], by_key: dict[str, tuple[Spend, Reading]]) -> rls_pb2.RateLimitResponse:
    """A status for each descriptor, in the order of the request."""
    pairs = by_key.values()
    is_over = not passes([spend for spend, _ in pairs], [reading for _, reading in pairs])
    response = rls_pb2.RateLimitResponse(overall_code=_OVER_LIMIT if is_over else _OK)
    for limit, spend in asked:
        status = response.statuses.add(code=_OK)
        if limit is not None and limit.unit is None:
            status.limit_remaining = MAX_HITS
        if limit is not None and spend is not None:
            _fill(status, now_us, limit, *by_key[spend.key], is_charged=not is_over)
    return response


def _fill(
    status: rls_pb2.RateLimitResponse.DescriptorStatus,
    now_us: int,
    limit: RlsLimit,
    spend: Spend,
    reading: Reading,
    *,
    is_charged: bool,
) -> None:
    """The duration is the wait until the request would pass; where it passed, until the oldest hits leave."""
    if reading.wait_us and not spend.is_shadow:
        status.code = _OVER_LIMIT
    charged = spend.hits if is_charged and not reading.wait_us else 0
    status.limit_remaining = 0 if reading.wait_us else max(0, spend.limit - reading.used - charged)
    status.current_limit.name = limit.name
    status.current_limit.requests_per_unit = limit.requests
    status.current_limit.unit = _UNITS[spend.unit]
    if reading.wait_us:
        wait_us = spend.unit.window_us if reading.wait_us == NEVER else reading.wait_us
    else:
        wait_us = reading.leaves_us - now_us if reading.leaves_us else spend.unit.window_us
    status.duration_until_reset.FromMicroseconds(wait_us)

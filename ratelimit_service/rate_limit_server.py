"""Envoy's RateLimitService for the gateway's own policy: a request in, one decision, a response out."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Protocol

import grpc

from envoy_api.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_service.descriptors import DOMAIN, Descriptor, read_descriptor
from ratelimit_service.limiter import EXACT, Decision, Limiter, may_lease
from ratelimit_service.limits import BURST, Verdict
from ratelimit_service.policy import Plan
from ratelimit_service.responses import fixed_headers, moving_headers, over_limit_body, over_limit_headers

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
_OK = rls_pb2.RateLimitResponse.OK
_OVER_LIMIT = rls_pb2.RateLimitResponse.OVER_LIMIT
_SECOND, _MINUTE = rls_pb2.RateLimitResponse.RateLimit.SECOND, rls_pb2.RateLimitResponse.RateLimit.MINUTE

ShouldRateLimit = Callable[[rls_pb2.RateLimitRequest, object], Awaitable[rls_pb2.RateLimitResponse]]


class RequestMetrics(Protocol):
    """Counts each request, whatever form its policy has."""

    def decided(self, tier: str, allowed: bool, mode: str) -> None: ...
    def over_limit(self, counter: str, rule: str) -> None: ...
    def shadow_over_limit(self, counter: str, rule: str) -> None: ...
    def unmatched(self) -> None: ...


class DecisionMetrics(RequestMetrics, Protocol):
    """Counts each decision of the gateway's own policy."""

    def post_charged(self, hits: int) -> None: ...
    def without_policy(self) -> None: ...


class RateLimitServer:
    """Serves ShouldRateLimit. `plan` is replaced as a whole; a request reads it once.

    Until there are a limiter and a plan, every request passes: health says NOT_SERVING, and Envoy's own limits hold.
    """

    def __init__(self, metrics: DecisionMetrics, limiter: Limiter | None = None, plan: Plan | None = None) -> None:
        self.limiter = limiter
        self.plan = plan
        self._metrics = metrics

    def handler(self) -> grpc.GenericRpcHandler:
        return handler_of(self.should_rate_limit)

    async def should_rate_limit(
        self, request: rls_pb2.RateLimitRequest, context: object = None
    ) -> rls_pb2.RateLimitResponse:
        """One decision for all descriptors: any over its limit is over, and then none is charged."""
        plan, limiter = self.plan, self.limiter
        if plan is None or limiter is None:
            self._metrics.without_policy()
            return unlimited(len(request.descriptors))
        descriptors = read_descriptors(request)
        if len(descriptors) < len(request.descriptors) or not descriptors:
            self._metrics.unmatched()
        if not descriptors:
            return unlimited(len(request.descriptors))
        decision = await limiter.check(descriptors, plan)
        self._note(descriptors[0], plan, decision)
        if decision.verdict is None:
            return unlimited(len(request.descriptors), is_decided=decision.mode == EXACT)
        response = render(decision.verdict, len(request.descriptors))
        if decision.shadows:
            response.dynamic_metadata["shadow"] = ",".join(map(rule_name, decision.shadows))
        if not decision.verdict.allowed and decision.mode == EXACT and may_lease(descriptors, plan):
            # For so long every such request is over limit.
            response.dynamic_metadata["over_limit_ms"] = (decision.verdict.reset_us - decision.verdict.now_us) // 1000
        if decision.lease is not None:
            response.dynamic_metadata["lease"] = str(decision.lease)
        return response

    def _note(self, descriptor: Descriptor, plan: Plan, decision: Decision) -> None:
        verdict = decision.verdict
        for shadow in decision.shadows:
            self._metrics.shadow_over_limit(shadow.charge.rule.name, shadow.kind)
        if descriptor.is_post_charge:
            self._metrics.post_charged(descriptor.hits)
            return
        tier = descriptor.tier if descriptor.tier in plan.tiers else "unknown"
        self._metrics.decided(tier, verdict is None or verdict.allowed, decision.mode)
        if verdict is not None and not verdict.allowed:
            self._metrics.over_limit(verdict.charge.rule.name, verdict.kind)


def handler_of(should_rate_limit: ShouldRateLimit) -> grpc.GenericRpcHandler:
    """The gRPC service whose one method this is."""
    method = grpc.unary_unary_rpc_method_handler(
        should_rate_limit,
        request_deserializer=rls_pb2.RateLimitRequest.FromString,
        response_serializer=rls_pb2.RateLimitResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(SERVICE, {"ShouldRateLimit": method})


def read_descriptors(request: rls_pb2.RateLimitRequest) -> list[Descriptor]:
    """The descriptors that we can decide on. A descriptor's own hits come before the request's; 0 means 1."""
    if request.domain != DOMAIN:
        return []
    read = []
    for sent in request.descriptors:
        hits = sent.hits_addend.value if sent.HasField("hits_addend") else request.hits_addend
        descriptor = read_descriptor([(entry.key, entry.value) for entry in sent.entries], hits)
        if descriptor is not None and not sent.is_negative_hits:
            # Only after the response can the hits be known to be none.
            read.append(descriptor if descriptor.is_post_charge else descriptor._replace(hits=hits or 1))
    return read


def render(verdict: Verdict, descriptors: int) -> rls_pb2.RateLimitResponse:
    """The verdict in Envoy's words. Every descriptor gets the status of the one that binds."""
    rule = verdict.charge.rule
    response = rls_pb2.RateLimitResponse(overall_code=_OK if verdict.allowed else _OVER_LIMIT)
    headers = response.response_headers_to_add
    for key, value in (*fixed_headers(rule.limit, verdict.kind), *moving_headers(verdict)):
        headers.add(key=key, value=value)
    for _ in range(descriptors):
        _add_status(response, verdict)
    if verdict.allowed:
        _mark(response)
    else:
        for key, value in over_limit_headers(verdict.retry_after):
            headers.add(key=key, value=value)
        response.raw_body = over_limit_body(verdict.retry_after)
        response.dynamic_metadata["rule"] = rule_name(verdict)
    return response


def rule_name(verdict: Verdict) -> str:
    """What the access log calls the rule that was over limit."""
    return f"{verdict.charge.rule.name}/{verdict.kind}"


def _add_status(response: rls_pb2.RateLimitResponse, verdict: Verdict) -> None:
    limit = verdict.charge.rule.limit
    status = response.statuses.add(code=response.overall_code, limit_remaining=verdict.remaining)
    status.current_limit.name = verdict.charge.rule.name
    if verdict.kind == BURST:
        status.current_limit.requests_per_unit, status.current_limit.unit = math.ceil(limit.rps), _SECOND
    else:
        status.current_limit.requests_per_unit, status.current_limit.unit = limit.rpm, _MINUTE
    status.duration_until_reset.FromMicroseconds(max(0, verdict.reset_us - verdict.now_us))


def _mark(response: rls_pb2.RateLimitResponse) -> None:
    """Tells Envoy that this was decided, so that its local fallback limit does not hold."""
    response.dynamic_metadata["decided"] = "yes"


def unlimited(descriptors: int, *, is_decided: bool = False) -> rls_pb2.RateLimitResponse:
    """Nothing limits the request, so there is nothing to tell but whether that was decided."""
    response = rls_pb2.RateLimitResponse(overall_code=_OK)
    if is_decided:
        _mark(response)
    for _ in range(descriptors):
        response.statuses.add(code=_OK)
    return response

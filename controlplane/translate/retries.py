"""Retries: which failed requests Envoy sends again, and how many at once."""

from __future__ import annotations

from controlplane import protos
from controlplane.config.fields import with_head
from controlplane.config.model import IDEMPOTENT, Route, Service, ServiceRetries

RetryPolicy = protos.route_components.RetryPolicy
RetryBudget = protos.circuit_breaker.CircuitBreakers.Thresholds.RetryBudget

LEAST_AT_ONCE = 3
"""The budget is never below this: a percentage of a quiet service's few requests would be none."""

HOST_SELECTIONS = 32
"""How often Envoy draws an endpoint to find one that was not tried yet, before it uses one that was.

Each draw is random: with 5 draws, 1 of 60 retries went to the same one of two endpoints.
"""


def policy(route: Route, service: Service) -> protos.route_components.RetryPolicy | None:
    """The route's own, else its service's; None if nothing is retried. That is the default."""
    retries = route.retries or service.retries
    methods = repeatable(route)
    if retries is None or retries.attempts == 0 or not methods:
        return None
    result = RetryPolicy(
        retry_on=",".join(sorted(set(retries.on))),
        num_retries=protos.uint32(retries.attempts),
        retriable_request_headers=[_method(method) for method in methods],
        retry_host_predicate=[_not_the_same_again()],
        host_selection_retry_max_attempts=HOST_SELECTIONS,
    )
    if retries.per_try_timeout_seconds is not None:
        result.per_try_timeout.CopyFrom(protos.duration(retries.per_try_timeout_seconds))
    return result


def repeatable(route: Route) -> list[str]:
    """The route's methods that may be retried, HEAD with GET. A POST or PATCH on the same route never is."""
    return sorted(with_head(route.match.methods).intersection(IDEMPOTENT))


def budget(retries: ServiceRetries | None) -> protos.circuit_breaker.CircuitBreakers.Thresholds.RetryBudget:
    """How many retries a service may have in flight, over all its routes and callers."""
    percent = (retries or ServiceRetries(attempts=0)).budget_percent
    return RetryBudget(
        budget_percent=protos.percent.Percent(value=percent), min_retry_concurrency=protos.uint32(LEAST_AT_ONCE)
    )


def _method(method: str) -> protos.route_components.HeaderMatcher:
    exact = protos.string_matcher.StringMatcher(exact=method)
    return protos.route_components.HeaderMatcher(name=":method", string_match=exact)


def _not_the_same_again() -> protos.route_components.RetryPolicy.RetryHostPredicate:
    return RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts",
        typed_config=protos.any_of(protos.previous_hosts.PreviousHostsPredicate()),
    )

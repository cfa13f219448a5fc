"""`limits.enforced_by: envoy`: each Envoy spends from quotas that the rate-limit service hands out beforehand.

The filter's settings name no tier and no number, so that a changed table moves no listener: a bucket is identified by
the request headers in which the request filter or authz named the caller, because headers are the cheapest to read. The
service (envoy.service.rate_limit_quota.v3, RLQS) looks up its limit. The local fallback limit is before the filter and
applies the burst rule in each Envoy: for the milliseconds until a new bucket has its first assignment, and for as long
as the service is away.

What Envoy 1.40 decides for us, each tried:
- `no_assignment_behavior` with a token bucket ends Envoy with a segmentation fault at the bucket's second request; only
  the blanket rules work, so the bucket starts as `ALLOW_ALL` under the local fallback limit.
- A bucket id's `custom_value` must be text: the input for dynamic metadata is none.
- `reporting_interval` is required and not looked at: reports come every 5 s, a new bucket's first one at once.
- The override per route does nothing yet; a route is taken out by the generic `FilterConfig.disabled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from google.protobuf.message import Message

from controlplane import protos
from controlplane.config.model import GatewayConfig, Route
from controlplane.topology import RATELIMIT_CLUSTER
from controlplane.translate import filter_matcher, local_rate_limit
from controlplane.translate.headers import Header, Setting

RATE_LIMIT_QUOTA = "envoy.filters.http.rate_limit_quota"
DOMAIN = "mgw"
REPORTING_INTERVAL_SECONDS = 5

Settings = protos.rate_limit_quota.RateLimitQuotaBucketSettings
Builder = Settings.BucketIdBuilder
ValueBuilder = Builder.ValueBuilder
Matcher = protos.xds_matcher.Matcher
Predicate = Matcher.MatcherList.Predicate


def is_used(config: GatewayConfig) -> bool:
    """Whether Envoy enforces the limits."""
    return config.limits.enforced_by == "envoy"


def rate_limit_quota(config: GatewayConfig) -> Message:
    """The filter: a kind of bucket for each combination of headers that a request may have."""
    server = protos.grpc_service.GrpcService(
        envoy_grpc=protos.grpc_service.GrpcService.EnvoyGrpc(cluster_name=RATELIMIT_CLUSTER)
    )
    of_address = {"address": _address(config)}
    of_caller = {"caller": _value_of(Header.CALLER, _header(Header.CALLER))}
    of_route = {"counter": _value_of(Header.COUNTER, _header(Header.COUNTER))}
    kinds = Matcher.MatcherList(
        matchers=[
            _kind(_both(Header.COUNTER, Header.CALLER), of_route | of_caller),
            _kind(_has(Header.COUNTER), of_route | of_address),
            _kind(_has(Header.CALLER), of_caller),
        ]
    )
    return protos.rate_limit_quota.RateLimitQuotaFilterConfig(
        rlqs_server=server,
        domain=DOMAIN,
        bucket_matchers=Matcher(matcher_list=kinds, on_no_match=_bucket(of_address)),
    )


def _kind(
    when: protos.xds_matcher.Matcher.MatcherList.Predicate, parts: Mapping[str, Builder.ValueBuilder]
) -> protos.xds_matcher.Matcher.MatcherList.FieldMatcher:
    return Matcher.MatcherList.FieldMatcher(predicate=when, on_match=_bucket(parts))


def _bucket(parts: Mapping[str, Builder.ValueBuilder]) -> protos.xds_matcher.Matcher.OnMatch:
    """Without `expired_assignment_behavior` an expired bucket is as a new one: open under the local fallback limit."""
    allow_all = protos.ratelimit_strategy.RateLimitStrategy(
        blanket_rule=protos.ratelimit_strategy.RateLimitStrategy.ALLOW_ALL
    )
    settings = Settings(
        bucket_id_builder=Builder(bucket_id_builder=parts),
        reporting_interval=protos.duration(REPORTING_INTERVAL_SECONDS),
        # `local_replies` makes a 429 of this status, with body and headers.
        deny_response_settings=Settings.DenyResponseSettings(
            http_status=protos.http_status.HttpStatus(code=local_rate_limit.STATUS)
        ),
        no_assignment_behavior=Settings.NoAssignmentBehavior(fallback_rate_limit=allow_all),
    )
    return Matcher.OnMatch(action=protos.xds_named("bucket", settings))


def _has(header: str) -> protos.xds_matcher.Matcher.MatcherList.Predicate:
    anything = protos.xds_string_matcher.StringMatcher(
        safe_regex=protos.xds_regex_matcher.RegexMatcher(
            google_re2=protos.xds_regex_matcher.RegexMatcher.GoogleRE2(), regex=".+"
        )
    )
    return filter_matcher.header_is(header, anything)


def _both(one: str, other: str) -> protos.xds_matcher.Matcher.MatcherList.Predicate:
    return Predicate(and_matcher=Predicate.PredicateList(predicate=[_has(one), _has(other)]))


def _value_of(name: str, read: Message) -> Builder.ValueBuilder:
    return ValueBuilder(custom_value=protos.named(name, read))


def _address(config: GatewayConfig) -> Builder.ValueBuilder:
    """The client's network, after trusted hops; one value for all where they share a budget."""
    if config.limits.anonymous_key == "shared":
        return ValueBuilder(string_value="shared")
    return _value_of(Header.NETWORK, _header(Header.NETWORK))


def _header(name: str) -> Message:
    return protos.http_inputs.HttpRequestHeaderMatchInput(header_name=name)


@cache
def uncounted() -> protos.Any:
    """For a route whose requests cost nothing."""
    return protos.any_of(protos.route_components.FilterConfig(disabled=True))


def has_own_counter(route: Route) -> bool:
    """Whether the route has limits of its own, and so a bucket of its own for each caller."""
    return bool(route.limits or route.tier_limits)


def route_settings(route: Route, config: GatewayConfig) -> dict[str, str]:
    """What the request filter is told of a route: the counter that it names in a header."""
    return {Setting.COUNTER: route.name} if is_used(config) and has_own_counter(route) else {}

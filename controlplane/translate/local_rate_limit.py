"""The local fallback limit: Envoy's own rate limit, for requests that the rate-limit service did not decide.

The service marks what it decided with dynamic metadata. Without the mark, each Envoy applies the burst rule of the
caller's tier. Each Envoy counts for itself, so with N of them a caller may have N times as much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from controlplane import protos
from controlplane.config.model import GatewayConfig, Limit, Limits, Route, RuleLimit, TierLimit, Unlimited
from controlplane.translate import leases
from controlplane.translate.headers import Header, Key, Namespace
from controlplane.translate.policies import exempt_callers

LOCAL_RATE_LIMIT = "envoy.filters.http.local_ratelimit"
STATUS = protos.http_status.StatusCode.Locked
"""By this `local_replies` tells the filter's own 429 from the service's, which has a body. Clients never see it."""
MAX_CALLERS = 20_000
"""Buckets per tier and Envoy. The least recently seen caller loses its bucket, and starts again with a full one."""
STAT_PREFIX = "ceiling"
"""A part of Envoy's metric names, which users know."""
UNBOUNDED = (1 << 32) - 1

Actions = protos.route_components.RateLimit.Action
Entry = protos.local_ratelimit_descriptor.RateLimitDescriptor.Entry


def idle() -> protos.local_ratelimit.LocalRateLimit:
    """The filter itself, which limits nothing. The limits are in the routes, which change without a new listener."""
    return protos.local_ratelimit.LocalRateLimit(stat_prefix=STAT_PREFIX, token_bucket=_bucket(UNBOUNDED, UNBOUNDED))


def policy(limits: Limits, exempt: Sequence[str] = ()) -> protos.Any:
    """The tier table as local buckets. `exempt` are callers by their full names."""
    everyone = protos.percent.FractionalPercent(numerator=100)
    always = protos.base.RuntimeFractionalPercent(default_value=everyone)
    return protos.any_of(
        protos.local_ratelimit.LocalRateLimit(
            stat_prefix=STAT_PREFIX,
            status=protos.http_status.HttpStatus(code=STATUS),
            token_bucket=_bucket(UNBOUNDED, UNBOUNDED),  # for what no descriptor fits: decided by the service
            filter_enabled=always,
            filter_enforced=always,
            always_consume_default_token_bucket=protos.boolean(False),
            descriptors=[*_descriptors(limits), *_exempt(limits, exempt)],
            rate_limits=[protos.route_components.RateLimit(actions=actions) for actions in _descriptor_actions(limits)],
            max_dynamic_descriptors=protos.uint32(MAX_CALLERS),
        )
    )


def of_route(route: Route, config: GatewayConfig) -> protos.Any:
    """The same for one route, whose limits hold instead of the tiers'."""
    tiers = {tier: in_force(route, tier, limit) for tier, limit in config.limits.tiers.items()}
    return policy(config.limits.model_copy(update={"tiers": tiers}), exempt_callers(config))


def in_force(route: Route, tier: str, of_tier: TierLimit) -> TierLimit:
    """What holds for a caller of the tier on the route."""
    own = route.tier_limits.get(tier, route.limits)
    return of_tier if own is None or (isinstance(own, RuleLimit) and own.shadow) else own


def is_unlimited_for_some(route: Route) -> bool:
    """Whether a route lets callers pass whom their tier would limit: so must the fallback."""
    own = (route.limits, *route.tier_limits.values())
    return any(isinstance(limit, Unlimited) for limit in own)


def _descriptor_actions(limits: Limits) -> Iterator[list[Actions]]:
    """The descriptor of a verified caller, and that of an anonymous one. Each lacks an entry for the other kind, so
    Envoy drops one of them.

    Limits in Envoy are read from the headers that the request filter or authz set. Limits in the service are read from
    metadata, and only for requests that the service should have decided and did not.
    """
    if limits.enforced_by == "envoy":
        yield [_header(Header.USER_TIER, "tier"), _header(Header.CALLER, "caller")]
        yield [leases.where_absent(Header.CALLER, "tier", "anonymous"), _address(limits)]
    else:
        yield [leases.asked(), _decided(), _tier(), _caller()]
        yield [leases.asked(), _decided(), _tier(), _address(limits)]


def _descriptors(limits: Limits) -> Iterator[protos.local_ratelimit_descriptor.LocalRateLimitDescriptor]:
    """The last entry has no value, so each of its values gets a bucket of its own. A tier without limits has none."""
    undecided = [Entry(key=leases.ASKED[0], value=leases.ASKED[1]), Entry(key="decided", value="no")]
    first = [] if limits.enforced_by == "envoy" else undecided
    limited = {name: limit for name, limit in sorted(limits.tiers.items()) if isinstance(limit, Limit)}
    for name, limit in limited.items():
        yield _descriptor(limit, [*first, Entry(key="tier", value=name), Entry(key="caller")])
    if "anonymous" in limited:
        anonymous = [*first, Entry(key="tier", value="anonymous"), Entry(key="remote_address")]
        yield _descriptor(limited["anonymous"], anonymous)


def _exempt(
    limits: Limits, callers: Sequence[str]
) -> Iterator[protos.local_ratelimit_descriptor.LocalRateLimitDescriptor]:
    """A caller by name comes before any caller of its tier, and has a bucket that is never empty."""
    for tier in sorted(limits.tiers):
        for caller in callers:
            entries = [
                Entry(key="decided", value="no"),
                Entry(key="tier", value=tier),
                Entry(key="caller", value=caller),
            ]
            yield protos.local_ratelimit_descriptor.LocalRateLimitDescriptor(
                entries=[Entry(key=leases.ASKED[0], value=leases.ASKED[1]), *entries],
                token_bucket=_bucket(UNBOUNDED, UNBOUNDED),
            )


def _descriptor(limit: Limit, entries: list[Entry]) -> protos.local_ratelimit_descriptor.LocalRateLimitDescriptor:
    return protos.local_ratelimit_descriptor.LocalRateLimitDescriptor(
        entries=entries, token_bucket=_bucket(limit.burst, limit.rps)
    )


def _bucket(most: int, a_second: float) -> protos.token_bucket.TokenBucket:
    """Envoy fills all the time, at the tokens of an interval by its length. Both are whole: 0.4 is 2 in 5 seconds."""
    rate = Fraction(a_second).limit_denominator(1000)
    return protos.token_bucket.TokenBucket(
        max_tokens=most, tokens_per_fill=protos.uint32(rate.numerator), fill_interval=protos.duration(rate.denominator)
    )


def _header(name: str, key: str) -> Actions:
    """An entry. If the request lacks the header, Envoy drops the whole descriptor."""
    return Actions(request_headers=Actions.RequestHeaders(header_name=name, descriptor_key=key))


def _decided() -> Actions:
    return Actions(metadata=_metadata(Namespace.RATE_LIMIT, Key.DECIDED, "no"))


def _tier() -> Actions:
    return Actions(metadata=_metadata(Namespace.AUTHZ, Key.TIER, "anonymous"))


def _caller() -> Actions:
    """It has no default: for an anonymous caller the whole descriptor is dropped, and the one by address applies."""
    return Actions(metadata=_metadata(Namespace.AUTHZ, Key.CALLER, ""))


def _address(limits: Limits) -> Actions:
    if limits.anonymous_key == "shared":
        return Actions(generic_key=Actions.GenericKey(descriptor_key="remote_address", descriptor_value="everyone"))
    return _header(Header.NETWORK, "remote_address")


def _metadata(namespace: str, key: str, default: str) -> Actions.MetaData:
    segment = protos.metadata_key.MetadataKey.PathSegment(key=key)
    return Actions.MetaData(
        descriptor_key=key,
        metadata_key=protos.metadata_key.MetadataKey(key=namespace, path=[segment]),
        default_value=default,
        source=Actions.MetaData.DYNAMIC,
    )

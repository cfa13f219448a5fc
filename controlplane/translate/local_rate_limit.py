"""The ceiling: Envoy's local rate limit, which holds only for requests that the rate-limit service did not answer.

The service marks what it decided with dynamic metadata; without the mark, each Envoy gives each caller the burst rule
of its tier. Each Envoy counts for itself, so with N of them a caller may have N times as much.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane import protos
from controlplane.config.model import Limit, Limits
from controlplane.translate import leases

LOCAL_RATE_LIMIT = "envoy.filters.http.local_ratelimit"
EXT_AUTHZ = "envoy.filters.http.ext_authz"
RATE_LIMIT = "envoy.filters.http.ratelimit"
CALLER = "x-mgw-caller"
"""Request header, for Envoy's own filters: who is charged, `TIER PROVIDER/SUBJECT`; absent for an anonymous caller."""

STATUS = protos.http_status.StatusCode.Locked
"""How `answers` knows a refusal of the ceiling from one of the service, which has a body; never seen outside."""
MAX_CALLERS = 20_000
"""Buckets per tier and Envoy; the least recently seen caller gives way, and would start again with a full one."""
UNBOUNDED = (1 << 32) - 1

Actions = protos.route_components.RateLimit.Action
Entry = protos.local_ratelimit_descriptor.RateLimitDescriptor.Entry


def idle() -> protos.local_ratelimit.LocalRateLimit:
    """The filter itself; what it does is a matter of routes, which change without a new listener."""
    return protos.local_ratelimit.LocalRateLimit(stat_prefix="ceiling", token_bucket=_bucket(UNBOUNDED, UNBOUNDED))


def policy(limits: Limits) -> protos.Any:
    """The tier table as local buckets."""
    everyone = protos.percent.FractionalPercent(numerator=100)
    always = protos.base.RuntimeFractionalPercent(default_value=everyone)
    return protos.any_of(
        protos.local_ratelimit.LocalRateLimit(
            stat_prefix="ceiling",
            status=protos.http_status.HttpStatus(code=STATUS),
            token_bucket=_bucket(UNBOUNDED, UNBOUNDED),  # for what no descriptor fits: decided by the service
            filter_enabled=always,
            filter_enforced=always,
            always_consume_default_token_bucket=protos.boolean(False),
            descriptors=list(_descriptors(limits)),
            rate_limits=[protos.route_components.RateLimit(actions=actions) for actions in _questions(limits)],
            max_dynamic_descriptors=protos.uint32(MAX_CALLERS),
        )
    )


def _questions(limits: Limits) -> Iterator[list[Actions]]:
    """What is asked of a verified caller, and of an anonymous one: the actions of the one are nothing for the other.

    Limits in Envoy: what the front door or authz said of the caller in headers. Limits in the service: what was said in
    metadata, and only of requests that the service should have decided and did not.
    """
    if limits.enforced_by == "envoy":
        yield [_header("x-user-tier", "tier"), _header(CALLER, "caller")]
        yield [leases.where_absent(CALLER, "tier", "anonymous"), _address(limits)]
    else:
        yield [leases.asked(), _decided(), _tier(), _caller()]
        yield [leases.asked(), _decided(), _tier(), _address(limits)]


def _descriptors(limits: Limits) -> Iterator[protos.local_ratelimit_descriptor.LocalRateLimitDescriptor]:
    """A bucket for each value of the last entry, which is left open."""
    undecided = [Entry(key=leases.ASKED[0], value=leases.ASKED[1]), Entry(key="decided", value="no")]
    first = [] if limits.enforced_by == "envoy" else undecided
    for name, limit in sorted(limits.tiers.items()):
        yield _descriptor(limit, [*first, Entry(key="tier", value=name), Entry(key="caller")])
    anonymous = [*first, Entry(key="tier", value="anonymous"), Entry(key="remote_address")]
    yield _descriptor(limits.tiers["anonymous"], anonymous)


def _descriptor(limit: Limit, entries: list[Entry]) -> protos.local_ratelimit_descriptor.LocalRateLimitDescriptor:
    return protos.local_ratelimit_descriptor.LocalRateLimitDescriptor(
        entries=entries, token_bucket=_bucket(limit.burst, limit.rps)
    )


def _bucket(most: int, a_second: int) -> protos.token_bucket.TokenBucket:
    return protos.token_bucket.TokenBucket(
        max_tokens=most, tokens_per_fill=protos.uint32(a_second), fill_interval=protos.duration(1)
    )


def _header(name: str, key: str) -> Actions:
    """Drops the descriptor where the header is not there."""
    return Actions(request_headers=Actions.RequestHeaders(header_name=name, descriptor_key=key))


def _decided() -> Actions:
    return Actions(metadata=_metadata(RATE_LIMIT, "decided", "no"))


def _tier() -> Actions:
    return Actions(metadata=_metadata(EXT_AUTHZ, "tier", "anonymous"))


def _caller() -> Actions:
    """Without a default: for an anonymous caller the whole descriptor is dropped, and the one by address holds."""
    return Actions(metadata=_metadata(EXT_AUTHZ, "caller", ""))


def _address(limits: Limits) -> Actions:
    if limits.anonymous_key == "shared":
        return Actions(generic_key=Actions.GenericKey(descriptor_key="remote_address", descriptor_value="everyone"))
    return Actions(remote_address=Actions.RemoteAddress())


def _metadata(namespace: str, key: str, default: str) -> Actions.MetaData:
    segment = protos.metadata_key.MetadataKey.PathSegment(key=key)
    return Actions.MetaData(
        descriptor_key=key,
        metadata_key=protos.metadata_key.MetadataKey(key=namespace, path=[segment]),
        default_value=default,
        source=Actions.MetaData.DYNAMIC,
    )

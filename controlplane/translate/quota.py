"""`limits.enforced_by: envoy`: each Envoy spends from quotas that the rate-limit service hands out beforehand.

The filter's settings name no tier and no number, so that a changed table moves no listener: a bucket is identified by
what authz said of the caller, and the service (envoy.service.rate_limit_quota.v3, RLQS) looks its limit up. The ceiling
stands before the filter and holds the burst rule in each Envoy: for the milliseconds until a new bucket has its first
assignment, and for as long as the service is away.

What Envoy 1.40 decides for us, each tried:
- `no_assignment_behavior` with a token bucket ends Envoy with a segmentation fault at the bucket's second request; only
  the blanket rules work, so the bucket starts as `ALLOW_ALL` under the ceiling.
- A bucket id's `custom_value` must be text: the input for dynamic metadata is none, the one for filter state is.
- `reporting_interval` is required and not looked at: reports come every 5 s, a new bucket's first one at once.
- The override per route does nothing yet; a route is taken out by the generic `FilterConfig.disabled`.
"""

from __future__ import annotations

import json
from functools import cache

from google.protobuf.message import Message

from controlplane import protos
from controlplane.model import GatewayConfig, Limit, Route
from controlplane.translate import ceiling
from controlplane.translate.topology import RATELIMIT_CLUSTER

FILTER_STATE = "envoy.filters.http.set_filter_state"
RATE_LIMIT_QUOTA = "envoy.filters.http.rate_limit_quota"
DOMAIN = "mgw"
REPORTING_INTERVAL_SECONDS = 5
COUNTER = "counter"
"""The key of a route's metadata that names its own counter."""

Settings = protos.rate_limit_quota.RateLimitQuotaBucketSettings
Builder = Settings.BucketIdBuilder
_BUCKET = ("counter", "tier", "caller")


def bucket_facts(config: GatewayConfig) -> Message:
    """Puts a bucket's id where the quota filter can read it. What authz did not say reads `-`.

    The caller's place is taken by the client's address for an anonymous caller: a caller has a `/`, an address has not.
    """
    caller = f"DYNAMIC_METADATA({ceiling.EXT_AUTHZ}:caller)"
    if config.limits.anonymous_key == "client_ip":
        known = {"command": "DYNAMIC_METADATA", "param": f"{ceiling.EXT_AUTHZ}:caller"}
        address = {"command": "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"}
        caller = f"COALESCE({json.dumps({'operators': [known, address]})})"
    formats = {
        "counter": f"%METADATA(ROUTE:mgw:{COUNTER})%",
        "tier": f"%DYNAMIC_METADATA({ceiling.EXT_AUTHZ}:tier)%",
        "caller": f"%{caller}%",
    }
    return protos.set_filter_state.Config(
        on_request_headers=[
            protos.filter_state_value.FilterStateValue(
                object_key=f"mgw.{name}",
                factory_key="envoy.string",
                format_string=protos.substitution.SubstitutionFormatString(
                    text_format_source=protos.base.DataSource(inline_string=formats[name])
                ),
            )
            for name in _BUCKET
        ]
    )


def rate_limit_quota() -> Message:
    """The filter: one kind of bucket, for every request that reaches it."""
    server = protos.grpc_service.GrpcService(
        envoy_grpc=protos.grpc_service.GrpcService.EnvoyGrpc(cluster_name=RATELIMIT_CLUSTER)
    )
    action = protos.xds_extension.TypedExtensionConfig(name="bucket", typed_config=protos.any_of(_settings()))
    return protos.rate_limit_quota.RateLimitQuotaFilterConfig(
        rlqs_server=server,
        domain=DOMAIN,
        bucket_matchers=protos.xds_matcher.Matcher(on_no_match=protos.xds_matcher.Matcher.OnMatch(action=action)),
    )


def _settings() -> protos.rate_limit_quota.RateLimitQuotaBucketSettings:
    """Without `expired_assignment_behavior` an expired bucket is as a new one: open under the ceiling."""
    allow_all = protos.ratelimit_strategy.RateLimitStrategy(
        blanket_rule=protos.ratelimit_strategy.RateLimitStrategy.ALLOW_ALL
    )
    return Settings(
        bucket_id_builder=Builder(bucket_id_builder={name: _from_filter_state(f"mgw.{name}") for name in _BUCKET}),
        reporting_interval=protos.duration(REPORTING_INTERVAL_SECONDS),
        # The status that `answers` makes a 429 of, with body and headers.
        deny_response_settings=Settings.DenyResponseSettings(
            http_status=protos.http_status.HttpStatus(code=ceiling.STATUS)
        ),
        no_assignment_behavior=Settings.NoAssignmentBehavior(fallback_rate_limit=allow_all),
    )


def _from_filter_state(key: str) -> protos.rate_limit_quota.RateLimitQuotaBucketSettings.BucketIdBuilder.ValueBuilder:
    read = protos.network_inputs.FilterStateInput(key=key)
    return Builder.ValueBuilder(
        custom_value=protos.extension.TypedExtensionConfig(name=key, typed_config=protos.any_of(read))
    )


@cache
def uncounted() -> protos.Any:
    """A route whose requests cost nothing."""
    return protos.any_of(protos.route_components.FilterConfig(disabled=True))


def has_own_counter(route: Route) -> bool:
    """Whether the route has numbers of its own, and so a bucket of its own for each caller."""
    return bool(route.limits or route.tier_limits)


def ceiling_of(route: Route, config: GatewayConfig) -> protos.Any:
    """The ceiling over a route with numbers of its own."""
    numbers: dict[str, Limit] = {
        tier: route.tier_limits.get(tier) or route.limits or limit for tier, limit in config.limits.tiers.items()
    }
    return ceiling.policy(config.limits.model_copy(update={"tiers": numbers}))

"""Leases: requests that the rate-limit service charges in advance, so that Envoy lets them pass without asking it."""

from __future__ import annotations

from controlplane import protos
from controlplane.config.model import GatewayConfig, Route, RuleLimit
from controlplane.translate.headers import Header, Setting
from controlplane.translate.policies import ratelimit_policy

Actions = protos.route_components.RateLimit.Action

ASKED = ("asked", "yes")
"""An entry of every descriptor. It is absent for a prepaid request: Envoy then drops the descriptor and asks nobody.
On a route with leases the value names what the lease is for: a service that enforces other limits grants none."""


def are_used(config: GatewayConfig) -> bool:
    """Whether there are leases at all."""
    return config.limits.leases.enabled and config.limits.enforced_by == "ratelimit_service"


def epoch(config: GatewayConfig) -> str:
    """Names the limits under which a lease was granted. When the limits change, the old leases are not found."""
    return str(ratelimit_policy(config, 1)["epoch"])


def route_settings(config: GatewayConfig, route: Route, of_limits: str) -> dict[str, str]:
    """What leases.lua is told of a route. Routes that charge the same share a caller's lease."""
    if not are_used(config) or _asks_always(route):
        return {}
    shared = any(rule.service or rule.routes for rule in config.limits.shared)
    departs = shared or route.limits or route.tier_limits or route.cost != 1 or route.on_store_failure
    return {Setting.LIMITS: f"{of_limits}/{route.name if departs else ''}"}


def _asks_always(route: Route) -> bool:
    """Whether no request may be prepaid: what it costs, or to whom, is known too late; or it may be refused unasked."""
    own = (route.limits, *route.tier_limits.values())
    by_address = any(isinstance(limit, RuleLimit) and limit.by != "caller" for limit in own)
    late = route.cost_from_response_header or route.cost_from_response_status
    return bool(by_address or late or route.cost == 0 or route.ip)


def asked(name: str = ASKED[1]) -> protos.route_components.RateLimit.Action:
    """An entry; absent if the request is prepaid. A request that is not marked so is asked about."""
    return where_absent(Header.PREPAID, ASKED[0], name)


def where_absent(header: str, key: str, value: str) -> protos.route_components.RateLimit.Action:
    """An entry. If the request has the header, Envoy drops the whole descriptor."""
    there = has(header)
    return Actions(
        header_value_match=Actions.HeaderValueMatch(
            descriptor_key=key, descriptor_value=value, expect_match=protos.boolean(False), headers=[there]
        )
    )


def has(header: str) -> protos.route_components.HeaderMatcher:
    """Whether the request has the header."""
    return protos.route_components.HeaderMatcher(name=header, present_match=True)


def report() -> protos.route_components.RateLimit.Action:
    """What became of the last lease, if the worker can spend another."""
    return Actions(
        request_headers=Actions.RequestHeaders(
            header_name=Header.LEASE_REPORT, descriptor_key="lease", skip_if_absent=True
        )
    )

"""Leases: requests that the rate-limit service charges ahead and Envoy lets pass without asking it."""

from __future__ import annotations

import hashlib
import json

from controlplane import protos
from controlplane.model import GatewayConfig, Route
from controlplane.translate.policies import ratelimit_policy

Actions = protos.route_components.RateLimit.Action

LEASED, REPORT = "x-mgw-leased", "x-mgw-lease"
"""Request headers of the front door: this request is covered; what became of the worker's last lease."""
ASKED = ("asked", "yes")
"""The entry of every descriptor that is asked about. Without it a descriptor is dropped, and nobody is asked."""


def are_used(config: GatewayConfig) -> bool:
    """Whether there are leases at all."""
    return config.limits.leases.enabled and config.limits.enforced_by == "ratelimit_service"


def epoch(config: GatewayConfig) -> str:
    """Names the numbers under which a lease was granted: with changed numbers, old leases are not found."""
    return hashlib.sha256(json.dumps(ratelimit_policy(config, 1), sort_keys=True).encode()).hexdigest()[:16]


def route_settings(config: GatewayConfig, route: Route, of_numbers: str) -> dict[str, object]:
    """What leases.lua is told of a route: routes that charge the same share a caller's lease."""
    if not are_used(config) or route.cost_from_response_header or route.cost == 0:
        return {}
    shared = any(rule.service or rule.routes for rule in config.limits.shared)
    departs = shared or route.limits or route.tier_limits or route.cost != 1 or route.on_store_failure
    return {"limits": f"{of_numbers}/{route.name if departs else ''}"}


def asked() -> protos.route_components.RateLimit.Action:
    """Drops the descriptor of a request that a lease covers. What fails to say so is asked about."""
    return Actions(
        header_value_match=Actions.HeaderValueMatch(
            descriptor_key=ASKED[0],
            descriptor_value=ASKED[1],
            expect_match=protos.boolean(False),
            headers=[protos.route_components.HeaderMatcher(name=LEASED, present_match=True)],
        )
    )


def report() -> protos.route_components.RateLimit.Action:
    """What became of the last lease, where the worker can spend one."""
    return Actions(
        request_headers=Actions.RequestHeaders(header_name=REPORT, descriptor_key="lease", skip_if_absent=True)
    )

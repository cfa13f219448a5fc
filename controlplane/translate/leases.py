"""Leases: requests that the rate-limit service charges ahead and Envoy lets pass without asking it."""

from __future__ import annotations

from controlplane import protos
from controlplane.config.model import GatewayConfig, Route
from controlplane.translate.policies import ratelimit_policy

Actions = protos.route_components.RateLimit.Action

LEASED, REPORT, REFUSED = "x-mgw-leased", "x-mgw-lease", "x-mgw-refused"
"""Request headers of the front door: the request is covered; what became of the worker's last lease; the request is
refused, and would pass after so many seconds."""
COVERED = "1"
ASKED = ("asked", "yes")
"""The entry of every descriptor that is asked about. Without it a descriptor is dropped, and nobody is asked. Where
there may be leases its value names them instead: a service that enforces other numbers grants none."""


def are_used(config: GatewayConfig) -> bool:
    """Whether there are leases at all."""
    return config.limits.leases.enabled and config.limits.enforced_by == "ratelimit_service"


def epoch(config: GatewayConfig) -> str:
    """Names the numbers under which a lease was granted: with changed numbers, old leases are not found."""
    return str(ratelimit_policy(config, 1)["epoch"])


def route_settings(config: GatewayConfig, route: Route, of_numbers: str) -> dict[str, str]:
    """What leases.lua is told of a route: routes that charge the same share a caller's lease."""
    if not are_used(config) or route.cost_from_response_header or route.cost == 0:
        return {}
    shared = any(rule.service or rule.routes for rule in config.limits.shared)
    departs = shared or route.limits or route.tier_limits or route.cost != 1 or route.on_store_failure
    return {"limits": f"{of_numbers}/{route.name if departs else ''}"}


def asked(name: str = ASKED[1]) -> protos.route_components.RateLimit.Action:
    """Drops the descriptor of a request that a lease covers. What fails to say so is asked about."""
    return where_absent(LEASED, ASKED[0], name)


def where_absent(header: str, key: str, value: str) -> protos.route_components.RateLimit.Action:
    """An entry; drops the whole descriptor of a request that has the header."""
    there = protos.route_components.HeaderMatcher(name=header, present_match=True)
    return Actions(
        header_value_match=Actions.HeaderValueMatch(
            descriptor_key=key, descriptor_value=value, expect_match=protos.boolean(False), headers=[there]
        )
    )


def is_refused() -> protos.route_components.HeaderMatcher:
    """What the front door refuses."""
    return protos.route_components.HeaderMatcher(name=REFUSED, present_match=True)


def refuse() -> protos.fault_filter.HTTPFault:
    """Refuses what the front door marked, after CORS had its say; `answers` makes it the 429 that the service made."""
    always = protos.percent.FractionalPercent(numerator=100)
    abort = protos.fault_filter.FaultAbort(http_status=429, percentage=always)
    return protos.fault_filter.HTTPFault(abort=abort, headers=[is_refused()])


def report() -> protos.route_components.RateLimit.Action:
    """What became of the last lease, where the worker can spend one."""
    return Actions(
        request_headers=Actions.RequestHeaders(header_name=REPORT, descriptor_key="lease", skip_if_absent=True)
    )

"""Type URLs, and their order on an aggregated stream."""

from __future__ import annotations

_PREFIX = "type.googleapis.com/"

CLUSTER = f"{_PREFIX}envoy.config.cluster.v3.Cluster"
ENDPOINT = f"{_PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = f"{_PREFIX}envoy.config.listener.v3.Listener"
ROUTE = f"{_PREFIX}envoy.config.route.v3.RouteConfiguration"
RUNTIME = f"{_PREFIX}envoy.service.runtime.v3.Runtime"
AUTHZ_POLICY = f"{_PREFIX}mgw.policy.v1.AuthzPolicy"
RATELIMIT_POLICY = f"{_PREFIX}mgw.policy.v1.RatelimitPolicy"

ORDER = (AUTHZ_POLICY, RATELIMIT_POLICY, CLUSTER, ENDPOINT, LISTENER, ROUTE)
"""Make before break: what is referred to comes before what refers to it (xDS protocol, "Eventual consistency")."""

WILDCARD = frozenset({CLUSTER, LISTENER, AUTHZ_POLICY, RATELIMIT_POLICY})
"""Types of which a subscriber without names wants everything."""


def short(type_url: str) -> str:
    """The last part of a type URL, for people and for metric labels."""
    return type_url.rpartition(".")[2]

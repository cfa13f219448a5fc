"""Type URLs: they name Envoy's own messages, and have an order in which nothing refers to what is not there yet."""

from __future__ import annotations

import itertools

import pytest
from google.protobuf.message import Message

from controlplane.protos import cluster, endpoint, listener, route, rtds
from controlplane.translate import assemble
from controlplane.xds.resources import (
    AUTHZ_POLICY,
    CLUSTER,
    ENDPOINT,
    LISTENER,
    ORDER,
    RATELIMIT_POLICY,
    ROUTE,
    RUNTIME,
    WILDCARD,
    short,
)
from tests.support.configs import TOPOLOGY, rich_config

MESSAGES: dict[str, type[Message]] = {
    CLUSTER: cluster.Cluster,
    ENDPOINT: endpoint.ClusterLoadAssignment,
    LISTENER: listener.Listener,
    ROUTE: route.RouteConfiguration,
    RUNTIME: rtds.Runtime,
}


@pytest.mark.parametrize("type_url", MESSAGES)
def test_a_type_url_names_envoys_message(type_url: str) -> None:
    """By the name that the message has of itself."""
    assert type_url == f"type.googleapis.com/{MESSAGES[type_url].DESCRIPTOR.full_name}"


def test_everything_that_a_node_is_told_has_a_place_in_the_order() -> None:
    """And nothing else has; the runtime travels on a stream of its own."""
    told = set(assemble.snapshot(rich_config(), TOPOLOGY).resources)

    assert told == set(ORDER)
    assert len(ORDER) == len(told)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        *itertools.pairwise((CLUSTER, ENDPOINT, LISTENER, ROUTE)),
        *itertools.product((AUTHZ_POLICY, RATELIMIT_POLICY), (CLUSTER, ROUTE)),
    ],
    ids=short,
)
def test_what_is_referred_to_comes_first(first: str, then: str) -> None:
    """As the xDS protocol has it ("Eventual consistency"); a policy is there before a route that asks for it."""
    assert ORDER.index(first) < ORDER.index(then)


def test_what_envoy_asks_for_by_name_is_never_sent_whole() -> None:
    """Endpoints, routes and layers go to who named them; of all else a subscriber without names wants everything."""
    assert set(ORDER) - WILDCARD == {ENDPOINT, ROUTE}
    assert RUNTIME not in WILDCARD


@pytest.mark.parametrize(
    ("type_url", "name"),
    [
        (AUTHZ_POLICY, "AuthzPolicy"),
        (ENDPOINT, "ClusterLoadAssignment"),
        (ROUTE, "RouteConfiguration"),
        (RUNTIME, "Runtime"),
        ("type.googleapis.com/a.", ""),
        ("Cluster", "Cluster"),
        ("", ""),
    ],
)
def test_types_for_people(type_url: str, name: str) -> None:
    """The last part of a type URL is its name, whatever a node writes there."""
    assert short(type_url) == name


def test_names_for_people_tell_types_apart() -> None:
    """They are labels of metrics."""
    assert len({short(type_url) for type_url in (*ORDER, RUNTIME)}) == len(ORDER) + 1

"""Resources hold together in both directions, or nobody is told of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from controlplane import protos
from controlplane.errors import TranslationInconsistent
from controlplane.translate import consistency


class Resources:
    """One service with endpoints, one listener, its routes: they hold together as they are."""

    def __init__(self) -> None:
        self.clusters = [
            protos.cluster.Cluster(name="orders", type=protos.cluster.Cluster.EDS),
            protos.cluster.Cluster(name="mgw-authz", type=protos.cluster.Cluster.STATIC),
        ]
        self.assignments = {"orders": protos.endpoint.ClusterLoadAssignment(cluster_name="orders")}
        manager = protos.hcm.HttpConnectionManager(rds=protos.hcm.Rds(route_config_name="gateway"))
        self.listener = protos.listener.Listener(name="gateway")
        self.listener.filter_chains.add().filters.add(name="http", typed_config=protos.any_of(manager))
        self.routes = [protos.route.RouteConfiguration(name="gateway")]
        self.leads_to("orders")
        self.leads_to("mgw-refusal")

    def leads_to(self, cluster: str) -> None:
        host = self.routes[0].virtual_hosts.add(name="all", domains=["*"])
        host.routes.add(name=f"to {cluster}").route.cluster = cluster

    def check(self) -> None:
        consistency.check(self.clusters, self.assignments, [self.listener], self.routes)


def test_what_holds_together_passes() -> None:
    """A cluster without endpoints of its own, and the one that never exists, are no faults."""
    Resources().check()


def _no_assignment(all_of: Resources) -> Any:
    return all_of.assignments.clear()


def _assignment_left_over(all_of: Resources) -> Any:
    all_of.assignments["gone"] = protos.endpoint.ClusterLoadAssignment(cluster_name="gone")


def _routes_left_over(all_of: Resources) -> Any:
    all_of.routes.append(protos.route.RouteConfiguration(name="other"))


def _no_routes(all_of: Resources) -> Any:
    all_of.routes[0].name = "other"


def _leads_nowhere(all_of: Resources) -> Any:
    all_of.leads_to("nowhere")


def _twice(all_of: Resources) -> Any:
    all_of.clusters.append(all_of.clusters[0])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_no_assignment, "endpoints 'orders' is named and not there"),
        (_assignment_left_over, "endpoints 'gone' is there and not named"),
        (_routes_left_over, "route configuration 'other' is there and not named"),
        (_no_routes, "route configuration 'gateway' is named and not there"),
        (_leads_nowhere, "leads to 'nowhere'"),
        (_twice, "2 clusters 'orders'"),
    ],
)
def test_what_is_missing_or_left_over_is_named(spoil: Callable[[Resources], Any], says: str) -> None:
    """Both ways: what is named is there, and what is there is named."""
    all_of = Resources()
    spoil(all_of)

    with pytest.raises(TranslationInconsistent, match=says):
        all_of.check()

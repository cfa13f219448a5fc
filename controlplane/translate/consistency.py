"""Whether resources hold together: what one names is there, and nothing is there that no one names.

Envoy acknowledges a route to a cluster that does not exist, and waits for ever for a resource that is not sent, so
nobody else would notice. The equalities are those of go-control-plane's `Snapshot.Consistent`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from controlplane import protos
from controlplane.errors import TranslationInconsistent
from controlplane.topology import NO_CLUSTER

Cluster = protos.cluster.Cluster


def check(
    all_clusters: Sequence[protos.cluster.Cluster],
    assignments: Mapping[str, protos.endpoint.ClusterLoadAssignment],
    all_listeners: Iterable[protos.listener.Listener],
    route_configurations: Sequence[protos.route.RouteConfiguration],
) -> None:
    """Raises TranslationInconsistent, which is our own fault, with the first thing that is missing or left over."""
    by_eds = {_service_name(cluster) for cluster in all_clusters if cluster.type == Cluster.EDS}
    _equal("endpoints", wanted=by_eds, given=set(assignments))
    by_rds = {name for listener in all_listeners for name in _route_names(listener)}
    _equal("route configuration", wanted=by_rds, given={each.name for each in route_configurations})
    names = Counter(cluster.name for cluster in all_clusters)
    for name, count in names.items():
        if count > 1:
            raise TranslationInconsistent(f"there are {count} clusters {name!r}")
    for configuration in route_configurations:
        _routes_have_clusters(configuration, frozenset(names))


def _service_name(cluster: protos.cluster.Cluster) -> str:
    return cluster.eds_cluster_config.service_name or cluster.name


def _equal(kind: str, *, wanted: set[str], given: set[str]) -> None:
    for name in sorted(wanted - given):
        raise TranslationInconsistent(f"{kind} {name!r} is named and not there")
    for name in sorted(given - wanted):
        raise TranslationInconsistent(f"{kind} {name!r} is there and not named")


def _route_names(listener: protos.listener.Listener) -> Iterator[str]:
    """The route configurations that a listener asks for."""
    for chain in listener.filter_chains:
        for each in chain.filters:
            manager = protos.hcm.HttpConnectionManager()
            if each.typed_config.Unpack(manager) and manager.HasField("rds"):
                yield manager.rds.route_config_name


def _routes_have_clusters(configuration: protos.route.RouteConfiguration, known: frozenset[str]) -> None:
    for host in configuration.virtual_hosts:
        for route in host.routes:
            if route.HasField("route") and route.route.cluster not in known | {NO_CLUSTER}:
                raise TranslationInconsistent(
                    f"route {route.name!r} leads to {route.route.cluster!r}, which is nowhere"
                )

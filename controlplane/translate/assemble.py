"""All resources of a configuration together: as a snapshot for nodes, and as a static bootstrap for Envoy to judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from google.protobuf.message import Message

from controlplane import protos
from controlplane.breakers.registry import Force
from controlplane.config.model import GatewayConfig
from controlplane.topology import Address, Topology
from controlplane.translate import (
    breaker_overrides,
    clusters,
    consistency,
    endpoints,
    health_listener,
    listeners,
    policies,
    route_tree,
    routes,
)
from controlplane.translate.jwt_authn import NO_KEYS, EnvoyKeys
from controlplane.xds import resources as types
from controlplane.xds.snapshot import Snapshot

Cluster = protos.cluster.Cluster
NO_FORCES: Mapping[str, Force] = MappingProxyType({})


class _Named(Protocol):
    name: str


def snapshot(
    config: GatewayConfig,
    topology: Topology,
    at: Address | None = None,
    keys: EnvoyKeys = NO_KEYS,
    forces: Mapping[str, Force] = NO_FORCES,
) -> Snapshot:
    """What nodes get. Raises TranslationInconsistent, which is our fault, if the resources do not fit together."""
    all_clusters = [
        breaker_overrides.hold(cluster, forces.get(cluster.name, "auto"))
        for cluster in clusters.clusters(config, topology)
    ]
    route_configuration = routes.route_configuration(config, keys)
    assignments = {
        service.name: endpoints.service_assignment(service)
        for service, cluster in zip(config.services, all_clusters[-len(config.services) :], strict=True)
        if cluster.type == Cluster.EDS
    }
    every_listener = _listeners(config, at, keys)
    consistency.check(all_clusters, assignments, every_listener, [route_configuration])
    _with_trees(route_configuration)
    return Snapshot(
        {
            types.AUTHZ_POLICY: {"authz": _policy(types.AUTHZ_POLICY, policies.authz_policy(config))},
            types.RATELIMIT_POLICY: {
                "ratelimit": _policy(types.RATELIMIT_POLICY, policies.ratelimit_policy(config, len(topology.ratelimit)))
            },
            types.CLUSTER: _by_name(all_clusters),
            types.ENDPOINT: {name: _bytes(assignment) for name, assignment in assignments.items()},
            types.LISTENER: _by_name(every_listener),
            types.ROUTE: _by_name([route_configuration]),
        }
    )


def _listeners(config: GatewayConfig, at: Address | None, keys: EnvoyKeys) -> list[protos.listener.Listener]:
    """For clients, and for health alone if the document asks for that."""
    health = health_listener.listener(config, at)
    return [listeners.listener(config, at, keys), *([health] if health else [])]


def _by_name(messages: Iterable[Message]) -> dict[str, bytes]:
    return {message.name: _bytes(message) for message in messages}  # type: ignore[attr-defined] # every resource has one


def _bytes(message: Message) -> bytes:
    return protos.any_of(message).SerializeToString(deterministic=True)


def _policy(type_url: str, policy: Mapping[str, object]) -> bytes:
    return _bytes(protos.typed_struct.TypedStruct(type_url=type_url, value=protos.struct(policy)))


def _with_trees(route_configuration: protos.route.RouteConfiguration) -> protos.route.RouteConfiguration:
    for host in route_configuration.virtual_hosts:
        route_tree.plant(host)
    return route_configuration


def static_bootstrap(
    config: GatewayConfig, topology: Topology, at: Address | None = None, keys: EnvoyKeys = NO_KEYS
) -> protos.bootstrap.Bootstrap:
    """The same resources without a control plane: what `envoy --mode validate` can judge, and people can read."""
    listener, *others = _listeners(config, at, keys)
    route_configuration = _with_trees(routes.route_configuration(config, keys))
    for chain in listener.filter_chains:
        _route_statically(chain.filters[-1], route_configuration)
    return protos.bootstrap.Bootstrap(
        static_resources=protos.bootstrap.Bootstrap.StaticResources(
            listeners=[listener, *others],
            clusters=[_with_endpoints(cluster, config) for cluster in clusters.clusters(config, topology)],
        )
    )


def _route_statically(
    found: protos.listener_components.Filter, route_configuration: protos.route.RouteConfiguration
) -> None:
    manager = protos.hcm.HttpConnectionManager()
    found.typed_config.Unpack(manager)
    manager.route_config.CopyFrom(route_configuration)
    found.typed_config.CopyFrom(protos.any_of(manager))


def _with_endpoints(cluster: protos.cluster.Cluster, config: GatewayConfig) -> protos.cluster.Cluster:
    if cluster.type != Cluster.EDS:
        return cluster
    service = next(service for service in config.services if service.name == cluster.name)
    cluster.type = Cluster.STATIC
    cluster.ClearField("eds_cluster_config")
    cluster.load_assignment.CopyFrom(endpoints.service_assignment(service))
    return cluster

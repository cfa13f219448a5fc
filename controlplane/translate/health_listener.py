"""A listener for health alone, which answers whatever the load: the overload manager has no say over it."""

from __future__ import annotations

from controlplane import protos
from controlplane.config.model import GatewayConfig
from controlplane.topology import Address
from controlplane.translate import filters, listeners, routes

MAX_CONNECTIONS = 1000


def listener(config: GatewayConfig, at: Address | None = None) -> protos.listener.Listener | None:
    """On the host of the gateway's listener; None if the document names no port for it.

    Two Envoys of one machine share the port (`reuse_port`, Envoy's default).
    """
    if config.listener.health_port is None:
        return None
    host = at.host if at else config.listener.host
    chain = protos.listener_components.FilterChain(
        filters=[
            listeners.connection_limit(MAX_CONNECTIONS, routes.HEALTH),
            protos.listener_components.Filter(
                name="envoy.filters.network.http_connection_manager", typed_config=protos.any_of(_manager(config))
            ),
        ]
    )
    return protos.listener.Listener(
        name=routes.HEALTH,
        address=listeners.bound(Address(host, config.listener.health_port)),
        filter_chains=[chain],
        metadata=listeners.metadata(),
        per_connection_buffer_limit_bytes=protos.uint32(listeners.CONNECTION_BUFFER_BYTES),
        bypass_overload_manager=True,
    )


def _manager(config: GatewayConfig) -> protos.hcm.HttpConnectionManager:
    """As for clients, with health's routes and the few filters that these need."""
    manager = listeners.connection_manager(config, chain=filters.health_filters(config))
    manager.stat_prefix = routes.HEALTH
    manager.route_config.CopyFrom(routes.health_route_configuration())
    return manager

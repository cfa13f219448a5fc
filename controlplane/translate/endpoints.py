"""Endpoints: a service's URLs as Envoy's load assignment."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from controlplane import protos
from controlplane.config.model import Service
from controlplane.topology import Address
from controlplane.translate import health_checks


def addresses(service: Service) -> tuple[Address, ...]:
    """Each endpoint's host and port; the scheme's default port if the URL has none."""
    return tuple(_address(endpoint.url) for endpoint in service.endpoints)


def _address(url: str) -> Address:
    parts = urlsplit(url)
    return Address(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def all_numeric(hosts: Iterable[Address]) -> bool:
    """Whether no name has to be resolved. Only then can the endpoints be sent by EDS."""
    return all(_is_numeric(address.host) for address in hosts)


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def load_assignment(name: str, hosts: Iterable[tuple[Address, int]]) -> protos.endpoint.ClusterLoadAssignment:
    """A ClusterLoadAssignment of weighted addresses in one locality."""
    members = [
        protos.endpoint_components.LbEndpoint(
            endpoint=protos.endpoint_components.Endpoint(address=socket_address(address)),
            load_balancing_weight=protos.uint32(weight),
        )
        for address, weight in hosts
    ]
    locality = protos.endpoint_components.LocalityLbEndpoints(lb_endpoints=members)
    return protos.endpoint.ClusterLoadAssignment(cluster_name=name, endpoints=[locality])


def service_assignment(service: Service) -> protos.endpoint.ClusterLoadAssignment:
    """The load assignment of an operator's service."""
    weights = [endpoint.weight for endpoint in service.endpoints]
    result = load_assignment(service.name, zip(addresses(service), weights, strict=True))
    if health_checks.steering(service):
        for endpoint, member in zip(service.endpoints, result.endpoints[0].lb_endpoints, strict=True):
            member.endpoint.health_check_config.hostname = urlsplit(endpoint.url).netloc
    return result


def socket_address(address: Address) -> protos.address.Address:
    """An address as Envoy's message."""
    return protos.address.Address(
        socket_address=protos.address.SocketAddress(address=address.host, port_value=address.port)
    )

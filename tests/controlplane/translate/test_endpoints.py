"""Endpoints: where a service's members are, and how much of it each one gets."""

from __future__ import annotations

from controlplane.translate import endpoints
from tests.support.configs import a_service


def test_weights_and_ports() -> None:
    """Each endpoint has its weight, and the scheme's own port where it names none."""
    service = a_service(
        endpoints=[{"url": "http://10.0.0.1", "weight": 3}, {"url": "http://[fd00::1]:81/"}, {"url": "HTTP://Demo"}]
    )

    found = endpoints.service_assignment(service)

    assert found.cluster_name == "demo"
    assert [
        (
            member.endpoint.address.socket_address.address,
            member.endpoint.address.socket_address.port_value,
            member.load_balancing_weight.value,
        )
        for member in found.endpoints[0].lb_endpoints
    ] == [("10.0.0.1", 80, 3), ("fd00::1", 81, 1), ("demo", 80, 1)]


def test_each_endpoint_is_asked_by_its_own_name() -> None:
    """As the control plane asks it; Envoy would send the name of the service as Host."""
    urls = ("http://10.0.0.1:81", "http://Demo")
    service = a_service("demo", *urls, health_check={"steer": True})

    members = endpoints.service_assignment(service).endpoints[0].lb_endpoints
    unasked = endpoints.service_assignment(a_service("demo", *urls)).endpoints[0].lb_endpoints

    assert [member.endpoint.health_check_config.hostname for member in members] == ["10.0.0.1:81", "Demo"]
    assert not any(member.endpoint.HasField("health_check_config") for member in unasked)

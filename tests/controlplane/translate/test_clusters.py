"""Clusters: pools, breakers, time limits, and how Envoy finds the members."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import protos
from controlplane.topology import Address
from controlplane.translate import clusters
from tests.support.configs import TOPOLOGY, a_service, default_config

Cluster = protos.cluster.Cluster
CA = "/etc/ssl/certs/ca-certificates.crt"


def as_dict(service_urls: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    return protos.message_to_dict(clusters.service_cluster(a_service("demo", *service_urls, **changes), CA))


@pytest.mark.parametrize(
    ("urls", "kind"),
    [
        (("http://10.0.0.1:1",), Cluster.EDS),
        (("http://[fd00::1]:1", "http://10.0.0.1:1"), Cluster.EDS),
        (("http://demo:1",), Cluster.STRICT_DNS),
        (("http://10.0.0.1:1", "http://demo:1"), Cluster.STRICT_DNS),
        (("http://localhost:1",), Cluster.STRICT_DNS),
    ],
)
def test_endpoints_travel_by_eds_unless_a_name_has_to_be_resolved(urls: tuple[str, ...], kind: int) -> None:
    """Numeric addresses change without touching the cluster; one name among them, and Envoy resolves."""
    cluster = clusters.service_cluster(a_service("demo", *urls), CA)

    assert cluster.type == kind
    assert cluster.HasField("load_assignment") == (kind == Cluster.STRICT_DNS)
    assert cluster.HasField("eds_cluster_config") == (kind == Cluster.EDS)


def test_a_breaker_opens_for_a_service_with_one_endpoint() -> None:
    """The numbers become outlier detection that may eject every host and never panics."""
    found = as_dict(breaker={"failures": 20, "error_rate_percent": 40, "open_seconds": 3})

    assert found["outlier_detection"] == {
        "consecutive_5xx": 20,
        "enforcing_consecutive_5xx": 100,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "failure_percentage_threshold": 40,
        "failure_percentage_minimum_hosts": 1,
        "failure_percentage_request_volume": 20,
        "enforcing_failure_percentage": 100,
        "interval": "0.500s",
        "base_ejection_time": "3s",
        "max_ejection_time": "3s",
        "max_ejection_percent": 100,
        "always_eject_one_host": True,
    }
    assert found["common_lb_config"]["healthy_panic_threshold"] in ({}, {"value": 0.0})


@pytest.mark.parametrize(
    ("service", "failures", "rate", "seconds"),
    [("discovery", 20, 50, "3s"), ("sona", 10, 40, "2s"), ("sync", 10, 50, "2s"), ("auth", 10, 50, "2s")],
)
def test_default_breakers(service: str, failures: int, rate: int, seconds: str) -> None:
    """The published breakers reach Envoy."""
    (found,) = [
        protos.message_to_dict(cluster)["outlier_detection"]
        for cluster in clusters.clusters(default_config(), TOPOLOGY)
        if cluster.name == service
    ]

    assert (found["consecutive_5xx"], found["failure_percentage_threshold"]) == (failures, rate)
    assert found["base_ejection_time"] == found["max_ejection_time"] == seconds


def test_pool() -> None:
    """At most so many connections a host, idle ones closed in time; requests are not what is capped."""
    found = as_dict(
        ("http://10.0.0.1", "http://10.0.0.2"),
        pool={"max_connections": 7, "idle_timeout_seconds": 30, "max_pending_requests": 9},
        connect_timeout_seconds=0.25,
    )
    caps = found["circuit_breakers"]

    (threshold,) = caps["thresholds"]
    assert threshold.pop("retry_budget")
    assert threshold == {"max_connections": 1_000_000, "max_pending_requests": 9, "max_requests": 1_000_000}
    assert caps["per_host_thresholds"] == [{"max_connections": 7}]
    assert found["connect_timeout"] == "0.250s"
    options = found["typed_extension_protocol_options"][clusters.HTTP_OPTIONS]
    assert options["common_http_protocol_options"] == {"idle_timeout": "30s"}
    assert "http_protocol_options" in options["explicit_http_config"]


def test_https_is_checked() -> None:
    """An https service must show a certificate for its own name, from an authority that Envoy trusts."""
    socket = as_dict(("https://api.example",))["transport_socket"]["typed_config"]

    assert socket["sni"] == "api.example"
    assert socket["auto_host_sni"] is True
    assert socket["auto_sni_san_validation"] is True
    assert socket["common_tls_context"]["validation_context"]["trusted_ca"] == {"filename": CA}
    assert "transport_socket" not in as_dict(("http://api.example",))


@pytest.mark.parametrize(
    ("replicas", "kind", "passed_over"),
    [
        ((Address("10.0.0.1", 1),), Cluster.STATIC, False),
        ((Address("10.0.0.1", 1), Address("10.0.0.2", 1)), Cluster.STATIC, True),
        ((Address("authz", 1),), Cluster.STRICT_DNS, False),
    ],
)
def test_our_own_services(replicas: tuple[Address, ...], kind: int, passed_over: bool) -> None:
    """Our services speak HTTP/2 without caps; a dead replica is passed over only where there is another."""
    cluster = clusters.grpc_cluster("mgw-authz", replicas)
    found = protos.message_to_dict(cluster)

    assert cluster.type == kind
    assert cluster.HasField("outlier_detection") is passed_over
    assert found["circuit_breakers"]["thresholds"][0]["max_requests"] == 1_000_000
    assert "http2_protocol_options" in str(found["typed_extension_protocol_options"])
    assert cluster.connect_timeout.ToTimedelta().total_seconds() + 0.1 <= 0.25


@pytest.mark.parametrize(
    ("given", "percent"), [(None, 20), ({"attempts": 1}, 20), ({"attempts": 1, "budget_percent": 5}, 5)]
)
def test_a_service_has_one_budget(given: dict[str, Any] | None, percent: int) -> None:
    """It is there without retries too: a route may ask for them on its own."""
    (threshold,) = as_dict(retries=given)["circuit_breakers"]["thresholds"]

    assert threshold["retry_budget"] == {"budget_percent": {"value": percent}, "min_retry_concurrency": 3}


def test_slow_start() -> None:
    """A new endpoint gets its share gradually if the service asks for that."""
    assert "least_request_lb_config" not in as_dict()
    assert as_dict(slow_start_seconds=30) == as_dict()
    found = as_dict(("http://10.0.0.1", "http://10.0.0.2"), slow_start_seconds=30)

    assert found["lb_policy"] == "LEAST_REQUEST"
    assert found["least_request_lb_config"]["slow_start_config"] == {"slow_start_window": "30s"}

"""Health checks that steer: each Envoy asks every endpoint."""

from __future__ import annotations

from typing import Any

from controlplane import protos
from controlplane.translate import clusters
from tests.support.configs import a_service, default_config

CA = "/etc/ssl/certs/ca-certificates.crt"


def cluster(*urls: str, **changes: Any) -> dict[str, Any]:
    return protos.message_to_dict(clusters.service_cluster(a_service("demo", *urls, **changes), CA))


def test_a_check_does_not_steer_by_default() -> None:
    """Envoy is told nothing of a health path: it would ask services that have none."""
    for found in (cluster(), cluster(health_check={"path": "/healthz"}), cluster(health_check=None)):
        assert "health_checks" not in found
        assert "successful_active_health_check_uneject_host" not in found["outlier_detection"]
    for service in default_config().services:
        assert "health_checks" not in protos.message_to_dict(clusters.service_cluster(service, CA))


def test_a_check_that_steers() -> None:
    """Its rhythm is the operator's, with traffic and without; the breaker keeps its open time unless told otherwise."""
    check = {"path": "/healthz", "steer": True, "interval_seconds": 2, "timeout_seconds": 0.5}
    found = cluster(health_check=check | {"unhealthy_threshold": 4, "healthy_threshold": 1})
    (asked,) = found["health_checks"]

    assert asked["interval"] == asked["no_traffic_interval"] == "2s"
    assert (asked["timeout"], asked["unhealthy_threshold"], asked["healthy_threshold"]) == ("0.500s", 4, 1)
    assert asked["http_health_check"]["path"] == "/healthz"
    assert asked["http_health_check"]["expected_statuses"] == [{"start": "200", "end": "500"}]
    assert found["ignore_health_on_host_removal"] is True
    assert found["outlier_detection"]["successful_active_health_check_uneject_host"] is False
    closing = cluster(health_check=check | {"closes_breaker": True})
    assert closing["outlier_detection"]["successful_active_health_check_uneject_host"] is True

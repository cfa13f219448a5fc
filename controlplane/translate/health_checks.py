"""Health checks that steer: each Envoy checks every endpoint and routes only to the healthy ones."""

from __future__ import annotations

from controlplane import protos
from controlplane.config.model import HealthCheck, Service

Check = protos.health_check.HealthCheck
StatusRange = protos.ranges.Int64Range

HEALTHY = StatusRange(start=200, end=500)
"""The same as for /health: every status below 500 is healthy, a 404 included."""
ANY_STATUS = StatusRange(start=100, end=600)


def steering(service: Service) -> HealthCheck | None:
    """The service's check if it steers; else None."""
    check = service.health_check
    return check if check is not None and check.steer else None


def apply(cluster: protos.cluster.Cluster, check: HealthCheck) -> None:
    """Make Envoy check a cluster's endpoints.

    The breaker keeps its open time. By default Envoy would end the ejection of an endpoint when its health path is next
    found healthy, although other paths of the service still fail.
    """
    cluster.health_checks.append(_health_check(check))
    cluster.outlier_detection.successful_active_health_check_uneject_host.CopyFrom(protos.boolean(check.closes_breaker))
    # An endpoint that left the configuration gets no more requests at once, not only when its check fails.
    cluster.ignore_health_on_host_removal = True


def _health_check(check: HealthCheck) -> protos.health_check.HealthCheck:
    interval = protos.duration(check.interval_seconds)
    return Check(
        timeout=protos.duration(check.timeout_seconds),
        interval=interval,
        no_traffic_interval=interval,  # Envoy's own is 60 s: an idle service would be found unhealthy too late
        unhealthy_threshold=protos.uint32(check.unhealthy_threshold),
        healthy_threshold=protos.uint32(check.healthy_threshold),
        http_health_check=Check.HttpHealthCheck(
            path=check.path,
            expected_statuses=[HEALTHY],
            retriable_statuses=[ANY_STATUS],  # without it, one wrong status outweighs the threshold
        ),
    )

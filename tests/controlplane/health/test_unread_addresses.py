"""Addresses that could not be read are told once a minute."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from controlplane.health.unread_addresses import METRIC, UnreadAddresses
from controlplane.protos import prometheus_metrics
from tests.support.clock import FakeClock


def families(count: float) -> list[prometheus_metrics.MetricFamily]:
    counter = prometheus_metrics.Metric(counter=prometheus_metrics.Counter(value=count))
    return [
        prometheus_metrics.MetricFamily(name="other"),
        prometheus_metrics.MetricFamily(name=METRIC, metric=[counter]),
    ]


@pytest.mark.parametrize(
    ("reports", "told"),
    [
        ([(0, 0), (1, 0)], []),
        ([(0, 3)], [3]),
        ([(0, 3), (1, 3), (100, 3)], [3]),
        ([(0, 3), (1, 5), (59, 9), (60, 10)], [3, 7]),
        ([(0, 3), (61, 2)], [3, 2]),  # Envoy has started again
    ],
)
def test_at_most_once_a_minute(reports: list[tuple[float, float]], told: list[int]) -> None:
    """A line says how many requests there were since the last one, and none says nothing."""
    clock = FakeClock()
    start = clock()
    watch = UnreadAddresses(clock)

    with capture_logs() as lines:
        for at, count in reports:
            clock.now = start + at
            watch.on_metrics("envoy-0", families(count))

    assert [line["requests"] for line in lines] == told


def test_each_envoy_is_told_of() -> None:
    """One Envoy's line does not silence another's, and an Envoy without the counter has none."""
    watch = UnreadAddresses()

    with capture_logs() as lines:
        for node in ("envoy-0", "envoy-1"):
            watch.on_metrics(node, families(1))
        watch.on_metrics("envoy-2", [])

    assert [(line["event"], line["node"]) for line in lines] == [
        ("forwarded_for.unread", "envoy-0"),
        ("forwarded_for.unread", "envoy-1"),
    ]

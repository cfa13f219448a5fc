"""A breaker that an operator forces: what of its cluster changes, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import protos
from controlplane.breakers.registry import Force
from controlplane.translate import breaker_overrides, clusters
from tests.support.configs import a_service

CA = "/etc/ssl/certs/ca-certificates.crt"


def held(force: Force) -> dict[str, Any]:
    cluster = clusters.service_cluster(a_service("demo"), CA)
    return protos.message_to_dict(breaker_overrides.hold(cluster, force))


def test_auto_changes_nothing() -> None:
    """The cluster stays the same, byte for byte, so no Envoy makes it anew."""
    assert held("auto") == protos.message_to_dict(clusters.service_cluster(a_service("demo"), CA))


def test_open_lets_nothing_through() -> None:
    """Neither a request nor one that waits: Envoy rejects as for a full queue, which is the breaker's 503."""
    (threshold,) = held("open")["circuit_breakers"]["thresholds"]

    assert (threshold["max_requests"], threshold["max_pending_requests"]) == (0, 0)


def test_closed_ejects_nobody() -> None:
    """Failures are still detected and counted, but no endpoint is taken out."""
    found, usual = held("closed")["outlier_detection"], held("auto")["outlier_detection"]

    assert (found["enforcing_consecutive_5xx"], found["enforcing_failure_percentage"]) == (0, 0)
    assert found["consecutive_5xx"] == usual["consecutive_5xx"]


@pytest.mark.parametrize(("force", "part"), [("open", "circuit_breakers"), ("closed", "outlier_detection")])
def test_a_force_changes_one_part(force: Force, part: str) -> None:
    """Everything else of the cluster is as without it."""
    found, usual = held(force), held("auto")

    assert {name for name in usual if found[name] != usual[name]} == {part}

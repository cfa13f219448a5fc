"""A service that an operator holds open or closed.

This is in the cluster, not in Envoy's runtime: the keys that keep outlier detection from ejecting hold for all clusters
at once, and a runtime layer ends with the control plane, while what an operator said stays said.
"""

from __future__ import annotations

from controlplane import protos
from controlplane.breakers.registry import Force


def hold(cluster: protos.cluster.Cluster, force: Force) -> protos.cluster.Cluster:
    """The cluster, held. Envoy makes a changed cluster anew: nothing is ejected, running requests end as they would."""
    if force == "open":
        for threshold in cluster.circuit_breakers.thresholds:
            threshold.max_requests.value = 0
            threshold.max_pending_requests.value = 0
    if force == "closed":
        # Still detected, and counted in Envoy's statistics.
        cluster.outlier_detection.enforcing_consecutive_5xx.value = 0
        cluster.outlier_detection.enforcing_failure_percentage.value = 0
    return cluster

"""A service whose breaker an operator forces open or closed.

The force is in the cluster and not in Envoy's runtime. The runtime keys that keep outlier detection from ejecting apply
to all clusters at once, and a runtime layer ends with the control plane, while a force has to stay.
"""

from __future__ import annotations

from controlplane import protos
from controlplane.breakers.registry import Force


def hold(cluster: protos.cluster.Cluster, force: Force) -> protos.cluster.Cluster:
    """The cluster with the force. Envoy makes a changed cluster anew: nothing is ejected, running requests go on."""
    if force == "open":
        for threshold in cluster.circuit_breakers.thresholds:
            threshold.max_requests.value = 0
            threshold.max_pending_requests.value = 0
    if force == "closed":
        # Failures are still detected and counted in Envoy's statistics.
        cluster.outlier_detection.enforcing_consecutive_5xx.value = 0
        cluster.outlier_detection.enforcing_failure_percentage.value = 0
    return cluster

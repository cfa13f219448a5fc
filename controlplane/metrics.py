"""The control plane's metrics, by name."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

NACKS = Counter("mgw_xds_nacks_total", "Versions that a node rejected (NACK)", ["type"])
REVISION = Gauge("mgw_config_revision", "The current revision")
LAST_SUCCESS = Gauge("mgw_config_last_success_timestamp_seconds", "When a configuration was last published")
REJECTED = Counter(
    "mgw_config_refused_total", "Configuration documents that were rejected, by the stage that rejected them", ["stage"]
)
PUBLISH_SECONDS = Histogram("mgw_publish_seconds", "From a document's arrival to its snapshot being current")
BREAKER_STATE = Gauge("mgw_breaker_state", "1 for the state that a service's breaker is in", ["service", "state"])
BREAKER_CHANGES = Counter(
    "mgw_breaker_changes_total", "How often a service's breaker came to a state", ["service", "to"]
)
BREAKER_FORCED = Gauge("mgw_breaker_forced", "Whether an operator holds a service's breaker", ["service"])

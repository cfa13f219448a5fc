"""docs/reference/metrics.md: every metric of the three processes, by asking their registries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from authz_service.metrics import Metrics as AuthzMetrics
from controlplane import metrics as controlplane_metrics
from docs.generate.markdown import page, table
from ratelimit_service.metrics import Metrics as RatelimitMetrics

INTRODUCTION = """\
Each process serves its metrics in the Prometheus text format: the control plane at `/metrics` of its API, the two
services at `MGW_METRICS_LISTEN`, Envoy at `/stats/prometheus` of its admin interface. `run.json` of `mgw up` has every
address.
Labels come from small fixed sets: never a caller, never a path as a client wrote it.

A counter's name ends in `_total` when it is scraped; a histogram has `_bucket`, `_sum` and `_count`.
"""

ENVOY = """\
Envoy has metrics of its own, which its documentation lists. These say something of the gateway:

- `envoy_vhost_vcluster_upstream_rq`: requests of AI agents, with `envoy_virtual_cluster="ai_agent"`.
- `envoy_gateway_forwarded_for_unread`: requests with an `X-Forwarded-For` from trusted hops that names no client. It is
  there once there was one.
- `envoy_http_downstream_rq_xx`: responses by class of status.
- `envoy_cluster_upstream_rq_time`: a service's response times, with `envoy_cluster_name`.
- `envoy_cluster_ratelimit_ok`, `_over_limit`, `_error`: what the rate-limit service said, and how often it did not.
- `envoy_cluster_outlier_detection_ejections_active`: endpoints that Envoy has ejected.
"""


def metrics() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for title, registry in _registries():
        parts += [f"## {title}", table(("metric", "type", "labels", "meaning"), _rows(registry))]
    return page("Metrics", [*parts, "## Envoy", ENVOY])


def _registries() -> Iterator[tuple[str, CollectorRegistry]]:
    own = CollectorRegistry()
    for each in vars(controlplane_metrics).values():
        if type(each).__module__.startswith("prometheus_client"):
            own.register(each)
    yield "Control plane", own
    yield "Authz service", AuthzMetrics().registry
    yield "Rate-limit service", RatelimitMetrics().registry


def _rows(registry: CollectorRegistry) -> list[tuple[str, str, str, str]]:
    rows = []
    collectors: list[Any] = list(registry._collector_to_names)
    for collector in collectors:
        for family in collector.collect():
            names: Sequence[str] = getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", None) or ()
            labels = ", ".join(f"`{each}`" for each in names)
            rows.append((f"`{_scraped(family)}`", family.type, labels, family.documentation))
    return sorted(rows)


def _scraped(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else str(family.name)

"""The metrics of this process. Labels come from small fixed sets and from the policy, never from a caller."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service_kit.metrics import LabelledCounter

MODES = ("exact", "share", "open", "closed")
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_STORE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


class Metrics:
    """The metrics and their registry: one for a process, or for a test."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        labelled, histogram = partial(LabelledCounter, registry=registry), partial(Histogram, registry=registry)

        self._decisions = labelled(
            "mgw_ratelimit_decisions",
            "Requests decided, by the caller's tier, by outcome (allowed, or refused: over limit) and by mode"
            " (exact with the store; share, open or closed without it).",
            ("tier", "outcome", "mode"),
        )
        self._over_limit = labelled(
            "mgw_ratelimit_refusals",
            "Requests over limit, by the counter and the rule that they exceeded.",
            ("counter", "rule"),
        )
        self._shadow_over_limit = labelled(
            "mgw_ratelimit_shadow_refusals",
            "Requests that a shadow rule would have found over limit, by the counter and the rule.",
            ("counter", "rule"),
        )
        self._operations = labelled(
            "mgw_ratelimit_operations",
            "Operations on one caller's counters, by verb and outcome.",
            ("verb", "outcome"),
        )
        self._quota_hits = labelled(
            "mgw_ratelimit_quota_requests",
            "Requests in quota mode, as Envoys report them, by the caller's tier and by outcome.",
            ("tier", "outcome"),
        )
        self._degraded = labelled(
            "mgw_ratelimit_degraded_decisions", "Requests decided without the store, by mode.", ("mode",)
        )
        for mode in MODES[1:]:
            self._degraded.count(mode, by=0)
        self._unmatched = counter(
            "mgw_ratelimit_unmatched_descriptors", "Requests with a descriptor for which no limit is known."
        )
        self._late_units = counter("mgw_ratelimit_late_units", "Hits that were charged after the response.")
        self._without_policy = counter(
            "mgw_ratelimit_without_policy", "Requests that passed because no policy was known yet."
        )
        self._quota_streams = gauge("mgw_ratelimit_quota_streams", "Envoys in quota mode that are connected.")
        self._quota_buckets = gauge("mgw_ratelimit_quota_buckets", "Quota buckets that those Envoys hold together.")
        self.store_up = gauge("mgw_ratelimit_store_up", "1 while the store can be reached and counts.")
        self.store_evicts = gauge(
            "mgw_ratelimit_store_evicts", "1 while the store drops counters when its memory is full, or has done so."
        )
        self.store_evicted = gauge(
            "mgw_ratelimit_store_evicted_keys", "Keys that the store has evicted since it started, as it says."
        )
        self.store_outages = counter("mgw_ratelimit_store_outages", "How often the connection to the store was lost.")
        self.store_errors = counter("mgw_ratelimit_store_errors", "Commands to which the store returned an error.")
        self.store_seconds = histogram(
            "mgw_ratelimit_store_seconds", "Round trip of a batch to the store, in seconds.", buckets=_STORE_SECONDS
        )
        self.batch_size = histogram(
            "mgw_ratelimit_batch_requests", "Requests that went to the store in one write.", buckets=_BATCH_SIZES
        )
        self.reconciled = counter(
            "mgw_ratelimit_settled_callers", "Counters that were reconciled with the store after an outage."
        )
        self.unreconciled = counter(
            "mgw_ratelimit_unsettled_callers",
            "Counters that were not reconciled after an outage, because time ran out.",
        )
        self.identities = gauge("mgw_ratelimit_local_identities", "Counters held in this process.")
        self.policy_accepted = counter("mgw_ratelimit_policies_accepted", "Policies that were put in force.")
        self.policy_rejected = counter("mgw_ratelimit_policies_refused", "Policies that were rejected.")

    def decided(self, tier: str, allowed: bool, mode: str) -> None:
        """Count a decision. The tier must be one that the policy names, or `unknown`."""
        self._decisions.count(tier, "allowed" if allowed else "refused", mode)

    def over_limit(self, counter: str, rule: str) -> None:
        """Count a request over limit, under the counter and the rule that it exceeded."""
        self._over_limit.count(counter, rule)

    def shadow_over_limit(self, counter: str, rule: str) -> None:
        """Count a request that a shadow rule would have found over limit."""
        self._shadow_over_limit.count(counter, rule)

    def post_charged(self, hits: int) -> None:
        """Count hits that were charged after the response."""
        self._late_units.inc(hits)

    def operated(self, verb: str, outcome: str) -> None:
        """Count an operation. Verb and outcome come from fixed sets."""
        self._operations.count(verb, outcome)

    def quota_spent(self, tier: str, allowed: int, denied: int) -> None:
        """Count what an Envoy reports. The tier must be one that the policy names, or `unknown`."""
        self._quota_hits.count(tier, "allowed", by=allowed)
        self._quota_hits.count(tier, "refused", by=denied)

    def quota_streams(self, streams: int, buckets: int) -> None:
        """Set how many Envoys are connected, and how many buckets they hold together."""
        self._quota_streams.set(streams)
        self._quota_buckets.set(buckets)

    def degraded(self, mode: str) -> None:
        """Count a decision that was made without the store."""
        self._degraded.count(mode)

    def unmatched(self) -> None:
        """Count a request with a descriptor that no limit is known for."""
        self._unmatched.inc()

    def without_policy(self) -> None:
        """Count a request that passed because no policy is known yet."""
        self._without_policy.inc()

    def text(self) -> bytes:
        """All metrics, in the Prometheus text format."""
        return generate_latest(self.registry)

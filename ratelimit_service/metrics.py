"""What this process counts. Children are kept: nothing looks a label up during a request."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MODES = ("exact", "share", "open", "closed")
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_STORE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


class Metrics:
    """The metrics and their registry. Labels come from the policy and from fixed sets, never from a caller."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decisions = Counter(
            "mgw_ratelimit_decisions",
            "Requests decided, by the caller's tier, the outcome and how it was found.",
            ("tier", "outcome", "mode"),
            registry=self.registry,
        )
        self._refusals = Counter(
            "mgw_ratelimit_refusals",
            "Requests over limit, by the counter and the rule.",
            ("counter", "rule"),
            registry=self.registry,
        )
        self._shadow_refusals = Counter(
            "mgw_ratelimit_shadow_refusals",
            "Requests that would have been over limit by a shadow rule, by the counter and the rule.",
            ("counter", "rule"),
            registry=self.registry,
        )
        self._operations = Counter(
            "mgw_ratelimit_operations",
            "What operators asked, by verb and outcome.",
            ("verb", "outcome"),
            registry=self.registry,
        )
        self._quota_hits = Counter(
            "mgw_ratelimit_quota_requests",
            "Requests that Envoys report of their quotas, by the caller's tier and the outcome.",
            ("tier", "outcome"),
            registry=self.registry,
        )
        degraded = Counter(
            "mgw_ratelimit_degraded_decisions",
            "Requests decided without the store, by the mode that held.",
            ("mode",),
            registry=self.registry,
        )
        self.degraded_by_mode = {mode: degraded.labels(mode) for mode in MODES[1:]}
        self._unmatched = self._counter(
            "mgw_ratelimit_unmatched_descriptors", "Requests with a descriptor of unknown shape."
        )
        self._late_units = self._counter("mgw_ratelimit_late_units", "Hits charged after the response.")
        self._quota_streams = self._gauge("mgw_ratelimit_quota_streams", "Envoys that report their quotas.")
        self._quota_buckets = self._gauge("mgw_ratelimit_quota_buckets", "Buckets that Envoys hold.")
        self._without_policy = self._counter("mgw_ratelimit_without_policy", "Requests passed: no policy is known.")
        self.store_up = self._gauge("mgw_ratelimit_store_up", "1 while the store counts.")
        self.store_outages = self._counter("mgw_ratelimit_store_outages", "Times the store was lost.")
        self.store_errors = self._counter("mgw_ratelimit_store_errors", "Commands that the store rejected.")
        self.reconciled = self._counter("mgw_ratelimit_settled_callers", "Counters told to the store after an outage.")
        self.unreconciled = self._counter("mgw_ratelimit_unsettled_callers", "Counters left out because time ran out.")
        self.identities = self._gauge("mgw_ratelimit_local_identities", "Counters held in this process.")
        self.policy_accepted = self._counter("mgw_ratelimit_policies_accepted", "Policies put in force.")
        self.policy_refused = self._counter("mgw_ratelimit_policies_refused", "Policies rejected.")
        self.batch_size = self._histogram("mgw_ratelimit_batch_requests", "Requests in one write.", _BATCH_SIZES)
        self.store_seconds = self._histogram("mgw_ratelimit_store_seconds", "A batch's round trip.", _STORE_SECONDS)
        self._decision_children: dict[tuple[str, bool, str], Counter] = {}
        self._refusal_children: dict[tuple[str, str], Counter] = {}
        self._shadow_children: dict[tuple[str, str], Counter] = {}

    def decided(self, tier: str, allowed: bool, mode: str) -> None:
        """Count a decision. The tier must be one that the policy names, or `unknown`."""
        child = self._decision_children.get((tier, allowed, mode))
        if child is None:
            child = self._decisions.labels(tier, "allowed" if allowed else "refused", mode)
            self._decision_children[tier, allowed, mode] = child
        child.inc()

    def over_limit(self, counter: str, rule: str) -> None:
        """Count a request over limit under the counter and the rule."""
        child = self._refusal_children.get((counter, rule))
        if child is None:
            child = self._refusal_children[counter, rule] = self._refusals.labels(counter, rule)
        child.inc()

    def shadow_over_limit(self, counter: str, rule: str) -> None:
        """Count a request that would have been over limit by a shadow rule."""
        child = self._shadow_children.get((counter, rule))
        if child is None:
            child = self._shadow_children[counter, rule] = self._shadow_refusals.labels(counter, rule)
        child.inc()

    def post_charged(self, hits: int) -> None:
        """Count hits that were charged after the response."""
        self._late_units.inc(hits)

    def operated(self, verb: str, outcome: str) -> None:
        """Count what an operator asked. Both come from fixed sets."""
        self._operations.labels(verb, outcome).inc()

    def quota_spent(self, tier: str, allowed: int, denied: int) -> None:
        """Count what an Envoy reports. The tier must be one that the policy names, or `unknown`."""
        self._quota_hits.labels(tier, "allowed").inc(allowed)
        self._quota_hits.labels(tier, "refused").inc(denied)

    def quota_streams(self, streams: int, buckets: int) -> None:
        """Say how many Envoys there are, and how many buckets they hold together."""
        self._quota_streams.set(streams)
        self._quota_buckets.set(buckets)

    def degraded(self, mode: str) -> None:
        """Count a decision that was made without the store."""
        self.degraded_by_mode[mode].inc()

    def unmatched(self) -> None:
        """Count a request with a descriptor that no limit is known for."""
        self._unmatched.inc()

    def without_policy(self) -> None:
        """Count a request that passed because no policy is known yet."""
        self._without_policy.inc()

    def text(self) -> bytes:
        """All metrics, in the Prometheus text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)

"""The metrics of this process. Labels come from small fixed sets and from the policy, never from a caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily

from authz_service.errors import Reason
from service_kit.metrics import LabelledCounter


class JwksMetrics:
    """How each provider's remote key set is doing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ages: dict[str, Callable[[], float]] = {}
        self._fetches = LabelledCounter(
            "mgw_authz_jwks_fetches",
            "Fetches of a key set, by provider and result (success or failure).",
            ("provider", "result"),
            registry,
        )
        self._waits_given_up = LabelledCounter(
            "mgw_authz_jwks_waits_given_up",
            "Requests that waited for a fetch of a key set for as long as they may, and went on without it.",
            ("provider",),
            registry,
        )
        registry.register(self)

    def watch(self, provider: str, age: Callable[[], float]) -> None:
        """Report a key set's age, in seconds, from now on."""
        self._ages[provider] = age

    def forget(self, provider: str, age: Callable[[], float]) -> None:
        """Report it no longer, unless `watch` was given another key set for the provider meanwhile."""
        if self._ages.get(provider) == age:
            del self._ages[provider]

    def fetched(self, provider: str, is_success: bool) -> None:
        """Count a fetch."""
        self._fetches.count(provider, "success" if is_success else "failure")

    def wait_given_up(self, provider: str) -> None:
        """Count a request that no longer waited for a fetch."""
        self._waits_given_up.count(provider)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The ages, for a scrape."""
        family = self._family()
        for provider, age in sorted(self._ages.copy().items()):
            family.add_metric([provider], age())
        yield family

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The name, for the registry."""
        yield self._family()

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "mgw_authz_jwks_age_seconds",
            "Seconds since the key set in use was fetched; NaN where there is none.",
            labels=["provider"],
        )


class Metrics:
    """The metrics and their registry: one for a process, or for a test."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.jwks = JwksMetrics(registry)
        self._decisions = LabelledCounter(
            "mgw_authz_decisions",
            "Requests decided, by outcome (allow or deny) and reason.",
            ("outcome", "reason"),
            registry,
        )
        self._policies = LabelledCounter(
            "mgw_authz_policies",
            "Policies received, by result (enforced, or refused: rejected).",
            ("result",),
            registry,
        )
        self.is_ready = Gauge("mgw_authz_ready", "1 while a policy is enforced.", registry=registry)
        self.cached_tokens = Gauge("mgw_authz_cached_tokens", "Verified tokens in the cache.", registry=registry)

    def decided(self, is_allowed: bool, reason: Reason) -> None:
        """Count a decision."""
        self._decisions.count("allow" if is_allowed else "deny", reason.value)

    def policy_enforced(self) -> None:
        """Count a policy that was put in force."""
        self._policies.count("enforced")
        self.is_ready.set(1)

    def policy_rejected(self) -> None:
        """Count a policy that cannot be enforced."""
        self._policies.count("refused")

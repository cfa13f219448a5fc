"""What is counted. Labels come from small fixed sets: reasons, and the providers of the policy; never a caller."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from authz_service.errors import Reason


@dataclass(eq=False, slots=True)
class Decisions:
    """Counted in plain integers, since every request counts one; turned into samples at a scrape."""

    counts: dict[tuple[str, Reason], int] = field(default_factory=dict)

    def count(self, outcome: str, reason: Reason) -> None:
        key = (outcome, reason)
        self.counts[key] = self.counts.get(key, 0) + 1

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "mgw_authz_decisions", "Requests decided, by outcome and reason.", labels=["outcome", "reason"]
        )
        for (outcome, reason), count in sorted(self.counts.items()):
            family.add_metric([outcome, reason.value], count)
        yield family

    def describe(self) -> Iterable[Metric]:
        return ()


class JwksMetrics:
    """How each remote key set is doing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ages: dict[str, Callable[[], float]] = {}
        self._fetches = Counter(
            "mgw_authz_jwks_fetches", "Fetches of a key set.", ["provider", "result"], registry=registry
        )
        self._impatient = Counter(
            "mgw_authz_jwks_waits_given_up", "Requests that did not wait for a fetch.", ["provider"], registry=registry
        )
        registry.register(self)

    def watch(self, provider: str, age: Callable[[], float]) -> None:
        self._ages[provider] = age

    def forget(self, provider: str, age: Callable[[], float]) -> None:
        """Only what `watch` was given: the provider may already have another key set."""
        if self._ages.get(provider) == age:
            del self._ages[provider]

    def fetched(self, provider: str, result: str) -> None:
        self._fetches.labels(provider, result).inc()

    def gave_up(self, provider: str) -> None:
        self._impatient.labels(provider).inc()

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "mgw_authz_jwks_age_seconds", "Age of the key set in use; NaN where there is none.", labels=["provider"]
        )
        for provider, age in sorted(self._ages.items()):
            family.add_metric([provider], age())
        yield family

    def describe(self) -> Iterable[Metric]:
        return ()


class Metrics:
    """One registry a process, or a test."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.decisions = Decisions()
        self.registry.register(self.decisions)
        self.jwks = JwksMetrics(self.registry)
        self.policies = Counter(
            "mgw_authz_policies", "Policies offered, by what became of them.", ["result"], registry=self.registry
        )
        self.is_ready = Gauge("mgw_authz_ready", "1 while a policy is enforced.", registry=self.registry)
        self.cached_tokens = Gauge("mgw_authz_cached_tokens", "Verified tokens kept.", registry=self.registry)

"""Counters with labels, for what every request counts."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily


class LabelledCounter:
    """A counter for each combination of labels. It counts in plain integers and makes samples when it is scraped.

    Counting costs one look-up in a dict; prometheus_client's own counter takes a lock besides. Labels must come from
    small fixed sets, or from the policy, and never from a caller.
    """

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...], registry: CollectorRegistry) -> None:
        """`name` is without `_total`; `meaning` is the HELP text."""
        self._name, self._meaning, self._labels = name, meaning, labels
        self._counts: dict[tuple[str, ...], int] = {}
        self._created: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def count(self, *values: str, by: int = 1) -> None:
        """Add `by`, which is not negative, under these values of the labels."""
        try:
            self._counts[values] += by
        except KeyError:
            self._created[values] = time.time()
            self._counts[values] = by

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The samples. A scrape runs in a thread of its own, so it reads a copy."""
        family = self._family()
        for values, count in sorted(self._counts.copy().items()):
            family.add_metric(values, count, created=self._created[values])
        yield family

    def describe(self) -> Iterator[CounterMetricFamily]:
        """The name, for the registry: two metrics of one name are an error."""
        yield self._family()

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, self._meaning, labels=self._labels)

"""Says once a minute that trusted hops send an X-Forwarded-For that names no client: such callers share one budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from controlplane.translate.forwarded_for import COUNTER, COUNTER_PREFIX

log = structlog.get_logger()

EVERY_SECONDS = 60.0
METRIC = f"{COUNTER_PREFIX}.{COUNTER}"


class UnreadAddresses:
    """Reads the counter in what Envoys report."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, float] = {}
        self._silent_until: dict[str, float] = {}

    def on_metrics(self, node: str, families: Iterable[Any]) -> None:
        """Logs what is new, if a minute has passed since it last did for this Envoy."""
        count = next((each.metric[0].counter.value for each in families if each.name == METRIC), 0.0)
        told, now = self._told.get(node, 0.0), self._clock()
        if count < told:
            told = 0.0  # Envoy has started again
        if count == told or now < self._silent_until.get(node, now):
            return
        self._told[node], self._silent_until[node] = count, now + EVERY_SECONDS
        log.warning("forwarded_for.unread", node=node, requests=int(count - told))

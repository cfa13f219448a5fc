"""What Envoy says of its ejected hosts, as the state of each service's breaker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half_open"]

EJECTED = "outlier_detection.ejections_active"
MEMBERS = "membership_total"


@dataclass(frozen=True)
class Seen:
    """One service at one Envoy: how many hosts it has, and how many of them are ejected."""

    members: int = 0
    ejected: int = 0

    @property
    def open(self) -> bool:
        """Whether no host is left, so that this Envoy answers 503 by itself."""
        return self.members > 0 and self.ejected >= self.members


class BreakerBoard:
    """The last word of every Envoy on every service."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], Seen] = {}

    def record(self, node: str, gauges: Mapping[str, Mapping[str, float]]) -> None:
        """Take over an Envoy's gauges: by service, then by gauge name (EJECTED, MEMBERS)."""
        for service, values in gauges.items():
            before = self._seen.get((node, service), Seen())
            self._seen[node, service] = Seen(
                members=int(values.get(MEMBERS, before.members)), ejected=int(values.get(EJECTED, before.ejected))
            )

    def forget(self, nodes: Iterable[str]) -> None:
        """Drop Envoys that are no longer connected."""
        gone = frozenset(nodes)
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] not in gone}

    def state(self, service: str) -> State:
        """Open if it is open at any Envoy: a caller may meet that one."""
        return "open" if any(seen.open for (_, name), seen in self._seen.items() if name == service) else "closed"

"""What the limiter and the operator ask of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from ratelimit_service.leases import LeaseRequest
from ratelimit_service.limits import Charge, Reading

Verb = Literal["reset", "grant", "override", "remove"]


class Counters(Protocol):
    """Counts, exactly: all charges of a request are made, or none.

    `decide` raises CountersUnavailable when it cannot tell. 0 hits read and charge nothing.
    """

    async def decide(self, charges: Sequence[Charge]) -> tuple[int, list[Reading]]:
        """The time by the store's clock, and what each counter held before this request."""
        ...

    async def lease(self, charges: Sequence[Charge], lease_request: LeaseRequest) -> tuple[int, int, list[Reading]]:
        """The same, and in between how many more such requests were prepaid: at most what is asked for."""
        ...


class OperableCounters(Counters, Protocol):
    """Counters that an operator may change. All raise CountersUnavailable when the store does not answer."""

    async def operate(self, tag: str, rule_name: str, verb: Verb, *values: int | str) -> int:
        """One change of one counter, as operate.lua has it; returns its number."""
        ...

    async def note(self, tag: str, rule_name: str) -> str:
        """What was written beside the override; empty where there is none."""
        ...

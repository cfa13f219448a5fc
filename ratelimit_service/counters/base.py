"""What the limiter and the operator ask of a store, and what a store reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from ratelimit_service.counters.eviction import Eviction
from ratelimit_service.leases import NO_LEASE, LeaseRequest
from ratelimit_service.limits import Charge, CounterKey, Reading

Verb = Literal["reset", "grant", "override", "remove"]


class CounterReply(NamedTuple):
    """What the counters say to one request."""

    now_us: int
    """The time by the store's clock."""
    readings: list[Reading]
    """Each charge's counter, in the order of the charges, as it was before the request."""
    leased: int = 0
    """How many more such requests were prepaid."""


class Counters(Protocol):
    """Counts, exactly: all charges of a request are made, or none."""

    async def decide(self, charges: Sequence[Charge], lease_request: LeaseRequest = NO_LEASE) -> CounterReply:
        """Decide one request, and prepay at most as many more as the lease request says.

        A charge of 0 hits reads its counter and charges nothing. Raises CountersUnavailable when the store cannot
        decide.
        """
        ...


class OperableCounters(Counters, Protocol):
    """Counters that an operator may change. All methods raise CountersUnavailable when the store is away."""

    async def operate(self, key: CounterKey, verb: Verb, *values: int | str) -> int:
        """Change one counter, as operate.lua describes; returns the script's number."""
        ...

    async def note(self, key: CounterKey) -> str:
        """The note beside the counter's override; empty where there is no override."""
        ...


class LinkMetrics(Protocol):
    """Counts what a connection to the store carries."""

    def batch_sent(self, requests: int) -> None: ...
    def batch_answered(self, seconds: float) -> None: ...


class StoreMetrics(LinkMetrics, Protocol):
    """Counts the store's state and speed."""

    def store_up(self) -> None: ...
    def store_down(self, reason: str) -> None: ...
    def store_error(self, reason: str) -> None: ...
    def reconciled(self, callers: int, left_out: int) -> None: ...
    def eviction(self, found: Eviction | None) -> None: ...

"""What the limiter asks of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..limits import Charge, Reading


class Counters(Protocol):
    """Counts, exactly: all charges of a request are made, or none.

    `decide` raises CountersUnavailable when it cannot tell. A cost of 0 reads and charges nothing.
    """

    async def decide(self, charges: Sequence[Charge]) -> tuple[int, list[Reading]]:
        """The time by the store's clock, and what each counter held before this request."""
        ...

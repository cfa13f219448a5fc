"""How much may be sent, and how much a peer may ask for: windows (RFC 9113, section 5.2) and patience."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service_kit.http2.frames import ENHANCE_YOUR_CALM, LARGEST_WINDOW, ConnectionFailure


def widened(window: int, increment: int) -> int | None:
    """A window after a WINDOW_UPDATE; None where it would pass 2^31-1 (section 6.9.1)."""
    grown = window + increment
    return grown if grown <= LARGEST_WINDOW else None


class ReceiveWindow:
    """What the peer may still send, in bytes. What was received is given back once it is not held any more."""

    __slots__ = ("_give_back_at", "_left", "_owed")

    def __init__(self, size: int) -> None:
        self._left = size
        self._owed = 0
        self._give_back_at = max(1, size // 4)

    def take(self, size: int) -> bool:
        """Count bytes that came. False where the peer had no right to send so many."""
        self._left -= size
        return self._left >= 0

    def release(self, size: int) -> int:
        """Bytes that are not held any more. Returns the increment of a WINDOW_UPDATE that is worth sending, or 0."""
        self._owed += size
        if self._owed < self._give_back_at:
            return 0
        increment, self._owed = self._owed, 0
        self._left += increment
        return increment


@dataclass(frozen=True)
class Allowance:
    """How many frames that do no work a peer may send: `burst` at once, `per_second`, and `per_call` that it ends."""

    burst: int = 20_000
    per_second: int = 1_000
    per_call: int = 8


class Patience:
    """Runs out with a peer that only keeps us busy: resets, pings, settings, empty frames, tiny window updates.

    Each of those is legitimate now and then, so what counts is their number beside time and real calls.
    """

    __slots__ = ("_allowance", "_clock", "_left", "_since", "calls")

    def __init__(self, allowance: Allowance, clock: Callable[[], float]) -> None:
        self._allowance = allowance
        self._clock = clock
        self._left = allowance.burst
        self._since = clock()
        self.calls = 0
        """Calls that ended since they were last reckoned with; whoever ends one counts it here."""

    def spend(self, cost: int) -> None:
        """Count a frame that does no work. Raises ConnectionFailure when there were too many."""
        self._left -= cost
        if self._left < 0:
            self._refill()
            if self._left < 0:
                raise ConnectionFailure(ENHANCE_YOUR_CALM, "too many frames that do no work")

    def _refill(self) -> None:
        now = self._clock()
        gained = int((now - self._since) * self._allowance.per_second) + self.calls * self._allowance.per_call
        self._since, self.calls = now, 0
        self._left = min(self._allowance.burst, self._left + gained)

"""Plain limits: so many hits in a window. What envoyproxy/ratelimit's policies are made of.

Up to a minute the window is an exact sliding log: in any window at most the limit. Longer windows are a bounded sliding
counter of SLOTS slots: still at most the limit in any window, but what was spent counts for up to one slot longer, a
sixtieth of the window.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

from ratelimit_service.limits import SECOND_US, WINDOW_US

SLOTS = 60
MAX_HITS = (1 << 32) - 1


class Unit(Enum):
    """A unit of time and its length. A month has 30 days and a year 365: windows slide, they follow no calendar."""

    SECOND = 1
    MINUTE = 60
    HOUR = 3_600
    DAY = 86_400
    WEEK = 604_800
    MONTH = 2_592_000
    YEAR = 31_536_000

    @property
    def window_us(self) -> int:
        return self.value * SECOND_US


class Spend(NamedTuple):
    """What one descriptor asks of one counter. A shadow counts, and has no effect on the request.

    Of quotas, one that fits is enough: a request is refused when all of its quotas are over limit.
    """

    key: str
    unit: Unit
    limit: int
    hits: int
    is_shadow: bool = False
    is_quota: bool = False


class Reading(NamedTuple):
    """A counter before the spend: what is used, when the oldest of it leaves (0: nothing is used), and the wait."""

    used: int
    leaves_us: int
    wait_us: int
    """0 where the spend fits, `limits.NEVER` where it is more than the limit."""


def slot_us(unit: Unit) -> int:
    """The length of a slot; 0 for a window that is a log."""
    return 0 if unit.window_us <= WINDOW_US else unit.window_us // SLOTS


def passes(spends: Sequence[Spend], readings: Sequence[Reading]) -> bool:
    """None is charged where one does not fit that is neither shadow nor quota, or where no quota fits."""
    pairs = list(zip(spends, readings, strict=True))
    quotas = [spend.is_shadow or not reading.wait_us for spend, reading in pairs if spend.is_quota]
    others = [spend.is_shadow or not reading.wait_us for spend, reading in pairs if not spend.is_quota]
    return all(others) and (any(quotas) or not quotas)


def counter_key(domain: str, entries: Iterable[tuple[str, str]], unit: Unit) -> str:
    """Stands for the counter in the store: 128 bits of a hash over parts that each tell their length."""
    parts = [domain, unit.name, *(text for entry in entries for text in entry)]
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    text = b"".join(b"%d:%b" % (len(part), part) for part in encoded)
    return urlsafe_b64encode(blake2b(text, digest_size=16).digest()).decode().rstrip("=")

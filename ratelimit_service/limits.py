"""The arithmetic of the two rules: pure functions of what was spent, the time, the cost and the numbers.

Times are whole microseconds and the bucket is counted in billionths of a token, so that every value is a whole number
below 2^53: Lua's doubles and Python's integers then give the same answer, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

SECOND_US = 1_000_000
WINDOW_US = 60 * SECOND_US
TOKEN = 1_000_000_000
MAX_NUMBER = 1_000_000
"""The largest `rps`, `rpm` and `burst`: above it the whole numbers would leave the exact range of a double."""
MAX_COST = 2 * MAX_NUMBER
NEVER = -1
"""The wait of a request that costs more than the whole limit."""

BURST, MINUTE = "burst", "minute"


@dataclass(frozen=True, slots=True)
class Limit:
    """The numbers of both rules. `capacity` and `refill` are `burst` and `rps` in the bucket's own units."""

    rps: float
    rpm: int
    burst: int
    capacity: int = field(init=False)
    refill: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "capacity", self.burst * TOKEN)
        # Tokens a second, in billionths of a token a microsecond: a thousandth of a token a second is the finest step.
        object.__setattr__(self, "refill", max(1, round(self.rps * TOKEN / SECOND_US)))


@lru_cache(maxsize=1024)
def limit_of(refill: int, rpm: int, burst: int) -> Limit:
    """The limit that has this refill, as a store gives it back."""
    return Limit(refill * SECOND_US / TOKEN, rpm, burst)


@dataclass(frozen=True, slots=True)
class Rule:
    """A named limit. The name, with the caller, is the counter's identity: numbers may change, what was spent stays."""

    name: str
    limit: Limit
    is_shadow: bool = False
    """It counts and tells what it would refuse; it refuses nothing."""
    shared_tag: str = ""
    """For a rule that all callers share: stands in the caller's place."""


class Charge(NamedTuple):
    """What one descriptor asks: take `cost` from the caller's counter. `tag` stands for the caller.

    A late charge comes after the answer: nothing is left to refuse, so it takes the cost or whatever remains.
    """

    tag: str
    rule: Rule
    cost: int
    is_late: bool = False

    @property
    def can_refuse(self) -> bool:
        return not (self.rule.is_shadow or self.is_late)

    @property
    def key(self) -> str:
        return self.tag + self.rule.name


class Override(NamedTuple):
    """Numbers that an operator gave one counter, in the rule's place until a moment of the store's clock."""

    limit: Limit
    until_us: int


class Reading(NamedTuple):
    """A counter as it was before the charge. A wait is 0 (passes), microseconds until it would pass, or NEVER."""

    used: int
    oldest_us: int
    level: int
    burst_wait_us: int
    minute_wait_us: int
    override: Override | None = None
    """The override in force, if there is one."""

    @property
    def passes(self) -> bool:
        return self.burst_wait_us == 0 and self.minute_wait_us == 0

    def limit(self, rule: Rule) -> Limit:
        """The numbers that held."""
        return rule.limit if self.override is None else self.override.limit


class Verdict(NamedTuple):
    """The answer to a request: the counter that binds it, and in which rule."""

    allowed: bool
    charge: Charge
    kind: str
    remaining: int
    reset_us: int
    """Unix time: when the oldest counted hit leaves the window; on a refusal, when the request would pass."""
    retry_after: int
    """Whole seconds until the request would pass; 0 when it has passed."""
    now_us: int


def drained(level: int, elapsed_us: int, refill: int) -> int:
    """What is left of a spent level after some time."""
    return max(0, level - max(0, elapsed_us) * refill)


def burst_wait_us(level: int, cost: int, capacity: int, refill: int) -> int:
    """How long until the bucket has room for the cost."""
    excess = level + cost * TOKEN - capacity
    if excess <= 0:
        return 0
    if cost * TOKEN > capacity:
        return NEVER
    return -(-excess // refill)


def units_in_the_way(used: int, cost: int, rpm: int) -> int:
    """How many of the oldest counted units must leave the window before the cost fits; NEVER if it never will."""
    excess = used + cost - rpm
    if excess <= 0:
        return 0
    return NEVER if cost > rpm else excess


def whole_seconds(wait_us: int) -> int:
    """A wait as clients are told it: enough, and at most a second too long."""
    if wait_us == NEVER:
        return WINDOW_US // SECOND_US
    return max(1, -(-wait_us // SECOND_US))


def late_units(used: int, cost: int, rpm: int) -> int:
    """What a late charge adds to the window: at most what is left of it."""
    return min(cost, max(0, rpm - used))


def late_level(level: int, cost: int, capacity: int) -> int:
    """Where a late charge takes the bucket: at most to empty."""
    return max(level, min(level + cost * TOKEN, capacity))


def taken(charge: Charge, reading: Reading, passes: bool) -> tuple[int, int]:
    """The units and the level that a charge left behind. `passes` is the request's verdict."""
    limit = reading.limit(charge.rule)
    if charge.is_late:
        return late_units(reading.used, charge.cost, limit.rpm), late_level(reading.level, charge.cost, limit.capacity)
    if passes and reading.passes:
        return charge.cost, reading.level + charge.cost * TOKEN
    return 0, reading.level


def request_passes(charges: Sequence[Charge], readings: Sequence[Reading]) -> bool:
    """Whether nothing that can refuse does."""
    return all(reading.passes or not charge.can_refuse for charge, reading in zip(charges, readings, strict=True))


def judge(now_us: int, charges: Sequence[Charge], readings: Sequence[Reading]) -> Verdict | None:
    """Combine the readings of one request: any refusal refuses all, and the longest wait is the one told.

    None where nothing could have refused.
    """
    passes = request_passes(charges, readings)
    weigh = _allowed if passes else _refused
    verdicts = [
        weigh(now_us, _as_overridden(charge, reading), reading)
        for charge, reading in zip(charges, readings, strict=True)
        if charge.can_refuse
    ]
    if len(verdicts) == 1:
        return verdicts[0]
    if passes:
        return min(verdicts, key=lambda verdict: verdict.remaining, default=None)
    return max(verdicts, key=lambda verdict: verdict.reset_us)


def shadow_refusals(now_us: int, charges: Sequence[Charge], readings: Sequence[Reading]) -> list[Verdict]:
    """What the shadow rules would have refused."""
    return [
        _refused(now_us, _as_overridden(charge, reading), reading)
        for charge, reading in zip(charges, readings, strict=True)
        if charge.rule.is_shadow and not reading.passes
    ]


def _as_overridden(charge: Charge, reading: Reading) -> Charge:
    if reading.override is None:
        return charge
    return charge._replace(rule=replace(charge.rule, limit=reading.override.limit))


def _allowed(now_us: int, charge: Charge, reading: Reading) -> Verdict:
    remaining = max(0, charge.rule.limit.rpm - reading.used - charge.cost)
    reset_us = (reading.oldest_us or now_us) + WINDOW_US
    return Verdict(True, charge, MINUTE, remaining, reset_us, 0, now_us)


def _refused(now_us: int, charge: Charge, reading: Reading) -> Verdict:
    burst, minute = _comparable(reading.burst_wait_us), _comparable(reading.minute_wait_us)
    kind = MINUTE if minute > burst else BURST
    wait_us = max(burst, minute)
    return Verdict(False, charge, kind, 0, now_us + wait_us, whole_seconds(wait_us), now_us)


def _comparable(wait_us: int) -> int:
    return WINDOW_US if wait_us == NEVER else wait_us

"""The arithmetic of the two rules: pure functions of what was spent, the time, the hits and the limit.

Times are whole microseconds and the bucket is counted in billionths of a token, so that every value is a whole number
below 2^53: Lua's doubles and Python's integers then always give the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple

SECOND_US = 1_000_000
WINDOW_US = 60 * SECOND_US
TOKEN = 1_000_000_000
MAX_NUMBER = 1_000_000
"""The largest `rps`, `rpm` and `burst`: above it the whole numbers would leave the exact range of a double."""
MAX_CHARGE = 2 * MAX_NUMBER
NEVER = -1
"""The wait of a request that costs more than the whole limit."""

Charged = Literal["caller", "address", "both"]
BURST, MINUTE = "burst", "minute"


@dataclass(frozen=True, slots=True)
class Limit:
    """The numbers of both rules. `capacity` and `refill` are `burst` and `rps` in the bucket's own unit."""

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
    """It counts, and reports what would have been over limit. It has no effect on the request."""
    shared_tag: str = ""
    """For a rule that all callers share: stands in the caller's place."""
    by: Charged = "caller"
    """Who is charged."""


class CounterKey(NamedTuple):
    """A counter's identity: the caller's tag and the rule's name. It is never one text that somebody has to cut."""

    tag: str
    rule_name: str


class Charge(NamedTuple):
    """What one descriptor asks: take `hits` from the caller's counter. `tag` stands for the caller.

    A post-charge comes after the response: nothing can be over limit any more, so it takes the hits or what remains.
    """

    tag: str
    rule: Rule
    hits: int
    is_post_charge: bool = False

    @property
    def is_enforced(self) -> bool:
        """Whether the request depends on it."""
        return not (self.rule.is_shadow or self.is_post_charge)

    @property
    def asked(self) -> int:
        """How much room there must be. What costs nothing passes only where one hit would."""
        return self.hits or 1

    @property
    def key(self) -> CounterKey:
        return CounterKey(self.tag, self.rule.name)


class Override(NamedTuple):
    """Numbers that an operator gave one counter, in the rule's place until a moment of the store's clock. An `rpm` of 0
    is a block: nothing passes.
    """

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
    """The decision on a request: the counter that binds it, and in which rule."""

    allowed: bool
    charge: Charge
    kind: str
    remaining: int
    reset_us: int
    """Unix time: when the oldest counted hit leaves the window; over limit, when the request would pass."""
    retry_after: int
    """Whole seconds until the request would pass; 0 when it has passed."""
    now_us: int


def drained(level: int, elapsed_us: int, refill: int) -> int:
    """What is left of a spent level after some time."""
    return max(0, level - max(0, elapsed_us) * refill)


def burst_wait_us(level: int, hits: int, capacity: int, refill: int) -> int:
    """How long until the bucket has room for the hits."""
    excess = level + hits * TOKEN - capacity
    if excess <= 0:
        return 0
    if hits * TOKEN > capacity:
        return NEVER
    return -(-excess // refill)


def hits_in_the_way(used: int, hits: int, rpm: int) -> int:
    """How many of the oldest counted hits must leave the window before the new hits fit; NEVER if it never will."""
    excess = used + hits - rpm
    if excess <= 0:
        return 0
    return NEVER if hits > rpm else excess


def whole_seconds(wait_us: int) -> int:
    """A wait as clients are told it: enough, and at most a second too long."""
    if wait_us == NEVER:
        return WINDOW_US // SECOND_US
    return max(1, -(-wait_us // SECOND_US))


def post_charge_hits(used: int, hits: int, rpm: int) -> int:
    """What a post-charge adds to the window: at most what is left of it."""
    return min(hits, max(0, rpm - used))


def post_charge_level(level: int, hits: int, capacity: int) -> int:
    """Where a post-charge takes the bucket: at most to empty."""
    return max(level, min(level + hits * TOKEN, capacity))


def charged(charge: Charge, reading: Reading, passes: bool) -> tuple[int, int]:
    """The hits and the level that a charge left behind. `passes` is the request's verdict."""
    limit = reading.limit(charge.rule)
    if charge.is_post_charge:
        level = post_charge_level(reading.level, charge.hits, limit.capacity)
        return post_charge_hits(reading.used, charge.hits, limit.rpm), level
    if passes and reading.passes:
        return charge.hits, reading.level + charge.hits * TOKEN
    return 0, reading.level


def request_passes(charges: Sequence[Charge], readings: Sequence[Reading]) -> bool:
    """Whether every enforced rule lets the request pass."""
    return all(reading.passes or not charge.is_enforced for charge, reading in zip(charges, readings, strict=True))


def judge(now_us: int, charges: Sequence[Charge], readings: Sequence[Reading]) -> Verdict | None:
    """Combine the readings of one request: any rule that is over limit decides, and the longest wait is told.

    None where no rule is enforced.
    """
    passes = request_passes(charges, readings)
    weigh = _allowed if passes else _over_limit
    verdicts = [
        weigh(now_us, _as_overridden(charge, reading), reading)
        for charge, reading in zip(charges, readings, strict=True)
        if charge.is_enforced
    ]
    if len(verdicts) == 1:
        return verdicts[0]
    if passes:
        return min(verdicts, key=lambda verdict: verdict.remaining, default=None)
    return max(verdicts, key=lambda verdict: verdict.reset_us)


def shadows_over_limit(now_us: int, charges: Sequence[Charge], readings: Sequence[Reading]) -> list[Verdict]:
    """The shadow rules that would have been over limit."""
    return [
        _over_limit(now_us, _as_overridden(charge, reading), reading)
        for charge, reading in zip(charges, readings, strict=True)
        if charge.rule.is_shadow and not reading.passes
    ]


def _as_overridden(charge: Charge, reading: Reading) -> Charge:
    if reading.override is None:
        return charge
    return charge._replace(rule=replace(charge.rule, limit=reading.override.limit))


def _allowed(now_us: int, charge: Charge, reading: Reading) -> Verdict:
    remaining = max(0, charge.rule.limit.rpm - reading.used - charge.hits)
    reset_us = (reading.oldest_us or now_us) + WINDOW_US
    return Verdict(True, charge, MINUTE, remaining, reset_us, 0, now_us)


def _over_limit(now_us: int, charge: Charge, reading: Reading) -> Verdict:
    burst, minute = _comparable(reading.burst_wait_us), _comparable(reading.minute_wait_us)
    if reading.override is not None and not reading.override.limit.rpm:
        burst, minute = 0, max(1, reading.override.until_us - now_us)
    kind = MINUTE if minute > burst else BURST
    wait_us = max(burst, minute)
    return Verdict(False, charge, kind, 0, now_us + wait_us, whole_seconds(wait_us), now_us)


def _comparable(wait_us: int) -> int:
    return WINDOW_US if wait_us == NEVER else wait_us

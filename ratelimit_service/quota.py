"""Quotas: how a caller's limit is split over the Envoys that spend it, before they spend it.

An Envoy reports every five seconds what passed. In between it enforces the token bucket that it was last given (RLQS,
envoy.service.rate_limit_quota.v3). Whatever it could let pass until its next report is reserved here. So two sums hold:

- The shares of a limit's `burst` and `rps` never add up to more than the limit.
- What was reported in the last minute and what is reserved never add up to more than `rpm`. As the minute's budget
  runs out, the next bucket is smaller, and at last there is none.

Neither sum covers what is spent without an assignment: a bucket's first requests, until the reply to its first report.
They are counted when they are reported. Reported hits count from the moment of the report, which is up to five seconds
late. So they leave the window late, never early. All numbers are whole; time is an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ratelimit_service.limits import SECOND_US, WINDOW_US, CounterKey, Limit

HORIZON_US = 6 * SECOND_US
"""How long an assignment must do: Envoy 1.40 reports every 5 s, whatever it is told; and a second more."""
TTL_SECONDS = 20
"""An assignment that is not renewed ends: then Envoy's local fallback limit holds."""
RENEW_US = 9 * SECOND_US
FILL_SECONDS = 60
"""Buckets are filled by tokens a minute: the finest step that stays a whole number for every limit."""
MAX_WEIGHT = 8
IDLE_REPORTS = 2
"""After so many reports without a request, an Envoy's share goes to those that have some."""

Stream = int
Bucket = tuple[tuple[str, str], ...]
"""A bucket's id as Envoy has it, its entries sorted by key."""


class Share(NamedTuple):
    """A token bucket. Without tokens it lets nothing pass."""

    tokens: int
    per_minute: int

    def worst(self, elapsed_us: int) -> int:
        """The most that can pass in this time."""
        if not self.tokens:
            return 0
        return self.tokens + -(-self.per_minute * elapsed_us // WINDOW_US)


NOTHING = Share(0, 0)


class Assignment(NamedTuple):
    """What one Envoy is told of one bucket. No share: it is to forget the bucket."""

    stream: Stream
    bucket: Bucket
    share: Share | None


class Budget(NamedTuple):
    """What a bucket draws on: the counter's identity and the numbers that hold for this bucket."""

    counter: CounterKey
    limit: Limit


FindBudget = Callable[[Bucket], Budget | None]


def split(total: int, weights: Sequence[int]) -> list[int]:
    """The total in whole parts by weight: their sum is the total, each within one of its due. Weights are above 0."""
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    rest = total - sum(parts)
    most_cut = sorted(range(len(weights)), key=lambda index: (-(total * weights[index] % whole), index))
    for index in most_cut[:rest]:
        parts[index] += 1
    return parts


def pace(tokens: int, per_minute: int, budget: int) -> Share:
    """The largest share, up to these numbers, that cannot let more than the budget pass until the next report."""
    full = Share(tokens, per_minute)
    if not tokens or not per_minute or budget < 2:
        return NOTHING
    if full.worst(HORIZON_US) <= budget:
        return full
    at_once = min(tokens, budget // 2)
    return Share(at_once, max(1, min(per_minute, (budget - at_once) * WINDOW_US // HORIZON_US)))


@dataclass(slots=True)
class Holder:
    """One Envoy's bucket, and what it may spend."""

    limit: Limit
    since_us: int
    """When the share began, or the last report if that was later."""
    spent: int = 0
    """The most that earlier shares let pass since the last report."""
    reserved: int = 0
    """The most that will have passed by the next report."""
    weight: int = MAX_WEIGHT
    share: Share = NOTHING
    told_us: int | None = None
    demand: int = 0
    reports: int = 0
    idle_reports: int = 0


@dataclass(slots=True)
class Counter:
    """One caller's use of one limit, by all Envoys together."""

    holders: dict[tuple[Stream, Bucket], Holder] = field(default_factory=dict)
    window: deque[list[int]] = field(default_factory=deque)
    """Pairs of a second's start and the hits reported in it, oldest first."""
    used: int = 0

    def add(self, now_us: int, hits: int) -> None:
        """Count reported hits."""
        if hits and self.window and now_us - self.window[-1][0] < SECOND_US:
            # The later end of the pair's second: nothing leaves the window early.
            self.window[-1][1] += hits
        elif hits:
            self.window.append([now_us, hits])
        self.used += hits

    def drop_old(self, now_us: int) -> None:
        """Forget what a whole minute has passed since."""
        while self.window and now_us - self.window[0][0] >= WINDOW_US + SECOND_US:
            self.used -= self.window.popleft()[1]


class Quotas:
    """All counters. Each method returns what Envoys must now be told."""

    def __init__(self) -> None:
        self._find: FindBudget = lambda bucket: None
        self._counters: dict[CounterKey, Counter] = {}
        self._by_stream: dict[Stream, dict[Bucket, CounterKey]] = {}

    def __len__(self) -> int:
        return sum(len(buckets) for buckets in self._by_stream.values())

    def adopt(self, find: FindBudget, now_us: int) -> list[Assignment]:
        """New numbers: what was spent stays spent, and every changed share is told."""
        self._find = find
        moved = [
            (stream, bucket, key)
            for stream, buckets in self._by_stream.items()
            for bucket, key in buckets.items()
            if not self._same_counter(stream, bucket, key)
        ]
        for stream, bucket, key in moved:
            self._remove(stream, bucket, key)
        told = [Assignment(stream, bucket, None) for stream, bucket, _ in moved]
        return told + [each for counter in self._counters.values() for each in _share_out(counter, now_us)]

    def _same_counter(self, stream: Stream, bucket: Bucket, key: CounterKey) -> bool:
        """Whether the bucket draws on the counter that it drew on; then it has the counter's new numbers."""
        budget = self._find(bucket)
        if budget is None or budget.counter != key:
            return False
        self._counters[key].holders[stream, bucket].limit = budget.limit
        return True

    def report(self, stream: Stream, bucket: Bucket, allowed: int, denied: int, now_us: int) -> list[Assignment]:
        """What an Envoy says of a bucket since it last did."""
        budget = self._find(bucket)
        if budget is None:
            return []
        counter = self._counters.setdefault(budget.counter, Counter())
        counter.drop_old(now_us)
        counter.add(now_us, allowed)
        holder = counter.holders.get((stream, bucket))
        if holder is None:
            counter.holders[stream, bucket] = Holder(budget.limit, now_us)
            self._by_stream.setdefault(stream, {})[bucket] = budget.counter
            return _share_out(counter, now_us)
        _note(holder, allowed + denied, now_us)
        if self._is_idle(counter, holder):
            self._remove(stream, bucket, budget.counter)
            return [Assignment(stream, bucket, None), *_share_out(counter, now_us)]
        if _weigh_again(counter):
            return _share_out(counter, now_us)
        return _share_out(counter, now_us, only=(stream, bucket))

    def leave(self, stream: Stream, now_us: int) -> list[Assignment]:
        """An Envoy's stream has ended. What it may have spent since its last report counts as spent."""
        told: list[Assignment] = []
        for bucket, key in self._by_stream.pop(stream, {}).items():
            counter = self._counters[key]
            holder = counter.holders.pop((stream, bucket))
            counter.add(now_us, _spent_by(holder, now_us))
            if counter.holders:
                told += _share_out(counter, now_us)
        return told

    def forget_old(self, now_us: int) -> None:
        """Let go of counters that no Envoy holds and that nothing was spent on for a minute."""
        for key, counter in list(self._counters.items()):
            counter.drop_old(now_us)
            if not counter.holders and not counter.window:
                del self._counters[key]

    def _is_idle(self, counter: Counter, holder: Holder) -> bool:
        """Beside others, soon; alone, once its bucket is full again and the minute has passed."""
        if len(counter.holders) > 1:
            return holder.idle_reports >= IDLE_REPORTS
        refill_us = holder.limit.capacity // holder.limit.refill
        return holder.idle_reports * 5 * SECOND_US > refill_us and not counter.window

    def _remove(self, stream: Stream, bucket: Bucket, key: CounterKey) -> None:
        del self._by_stream[stream][bucket]
        del self._counters[key].holders[stream, bucket]


def _note(holder: Holder, demand: int, now_us: int) -> None:
    """Take in a report: demand rises at once and falls by half a report."""
    holder.since_us, holder.spent, holder.reserved = now_us, 0, holder.share.worst(HORIZON_US)
    holder.reports += 1
    holder.idle_reports = 0 if demand else holder.idle_reports + 1
    holder.demand = max(demand, holder.demand // 2)


def _weigh_again(counter: Counter) -> bool:
    """Weigh Envoys by demand, if some part would change by more than an eighth of the whole. Newcomers count fully."""
    holders = list(counter.holders.values())
    if len(holders) < 2:
        return False
    most = max([1, *(holder.demand for holder in holders if holder.reports)])
    weights = [
        1 + (MAX_WEIGHT - 1) * min(holder.demand, most) // most if holder.reports else MAX_WEIGHT for holder in holders
    ]
    before, after = sum(holder.weight for holder in holders), sum(weights)
    if all(
        8 * abs(weight * before - holder.weight * after) <= before * after
        for holder, weight in zip(holders, weights, strict=True)
    ):
        return False
    for holder, weight in zip(holders, weights, strict=True):
        holder.weight = weight
    return True


def _spent_by(holder: Holder, now_us: int) -> int:
    """The most that an Envoy can have let pass since its last report."""
    elapsed_us = now_us - holder.since_us
    return holder.spent + (holder.share.worst(elapsed_us) if elapsed_us > 0 else 0)


def _share_out(counter: Counter, now_us: int, only: tuple[Stream, Bucket] | None = None) -> list[Assignment]:
    """Give each holder its part: those whose part shrinks first, so that room is made before it is given."""
    counter.drop_old(now_us)
    holders = counter.holders
    weights = [holder.weight for holder in holders.values()]
    taken = counter.used + sum(_spent_by(holder, now_us) for holder in holders.values())
    parts = [
        (_part(holder.limit, weights, index, taken), who, holder)
        for index, (who, holder) in enumerate(holders.items())
        if only is None or who == only
    ]
    parts.sort(key=lambda each: each[0].share.tokens - each[2].share.tokens)
    return [Assignment(*who, holder.share) for part, who, holder in parts if _give(part, holder, counter, now_us)]


class _Part(NamedTuple):
    """What is a holder's own: of the numbers, and of what is left of the minute."""

    share: Share
    budget: int


def _part(limit: Limit, weights: Sequence[int], index: int, taken: int) -> _Part:
    per_minute = max(1, int(limit.rps * FILL_SECONDS))
    share = Share(split(limit.burst, weights)[index], split(per_minute, weights)[index])
    return _Part(share, split(max(0, limit.rpm - taken), weights)[index])


def _give(part: _Part, holder: Holder, counter: Counter, now_us: int) -> bool:
    """Set the holder's share; returns whether its Envoy has to be told."""
    others = sum(other.reserved for other in counter.holders.values()) - holder.reserved
    room = holder.limit.rpm - counter.used - others
    kept = holder.spent + part.share.worst(HORIZON_US)
    if part.share == holder.share and kept <= room:
        holder.reserved = kept
    else:
        spent = _spent_by(holder, now_us)
        share = pace(*part.share, budget=min(part.budget, room - spent))
        holder.reserved = spent + share.worst(HORIZON_US)
        if share != holder.share or holder.told_us is None:
            holder.share, holder.spent, holder.since_us = share, spent, now_us
            holder.told_us = None
    if holder.told_us is not None and now_us - holder.told_us < RENEW_US:
        return False
    holder.told_us = now_us
    return True


def in_messages(told: Iterable[Assignment], size: int) -> list[list[Assignment]]:
    """The assignments in lists of at most this many; of two for one bucket the later one holds."""
    latest = list({(each.stream, each.bucket): each for each in told}.values())
    return [latest[start : start + size] for start in range(0, len(latest), size)]

"""Counters in this process: the exact model, and what a replica enforces alone while the store is away."""

from __future__ import annotations

import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ratelimit_service.counters.base import Verb
from ratelimit_service.leases import Wish
from ratelimit_service.limits import (
    NEVER,
    TOKEN,
    WINDOW_US,
    Charge,
    Limit,
    Override,
    Reading,
    burst_wait_us,
    drained,
    late_units,
    limit_of,
    request_passes,
    taken,
    units_in_the_way,
)

_STRIDE = 4
_COMPACT_AT = 64 * _STRIDE


def wall_clock_us() -> int:
    """Unix time in microseconds."""
    return time.time_ns() // 1000


class _Live(NamedTuple):
    head: int
    known: int
    mine: int
    own: int
    oldest_us: int


class Tally:
    """What one caller spent under one rule.

    `level` is the bucket (how much is out, at `stamp_us`); the log holds one entry per charge: its time, the units that
    the store knows of, those among them that passed here, and the units that passed here without the store (`own`).
    """

    __slots__ = (
        "_entries",
        "_head",
        "known",
        "level",
        "mine",
        "note",
        "override",
        "own",
        "refill",
        "seen_us",
        "stamp_us",
    )

    def __init__(self) -> None:
        self.level = 0
        self.stamp_us = 0
        self.refill = 1
        self.seen_us = 0
        """The store's time of the last charge that it confirmed: whether it lost something shows by this."""
        self.known = 0
        self.mine = 0
        self.own = 0
        self.override: Override | None = None
        self.note = ""
        self._entries = array("q")
        self._head = 0

    def override_at(self, now_us: int) -> Override | None:
        """The override, while it is in force."""
        return self.override if self.override is not None and self.override.until_us > now_us else None

    def read(self, now_us: int, charge: Charge) -> Reading:
        """What both rules say to this cost now. Takes nothing, and forgets nothing: a clock may go back."""
        override = self.override_at(now_us)
        cost, limit = charge.cost, charge.rule.limit if override is None else override.limit
        live = self._live(now_us)
        level = drained(self.level, now_us - self.stamp_us, limit.refill)
        if charge.is_late:
            return Reading(live.known, live.oldest_us, level, 0, 0, override)
        in_the_way = units_in_the_way(live.known, cost, limit.rpm)
        return Reading(
            live.known,
            live.oldest_us,
            level,
            burst_wait_us(level, cost, limit.capacity, limit.refill),
            self._wait_us(live, in_the_way, now_us, lambda known, mine, own: known),
            override,
        )

    def read_share(self, now_us: int, charge: Charge, replicas: int) -> Reading:
        """The same without the store, for one of several replicas.

        Every replica is taken to do what this one does: what passes here counts once for each of them. Two bounds hold:
        what the store last knew plus everyone's units since, and everyone's units in the whole window. The limit may be
        passed by one unit for each other replica, since shares are rounded up.
        """
        override = self.override_at(now_us)
        limit = charge.rule.limit if override is None else override.limit
        live = self._live(now_us)
        cost, rpm = charge.cost * replicas, limit.rpm + replicas - 1
        level = drained(self.level, now_us - self.stamp_us, limit.refill)
        since = live.known + replicas * live.own
        in_all = replicas * (live.mine + live.own)
        if charge.is_late:
            return Reading(max(since, in_all), live.oldest_us, level, 0, 0, override)
        waits_us = (
            self._wait_us(
                live, units_in_the_way(since, cost, rpm), now_us, lambda known, mine, own: known + replicas * own
            ),
            self._wait_us(
                live, units_in_the_way(in_all, cost, rpm), now_us, lambda known, mine, own: replicas * (mine + own)
            ),
        )
        return Reading(
            max(since, in_all),
            live.oldest_us,
            level,
            burst_wait_us(level, cost, limit.capacity + (replicas - 1) * TOKEN, limit.refill),
            NEVER if NEVER in waits_us else max(waits_us),
            override,
        )

    def charge(self, now_us: int, units: int, level: int, limit: Limit) -> None:
        """Take what was decided, as the store does."""
        self._trim(now_us)
        self._fill(now_us, level, limit)
        if units:
            self._add(now_us, units, units, 0)

    def charge_share(self, now_us: int, charge: Charge, reading: Reading, replicas: int) -> None:
        """Take the cost without the store, as if every replica had done the same."""
        limit, units, level = reading.limit(charge.rule), charge.cost, reading.level + charge.cost * replicas * TOKEN
        if charge.is_late:
            units = late_units(reading.used, charge.cost * replicas, limit.rpm) // replicas
            level = max(reading.level, min(level, limit.capacity))
        self._trim(now_us)
        self._fill(now_us, level, limit)
        if units:
            self._add(now_us, 0, 0, units)

    def reset(self, now_us: int) -> int:
        """Nothing is spent; answers the units that were."""
        used = self._live(now_us).known
        self._entries, self._head = array("q"), 0
        self.level, self.stamp_us = 0, now_us
        self.known = self.mine = self.own = 0
        return used

    def set_override(self, now_us: int, override: Override, note: str) -> int:
        """Put an override in force; answers until when, or 0 for one that has ended."""
        if override.until_us <= now_us:
            return 0
        self.override, self.note = override, note
        return override.until_us

    def remove_override(self, now_us: int) -> int:
        """Back to the rule's own numbers; answers whether there was an override."""
        held, self.override, self.note = self.override_at(now_us), None, ""
        return int(held is not None)

    def grant(self, now_us: int, units: int) -> int:
        """Give back the newest units; answers how many there were."""
        given = min(units, self._live(now_us).known)
        self.level = max(0, self.level - units * TOKEN)  # what drains since the stamp comes off either way
        self._drop_newest(given)
        return given

    def observe(self, now_us: int, used: int, level: int, cost: int, limit: Limit) -> None:
        """Learn what the store holds, this replica's `cost` included.

        What others spent counts as spent now; what has left the store goes.
        """
        self._trim(now_us)
        self.level, self.stamp_us, self.refill = level, now_us, limit.refill
        news = used - self.known
        if news > 0:
            self._add(now_us, news, min(cost, news), 0)
        elif news < 0:
            self._drop_oldest(-news)

    def entries(self) -> Iterator[tuple[int, int, int]]:
        """Time, known and own units of each entry, oldest first."""
        flat = self._entries
        for at in range(self._head, len(flat), _STRIDE):
            yield flat[at], flat[at + 1], flat[at + 3]

    def forget_own(self) -> None:
        """The store has been told: from here it knows of these units."""
        flat = self._entries
        for at in range(self._head, len(flat), _STRIDE):
            flat[at + 1] += flat[at + 3]
            flat[at + 2] += flat[at + 3]
            flat[at + 3] = 0
        self.known, self.mine, self.own = self.known + self.own, self.mine + self.own, 0

    def is_idle(self, now_us: int, quiet_us: int = WINDOW_US) -> bool:
        """Whether nothing that was spent counts any more, and has not for some time."""
        newest_us = self._entries[-_STRIDE] if self._entries else 0
        if self.override is not None:
            newest_us = max(newest_us, self.override.until_us)
        return newest_us <= now_us - quiet_us and drained(self.level, now_us - self.stamp_us, self.refill) == 0

    def _fill(self, now_us: int, level: int, limit: Limit) -> None:
        self.level, self.stamp_us, self.refill = level, now_us, limit.refill

    def _add(self, now_us: int, known: int, mine: int, own: int) -> None:
        self._entries.extend((now_us, known, mine, own))
        self.known += known
        self.mine += mine
        self.own += own

    def _live(self, now_us: int) -> _Live:
        """The part of the log that is inside the window."""
        if self.stamp_us > now_us:
            self._settle_clock(now_us)
        flat, head, size, cutoff_us = self._entries, self._head, len(self._entries), now_us - WINDOW_US
        known, mine, own = self.known, self.mine, self.own
        while head < size and flat[head] <= cutoff_us:
            known -= flat[head + 1]
            mine -= flat[head + 2]
            own -= flat[head + 3]
            head += _STRIDE
        return _Live(head, known, mine, own, flat[head] if head < size else 0)

    def _trim(self, now_us: int) -> None:
        """Forget what has left the window."""
        head, self.known, self.mine, self.own, _ = self._live(now_us)
        if head == len(self._entries) or (head >= _COMPACT_AT and head * 2 >= len(self._entries)):
            del self._entries[:head]
            head = 0
        self._head = head

    def _settle_clock(self, now_us: int) -> None:
        """A clock that went back must not lock a caller out: what lies in the future happened now."""
        self.stamp_us = now_us
        flat = self._entries
        for at in range(self._head, len(flat), _STRIDE):
            flat[at] = min(flat[at], now_us)

    def _drop_oldest(self, units: int) -> None:
        flat = self._entries
        for at in range(self._head, len(flat), _STRIDE):
            gone = min(units, flat[at + 1])
            flat[at + 1] -= gone
            self.known -= gone
            surplus = max(0, flat[at + 2] - flat[at + 1])
            flat[at + 2] -= surplus
            self.mine -= surplus
            units -= gone
            if not units:
                return

    def _drop_newest(self, units: int) -> None:
        flat = self._entries
        while units:
            gone = min(units, flat[-_STRIDE + 1])
            flat[-_STRIDE + 1] -= gone
            surplus = max(0, flat[-_STRIDE + 2] - flat[-_STRIDE + 1])
            flat[-_STRIDE + 2] -= surplus
            self.known -= gone
            self.mine -= surplus
            units -= gone
            if not flat[-_STRIDE + 1]:
                del flat[-_STRIDE:]

    def _wait_us(self, live: _Live, in_the_way: int, now_us: int, weigh: Callable[[int, int, int], int]) -> int:
        """Until that many of the oldest units have left the window."""
        if in_the_way <= 0:
            return in_the_way
        flat = self._entries
        for at in range(live.head, len(flat), _STRIDE):
            in_the_way -= weigh(flat[at + 1], flat[at + 2], flat[at + 3])
            if in_the_way <= 0:
                return flat[at] + WINDOW_US - now_us
        return NEVER  # not reached: there are never more units in the way than are counted


class MemoryCounters:
    """Counters for one process. Holds at most `max_tallies`; the least recently used go first.

    Alone (`REDIS_URL=none`) they are exact. Beside a store they follow what it says, so that a replica that loses the
    store goes on from what was spent, and `decide_share` then enforces this replica's share.
    """

    def __init__(
        self, max_tallies: int = 200_000, clock: Callable[[], int] = wall_clock_us, quiet_us: int = WINDOW_US
    ) -> None:
        self._tallies: OrderedDict[str, Tally] = OrderedDict()
        self._max_tallies = max_tallies
        self._clock = clock
        self._quiet_us = quiet_us

    def __len__(self) -> int:
        return len(self._tallies)

    async def lease(self, charges: Sequence[Charge], wish: Wish) -> tuple[int, int, list[Reading]]:
        """Nothing is charged ahead: counters here are asked in no time."""
        now_us, readings = await self.decide(charges)
        return now_us, 0, readings

    async def decide(self, charges: Sequence[Charge]) -> tuple[int, list[Reading]]:
        """Decide exactly; this process is the only one that counts."""
        now_us = self._clock()
        held = self._held(charges, now_us)
        readings = [tally.read(now_us, charge) for tally, charge in held]
        passes = request_passes(charges, readings)
        for (tally, charge), reading in zip(held, readings, strict=True):
            units, level = taken(charge, reading, passes)
            if units or level > reading.level:
                tally.charge(now_us, units, level, reading.limit(charge.rule))
        return now_us, readings

    def decide_share(self, charges: Sequence[Charge], replicas: int) -> tuple[int, list[Reading]]:
        """Decide alone, for this replica's share of what the store last said was left."""
        now_us = self._clock()
        held = self._held(charges, now_us)
        readings = [tally.read_share(now_us, charge, replicas) for tally, charge in held]
        passes = request_passes(charges, readings)
        for (tally, charge), reading in zip(held, readings, strict=True):
            if charge.cost and (charge.is_late or (passes and reading.passes)):
                tally.charge_share(now_us, charge, reading, replicas)
        return now_us, readings

    def observe(self, charges: Sequence[Charge], store_now_us: int, readings: Sequence[Reading]) -> None:
        """Follow an answer of the store."""
        now_us = self._clock()
        passes = request_passes(charges, readings)
        for (tally, charge), reading in zip(self._held(charges, now_us), readings, strict=True):
            units, level = taken(charge, reading, passes)
            tally.override = reading.override
            tally.observe(now_us, reading.used + units, level, units, reading.limit(charge.rule))
            if units:
                tally.seen_us = store_now_us

    async def operate(self, tag: str, rule_name: str, verb: Verb, *values: int | str) -> int:
        """An operator's hand on one counter; see operate.lua."""
        now_us = self._clock()
        self._make_room(now_us, 1)
        tally = self._tally(tag + rule_name)
        match verb, values:
            case "reset", ():
                return tally.reset(now_us)
            case "grant", (int(units),):
                return tally.grant(now_us, units)
            case "override", (int(until_us), int(lifetime_us), int(burst), int(refill), int(rpm), str(note)):
                override = Override(limit_of(refill, rpm, burst), until_us or now_us + lifetime_us)
                return tally.set_override(now_us, override, note)
            case "remove", ():
                return tally.remove_override(now_us)
        raise ValueError(f"no operation {verb!r} with {len(values)} values")

    async def note(self, tag: str, rule_name: str) -> str:
        """What the operator wrote beside the override."""
        tally = self._tallies.get(tag + rule_name)
        return "" if tally is None else tally.note

    def active(self) -> Iterator[tuple[str, Tally]]:
        """What counts now, the most recently used first."""
        now_us = self._clock()
        for key, tally in list(reversed(self._tallies.items())):
            if not tally.is_idle(now_us):
                yield key, tally

    def _held(self, charges: Sequence[Charge], now_us: int) -> list[tuple[Tally, Charge]]:
        self._make_room(now_us, len(charges))
        return [(self._tally(charge.key), charge) for charge in charges]

    def _tally(self, key: str) -> Tally:
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally()
        else:
            self._tallies.move_to_end(key)
        return tally

    def _make_room(self, now_us: int, newcomers: int) -> None:
        """Drop of the least recently used those that count no more, a few at a time, and more only when full."""
        tallies = self._tallies
        for _ in range(2 * newcomers):
            key = next(iter(tallies), None)
            if key is None or (
                len(tallies) + newcomers <= self._max_tallies and not tallies[key].is_idle(now_us, self._quiet_us)
            ):
                return
            del tallies[key]

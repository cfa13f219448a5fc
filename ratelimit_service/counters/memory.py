"""Counters in this process: the exact model, and what a replica enforces alone while the store is away."""

from __future__ import annotations

import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ratelimit_service.counters.base import Verb
from ratelimit_service.leases import LeaseRequest
from ratelimit_service.limits import (
    NEVER,
    TOKEN,
    WINDOW_US,
    Charge,
    Limit,
    Override,
    Reading,
    burst_wait_us,
    charged,
    drained,
    hits_in_the_way,
    limit_of,
    post_charge_hits,
    request_passes,
)

TIME, CONFIRMED, CONFIRMED_HERE, UNCONFIRMED = range(4)
"""Where the numbers of an entry stand in the flat log."""
_STRIDE = 4
_COMPACT_AT = 64 * _STRIDE


def wall_clock_us() -> int:
    """Unix time in microseconds."""
    return time.time_ns() // 1000


class _Live(NamedTuple):
    head: int
    confirmed: int
    confirmed_here: int
    unconfirmed: int
    oldest_us: int


class Tally:
    """What one caller spent under one rule.

    `level` is the bucket: how much is out, at `stamp_us`. The log holds an entry for each charge: its time, the hits
    that the store confirmed, those of them that passed here, and the hits that passed here without the store.
    """

    __slots__ = (
        "_entries",
        "_head",
        "confirmed",
        "confirmed_here",
        "level",
        "note",
        "override",
        "refill",
        "seen_us",
        "stamp_us",
        "unconfirmed",
    )

    def __init__(self) -> None:
        self.level = 0
        self.stamp_us = 0
        self.refill = 1
        self.seen_us = 0
        """The store's time of the last charge that it confirmed: whether it lost something shows by this."""
        self.confirmed = 0
        self.confirmed_here = 0
        self.unconfirmed = 0
        self.override: Override | None = None
        self.note = ""
        self._entries = array("q")
        self._head = 0

    def override_at(self, now_us: int) -> Override | None:
        """The override, while it is in force."""
        return self.override if self.override is not None and self.override.until_us > now_us else None

    def read(self, now_us: int, charge: Charge) -> Reading:
        """What both rules say to these hits now. Takes nothing, and forgets nothing: a clock may go back."""
        override = self.override_at(now_us)
        hits, limit = charge.hits, charge.rule.limit if override is None else override.limit
        live = self._live(now_us)
        level = drained(self.level, now_us - self.stamp_us, limit.refill)
        if charge.is_post_charge:
            return Reading(live.confirmed, live.oldest_us, level, 0, 0, override)
        in_the_way = hits_in_the_way(live.confirmed, hits, limit.rpm)
        return Reading(
            live.confirmed,
            live.oldest_us,
            level,
            burst_wait_us(level, hits, limit.capacity, limit.refill),
            self._wait_us(live, in_the_way, now_us, lambda confirmed, _here, _unconfirmed: confirmed),
            override,
        )

    def read_share(self, now_us: int, charge: Charge, replicas: int) -> Reading:
        """The same without the store, for one of several replicas.

        Every replica is taken to do what this one does: what passes here counts once for each of them. Two bounds hold:
        what the store last knew plus everyone's hits since, and everyone's hits in the whole window. The limit may be
        passed by one hit for each other replica, since shares are rounded up.
        """
        override = self.override_at(now_us)
        limit = charge.rule.limit if override is None else override.limit
        live = self._live(now_us)
        hits, rpm = charge.hits * replicas, limit.rpm + replicas - 1
        level = drained(self.level, now_us - self.stamp_us, limit.refill)
        since = live.confirmed + replicas * live.unconfirmed
        in_all = replicas * (live.confirmed_here + live.unconfirmed)
        if charge.is_post_charge:
            return Reading(max(since, in_all), live.oldest_us, level, 0, 0, override)

        def weight_since(confirmed: int, _here: int, unconfirmed: int) -> int:
            return confirmed + replicas * unconfirmed

        def weight_in_all(_confirmed: int, here: int, unconfirmed: int) -> int:
            return replicas * (here + unconfirmed)

        waits_us = (
            self._wait_us(live, hits_in_the_way(since, hits, rpm), now_us, weight_since),
            self._wait_us(live, hits_in_the_way(in_all, hits, rpm), now_us, weight_in_all),
        )
        return Reading(
            max(since, in_all),
            live.oldest_us,
            level,
            burst_wait_us(level, hits, limit.capacity + (replicas - 1) * TOKEN, limit.refill),
            NEVER if NEVER in waits_us else max(waits_us),
            override,
        )

    def charge(self, now_us: int, hits: int, level: int, limit: Limit) -> None:
        """Take what was decided, as the store does."""
        self._trim(now_us)
        self._fill(now_us, level, limit)
        if hits:
            self._add(now_us, hits, hits, 0)

    def charge_share(self, now_us: int, charge: Charge, reading: Reading, replicas: int) -> None:
        """Take the hits without the store, as if every replica had done the same."""
        limit, hits, level = reading.limit(charge.rule), charge.hits, reading.level + charge.hits * replicas * TOKEN
        if charge.is_post_charge:
            hits = post_charge_hits(reading.used, charge.hits * replicas, limit.rpm) // replicas
            level = max(reading.level, min(level, limit.capacity))
        self._trim(now_us)
        self._fill(now_us, level, limit)
        if hits:
            self._add(now_us, 0, 0, hits)

    def reset(self, now_us: int) -> int:
        """Nothing is spent; returns the hits that were."""
        used = self._live(now_us).confirmed
        self._entries, self._head = array("q"), 0
        self.level, self.stamp_us = 0, now_us
        self.confirmed = self.confirmed_here = self.unconfirmed = 0
        return used

    def set_override(self, now_us: int, override: Override, note: str) -> int:
        """Put an override in force; returns until when, or 0 for one that has ended."""
        if override.until_us <= now_us:
            return 0
        self.override, self.note = override, note
        return override.until_us

    def remove_override(self, now_us: int) -> int:
        """Back to the rule's own numbers; returns whether there was an override."""
        held, self.override, self.note = self.override_at(now_us), None, ""
        return int(held is not None)

    def grant(self, now_us: int, hits: int) -> int:
        """Give back the newest hits; returns how many there were."""
        given = min(hits, self._live(now_us).confirmed)
        self.level = max(0, self.level - hits * TOKEN)  # what drains since the stamp comes off either way
        self._drop_newest(given)
        return given

    def observe(self, now_us: int, used: int, level: int, hits: int, limit: Limit) -> None:
        """Learn what the store holds, this replica's `hits` included.

        What others spent counts as spent now; what has left the store goes.
        """
        self._trim(now_us)
        self.level, self.stamp_us, self.refill = level, now_us, limit.refill
        news = used - self.confirmed
        if news > 0:
            self._add(now_us, news, min(hits, news), 0)
        elif news < 0:
            self._drop_oldest(-news)

    def entries(self) -> Iterator[tuple[int, int, int]]:
        """Time, confirmed and unconfirmed hits of each entry, oldest first."""
        flat = self._entries
        for at in range(self._head, len(flat), _STRIDE):
            yield flat[at], flat[at + CONFIRMED], flat[at + UNCONFIRMED]

    def confirm_all(self) -> None:
        """The store has been told: from here it knows of these hits."""
        flat = self._entries
        for at in range(self._head, len(flat), _STRIDE):
            flat[at + CONFIRMED] += flat[at + UNCONFIRMED]
            flat[at + CONFIRMED_HERE] += flat[at + UNCONFIRMED]
            flat[at + UNCONFIRMED] = 0
        self.confirmed += self.unconfirmed
        self.confirmed_here += self.unconfirmed
        self.unconfirmed = 0

    def is_idle(self, now_us: int, quiet_us: int = WINDOW_US) -> bool:
        """Whether nothing that was spent counts any more, and has not for some time."""
        newest_us = self._entries[-_STRIDE] if self._entries else 0
        if self.override is not None:
            newest_us = max(newest_us, self.override.until_us)
        return newest_us <= now_us - quiet_us and drained(self.level, now_us - self.stamp_us, self.refill) == 0

    def _fill(self, now_us: int, level: int, limit: Limit) -> None:
        self.level, self.stamp_us, self.refill = level, now_us, limit.refill

    def _add(self, now_us: int, confirmed: int, confirmed_here: int, unconfirmed: int) -> None:
        self._entries.extend((now_us, confirmed, confirmed_here, unconfirmed))
        self.confirmed += confirmed
        self.confirmed_here += confirmed_here
        self.unconfirmed += unconfirmed

    def _live(self, now_us: int) -> _Live:
        """The part of the log that is inside the window."""
        if self.stamp_us > now_us:
            self._move_to_now(now_us)
        flat, head, size, cutoff_us = self._entries, self._head, len(self._entries), now_us - WINDOW_US
        confirmed, confirmed_here, unconfirmed = self.confirmed, self.confirmed_here, self.unconfirmed
        while head < size and flat[head] <= cutoff_us:
            confirmed -= flat[head + CONFIRMED]
            confirmed_here -= flat[head + CONFIRMED_HERE]
            unconfirmed -= flat[head + UNCONFIRMED]
            head += _STRIDE
        return _Live(head, confirmed, confirmed_here, unconfirmed, flat[head] if head < size else 0)

    def _trim(self, now_us: int) -> None:
        """Forget what has left the window."""
        head, self.confirmed, self.confirmed_here, self.unconfirmed, _ = self._live(now_us)
        if head == len(self._entries) or (head >= _COMPACT_AT and head * 2 >= len(self._entries)):
            del self._entries[:head]
            head = 0
        self._head = head

    def _move_to_now(self, now_us: int) -> None:
        """A clock that went back must not lock a caller out: what lies in the future happened now."""
        self.stamp_us = now_us
        flat = self._entries
        for at in range(self._head, len(flat), _STRIDE):
            flat[at] = min(flat[at], now_us)

    def _drop_oldest(self, hits: int) -> None:
        flat = self._entries
        for at in range(self._head, len(flat), _STRIDE):
            gone = min(hits, flat[at + CONFIRMED])
            flat[at + CONFIRMED] -= gone
            self.confirmed -= gone
            surplus = max(0, flat[at + CONFIRMED_HERE] - flat[at + CONFIRMED])
            flat[at + CONFIRMED_HERE] -= surplus
            self.confirmed_here -= surplus
            hits -= gone
            if not hits:
                return

    def _drop_newest(self, hits: int) -> None:
        flat = self._entries
        while hits:
            gone = min(hits, flat[CONFIRMED - _STRIDE])
            flat[CONFIRMED - _STRIDE] -= gone
            surplus = max(0, flat[CONFIRMED_HERE - _STRIDE] - flat[CONFIRMED - _STRIDE])
            flat[CONFIRMED_HERE - _STRIDE] -= surplus
            self.confirmed -= gone
            self.confirmed_here -= surplus
            hits -= gone
            if not flat[CONFIRMED - _STRIDE]:
                del flat[-_STRIDE:]

    def _wait_us(self, live: _Live, in_the_way: int, now_us: int, weigh: Callable[[int, int, int], int]) -> int:
        """Until that many of the oldest hits have left the window."""
        if in_the_way <= 0:
            return in_the_way
        flat = self._entries
        for at in range(live.head, len(flat), _STRIDE):
            in_the_way -= weigh(flat[at + CONFIRMED], flat[at + CONFIRMED_HERE], flat[at + UNCONFIRMED])
            if in_the_way <= 0:
                return flat[at] + WINDOW_US - now_us
        return NEVER  # not reached: there are never more hits in the way than are counted


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

    async def lease(self, charges: Sequence[Charge], lease_request: LeaseRequest) -> tuple[int, int, list[Reading]]:
        """Nothing is prepaid: counters here are asked in no time."""
        now_us, readings = await self.decide(charges)
        return now_us, 0, readings

    async def decide(self, charges: Sequence[Charge]) -> tuple[int, list[Reading]]:
        """Decide exactly; this process is the only one that counts."""
        now_us = self._clock()
        held = self._held(charges, now_us)
        readings = [tally.read(now_us, charge) for tally, charge in held]
        passes = request_passes(charges, readings)
        for (tally, charge), reading in zip(held, readings, strict=True):
            hits, level = charged(charge, reading, passes)
            if hits or level > reading.level:
                tally.charge(now_us, hits, level, reading.limit(charge.rule))
        return now_us, readings

    def decide_share(self, charges: Sequence[Charge], replicas: int) -> tuple[int, list[Reading]]:
        """Decide alone, for this replica's share of what the store last said was left."""
        now_us = self._clock()
        held = self._held(charges, now_us)
        readings = [tally.read_share(now_us, charge, replicas) for tally, charge in held]
        passes = request_passes(charges, readings)
        for (tally, charge), reading in zip(held, readings, strict=True):
            if charge.hits and (charge.is_post_charge or (passes and reading.passes)):
                tally.charge_share(now_us, charge, reading, replicas)
        return now_us, readings

    def observe(self, charges: Sequence[Charge], store_now_us: int, readings: Sequence[Reading]) -> None:
        """Follow an answer of the store."""
        now_us = self._clock()
        passes = request_passes(charges, readings)
        for (tally, charge), reading in zip(self._held(charges, now_us), readings, strict=True):
            hits, level = charged(charge, reading, passes)
            tally.override = reading.override
            tally.observe(now_us, reading.used + hits, level, hits, reading.limit(charge.rule))
            if hits:
                tally.seen_us = store_now_us

    async def operate(self, tag: str, rule_name: str, verb: Verb, *values: int | str) -> int:
        """One operator's change of one counter; see operate.lua."""
        now_us = self._clock()
        self._make_room(now_us, 1)
        tally = self._tally(tag + rule_name)
        match verb, values:
            case "reset", ():
                return tally.reset(now_us)
            case "grant", (int(hits),):
                return tally.grant(now_us, hits)
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

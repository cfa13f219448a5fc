"""Counters in this process: exact where it counts alone, a share of the limit while the store is away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from ratelimit_service.clocks import wall_clock_us
from ratelimit_service.counters.base import CounterReply, Verb
from ratelimit_service.counters.share import charge_share, is_over_a_share, read_share
from ratelimit_service.counters.tally import News, Tally
from ratelimit_service.leases import NO_LEASE, LeaseRequest
from ratelimit_service.limits import WINDOW_US, Charge, CounterKey, Override, Reading, charged, limit_of, request_passes


class MemoryCounters:
    """Counters for one process. Holds at most `max_tallies`; the least recently used go first.

    Alone (`REDIS_URL=none`) they are exact. Beside a store they follow what it says, so that a replica that loses the
    store goes on from what was spent, and `decide_share` then enforces this replica's share.
    """

    def __init__(
        self, max_tallies: int = 200_000, clock: Callable[[], int] = wall_clock_us, quiet_us: int = WINDOW_US
    ) -> None:
        self._tallies: OrderedDict[CounterKey, Tally] = OrderedDict()
        self._max_tallies = max_tallies
        self._clock = clock
        self._quiet_us = quiet_us
        self._news: dict[CounterKey, News] = {}

    def __len__(self) -> int:
        return len(self._tallies)

    async def decide(self, charges: Sequence[Charge], lease_request: LeaseRequest = NO_LEASE) -> CounterReply:
        """Decide exactly; this process is the only one that counts. It prepays nothing: to ask it costs no time."""
        now_us = self._clock()
        held = self._held(charges, now_us)
        readings = [tally.read(now_us, charge) for tally, charge in held]
        passes = request_passes(charges, readings)
        for (tally, charge), reading in zip(held, readings, strict=True):
            hits, level = charged(charge, reading, passes)
            if hits or level > reading.level:
                tally.charge(now_us, hits, level, reading.limit(charge.rule))
        return CounterReply(now_us, readings)

    def decide_share(self, charges: Sequence[Charge], replicas: int) -> CounterReply:
        """Decide without the store, for this replica's share of what the store last said was left."""
        now_us = self._clock()
        held = self._held(charges, now_us)
        readings = [read_share(tally, now_us, charge, replicas) for tally, charge in held]
        passes = request_passes(charges, readings)
        for (tally, charge), reading in zip(held, readings, strict=True):
            if charge.hits and (charge.is_post_charge or (passes and reading.passes)):
                charge_share(tally, now_us, charge, reading, replicas)
        return CounterReply(now_us, readings)

    def observe(
        self,
        charges: Sequence[Charge],
        store_us: int,
        readings: Sequence[Reading],
        replicas: int = 1,
        held_us: int | None = None,
    ) -> None:
        """Follow a reply of the store. It holds the charges at `held_us` of its clock, if that is not `store_us`.

        Who is over one replica's share becomes news for the others.
        """
        now_us = self._clock()
        held_us = store_us if held_us is None else held_us
        passes = request_passes(charges, readings)
        for (tally, charge), reading in zip(self._held(charges, now_us), readings, strict=True):
            hits, level = charged(charge, reading, passes)
            limit = reading.limit(charge.rule)
            news = News(store_us, reading.used + hits, level, limit.refill)
            tally.override = reading.override
            tally.observe(now_us, hits, news, held_us)
            if hits:
                tally.confirmed_at_us = held_us
            if replicas > 1 and is_over_a_share(news.used, level, limit, replicas):
                self._news[charge.key] = news

    def take_news(self) -> dict[CounterKey, News]:
        """Who was found over a share since the last call."""
        news, self._news = self._news, {}
        return news

    def learn(self, told: Sequence[tuple[CounterKey, News]], store_now_us: int) -> None:
        """Follow the news of other replicas."""
        now_us = self._clock()
        for key, news in told:
            self._make_room(now_us, 1)
            self._tally(key).learn(now_us, news, store_now_us)

    async def operate(self, key: CounterKey, verb: Verb, *values: int | str) -> int:
        """Change one counter for an operator; see operate.lua."""
        now_us = self._clock()
        self._make_room(now_us, 1)
        tally = self._tally(key)
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

    async def note(self, key: CounterKey) -> str:
        """What the operator wrote beside the override."""
        tally = self._tallies.get(key)
        return "" if tally is None else tally.note

    def active(self) -> Iterator[tuple[CounterKey, Tally]]:
        """What counts now, the most recently used first."""
        now_us = self._clock()
        for key, tally in list(reversed(self._tallies.items())):
            if not tally.is_idle(now_us):
                yield key, tally

    def _held(self, charges: Sequence[Charge], now_us: int) -> list[tuple[Tally, Charge]]:
        self._make_room(now_us, len(charges))
        return [(self._tally(charge.key), charge) for charge in charges]

    def _tally(self, key: CounterKey) -> Tally:
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally()
        else:
            self._tallies.move_to_end(key)
        return tally

    def _make_room(self, now_us: int, newcomers: int) -> None:
        """Drop idle ones of the least recently used, a few at a time. Drop others only when it is full."""
        tallies = self._tallies
        for _ in range(2 * newcomers):
            key = next(iter(tallies), None)
            if key is None or (
                len(tallies) + newcomers <= self._max_tallies and not tallies[key].is_idle(now_us, self._quiet_us)
            ):
                return
            del tallies[key]

"""What a replica lets pass by itself while the store is away: its share of what is left of a limit.

Every replica is taken to do what this one does, so what passes here counts once for each of them. Two bounds hold: what
the store last knew plus everyone's hits since, and everyone's hits in the whole window. Shares are rounded up, so the
limit may be passed by one hit for each other replica. A replica that knows nothing of a caller lets a share pass. That
breaks no bound while all that was spent is within a share; who is over one, the replicas tell each other (digest.py).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ratelimit_service.counters.hit_log import Weights
from ratelimit_service.counters.tally import Tally
from ratelimit_service.limits import (
    NEVER,
    TOKEN,
    Charge,
    Limit,
    Reading,
    burst_wait_us,
    hits_in_the_way,
    post_charge_hits,
    post_charge_level,
)


class Bounds(NamedTuple):
    """What each kind of hit counts for under the two bounds."""

    since_the_store: Weights
    in_the_window: Weights


@lru_cache(maxsize=16)
def bounds_of(replicas: int) -> Bounds:
    """The bounds of one of so many replicas."""
    return Bounds(
        Weights(confirmed=1, confirmed_here=0, unconfirmed=replicas),
        Weights(confirmed=0, confirmed_here=replicas, unconfirmed=replicas),
    )


def read_share(tally: Tally, now_us: int, charge: Charge, replicas: int) -> Reading:
    """What both rules say to these hits, for one of so many replicas. Takes nothing."""
    override = tally.override_at(now_us)
    limit = charge.rule.limit if override is None else override.limit
    live = tally.live(now_us)
    level = tally.level_at(now_us, limit.refill)
    bounds = bounds_of(replicas)
    since, in_all = live.weighed(bounds.since_the_store), live.weighed(bounds.in_the_window)
    used = max(since, in_all)
    if charge.is_post_charge:
        return Reading(used, live.oldest_us, level, 0, 0, override)
    hits, others = charge.asked * replicas, replicas - 1 if limit.rpm else 0  # a block lets nobody's remainder pass
    rpm = limit.rpm + others
    waits_us = (
        tally.log.wait_us(live, hits_in_the_way(since, hits, rpm), now_us, bounds.since_the_store),
        tally.log.wait_us(live, hits_in_the_way(in_all, hits, rpm), now_us, bounds.in_the_window),
    )
    return Reading(
        used,
        live.oldest_us,
        level,
        burst_wait_us(level, hits, limit.capacity + others * TOKEN, limit.refill),
        NEVER if NEVER in waits_us else max(waits_us),
        override,
    )


def is_over_a_share(used: int, level: int, limit: Limit, replicas: int) -> bool:
    """Whether more is spent than one replica lets pass by itself: then the others must know."""
    return used * replicas > limit.rpm or level * replicas > limit.capacity


def charge_share(tally: Tally, now_us: int, charge: Charge, reading: Reading, replicas: int) -> None:
    """Take the hits without the store, as if every replica had done the same."""
    limit, of_all = reading.limit(charge.rule), charge.hits * replicas
    hits, level = charge.hits, reading.level + of_all * TOKEN
    if charge.is_post_charge:
        hits = post_charge_hits(reading.used, of_all, limit.rpm) // replicas
        level = post_charge_level(reading.level, of_all, limit.capacity)
    tally.charge_unconfirmed(now_us, hits, level, limit)

"""What one caller spent under one rule, in this process: a bucket, a log, and an operator's override."""

from __future__ import annotations

from typing import NamedTuple

from ratelimit_service.counters.hit_log import HitLog, Live, Weights
from ratelimit_service.limits import (
    TOKEN,
    WINDOW_US,
    Charge,
    Limit,
    Override,
    Reading,
    burst_wait_us,
    drained,
    hits_in_the_way,
)

CONFIRMED = Weights(confirmed=1)


class News(NamedTuple):
    """What the store said of a counter at a moment of its clock."""

    store_us: int
    used: int
    level: int
    refill: int


class Tally:
    """The Python twin of a counter in the store. `level` is how much was out of the bucket at `stamp_us`."""

    __slots__ = ("confirmed_at_us", "level", "log", "note", "override", "refill", "seen_us", "stamp_us")

    def __init__(self) -> None:
        self.log = HitLog()
        self.level = 0
        self.stamp_us = 0
        self.refill = 1
        self.confirmed_at_us = 0
        """The store's time of the last charge that it confirmed."""
        self.seen_us = 0
        """The store's time of the last that was heard of it."""
        self.override: Override | None = None
        self.note = ""

    def override_at(self, now_us: int) -> Override | None:
        """The override, while it is in force."""
        return self.override if self.override is not None and self.override.until_us > now_us else None

    def level_at(self, now_us: int, refill: int) -> int:
        """How much is out of the bucket now."""
        return drained(self.level, now_us - self.stamp_us, refill)

    def live(self, now_us: int) -> Live:
        """The part of the log inside the window. A clock that went back must not lock a caller out."""
        if self.stamp_us > now_us:
            self.stamp_us = now_us
            self.log.move_to(now_us)
        return self.log.live(now_us)

    def read(self, now_us: int, charge: Charge) -> Reading:
        """What both rules say to these hits now. Takes nothing and forgets nothing."""
        override = self.override_at(now_us)
        hits, limit = charge.asked, charge.rule.limit if override is None else override.limit
        live = self.live(now_us)
        used, level = live.confirmed, self.level_at(now_us, limit.refill)
        if charge.is_post_charge:
            return Reading(used, live.oldest_us, level, 0, 0, override)
        return Reading(
            used,
            live.oldest_us,
            level,
            burst_wait_us(level, hits, limit.capacity, limit.refill),
            self.log.wait_us(live, hits_in_the_way(used, hits, limit.rpm), now_us, CONFIRMED),
            override,
        )

    def charge(self, now_us: int, hits: int, level: int, limit: Limit) -> None:
        """Take what was decided, as the store does."""
        self._move(now_us, level, limit.refill)
        if hits:
            self.log.add(now_us, confirmed=hits, confirmed_here=hits)

    def charge_unconfirmed(self, now_us: int, hits: int, level: int, limit: Limit) -> None:
        """Take what was decided without the store."""
        self._move(now_us, level, limit.refill)
        if hits:
            self.log.add(now_us, unconfirmed=hits)

    def observe(self, now_us: int, hits: int, news: News, held_us: int) -> None:
        """Learn what the store holds, this replica's `hits` included, which it holds at `held_us` of its clock.

        What others spent counts as spent now. What has left the store's log leaves this one.
        """
        self.seen_us = news.store_us
        self._move(now_us, news.level, news.refill)
        more = news.used - self.log.confirmed
        if more > 0:
            self.log.add(now_us, confirmed=more, confirmed_here=min(hits, more), store_us=held_us if hits else 0)
        elif more < 0:
            self.log.drop_oldest(-more)

    def learn(self, now_us: int, news: News, store_now_us: int) -> None:
        """Learn what another replica heard from the store, unless something later was heard here."""
        if news.store_us <= self.seen_us <= store_now_us:
            return
        heard_us = now_us - max(0, store_now_us - news.store_us)
        self.observe(min(now_us, max(self.stamp_us, heard_us)), 0, news, 0)

    def reset(self, now_us: int) -> int:
        """Nothing is spent; returns the hits that were."""
        used = self.live(now_us).confirmed
        self.log.clear()
        self.level, self.stamp_us = 0, now_us
        return used

    def grant(self, now_us: int, hits: int) -> int:
        """Give back the newest hits; returns how many there were."""
        given = min(hits, self.live(now_us).confirmed)
        self.level = max(0, self.level - hits * TOKEN)  # what drains since the stamp comes off either way
        self.log.drop_newest(given)
        return given

    def set_override(self, now_us: int, override: Override, note: str) -> int:
        """Put an override in force; returns until when, or 0 for one that has ended."""
        if override.until_us <= now_us:
            return 0
        self.override, self.note = override, note
        return override.until_us

    def remove_override(self, now_us: int) -> int:
        """Back to the rule's own numbers; returns 1 where an override was in force, else 0."""
        held, self.override, self.note = self.override_at(now_us), None, ""
        return int(held is not None)

    def is_idle(self, now_us: int, quiet_us: int = WINDOW_US) -> bool:
        """Whether nothing that was spent counts any more, and has not for some time."""
        newest_us = self.log.newest_us
        if self.override is not None:
            newest_us = max(newest_us, self.override.until_us)
        return newest_us <= now_us - quiet_us and self.level_at(now_us, self.refill) == 0

    def _move(self, now_us: int, level: int, refill: int) -> None:
        """To this moment and this level; what has left the window is forgotten."""
        self.log.keep(self.live(now_us))
        self.level, self.stamp_us, self.refill = level, now_us, refill

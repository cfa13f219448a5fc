"""The hits that one counter took in the last minute: how many the store knows of, and how many it does not."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ratelimit_service.limits import NEVER, SECOND_US, WINDOW_US

_CONFIRMED, _CONFIRMED_HERE, _UNCONFIRMED, _STORE, _STRIDE = 1, 2, 3, 4, 5
"""Where an entry's numbers are, after its time, and where the next entry begins."""
_COMPACT_AT = 64 * _STRIDE
_MANY = 64


class Entry(NamedTuple):
    """One charge's hits."""

    at_us: int
    confirmed: int
    confirmed_here: int
    unconfirmed: int
    store_us: int = 0
    """The store's time of the hits that were confirmed here; 0 where there are none."""


class Weights(NamedTuple):
    """How much each kind of hit counts for."""

    confirmed: int = 0
    confirmed_here: int = 0
    unconfirmed: int = 0


class Live(NamedTuple):
    """The part of a log that is inside the window."""

    first: int
    """Where its first entry begins."""
    confirmed: int
    confirmed_here: int
    unconfirmed: int
    oldest_us: int
    """The time of its first entry; 0 where there is none."""

    def weighed(self, weights: Weights) -> int:
        """All of its hits, by weight."""
        confirmed, here, unconfirmed = weights
        return confirmed * self.confirmed + here * self.confirmed_here + unconfirmed * self.unconfirmed


class HitLog:
    """One entry for each charge, oldest first: five numbers in a flat array.

    `confirmed` are the hits that the store knows of, `confirmed_here` those of them that passed this replica, and
    `unconfirmed` the hits that passed this replica while the store was away.
    """

    __slots__ = ("_entries", "_first", "confirmed", "confirmed_here", "unconfirmed")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._entries = array("q")
        self._first = 0
        self.confirmed = self.confirmed_here = self.unconfirmed = 0

    @property
    def newest_us(self) -> int:
        """The time of the last entry; 0 where there is none."""
        return self._entries[-_STRIDE] if self._entries else 0

    def entries(self) -> Iterator[Entry]:
        """Oldest first."""
        flat = self._entries
        for at in range(self._first, len(flat), _STRIDE):
            yield Entry._make(flat[at : at + _STRIDE])

    def live(self, now_us: int) -> Live:
        """What is inside the window. Forgets nothing: a clock may go back."""
        flat, first, size, cutoff_us = self._entries, self._first, len(self._entries), now_us - WINDOW_US
        confirmed, confirmed_here, unconfirmed = self.confirmed, self.confirmed_here, self.unconfirmed
        while first < size and flat[first] <= cutoff_us:
            confirmed -= flat[first + _CONFIRMED]
            confirmed_here -= flat[first + _CONFIRMED_HERE]
            unconfirmed -= flat[first + _UNCONFIRMED]
            first += _STRIDE
        return Live(first, confirmed, confirmed_here, unconfirmed, flat[first] if first < size else 0)

    def wait_us(self, live: Live, excess: int, now_us: int, weights: Weights) -> int:
        """How long until so many of the oldest hits, by weight, have left the window."""
        if excess <= 0:
            return excess
        flat, (confirmed, here, unconfirmed) = self._entries, weights
        for at in range(live.first, len(flat), _STRIDE):
            excess -= confirmed * flat[at + _CONFIRMED] + here * flat[at + _CONFIRMED_HERE]
            excess -= unconfirmed * flat[at + _UNCONFIRMED]
            if excess <= 0:
                return flat[at] + WINDOW_US - now_us
        return NEVER  # not reached: there are never more hits in excess than are counted

    def add(
        self, now_us: int, *, confirmed: int = 0, confirmed_here: int = 0, unconfirmed: int = 0, store_us: int = 0
    ) -> None:
        """Append an entry."""
        self._entries.extend((now_us, confirmed, confirmed_here, unconfirmed, store_us))
        self.confirmed += confirmed
        self.confirmed_here += confirmed_here
        self.unconfirmed += unconfirmed

    def keep(self, live: Live) -> None:
        """Forget what has left the window. The array is shortened now and then, not at every call."""
        first, self.confirmed, self.confirmed_here, self.unconfirmed, _ = live
        if first == len(self._entries) or (first >= _COMPACT_AT and first * 2 >= len(self._entries)):
            del self._entries[:first]
            first = 0
        self._first = first

    def move_to(self, now_us: int) -> None:
        """The clock went back: what lies in the future happened now."""
        flat = self._entries
        for at in range(self._first, len(flat), _STRIDE):
            flat[at] = min(flat[at], now_us)

    def gather(self) -> None:
        """Where there are many entries, make one of those of each second; it has the last one's times."""
        if len(self._entries) - self._first <= _MANY * _STRIDE:
            return
        gathered: list[Entry] = []
        for entry in self.entries():
            if gathered and gathered[-1].at_us // SECOND_US == entry.at_us // SECOND_US:
                gathered[-1] = _together(gathered[-1], entry)
            else:
                gathered.append(entry)
        self._entries, self._first = array("q", [number for entry in gathered for number in entry]), 0

    def confirm_all(self, ahead_us: int) -> None:
        """The store was told of every hit. Its clock is so far ahead of the one of this log."""
        flat = self._entries
        for at in range(self._first, len(flat), _STRIDE):
            if flat[at + _UNCONFIRMED]:
                flat[at + _CONFIRMED] += flat[at + _UNCONFIRMED]
                flat[at + _CONFIRMED_HERE] += flat[at + _UNCONFIRMED]
                flat[at + _UNCONFIRMED] = 0
                flat[at + _STORE] = flat[at] + ahead_us
        self.confirmed += self.unconfirmed
        self.confirmed_here += self.unconfirmed
        self.unconfirmed = 0

    def drop_oldest(self, hits: int) -> None:
        """Forget so many of the oldest confirmed hits: first those of other replicas."""
        others = min(hits, self.confirmed - self.confirmed_here)
        self._drop_oldest(others, lambda entry: entry.confirmed - entry.confirmed_here)
        self._drop_oldest(hits - others, lambda entry: entry.confirmed)

    def _drop_oldest(self, hits: int, droppable: Callable[[Entry], int]) -> None:
        for at in range(self._first, len(self._entries), _STRIDE):
            if not hits:
                return
            entry = Entry._make(self._entries[at : at + _STRIDE])
            hits -= self._drop(at, min(hits, droppable(entry)))

    def drop_newest(self, hits: int) -> None:
        """Forget so many of the newest confirmed hits, and the entries of which nothing is left."""
        while hits:
            last = len(self._entries) - _STRIDE
            hits -= self._drop(last, hits)
            if not self._entries[last + _CONFIRMED]:
                del self._entries[last:]

    def _drop(self, at: int, hits: int) -> int:
        """Take confirmed hits from one entry; returns how many it had. Those of other replicas go first."""
        flat = self._entries
        gone = min(hits, flat[at + _CONFIRMED])
        flat[at + _CONFIRMED] -= gone
        self.confirmed -= gone
        surplus = max(0, flat[at + _CONFIRMED_HERE] - flat[at + _CONFIRMED])
        flat[at + _CONFIRMED_HERE] -= surplus
        self.confirmed_here -= surplus
        return gone


def _together(earlier: Entry, later: Entry) -> Entry:
    return Entry(
        later.at_us,
        earlier.confirmed + later.confirmed,
        earlier.confirmed_here + later.confirmed_here,
        earlier.unconfirmed + later.unconfirmed,
        later.store_us or earlier.store_us,
    )

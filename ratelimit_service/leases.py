"""Leases: a busy caller's next requests, charged ahead and spent by an Envoy worker without asking.

How exact limits stay exact: units of a lease are charged when it is granted, as if they were spent at its end. So
they leave the window a whole minute after the last moment at which they can be spent, and the bucket refills from
then on: whenever in its life a lease is spent, no window holds more than the limit. It is taken from the first half
of the bucket and the first three quarters of the minute (decide.lua): near its limit, each request of a caller is
asked about again, and the last one that fits passes.

What is not spent is lost to the caller. So a lease is short, as long as the caller is likely to need it, and what a
worker has lost or may still lose is never more than a twentieth of the requests that it let pass.

Pure: time is an argument, in microseconds of one monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

SPAN_US = 100_000
"""How long a lease can be spent. It bounds how late a changed override can take hold."""
MAX_UNITS = 128
"""Requests in one lease."""
SHARE = 20
"""A lease is at most a twentieth of the smaller of `burst` and `rpm`, among all who hold one of the same counter."""
MIN_UNITS = 32
"""Where a lease could not be of so many requests there is none: under a `burst` of 640 each request is asked about."""
RISK = 20
"""Of so many requests that passed, one may be lost."""
ACTIVE_US = 1_000_000
"""Who asked within this time shares in a counter's leases."""
MAX_HOLDERS = 64
MAX_CALLERS = 20_000


class Report(NamedTuple):
    """What an Envoy worker says when it asks: who it is, the last lease that it took, what it spent of all so far."""

    holder: str
    serial: int
    spent: int


class Wish(NamedTuple):
    """What the store is asked to charge ahead: so many requests, to be spent within this time."""

    units: int
    span_us: int = SPAN_US


NO_WISH = Wish(0, 0)


class Lease(NamedTuple):
    """Requests that a worker may let pass by itself. `cost` is what each is charged."""

    serial: int
    units: int
    cost: int
    span_us: int = SPAN_US

    def __str__(self) -> str:
        """As Envoy's front door reads it."""
        return f"{self.serial} {self.units} {self.cost} {self.span_us // 1000}"


@dataclass(slots=True)
class _Holder:
    """One worker's leases of one counter."""

    asked_us: int = 0
    asks: int = 0
    recent: float = 0.0
    """Requests that passed lately; they fade over a lease's life."""
    spent: int = 0
    """Of all leases, as the worker last said."""
    granted: int = 0
    serial: int = 0
    ends_us: int = 0
    """Until when the last lease can be spent."""

    def hear(self, spent: int, now_us: int) -> None:
        """Take in a report."""
        fade = max(0.0, 1 - (now_us - self.asked_us) / SPAN_US)
        self.recent = self.recent * fade + 1 + spent - self.spent
        self.asked_us, self.spent = now_us, spent
        self.asks += 1

    @property
    def may_be_lost(self) -> int:
        """How many more units may be put at risk."""
        return (self.asks + self.spent) // RISK - (self.granted - self.spent)


def read_report(text: str) -> Report | None:
    """HOLDER.SERIAL.SPENT; None for what is none."""
    holder, _, numbers = text.partition(".")
    serial, _, spent = numbers.partition(".")
    if not (holder and serial.isdecimal() and spent.isdecimal() and len(text) <= 64):
        return None
    return Report(holder, int(serial), int(spent))


class Leases:
    """Who is worth a lease. Bounded: the least recently seen callers are forgotten, with how busy they were."""

    def __init__(self, max_callers: int = MAX_CALLERS) -> None:
        self._callers: OrderedDict[str, OrderedDict[str, _Holder]] = OrderedDict()
        self._max_callers = max_callers

    def __len__(self) -> int:
        return len(self._callers)

    def wish(self, key: str, report: Report, most: int, now_us: int) -> Wish:
        """What to charge ahead for a worker's caller. `most` is the smaller of its `burst` and `rpm`, in requests."""
        holders = self._holders(key)
        holder = self._holder(holders, report)
        holder.hear(report.spent, now_us)
        if report.serial != holder.serial and now_us < holder.ends_us:
            return NO_WISH  # the last lease is on its way: the worker's other requests ask meanwhile
        active = sum(now_us - other.asked_us < ACTIVE_US for other in holders.values())
        at_most = most // (SHARE * active)
        units = min(int(holder.recent * 2 / 3), holder.may_be_lost, MAX_UNITS, at_most)
        if units <= 0 or at_most < MIN_UNITS:
            return NO_WISH
        holder.serial += 1
        holder.ends_us = now_us + SPAN_US
        return Wish(units)

    def grant(self, key: str, report: Report, units: int, cost: int) -> Lease | None:
        """What the store charged ahead, as a lease; None where that is nothing."""
        holders = self._callers.get(key)
        holder = holders.get(report.holder) if holders else None
        if holder is None or not units:
            return None
        holder.granted += units
        return Lease(holder.serial, units, cost)

    def _holders(self, key: str) -> OrderedDict[str, _Holder]:
        holders = self._callers.get(key)
        if holders is None:
            holders = self._callers[key] = OrderedDict()
            if len(self._callers) > self._max_callers:
                self._callers.popitem(last=False)
        else:
            self._callers.move_to_end(key)
        return holders

    @staticmethod
    def _holder(holders: OrderedDict[str, _Holder], report: Report) -> _Holder:
        holder = holders.get(report.holder)
        if holder is None or not holder.spent <= report.spent <= holder.granted:  # it has forgotten, and begins anew
            holder = holders[report.holder] = _Holder(serial=report.serial, spent=report.spent, granted=report.spent)
            if len(holders) > MAX_HOLDERS:
                holders.popitem(last=False)
        else:
            holders.move_to_end(report.holder)
        return holder

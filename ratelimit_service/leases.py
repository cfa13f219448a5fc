"""Leases: a busy caller's next requests, charged ahead and spent by an Envoy worker without asking.

How exact limits stay exact: units of a lease are charged when it is granted, as if they were spent at its end. So they
leave the window a whole minute after the last moment at which they can be spent, and the bucket refills from that
moment on: whenever in its life a lease is spent, no window holds more than the limit. What is not spent is lost; so a
lease is short, never more than a twentieth of a limit, and goes only to those who spent the last one. It is taken from
the first half of the bucket and the first three quarters of the minute (decide.lua): near its limit, each request of a
caller is asked about again, and the last one that fits passes.

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
MIN_UNITS = 8
"""Where a lease could not be of so many requests there is none: it would save little, and each lost one would show."""
BUSY_US = SPAN_US // 4
"""Who asks again within this time may get a first lease."""
PAUSE_US = 1_000_000
"""How long a holder who did not spend its lease gets none."""
MAX_HOLDERS = 64
MAX_CALLERS = 20_000


class Report(NamedTuple):
    """What an Envoy worker says when it asks: who it is, the last lease that it took, and what it spent of that."""

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
    size: int = 0
    """The units of the next lease; 0: none."""
    serial: int = 0
    out: int = 0
    """The units of the lease whose fate is not known yet."""
    ends_us: int = 0
    paused_until_us: int = 0


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
        holder = self._holder(holders, report.holder)
        gap_us, holder.asked_us = now_us - holder.asked_us, now_us
        if holder.out and not self._learn(holder, report, now_us):
            return NO_WISH
        if holder.size == 0:
            if gap_us > BUSY_US or now_us < holder.paused_until_us:
                return NO_WISH
            holder.size = 1
        active = sum(now_us - other.asked_us < PAUSE_US for other in holders.values())
        at_most = most // (SHARE * active)
        if at_most < MIN_UNITS:
            return NO_WISH
        units = min(holder.size, MAX_UNITS, at_most)
        holder.serial += 1
        holder.out, holder.ends_us = units, now_us + SPAN_US
        return Wish(units)

    def grant(self, key: str, report: Report, units: int, cost: int) -> Lease | None:
        """What the store charged ahead, as a lease; None where that is nothing."""
        holders = self._callers.get(key)
        holder = holders.get(report.holder) if holders else None
        if holder is None:
            return None
        holder.out = units
        return Lease(holder.serial, units, cost) if units else None

    @staticmethod
    def _learn(holder: _Holder, report: Report, now_us: int) -> bool:
        """What became of the last lease. False while it is on its way: the worker's other requests ask meanwhile."""
        if report.serial != holder.serial:
            if now_us < holder.ends_us:
                return False
            report = report._replace(spent=0)  # it came too late to be taken
        spent, holder.out, out = report.spent, 0, holder.out
        if 4 * spent >= 3 * out:
            holder.size = 2 * out
        elif 2 * spent >= out:
            holder.size = out
        else:
            holder.size = spent // 2
            holder.paused_until_us = now_us + (0 if holder.size else PAUSE_US)
        return True

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
    def _holder(holders: OrderedDict[str, _Holder], name: str) -> _Holder:
        holder = holders.get(name)
        if holder is None:
            holder = holders[name] = _Holder(asked_us=-PAUSE_US)
            if len(holders) > MAX_HOLDERS:
                holders.popitem(last=False)
        else:
            holders.move_to_end(name)
        return holder

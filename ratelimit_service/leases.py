"""Leases: a busy caller's next requests, prepaid, which an Envoy worker lets pass without asking.

Why limits stay exact: a lease is charged when it is granted, as if all of it were spent at its end. Its hits leave the
window a whole minute after the last moment at which they can be spent, and the bucket refills only from then on. So no
window holds more than the limit, whenever the lease is spent. A lease is taken from the first half of the bucket and
the first three quarters of the minute (decide.lua). Near the limit each request is asked about, and the last one that
fits passes.

What is not spent is lost to the caller. So a lease lives no longer than the caller is likely to need it, and what a
worker has lost or may still lose is at most a twentieth of the requests that it let pass.

A worker asks several replicas in turn, and each replica sizes its own leases by what became of them. So a lease carries
the name of the replica that granted it, and a worker reports for each replica what it spent.

Pure: time is an argument, in microseconds of one monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ratelimit_service.limits import CounterKey

SPAN_US = 100_000
"""How long a lease can be spent. It bounds how late a changed override can take hold."""
MAX_REQUESTS = 128
"""Requests in one lease."""
SHARE = 20
"""A lease is at most a twentieth of the smaller of `burst` and `rpm`, among all who hold one of the same counter."""
MIN_REQUESTS = 32
"""Where a lease could not be of so many requests there is none: under a `burst` of 640 each request is asked about."""
RISK = 20
"""One of so many requests that passed may be lost."""
ACTIVE_US = 1_000_000
"""Workers that asked within this time share a counter's leases."""
MAX_HOLDERS = 64
MAX_REPORT = 512
"""Characters. A worker tells of the eight replicas whose leases it took last."""
MAX_CALLERS = 20_000


class LeaseUse(NamedTuple):
    """What a worker made of one replica's leases: the serial of the last one, and what it spent of all of them."""

    serial: int = 0
    spent: int = 0


_NOTHING = LeaseUse()


class Report(NamedTuple):
    """What an Envoy worker says when it asks: its name, whether it wants a lease (not while one may be on its way), and
    what it made of each replica's leases, by the replica's name.
    """

    holder: str
    wanted: bool
    uses: Mapping[str, LeaseUse]


class LeaseRequest(NamedTuple):
    """What the store is asked to prepay: so many requests, to be spent within this time."""

    requests: int
    span_us: int = SPAN_US


NO_LEASE = LeaseRequest(0, 0)


class Lease(NamedTuple):
    """Requests that a worker may let pass by itself. `hits` is what each is charged."""

    replica: str
    serial: int
    requests: int
    hits: int
    span_us: int = SPAN_US

    def __str__(self) -> str:
        """As leases.lua reads it."""
        return f"{self.replica} {self.serial} {self.requests} {self.hits} {self.span_us // 1000}"


@dataclass(slots=True)
class _Holder:
    """One worker's leases of one counter."""

    asked_us: int = 0
    asks: int = 0
    recent: float = 0.0
    """Requests that passed lately, by whosever leases; they fade over a lease's life."""
    spent: int = 0
    """Of all leases of this replica, as the worker last said."""
    spent_everywhere: int = 0
    granted: int = 0
    serial: int = 0
    ends_us: int = 0
    """Until when the last lease can be spent."""

    def hear(self, spent: int, spent_everywhere: int, now_us: int) -> None:
        """Take in a report."""
        elapsed_us = now_us - self.asked_us
        fade = max(0.0, 1 - elapsed_us / SPAN_US)
        # A worker that tells no more of a replica whose leases it took long ago seems to have spent less than before.
        more = 1 + max(0, spent_everywhere - self.spent_everywhere)
        self.recent = self.recent * fade + more * SPAN_US / max(SPAN_US, elapsed_us)
        self.asked_us, self.spent, self.spent_everywhere = now_us, spent, spent_everywhere
        self.asks += 1

    @property
    def may_be_lost(self) -> int:
        """How many more requests may be put at risk."""
        return (self.asks + self.spent) // RISK - (self.granted - self.spent)


def read_report(text: str) -> Report | None:
    """HOLDER.WANTED (1 or 0), then ;REPLICA.SERIAL.SPENT of each replica; None for what is none."""
    first, *parts = text.split(";")
    holder, _, wanted = first.partition(".")
    if not holder or wanted not in ("0", "1") or len(text) > MAX_REPORT:
        return None
    uses = {}
    for part in parts:
        replica, _, numbers = part.partition(".")
        serial, _, spent = numbers.partition(".")
        if not (replica and serial.isdecimal() and spent.isdecimal()):
            return None
        uses[replica] = LeaseUse(int(serial), int(spent))
    return Report(holder, wanted == "1", uses)


class Leases:
    """Which callers get leases from this replica. Bounded: the least recently seen callers are forgotten.

    No other replica, and none before it, may have had the name.
    """

    def __init__(self, name: str, max_callers: int = MAX_CALLERS) -> None:
        self._name = name
        self._callers: OrderedDict[CounterKey, OrderedDict[str, _Holder]] = OrderedDict()
        self._max_callers = max_callers

    def __len__(self) -> int:
        return len(self._callers)

    def request(self, key: CounterKey, report: Report, most: int, now_us: int) -> LeaseRequest:
        """What to prepay for a worker's caller. `most` is the smaller of its `burst` and `rpm`, in requests."""
        holders = self._holders(key)
        use = report.uses.get(self._name, _NOTHING)
        everywhere = sum(each.spent for each in report.uses.values())
        holder = self._holder(holders, report.holder, use, everywhere)
        holder.hear(use.spent, everywhere, now_us)
        if not report.wanted or (use.serial != holder.serial and now_us < holder.ends_us):
            return NO_LEASE  # a lease is on its way: the worker's other requests ask meanwhile
        active = sum(now_us - other.asked_us < ACTIVE_US for other in holders.values())
        at_most = most // (SHARE * active)
        requests = min(int(holder.recent * 2 / 3), holder.may_be_lost, MAX_REQUESTS, at_most)
        if requests <= 0 or at_most < MIN_REQUESTS:
            return NO_LEASE
        holder.serial += 1
        holder.ends_us = now_us + SPAN_US
        return LeaseRequest(requests)

    def grant(self, key: CounterKey, report: Report, requests: int, hits: int) -> Lease | None:
        """What the store prepaid, as a lease; None where that is nothing."""
        holders = self._callers.get(key)
        holder = holders.get(report.holder) if holders else None
        if holder is None or not requests:
            return None
        holder.granted += requests
        return Lease(self._name, holder.serial, requests, hits)

    def _holders(self, key: CounterKey) -> OrderedDict[str, _Holder]:
        holders = self._callers.get(key)
        if holders is None:
            holders = self._callers[key] = OrderedDict()
            if len(self._callers) > self._max_callers:
                self._callers.popitem(last=False)
        else:
            self._callers.move_to_end(key)
        return holders

    @staticmethod
    def _holder(holders: OrderedDict[str, _Holder], name: str, use: LeaseUse, everywhere: int) -> _Holder:
        holder = holders.get(name)
        if holder is None or not holder.spent <= use.spent <= holder.granted:  # it has forgotten, and begins anew
            holder = holders[name] = _Holder(
                serial=use.serial, spent=use.spent, granted=use.spent, spent_everywhere=everywhere
            )
            if len(holders) > MAX_HOLDERS:
                holders.popitem(last=False)
        else:
            holders.move_to_end(name)
        return holder

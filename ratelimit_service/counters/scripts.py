"""The Lua scripts: their text, their keys and arguments, and what decide.lua's reply means.

Each script's header names its arguments in the order in which the functions here give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from ratelimit_service.counters.base import CounterReply, Verb
from ratelimit_service.counters.tally import Tally
from ratelimit_service.leases import NO_LEASE, LeaseRequest
from ratelimit_service.limits import TOKEN, Charge, CounterKey, Override, Reading, limit_of

Arguments = tuple[str | int, ...]
"""The number of keys, the keys, and the arguments: what EVALSHA takes after the hash."""

_ENFORCED, _SHADOW, _POST_CHARGE = range(3)
_REPLY_HEAD = 2
_NUMBERS_EACH = 5
"""In the reply: of each charge, and of each override."""


class Script:
    """A Lua file behind the prelude that all of them share, as one text that is called by its hash."""

    def __init__(self, name: str) -> None:
        folder = Path(__file__).parent
        self.source = (folder / "prelude.lua").read_text("utf-8") + (folder / name).read_text("utf-8")
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class StoreKeys(NamedTuple):
    """A counter's keys in the store."""

    bucket: str
    log: str
    override: str


def store_keys(key: CounterKey) -> StoreKeys:
    """The braces keep all keys of a caller on one node of a cluster."""
    tag, name = key
    return StoreKeys(f"mgw:{{{tag}}}b:{name}", f"mgw:{{{tag}}}m:{name}", f"mgw:{{{tag}}}o:{name}")


def settlement_key(key: CounterKey) -> str:
    """Where reconcile.lua and operate.lua remember how a counter was amended."""
    return f"mgw:{{{key.tag}}}s:{key.rule_name}"


def decide_arguments(charges: Sequence[Charge], now_us: int = 0, lease_request: LeaseRequest = NO_LEASE) -> Arguments:
    """For decide.lua. `now_us` 0 is the server's clock."""
    if len(charges) == 1:  # the usual case, spelt out: it is on every request's way
        tag, rule, hits, _ = charges[0]
        name, limit = rule.name, rule.limit
        numbers = (now_us, *lease_request, hits, limit.capacity, limit.refill, limit.rpm, _mode(charges[0]))
        return (3, f"mgw:{{{tag}}}b:{name}", f"mgw:{{{tag}}}m:{name}", f"mgw:{{{tag}}}o:{name}", *numbers)
    names: list[str] = []
    values: list[int] = []
    for charge in charges:
        names += store_keys(charge.key)
        limit = charge.rule.limit
        values += (charge.hits, limit.capacity, limit.refill, limit.rpm, _mode(charge))
    return (len(names), *names, now_us, *lease_request, *values)


def _mode(charge: Charge) -> int:
    if charge.is_post_charge:
        return _POST_CHARGE
    return _SHADOW if charge.rule.is_shadow else _ENFORCED


def read_reply(reply: list[int], charges: int) -> CounterReply:
    """The reply of decide.lua, by name."""
    now_us, leased = reply[:_REPLY_HEAD]
    end = _REPLY_HEAD + _NUMBERS_EACH * charges
    readings = [Reading._make((*reply[at : at + _NUMBERS_EACH], None)) for at in range(_REPLY_HEAD, end, _NUMBERS_EACH)]
    for at in range(end, len(reply), _NUMBERS_EACH):
        nth, until_us, capacity, refill, rpm = reply[at : at + _NUMBERS_EACH]
        override = Override(limit_of(refill, rpm, capacity // TOKEN), until_us)
        readings[nth - 1] = readings[nth - 1]._replace(override=override)
    return CounterReply(now_us, readings, leased)


def operate_arguments(key: CounterKey, verb: Verb, values: Sequence[int | str], now_us: int = 0) -> Arguments:
    """For operate.lua."""
    return (4, *store_keys(key), settlement_key(key), now_us, verb, *values)


def reconcile_arguments(
    key: CounterKey, tally: Tally, now_us: int, ahead_us: int, is_emptied: bool, store_now_us: int = 0
) -> Arguments:
    """For reconcile.lua. The store's clock is `ahead_us` ahead of `now_us`, this replica's."""
    bucket, log, _ = store_keys(key)
    level = tally.level_at(now_us, tally.refill)
    head = (store_now_us, tally.refill, level, tally.confirmed_at_us, int(is_emptied))
    entries = (
        (at_us + ahead_us, confirmed - confirmed_here, unconfirmed, store_us, confirmed_here)
        for at_us, confirmed, confirmed_here, unconfirmed, store_us in tally.log.entries()
    )
    return (3, bucket, log, settlement_key(key), *head, *chain.from_iterable(entries))

"""The Lua scripts of the store: their names, their keys, and what decide.lua's reply means."""

from __future__ import annotations

from pathlib import Path

import pytest
from lupa.luajit21 import LuaError, LuaRuntime

from ratelimit_service.counters import scripts
from ratelimit_service.counters.base import CounterReply
from ratelimit_service.counters.scripts import Script, decide_arguments, read_reply, reconcile_arguments, store_keys
from ratelimit_service.counters.tally import News, Tally
from ratelimit_service.leases import LeaseRequest
from ratelimit_service.limits import (
    NEVER,
    SECOND_US,
    TOKEN,
    Charge,
    CounterKey,
    Limit,
    Override,
    Reading,
    Rule,
    limit_of,
)
from tests.support.lua_names import declared, names

SCRIPTS = ("decide.lua", "digest.lua", "operate.lua", "reconcile.lua", "windows.lua")
KNOWN = {"KEYS", "ARGV", "redis", "string", "table", "math", "tonumber", "ipairs", "unpack"}
"""What a script may use beside its own names: the server gives each these."""
NOW_US = 1_800_000_000_000_000


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_uses_no_name_that_nobody_gave_it(name: str) -> None:
    """A misspelt name would be nil, and found out by a request; a global would stay for the next request."""
    text = Script(name).source

    assert set(names(text)) - declared(text) <= KNOWN


def test_the_prelude_writes_no_global() -> None:
    """It runs before each script, in the server's one interpreter, so it must leave nothing behind."""
    prelude = Path(scripts.__file__).with_name("prelude.lua").read_text("utf-8")
    assert all(Script(name).source.startswith(prelude) for name in SCRIPTS)
    run = LuaRuntime().eval(
        """function(text)
          local given = setmetatable({ARGV = {'1'}, redis = {call = true}}, {__index = _G})
          local function write(_, name) error('writes ' .. name) end
          return setfenv(assert(loadstring(text)), setmetatable({}, {__index = given, __newindex = write}))()
        end"""
    )

    run(prelude)
    with pytest.raises(LuaError, match="writes leaked"):
        run(prelude + "leaked = 1")


KEY = CounterKey("c" * 22, "tier")
LIMIT = Limit(10, 200, 20)


def test_a_counters_keys() -> None:
    """Three, with the caller's tag in braces."""
    tag = "{" + "c" * 22 + "}"

    assert store_keys(KEY) == (f"mgw:{tag}b:tier", f"mgw:{tag}m:tier", f"mgw:{tag}o:tier")


@pytest.mark.parametrize(
    ("rule", "is_post_charge", "mode"),
    [(Rule("tier", LIMIT), False, 0), (Rule("tier", LIMIT, is_shadow=True), False, 1), (Rule("tier", LIMIT), True, 2)],
)
def test_one_charge_is_asked_like_several(rule: Rule, is_post_charge: bool, mode: int) -> None:
    """The usual case is written out, and must not differ from the loop."""
    charge = Charge(KEY.tag, rule, 3, is_post_charge)
    lease = LeaseRequest(7)
    numbers = (3, LIMIT.capacity, LIMIT.refill, LIMIT.rpm, mode)

    assert decide_arguments([charge], 5, lease) == (3, *store_keys(KEY), 5, *lease, *numbers)
    twice = decide_arguments([charge, charge], 5, lease)
    assert twice == (6, *store_keys(KEY), *store_keys(KEY), 5, *lease, *numbers, *numbers)


def test_a_reply_by_name() -> None:
    """The time, the leased requests, five numbers for each charge, and five for each override in force."""
    override = limit_of(2_000, 50, 5)
    reply = [9, 4, 1, 2, 3, 0, 0, 6, 7, 8, 10, -1, 2, 99, override.capacity, override.refill, override.rpm]

    assert read_reply(reply, 2) == CounterReply(
        now_us=9,
        readings=[
            Reading(used=1, oldest_us=2, level=3, burst_wait_us=0, minute_wait_us=0),
            Reading(6, 7, 8, burst_wait_us=10, minute_wait_us=NEVER, override=Override(override, until_us=99)),
        ],
        leased=4,
    )


def test_what_the_store_is_told_after_an_outage() -> None:
    """Its level; and by the store's clock what others did, what passed without it, and what it confirmed here."""
    tally = Tally()
    news = News(NOW_US - 5 * SECOND_US, 3, 3 * TOKEN, LIMIT.refill)
    tally.observe(NOW_US - 5 * SECOND_US, 2, news, NOW_US - 5 * SECOND_US + 8)
    tally.charge_unconfirmed(NOW_US - SECOND_US, 4, 17 * TOKEN, LIMIT)
    tally.confirmed_at_us = 77
    bucket, log, _ = store_keys(KEY)
    level = 17 * TOKEN - SECOND_US * LIMIT.refill
    confirmed = (NOW_US - 5 * SECOND_US + 7, 1, 0, NOW_US - 5 * SECOND_US + 8, 2)
    unconfirmed = (NOW_US - SECOND_US + 7, 0, 4, 0, 0)

    told = reconcile_arguments(KEY, tally, NOW_US, 7, True)

    head = (3, bucket, log, f"mgw:{{{KEY.tag}}}s:tier", 0, LIMIT.refill, level, 77, 1)
    assert told == (*head, *confirmed, *unconfirmed)

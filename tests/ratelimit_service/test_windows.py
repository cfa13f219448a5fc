"""Plain limits in a window: the log and the sliding counter, in Redis and in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit_service.counters.windows import MemoryWindows, RedisWindows
from ratelimit_service.limits import NEVER, SECOND_US
from ratelimit_service.windows import SLOTS, Reading, Spend, Unit, counter_key, passes, slot_us

START = 1_800_000_000 * SECOND_US
Wanted = tuple[int, Unit, int, int, bool, bool]
Step = tuple[int, list[Wanted]]

MODES = (st.booleans(), st.booleans())
SPENDS = st.tuples(st.integers(0, 2), st.sampled_from(Unit), st.integers(0, 12), st.integers(0, 5), *MODES)
STEPS = st.lists(st.tuples(st.integers(0, 45 * SECOND_US), st.lists(SPENDS, min_size=1, max_size=3)), max_size=30)


def spends_of(wanted: list[Wanted]) -> list[Spend]:
    """One spend a counter, as the server sees to; the unit is part of the name."""
    named = {
        (key := f"{unit.name}{number}"): Spend(key, unit, limit, hits, shadow, quota)
        for number, unit, limit, hits, shadow, quota in wanted
    }
    return list(named.values())


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(Unit), st.integers(1, 20), st.lists(st.tuples(st.floats(0, 0.4), st.integers(1, 6)), max_size=60)
)
def test_no_window_has_more_than_its_limit(unit: Unit, limit: int, steps: list[tuple[float, int]]) -> None:
    """Wherever a window is laid, it holds at most the limit; up to a minute, a refusal was not a moment too long."""
    counters, now_us, admitted = MemoryWindows(10), START, list[tuple[int, int]]()
    for share, hits in steps:
        now_us += int(share * unit.window_us)
        _, (reading,) = asyncio.run(_spend(counters, [Spend("k", unit, limit, hits)], now_us))
        inside = sum(each for at, each in admitted if at > now_us - unit.window_us)
        if reading.wait_us == 0:
            assert inside + hits <= limit
            admitted.append((now_us, hits))
        elif not slot_us(unit):
            assert inside + hits > limit, "an exact log refuses only what does not fit"
        else:
            slack_us = unit.window_us + slot_us(unit)
            assert sum(each for at, each in admitted if at > now_us - slack_us) + hits > limit


async def _spend(counters: MemoryWindows, spends: list[Spend], now_us: int) -> tuple[int, list[Reading]]:
    return await counters.spend(spends, now_us)


@pytest.mark.parametrize("unit", Unit)
async def test_the_wait_is_enough_and_not_too_long(unit: Unit) -> None:
    """At the told moment the request passes; a microsecond before it does not."""
    full, one = Spend("k", unit, 3, 3), Spend("k", unit, 3, 1)

    for early_us, is_enough in ((1, False), (0, True)):
        counters = MemoryWindows(10)
        await counters.spend([full], START)
        _, (refused,) = await counters.spend([one], START + 5)
        _, (again,) = await counters.spend([one], START + 5 + refused.wait_us - early_us)
        assert (again.wait_us == 0) is is_enough


async def test_all_are_charged_or_none() -> None:
    """One that does not fit leaves the others as they were."""
    counters = MemoryWindows(10)
    narrow, wide = Spend("narrow", Unit.MINUTE, 1, 1), Spend("wide", Unit.HOUR, 100, 1)

    await counters.spend([narrow, wide], START)
    await counters.spend([narrow, wide], START + 1)
    _, readings = await counters.spend([narrow, wide], START + 2)

    assert [reading.used for reading in readings] == [1, 1]


async def test_a_shadow_refuses_nothing() -> None:
    """It is full and says so; the request passes and charges the others."""
    counters = MemoryWindows(10)
    shadow, real = Spend("shadow", Unit.MINUTE, 1, 1, True), Spend("real", Unit.MINUTE, 9, 1)

    for number in range(3):
        await counters.spend([shadow, real], START + number)
    _, (shaded, counted) = await counters.spend([shadow, real], START + 3)

    assert (shaded.used, counted.used) == (1, 3)
    assert shaded.wait_us > 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*MODES, st.booleans()), max_size=5))
def test_which_requests_pass(asked: list[tuple[bool, bool, bool]]) -> None:
    """Refused is what has a plain limit exceeded, or all of its quotas; a shadow is never exceeded."""
    spends = [Spend(str(at), Unit.DAY, 1, 1, shadow, quota) for at, (shadow, quota, _) in enumerate(asked)]
    readings = [Reading(0, 0, int(over)) for _, _, over in asked]
    exceeded = [(quota, over and not shadow) for shadow, quota, over in asked]

    plain = sum(over for quota, over in exceeded if not quota)
    quotas, failed = sum(quota for quota, _ in exceeded), sum(quota and over for quota, over in exceeded)
    assert passes(spends, readings) is not (plain > 0 or (quotas > 0 and quotas == failed))


async def test_a_quota_that_is_full_is_not_charged() -> None:
    """The other one is, and lets the request pass until it is full too."""
    counters = MemoryWindows(10)
    small, large = (Spend(str(limit), Unit.MINUTE, limit, 1, is_quota=True) for limit in (1, 3))

    for number in range(4):
        await counters.spend([small, large], START + number)
    _, readings = await counters.spend([small, large], START + 4)

    assert [reading.used for reading in readings] == [1, 3]


async def test_more_than_the_limit_never_fits() -> None:
    """Waiting does not help a request that asks for more than there ever is; a limit of 0 refuses everything."""
    counters = MemoryWindows(10)

    for spend in (Spend("k", Unit.MINUTE, 3, 4), Spend("z", Unit.DAY, 0, 1)):
        _, (reading,) = await counters.spend([spend], START)
        assert reading.wait_us == NEVER


async def test_memory_is_bounded() -> None:
    """Old entries are let go of, and so are the least recently used counters."""
    counters = MemoryWindows(5)
    for number in range(10_000):
        await counters.spend([Spend("k", Unit.SECOND, 100, 1)], START + number * 20_000)
        await counters.spend([Spend("y", Unit.HOUR, 10**6, 1)], START + number * 20 * SECOND_US)
    log, slots = counters._counters["k"], counters._counters["y"]

    assert len(log._leaves) < 200  # type: ignore[union-attr]
    assert len(slots._hits) <= SLOTS + 2  # type: ignore[union-attr]
    for number in range(20):
        await counters.spend([Spend(str(number), Unit.SECOND, 1, 1)], START)
    assert len(counters) == 5


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_redis_and_memory_agree(valkey: Any, open_counters: Callable[..., Any], steps: list[Step]) -> None:
    """The script and its twin give the same readings for the same history, whatever it is."""

    async def compare() -> None:
        valkey.client().flushall()
        async with open_counters(valkey) as store:
            here, there, now_us = MemoryWindows(1000), RedisWindows(store), START
            for pause_us, wanted in steps:
                now_us += pause_us
                spends = spends_of(wanted)
                assert await here.spend(spends, now_us) == await there.spend(spends, now_us)

    asyncio.run(compare())


async def test_every_key_expires(valkey: Any, open_counters: Callable[..., Any]) -> None:
    """What nobody asks about goes by itself, a second after its window."""
    async with open_counters(valkey) as store:
        for unit in Unit:
            await RedisWindows(store).spend([Spend(unit.name, unit, 5, 1)])
        client = valkey.client()
        for unit in Unit:
            lifetime = client.pttl(f"mgw:rls:{unit.name}") / 1000
            assert unit.value < lifetime <= unit.value * (1 + 1 / SLOTS) + 1.01


async def test_the_stores_own_clock_counts(valkey: Any, open_counters: Callable[..., Awaitable[Any]]) -> None:
    """Side by side, replicas admit exactly the limit."""
    async with open_counters(valkey) as one, open_counters(valkey) as other:  # type: ignore[attr-defined]
        spend = [Spend("k", Unit.MINUTE, 50, 1)]
        stores = [RedisWindows(one), RedisWindows(other)]
        answers = await asyncio.gather(*(stores[number % 2].spend(spend) for number in range(200)))

    assert sum(readings[0].wait_us == 0 for _, readings in answers) == 50


def test_no_two_counters_share_a_key() -> None:
    """Neither by what the texts hold nor by where one ends."""
    keys = {
        counter_key("d", [("a", "b")], Unit.MINUTE),
        counter_key("d", [("a", "b")], Unit.HOUR),
        counter_key("da", [("", "b")], Unit.MINUTE),
        counter_key("d", [("ab", "")], Unit.MINUTE),
        counter_key("d", [("a", ""), ("b", "")], Unit.MINUTE),
        counter_key("d", [("a", "b"), ("a", "b")], Unit.MINUTE),
    }

    assert len(keys) == 6

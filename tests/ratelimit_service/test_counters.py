"""One suite for every kind of counters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from ratelimit_service.counters.base import CounterReply
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.limits import SECOND_US, Charge, Reading

Decide = Callable[..., Awaitable[list[Reading]]]
AChargeOf = Callable[..., Charge]
START_US = 1_800_000_000_000_000


@pytest.fixture(params=["memory", "redis"])
async def decide(request: pytest.FixtureRequest) -> AsyncIterator[Decide]:
    """Decide at a time, given in seconds."""
    if request.param == "memory":
        now_us = START_US
        memory = MemoryCounters(clock=lambda: now_us)

        async def decide_in_memory(at: float, *charges: Charge) -> list[Reading]:
            nonlocal now_us
            now_us = START_US + round(at * SECOND_US)
            return (await memory.decide(charges)).readings

        yield decide_in_memory
        return
    open_counters: Any = request.getfixturevalue("open_counters")
    async with open_counters(request.getfixturevalue("valkey")) as counters:

        async def decide_in_redis(at: float, *charges: Charge) -> list[Reading]:
            reply: CounterReply = await counters.decide(charges, now_us=START_US + round(at * SECOND_US))
            return reply.readings

        yield decide_in_redis


def passes(readings: Sequence[Reading]) -> bool:
    return all(reading.passes for reading in readings)


async def test_counts_before_it_adds(decide: Decide, a_charge: AChargeOf) -> None:
    """A reading is what was there before: nothing at first, then one hit."""
    assert await decide(0, a_charge()) == [Reading(0, 0, 0, 0, 0)]
    assert await decide(0.1, a_charge()) == [Reading(1, START_US, 0, 0, 0)]


async def test_steady_caller(decide: Decide, a_charge: AChargeOf) -> None:
    """A caller at exactly its rate is never over limit, for minutes."""
    charge = a_charge(rps=1, rpm=60, burst=1)

    assert all([passes(await decide(second, charge)) for second in range(180)])


async def test_steady_caller_above_its_rate(decide: Decide, a_charge: AChargeOf) -> None:
    """A caller at twice its rate gets its rate, and is not locked out."""
    charge = a_charge(rps=1, rpm=60, burst=1)

    assert sum([passes(await decide(half / 2, charge)) for half in range(240)]) == 120


async def test_all_or_none(decide: Decide, a_charge: AChargeOf) -> None:
    """When one charge of a request is over limit, no other counter is touched."""
    narrow = a_charge(rule="route:login", rpm=1)
    wide = a_charge()
    assert passes(await decide(0, narrow, wide))

    assert not passes(await decide(1, narrow, wide))

    assert (await decide(1, wide._replace(hits=0)))[0].used == 1


async def test_equal_times_are_two_hits(decide: Decide, a_charge: AChargeOf) -> None:
    """Hits at the same microsecond count as many."""
    for _ in range(5):
        await decide(0, a_charge())

    assert (await decide(0, a_charge(hits=0)))[0].used == 5


async def test_peek(decide: Decide, a_charge: AChargeOf) -> None:
    """0 hits read and take nothing."""
    await decide(0, a_charge(hits=3))
    for _ in range(3):
        reading = (await decide(0, a_charge(hits=0)))[0]

    assert (reading.used, reading.level) == (3, 3_000_000_000)


async def test_callers_apart(decide: Decide, a_charge: AChargeOf) -> None:
    """Callers and rules have counters of their own."""
    await decide(0, a_charge(hits=20))

    assert passes(await decide(0, a_charge(caller="d" * 22)))
    assert passes(await decide(0, a_charge(rule="route:search")))
    assert not passes(await decide(0, a_charge()))


async def test_counter_keeps_its_spending_when_numbers_change(decide: Decide, a_charge: AChargeOf) -> None:
    """60 of 100 spent: lowered to 80 leaves 20, raised to 200 leaves 140."""
    await decide(0, a_charge(hits=60, rpm=100, burst=1000))

    assert not passes(await decide(0, a_charge(hits=21, rpm=80, burst=1000)))
    assert not passes(await decide(0, a_charge(hits=141, rpm=200, burst=1000)))
    assert passes(await decide(0, a_charge(hits=140, rpm=200, burst=1000)))


async def test_many_hits_at_once(decide: Decide, a_charge: AChargeOf) -> None:
    """Thousands of hits are taken as a whole."""
    charge = a_charge(hits=4500, rpm=5000, burst=5000, rps=1000)
    assert passes(await decide(0, charge))

    reading = (await decide(10, charge))[0]
    assert (reading.used, reading.minute_wait_us) == (4500, 50 * SECOND_US)


async def test_clock_goes_back(decide: Decide, a_charge: AChargeOf) -> None:
    """After the clock went back an hour, a spent minute is free again after a minute."""
    charge = a_charge(hits=5, rpm=5)
    await decide(3600, charge)

    assert (await decide(0, charge))[0].minute_wait_us == 60 * SECOND_US
    assert passes(await decide(60, charge))


async def test_what_costs_nothing_needs_room_for_one(decide: Decide, a_charge: AChargeOf) -> None:
    """0 hits pass while 1 would, under both rules, and say the same wait."""
    slow, narrow = a_charge(burst=2, rps=1), a_charge(rule="route:login", rpm=2)
    await decide(0, slow._replace(hits=2), narrow._replace(hits=2))

    for charge in (slow, narrow):
        (free,), (dear,) = await decide(0.5, charge._replace(hits=0)), await decide(0.5, charge._replace(hits=1))
        assert not free.passes
        assert free == dear
    assert passes(await decide(1, slow._replace(hits=0)))
    assert passes(await decide(60, narrow._replace(hits=0)))

"""The scripts on a real server: equal to the model, exact under concurrency, tidy in memory."""

from __future__ import annotations

import asyncio
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit_service.counters.base import CounterReply
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.counters.scripts import Script, decide_arguments, operate_arguments, read_reply, store_keys
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.leases import NO_LEASE, SHARE, SPAN_US, LeaseRequest
from ratelimit_service.limits import TOKEN, WINDOW_US, Charge, CounterKey, Limit, Reading, Rule
from tests.support.mgw import ROOT
from tests.support.valkey import run_script
from tests.support.waiting import is_waiting, until

START_US = 1_800_000_000_000_000
ACharge = Callable[..., Charge]
KEY = CounterKey("c" * 22, "tier")


@pytest.fixture(scope="module")
def client(shared_valkey: Any) -> redis.Redis:
    connected: redis.Redis = shared_valkey.client()
    connected.script_load(Script("decide.lua").source)
    return connected


def decide(client: redis.Redis, charges: list[Charge], now_us: int = 0) -> tuple[int, list[Reading]]:
    reply = ask(client, charges, now_us)
    assert reply.leased == 0
    return reply.now_us, reply.readings


def ask(
    client: redis.Redis, charges: list[Charge], now_us: int = 0, lease_request: LeaseRequest = NO_LEASE
) -> CounterReply:
    arguments = decide_arguments(charges, now_us, lease_request)
    return read_reply(run_script(client, Script("decide.lua").sha, arguments), len(charges))


limit_numbers = st.builds(
    Limit, rps=st.sampled_from([0.007, 0.3, 1, 3, 17, 1000]), rpm=st.integers(1, 40), burst=st.integers(1, 30)
)
waits_us = st.one_of(
    st.just(0), st.integers(1, 300_000), st.integers(0, 2 * WINDOW_US), st.integers(-WINDOW_US, 0), st.just(WINDOW_US)
)
one_charge = st.tuples(st.sampled_from("ab"), st.sampled_from(["tier", "route:x"]), st.integers(0, 12))
requests = st.tuples(waits_us, st.lists(one_charge, min_size=1, max_size=3), st.integers(0, 9))
histories = st.tuples(st.lists(limit_numbers, min_size=2, max_size=3), st.lists(requests, max_size=40))


@given(histories)
@settings(max_examples=300, deadline=None)
def test_script_equals_model(client: redis.Redis, history: tuple[list[Limit], list[Any]]) -> None:
    """Over random histories, with changing numbers and a clock that jumps both ways, script and model agree exactly."""
    client.flushdb()
    now_us = START_US
    # The model forgets an idle caller for all times; a clock that then goes back would find it still in the store.
    model = MemoryCounters(clock=lambda: now_us, quiet_us=2 * START_US)
    limits, steps = history
    for wait_us, asked, limit_index in steps:
        now_us += wait_us
        rule_limit = limits[limit_index % len(limits)]
        unique = {(caller, name): hits for caller, name, hits in asked}
        charges = [Charge(caller * 22, Rule(name, rule_limit), hits) for (caller, name), hits in unique.items()]

        with pytest.raises(StopIteration) as stop:
            model.decide(charges).send(None)
        assert decide(client, charges, now_us) == stop.value.value[:2]


def test_the_largest_numbers(client: redis.Redis) -> None:
    """At the largest numbers that a policy may have, script and model still agree to the microsecond."""
    client.flushdb()
    now_us = START_US + 999_999
    model = MemoryCounters(clock=lambda: now_us)
    charge = Charge("z" * 22, Rule("tier", Limit(0.001, 1_000_000, 1_000_000)), 9_999)
    for step in range(110):
        now_us += 7919 * step
        with pytest.raises(StopIteration) as stop:
            model.decide([charge]).send(None)
        assert decide(client, [charge], now_us) == stop.value.value[:2]


def test_server_clock(client: redis.Redis, a_charge: ACharge) -> None:
    """In production the time is the server's own."""
    client.flushdb()
    now_us, _ = decide(client, [a_charge()])

    assert abs(now_us / 1e6 - time.time()) < 1


def test_every_key_expires(client: redis.Redis, a_charge: ACharge) -> None:
    """Each key goes when it can no longer count: after a minute, or when the bucket has drained."""
    client.flushdb()
    decide(client, [a_charge(), a_charge(rule="route:slow", rps=0.1, burst=20, hits=20)])

    found: list[Any] = client.keys("*")
    assert {key[-4:] for key in found} == {b"tier", b"slow"}
    assert all(60_000 < client.pttl(key) <= 61_001 for key in bucket_and_log("tier"))
    assert all(200_000 < client.pttl(key) <= 201_001 for key in bucket_and_log("route:slow"))


def test_keys_of_a_caller_share_a_slot(a_charge: ACharge) -> None:
    """The keys of one caller are braced alike, so that a cluster keeps them together."""
    names = [name for rule in ("tier", "route:x") for name in store_keys(CounterKey("t" * 22, rule))]

    assert {name[name.index("{") : name.index("}") + 1] for name in names} == {"{" + "t" * 22 + "}"}
    assert len(set(names)) == 6


def bucket_and_log(rule: str) -> tuple[str, str]:
    return store_keys(CounterKey("c" * 22, rule))[:2]


def test_log_is_bounded(client: redis.Redis, a_charge: ACharge) -> None:
    """A log never holds more than rpm hits, however long the caller goes on."""
    client.flushdb()
    charge = a_charge(rps=1000, rpm=50, burst=50)
    for second in range(600):
        decide(client, [charge], START_US + second * 500_000)

    assert client.zcard(store_keys(charge.key).log) <= 50


def test_lost_bucket(client: redis.Redis, a_charge: ACharge) -> None:
    """If the bucket alone is gone, the log's members are not overwritten."""
    client.flushdb()
    decide(client, [a_charge(hits=5)], START_US)
    client.delete(store_keys(KEY).bucket)
    decide(client, [a_charge(hits=5)], START_US)

    assert decide(client, [a_charge(hits=0)], START_US)[1][0].used == 10


async def test_one_write_a_turn(valkey: Any, open_counters: Any, recorder: Any, a_charge: ACharge) -> None:
    """Requests that arrive in one turn of the loop share one round trip."""
    async with open_counters(valkey) as counters:
        recorder.batches.clear()
        await asyncio.gather(*(counters.decide([a_charge()]) for _ in range(50)))

    assert recorder.batches == [50]


async def test_scripts_flushed(valkey: Any, open_counters: Any, recorder: Any, a_charge: ACharge) -> None:
    """A server that forgot the scripts is given them again; nobody notices."""
    async with open_counters(valkey) as counters:
        valkey.client().script_flush()
        await counters.decide([a_charge()])
        assert (await counters.decide([a_charge()]))[1][0].used == 1
    assert recorder.states == ["up"]


async def test_spoilt_key(valkey: Any, open_counters: Any, recorder: Any, a_charge: ACharge) -> None:
    """A key that holds something else concerns its caller alone; the store stays up."""
    valkey.client().lpush(store_keys(KEY).log, "not ours")
    async with open_counters(valkey) as counters:
        with pytest.raises(CountersUnavailable, match="WRONGTYPE"):
            await counters.decide([a_charge()])
        assert (await counters.decide([a_charge(caller="d" * 22)]))[1][0].used == 0
    assert recorder.states == ["up"]


async def test_cancelled_request(valkey: Any, open_counters: Any, recorder: Any, a_charge: ACharge) -> None:
    """A request that is cancelled while it waits costs no one else the connection."""
    async with open_counters(valkey) as counters:
        tasks = [asyncio.create_task(counters.decide([a_charge(rpm=1000, burst=1000)])) for _ in range(20)]
        await until(lambda: all(map(is_waiting, tasks)), every=0)  # before the store can reply
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, tuple) for result in results) == 10
    assert recorder.states == ["up"]


CLIENT = """
import asyncio, sys
from ratelimit_service.counters.connect import connector
from ratelimit_service.counters.redis import RedisCounters
from ratelimit_service.limits import Charge, Limit, Rule
from service_kit.store_url import read_store_url
from tests.support.waiting import until
class NoMetrics:
    def __getattr__(self, name): return lambda *values: None
async def main(url, calls):
    counters = RedisCounters(connector(read_store_url(url)), NoMetrics(), None, 5.0)
    running = asyncio.create_task(counters.run())
    await until(lambda: counters.is_up)
    charge = Charge("c" * 22, Rule("tier", Limit(1000, 100, 1000)), 1)
    answers = await asyncio.gather(*(counters.decide([charge]) for _ in range(calls)))
    print(sum(answer.readings[0].passes for answer in answers))
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_exact_over_processes(valkey: Any) -> None:
    """300 calls at once, from three processes: exactly the limit is admitted."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, valkey.url, "100", stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        for _ in range(3)
    ]
    outputs = [(await process.communicate())[0] for process in processes]

    assert sum(int(output) for output in outputs) == 100
    assert valkey.client().zcard(store_keys(KEY).log) == 100


class Moment(NamedTuple):
    """A request of one of two workers, some time after the one before."""

    wait_us: int
    worker: int
    lease_request: int
    back_us: int = 0
    """By how much the store's clock is set back before it."""


moments = st.builds(
    Moment,
    st.one_of(st.just(0), st.integers(0, 3_000), st.integers(0, 200_000), st.integers(0, 20_000_000)),
    st.integers(0, 1),
    st.integers(0, 128),
    st.sampled_from([0] * 20 + [1, 40_000, 150_000, 3_600_000_000]),
)


def passed_with_leases(client: redis.Redis, limit: Limit, history: list[Moment]) -> list[int]:
    """When requests passed, by two workers that spend what they hold before they ask, until the lease's last moment.

    Their clocks are right; the store's may be set back.
    """
    client.flushdb()
    charge = Charge("a" * 22, Rule("tier", limit), 1)
    now_us, behind_us, held, passed = START_US, 0, [(0, 0), (0, 0)], []
    for moment in history:
        now_us += moment.wait_us
        behind_us += moment.back_us
        left, ends_us = held[moment.worker]
        if left and now_us <= ends_us:
            held[moment.worker] = left - 1, ends_us
            passed.append(now_us)
            continue
        lease_request = LeaseRequest(moment.lease_request)
        _, (reading,), leased = ask(client, [charge], now_us - behind_us, lease_request)
        assert leased <= lease_request.requests
        assert leased <= min(limit.burst, limit.rpm) // SHARE
        assert reading.passes or not leased
        held[moment.worker] = leased, now_us + lease_request.span_us
        passed += [now_us] * reading.passes
    return passed


@given(
    st.builds(
        Limit, rps=st.sampled_from([0.5, 7, 40, 400]), rpm=st.integers(20, 200), burst=st.sampled_from([20, 60, 150])
    ),
    st.lists(moments, min_size=50, max_size=400),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_leases_stay_within_the_limit(client: redis.Redis, limit: Limit, history: list[Moment]) -> None:
    """Whenever a lease is spent, no minute holds more than rpm, and no span of t more than burst and rps times t."""
    passed = passed_with_leases(client, limit, history)

    for first, begins_us in enumerate(passed):
        in_the_minute = bisect_left(passed, begins_us + WINDOW_US) - first
        assert in_the_minute <= limit.rpm
        for last in range(first, len(passed)):
            allowed = limit.capacity + (passed[last] - begins_us) * limit.refill
            assert (last - first + 1) * TOKEN <= allowed


@pytest.mark.parametrize("back_us", [10, SPAN_US // 2, 3_600_000_000])
def test_a_lease_outlives_a_clock_that_was_set_back(client: redis.Redis, back_us: int) -> None:
    """It counts until a minute after it can last be spent, by whichever clock."""
    client.flushdb()
    charge = Charge("a" * 22, Rule("tier", Limit(1_000_000, 1000, 1_000_000)), 1)
    leased = ask(client, [charge], START_US, LeaseRequest(128)).leased
    assert leased == 50
    ask(client, [charge], START_US + 5 - back_us)  # finds that the clock was set back

    still_out_us = START_US + SPAN_US + WINDOW_US - 1 - back_us
    (reading,) = decide(client, [charge._replace(hits=0)], still_out_us)[1]
    assert reading.used == leased
    (reading,) = decide(client, [charge._replace(hits=0)], still_out_us + 6)[1]
    assert reading.used == 0


def test_a_lease_is_granted_while_there_is_room(client: redis.Redis) -> None:
    """A twentieth at most; none from the second half of the bucket; and every key still expires."""
    client.flushdb()
    charge = Charge("a" * 22, Rule("tier", Limit(1, 1000, 400)), 1)
    granted = []
    for _ in range(30):
        granted.append(ask(client, [charge], START_US, LeaseRequest(128)).leased)

    assert granted[:9] == [20] * 9
    assert sum(granted) + granted.index(0) <= 200
    assert set(granted[12:]) == {0}
    assert client.zcard(store_keys(charge.key).log) == 30 + sum(granted)
    assert all(client.pttl(key) > 0 for key in client.scan_iter())


def test_a_reset_leaves_leases_charged(client: redis.Redis) -> None:
    """They may still be spent: forgotten, they would pass beside a whole new limit."""
    client.flushdb()
    charge = Charge("a" * 22, Rule("tier", Limit(1, 1000, 400)), 1)
    for _ in range(3):
        ask(client, [charge], START_US, LeaseRequest(20))

    assert reset(client, START_US + 1) == 3
    (kept,) = decide(client, [charge._replace(hits=0)], START_US + 1)[1]
    assert (kept.used, kept.level) == (60, 60 * TOKEN)
    assert reset(client, START_US + SPAN_US) == 60
    assert decide(client, [charge], START_US + SPAN_US)[1][0].used == 0


def reset(client: redis.Redis, now_us: int) -> Any:
    script = Script("operate.lua")
    client.script_load(script.source)
    return run_script(client, script.sha, operate_arguments(CounterKey("a" * 22, "tier"), "reset", (), now_us))

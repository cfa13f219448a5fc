"""Both scripts against the model, over random histories of requests and of an operator's changes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.counters.scripts import Script, decide_arguments, operate_arguments, read_reply
from ratelimit_service.limits import WINDOW_US, Charge, CounterKey, Limit, Rule
from tests.support.valkey import run_script

START_US = 1_800_000_000_000_000
DECIDE, OPERATE = Script("decide.lua"), Script("operate.lua")

limit_numbers = st.builds(
    Limit, rps=st.sampled_from([0.007, 0.3, 1, 3, 1000]), rpm=st.integers(1, 30), burst=st.integers(1, 20)
)
waits_us = st.one_of(
    st.just(0), st.integers(1, 300_000), st.integers(0, 2 * WINDOW_US), st.integers(-WINDOW_US, 0), st.just(WINDOW_US)
)
callers, names = st.sampled_from("ab"), st.sampled_from(["tier", "global:x", "route:y"])
kinds = st.sampled_from(["enforced", "enforced", "shadow", "post-charge"])
one_charge = st.tuples(callers, names, st.integers(0, 10), kinds)
requests = st.tuples(st.just("decide"), st.lists(one_charge, min_size=1, max_size=4), st.integers(0, 9))
resets = st.tuples(st.sampled_from(["reset", "remove"]), callers, names, st.just(()))
grants = st.tuples(st.just("grant"), callers, names, st.tuples(st.integers(1, 12)))
overrides = st.tuples(
    st.just("override"),
    callers,
    names,
    st.tuples(
        # Redis ends an override by its own clock, which runs on while the history's stands still: never a short one.
        st.sampled_from([0, START_US - 1_000 * WINDOW_US, START_US + 1_000 * WINDOW_US]),
        st.one_of(st.just(0), st.integers(WINDOW_US, 3 * WINDOW_US)),
        st.integers(1, 20),
        st.sampled_from([7, 1000, 1_000_000]),
        st.integers(0, 30),
        st.just("a note"),
    ),
)
steps = st.tuples(waits_us, st.one_of(requests, requests, requests, resets, grants, overrides))


@pytest.fixture(scope="module")
def client(shared_valkey: Any) -> redis.Redis:
    connected: redis.Redis = shared_valkey.client()
    for script in (DECIDE, OPERATE):
        connected.script_load(script.source)
    return connected


def charges_of(asked: list[Any], limit: Limit) -> list[Charge]:
    unique = {(caller, name): (hits, kind) for caller, name, hits, kind in asked}
    return [
        Charge(caller * 22, Rule(name, limit, is_shadow=kind == "shadow"), hits, kind == "post-charge")
        for (caller, name), (hits, kind) in unique.items()
    ]


@given(st.lists(limit_numbers, min_size=2, max_size=3), st.lists(steps, max_size=40))
@settings(max_examples=300, deadline=None)
def test_scripts_equal_the_model(client: redis.Redis, limits: list[Limit], history: list[Any]) -> None:
    """Whatever is asked, post-charged, tried as a shadow, overridden, reset or given back: both say the same."""
    client.flushdb()
    now_us = START_US
    model = MemoryCounters(clock=lambda: now_us, quiet_us=2 * START_US)
    with asyncio.Runner() as runner:
        for wait_us, (verb, *what) in history:
            now_us += wait_us
            if verb == "decide":
                charges = charges_of(what[0], limits[what[1] % len(limits)])
                answer: Any = run_script(client, DECIDE.sha, decide_arguments(charges, now_us))
                assert read_reply(answer, len(charges)) == runner.run(model.decide(charges))
            else:
                caller, name, values = what
                key = CounterKey(caller * 22, name)
                told = run_script(client, OPERATE.sha, operate_arguments(key, verb, values, now_us))
                assert told == runner.run(model.operate(key, verb, *values))


def test_an_override_ends_by_itself(client: redis.Redis) -> None:
    """Its key expires with it."""
    client.flushdb()
    values = (0, 5_000_000, 10, 1000, 10, "{}")
    run_script(client, OPERATE.sha, operate_arguments(CounterKey("c" * 22, "tier"), "override", values))

    (key,) = client.keys("*")
    assert 4_000 < client.pttl(key) <= 5_000

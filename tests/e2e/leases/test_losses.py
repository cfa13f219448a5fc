"""Leases on real Envoys: what is lost of them, and what holds when a part is gone."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.leases.busy import (
    HELD,
    PATH,
    TIGHT,
    addresses,
    decisions,
    hammer_all,
    hammered,
    let_pass,
    passed,
    request_of,
    telling,
    the_document,
    the_tier,
    wait_for_answers,
)
from tests.support.gateway import Gateway, bearer, token, unique
from tests.support.waiting import eventually
from tests.support.wire import Connection


@pytest.mark.parametrize("delay", ["0.05", "0.3"])
def test_a_slow_service_wastes_next_to_nothing(leasing: Gateway, delay: str) -> None:
    """Who cannot spend a lease in its life gets none that is larger: what is charged is what passed, and a little."""
    caller = unique()
    data = request_of(bearer(token(caller, "heavy")), PATH, [("X-Demo-Delay", delay)])

    through = passed(hammer_all(addresses(leasing), data, 8, seconds=3))

    used = the_tier(leasing, caller, "heavy")["used"]
    assert len(through) <= used <= 1.1 * len(through) + 10


def test_who_goes_away_leaves_no_answer_without_numbers(leasing: Gateway) -> None:
    """Requests that are given up leave nothing behind that others would feel."""
    credential = bearer(token(tier="heavy"))
    data, silent = request_of(credential, PATH, [("X-Demo-Delay", "0.05")]), let_pass(leasing)
    with hammered(leasing, request_of(credential, PATH)) as passages:
        for _ in range(200):
            with Connection(leasing.address) as connection:
                connection.send(data)

    telling(leasing, passed(passages), silent)


def test_without_the_service_the_fallback_limit_holds(start: Any) -> None:
    """Leases that are out end by themselves; then each Envoy gives the tier's burst and rate, as ever."""
    document = the_document()
    document["limits"]["tiers"]["quick"] = numbers = {"rps": 200, "rpm": 60_000, "burst": 1400}
    gateway: Gateway = start(document=document)
    data = request_of(bearer(token(tier="quick")), PATH)
    with hammered(gateway, data) as passages:
        gateway.kill("ratelimit")
        gone = time.monotonic()
        wait_for_answers(passages, gone, number=1, status=429)
        used_up = time.monotonic()
        wait_for_answers(passages, used_up, number=100, status=200)

    since = [passage.at for passage in passed(passages) if passage.sent > gone]
    seconds = passages[-1].at - gone
    assert numbers["burst"] <= len(since) <= numbers["burst"] + numbers["rps"] * (seconds + 1) + HELD * 2
    late = [at for at in since if at > used_up]
    assert len(late) <= numbers["rps"] * (passages[-1].at - used_up + 1), "the burst is there only once"


def test_without_the_store_the_share_holds(start: Any) -> None:
    """Redis killed among leases: one replica has the whole share, and what was leased counts as spent."""
    gateway: Gateway = start(document=the_document())
    caller = unique()
    data = request_of(bearer(token(caller, "tight")), PATH)
    with hammered(gateway, data, 8) as passages:
        gateway.kill("redis")
        refusals = "mgw_ratelimit_refusals_total{"
        assert eventually(lambda: refusals in gateway.metrics("ratelimit"), 30), "the share was never used up"

    seconds = passages[-1].at - passages[0].sent
    through = passed(passages)
    assert decisions(gateway, mode='mode="share"') > 0, "the store was not missed"
    assert 0.9 * TIGHT["rpm"] <= len(through) <= TIGHT["burst"] + TIGHT["rps"] * seconds + 1

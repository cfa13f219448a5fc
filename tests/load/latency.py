"""Latency at fixed rates, from an open-loop generator: 60 % of capacity, and 5,000 requests a second."""

from __future__ import annotations

from statistics import median
from typing import Any

from tests.load import openloop, wrk
from tests.load.bars import BARS
from tests.load.bench import Bench
from tests.load.callers import PATH, five_callers
from tests.load.processes import cpu_microseconds_each, cpu_seconds
from tests.load.targets import Target

SHARE = 0.6
FIXED = 5_000
UNREACHABLE = 200_000
"""A rate nobody keeps up with: how many answers come then is the generator's own ceiling."""


def measure(bench: Bench) -> dict[str, Any]:
    """Each mode at 60 % of its own capacity and at a fixed rate, and raw Envoy at the same rates."""
    rows: dict[str, Any] = {"generator": _ceiling(bench)}
    for bar in BARS:
        with bench.gateway(bar.how, bar.name) as target:
            capacity = _capacity(bench, target)
            rates = {"at 60 % of capacity": round(SHARE * capacity)} | ({} if bench.quick else {"at 5,000/s": FIXED})
            rows[bar.name] = {"capacity": round(capacity)} | {
                name: _at(bench, target, rate, capacity) for name, rate in rates.items()
            }
    return rows


def _capacity(bench: Bench, target: Target) -> float:
    """What wrk gets with 64 connections: the median of short runs after a warm one."""
    runs = [wrk.run(target.url, bench.five, seconds=1) for _ in range(2 if bench.quick else 4)]
    return median(output.requests_per_second for output in runs[1:])


def _at(bench: Bench, target: Target, rate: int, capacity: float) -> dict[str, Any]:
    if rate > capacity:
        return {"rate": rate, "beyond": True}
    before = cpu_seconds(target.pids)
    gateway = at_rate(target, rate, _seconds(bench))
    cpu = cpu_microseconds_each(before, cpu_seconds(target.pids), int(gateway["requests"]))
    return {"rate": rate, "gateway": gateway, "raw": at_rate(bench.raw, rate, _seconds(bench)), "cpu": cpu}


def _seconds(bench: Bench) -> int:
    return 1 if bench.quick else 4


def at_rate(target: Target, rate: float, seconds: float) -> dict[str, float]:
    """The five callers at an even rate, after half a second that is not counted."""
    lane = openloop.Lane("five", [openloop.request("gateway", PATH, token) for token in five_callers()], rate)
    openloop.run(target.port, [lane], 0.5)
    return openloop.run(target.port, [lane], seconds)["five"].summary()


def _ceiling(bench: Bench) -> dict[str, float]:
    """What the generator itself can do and adds, against the upstream without any proxy."""
    lane = openloop.Lane("most", [openloop.request("upstream", PATH)], UNREACHABLE)
    seen = openloop.run(bench.upstream.port, [lane], 0.5)["most"]
    answered = len(seen.latencies) / (0.5 + openloop.DRAIN_SECONDS)
    floor = at_rate(bench.upstream, FIXED, 1)
    return {"answers_per_second": round(answered), "floor_p50": floor["p50"], "floor_p99": floor["p99"]}

"""Storms: what refused traffic costs beside accepted traffic, and what one loud caller does to the others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.load import openloop, wrk
from tests.load.bench import Bench
from tests.load.callers import PATH, REQUIRED_PATH, script_at_random, script_in_turn, token
from tests.load.targets import OUT_OF_THE_WAY, Document, GatewayOptions, Target

OTHERS = 50
OTHERS_PER_SECOND = 400
LOUD_PER_SECOND = 800


def only_enterprise_is_unlimited(document: Document) -> None:
    document["limits"]["tiers"]["enterprise"] = dict(OUT_OF_THE_WAY)


MIXED = GatewayOptions(unlimited=False, change=only_enterprise_is_unlimited)


def storms(bench: Bench) -> dict[str, Any]:
    """CPU a request of each kind of traffic, on one gateway. wrk and the upstream are not in it."""
    with bench.gateway(MIXED, "storms") as target:
        return {name: _storm(bench, target, script) for name, script in _kinds(bench.scratch)}


def _kinds(folder: Path) -> Iterator[tuple[str, Path]]:
    accepted = [token(f"paying-{number}", "enterprise") for number in range(5)]
    yield "accepted", script_in_turn(folder, accepted, REQUIRED_PATH, "accepted")
    yield "429", script_in_turn(folder, [token("greedy", "free")], REQUIRED_PATH, "greedy")
    yield "401 without a token", script_in_turn(folder, [None], REQUIRED_PATH, "nobody")
    yield "401 one forged token", script_in_turn(folder, [forged(0)], REQUIRED_PATH, "forger")
    yield "401 a new forged token each", script_at_random(folder, map(forged, range(50_000)), REQUIRED_PATH, "forgers")
    yield "404", script_in_turn(folder, accepted, "/api/v1/nowhere", "lost")


def forged(number: int) -> str:
    """A token with all that is asked for, signed with nothing."""
    head, _, signature = token(f"forged-{number}", "enterprise").rpartition(".")
    return f"{head}.{'A' * len(signature)}"


def _storm(bench: Bench, target: Target, script: Path) -> dict[str, Any]:
    wrk.run(target.url, script, seconds=1)
    load = wrk.load(target.url, script, target.pids, seconds=bench.seconds if bench.quick else 2 * bench.seconds)
    return {
        "requests_per_second": round(load.output.requests_per_second),
        "p50": load.output.p50,
        "p99": load.output.p99,
        "refused_percent": round(100 * load.output.refused / load.output.requests, 1),
        "broken": load.output.broken,
        "cpu": load.cpu,
        "cpu_total": round(sum(load.cpu.values()), 1),
    }


def hot_caller(bench: Bench) -> dict[str, Any]:
    """Fifty callers at an even pace; then the same beside one who asks far more than it may."""
    others = [openloop.request("gateway", PATH, token(f"other-{number}", "enterprise")) for number in range(OTHERS)]
    lane = openloop.Lane("others", others, OTHERS_PER_SECOND)
    loud_token = token("loud", "free")
    loud = openloop.Lane("loud", [openloop.request("gateway", PATH, loud_token)], LOUD_PER_SECOND)
    seconds = 3 if bench.quick else 6
    with bench.gateway(MIXED, "hot") as target:
        openloop.run(target.port, [lane, loud], 1)
        alone = openloop.run(target.port, [lane], seconds)
        beside = openloop.run(target.port, [lane, loud], seconds)
        with _flood(bench.scratch, target, loud_token, seconds + 1):
            flooded = openloop.run(target.port, [lane], seconds)
    return {
        "alone": alone["others"].summary(),
        "beside": beside["others"].summary(),
        "loud": beside["loud"].summary(),
        "flooded": flooded["others"].summary(),
    }


@contextmanager
def _flood(folder: Path, target: Target, token: str, seconds: int) -> Iterator[None]:
    """One caller on 16 connections that never waits."""
    script = script_in_turn(folder, [token], PATH, "flood")
    command = ["wrk", "-t", "1", "-c", "16", "-d", f"{seconds}s", "-s", str(script), target.url]
    flood = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        flood.terminate()
        flood.wait()

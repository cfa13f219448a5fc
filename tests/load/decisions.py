"""What one decision costs the services and the store, under real load through the gateway."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import redis

from tests.load import wrk
from tests.load.bench import Bench
from tests.load.callers import PATH, REQUIRED_PATH, five_callers, script_at_random, script_in_turn, token
from tests.load.growth import crowd
from tests.load.storms import forged
from tests.load.targets import Document, GatewayOptions, Target

MANY = 10_000
UNSEEN = 100_000


def measure(bench: Bench) -> dict[str, Any]:
    """Limits first, then identity."""
    return {"limits": limits(bench), "identity": identity(bench)}


def limits(bench: Bench) -> dict[str, Any]:
    """CPU of the rate-limit service and time of the script, a decision: few callers with long logs, many with short.

    Without leases, so that every request asks.
    """
    few = script_in_turn(bench.scratch, five_callers(), name="few")
    many = script_at_random(bench.scratch, crowd(MANY), name="many")
    with bench.gateway(GatewayOptions(verified_by="envoy", change=_without_leases), "limits") as target:
        return {
            name: _decided(bench, target, script) for name, script in (("5 callers", few), ("10,000 callers", many))
        }


def _without_leases(document: Document) -> None:
    document["limits"]["leases"] = {"enabled": False}


def _decided(bench: Bench, target: Target, script: Path) -> dict[str, Any]:
    store = redis.Redis.from_url(target.run["redis_url"])
    wrk.run(target.url, script, seconds=1)
    store.config_resetstat()
    load = wrk.load(target.url, script, target.pids, seconds=bench.seconds if bench.quick else 2 * bench.seconds)
    told: Any = store.info("commandstats")
    store.close()
    return {
        "decisions": told["cmdstat_evalsha"]["calls"],
        "script_us": told["cmdstat_evalsha"]["usec_per_call"],
        "store_cpu_us": load.cpu["redis"],
        "service_cpu_us": load.cpu["ratelimit"],
        "errors": load.output.errors,
    }


def identity(bench: Bench) -> dict[str, Any]:
    """CPU of the authz service a decision, without Envoy's cache of decisions, so that every request asks."""
    seen = [text for text in five_callers() if text]
    kinds = {
        "cached token": script_in_turn(bench.scratch, seen, REQUIRED_PATH, "seen"),
        "token never seen": script_at_random(bench.scratch, crowd(UNSEEN), REQUIRED_PATH, "unseen"),
        "no token, optional": script_in_turn(bench.scratch, [None], PATH, "none"),
        "forged signature": script_at_random(bench.scratch, map(forged, range(UNSEEN)), REQUIRED_PATH, "forged"),
    }
    kinds |= {
        f"hostile: {name}": script_in_turn(bench.scratch, [text], REQUIRED_PATH, f"hostile-{number}")
        for number, (name, text) in enumerate(list(hostile().items())[: 2 if bench.quick else None])
    }
    with bench.gateway(GatewayOptions(change=_without_cache), "identity") as target:
        return {name: _asked(bench, target, script) for name, script in kinds.items()}


def _without_cache(document: Document) -> None:
    document["auth"]["decision_cache"] = {"enabled": False}


def _asked(bench: Bench, target: Target, script: Path) -> dict[str, Any]:
    wrk.run(target.url, script, seconds=1)
    load = wrk.load(target.url, script, target.pids, seconds=bench.seconds)
    return {
        "authz_cpu_us": load.cpu["authz"],
        "requests_per_second": round(load.output.requests_per_second),
        "refused_percent": round(100 * load.output.refused / load.output.requests, 1),
        "broken": load.output.broken,
    }


def hostile() -> dict[str, str]:
    """Tokens made to be dear or to break a reader. None may cost more than 1 ms."""
    head, claims, signature = token("victim", "enterprise").split(".")
    huge = _text('{"exp":' + "9" * 4000 + "}")
    return {
        "8 KiB of dots": "." * 8000,
        "nested 2,000 deep": f"{head}.{_text('[' * 2000 + ']' * 2000)}.{signature}",
        "a number of 4,000 digits": f"{head}.{huge}.{signature}",
        "alg none": f"{_text(json.dumps({'alg': 'none', 'typ': 'JWT'}))}.{claims}.",
        "altered base64": f"{head}.{claims}.{signature[:-1]}{'B' if signature[-1] == 'A' else 'A'}",
        "9 KiB": f"{head}.{_text('x' * 6700)}.{signature}",
    }


def _text(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

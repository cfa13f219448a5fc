"""What grows, and what it costs: connections, callers, routes. All in the default mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.load.bench import Bench, compare
from tests.load.callers import TIERS, five_callers, script_at_random, script_in_turn, token
from tests.load.operate import put_and_watch
from tests.load.targets import Document, GatewayOptions, Target

CONNECTIONS = (1, 8, 64, 256, 1000)
CALLERS = (1, 100, 10_000, 1_000_000)
ROUTES = (500, 5_000)
LONG = 24 * 3600


def connections(bench: Bench) -> dict[str, Any]:
    """The same five callers over more and more connections."""
    with bench.gateway(GatewayOptions(), "connections") as target:
        counts = CONNECTIONS[::2] if bench.quick else CONNECTIONS
        return {str(count): compare(bench, target, rounds=bench.few, connections=count).as_json() for count in counts}


def callers(bench: Bench) -> dict[str, Any]:
    """Requests of callers drawn at random from more and more of them, each with a token of its own."""
    rows = {}
    with bench.gateway(GatewayOptions(), "callers") as target:
        for count in CALLERS[:3] if bench.quick else CALLERS:
            script = script_at_random(bench.scratch, crowd(count))
            rows[str(count)] = compare(bench, target, script, rounds=bench.few).as_json()
    return rows


def crowd(count: int) -> Iterator[str]:
    """So many callers' tokens, in all tiers."""
    for number in range(count):
        yield token(f"user-{number}", TIERS[number % len(TIERS)], seconds=LONG)


def routes(bench: Bench) -> dict[str, Any]:
    """The default routes, then many more: throughput on the last ones, and how long a change takes."""
    with bench.gateway(GatewayOptions(), "routes") as target:
        rows = {"17": _on_path(bench, target, "/api/v1/recommendations")}
        for count in ROUTES[:1] if bench.quick else ROUTES:
            rows[str(count)] = _with_routes(bench, target, count)
    return rows


def _with_routes(bench: Bench, target: Target, count: int) -> dict[str, Any]:
    whole = put_and_watch(target, lambda document: fill_routes(document, count), exact_path(count - 2))
    one_more = put_and_watch(target, _one_more, ADDED.format(count=count))
    return {
        **_on_path(bench, target, exact_path(count - 2)),
        "template": _on_path(bench, target, exact_path(count - 1)),
        "put_all": whole,
        "put_one_more": one_more,
    }


ADDED = "/api/v1/added/{count}"


def _one_more(document: Document) -> None:
    count = len(document["routes"])
    document["routes"].append(a_route(f"added-{count}", ADDED.format(count=count)))


def fill_routes(document: Document, count: int) -> None:
    """Generated routes up to `count`, every other one with a variable segment."""
    kept = [route for route in document["routes"] if not route["name"].startswith(("bulk-", "added-"))]
    for number in range(len(kept), count):
        path = f"/api/v1/bulk/{number}/items/" + ("{id}" if number % 2 else "all")
        kept.append(a_route(f"bulk-{number}", path))
    document["routes"] = kept


def a_route(name: str, path: str) -> Document:
    match = {"path": path, "methods": ["GET"]}
    return {"name": name, "match": match, "service": "discovery", "auth": "optional"}


def exact_path(number: int) -> str:
    """A path that the generated route of this number serves."""
    return f"/api/v1/bulk/{number}/items/" + ("7" if number % 2 else "all")


def _on_path(bench: Bench, target: Target, path: str) -> dict[str, Any]:
    script = script_in_turn(bench.scratch, five_callers(), path, name="on-path")
    return compare(bench, target, script, rounds=1 if bench.quick else 2).as_json()

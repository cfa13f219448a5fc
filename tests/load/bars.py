"""The bars: what share of raw Envoy's throughput the gateway keeps, in each of its modes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.load.bench import Bench, compare
from tests.load.targets import Document, GatewayOptions


@dataclass(frozen=True)
class Bar:
    """One mode, the ratio below which it fails, and the ratio that is aimed at; without them it is only shown."""

    name: str
    title: str
    how: GatewayOptions
    floor: float | None = None
    goal: float | None = None


def leave_out(document: Document) -> None:
    """What a document may leave out of the work for each request."""
    document["log"] = {"requests": "failed"}
    document["security_headers"] = {"enabled": False}


BARS = (
    Bar("default", "authz service, exact limits (the default)", GatewayOptions(), 0.28, 0.40),
    Bar("verified-by-envoy", "`verified_by: envoy`, exact limits", GatewayOptions(verified_by="envoy"), 0.28, 0.40),
    Bar("in-envoy", "both inside Envoy", GatewayOptions(verified_by="envoy", enforced_by="envoy"), 0.75, 0.85),
    Bar(
        "in-envoy-lean",
        "the same without lines for what was served, and without security headers",
        GatewayOptions(verified_by="envoy", enforced_by="envoy", change=leave_out),
    ),
)


def measure(bench: Bench) -> dict[str, Any]:
    """Each bar once. Gateways run one after the other: an idle one would still take its share of the cores."""
    return {bar.name: measured(bench, bar) for bar in BARS}


def measured(bench: Bench, bar: Bar) -> dict[str, Any]:
    with bench.gateway(bar.how, bar.name) as target:
        row = compare(bench, target)
    return row.as_json() | {"floor": bar.floor, "goal": bar.goal, "passes": verdict(row.ratio.median, bar.floor)}


def verdict(ratio: float, floor: float | None) -> bool:
    return floor is None or ratio >= floor


def together(times: list[dict[str, Any]]) -> dict[str, Any]:
    """Several measurements as one: of each bar the one in the middle, with the ratios of all, in their order."""
    return {name: _middle([rows[name] for rows in times]) for name in times[0]}


def _middle(rows: list[dict[str, Any]]) -> dict[str, Any]:
    ordered = sorted(rows, key=lambda row: row["ratio"]["median"])
    kept = ordered[(len(ordered) - 1) // 2]
    return kept | {"times": [row["ratio"]["median"] for row in rows], "passes": all(row["passes"] for row in rows)}


def lines(times: list[dict[str, Any]]) -> list[str]:
    """One line a bar and time: what was measured, and whether it is enough."""
    said = []
    for number, rows in enumerate(times, 1):
        for name, row in rows.items():
            ratio = row["ratio"]
            said.append(
                f"{number}  {name:18} {'pass' if row['passes'] else 'FAIL'}  {ratio['median']:.3f} of raw Envoy "
                f"({ratio['lowest']:.3f} to {ratio['highest']:.3f}; bar {hundredths(row['floor'])}, "
                f"goal {hundredths(row['goal'])})  "
                f"{row['requests_per_second']:.0f} of {row['raw_requests_per_second']:.0f} requests/s  "
                f"p99 {row['p99']:.1f} ms  errors {row['errors']}  CPU µs a request: "
                + ", ".join(f"{part} {cost:g}" for part, cost in row["cpu"].items())
            )
    return said


def hundredths(share: float | None) -> str:
    """A share; a dash where there is none."""
    return "–" if share is None else f"{share:.2f}"

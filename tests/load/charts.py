"""The report's plots: which figures each shows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.load import plot
from tests.load.render import TITLES, Figures, grouped
from tests.load.results import Results


def plots(results: Results) -> dict[str, str]:
    """Each plot by its file's name, of what has been measured."""
    figures = {name: entry["figures"] for name, entry in results.items()}
    drawn = {name: draw(figures) for name, (needs, draw) in PLOTS.items() if needs <= figures.keys()}
    return {f"{name}.svg": svg for name, svg in drawn.items()}


def _plot_bars(figures: Figures) -> str:
    modes = {TITLES[name].replace("`", ""): row for name, row in figures["bars"].items()}
    others = {row["title"].replace("`", ""): row for row in figures.get("rivals", {}).values() if "ratio" in row}
    rows = {f"gateway: {title}": {"gateway": row["ratio"]["median"]} for title, row in modes.items()}
    rows |= {title: {"other proxy": row["ratio"]["median"]} for title, row in others.items()}
    return plot.bars("Throughput, as a share of raw Envoy in the same run", rows, "", {"raw Envoy": 1.0})


def _plot_cpu(figures: Figures) -> str:
    rows: dict[str, Mapping[str, float]] = {
        TITLES[name].replace("`", ""): _largest_first(row["cpu"]) for name, row in figures["bars"].items()
    }
    raw = next(iter(figures["bars"].values()))["raw_cpu"]["raw"]
    return plot.bars("CPU a request", {"raw Envoy": {"envoy": raw}} | rows, "µs")


def _largest_first(cpu: Mapping[str, float]) -> dict[str, float]:
    order = ("envoy", "authz", "ratelimit", "redis", "controlplane")
    return {name: cpu[name] for name in order if name in cpu}


def _plot_latency(figures: Figures) -> str:
    rows = {}
    for name, title in TITLES.items():
        row = figures["latency"].get(name, {}).get("at 60 % of capacity", {})
        if "gateway" in row:
            seen = row["gateway"]
            rows[f"{title.replace('`', '')} at {grouped(row['rate'])}/s"] = {
                "p50": seen["p50"],
                "to p95": round(seen["p95"] - seen["p50"], 2),
                "to p99": round(seen["p99"] - seen["p95"], 2),
            }
    return plot.bars("Latency at 60 % of capacity (the whole bar is p99)", rows, "ms")


def _plot_connections(figures: Figures) -> str:
    rows = figures["connections"]
    series = {
        name: [(float(count), float(row[key])) for count, row in rows.items()]
        for name, key in (("gateway", "requests_per_second"), ("raw Envoy", "raw_requests_per_second"))
    }
    return plot.curves("Throughput by connections (default mode)", series, "connections", "requests/s")


def _plot_storms(figures: Figures) -> str:
    rows = {name: _largest_first(row["cpu"]) for name, row in figures["storms"].items()}
    return plot.bars("CPU a request, refused and accepted", rows, "µs")


PLOTS: Mapping[str, tuple[frozenset[str], Callable[[Figures], str]]] = {
    "bars": (frozenset({"bars"}), _plot_bars),
    "cpu": (frozenset({"bars"}), _plot_cpu),
    "latency": (frozenset({"latency"}), _plot_latency),
    "connections": (frozenset({"connections"}), _plot_connections),
    "storms": (frozenset({"storms"}), _plot_storms),
}

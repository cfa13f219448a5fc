"""docs/performance.md from docs/performance.json alone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.load.bars import BARS, hundredths
from tests.load.latency import FIXED
from tests.load.results import Results

Figures = Mapping[str, Any]
TITLES = {bar.name: bar.title for bar in BARS}

INTRO = """\
# Performance

Written by `.venv/bin/python tests/load/report.py` from [performance.json](performance.json); not edited by hand. Each
section can be measured again alone (`--only NAME`) and says when and on which revision that was done.

Everything shares one machine: the load generator, the upstream (an Envoy that answers 256 bytes by itself) and every
part of what is measured. So the **share of raw Envoy** is the figure: raw Envoy only forwards, to the same upstream,
with as many threads, in rounds that alternate with the target's, and each round is compared with its neighbour. Absolute
figures are those of this machine. Throughput is wrk's, with one thread, 64 connections and five callers (free, pro, pro,
enterprise, anonymous) with signed tokens and limits out of the way, but counted: nothing is switched off. CPU is user and
system time of the processes, a request; memory is resident memory, shared pages included.
"""


def markdown(results: Results) -> str:
    """The whole report; a piece that was never measured is named as such."""
    parts = [INTRO]
    for name, (title, render) in SECTIONS.items():
        if name in results:
            entry = results[name]
            parts.append("\n".join([f"## {title}", "", *render(entry["figures"]), "", _about(entry["about"]), ""]))
    if missing := [name for name in SECTIONS if name not in results]:
        parts.append(f"Not measured: {', '.join(missing)}.\n")
    return "\n".join(parts)


BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def with_short_figures(readme: str, results: Results) -> str:
    """The README with the bars between its two marks. ValueError where a mark is missing."""
    if "bars" not in results:
        return readme
    start, finish = readme.index(BEGIN) + len(BEGIN), readme.index(END)
    return f"{readme[:start]}\n{short(results['bars'])}\n{readme[finish:]}"


def short(entry: Figures) -> str:
    """The bars in a few lines."""
    about = entry["about"]
    rows = [
        [
            TITLES[name],
            f"{row['ratio']['median']:.2f}",
            grouped(row["requests_per_second"]),
            row["p99"],
            round(sum(row["cpu"].values())),
        ]
        for name, row in entry["figures"].items()
    ]
    words = (
        f"{about['cores']} cores shared with wrk (64 connections, five callers) and the upstream, Redis exact,"
        f" {about['date']}; more, with latency, growth, storms and other proxies, in [performance](docs/performance.md):"
    )
    header = ["mode", "share of raw Envoy", "requests/s", "p99 ms", "CPU µs a request"]
    return "\n".join([words, "", *table(header, rows)])


def _about(about: Figures) -> str:
    tools = f"Envoy {about['envoy']}, {about['wrk']}, Valkey {about['valkey']}, Python {about['python']}"
    length = f"rounds: {about['rounds']} of {about['seconds']} s" + (", quick" if about["quick"] else "")
    where = f"{about['cores']} cores ({about['processor']})"
    busy = about["busy_percent"]
    noise = "" if busy is None else f"; other work on the machine just before: {busy:.0f} %"
    return f"<sub>{about['date']}, revision {about['revision']}; {where}; {tools}; {length}{noise}</sub>"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table; all columns but the first are numbers."""
    lines = [list(map(str, header)), ["---", *["---:"] * (len(header) - 1)], *[list(map(str, row)) for row in rows]]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _share(row: Figures) -> str:
    ratio = row["ratio"]
    return f"**{ratio['median']:.2f}** ({ratio['lowest']:.2f} – {ratio['highest']:.2f})"


def grouped(value: float) -> str:
    """A figure with its thousands grouped."""
    return f"{value:,.0f}"


def _image(name: str, words: str) -> list[str]:
    return ["", f"![{words}](performance/{name}.svg)"]


def _verdict(row: Figures) -> str:
    if row["floor"] is None:
        return ""
    return "pass" if row["passes"] else "**fail**"


def _bars(figures: Figures) -> list[str]:
    header = ["mode", "requests/s", "raw Envoy", "share (rounds)", "bar", "goal", "", "p50 ms", "p99 ms", "errors"]
    rows = [
        [
            TITLES[name],
            grouped(row["requests_per_second"]),
            grouped(row["raw_requests_per_second"]),
            _share(row),
            hundredths(row["floor"]),
            hundredths(row["goal"]),
            _verdict(row),
            row["p50"],
            row["p99"],
            row["errors"],
        ]
        for name, row in figures.items()
    ]
    again = [
        f"{TITLES[name]}, {len(row['times'])} times in a row: {', '.join(f'{ratio:.3f}' for ratio in row['times'])}."
        for name, row in figures.items()
        if len(row.get("times", ())) > 1
    ]
    return [*table(header, rows), *([""] if again else []), *again, *_image("bars", "shares"), "", *_costs(figures)]


def _costs(figures: Figures) -> list[str]:
    """CPU and memory of each process, of the same runs."""
    first = next(iter(figures.values()))
    parts = list(first["cpu"])
    cpu = [["raw Envoy", *["" for part in parts if part != "envoy"], first["raw_cpu"]["raw"], first["raw_cpu"]["raw"]]]
    parts.sort(key=lambda part: part == "envoy")
    cpu += [
        [TITLES[name], *(row["cpu"][part] for part in parts), round(sum(row["cpu"].values()), 1)]
        for name, row in figures.items()
    ]
    memory = [
        [TITLES[name], *(f"{row['memory_before'][part]:.0f} → {row['memory_after'][part]:.0f}" for part in parts)]
        for name, row in figures.items()
    ]
    return [
        "CPU, µs a request:",
        "",
        *table(["", *parts, "all"], cpu),
        *_image("cpu", "CPU a request"),
        "",
        "Memory, MiB before and after these rounds:",
        "",
        *table(["", *parts], memory),
    ]


def _rivals(figures: Figures) -> list[str]:
    header = ["proxy", "share of raw Envoy", "requests/s", "p99 ms", "CPU µs", "MiB", "does", "leaves out"]
    rows, missing = [], []
    for row in figures.values():
        if row.get("missing"):
            missing.append(f"Not installed here, so not measured: {row['title']} ({row['get']}).")
            continue
        cpu, memory = sum(row["cpu"].values()), sum(row["memory_after"].values())
        speed = [_share(row), grouped(row["requests_per_second"]), row["p99"], round(cpu, 1), round(memory)]
        rows.append([row["title"], *speed, row["does"], row["lacks"]])
    how = [f"{row['title']}: {row['get']}." for row in figures.values()]
    return [
        "Each was first asked with a good token, a forged one and beyond a small limit: those said to verify and limit"
        " answered 200, 401 and 429. Their limits are then as far away as the gateway's. None counts in a shared store.",
        "",
        *table(header, rows),
        "",
        *missing,
        "How to get them: " + " ".join(how),
    ]


def _latency(figures: Figures) -> list[str]:
    generator = figures["generator"]
    rows = []
    for name in TITLES:
        mode = figures.get(name, {})
        for label, row in mode.items():
            if label == "capacity":
                continue
            title = f"{TITLES[name]}, {label}" + ("" if row["rate"] == FIXED else f" ({grouped(row['rate'])}/s)")
            if row.get("beyond"):
                rows.append([title, f"beyond its capacity of {grouped(mode['capacity'])}/s", *[""] * 8])
                continue
            ours, raw = row["gateway"], row["raw"]
            rows.append(
                [title, *(ours[key] for key in ("p50", "p95", "p99", "max")), ours["errors"]]
                + [raw[key] for key in ("p50", "p95", "p99")]
                + [round(sum(row["cpu"].values()))]
            )
    header = ["", "p50", "p95", "p99", "max", "errors", "raw p50", "raw p95", "raw p99", "CPU µs"]
    return [
        "Milliseconds at a fixed rate, from an open-loop generator (`tests/load/openloop.py`): requests are due at even"
        " times on up to 128 connections, and waiting counts from the time a request was due, so a stall is seen by"
        " everyone who would have come. Raw Envoy is asked at the same rate. Capacity is what wrk gets just before, on"
        " connections that are never idle; at a lower rate less is done at a time, and a request costs more CPU.",
        "",
        *table(header, rows),
        "",
        f"The generator itself: {grouped(generator['answers_per_second'])} answers a second at most;"
        f" straight to the upstream at 5,000/s p50 {generator['floor_p50']} ms, p99 {generator['floor_p99']} ms.",
        *_image("latency", "latency at 60 % of capacity"),
    ]


COMPARED = ("requests/s", "raw Envoy", "share", "p50 ms", "p99 ms", "raw p99", "CPU µs", "raw CPU", "MiB", "errors")


def _grown(figures: Figures, first: str) -> list[str]:
    return table([first, *COMPARED], [[grouped(int(count)), *_grown_row(row)] for count, row in figures.items()])


def _grown_row(row: Figures) -> list[object]:
    return [
        grouped(row["requests_per_second"]),
        grouped(row["raw_requests_per_second"]),
        f"{row['ratio']['median']:.2f}",
        row["p50"],
        row["p99"],
        row["raw_p99"],
        round(sum(row["cpu"].values())),
        round(sum(row["raw_cpu"].values())),
        round(sum(row["memory_after"].values())),
        row["errors"],
    ]


def _connections(figures: Figures) -> list[str]:
    return [*_grown(figures, "connections"), *_image("connections", "throughput by connections")]


def _callers(figures: Figures) -> list[str]:
    words = (
        "Each request is a random caller's, with its own token. With 10,000 most tokens are in Envoy's and authz's caches;"
        " with a million nearly every request is the first of its caller, so each is verified and gets a new counter."
    )
    return [words, "", *_grown(figures, "callers")]


def _routes(figures: Figures) -> list[str]:
    rows = []
    for count, row in figures.items():
        rows.append([grouped(int(count)), "last, exact", *_grown_row(row), *_puts(row)])
        if "template" in row:
            rows.append([grouped(int(count)), "last, with {id}", *_grown_row(row["template"]), "", ""])
    header = ["routes", "asked", *COMPARED]
    return [
        "Requests to the last routes of the document. A change is timed from its PUT to the API's answer, and to the"
        " moment a new route is served.",
        "",
        *table([*header, "all new: answered / served ms", "one more: answered / served ms"], rows),
    ]


def _puts(row: Figures) -> list[str]:
    return [
        f"{grouped(row[put]['answered_ms'])} / {grouped(row[put]['served_ms'])}" if put in row else ""
        for put in ("put_all", "put_one_more")
    ]


def _storms(figures: Figures) -> list[str]:
    accepted = figures["accepted"]["cpu_total"]
    parts = list(figures["accepted"]["cpu"])
    rows = [
        [
            name,
            grouped(row["requests_per_second"]),
            f"{row['refused_percent']:g} %",
            row["p99"],
            *(row["cpu"][part] for part in parts),
            f"**{row['cpu_total']}**",
            f"{row['cpu_total'] / accepted:.2f}",
        ]
        for name, row in figures.items()
    ]
    header = ["traffic", "requests/s", "refused", "p99 ms", *parts, "CPU µs", "of accepted"]
    dear = [name for name, row in figures.items() if name != "accepted" and row["cpu_total"] >= accepted]
    verdict = (
        f"Dearer than accepted traffic: {', '.join(dear)}." if dear else "Every storm costs less than accepted traffic."
    )
    return [*table(header, rows), "", verdict, *_image("storms", "CPU a request of storms")]


def _hot(figures: Figures) -> list[str]:
    names = {
        "alone": "the others alone",
        "beside": "beside one free caller at 800/s",
        "flooded": "beside one free caller on 16 connections without pause (wrk)",
    }
    keys = ("p50", "p95", "p99", "max", "refused", "errors")
    rows = [[title, *(figures[name][key] for key in keys)] for name, title in names.items()]
    loud = figures["loud"]
    return [
        "Fifty enterprise callers at 400 requests a second together, open loop, milliseconds.",
        "",
        *table(["", *keys], rows),
        "",
        f"Of the loud caller's {grouped(loud['requests'])} requests at 800/s {grouped(loud['refused'])} were refused (p99"
        f" {loud['p99']} ms). The flood also competes for the cores of this machine.",
    ]


def _workers(figures: Figures) -> list[str]:
    rows = [[name, *_grown_row(row)] for name, row in figures.items()]
    words = (
        "Raw Envoy has as many threads as the gateway's Envoy. With two threads raw Envoy is held back by wrk and the"
        " upstream on the same two cores; CPU a request beside raw Envoy's says more of what a core is worth."
    )
    return [words, "", *table(["", *COMPARED], rows)]


def _decisions(figures: Figures) -> list[str]:
    limits = [
        [name, row["script_us"], row["store_cpu_us"], row["service_cpu_us"], grouped(row["decisions"])]
        for name, row in figures["limits"].items()
    ]
    identity = [
        [name, row["authz_cpu_us"], f"{row['refused_percent']:g} %", row["broken"]]
        for name, row in figures["identity"].items()
    ]
    return [
        "Limits, µs a decision: the script by Valkey's own clock, the CPU of Valkey and of the rate-limit service. Leases are"
        " switched off so that every request asks.",
        "",
        *table(["callers", "script", "Valkey's CPU", "service's CPU", "decisions"], limits),
        "",
        "Identity, CPU µs of the authz service a decision, with Envoy's cache of decisions switched off so that all ask:",
        "",
        *table(["token", "CPU µs", "refused", "broken"], identity),
    ]


def _memory(figures: Figures) -> list[str]:
    by_hits = [[hits, grouped(row["bytes"])] for hits, row in figures["by_hits"].items()]
    by_callers = figures["by_callers"]
    rows = [
        [grouped(int(count)), grouped(row["keys"]), row["used_mebibytes"], row["script_us"]]
        for count, row in by_callers["rows"].items()
    ]
    return [
        "Valkey's memory for one caller, by how often it asked within the window (a bucket, and a log with a member a hit):",
        "",
        *table(["hits", "bytes a caller"], by_hits),
        "",
        "Callers with one request each:",
        "",
        *table(["callers", "keys", "MiB used", "script µs"], rows),
        "",
        f"That is {by_callers['bytes_each']} bytes a caller, filled in {by_callers['seconds']} s. Every key expires: the"
        " measurement fails if one does not. The 256 MiB that `mgw up` gives its own Valkey hold"
        f" {grouped(2**28 // by_callers['bytes_each'])} callers with one request within a minute.",
    ]


Render = Callable[[Figures], list[str]]
SECTIONS: Mapping[str, tuple[str, Render]] = {
    "bars": ("The gateway beside raw Envoy", _bars),
    "rivals": ("Other proxies, same upstream and callers", _rivals),
    "latency": ("Latency at a fixed rate", _latency),
    "connections": ("More connections", _connections),
    "callers": ("More callers", _callers),
    "routes": ("More routes", _routes),
    "storms": ("Storms", _storms),
    "hot": ("One loud caller", _hot),
    "workers": ("More processes, fewer threads", _workers),
    "decisions": ("What a decision costs", _decisions),
    "memory": ("What the limits keep", _memory),
}

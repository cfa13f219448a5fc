"""The report as text: from figures alone, whole, and honest about what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.load import plot
from tests.load.charts import plots
from tests.load.render import SECTIONS, markdown, table, with_short_figures
from tests.load.report import DOCS, PIECES, README, write_report
from tests.load.results import merged, read, write

ABOUT = {
    "date": "2026-11-24",
    "revision": "abc1234",
    "cores": 2,
    "processor": "a processor",
    "python": "3.11.7",
    "envoy": "1.40.0",
    "valkey": "9.1.2",
    "wrk": "wrk 4.1.0",
    "quick": False,
    "seconds": 1,
    "rounds": 5,
    "busy_percent": 3,
}
COMPARED = {
    "ratio": {"median": 0.25, "lowest": 0.2, "highest": 0.3},
    "raw_requests_per_second": 20_000,
    "requests_per_second": 5_000,
    "raw_p99": 6.0,
    "p50": 12.0,
    "p99": 25.0,
    "errors": 0,
    "raw_cpu": {"raw": 60.0},
    "cpu": {"envoy": 200.0, "authz": 10.0},
    "memory_before": {"envoy": 60.0, "authz": 70.0},
    "memory_after": {"envoy": 75.0, "authz": 70.0},
}


def a_bar(**changes: Any) -> dict[str, Any]:
    return {**COMPARED, "floor": 0.28, "goal": 0.4, "passes": False, "times": [0.25]} | changes


def entry(figures: dict[str, Any]) -> dict[str, Any]:
    return {"about": ABOUT, "figures": figures}


def test_every_piece_has_its_section() -> None:
    """What can be measured is shown, and nothing else is."""
    assert list(SECTIONS) == list(PIECES)


def test_what_was_not_measured_is_named() -> None:
    """An empty report shows no figure at all."""
    text = markdown({})

    assert f"Not measured: {', '.join(SECTIONS)}." in text
    assert "## " not in text


def test_a_bar_that_is_not_reached_says_fail() -> None:
    """The verdict stands beside the share, its rounds and the bar."""
    text = markdown({"bars": entry({"default": a_bar(), "in-envoy": a_bar(passes=True)})})

    first, second = [line for line in text.splitlines() if "5,000 | 20,000" in line]
    assert "**0.25** (0.20 – 0.30) | 0.28 | 0.40 | **fail** |" in first
    assert "| pass |" in second


def test_each_section_says_where_and_when() -> None:
    """Cores, tools and revision, since pieces may be of different days; and what else the machine did."""
    text = markdown({"bars": entry({"default": a_bar()})})

    assert "2026-11-24, revision abc1234; 2 cores (a processor); Envoy 1.40.0, wrk 4.1.0" in text
    assert "other work on the machine just before: 3 %" in text


def test_a_rival_that_is_missing_has_no_figures() -> None:
    """It is named with the way to get it, and no row is made up."""
    told = {"title": "HAProxy", "does": "much", "lacks": "little", "get": "`apt-get install haproxy`", "missing": True}
    present = {**told, **COMPARED, "title": "nginx", "missing": False}

    text = markdown({"rivals": entry({"haproxy": told, "nginx": present})})

    assert "Not installed here, so not measured: HAProxy (`apt-get install haproxy`)." in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if "| much |" in line] == ["nginx"]


@pytest.mark.parametrize(
    ("cost", "said"), [(200.0, "Every storm costs less"), (500.0, "Dearer than accepted traffic: 429")]
)
def test_a_storm_dearer_than_accepted_traffic_is_named(cost: float, said: str) -> None:
    """A storm must cost less; the report says which one does not."""
    row = {"requests_per_second": 3000, "p50": 1, "p99": 5, "refused_percent": 0.0, "broken": 0, "cpu": {"envoy": 1.0}}

    text = markdown({"storms": entry({"accepted": row | {"cpu_total": 400.0}, "429": row | {"cpu_total": cost}})})

    assert said in text


def test_a_rate_beyond_capacity_has_no_latency() -> None:
    """Where the fixed rate is not reached, the capacity is shown in its place."""
    beyond = {"rate": 5000, "beyond": True}
    generator = {"answers_per_second": 36_000, "floor_p50": 0.2, "floor_p99": 3.0}

    text = markdown({"latency": entry({"generator": generator, "default": {"capacity": 4100, "at 5,000/s": beyond}})})

    assert "beyond its capacity of 4,100/s" in text
    assert "36,000 answers a second at most" in text


def test_the_short_table_replaces_what_stands_between_the_marks() -> None:
    """The rest of the README stays; measured again, the table is not there twice."""
    results = {"bars": entry({"default": a_bar()})}
    readme = "before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n"

    once = with_short_figures(readme, results)

    assert once.startswith("before\n") and once.endswith("\nafter\n") and "old" not in once
    assert "| 0.25 | 5,000 | 25.0 | 210 |" in once
    assert with_short_figures(once, results) == once


def test_a_table_has_as_many_cells_in_each_line() -> None:
    """Markdown drops a cell too many without a word."""
    lines = table(["a", "b"], [[1, 2.5], ["x", ""]])

    assert {line.count("|") for line in lines} == {3}


def test_a_piece_is_measured_again_alone(tmp_path: Path) -> None:
    """The others' figures, order and dates stay as they were."""
    path = tmp_path / "performance.json"
    write(path, {"bars": entry({"default": a_bar()}), "callers": entry({"10": COMPARED, "1": COMPARED})})

    write(path, merged(read(path), "bars", {"default": a_bar(errors=7)}, ABOUT | {"date": "2026-12-01"}))

    results = read(path)
    assert results["bars"]["figures"]["default"]["errors"] == 7
    assert results["bars"]["about"]["date"] == "2026-12-01"
    assert results["callers"]["about"]["date"] == "2026-11-24"
    assert list(results["callers"]["figures"]) == ["10", "1"], "rows keep their order"


def test_bars_are_as_long_as_their_figures() -> None:
    """Twice the figure, twice the length; parts stand one after the other."""
    svg = plot.bars("t", {"one": {"a": 10, "b": 10}, "two": {"a": 40}}, "µs")

    widths = {
        (rect.attrib["fill"], float(rect.attrib["width"]))
        for rect in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect")
        if float(rect.attrib["height"]) == plot.ROW - 6
    }
    by_length = sorted(width for _, width in widths)
    assert by_length[-1] == pytest.approx(4 * by_length[0], rel=0.01)
    assert len({fill for fill, _ in widths}) == 2


def test_curves_rise_with_their_figures() -> None:
    """A larger figure is drawn higher, a later one further right; words are escaped."""
    svg = plot.curves("a < b", {"s": [(1, 10.0), (10, 20.0), (100, 30.0)]}, "x", "y")

    line = next(ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}polyline"))
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.2), "logarithmic"


@pytest.mark.parametrize(
    ("value", "words"), [(0.213, "0.21"), (12.34, "12.3"), (21592.3, "21,592"), (5, "5"), (1e6, "1,000,000")]
)
def test_numbers_for_people(value: float, words: str) -> None:
    """Three digits that count, thousands grouped."""
    assert plot.number(value) == words


@pytest.mark.parametrize(("least", "step"), [(6002, 10_000), (1.9, 2), (0.21, 0.25), (250, 250), (0, 1)])
def test_axes_have_round_steps(least: float, step: float) -> None:
    """Never below what has to be shown."""
    assert plot.round_step(least) == pytest.approx(step)


def test_the_checked_in_report_is_that_of_its_figures(tmp_path: Path) -> None:
    """docs/performance.md and the plots are written by the report from performance.json, never by hand."""
    results = json.loads((DOCS / "performance.json").read_text())

    write_report(tmp_path, results)

    assert (tmp_path / "performance.md").read_text() == (DOCS / "performance.md").read_text()
    assert plots(results) == {path.name: path.read_text() for path in (DOCS / "performance").iterdir()}
    assert README.read_text() == with_short_figures(README.read_text(), results)
    shown = re.findall(r"\]\((performance/\w+\.svg)\)", (DOCS / "performance.md").read_text())
    assert [name for name in shown if not (DOCS / name).exists()] == []

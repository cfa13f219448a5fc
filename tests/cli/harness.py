"""How these tests run `mgw`, and how they see what is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Mgw:
    """The command, for one run directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            name: value for name, value in os.environ.items() if name not in ("JWT_SECRET", "REDIS_URL")
        } | {"PYTHONPATH": str(ROOT)}

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
        run: dict[str, Any] = json.loads((self.directory / "run.json").read_text())
        return run

    def component(self, name: str, index: int = 0) -> dict[str, Any]:
        return next(c for c in self.run["components"] if (c["name"], c["index"]) == (name, index))

    @property
    def supervisor(self) -> int:
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


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True

"""The checks of CI that need no running gateway, by name. `.pre-commit-config.yaml` has a hook for each of them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

CHECKS: Mapping[str, Sequence[str]] = {
    "lint": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy", "--no-error-summary"),
    "imports": ("lint-imports",),
    "reference": ("mgw", "dev", "reference", "--check"),
    "docs": ("mgw", "dev", "docs", "--to", "{scratch}/site"),
}
"""Each check as a program of this environment with its arguments."""


def run(root: Path, checks: Mapping[str, Sequence[str]], say: Callable[[str], None]) -> list[str]:
    """Run each check, tell how it went and how long it took, and return the names of those that failed."""
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, command in checks.items():
            began = time.monotonic()
            program = Path(sys.executable).with_name(command[0])
            arguments = [argument.format(scratch=scratch) for argument in command[1:]]
            done = subprocess.run([program, *arguments], cwd=root, capture_output=True, text=True, check=False)
            say(f"{'failed' if done.returncode else 'ok':<6}  {name:<9}  {time.monotonic() - began:4.1f} s")
            if done.returncode:
                failed.append(name)
                say(done.stdout + done.stderr)
    return failed

"""`python -m docs.generate [--check]`, which `mgw dev reference` runs."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.generate.pages import stale, write

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """Write every page; with `--check` name those that are not current, and fail."""
    if arguments != ["--check"]:
        write(ROOT)
        return 0
    old = list(stale(ROOT))
    for name in old:
        sys.stdout.write(f"{name} is not current: run ./mgw dev reference\n")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

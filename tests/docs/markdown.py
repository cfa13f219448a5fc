"""What tests read from a page: its fenced blocks, its links, and the paths that it names."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page that it begins on."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """Every fenced block of a page, in order; those that belong to an item of a list are moved to the margin."""
    return [
        Block(found[2], textwrap.dedent(found[3]), page[: found.start()].count("\n") + 1)
        for found in _FENCE.finditer(page)
    ]


def pages() -> list[Path]:
    """Every page of the documentation, those at the root of the repository included."""
    return sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "envoy" / "README.md"])


def name(page: Path) -> str:
    """A page as the repository names it."""
    return page.relative_to(ROOT).as_posix()

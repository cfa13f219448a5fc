"""A hook of mkdocs: the menu lists every page of the two folders whose pages come and go, by its title."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FIRST = ("index.md", "configuration.md", "environment.md", "commands.md", "api.md", "errors.md", "metrics.md", "log.md")
"""The order of the reference; pages that are not named here follow."""


def on_config(config: Any) -> Any:
    """Replace each folder in the menu by its pages, and leave out one that has none."""
    docs = Path(config["docs_dir"])
    config["nav"] = [entry for entry in (_filled(entry, docs) for entry in config["nav"]) if entry]
    return config


def _filled(entry: Any, docs: Path) -> Any:
    match entry:
        case {"Reference": str(folder)}:
            pages = _pages(docs / folder, docs)
            return {"Reference": sorted(pages, key=_place)} if pages else None
        case {"Decisions": [str(index), str(folder)]}:
            return {"Decisions": [index, *(page for page in reversed(_pages(docs / folder, docs)) if page != index)]}
    return entry


def _pages(folder: Path, docs: Path) -> list[str]:
    return sorted(path.relative_to(docs).as_posix() for path in folder.glob("*.md"))


def _place(page: str) -> tuple[int, str]:
    name = page.rpartition("/")[2]
    return (FIRST.index(name) if name in FIRST else len(FIRST)), name

"""The README's map is complete and true: every module of the packages is on it, and nothing that is not there."""

from __future__ import annotations

import re
import subprocess

from tests.docs.markdown import ROOT, blocks

PACKAGES = ("controlplane", "authz_service", "ratelimit_service", "service_kit")
_ENTRY = re.compile(r"^(?P<indent> *)(?P<name>[\w.-]+/?)(?: {2,}(?P<text>\S.*))?$")


def map_of(readme: str) -> dict[str, str]:
    """Each path of the map with what is said of it. The map is the block below its heading."""
    (block,) = blocks(readme.partition("## Where things are")[2])
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in block.text.splitlines():
        entry = _ENTRY.match(line)
        assert entry, f"not an entry of the map: {line!r}"
        folders = folders[: len(entry["indent"]) // 2]
        path = "".join([*folders, entry["name"]])
        found[path] = entry["text"] or ""
        if path.endswith("/"):
            folders.append(entry["name"])
    return found


def modules() -> set[str]:
    """Every file of the packages that says something: no empty `__init__.py`, nothing that others wrote."""
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    return {path for path in listed.stdout.split() if not path.endswith("/__init__.py") and "/static/" not in path}


def test_every_module_is_on_the_map() -> None:
    """A reader finds each file of the four packages, with a line that says what it is for."""
    known = map_of((ROOT / "README.md").read_text())

    assert sorted(modules() - known.keys()) == []
    assert [path for path, text in known.items() if not text] == []


def test_the_map_names_nothing_that_is_not_there() -> None:
    """A module that was renamed or removed leaves the map."""
    known = map_of((ROOT / "README.md").read_text())

    assert [path for path in known if not (ROOT / path).exists()] == []

"""Every class of error stands in the picture at the top of its package's errors.py."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def error_classes(package: str) -> Iterator[str]:
    """Classes whose base is an error, by the names of both; those that never leave their module do not count."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.ClassDef)
                and node.name[0] != "_"
                and any(_is_error(ast.unparse(base)) for base in node.bases)
            ):
                yield node.name


def _is_error(base: str) -> bool:
    return base.endswith(("Error", "Exception", "Failed", "Rejected", "Unavailable"))


@pytest.mark.parametrize("package", ["authz_service", "controlplane", "ratelimit_service", "service_kit"])
def test_every_class_is_in_the_picture(package: str) -> None:
    """A reader finds what can go wrong in one place."""
    picture = ast.get_docstring(ast.parse((ROOT / package / "errors.py").read_text(encoding="utf-8"))) or ""
    classes = set(error_classes(package))

    assert classes
    assert {name for name in classes if name not in picture} == set()

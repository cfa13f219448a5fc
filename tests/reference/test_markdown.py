"""Markdown for generated pages, and that every page is good Markdown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate.markdown import NOTE, code, page, table
from docs.generate.pages import PAGES
from tests.support.configs import ROOT

GENERATED = [ROOT / name for name in PAGES if name.endswith(".md")]


def test_a_page_is_a_note_a_title_and_parts() -> None:
    """With an empty line between them, one line's end at the end, and no part that says nothing."""
    assert page("Title", ["one\n", "", " \n", "\n\ntwo", "- a\n- b\n"]) == (
        f"{NOTE}\n\n# Title\n\none\n\ntwo\n\n- a\n- b\n"
    )
    assert page("Title", []) == f"{NOTE}\n\n# Title\n"


def test_a_table_has_a_row_a_line() -> None:
    """A line's end within a cell would end the table."""
    assert table(("a", "b"), [("1", "2\n3"), ("", "4")]) == "| a | b |\n|---|---|\n| 1 | 2 3 |\n|  | 4 |"
    assert table(("a",), []) == "| a |\n|---|"


def rows(text: str) -> list[tuple[int, int]]:
    """Of every line of a table: its number, and how many cells it has."""
    outside = re.sub(r"^```.*?^```$", lambda match: "\n" * match[0].count("\n"), text, flags=re.M | re.S)
    lines = enumerate(outside.splitlines(), 1)
    return [(number, len(re.findall(r"(?<!\\)\|", line)) - 1) for number, line in lines if line.startswith("|")]


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_every_row_has_the_cells_of_its_table(path: Path) -> None:
    """A pattern or a type with `|` in it would begin another one."""
    text = path.read_text()
    found = rows(text)
    assert found

    heads = {number: cells for number, cells in found if number - 1 not in dict(found)}
    current = 0
    for number, cells in found:
        current = heads.get(number, current)
        assert cells == current, f"{path.name}:{number}"


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_every_heading_is_there_once(path: Path) -> None:
    """A link to a heading leads to one place."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S), re.M)

    assert len(headings) == len(set(headings))


SPAN = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)")
"""A code span (CommonMark, section 6.1)."""


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_every_code_span_ends(path: Path) -> None:
    """One that does not, or that ends too early, would show the rest of its line as something else."""
    outside = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)

    assert [line for line in outside.splitlines() if "`" in SPAN.sub("", line)] == []


@pytest.mark.parametrize(
    ("text", "span"), [("a", "`a`"), ("a`b", "`` a`b ``"), ("`", "`` ` ``"), ("a``b`c", "``` a``b`c ```"), ("|", "`|`")]
)
def test_a_code_span_holds_its_text(text: str, span: str) -> None:
    """Whatever the text is, backticks included."""
    assert code(text) == span
    assert SPAN.sub("", f"x {span} y") == "x  y"

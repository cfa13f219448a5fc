"""The ten-minute tour is true: its commands are run in order, in an empty folder, and say what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import DOCS
from tests.docs.walkthrough import first_missing, run, steps
from tests.support.ports import free_port

GUIDE = DOCS / "guide.md"
PORTS = ("8080", "9101", "9102")
"""What the page says; here each is replaced by a free one."""


def test_the_tour_works_as_written(tmp_path: Path) -> None:
    """A reader who pastes every command sees what the page shows."""
    page = GUIDE.read_text()
    for port in PORTS:
        page = re.sub(rf"\b{port}\b", str(free_port()), page)
    tour = steps(page)

    outputs = run([step.commands.text for step in tour], tmp_path)

    assert len(outputs) == len(tour), f"the tour stopped in the block at line {tour[len(outputs)].commands.line}"
    for step, output in zip(tour, outputs, strict=True):
        missing = first_missing(step.shown or "", output)
        assert missing is None, f"line {step.commands.line} of the page: {missing!r} is not in what follows\n{output}"


@pytest.mark.parametrize(
    ("shown", "output", "missing"),
    [
        ("a\nb\n", "x\na\nb\n", None),
        ("b\na\n", "a\nb\n", "a"),
        ("200 … 429\n", "200 200 429 429\n", None),
        ("200 … 429\n", "200 200\n429\n", "200 … 429"),
        ("a\n…\nb\n", "a\n1\n2\nb\n", None),
    ],
)
def test_what_is_shown_is_found_in_order(shown: str, output: str, missing: str | None) -> None:
    """Each line is looked for after the one before it; `…` stands for anything within a line."""
    assert first_missing(shown, output) == missing


def test_every_step_of_the_tour_is_found() -> None:
    """A page of which no command is read would pass: this one has more than ten."""
    assert len(steps(GUIDE.read_text())) > 10

"""Fixtures of the command's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.harness import Mgw


@pytest.fixture
def mgw(tmp_path: Path) -> Iterator[Mgw]:
    """`mgw` for one run directory, which is down when the test is over."""
    command = Mgw(tmp_path / "run")
    yield command
    command("down")

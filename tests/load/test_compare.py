"""The load comparison runs, and nothing fails under it. Its figures are for people: no time is ever asserted here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compare.py")


@pytest.mark.load
@pytest.mark.xdist_group("load")
def test_gateway_serves_every_request_under_load(tmp_path: Path) -> None:
    """Two seconds of 16 connections: no request fails, and both targets' figures come out."""
    figures = tmp_path / "figures.json"

    subprocess.run(
        [sys.executable, SCRIPT, "--seconds", "2", "--connections", "16", "--json", figures], check=True, timeout=90
    )

    measured = json.loads(figures.read_text())
    assert {name: result["errors"] for name, result in measured.items()} == {"raw Envoy": 0, "gateway": 0}
    assert all(result["requests_per_second"] > 0 for result in measured.values())

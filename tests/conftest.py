"""The command `mgw` for every test; and groups of tests that need something beyond Python.

A group is skipped with the reason where what it needs is missing, unless it is required.
`MGW_REQUIRE=load,docker` makes the named groups' absence a failure, so that nothing is green by being skipped.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.go_tools import H2SPEC, go_tool
from tests.support.mgw import Mgw

# gRPC reads it when it is imported. Its threads must not come to life in what tests of processes fork.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def _answers(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


NEEDS: dict[str, tuple[str, Callable[[], bool]]] = {
    "docker": ("a Docker daemon that answers `docker info`", lambda: _answers("docker", "info")),
    "browser": ("Chromium at /usr/bin/chromium", lambda: os.access("/usr/bin/chromium", os.X_OK)),
    "postgres": ("Postgres's initdb", lambda: bool(shutil.which("initdb") or shutil.which("pg_ctlcluster"))),
    "helm": ("the helm-python-sdk wheel", lambda: importlib.util.find_spec("helm_sdk") is not None),
    "load": ("wrk on PATH", lambda: shutil.which("wrk") is not None),
    "go": (
        "Go, and grpcurl (go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest)",
        lambda: bool(go_tool("grpcurl")),
    ),
    "luacheck": ("luacheck on PATH (Debian: lua-check)", lambda: shutil.which("luacheck") is not None),
    "node": ("Node.js with npm", lambda: bool(shutil.which("node") and shutil.which("npm"))),
    "h2spec": (f"h2spec (go install {H2SPEC})", lambda: go_tool("h2spec") is not None),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    required = set(filter(None, os.environ.get("MGW_REQUIRE", "").split(",")))
    if unknown := required - NEEDS.keys():
        raise pytest.UsageError(f"MGW_REQUIRE names no group of tests: {', '.join(sorted(unknown))}")
    used = {group for item in items for group in NEEDS if item.get_closest_marker(group)}
    missing = {group for group in used if not NEEDS[group][1]()}
    if lacking := missing & required:
        raise pytest.UsageError("required, but missing: " + "; ".join(NEEDS[group][0] for group in sorted(lacking)))
    for item in items:
        for group in missing:
            if item.get_closest_marker(group):
                item.add_marker(pytest.mark.skip(reason=f"needs {NEEDS[group][0]}"))


@pytest.fixture
def mgw(tmp_path: Path) -> Iterator[Mgw]:
    """`mgw` for one run directory, which is down when the test is over."""
    command = Mgw(tmp_path / "run")
    yield command
    command("down")

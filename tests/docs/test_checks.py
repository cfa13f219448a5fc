"""`mgw dev check`: what it runs, what it says, and that the hooks before a commit are the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from controlplane.cli.app import run as mgw
from controlplane.cli.checks import CHECKS, run
from tests.docs.markdown import ROOT


def test_each_check_is_a_hook_before_a_commit() -> None:
    """In the same order, and every hook is a command of this repository: none is fetched from elsewhere."""
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]

    (local,) = repositories
    assert local["repo"] == "local"
    assert {hook["id"]: hook["entry"] for hook in local["hooks"]} == {
        name: f"./mgw dev check {name}" for name in CHECKS
    }
    assert {hook["language"] for hook in local["hooks"]} == {"system"}


def test_the_hooks_are_ones_that_prek_can_run() -> None:
    """The tool that runs them takes the file as it is."""
    prek = Path(sys.executable).with_name("prek")

    done = subprocess.run([prek, "validate-config"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_check_is_run_though_one_fails(tmp_path: Path) -> None:
    """What a failed one wrote is told, and its name is returned."""
    said: list[str] = []
    checks = {"bad": ("python", "-c", "print('the reason'); raise SystemExit(3)"), "good": ("python", "-c", "")}

    failed = run(tmp_path, checks, said.append)

    assert failed == ["bad"]
    assert [line.split()[:2] for line in said] == [["failed", "bad"], ["the", "reason"], ["ok", "good"]]


def test_a_check_that_does_not_exist_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The message names those that do."""
    assert mgw(["dev", "check", "spelling"]) == 64
    assert ", ".join(CHECKS) in capsys.readouterr().err

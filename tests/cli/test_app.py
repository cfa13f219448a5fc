"""The command line itself: verbs, usage errors, exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from controlplane import __version__
from controlplane.cli.app import VERBS, run
from controlplane.cli.test import workers
from controlplane.local.exits import OK, UNAVAILABLE, USAGE

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "words", [["no-such-verb"], ["token"], ["up", "--nonsense"], ["up", "--authz", "0"], ["up", "--only", "x"], []]
)
def test_wrong_usage_is_status_64(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is wrong with the words themselves ends with EX_USAGE and says why."""
    assert run(words) == USAGE
    assert "".join(capsys.readouterr())


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Help names every verb; both go to standard output with status 0."""
    assert run(["--help"]) == OK
    shown = capsys.readouterr().out
    assert [verb for verb in VERBS if verb not in shown] == []
    assert run(["--version"]) == OK
    assert capsys.readouterr().out.strip() == __version__


def test_every_verb_is_there_and_says_what_it_does() -> None:
    """Each line of the registry leads to a module with a documented command."""
    for name, module_name in VERBS.items():
        module = import_module(module_name)
        assert hasattr(module, "app") or module.command.__doc__, name


def test_validate_tells_of_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A document that is valid and probably not meant so: status 0, and each warning with its place."""
    monkeypatch.setenv("JWT_SECRET", "x" * 32)
    text = (ROOT / "deploy" / "config" / "gateway.yaml").read_text()
    file = tmp_path / "gateway.yaml"
    file.write_text(text.replace("tier: tier", "tier: app.tier"))

    assert run(["validate", "-f", str(file)]) == OK
    shown = capsys.readouterr()
    assert run(["validate", "-f", str(file), "--json"]) == OK
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]

    place = f"{file}:{warning['line']}:{warning['column']}"
    assert shown.out == f"{place}: warning: auth.providers.0.claims.tier: {warning['message']}\n"
    assert shown.err == f"{file} is valid\n"


def test_nothing_runs_is_status_69(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` of an empty directory says so, also to machines."""
    assert run(["status", "--dir", str(tmp_path / "none"), "--json"]) == UNAVAILABLE
    assert '"up": false' in capsys.readouterr().out


def test_down_is_fine_where_nothing_runs(tmp_path: Path) -> None:
    """`down` asks for a state, and that state is there."""
    assert run(["down", "--dir", str(tmp_path / "none")]) == OK


def test_light_parts_import_nothing_heavy() -> None:
    """What runs as a process of its own four times over must not load the command line, asyncio or a library."""
    code = (
        "import sys, controlplane.local.demo.loop; print(*{'asyncio', 'typer', 'yaml', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("words", "added"),
    [
        ([], ["-n", "2", "--dist", "loadfile"]),
        (["-k", "x"], ["-n", "2", "--dist", "loadfile"]),
        (["-n", "4"], []),
        (["-n0"], []),
        (["--pdb"], []),
        (["-p", "no:xdist"], []),
    ],
)
def test_tests_run_on_two_workers_unless_told_otherwise(words: list[str], added: list[str]) -> None:
    """The user's own choice of workers, or a debugger, goes first."""
    assert workers(words) == added

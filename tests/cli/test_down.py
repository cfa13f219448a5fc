"""`mgw down`, with processes that hold a directory's lock as a supervisor does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane.cli import down
from controlplane.cli.app import run
from controlplane.local.exits import OK, TIMED_OUT, UNAVAILABLE
from controlplane.local.runfile import RunDirectory, write_run
from tests.support.configs import ROOT
from tests.support.mgw import inherited

HOLDER = """
import signal, sys
from pathlib import Path
from controlplane.local.runfile import Lock, RunDirectory
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
lock = Lock(RunDirectory(Path(sys.argv[1])))
assert lock.take()
if "unsigned" not in sys.argv:
    lock.sign()
print("holds", flush=True)
signal.pause()
"""
"""A supervisor that nobody can talk to."""

Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """One that looks as if something ran in it."""
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    write_run(directory, {"components": []})
    return directory


@pytest.fixture
def hold(directory: RunDirectory) -> Iterator[Hold]:
    """Starts holders of the lock."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(directory.path), *words],
            cwd=ROOT,
            env=inherited(),
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stop(directory: RunDirectory) -> int:
    return run(["down", "--dir", str(directory.path)])


def test_what_is_left_of_a_dead_gateway_is_tidied(directory: RunDirectory) -> None:
    """Nothing runs, and nothing says so any more; its state and logs stay."""
    (directory.logs / "envoy-0.log").write_text("why")

    assert stop(directory) == OK

    assert not directory.run_json.exists()
    assert (directory.logs / "envoy-0.log").read_text() == "why"


def test_who_cannot_be_asked_is_told_by_a_signal(directory: RunDirectory, hold: Hold) -> None:
    """It may be only just starting; `down` comes back when it is gone."""
    holder = hold()

    assert stop(directory) == OK

    assert holder.wait(20) == -signal.SIGTERM
    assert not directory.run_json.exists()


def test_who_does_not_stop_is_killed(directory: RunDirectory, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that an orderly end may take; its parts die with it."""
    monkeypatch.setattr(down, "STOP_SECONDS", 0.2)
    holder = hold("stubborn")

    assert stop(directory) == OK

    assert holder.wait(20) == -signal.SIGKILL


def test_who_has_not_said_who_it_is_cannot_be_stopped(
    directory: RunDirectory, hold: Hold, capsys: pytest.CaptureFixture[str]
) -> None:
    """No process is guessed at; it is told that nobody answers."""
    holder = hold("unsigned")

    assert stop(directory) == UNAVAILABLE

    assert holder.poll() is None
    assert str(directory.path) in capsys.readouterr().err


def test_who_cannot_even_be_killed_is_named(
    directory: RunDirectory, hold: Hold, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its pid, and the status for what took too long."""
    monkeypatch.setattr(down, "STOP_SECONDS", 0.1)
    monkeypatch.setattr(down, "KILL_SECONDS", 0.1)
    monkeypatch.setattr(os, "kill", lambda _pid, _number: None)
    holder = hold()

    assert stop(directory) == TIMED_OUT

    assert f"(pid {holder.pid}) does not stop" in capsys.readouterr().err

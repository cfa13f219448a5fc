"""One life of a supervisor: a process of its own, with small processes in the places of a gateway's parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.local import control
from controlplane.local.exits import FAILED, UNAVAILABLE, USAGE, Failure
from controlplane.local.runfile import Lock, RunDirectory, read_run
from tests.support.configs import ROOT
from tests.support.mgw import inherited, runs
from tests.support.ports import is_reachable
from tests.support.waiting import eventually

PROGRAM = """
import sys
from pathlib import Path
from controlplane.local import session
from controlplane.local.exits import Failure
from controlplane.local.runfile import Lock, RunDirectory
from tests.support.parts import a_part, a_plan

how, folder, *wrap = sys.argv[1:]
directory = RunDirectory(Path(folder) / "run")
lock = Lock(directory)
assert lock.take()
plan = a_plan(directory, a_part(directory, Path(folder), "demo"), a_part(directory, Path(folder), "authz", 0, *wrap))
try:
    if how == "foreground":
        sys.exit(session.run_foreground(plan, frozenset(), lock, lambda: print("ready", flush=True)))
    session.run_detached(plan, frozenset(), lock)
    print("ready", flush=True)
except Failure as failure:
    print(failure)
    sys.exit(failure.status)
"""
FAILING = ("sh", "-c", "echo this is why; exit 3")
STUCK = ("sh", "-c", "exec sleep 100", "sh")


class Session:
    """A supervisor's process, and its directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = RunDirectory(folder / "run")
        self.directory.create()

    def start(self, how: str, *wrap: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, how, str(self.folder), *wrap],
            cwd=ROOT,
            env=inherited(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self, how: str) -> subprocess.Popen[str]:
        process = self.start(how)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    @property
    def pids(self) -> list[int]:
        run = read_run(self.directory)
        return [each["pid"] for each in run["components"]] if run else []

    def ask(self, verb: str, **more: object) -> dict[str, object]:
        return control.ask(self.directory, {"verb": verb, **more}, 20)

    def is_over(self) -> bool:
        """Nobody holds the lock, and nothing of a running gateway is left in the directory."""
        left = {path.name for path in self.directory.path.iterdir()}
        return Lock(self.directory).holder() is None and not left & {"run.json", "control.sock"}


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = Session(tmp_path)
    yield session
    holder = Lock(session.directory).holder()
    if holder:
        os.kill(holder, signal.SIGTERM)
        assert eventually(lambda: not runs(holder), 20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_in_the_foreground_a_signal_ends_it(session: Session, number: signal.Signals) -> None:
    """Logs are shown while it runs, every part ends, nothing is left in the directory, and the status is 0."""
    process = session.ready("foreground")
    pids = session.pids
    assert len(pids) == 2

    process.send_signal(number)
    _, said = process.communicate(timeout=20)

    assert process.returncode == 0
    assert sorted(said.splitlines()) == ["authz-0 | authz-0 listens", "demo-0  | demo-0 listens", "mgw: stopping"]
    assert not any(map(runs, pids))
    assert session.is_over()


def test_in_the_foreground_a_failure_is_told(session: Session) -> None:
    """With the status of a failure; what did start ends with it."""
    process = session.start("foreground", *FAILING)

    out, said = process.communicate(timeout=20)

    assert (process.returncode, out) == (FAILED, "")
    assert "mgw: authz-0 ended with status 3; the end of" in said
    assert "  this is why" in said
    assert session.is_over()


def test_a_daemon_is_left_behind(session: Session) -> None:
    """Who asked comes back when all is ready; the daemon holds the lock and belongs to no terminal."""
    process = session.ready("detached")
    assert process.wait(20) == 0

    daemon = Lock(session.directory).holder()

    assert daemon not in (None, 0, process.pid)
    assert daemon is not None
    assert (os.getsid(daemon), os.getpgid(daemon)) == (daemon, daemon)
    assert os.getsid(0) != daemon
    assert all(map(runs, session.pids))
    assert session.ask("stop") == {}
    assert eventually(session.is_over, 20)
    assert eventually(lambda: not runs(daemon))
    assert session.directory.log("supervisor").read_text() == "mgw: stopping\n"
    process.communicate()


def test_a_daemon_that_fails_tells_who_asked(session: Session) -> None:
    """By the failure's own words and status; nothing is left."""
    process = session.start("detached", *FAILING)

    out, _ = process.communicate(timeout=20)

    assert process.returncode == FAILED
    assert out.startswith("authz-0 ended with status 3; the end of ")
    assert session.is_over()


def test_a_daemon_that_cannot_even_begin(session: Session) -> None:
    """Who asked is told where to look."""
    session.directory.log("supervisor").mkdir()

    process = session.start("detached")
    out, _ = process.communicate(timeout=20)

    log = session.directory.log("supervisor")
    assert (process.returncode, out) == (FAILED, f"the supervisor ended; see {log}\n")
    assert session.is_over()


@pytest.mark.parametrize("how", ["foreground", "detached"])
def test_stopped_before_it_was_ready(session: Session, how: str) -> None:
    """The start is given up, and what it had started ends."""
    process = session.start(how, *STUCK)
    assert eventually(lambda: len(session.pids) == 2, 20)
    pids = session.pids

    assert session.ask("stop") == {}
    out, said = process.communicate(timeout=20)

    assert "stopped before it was ready" in out + said
    assert eventually(lambda: not any(map(runs, pids)))
    assert eventually(session.is_over)


def test_what_can_be_asked(session: Session) -> None:
    """How things are; and a dead part, by its name, is started again and told of in between."""
    session.ready("detached").communicate()
    before = session.pids
    os.kill(before[0], signal.SIGKILL)

    assert eventually(lambda: [each["alive"] for each in components(session)] == [False, True])
    assert session.ask("start", only=["demo"]) == {"started": ["demo-0"], "kept": []}
    assert session.ask("start", only=["demo-0", "authz"], wrap=["authz=env"]) == {"started": [], "kept": []}

    alive = components(session)
    assert [each["alive"] for each in alive] == [True, True]
    assert [is_reachable(str(each["address"])) for each in alive] == [True, True]
    assert session.pids[0] != before[0]
    assert session.pids[1] == before[1]
    assert f"demo-0 (pid {before[0]}) was killed by SIGKILL" in session.directory.log("supervisor").read_text()


def components(session: Session) -> list[dict[str, object]]:
    found = session.ask("status")["components"]
    assert isinstance(found, list)
    return found


def test_what_cannot_be_asked(session: Session) -> None:
    """The supervisor says so, and goes on."""
    session.ready("detached").communicate()

    refused: list[tuple[str, dict[str, Any], int, str]] = [
        ("nonsense", {}, FAILED, "no such request: "),
        ("start", {"only": ["envoy"]}, FAILED, "this gateway has no envoy"),
        ("start", {"only": ["nobody"]}, USAGE, "nobody"),
        ("start", {"only": ["demo"], "wrap": ["nobody=env"]}, USAGE, "nobody=env"),
    ]
    for verb, more, status, words in refused:
        with pytest.raises(Failure) as caught:
            session.ask(verb, **more)
        assert (caught.value.status, words in str(caught.value)) == (status, True)
    for nonsense in ({}, {"only": 5}):
        with pytest.raises(Failure) as caught:
            session.ask("start", **nonsense)
        assert caught.value.status == UNAVAILABLE

    assert [each["alive"] for each in components(session)] == [True, True]

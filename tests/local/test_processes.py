"""Children: how they are started, and that none outlives who started it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.local.processes import ENOUGH_FILES, Children, signal_group
from tests.support.configs import ROOT
from tests.support.mgw import runs
from tests.support.waiting import eventually

SLEEP = ("sleep", "100")
HERE = {"PATH": os.environ["PATH"]}

PARENT = """
import os, signal, sys
from pathlib import Path
from controlplane.local import processes
if sys.argv[1] == "guard":
    processes._binder = lambda: int  # the kernel is not asked for anything
children = processes.Children()
child = children.start(sys.argv[3:], dict(os.environ), Path(sys.argv[2]))
print(child.pid, children._guard.pid, flush=True)
signal.pause()
"""
"""A program that starts one child and then waits to be killed."""


@pytest.fixture
def children() -> Iterator[Children]:
    """Children that are gone when the test is over."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    children = Children()
    yield children
    children.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_a_child_has_its_environment_and_a_group_of_its_own(children: Children, tmp_path: Path) -> None:
    """Nothing of ours beside it, nothing to read from, and both outputs in its log."""
    script = "env; cat; echo $$ $(ps -o pgid= -p $$); echo to standard error >&2"

    child = children.start(("sh", "-c", script), HERE | {"A": "b c"}, tmp_path / "log")

    assert child.wait(20) == 0
    *environment, ids, last = (tmp_path / "log").read_text().splitlines()
    assert "A=b c" in environment
    assert not any(line.startswith(("HOME=", "USER=", "VIRTUAL_ENV=", "PYTEST")) for line in environment)
    assert ids.split() == [str(child.pid)] * 2
    assert last == "to standard error"
    children.sweep(child.pid)


def test_a_log_goes_on(children: Children, tmp_path: Path) -> None:
    """A part that is started again does not wipe out why it ended."""
    for word in ("one", "two"):
        children.sweep(children.start(("echo", word), HERE, tmp_path / "log").wait(20) or 2**22 - 1)

    assert (tmp_path / "log").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("command", ["/no/such/command", "no-such-command", "/etc/passwd"])
def test_a_command_that_cannot_be_run(children: Children, tmp_path: Path, command: str) -> None:
    """It is an OSError at once, and nothing is left running."""
    with pytest.raises(OSError, match=command):
        children.start((command,), HERE, tmp_path / "log")


def test_what_is_left_of_a_group_is_swept(children: Children, tmp_path: Path) -> None:
    """A child that ended may have left something behind, which would keep its port."""
    child = children.start(("sh", "-c", "sleep 100 & echo $!"), HERE, tmp_path / "log")
    child.wait(20)
    left = int((tmp_path / "log").read_text())
    assert runs(left)

    children.sweep(child.pid)

    assert eventually(lambda: not runs(left))


def test_closing_ends_whoever_still_runs(children: Children, tmp_path: Path) -> None:
    """The guard kills what it knows of, and is gone itself."""
    running = children.start(SLEEP, HERE, tmp_path / "log")

    children.close()

    assert running.wait(20) == -signal.SIGKILL
    children.close()


def test_a_guard_that_was_killed_breaks_nothing(children: Children, tmp_path: Path) -> None:
    """Children are swept and closed all the same."""
    child = children.start(("sh", "-c", "sleep 100 & echo $!"), HERE, tmp_path / "log")
    child.wait(20)
    os.kill(children._guard.pid, signal.SIGKILL)
    children._guard.wait(20)

    children.sweep(child.pid)

    assert eventually(lambda: not runs(int((tmp_path / "log").read_text())))


@pytest.mark.parametrize(("net", "forks"), [("guard", False), ("guard", True), ("kernel", False)])
def test_no_child_outlives_a_parent_that_is_killed(tmp_path: Path, net: str, forks: bool) -> None:
    """The guard ends it, with what it forked; where the guard was killed too, the kernel ends at least the child."""
    command = ("sh", "-c", "sleep 100 & echo $!; wait") if forks else ("sh", "-c", "echo $$; exec sleep 100")
    log = tmp_path / "log"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, net, str(log), *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child, guard = map(int, parent.stdout.readline().split())
    inner = int(eventually(lambda: log.read_text().strip() if log.exists() else ""))
    if net == "kernel":
        os.kill(guard, signal.SIGKILL)
        assert eventually(lambda: not runs(guard))
    assert runs(child) and runs(inner)

    parent.kill()
    parent.communicate()

    assert eventually(lambda: not runs(child) and not runs(inner))


@pytest.mark.parametrize(
    ("soft", "hard", "becomes"),
    [
        (1024, 2048, 2048),
        (1024, 1_000_000, ENOUGH_FILES),
        (1024, resource.RLIM_INFINITY, ENOUGH_FILES),
        (100_000, 1_000_000, 100_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    ],
)
def test_children_may_have_many_files(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, becomes: int) -> None:
    """As many as Envoy needs, or as the machine allows; what is more already stays, and the hard limit too."""
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limit: limits.append(limit))

    Children().close()

    assert limits[-1] == (becomes, hard)


def test_signals_reach_a_whole_group(children: Children, tmp_path: Path) -> None:
    """And one that is gone is no error."""
    child = children.start(("sh", "-c", "sleep 100 & echo $!; wait"), HERE, tmp_path / "log")
    inner = int(eventually(lambda: (tmp_path / "log").read_text().strip()))

    signal_group(child.pid, signal.SIGTERM)

    assert child.wait(20) == -signal.SIGTERM
    assert eventually(lambda: not runs(inner))
    signal_group(child.pid, signal.SIGTERM)

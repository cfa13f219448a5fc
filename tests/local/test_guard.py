"""The guard: a real one, with real process groups."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane.local import guard
from tests.support.mgw import runs
from tests.support.waiting import eventually

Start = Callable[..., subprocess.Popen[bytes]]

FORKING = "import subprocess, sys; subprocess.run(['sleep', '100'])"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts programs that are gone when the test is over, whatever it did."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*argv: str, **options: object) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(argv, process_group=0, **options))  # type: ignore[call-overload] # as given
        return started[-1]

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin:
            process.stdin.close()


@pytest.fixture
def watch(start: Start) -> subprocess.Popen[bytes]:
    """A guard, started as the supervisor starts it."""
    return start(sys.executable, "-I", "-S", guard.__file__, stdin=subprocess.PIPE)


def tell(watch: subprocess.Popen[bytes], *lines: str) -> None:
    assert watch.stdin is not None
    watch.stdin.write("".join(f"{line}\n" for line in lines).encode())
    watch.stdin.flush()


def ignores(pid: int, number: signal.Signals) -> bool:
    """Whether a process ignores a signal, as the kernel has it."""
    fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(fields["SigIgn"], 16) >> (number - 1) & 1)


def close(watch: subprocess.Popen[bytes]) -> int:
    """The other end is gone, as it is when the supervisor died."""
    assert watch.stdin is not None
    watch.stdin.close()
    return watch.wait(20)


def test_groups_on_the_list_are_killed_when_the_line_closes(watch: subprocess.Popen[bytes], start: Start) -> None:
    """What was put on it; not what was taken off, nor what nobody spoke of."""
    listed, released, unknown = (start("sleep", "100") for _ in range(3))
    tell(watch, f"+{listed.pid}", f"+{released.pid}", f"-{released.pid}")

    assert close(watch) == 0

    assert listed.wait(20) == -signal.SIGKILL
    assert (released.poll(), unknown.poll()) == (None, None)


def test_a_group_goes_whole(watch: subprocess.Popen[bytes], start: Start) -> None:
    """With what its first process forked."""
    parent = start(sys.executable, "-c", FORKING)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    (child,) = eventually(lambda: [int(pid) for pid in children.read_text().split()])
    tell(watch, f"+{parent.pid}")

    close(watch)

    assert parent.wait(20) == -signal.SIGKILL
    assert eventually(lambda: not runs(child))


def test_a_group_that_is_gone_keeps_no_other_alive(watch: subprocess.Popen[bytes], start: Start) -> None:
    """Nor is it an error."""
    gone, living = start("true"), start("sleep", "100")
    gone.wait()
    tell(watch, f"+{gone.pid}", f"-{2**22 - 1}", f"+{living.pid}", f"+{living.pid}")

    assert close(watch) == 0
    assert living.wait(20) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_ends_the_supervisor_does_not_end_the_guard(
    watch: subprocess.Popen[bytes], start: Start, number: signal.Signals
) -> None:
    """Ctrl-C, a terminal that closes, or a system that shuts down reach both; the guard stays for the groups."""
    one, other = start("sleep", "100"), start("sleep", "100")
    tell(watch, f"+{one.pid}")
    assert eventually(lambda: ignores(watch.pid, number))

    watch.send_signal(number)
    tell(watch, f"+{other.pid}")

    assert close(watch) == 0
    assert [each.wait(20) for each in (one, other)] == [-signal.SIGKILL] * 2

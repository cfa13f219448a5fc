"""The supervisor, with small processes in the places of a gateway's parts."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.local import supervisor as module
from controlplane.local.exits import Failure
from controlplane.local.plan import Part
from controlplane.local.runfile import RunDirectory, read_run
from controlplane.local.supervisor import Supervisor, describe_end, tail
from service_kit.files import write_atomically
from tests.support.mgw import runs
from tests.support.parts import a_part, a_plan
from tests.support.waiting import until

STUBBORN = ("sh", "-c", 'trap "" TERM; "$@" & while :; do wait; done', "stubborn")
"""A wrap that does not end when it is told to."""


class Running:
    """A supervisor of stand-ins, what it said, and what they noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = RunDirectory(folder / "run")
        self.directory.create()
        self.said: list[str] = []
        self.supervisor: Supervisor = self.of()

    def of(self, *parts: Part) -> Supervisor:
        self.supervisor = Supervisor(a_plan(self.directory, *parts), self.said.append)
        return self.supervisor

    def part(self, name: str, index: int = 0, *wrap: str) -> Part:
        return a_part(self.directory, self.folder, name, index, *wrap)

    @property
    def noted(self) -> list[str]:
        path = self.folder / "said"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path)
    yield running
    await running.supervisor.stop()


def pid(supervisor: Supervisor, identity: str) -> int:
    components = supervisor.status()
    return int(next(each["pid"] for each in components if f"{each['name']}-{each['index']}" == identity))


async def test_parts_are_started_and_told_of(running: Running) -> None:
    """Start waits until they answer, says which it started, and writes run.json; what runs is left alone."""
    supervisor = running.of(*(running.part("demo", index) for index in range(3)))

    assert await supervisor.start(frozenset({"demo-0", "demo-2"})) == ["demo-0", "demo-2"]
    assert await supervisor.start(frozenset({"demo"})) == ["demo-1"]
    assert await supervisor.start(frozenset()) == []

    run = read_run(running.directory)
    assert run is not None
    assert [each["pid"] for each in run["components"]] == [pid(supervisor, f"demo-{index}") for index in range(3)]
    assert all(supervisor.is_alive(part) for part in supervisor.plan.parts)
    assert running.said == []


async def test_a_part_that_nobody_has(running: Running) -> None:
    """The failure names what was asked for."""
    with pytest.raises(Failure, match=r"^this gateway has no authz, envoy-1$"):
        await running.of(running.part("demo")).start(frozenset({"envoy-1", "authz"}))


async def test_a_death_is_told_once_and_undone_on_request(running: Running) -> None:
    """With the pid and how; the part stays dead until somebody asks, and then has the address of before."""
    supervisor = running.of(running.part("demo"), running.part("demo", 1))
    await supervisor.start(frozenset())
    dead, living = (pid(supervisor, f"demo-{index}") for index in range(2))

    def heard() -> list[str]:
        supervisor.reap()
        return running.said

    os.kill(dead, signal.SIGKILL)
    await until(heard)
    supervisor.reap()

    assert running.said == [f"demo-0 (pid {dead}) was killed by SIGKILL"]
    before = supervisor.status()
    assert [(each["alive"], each["exit_status"]) for each in before] == [(False, -9), (True, None)]
    assert await supervisor.start(frozenset()) == ["demo-0"]
    after = supervisor.status()
    assert after[0]["address"] == before[0]["address"]
    assert after[0]["pid"] != dead
    assert after[1]["pid"] == living


async def test_status_is_of_what_was_started(running: Running) -> None:
    """A part that was left out is not called dead."""
    supervisor = running.of(running.part("demo"), running.part("authz"))
    assert supervisor.status() == []

    await supervisor.start(frozenset({"demo"}))

    assert [each["name"] for each in supervisor.status()] == ["demo"]


async def test_a_wrap_goes_before_the_command(running: Running) -> None:
    """For this start alone: of one part, or of all of a kind."""
    supervisor = running.of(running.part("demo"), running.part("demo", 1))
    await supervisor.start(frozenset(), {"demo": ("env", "MARK=kind"), "demo-1": ("env", "MARK=own")})

    marks = []
    for index in range(2):
        environment = Path(f"/proc/{pid(supervisor, f'demo-{index}')}/environ").read_bytes().split(b"\0")
        marks += [each for each in environment if each.startswith(b"MARK=")]

    assert marks == [b"MARK=kind", b"MARK=own"]


async def test_a_part_that_ends_at_once_is_blamed(running: Running) -> None:
    """With how it ended and the end of its log; the others are left running, and it can be tried again."""
    supervisor = running.of(running.part("demo"), running.part("authz"))
    failing = ("sh", "-c", "echo this is why; exit 3")

    with pytest.raises(Failure) as caught:
        await supervisor.start(frozenset(), {"authz": failing})

    log = running.directory.log("authz-0")
    assert str(caught.value) == f"authz-0 ended with status 3; the end of {log}:\n  this is why"
    assert [each["alive"] for each in supervisor.status()] == [True, False]
    assert await supervisor.start(frozenset()) == ["authz-0"]


async def test_a_part_that_is_late_is_blamed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it was waited for, and how long."""
    monkeypatch.setattr(module, "READY_SECONDS", 1.0)
    part = running.part("demo", 0, "sh", "-c", "echo busy; exec sleep 100", "sh")

    with pytest.raises(Failure) as caught:
        await running.of(part).start(frozenset())

    first, last = str(caught.value).splitlines()
    assert first == f"demo-0 is not ready: nothing answers at {part.address} (waited 1 s); the end of {part.log}:"
    assert last == "  busy"


async def test_a_command_that_cannot_be_run_is_named(running: Running) -> None:
    """By the part that it is for."""
    with pytest.raises(Failure, match=r"^cannot start demo-0: .*'/no/such/command'"):
        await running.of(running.part("demo")).start(frozenset(), {"demo-0": ("/no/such/command",)})


async def test_parts_end_in_the_order_in_which_they_need_each_other(running: Running) -> None:
    """Envoy first, then the services, then what those use; of that nothing is told as a death."""
    supervisor = running.of(*map(running.part, ("redis", "demo", "authz", "ratelimit", "envoy")))
    await supervisor.start(frozenset())
    pids = [each["pid"] for each in supervisor.status()]

    await supervisor.stop()

    ended = [line.removesuffix("-0: SIGTERM") for line in running.noted if line.endswith("SIGTERM")]
    assert ended[0] == "envoy"
    assert sorted(ended[1:3]) == ["authz", "ratelimit"]
    assert sorted(ended[3:]) == ["demo", "redis"]
    assert not any(map(runs, pids))
    supervisor.reap()
    assert running.said == []


async def test_envoy_ends_when_its_requests_have(running: Running) -> None:
    """It is told to drain, and stays while one is under way; its own admin's do not count."""
    (running.folder / "active").write_text("1")
    supervisor = running.of(running.part("envoy"))
    await supervisor.start(frozenset())
    envoy = pid(supervisor, "envoy-0")

    stopping = asyncio.ensure_future(supervisor.stop())
    await until(lambda: running.noted.count("envoy-0: /stats") > 2)
    assert running.noted[0] == "envoy-0: /drain_listeners?graceful"
    assert "envoy-0: SIGTERM" not in running.noted
    write_atomically(running.folder / "active", "0")
    await stopping

    assert running.noted[-1] == "envoy-0: SIGTERM"
    assert not runs(envoy)


async def test_requests_that_never_end_hold_nothing_up(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draining has its time."""
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.2)
    (running.folder / "active").write_text("7")
    supervisor = running.of(running.part("envoy"))
    await supervisor.start(frozenset())

    await asyncio.wait_for(supervisor.stop(), 10)

    assert running.noted[-1] == "envoy-0: SIGTERM"


async def test_a_part_that_does_not_end_is_killed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time, with what it forked; one that is stopped is woken first."""
    monkeypatch.setattr(module, "TERM_SECONDS", 0.3)
    supervisor = running.of(running.part("demo"), running.part("demo", 1))
    await supervisor.start(frozenset(), {"demo-0": STUBBORN})
    stubborn, stopped = (pid(supervisor, f"demo-{index}") for index in range(2))
    os.kill(stopped, signal.SIGSTOP)

    await asyncio.wait_for(supervisor.stop(), 10)

    assert [each["exit_status"] for each in supervisor.status()] == [-signal.SIGKILL, 0]
    assert not runs(stubborn)
    assert "demo-1: SIGTERM" in running.noted


async def test_stopping_what_was_never_started(running: Running) -> None:
    """There is nothing to do, once or twice."""
    supervisor = running.of(running.part("demo"), running.part("envoy"))

    await supervisor.stop()
    await supervisor.stop()

    assert running.noted == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with status 0"),
        (70, "ended with status 70"),
        (-9, "was killed by SIGKILL"),
        (-15, "was killed by SIGTERM"),
        (-40, "was killed by signal 40"),
    ],
)
def test_how_a_part_ended(status: int, words: str) -> None:
    """In words, also for a signal without a name."""
    assert describe_end(status) == words


@pytest.mark.parametrize(
    ("content", "lines", "shown"),
    [
        (b"", 3, "  (empty)"),
        (b"one\n", 3, "  one"),
        (b"one\ntwo\nthree\nfour", 3, "  two\n  three\n  four"),
        (b"\xff\n", 3, "  \ufffd"),
        (b"old\n" * 100_000 + b"new\n", 2, "  old\n  new"),
    ],
    ids=["empty", "one", "four", "no text", "large"],
)
def test_the_end_of_a_log(tmp_path: Path, content: bytes, lines: int, shown: str) -> None:
    """Its last lines, indented."""
    (tmp_path / "log").write_bytes(content)

    assert tail(tmp_path / "log", lines) == shown


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    """It is said, as there is a reason to look for it."""
    assert tail(tmp_path / "log") == "  (no log)"


def test_a_log_that_is_one_endless_line(tmp_path: Path) -> None:
    """Of that its end is shown, and not all of it."""
    (tmp_path / "log").write_bytes(b"x" * 1_000_000)

    assert len(tail(tmp_path / "log")) <= 64 * 1024 + 2

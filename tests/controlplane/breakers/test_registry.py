"""The board of breakers: what callers meet, what each Envoy is told, and what an operator holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.breakers.override_file import NAME, ForceFile
from controlplane.breakers.registry import (
    CALM_SECONDS,
    EJECTED,
    HASTE_SECONDS,
    MEMBERS,
    OPEN_SECONDS,
    TRIAL_SECONDS,
    BreakerBoard,
    Force,
    Forced,
)
from controlplane.breakers.state_machine import Count
from controlplane.errors import StateUnwritable
from tests.support.clock import FakeClock
from tests.support.configs import a_service

FAILING = Count(issued=10, errors=10)
REQUESTS, PENDING = "circuit_breakers.a.default.max_requests", "circuit_breakers.a.default.max_pending_requests"


@pytest.fixture
def board(clock: FakeClock) -> BreakerBoard:
    """Services a and b, and two Envoys that report."""
    board = BreakerBoard(clock)
    board.use([a_service("a"), a_service("b")])
    for node in ("envoy-0", "envoy-1"):
        board.report(node, {}, confirmed=True)
    return board


def fail(board: BreakerBoard) -> None:
    board.report("envoy-0", {"a": FAILING, "mgw-authz": FAILING}, confirmed=True)


def hold(force: Force) -> Forced:
    return Forced(force, "because", "editor", 1_800_000_000.0)


def test_every_envoy_is_told_to_leave_a_sick_service_alone(board: BreakerBoard, clock: FakeClock) -> None:
    """Open it is capped at zero everywhere, half-open at its share; the other service is not mentioned."""
    assert board.layers() == {}
    fail(board)
    opened = board.layers()
    clock.advance(2)
    board.tick()

    assert opened == {node: {REQUESTS: 0, PENDING: 0} for node in ("envoy-0", "envoy-1")}
    assert sorted(layer[REQUESTS] for layer in board.layers().values()) == [0, 1]
    assert (board.state("a"), board.state("b")) == ("half_open", "closed")


@pytest.mark.parametrize(
    ("members", "ejected", "state"),
    [(1, 0, "closed"), (1, 1, "open"), (3, 2, "closed"), (3, 3, "open"), (0, 0, "closed")],
)
def test_a_breaker_is_open_when_no_host_is_left(board: BreakerBoard, members: int, ejected: int, state: str) -> None:
    """A service is open at an Envoy that ejected every host; what is no service of the document is passed over."""
    board.gauges("envoy-1", {"a": {MEMBERS: members, EJECTED: ejected}, "mgw-authz": {MEMBERS: 1, EJECTED: 1}})

    assert (board.state("a"), board.state("mgw-authz")) == (state, "closed")


def test_changes_are_told_once(board: BreakerBoard) -> None:
    """A change has the state before and after, and why."""
    fail(board)
    (change,) = board.changes()

    assert (change.service, change.before, change.after) == ("a", "closed", "open")
    assert "10 failures" in change.why
    assert board.changes() == []


def test_reports_come_as_often_as_they_matter(board: BreakerBoard, clock: FakeClock) -> None:
    """Seldom while all is well, fast while a service may be tried, and no longer so fast where nobody tries it."""
    paces = [board.report_seconds()]
    fail(board)
    paces.append(board.report_seconds())
    clock.advance(2)
    board.tick()
    paces.append(board.report_seconds())
    clock.advance(HASTE_SECONDS)
    paces.append(board.report_seconds())

    assert paces == [CALM_SECONDS, OPEN_SECONDS, TRIAL_SECONDS, OPEN_SECONDS]


@pytest.mark.parametrize("force", ["open", "closed"])
def test_what_is_held_stays(board: BreakerBoard, clock: FakeClock, force: Force) -> None:
    """Whatever is seen of it, a held breaker is as the operator said, and Envoys are told nothing by their runtime."""
    fail(board)
    board.force("a", hold(force))
    for _ in range(3):
        fail(board)
        board.gauges("envoy-0", {"a": {MEMBERS: 1, EJECTED: 1}})
        clock.advance(3)
        board.tick()

    assert (board.state("a"), board.layers()) == (force, {})
    assert board.cap("a", "envoy-0") == (0 if force == "open" else None)
    assert board.report_seconds() == CALM_SECONDS
    board.force("a", hold("auto"))
    assert (board.state("a"), board.forced()) == ("closed", {})
    fail(board)
    assert board.state("a") == "open"


def test_a_service_that_is_gone_is_forgotten(board: BreakerBoard) -> None:
    """So is what was forced of it; an unknown one cannot be forced."""
    board.force("a", hold("open"))
    board.use([a_service("b")])

    assert (board.forced(), list(board.breakers())) == ({}, ["b"])
    with pytest.raises(KeyError):
        board.force("a", hold("open"))


def test_changed_rules_begin_closed_and_others_stay(board: BreakerBoard) -> None:
    """A service whose numbers changed has a new cluster; a change elsewhere closes nothing."""
    fail(board)
    board.use([a_service("a"), a_service("b", breaker={"failures": 3})])
    unchanged = board.state("a")
    board.use([a_service("a", breaker={"failures": 3}), a_service("b")])

    assert (unchanged, board.state("a")) == ("open", "closed")
    assert board.breakers()["a"].heard == ("envoy-0", "envoy-1")


def test_forces_outlive_the_process(tmp_path: Path) -> None:
    """What was saved is loaded; nothing saved is nothing forced; without a directory nothing is kept."""
    file = ForceFile(tmp_path / "state")
    assert file.load() == {}
    file.save({"a": hold("open")})

    assert ForceFile(tmp_path / "state").load() == {"a": hold("open")}
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [NAME]
    nowhere = ForceFile(None)
    nowhere.save({"a": hold("open")})
    assert nowhere.load() == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"force": "open"}}', json.dumps({"a": {"x": 1}})])
def test_a_file_that_makes_no_sense_stops_the_start(tmp_path: Path, text: str) -> None:
    """What an operator forced is not guessed: the message names the file."""
    (tmp_path / NAME).write_text(text)

    with pytest.raises(StateUnwritable, match=NAME):
        ForceFile(tmp_path).load()


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """What cannot be kept is not done."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StateUnwritable):
        ForceFile(tmp_path / "file" / "below").save({"a": hold("open")})


def test_types() -> None:
    """A force that the file should not hold is refused like any other nonsense."""
    values: dict[str, Any] = {"force": "ajar", "reason": "", "by": "", "at": 0}
    with pytest.raises(ValueError, match="ajar"):
        Forced(**values)

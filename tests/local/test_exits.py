"""The exit statuses, and the failure that carries one."""

from __future__ import annotations

import os

import pytest

from controlplane.errors import ControlPlaneError
from controlplane.local import exits
from controlplane.local.exits import Failure
from tests.support.configs import ROOT

STATUSES = {name: value for name, value in vars(exits).items() if name.isupper()}


@pytest.mark.parametrize(
    ("status", "number"),
    [
        (exits.OK, os.EX_OK),
        (exits.USAGE, os.EX_USAGE),
        (exits.UNAVAILABLE, os.EX_UNAVAILABLE),
        (exits.TIMED_OUT, os.EX_TEMPFAIL),
    ],
)
def test_statuses_are_those_of_sysexits(status: int, number: int) -> None:
    """Other programs know what they mean."""
    assert status == number


def test_no_two_statuses_are_alike_and_a_shell_sees_each() -> None:
    """From 0 to 125: a shell has meanings of its own for what is above."""
    assert len(set(STATUSES.values())) == len(STATUSES)
    assert all(0 <= value <= 125 for value in STATUSES.values())


def test_every_status_is_in_the_reference() -> None:
    """But the one that no verb of the page has yet."""
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()

    missing = {name for name, value in STATUSES.items() if f"| {value} |" not in page}
    assert missing <= {"DIFFERS"}


def test_a_failure_says_why_and_carries_its_status() -> None:
    """It is a failure like any other unless it says more, and is one of the package's errors."""
    plain, unavailable = Failure("no such file"), Failure("nothing runs", exits.UNAVAILABLE)

    assert (str(plain), plain.status) == ("no such file", 1)
    assert (str(unavailable), unavailable.status) == ("nothing runs", 69)
    assert isinstance(plain, ControlPlaneError)

"""Following the parts' logs."""

from __future__ import annotations

from pathlib import Path

from controlplane.local.follow import Follower, prefixes
from controlplane.local.rotation import rotate


def test_only_whole_new_lines_are_shown(tmp_path: Path) -> None:
    """A line shows once, when it is whole; a log that is not there yet shows nothing."""
    log = tmp_path / "x.log"
    follower = Follower(log, "x | ")
    assert list(follower.new_lines()) == []

    log.write_bytes(b"one\ntw")
    assert list(follower.new_lines()) == ["x | one\n"]
    with log.open("ab") as file:
        file.write(b"o\n\xff\n")
    assert list(follower.new_lines()) == ["x | two\n", "x | �\n"]


async def test_a_log_that_was_emptied_is_followed_without_a_gap(tmp_path: Path) -> None:
    """The end of what it had is read from the one before, then the log from its beginning."""
    log = tmp_path / "x.log"
    follower = Follower(log, "")
    log.write_bytes(b"one\ntwo\nth")
    assert list(follower.new_lines()) == ["one\n", "two\n"]

    with log.open("ab") as file:
        file.write(b"ree\n")
    await rotate(log)
    with log.open("ab") as file:
        file.write(b"four\n")

    assert list(follower.new_lines()) == ["three\n", "four\n"]


def test_prefixes_line_up() -> None:
    """All prefixes are as wide as the longest name; colour only where it is wanted."""
    assert prefixes(["a", "long"], colour=False) == ["a    | ", "long | "]
    assert "\033[" in prefixes(["a"], colour=True)[0]

"""Logs are bounded: the one before is kept, and whoever writes goes on in an empty file."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from controlplane.local import rotation
from tests.support.waiting import until


async def test_a_log_that_has_grown_begins_anew(tmp_path: Path) -> None:
    """Its lines are in the one before; what its writer appends then stands at the beginning."""
    log = tmp_path / "envoy-0.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 3_000_000)  # more than a piece
        await rotation.rotate(log)
        writer.write(b"new\n")

    assert rotation.previous(log).name == "envoy-0.log.1"
    assert rotation.previous(log).read_bytes() == b"old\n" * 3_000_000
    assert log.read_bytes() == b"new\n"


async def test_only_one_is_kept(tmp_path: Path) -> None:
    """The one before the one before is gone."""
    log = tmp_path / "a.log"
    for text in ("one", "two", "three"):
        log.write_text(text)
        await rotation.rotate(log)

    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == ["a.log.1"]
    assert rotation.previous(log).read_text() == "three"


async def test_a_full_disk_loses_the_log_and_not_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be kept is given up: an empty log frees the space."""
    log = tmp_path / "a.log"
    log.write_text("text")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        await rotation.rotate(log)

    assert (log.read_text(), rotation.previous(log).exists()) == ("", False)


async def test_logs_are_looked_at_until_it_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log at its bound stays, a longer one goes; one that is not there, or cannot be emptied, stops nothing."""
    monkeypatch.setattr(rotation, "POLL_SECONDS", 0.0)
    short, long, folder = tmp_path / "short.log", tmp_path / "long.log", tmp_path / "folder.log"
    short.write_text("x" * 10)
    long.write_text("x" * 11)
    folder.mkdir()
    bounding = asyncio.create_task(rotation.keep_bounded([tmp_path / "gone.log", folder, short, long], 10))

    await until(lambda: not long.stat().st_size, seconds=10)
    bounding.cancel()

    assert rotation.previous(long).read_text() == "x" * 11
    assert (short.read_text(), rotation.previous(short).exists()) == ("x" * 10, False)
    with pytest.raises(asyncio.CancelledError):
        await bounding

"""Keeps the parts' logs bounded: one that has grown too long is kept as the one before, and begins anew.

The parts write their files themselves and hold them open, so a log is copied and then emptied, not renamed. What is
written between the last read and that, within microseconds, is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

POLL_SECONDS = 1.0
_PIECE = 4 << 20


async def keep_bounded(logs: Sequence[Path], most_bytes: int) -> None:
    """Look at the logs, until cancelled. Each takes at most about twice `most_bytes`, with the one before."""
    while True:
        for log in logs:
            if size_of(log) > most_bytes:
                with contextlib.suppress(OSError):  # the next look tries again
                    await rotate(log)
        await asyncio.sleep(POLL_SECONDS)


def previous(log: Path) -> Path:
    """Where the log before this one is."""
    return log.with_name(f"{log.name}.1")


def size_of(log: Path) -> int:
    """The log's size; 0 if it is not there."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


async def rotate(log: Path) -> None:
    """Keep what the log has as the one before, and empty it. If it cannot be kept, the disk being full, it is lost."""
    before = previous(log)
    before.unlink(missing_ok=True)
    try:
        await _copy(log, before)
    except OSError:
        with contextlib.suppress(OSError):
            before.unlink(missing_ok=True)
    os.truncate(log, 0)


async def _copy(log: Path, to: Path) -> None:
    """All that is there, in pieces: the supervisor has other things to do. Nothing waits after the last one."""
    with log.open("rb", buffering=0) as source, to.open("wb", buffering=0) as copy:
        while piece := source.read(_PIECE):
            _write_all(copy.fileno(), piece)
            if len(piece) == _PIECE:
                await asyncio.sleep(0)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]

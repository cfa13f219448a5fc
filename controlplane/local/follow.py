"""Follow the parts' logs on standard error, each line behind the name of its part."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from controlplane.local.rotation import previous, size_of

POLL_SECONDS = 0.1
_COLOURS = (36, 33, 32, 35, 34, 31)  # of ANSI's eight, those that can be read on black and on white
_LONGEST_READ = 256 * 1024


async def follow(logs: Mapping[str, Path]) -> None:
    """Print what is appended to the logs, until cancelled.

    The parts write their files themselves, so that neither a slow terminal nor our end holds them up.
    """
    followers = [Follower(log, prefix) for log, prefix in zip(logs.values(), prefixes(list(logs)), strict=True)]
    try:
        while True:
            _print_new(followers)
            await asyncio.sleep(POLL_SECONDS)
    finally:
        _print_new(followers)


def _print_new(followers: list[Follower]) -> None:
    text = "".join(line for follower in followers for line in follower.new_lines())
    if text:
        sys.stderr.write(text)
        sys.stderr.flush()


def prefixes(names: list[str], *, colour: bool | None = None) -> list[str]:
    """One prefix a name, all of one width."""
    width = max(map(len, names), default=0)
    if sys.stderr.isatty() if colour is None else colour:
        return [f"\033[{_COLOURS[i % len(_COLOURS)]}m{name:<{width}} |\033[0m " for i, name in enumerate(names)]
    return [f"{name:<{width}} | " for name in names]


class Follower:
    """One log: how far it was read, and the line that is not yet whole."""

    def __init__(self, log: Path, prefix: str) -> None:
        self._log = log
        self._prefix = prefix
        self._position = 0
        self._rest = b""

    def new_lines(self) -> Iterator[str]:
        if size_of(self._log) < self._position:  # it was emptied; the end of what it had is in the one before
            yield from self._read(previous(self._log))
            self._position = 0
        yield from self._read(self._log)

    def _read(self, log: Path) -> Iterator[str]:
        try:
            with log.open("rb") as file:
                file.seek(self._position)
                data = file.read(_LONGEST_READ)
        except FileNotFoundError:
            return
        self._position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield f"{self._prefix}{line.decode(errors='replace')}\n"

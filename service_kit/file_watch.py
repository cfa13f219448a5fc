"""Tells when a file may have changed.

It watches directories. A watch on the file itself ends when the file is replaced: by a rename, or by a new symlink as
Kubernetes does it for a ConfigMap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

log = structlog.get_logger()

RETRY_SECONDS = 1.0


class FileWatch:
    """Watches one set of files in a task of its own. `on_change` may also be called where nothing has changed."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._directories: frozenset[Path] = frozenset()
        self._task: asyncio.Task[None] | None = None

    def follow(self, paths: Iterable[str | Path]) -> None:
        """Watch these files from now on, instead of those before. Call it in the event loop."""
        directories = frozenset(Path(path).absolute().parent for path in paths)
        if directories == self._directories:
            return
        self._directories = directories
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(self._watch(directories), name="file watch") if directories else None

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self, directories: frozenset[Path]) -> None:
        from watchfiles import awatch  # late: most policies refer to no file

        while True:
            try:
                async for _ in awatch(*directories, watch_filter=None, recursive=False, debounce=100, step=20):
                    self._on_change()
            except Exception:  # nothing else would see a change; it is watched again below
                log.exception("watch.failed")
            await asyncio.sleep(RETRY_SECONDS)
            self._on_change()  # a change in between was not seen

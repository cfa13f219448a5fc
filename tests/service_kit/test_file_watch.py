"""Watching files through their directories."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service_kit.file_watch import FileWatch
from tests.support.waiting import until


class Counter:
    """How often something may have changed."""

    def __init__(self) -> None:
        self.changes = 0

    def __call__(self) -> None:
        self.changes += 1


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[tuple[FileWatch, Counter]]:
    counter = Counter()
    file_watch = FileWatch(counter)
    yield file_watch, counter
    await file_watch.close()


async def test_writes_renames_and_symlink_swaps_are_seen(watch: Any, tmp_path: Path) -> None:
    """As editors and Kubernetes do them; the second swap as well as the first."""
    file_watch, counter = watch
    (tmp_path / "keys").write_text("0")
    file_watch.follow([tmp_path / "keys"])

    async def is_seen(change: Any) -> None:
        before = counter.changes

        def changed() -> bool:
            change()  # again until it is seen: the watch may not have begun yet
            return bool(counter.changes > before)

        await until(changed)

    await is_seen(lambda: (tmp_path / "keys").write_text("1"))

    def swap() -> None:
        (tmp_path / "target").write_text("2")
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to("target")
        (tmp_path / "link").replace(tmp_path / "keys")

    await is_seen(swap)
    await is_seen(swap)


async def test_following_nothing_costs_nothing(watch: Any, tmp_path: Path) -> None:
    """No task, and no import."""
    file_watch, _ = watch
    file_watch.follow([])

    assert file_watch._task is None

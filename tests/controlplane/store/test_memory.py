"""The store that keeps nothing over a restart; what it promises beside that is in test_base.py."""

from __future__ import annotations

from datetime import UTC, datetime

from controlplane.store.base import Revision
from controlplane.store.memory import MemoryStore


async def test_a_new_one_knows_nothing_of_the_last() -> None:
    """It begins empty, and with number 1, whatever another of the same process holds."""
    last, new = MemoryStore(), MemoryStore()
    revision = Revision(1, "a: 1\n", "application/yaml", "file", "", datetime(2026, 1, 1, tzinfo=UTC))
    await last.save(revision)

    assert await new.current() is None
    await new.save(revision)

"""worker.lua: the clock."""

from __future__ import annotations

from tests.lua.support.worker import Worker


def test_the_clock_is_envoys_in_seconds() -> None:
    """Envoy tells milliseconds."""
    worker = Worker("worker")

    assert worker.now_seconds(worker.stream({}, now=1_790_000_000.25)) == 1_790_000_000.25

"""in_flight.lua: what is remembered of a request until its response comes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lua.support.envoy import Metadata
from tests.lua.support.worker import Worker


@pytest.fixture
def worker() -> Worker:
    return Worker("in_flight")


def added(worker: Worker, what: Any) -> Metadata:
    metadata = worker.metadata()
    worker.add(metadata, what)
    return metadata


def test_it_is_taken_once(worker: Worker) -> None:
    """The response finds what its own request left, and nothing is left after it."""
    first, second = added(worker, "one"), added(worker, "two")

    assert worker.is_any()
    assert [worker.take(second), worker.take(first), worker.take(first)] == ["two", "one", None]
    assert not worker.is_any()


def test_a_request_that_left_nothing(worker: Worker) -> None:
    """Its response finds nothing, though others are under way."""
    added(worker, "one")

    assert worker.take(worker.metadata()) is None
    assert worker.take(Metadata({"mgw": {"query": "a"}}, worker.table)) is None


def test_lost_responses_do_not_pile_up(worker: Worker) -> None:
    """Of requests whose response never comes two generations of 10,000 are kept, so one under way keeps its entry."""
    oldest = added(worker, "oldest")
    for number in range(10_000):
        added(worker, number)
    under_way = added(worker, "under way")

    assert worker.take(oldest) == "oldest"
    for number in range(10_000):
        added(worker, number)
    assert worker.take(under_way) == "under way"
    lost = added(worker, "lost")
    for number in range(20_001):
        added(worker, number)
    assert worker.take(lost) is None

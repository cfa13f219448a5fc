"""Counters with labels, as a scrape shows them."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service_kit.metrics import LabelledCounter


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_each_combination_of_labels_is_counted(registry: CollectorRegistry) -> None:
    """By one or by more; with its name, its meaning, its type and the time of its first count."""
    counter = LabelledCounter("mgw_things", "Things seen.", ("kind", "result"), registry)
    counter.count("a", "good")
    counter.count("a", "good", by=4)
    counter.count("b", "bad", by=0)

    lines = generate_latest(registry).decode().splitlines()
    assert lines[:4] == [
        "# HELP mgw_things_total Things seen.",
        "# TYPE mgw_things_total counter",
        'mgw_things_total{kind="a",result="good"} 5.0',
        'mgw_things_total{kind="b",result="bad"} 0.0',
    ]
    assert [line.partition("}")[0] for line in lines if line.startswith("mgw_things_created")] == [
        'mgw_things_created{kind="a",result="good"',
        'mgw_things_created{kind="b",result="bad"',
    ]


def test_a_name_is_taken_before_anything_is_counted(registry: CollectorRegistry) -> None:
    """Two metrics of one name are an error at the start, not at a scrape."""
    LabelledCounter("mgw_things", "Things seen.", ("kind",), registry)

    with pytest.raises(ValueError, match="mgw_things"):
        LabelledCounter("mgw_things", "Other things.", ("kind",), registry)

"""How large Envoy's heap may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.local import heap
from controlplane.local.exits import USAGE, Failure

MIB = 1 << 20


def test_the_operator_decides() -> None:
    """In MiB."""
    assert heap.max_heap_bytes({"MGW_ENVOY_HEAP_MIB": "300"}) == 300 * MIB


@pytest.mark.parametrize("text", ["63", "0", "-1", "1.5", "1e3", "much", "٣٠٠", "1048577"])
def test_what_is_no_number_of_mib(text: str) -> None:
    """It is told by name, and nothing starts."""
    with pytest.raises(Failure, match="MGW_ENVOY_HEAP_MIB is no number from 64 to 1048576") as failure:
        heap.max_heap_bytes({"MGW_ENVOY_HEAP_MIB": text})

    assert failure.value.status == USAGE


@pytest.mark.parametrize("environment", [{}, {"MGW_ENVOY_HEAP_MIB": ""}])
def test_half_of_what_there_is(environment: dict[str, str]) -> None:
    """Of this machine or container, whichever is smaller."""
    assert 64 * MIB <= heap.max_heap_bytes(environment) <= heap.memory_bytes() // 2


@pytest.mark.parametrize(
    ("machine", "container", "limit"),
    [(8000, None, 4000), (8000, 1000, 500), (8000, 9_000_000, 4000), (8000, 100, 64), (100, None, 64)],
)
def test_the_smaller_counts(machine: int, container: int | None, limit: int) -> None:
    """A container's limit may be above what the machine has; Envoy needs 64 MiB to begin."""
    assert heap.half_of(machine * MIB, container and container * MIB) == limit * MIB


def test_where_a_container_says_it(tmp_path: Path) -> None:
    """In the first file that holds a number: `max` is none."""
    absent, unlimited, limited = tmp_path / "absent", tmp_path / "unlimited", tmp_path / "limited"
    unlimited.write_text("max\n")
    limited.write_text("1048576\n")

    assert heap.container_limit((absent, unlimited)) is None
    assert heap.container_limit((absent, unlimited, limited)) == MIB

"""How large Envoy's heap may be: what the operator says, else half of what the machine or the container has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from controlplane.local.numbers import whole_number

VARIABLE = "MGW_ENVOY_HEAP_MIB"
LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""The container's own limit, with cgroup v2 and v1."""
LEAST_MIB, MOST_MIB = 64, 1 << 20


def max_heap_bytes(environment: Mapping[str, str]) -> int:
    """The limit, in bytes. Raises Failure for a variable that is no number of MiB."""
    mib = whole_number(environment, VARIABLE, LEAST_MIB, MOST_MIB)
    return mib << 20 if mib is not None else half_of(memory_bytes(), container_limit(LIMIT_FILES))


def half_of(machine: int, container: int | None) -> int:
    """The other parts live on the same machine. Never less than an Envoy needs to begin."""
    return max(LEAST_MIB << 20, min(machine, container or machine) // 2)


def memory_bytes() -> int:
    """What the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def container_limit(files: tuple[Path, ...]) -> int | None:
    """The limit of the first file that holds one; None if no file does."""
    for file in files:
        try:
            return int(file.read_text())
        except (OSError, ValueError):  # absent, or `max`
            continue
    return None

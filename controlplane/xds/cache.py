"""The current snapshot of each group of nodes, and who waits for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.xds.snapshot import EMPTY, Snapshot


@dataclass(frozen=True)
class Group:
    """Nodes that are told the same. An Envoy says in its metadata what is particular to it."""

    listener: tuple[str, int] | None = None
    secrets: frozenset[str] = frozenset()
    """Providers whose secrets this Envoy holds in its own environment."""


class SnapshotCache:
    """Holds one snapshot a group, made when the first node of the group asks."""

    def __init__(self) -> None:
        self._make: Callable[[Group], Snapshot] = lambda _group: EMPTY
        self._made: dict[Group, Snapshot] = {}
        self._changed = asyncio.Event()

    def set(self, make: Callable[[Group], Snapshot]) -> None:
        """Make this the current source of snapshots, and wake everyone who waits for a change."""
        self._make = make
        self._made = {}
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def snapshot(self, group: Group) -> Snapshot:
        """The group's current snapshot."""
        if group not in self._made:
            self._made[group] = self._make(group)
        return self._made[group]

    def next_change(self) -> asyncio.Event:
        """An event that is set when the snapshots that are current now no longer are."""
        return self._changed

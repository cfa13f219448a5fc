"""A snapshot: everything that one group of nodes is told, by type, each type with a version of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

Resources = Mapping[str, bytes]
"""Serialized `Any` messages by resource name."""


@dataclass(frozen=True)
class Snapshot:
    """Resources by type URL. Equal content has equal versions, on every replica and after every restart."""

    resources: Mapping[str, Resources]

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """The version of each type."""
        return {type_url: content_version(resources) for type_url, resources in self.resources.items()}

    def version(self, type_url: str) -> str:
        """The version of one type; empty for a type that the snapshot does not hold."""
        return self.versions.get(type_url, "")

    def select(self, type_url: str, names: frozenset[str]) -> list[bytes]:
        """The resources of a type in the order of their names; all of them if `names` is empty."""
        held = self.resources.get(type_url, {})
        return [held[name] for name in sorted(held) if not names or name in names]


EMPTY = Snapshot({})


def content_version(resources: Resources) -> str:
    """A hash of names and bytes, each preceded by its length so that no two contents look alike."""
    digest = hashlib.sha256()
    for name in sorted(resources):
        for part in (name.encode(), resources[name]):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()[:16]

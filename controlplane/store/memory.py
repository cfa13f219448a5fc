"""A store that forgets with its process: for a single control plane that reads its document from a file at start."""

from __future__ import annotations

from controlplane.errors import RevisionConflict
from controlplane.store.base import Revision


class MemoryStore:
    """Revisions in a list."""

    def __init__(self) -> None:
        self._revisions: list[Revision] = []

    async def current(self) -> Revision | None:
        """The newest revision, or None in an empty store."""
        return self._revisions[-1] if self._revisions else None

    async def save(self, revision: Revision) -> None:
        """Keep the next revision. Raises RevisionConflict if another came first."""
        newest = len(self._revisions)
        if revision.number != newest + 1:
            raise RevisionConflict(revision.number - 1, newest)
        self._revisions.append(revision)

"""What a store of revisions must do, and what a revision is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class Revision:
    """One configuration that was current once. `text` is the document as it was written."""

    number: int
    text: str
    media_type: str
    author: str
    reason: str
    at: datetime


class ConfigStore(Protocol):
    """Revisions, counted from 1 without gaps."""

    async def current(self) -> Revision | None:
        """The newest revision, or None in an empty store."""

    async def save(self, revision: Revision) -> None:
        """Keep a revision whose number follows the newest one's. Raises RevisionConflict if another came first."""

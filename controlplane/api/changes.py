"""What all changes have in common: why they are made, and how a moment is written."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Header
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("is printable text")
    return value


Reason = Annotated[str, Field(max_length=1024), AfterValidator(_printable)]
ChangeReason = Annotated[str, Header(max_length=1024)]


class ChangeRequest(BaseModel):
    """What a body may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Reason = ""


def rfc3339(at: datetime) -> str:
    """A moment in UTC as text, with milliseconds."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

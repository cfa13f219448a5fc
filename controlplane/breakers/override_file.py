"""What operators force of breakers, kept over a restart in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from controlplane.breakers.registry import Force, Override
from controlplane.errors import StateUnwritable
from service_kit.files import write_atomically

NAME = "breakers.json"


class _Kept(BaseModel):
    """One override as the file holds it."""

    model_config = ConfigDict(extra="forbid")

    force: Force
    reason: str
    by: str
    at: Annotated[float, Field(ge=0, lt=253_402_300_800)]
    """Unix seconds, up to the year 9999."""


class OverrideFile:
    """The file in the state directory; without a directory nothing is kept, and nothing can fail."""

    def __init__(self, directory: Path | None) -> None:
        self._path = directory / NAME if directory else None

    def load(self) -> dict[str, Override]:
        """What was forced by service. Raises StateUnwritable for a file that says nothing that makes sense."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            kept = TypeAdapter(dict[str, _Kept]).validate_json(self._path.read_bytes())
        except (OSError, ValidationError) as error:
            raise StateUnwritable(f"{self._path}: {_words(error)}; repair it, or remove it to force nothing") from error
        return {service: Override(**values.model_dump()) for service, values in kept.items()}

    def save(self, forced: Mapping[str, Override]) -> None:
        """Whole or not at all. Raises StateUnwritable."""
        if self._path is None:
            return
        text = json.dumps({service: asdict(value) for service, value in sorted(forced.items())}, indent=2)
        try:
            write_atomically(self._path, text)
        except OSError as error:
            raise StateUnwritable(f"{self._path} cannot be written: {error}") from error


def _words(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return str(error)
    found = [(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors(include_url=False)]
    return "; ".join(f"{place}: {message}" if place else message for place, message in found)

"""What operators force of breakers, kept over a restart in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from controlplane.breakers.board import Forced
from controlplane.errors import StateUnwritable

NAME = "breakers.json"


class ForceFile:
    """The file in the state directory; without a directory nothing is kept, and nothing can fail."""

    def __init__(self, directory: Path | None) -> None:
        self._path = directory / NAME if directory else None

    def load(self) -> dict[str, Forced]:
        """What was forced by service. Raises StateUnwritable for a file that says nothing that makes sense."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            return {service: Forced(**values) for service, values in json.loads(self._path.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise StateUnwritable(f"{self._path}: {error}; repair it, or remove it to force nothing") from error

    def save(self, forced: Mapping[str, Forced]) -> None:
        """Whole or not at all. Raises StateUnwritable."""
        if self._path is None:
            return
        text = json.dumps({service: asdict(value) for service, value in sorted(forced.items())}, indent=2)
        new = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with new.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise StateUnwritable(f"{self._path} cannot be written: {error}") from error

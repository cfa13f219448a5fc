"""What operators force of breakers, kept over a restart in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from controlplane.breakers.registry import Override
from controlplane.errors import StateUnwritable
from service_kit.files import write_atomically

NAME = "breakers.json"


class OverrideFile:
    """The file in the state directory; without a directory nothing is kept, and nothing can fail."""

    def __init__(self, directory: Path | None) -> None:
        self._path = directory / NAME if directory else None

    def load(self) -> dict[str, Override]:
        """What was forced by service. Raises StateUnwritable for a file that says nothing that makes sense."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            return {service: Override(**values) for service, values in json.loads(self._path.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise StateUnwritable(f"{self._path}: {error}; repair it, or remove it to force nothing") from error

    def save(self, forced: Mapping[str, Override]) -> None:
        """Whole or not at all. Raises StateUnwritable."""
        if self._path is None:
            return
        text = json.dumps({service: asdict(value) for service, value in sorted(forced.items())}, indent=2)
        try:
            write_atomically(self._path, text)
        except OSError as error:
            raise StateUnwritable(f"{self._path} cannot be written: {error}") from error

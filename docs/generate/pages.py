"""Every generated file: where it stands in a checkout, and what makes its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from controlplane.reference import schema
from docs.generate import commands, configuration, environment, errors, log, metrics, openapi

PAGES: Mapping[str, Callable[[], str]] = {
    "deploy/config/gateway.schema.json": schema.text,
    "docs/reference/api.md": openapi.api,
    "docs/reference/commands.md": commands.commands,
    "docs/reference/configuration.md": configuration.configuration,
    "docs/reference/environment.md": environment.environment,
    "docs/reference/errors.md": errors.errors,
    "docs/reference/log.md": log.log,
    "docs/reference/metrics.md": metrics.metrics,
    "docs/reference/openapi.json": openapi.openapi,
}


def write(root: Path) -> None:
    """Bring every file up to date."""
    for name, make in PAGES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="utf-8")


def stale(root: Path) -> Iterator[str]:
    """The files that are not what they would be if they were made now."""
    for name, make in PAGES.items():
        path = root / name
        if not path.exists() or path.read_text(encoding="utf-8") != make():
            yield name

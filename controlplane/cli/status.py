"""`mgw status`: what runs in a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.local.control import ask
from controlplane.local.exits import OK, UNAVAILABLE, Failure
from controlplane.local.runfile import RunDirectory, read_run
from service_kit.store_url import read_store_url


def command(
    directory: Annotated[Path, typer.Option("--dir", help="The directory it runs in.")] = Path(".mgw"),
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Say which parts run, and where. Status 69 where one of them is dead, or nothing runs."""
    run = status(RunDirectory(directory.absolute()))
    typer.echo(json.dumps(run, indent=2) if as_json else _table(run, directory))
    return OK if run["up"] else UNAVAILABLE


def status(directory: RunDirectory) -> dict[str, Any]:
    """`run.json` without its secrets, with `up`, and with `alive` for every component."""
    run = read_run(directory) or {"gateway": None, "api": None, "redis_url": None, "components": []}
    run.pop("api_token", None)
    run["redis_url"] = _shown(run["redis_url"])
    try:
        components = ask(directory, {"verb": "status"}, timeout_seconds=5)["components"]
    except Failure:  # no supervisor, and no part outlives it
        components = [{**component, "alive": False, "exit_status": None} for component in run["components"]]
    up = bool(components) and all(component["alive"] for component in components)
    return {"up": up, **run, "components": components}


def _shown(redis_url: str | None) -> str | None:
    """The store's URL without its login."""
    return str(read_store_url(redis_url)) if redis_url else None


def _table(run: dict[str, Any], directory: Path) -> str:
    if not run["components"]:
        return f"nothing runs in {directory}"
    rows = [("PART", "STATE", "PID", "ADDRESS", "LOG")]
    for component in run["components"]:
        name = f"{component['name']}-{component['index']}"
        state = "alive" if component["alive"] else "dead"
        rows.append((name, state, str(component["pid"]), component["address"], component["log"]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows
    ]
    return "\n".join([f"gateway {run['gateway']}", f"api     {run['api']}", "", *lines])

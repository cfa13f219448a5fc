"""`mgw breakers`: how every service's breaker is, and holding one open or closed."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from controlplane.cli.operator import call
from controlplane.local.exits import OK

app = typer.Typer(help="How every service's breaker is, and why.", invoke_without_command=True)

Directory = Annotated[Path, typer.Option("--dir", help="The gateway's directory, where MGW_API_URL is not set.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


class Force(StrEnum):
    """What a breaker can be told to be."""

    OPEN = "open"
    CLOSED = "closed"
    AUTO = "auto"


@app.callback()
def show(context: typer.Context, directory: Directory = Path(".mgw"), as_json: AsJson = False) -> int:
    """Print every breaker's state, since when, and why."""
    if context.invoked_subcommand is not None:
        context.obj = directory
        return OK
    found = call("GET", "/v1/breakers", directory)
    typer.echo(json.dumps(found, indent=2) if as_json else table(found["breakers"]))
    return OK


@app.command()
def force(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="Whose breaker.")],
    state: Annotated[Force, typer.Argument(help="Held open, held closed, or by itself again.")],
    reason: Annotated[str, typer.Option(help="Why; it is logged, and shown with the breaker.")] = "",
    directory: Annotated[Path | None, typer.Option("--dir", help="The gateway's directory.")] = None,
    as_json: AsJson = False,
) -> int:
    """Hold a breaker open or closed, until it is told to be `auto` again. It outlives the control plane."""
    body = {"force": state.value, "reason": reason}
    found = call("PUT", f"/v1/breakers/{quote(service, safe='')}", directory or context.obj, body)
    typer.echo(json.dumps(found, indent=2) if as_json else table([found]))
    return OK


def table(breakers: list[dict[str, Any]]) -> str:
    """The breakers for people, one a line."""
    rows = [("SERVICE", "STATE", "FORCE", "SINCE", "FAILED", "WHY")]
    for each in breakers:
        failed = f"{each['window']['failures']}/{each['window']['requests']}"
        rows.append((each["service"], each["state"], each["force"]["force"], each["since"], failed, each["why"]))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    )

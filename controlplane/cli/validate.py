"""`mgw validate`: would the gateway run this document? By the model and the rules, then by real Envoy. Offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.offline import check, read_text
from controlplane.local.exits import FAILED, OK, UNAVAILABLE, Failure


def command(
    file: Annotated[Path, typer.Option("--file", "-f", help="The document, YAML or JSON; - for standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print problems as JSON.")] = False,
) -> None:
    """Check a configuration document: every problem as FILE:LINE:COL: path: message."""
    from controlplane.errors import ConfigRejected, EnvoyUnavailable

    try:
        warnings = check(read_text(file))
    except ConfigRejected as rejected:
        if as_json:
            problems = [problem.__dict__ for problem in rejected.problems]
            typer.echo(json.dumps({"valid": False, "problems": problems}, indent=2))
        else:
            for problem in rejected.problems:
                typer.echo(problem.at(str(file)))
        raise typer.Exit(FAILED) from rejected
    except EnvoyUnavailable as error:
        raise Failure(f"the model accepts {file}, but Envoy could not judge it: {error}", UNAVAILABLE) from error
    if as_json:
        typer.echo(json.dumps({"valid": True, "problems": [], "warnings": [warning.__dict__ for warning in warnings]}))
    else:
        for warning in warnings:
            typer.echo(warning.at(str(file), "warning: "))
        typer.echo(f"{file} is valid", err=True)
    raise typer.Exit(OK)

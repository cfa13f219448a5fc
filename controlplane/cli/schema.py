"""`mgw schema`: the configuration document's JSON Schema, for editors."""

from __future__ import annotations

import typer


def command() -> None:
    """Print the JSON Schema (draft 2020-12) of the configuration document."""
    from controlplane.reference.schema import text

    typer.echo(text(), nl=False)

"""`mgw dev`: what only people who work on the gateway need."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from controlplane.local.exits import FAILED, OK
from controlplane.local.plan import ROOT

app = typer.Typer(help="Tasks for people who work on the gateway itself.")


@app.command("envoy-api")
def envoy_api(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where the package is not current.")
    ] = False,
) -> int:
    """Generate the package `envoy_api` from the pinned Envoy's own descriptors."""
    from controlplane.cli.envoy_api import differences, generate

    package = ROOT / "envoy_api"
    if not check:
        typer.echo(f"{generate(package)} proto files", err=True)
        return OK
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = list(differences(package, Path(scratch)))
    for name in stale:
        typer.echo(name)
    return FAILED if stale else OK


@app.command("reference")
def reference(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a page is not current.")] = False,
) -> int:
    """Make the pages under docs/reference, and the JSON Schema, from what the code says."""
    command = [sys.executable, "-m", "docs.generate", *(["--check"] if check else [])]
    return subprocess.run(command, cwd=ROOT, check=False).returncode

"""`mgw dev`: what only people who work on the gateway need."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from controlplane.local.exits import FAILED, OK, UNAVAILABLE, USAGE, Failure
from controlplane.local.resources import checkout

app = typer.Typer(help="Tasks for people who work on the gateway itself.")

SITE = Path("site")
LOOPBACK_ADDRESS = "127.0.0.1:8000"


@app.command("envoy-api")
def envoy_api(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where the package is not current.")
    ] = False,
) -> int:
    """Generate the package `envoy_api` from the pinned Envoy's own descriptors."""
    from controlplane.cli.envoy_api import differences, generate

    package = checkout() / "envoy_api"
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
    return subprocess.run(command, cwd=checkout(), check=False).returncode


@app.command()
def docs(
    serve: Annotated[bool, typer.Option("--serve", help="Serve the site, and build it again on a change.")] = False,
    address: Annotated[str, typer.Option(help="Where to serve it.")] = LOOPBACK_ADDRESS,
    site: Annotated[Path, typer.Option("--to", help="The folder to build into.")] = SITE,
) -> None:
    """Build the documentation as a site, strictly and offline: a broken link or a page outside the menu fails."""
    root = checkout()
    words = ["serve", "--dev-addr", address] if serve else ["build", "--clean", "--site-dir", str(site.absolute())]
    os.chdir(root)
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # the theme's own announcement, on every build
    os.execv(sys.executable, [sys.executable, "-m", "mkdocs", *words, "--strict"])


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Which checks.  [default: all of them]")] = None,
) -> int:
    """Run the checks of CI that need no running gateway: lint, format, types, imports, reference, docs."""
    from controlplane.cli.checks import CHECKS, run

    root = checkout()
    if unknown := sorted(set(names or ()) - CHECKS.keys()):
        raise Failure(f"no check named {', '.join(unknown)}; there are {', '.join(CHECKS)}", USAGE)
    if not Path(sys.executable).with_name("ruff").exists():
        raise Failure("the development tools are not installed: ./mgw dev installs them", UNAVAILABLE)
    failed = run(root, {name: CHECKS[name] for name in names or CHECKS}, lambda text: typer.echo(text, err=True))
    return FAILED if failed else OK

"""`mgw token`: a JWT for trying the gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from controlplane.local.exits import Failure
from controlplane.local.runfile import RunDirectory, read_secret
from controlplane.local.tokens import mint


def command(
    sub: Annotated[str, typer.Option(help="Whom the token names.")],
    tier: Annotated[str, typer.Option(help="The tier of that caller.")],
    ttl: Annotated[int, typer.Option(help="How long it is good for, in seconds.")] = 3600,
    directory: Annotated[
        Path, typer.Option("--dir", help="The gateway whose secret signs it, where JWT_SECRET is not set.")
    ] = Path(".mgw"),
) -> None:
    """Print a token signed with JWT_SECRET, or with the secret of the gateway in a directory."""
    secret = os.environ.get("JWT_SECRET") or read_secret(RunDirectory(directory))
    if not secret:
        raise Failure(f"no secret to sign with: set JWT_SECRET, or name a gateway's directory ({directory} has none)")
    typer.echo(mint(secret, sub, tier, ttl))

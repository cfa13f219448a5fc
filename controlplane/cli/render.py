"""`mgw render`: what Envoy and the two services would be told of this document. Offline."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.offline import load, read_text, topology
from controlplane.local.exits import FAILED


class Target(StrEnum):
    """What to print."""

    ENVOY = "envoy"
    POLICIES = "policies"


def command(
    file: Annotated[Path, typer.Option("--file", "-f", help="The document, YAML or JSON; - for standard input.")],
    to: Annotated[Target, typer.Option("--to", help="Envoy's resources, or the services' policies.")] = Target.ENVOY,
) -> None:
    """Print, as JSON, what a configuration document becomes."""
    from controlplane import protos
    from controlplane.errors import ConfigRejected
    from controlplane.translate import assemble, policies

    try:
        config = load(read_text(file))
    except ConfigRejected as rejected:
        for problem in rejected.problems:
            typer.echo(problem.at(str(file)), err=True)
        raise typer.Exit(FAILED) from rejected
    around = topology()
    if to is Target.ENVOY:
        rendered = protos.message_to_dict(assemble.static_bootstrap(config, around))
    else:
        replicas = len(around.ratelimit)
        rendered = {"authz": policies.authz_policy(config), "ratelimit": policies.ratelimit_policy(config, replicas)}
    typer.echo(json.dumps(rendered, indent=2, sort_keys=True))

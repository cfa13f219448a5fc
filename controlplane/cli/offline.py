"""What `validate` and `render` share: a document from a file, judged without any running part."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.local.exits import UNAVAILABLE, USAGE, Failure

if TYPE_CHECKING:
    from controlplane.config.model import GatewayConfig
    from controlplane.errors import Problem
    from controlplane.topology import Topology


def read_text(file: Path) -> str:
    """The file's text, standard input for `-`. Raises Failure for a file that cannot be read."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file}: {error}", UNAVAILABLE) from error


def topology() -> Topology:
    """Where the gateway's own parts are, as the environment says or by default. Raises Failure for what cannot be."""
    from controlplane.settings import Settings
    from service_kit.errors import StartFailed

    try:
        return Settings.from_environment(os.environ).topology
    except StartFailed as error:
        raise Failure(f"the environment: {error}", USAGE) from error


def load(text: str) -> GatewayConfig:
    """The document by the model and the rules. Raises ConfigRejected."""
    from controlplane.config import load

    return load.load(text, os.environ)[1]


def check(text: str) -> list[Problem]:
    """What in the document is probably not meant, if the model, the rules and Envoy accept it.

    Raises ConfigRejected, and EnvoyUnavailable if none judges.
    """
    from controlplane.config import envoy_validate, load
    from controlplane.publish import let_envoy_judge

    written, config = load.load(text, os.environ)
    asyncio.run(let_envoy_judge(config, topology(), envoy_validate.find(os.environ)))
    return load.warnings_of(written, config)

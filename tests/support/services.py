"""Both services as processes of their own, with small policies from files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a secret of the tests with more than thirty-two bytes"
AUTHZ_POLICY: dict[str, Any] = {
    "tiers": ["anonymous", "free"],
    "providers": [
        {
            "name": "platform",
            "algorithms": ["HS256"],
            "secrets": [{"kid": None, "env": "JWT_SECRET"}],
            "issuer": None,
            "audiences": [],
            "leeway_seconds": 0,
            "claims": {"subject": "sub", "tier": "tier", "scopes": "scope"},
            "default_tier": "free",
            "on_bad_token": "anonymous",
        }
    ],
}
RATELIMIT_POLICY = {"tiers": {"anonymous": {"rps": 1000, "rpm": 1000, "burst": 1000}}}


@dataclass
class Service:
    """One running service."""

    address: str
    process: subprocess.Popen[str]

    def events(self) -> list[dict[str, Any]]:
        """End it, and return its log from the moment that it was ready."""
        self.process.terminate()
        out, _ = self.process.communicate(timeout=20)
        return [json.loads(line) for line in out.splitlines()]


@contextmanager
def running(package: str, folder: Path, transport: str = "native") -> Iterator[Service]:
    """`python -m package`, ready to be called. Without a control plane, and without a store."""
    policy = folder / f"{package}.json"
    policy.write_text(json.dumps(AUTHZ_POLICY if package == "authz_service" else RATELIMIT_POLICY))
    environment = {
        "PATH": os.environ["PATH"],
        "MGW_LISTEN": "127.0.0.1:0",
        "MGW_POLICY_FILE": str(policy),
        "MGW_TRANSPORT": transport,
        "JWT_SECRET": SECRET,
        "REDIS_URL": "none",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", package], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Service(_address(process), process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        entry: dict[str, Any] = json.loads(line)
        if entry["event"].endswith(".ready"):
            return str(entry["address"])
    raise AssertionError("the service ended before it was ready")

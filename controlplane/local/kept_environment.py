"""What a gateway goes on with although the caller's environment says something else by now.

A part is revived with the environment that the gateway was started with: its replicas and Envoy have the same. Whoever
expects another one is told. Values are compared by their digests, so that no secret travels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

OURS = re.compile(
    r"JWT_SECRET|REDIS_URL|LOG_LEVEL|ALLOWED_ORIGINS|API_GATEWAY_\w+|AUTHZ_\w+|\w+_SERVICE_URL|\w+_SECRET"
)
"""Variables that a gateway reads; further ones are those to which its document refers."""
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\}")


def digests(environment: Mapping[str, str]) -> dict[str, str]:
    """Each variable that says something, with a digest of what it says."""
    return {name: _digest(value) for name, value in environment.items() if value}


def kept(here: Mapping[str, str], started: Sequence[Mapping[str, str]], document: str) -> list[str]:
    """The variables with another value `here` (by digest) than in any environment that the gateway was started with."""
    referred = {name for name, _ in _REFERENCE.findall(document)}
    ours = [name for name in here if name in referred or OURS.fullmatch(name)]
    known = {name: {_digest(environment.get(name, "")) for environment in started} for name in ours}
    return sorted(name for name in ours if here[name] not in known[name])


def read_document(path: str | None) -> str:
    """The text of the document's file; empty where it cannot be read, which is the control plane's to say."""
    try:
        return Path(path).read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()

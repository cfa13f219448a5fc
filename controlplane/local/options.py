"""What `mgw up` was asked for, as checked values."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.local.exits import USAGE, Failure

NAMES = ("redis", "controlplane", "authz", "ratelimit", "demo", "envoy")
"""The kinds of parts, in the order in which they are started."""

DEMO_SERVICES = ("discovery", "sona", "sync", "auth")

LOG_MIB = 64
"""How long a part's log may be."""

EMBEDDED, NO_REDIS = "embedded", "none"


@dataclass(frozen=True)
class Options:
    """One gateway to run. `redis` is a URL, `embedded` or `none`."""

    directory: Path
    config: Path
    host: str = "127.0.0.1"
    port: int | None = None
    redis: str = EMBEDDED
    demo: bool = False
    replicas: Mapping[str, int] = field(default_factory=dict)
    wraps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    only: frozenset[str] = frozenset()
    log_mib: int = LOG_MIB

    def count(self, name: str) -> int:
        if name == "redis":
            return int(self.redis == EMBEDDED)
        if name == "demo":
            return len(DEMO_SERVICES) if self.demo or self.wants("demo") else 0
        return self.replicas.get(name, 1)

    def wants(self, name: str) -> bool:
        return any(part == name or part.startswith(f"{name}-") for part in self.only)


def parse_wraps(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`ratelimit='faketime -f +60s'` or `ratelimit-0=…`, each as the words that go before the part's own command."""
    wraps = {}
    for text in texts:
        name, equals, command = text.partition("=")
        if not equals or not is_part(name):
            raise Failure(f"--wrap wants COMPONENT='COMMAND …' with one of {', '.join(NAMES)}, not {text!r}", USAGE)
        wraps[name] = tuple(shlex.split(command))
    return wraps


def parse_only(texts: Sequence[str]) -> frozenset[str]:
    """`redis,authz-1`: kinds or single parts."""
    parts = frozenset(part.strip() for text in texts for part in text.split(",") if part.strip())
    unknown = sorted(part for part in parts if not is_part(part))
    if unknown:
        raise Failure(f"--only knows {', '.join(NAMES)}, or one of them as NAME-N; not {', '.join(unknown)}", USAGE)
    return parts


def is_part(text: str) -> bool:
    name, dash, index = text.partition("-")
    return name in NAMES and (not dash or index.isdigit())

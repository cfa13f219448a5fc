"""What a document may say and probably does not mean. Nothing is rejected for it; whoever writes it is told."""

from __future__ import annotations

import re
from collections.abc import Iterator

from controlplane.config.model import GatewayConfig
from controlplane.config.rules import Finding
from service_kit.bounded_yaml import Path

_DOTTED = re.compile(r"[\w-]+(\.[\w-]+)+")
"""What other gateways take for a way. A claim that is named by a URL has dots too, and is none."""


def warnings(config: GatewayConfig) -> list[Finding]:
    """Every warning, in the order of the document's keys."""
    return [(path, _as_pointer(name)) for path, name in _claim_names(config) if _DOTTED.fullmatch(name)]


def _as_pointer(name: str) -> str:
    return f"{name!r} is one claim's own name; a claim inside others is written /{name.replace('.', '/')}"


def _claim_names(config: GatewayConfig) -> Iterator[tuple[Path, str]]:
    for index, provider in enumerate(config.auth.providers):
        for key, name in provider.claims:
            yield ("auth", "providers", index, "claims", key), name
    for index, route in enumerate(config.routes):
        for name in route.claims:
            yield ("routes", index, "claims", name), name

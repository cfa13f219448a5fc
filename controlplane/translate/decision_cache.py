"""The decision cache inside Envoy: the script's constants, and what it is told of each route."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from controlplane.config.model import GatewayConfig
from controlplane.translate.policies import authz_policy


def constants(config: GatewayConfig) -> str:
    """How long and how much decision_cache.lua keeps."""
    settings = config.auth.decision_cache
    return f"local CACHE_SECONDS, CACHE_ENTRIES = {settings.seconds:g}, {settings.max_entries}\n"


def epoch(config: GatewayConfig) -> str:
    """Names the policy that authz enforces; its answers carry it."""
    return str(authz_policy(config)["epoch"])


def route_settings(config: GatewayConfig, context: Mapping[str, str], of_policy: str) -> dict[str, str]:
    """What the script needs of a route: routes that ask the same of a caller share their entries."""
    if not config.auth.decision_cache.enabled:
        return {}
    asked = {key: value for key, value in context.items() if key != "route"}
    conditions = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    return {"policy": f"{of_policy}/{conditions}", "epoch": of_policy}

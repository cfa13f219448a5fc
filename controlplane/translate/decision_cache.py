"""The decision cache inside Envoy: how much the script keeps, and what it is told of each route."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from controlplane.config.model import GatewayConfig
from controlplane.translate.headers import Setting
from controlplane.translate.policies import authz_policy


def constants(config: GatewayConfig) -> dict[str, float | int]:
    """How long and how much decision_cache.lua keeps."""
    settings = config.auth.decision_cache
    return {"cache_seconds": settings.seconds, "cache_entries": settings.max_entries}


def epoch(config: GatewayConfig) -> str:
    """Names the policy that authz enforces. authz sends it with every decision."""
    return str(authz_policy(config)["epoch"])


def route_settings(
    config: GatewayConfig, context: Mapping[str, str], of_policy: str, verifier: str = ""
) -> dict[str, str]:
    """What the script is told of a route. Routes that ask the same of a caller share their entries.

    `verifier` names what Envoy itself verifies with: nothing is found of what it verified with other keys.
    """
    if not config.auth.decision_cache.enabled:
        return {}
    asked = {key: value for key, value in context.items() if key != "route"}
    conditions = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    policy = "/".join(filter(None, (of_policy, conditions, verifier)))
    return {Setting.POLICY: policy, Setting.EPOCH: of_policy}

"""The decision cache inside Envoy: the script's constants, and what it is told of each route."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources

from controlplane.model import GatewayConfig
from controlplane.translate.lua import quoted
from controlplane.translate.policies import authz_policy


def script(config: GatewayConfig) -> str:
    """The script; empty where the cache is off."""
    settings = config.auth.decision_cache
    if not settings.enabled:
        return ""
    constants = (
        f"local CACHE_SECONDS, CACHE_ENTRIES = {settings.seconds:g}, {settings.max_entries}\n"
        f"local API_KEY_HEADER = {quoted(config.auth.api_key_header)}\n"
    )
    return constants + _cache_lua()


@cache
def _cache_lua() -> str:
    return resources.files(__package__).joinpath("cache.lua").read_text(encoding="utf-8")


def epoch(config: GatewayConfig) -> str:
    """Names the policy that authz enforces; its answers carry it."""
    return str(authz_policy(config)["epoch"])


def route_settings(config: GatewayConfig, context: Mapping[str, str], of_policy: str) -> dict[str, object]:
    """What the script needs of a route: routes that ask the same of a caller share their entries."""
    if not config.auth.decision_cache.enabled:
        return {}
    asked = {key: value for key, value in context.items() if key != "route"}
    conditions = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    return {"policy": f"{of_policy}/{conditions} ", "epoch": of_policy}

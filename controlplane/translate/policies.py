"""Policies: what the two services enforce, as the JSON of docs/agreements.md."""

from __future__ import annotations

import hashlib
import json

from controlplane.config.callers import full_name
from controlplane.config.limits_model import CountedLimit
from controlplane.config.model import (
    Exempt,
    GatewayConfig,
    GlobalLimit,
    Provider,
    Route,
    RuleLimit,
    TierLimit,
    Unlimited,
)


def authz_policy(config: GatewayConfig) -> dict[str, object]:
    """Whom to believe. Secrets are named by where they are, never by what they are."""
    auth = config.auth
    policy: dict[str, object] = {
        "tiers": sorted(config.limits.tiers),
        "providers": [_provider(provider) for provider in auth.providers],
        "api_key_header": auth.api_key_header,
        "api_keys": [{"sha256": key.sha256, "subject": key.subject, "tier": key.tier} for key in auth.api_keys],
        "max_failures_per_minute": auth.max_failures_per_minute,
        "revocations": {
            "jti": sorted(auth.revocations.jti),
            "subjects": [revoked.model_dump() for revoked in auth.revocations.subjects],
        },
    }
    return policy | {"epoch": _digest(policy)}


def _digest(value: object) -> str:
    """A short name for a value: equal for equal values, on every replica."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _provider(provider: Provider) -> dict[str, object]:
    secrets = [_secret(None, provider.secret, provider.secret_file)] if provider.secret or provider.secret_file else []
    secrets += [_secret(entry.kid, entry.secret, entry.secret_file) for entry in provider.secrets]
    keys = {
        "secrets": secrets,
        "pem": provider.pem,
        "jwks": provider.jwks,
        "jwks_file": provider.jwks_file,
        "jwks_uri": provider.jwks_uri,
        "jwks_refresh_seconds": provider.jwks_refresh_seconds if provider.jwks_uri else None,
        "ca_file": provider.ca_file,
    }
    return {
        "name": provider.name,
        "algorithms": list(provider.algorithms),
        "issuer": provider.issuer,
        "audiences": list(provider.audiences),
        "leeway_seconds": provider.leeway_seconds,
        "claims": provider.claims.model_dump(),
        "default_tier": provider.default_tier,
        "on_bad_token": provider.on_bad_token,
    } | {key: value for key, value in keys.items() if value}


def _secret(kid: str | None, reference: str | None, file: str | None) -> dict[str, object]:
    place: dict[str, object] = {"env": reference[2:-1]} if reference else {"file": file}
    return {"kid": kid} | place


def ratelimit_policy(config: GatewayConfig, replicas: int) -> dict[str, object]:
    """How much each tier may ask; routes appear only where they depart from the default."""
    limits = config.limits
    routes = {route.name: _route(route) for route in config.routes}
    policy: dict[str, object] = {
        "anonymous_key": limits.anonymous_key,
        "ipv4_prefix": limits.ipv4_prefix,
        "ipv6_prefix": limits.ipv6_prefix,
        "on_store_failure": limits.on_store_failure,
        "tiers": {name: _limit(limit) for name, limit in limits.tiers.items()},
        "routes": {name: settings for name, settings in routes.items() if settings},
    } | ({"global": [_global(rule, config) for rule in limits.shared]} if limits.shared else {})
    if limits.exempt != Exempt():
        policy["exempt"] = {"cidrs": sorted(limits.exempt.cidrs), "callers": exempt_callers(config)}
    return policy | {"epoch": _digest(policy), "replicas": max(1, replicas)}


def exempt_callers(config: GatewayConfig) -> list[str]:
    """By their full names."""
    return sorted({full_name(caller, config) for caller in config.limits.exempt.callers})


def _limit(limit: TierLimit) -> dict[str, object]:
    if isinstance(limit, Unlimited):
        return {"unlimited": True}
    rps = int(limit.rps) if limit.rps.is_integer() else limit.rps
    return {"rps": rps, "rpm": limit.rpm, "burst": limit.burst}


def _rule(limit: CountedLimit | Unlimited) -> dict[str, object]:
    if isinstance(limit, Unlimited):
        return _limit(limit)
    further: dict[str, object] = {"shadow": True} if limit.shadow else {}
    if limit.counter:
        further["counter"] = limit.counter
    if isinstance(limit, RuleLimit) and limit.by != "caller":
        further["by"] = limit.by
    return _limit(limit) | further


def _global(rule: GlobalLimit, config: GatewayConfig) -> dict[str, object]:
    """The service hears of routes alone; without a list the rule is on every one."""
    settings = _rule(rule) | {"name": rule.name}
    if rule.service is not None:
        settings["routes"] = sorted(route.name for route in config.routes if route.service == rule.service)
    elif rule.routes:
        settings["routes"] = sorted(set(rule.routes))
    return settings


def _route(route: Route) -> dict[str, object]:
    settings: dict[str, object] = {}
    if route.cost != 1:
        settings["cost"] = route.cost
    if route.limits:
        settings["limits"] = _rule(route.limits)
    if route.tier_limits:
        settings["tier_limits"] = {tier: _rule(limit) for tier, limit in route.tier_limits.items()}
    if route.on_store_failure:
        settings["on_store_failure"] = route.on_store_failure
    return settings

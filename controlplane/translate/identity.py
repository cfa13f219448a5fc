"""`auth.verified_by: envoy`: the same providers as Envoy's jwt_authn, so that most requests need no call to authz.

Envoy only ever says yes by itself. Where it cannot tell (no key here, an API key, an opaque token, revocations,
scopes), and for every refusal, the authz service is asked as in the default mode: clients get the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from google.protobuf.message import Message

from controlplane import keysets, protos
from controlplane.model import GatewayConfig, Provider, Route

JWT_AUTHN = "envoy.filters.http.jwt_authn"
MAX_CACHED_TOKENS = 1000
"""Per Envoy worker and provider; Envoy's own default is 100."""


@dataclass(frozen=True)
class EnvoyKeys:
    """What keys an Envoy can have: secrets in its own environment, and the good copies of published key sets."""

    in_environment: frozenset[str] = frozenset()
    """Providers whose secrets this Envoy has as a key set in the variable that `variable` names."""
    fetched: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The last good key set of each provider with a jwks_uri."""


NO_KEYS = EnvoyKeys()


def variable(provider: str) -> str:
    """The environment variable of Envoy that holds a provider's secrets: they never travel in a configuration."""
    return f"MGW_JWKS_{provider.upper().replace('-', '_')}"


def jwt_authn(config: GatewayConfig, keys: EnvoyKeys) -> Message | None:
    """The filter, or None where Envoy has no provider's keys."""
    providers = {provider.name: _provider(provider, source) for provider, source in _sources(config, keys)}
    if not providers:
        return None
    anything = [protos.jwt_authn.JwtRequirement(provider_name=name) for name in providers]
    anything.append(protos.jwt_authn.JwtRequirement(allow_missing_or_failed=protos.empty()))
    requirement = protos.jwt_authn.JwtRequirement(
        requires_any=protos.jwt_authn.JwtRequirementOrList(requirements=anything)
    )
    return protos.jwt_authn.JwtAuthentication(
        providers=providers,
        rules=[
            protos.jwt_authn.RequirementRule(match=protos.route_components.RouteMatch(prefix="/"), requires=requirement)
        ],
    )


def _sources(config: GatewayConfig, keys: EnvoyKeys) -> Iterator[tuple[Provider, protos.base.DataSource]]:
    """The providers that Envoy can verify, with their keys. Whose token it is must be beyond doubt."""
    alone = len(config.auth.providers) == 1
    for provider in config.auth.providers:
        source = _source(provider, keys) if alone or provider.issuer else None
        if source is not None:
            yield provider, source


def _source(provider: Provider, keys: EnvoyKeys) -> protos.base.DataSource | None:
    if provider.name in keys.in_environment and provider.is_symmetric:
        return protos.base.DataSource(environment_variable=variable(provider.name))
    published = keysets.from_pem(provider.pem) if provider.pem else provider.jwks or keys.fetched.get(provider.name)
    pinned = keysets.pinned(published, provider) if published else {"keys": []}
    return protos.base.DataSource(inline_string=json.dumps(pinned, sort_keys=True)) if pinned["keys"] else None


def _provider(provider: Provider, source: protos.base.DataSource) -> protos.jwt_authn.JwtProvider:
    return protos.jwt_authn.JwtProvider(
        issuer=provider.issuer or "",
        audiences=provider.audiences,
        local_jwks=source,
        forward=True,
        require_expiration=True,
        payload_in_metadata=provider.name,
        header_in_metadata=f"{provider.name}/header",
        clock_skew_seconds=max(1, provider.leeway_seconds),  # 0 would mean 60; identity.lua is exact
        jwt_cache_config=protos.jwt_authn.JwtCacheConfig(jwt_cache_size=MAX_CACHED_TOKENS),
    )


def lua(config: GatewayConfig, keys: EnvoyKeys) -> str:
    """The script that takes over what jwt_authn found; empty where authz decides alone."""
    names = {provider.name for provider, _ in _sources(config, keys)}
    if config.auth.verified_by != "envoy":
        return ""
    providers = ", ".join(_lua_provider(each) for each in config.auth.providers if each.name in names)
    tiers = ", ".join(f"[{_quoted(tier)}] = true" for tier in sorted(config.limits.tiers))
    constants = (
        f"local PROVIDERS = {{{providers}}}\n"
        f"local TIERS = {{{tiers}}}\n"
        f"local API_KEY_HEADER = {_quoted(config.auth.api_key_header)}\n"
    )
    return constants + _identity_lua()


def _lua_provider(provider: Provider) -> str:
    values = {
        "name": _quoted(provider.name),
        "subject": _quoted(provider.claims.subject),
        "tier": _quoted(provider.claims.tier),
        "default_tier": _quoted(provider.default_tier),
        "leeway": str(provider.leeway_seconds),
    }
    return "{" + ", ".join(f"{name} = {value}" for name, value in values.items()) + "}"


def _quoted(text: str) -> str:
    """A Lua string of these bytes, whatever they are."""
    return '"' + "".join(f"\\{byte:03d}" for byte in text.encode()) + '"'


@cache
def _identity_lua() -> str:
    return resources.files(__package__).joinpath("identity.lua").read_text(encoding="utf-8")


def route_settings(route: Route, config: GatewayConfig) -> dict[str, object]:
    """What identity.lua is told of a route: by route, not by script, so that a change moves no listener."""
    revocations = config.auth.revocations
    settings: dict[str, object] = {"auth": route.auth}
    if route.scopes or route.claims or revocations.jti or revocations.subjects:
        settings["ask"] = True  # only authz knows
    if route.tiers:
        settings["tiers"] = ",".join(route.tiers)
    if route.providers:
        settings["providers"] = ",".join(route.providers)
    return settings


def unless_identified() -> protos.metadata_matcher.MetadataMatcher:
    """ext_authz is asked for every request that identity.lua did not settle."""
    return protos.metadata_matcher.MetadataMatcher(
        filter="mgw",
        path=[protos.metadata_matcher.MetadataMatcher.PathSegment(key="identified")],
        value=protos.value_matcher.ValueMatcher(bool_match=True),
        invert=True,
    )

"""`auth.verified_by: envoy`: the same providers as Envoy's jwt_authn, so that most requests need no call to authz.

Envoy alone only ever allows a request. If it cannot tell (no key here, an API key, an opaque token, revocations,
scopes), and for every denial, the authz service is asked as in the default mode: clients get the same responses.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from controlplane import protos
from controlplane.config import jwks
from controlplane.config.model import GatewayConfig, Provider, Route
from controlplane.translate.headers import Namespace, Setting
from controlplane.translate.lua_literal import Literal
from service_kit.json_pointer import steps
from service_kit.jwk import keys_tried

JWT_AUTHN: str = Namespace.JWT_AUTHN
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


def is_used(config: GatewayConfig) -> bool:
    """Whether Envoy verifies tokens, where it has the keys."""
    return config.auth.verified_by == "envoy"


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
    issuers = Counter(provider.issuer for provider in config.auth.providers)
    for provider in config.auth.providers:
        source = _source(provider, keys) if alone or (provider.issuer and issuers[provider.issuer] == 1) else None
        if source is not None:
            yield provider, source


def _source(provider: Provider, keys: EnvoyKeys) -> protos.base.DataSource | None:
    if provider.is_symmetric:
        usable = held(provider) in keys.in_environment and _is_fixed(provider)
        return protos.base.DataSource(environment_variable=variable(provider.name)) if usable else None
    pinned = _pinned(provider, keys)
    return protos.base.DataSource(inline_string=json.dumps(pinned, sort_keys=True)) if pinned["keys"] else None


def held(provider: Provider) -> str:
    """What an Envoy's metadata says if it holds this provider's secrets from these very references."""
    entries: list[tuple[str | None, str | None]] = [(None, provider.secret)] if provider.secret else []
    entries += [(entry.kid, entry.secret) for entry in provider.secrets]
    return f"{provider.name}:{jwks.references_digest(entries)}"


def _is_fixed(provider: Provider) -> bool:
    """A file may change while Envoy runs, its environment cannot. With kids on some secrets only, Envoy would try more
    of them than authz."""
    kids = [entry.kid for entry in provider.secrets]
    in_files = provider.secret_file or any(entry.secret_file for entry in provider.secrets)
    return not in_files and (all(kids) or not any(kids))


def _pinned(provider: Provider, keys: EnvoyKeys) -> Mapping[str, Any]:
    published = jwks.from_pem(provider.pem) if provider.pem else provider.jwks or keys.fetched.get(provider.name)
    return jwks.pinned(published, provider) if published else {"keys": []}


def _provider(provider: Provider, source: protos.base.DataSource) -> protos.jwt_authn.JwtProvider:
    return protos.jwt_authn.JwtProvider(
        issuer=provider.issuer or "",
        audiences=provider.audiences,
        local_jwks=source,
        # Named, so that Envoy does not look into the query as well: what it verifies is what identity.lua reads.
        from_headers=[protos.jwt_authn.JwtHeader(name="Authorization", value_prefix="Bearer ")],
        forward=True,
        require_expiration=True,
        header_in_metadata=provider.name,  # the sign for identity.lua, which reads the claims itself
        clock_skew_seconds=max(1, provider.leeway_seconds),  # 0 would mean 60; identity.lua is exact
        jwt_cache_config=protos.jwt_authn.JwtCacheConfig(jwt_cache_size=MAX_CACHED_TOKENS),
    )


def constants(config: GatewayConfig, keys: EnvoyKeys) -> dict[str, Literal]:
    """What identity.lua knows of providers and tiers."""
    providers = tuple(_for_lua(provider, keys) for provider, _ in _sources(config, keys))
    return {"providers": providers, "tiers": frozenset(config.limits.tiers), "version": version(config, keys)}


def version(config: GatewayConfig, keys: EnvoyKeys) -> str:
    """Names what this Envoy verifies, and with which keys; empty if it verifies nothing.

    A connection keeps the filters that it began with, for as long as Envoy drains them. Routes hold for all at once, so
    they say which version may still vouch.
    """
    found = jwt_authn(config, keys) if is_used(config) else None
    if found is None:
        return ""
    providers = [provider.model_dump(mode="json") for provider in config.auth.providers]
    read = json.dumps([providers, sorted(config.limits.tiers)], sort_keys=True)
    return hashlib.sha256(found.SerializeToString(deterministic=True) + read.encode()).hexdigest()[:16]


def _for_lua(provider: Provider, keys: EnvoyKeys) -> Literal:
    values: dict[str, Literal] = {
        "name": provider.name,
        "subject": steps(provider.claims.subject),
        "tier": steps(provider.claims.tier),
        "default_tier": provider.default_tier,
        "leeway": provider.leeway_seconds,
        # The keys in Envoy's environment may be of more algorithms than the document still has.
        "algorithms": frozenset(provider.algorithms),
    }
    if provider.issuer:
        values["issuer"] = provider.issuer
    if provider.audiences:
        values["audiences"] = frozenset(provider.audiences)
    kids = frozenset(entry.kid for entry in provider.secrets if entry.kid)
    if kids:
        values["kids"] = kids
    if kids or _has_many_keys(provider, keys):
        values["needs_kid"] = True
    return values


def _has_many_keys(provider: Provider, keys: EnvoyKeys) -> bool:
    """More keys than authz tries for a token without a `kid`; Envoy would try all."""
    most = min(keys_tried(algorithm) for algorithm in provider.algorithms)
    return len(provider.secrets) > most or (not provider.is_symmetric and len(_pinned(provider, keys)["keys"]) > most)


def route_settings(route: Route, config: GatewayConfig, version: str) -> dict[str, str]:
    """What identity.lua is told of a route. It is not in the script, so that a change needs no new listener."""
    if not is_used(config):
        return {}
    revocations = config.auth.revocations
    settings: dict[str, str] = {Setting.VERIFIER: version} if version else {}
    if route.scopes or route.claims:
        settings[Setting.ASK] = "yes"  # only authz knows
    if revocations.jti:
        settings[Setting.REVOKED_IDS] = "yes"
    if revocations.subjects:
        settings[Setting.REVOKED] = _listed({revoked.provider for revoked in revocations.subjects})
    if route.tiers:
        settings[Setting.TIERS] = _listed(route.tiers)
    if route.providers:
        settings[Setting.PROVIDERS] = _listed(route.providers)
    return settings


def _listed(names: Iterable[str]) -> str:
    """The names with a comma on both sides of each, so that a script finds a whole name."""
    return "," + ",".join(sorted(set(names))) + ","

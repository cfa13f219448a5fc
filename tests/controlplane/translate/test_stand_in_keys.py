"""What Envoy judges is what nodes get: the same listener, but for key material."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from controlplane import protos
from controlplane.config import load
from controlplane.config.model import GatewayConfig
from controlplane.errors import ConfigRejected
from controlplane.publish import let_envoy_judge
from controlplane.translate import assemble, jwt_authn, listeners
from controlplane.translate.jwt_authn import NO_KEYS, EnvoyKeys, held
from controlplane.translate.stand_in_keys import PUBLIC_KEYS, stand_in_environment, stand_in_keys
from tests.support.configs import ENVIRONMENT, TOPOLOGY, default_config, rich_config, rich_text


def by_envoy(text: str = rich_text()) -> GatewayConfig:
    return load.load(text.replace("auth:\n", "auth:\n  verified_by: envoy\n", 1), ENVIRONMENT)[1]


def with_fetched_keys() -> GatewayConfig:
    providers = [
        {"name": "own", "algorithms": ["HS256", "HS512"], "secret": "${JWT_SECRET}", "issuer": "own"},
        {
            "name": "idp",
            "algorithms": ["RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA"],
            "issuer": "https://idp.example",
            "jwks_uri": "https://idp.example/keys",
        },
    ]
    config = default_config().model_dump(by_alias=True)
    config["auth"] |= {"verified_by": "envoy", "providers": providers}
    return GatewayConfig.model_validate(config)


CONFIGS = {"default": default_config(), "rich": rich_config(), "by envoy": by_envoy(), "fetched": with_fetched_keys()}


def node_keys(config: GatewayConfig) -> EnvoyKeys:
    """What an Envoy holds once it has every secret, and every key set was fetched."""
    some_key = {"keys": [dict(PUBLIC_KEYS[0], n=PUBLIC_KEYS[0]["n"][::-1].replace("=", "A"), kid="today")]}
    fetched = {provider.name: some_key for provider in config.auth.providers if provider.jwks_uri}
    return EnvoyKeys(frozenset(held(provider) for provider in config.auth.providers if provider.is_symmetric), fetched)


def shape(config: GatewayConfig, keys: EnvoyKeys) -> Any:
    """The listener as values, without key material and without what scripts know of it."""
    return _without_keys(protos.message_to_dict(listeners.listener(config, keys=keys)))


def _without_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_keys(child) for key, child in value.items() if key != "local_jwks"}
    if isinstance(value, list):
        return [_without_keys(child) for child in value]
    return OF_KEYS.sub("", value) if isinstance(value, str) else value


OF_KEYS = re.compile(r', (needs_kid = true|version = "[0-9a-f]+")')


@pytest.mark.parametrize("name", CONFIGS)
def test_the_judged_listener_is_the_node_s(name: str) -> None:
    """Filter by filter and script by script."""
    config = CONFIGS[name]

    assert shape(config, stand_in_keys(config)) == shape(config, node_keys(config))
    if jwt_authn.is_used(config):
        assert shape(config, stand_in_keys(config)) != shape(config, NO_KEYS), "or nothing would be proved"


@pytest.mark.parametrize("name", CONFIGS)
async def test_envoy_takes_the_stand_ins(name: str, envoy_binary: Path) -> None:
    """Every family of keys is one that Envoy can use."""
    await let_envoy_judge(CONFIGS[name], TOPOLOGY, envoy_binary)


def test_every_algorithm_has_a_key() -> None:
    """A provider may pin any of them."""
    found = jwt_authn.jwt_authn(with_fetched_keys(), stand_in_keys(with_fetched_keys()))

    assert found is not None
    keys = json.loads(found.providers["idp"].local_jwks.inline_string)["keys"]  # type: ignore[attr-defined] # a filter
    assert {key["alg"] for key in keys} == {"RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
    assert set(stand_in_environment(with_fetched_keys())) == {"MGW_JWKS_OWN"}


async def test_what_envoy_rejects_of_its_verifier_is_found(envoy_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the part that only nodes with keys get is told before any node hears of it."""
    translate = jwt_authn._provider

    def broken(*arguments: Any) -> Any:
        provider = translate(*arguments)
        provider.from_headers[0].name = "no\nheader"
        return provider

    monkeypatch.setattr(jwt_authn, "_provider", broken)
    for config in (by_envoy(), with_fetched_keys()):
        with pytest.raises(ConfigRejected, match="Envoy rejects it"):
            await let_envoy_judge(config, TOPOLOGY, envoy_binary)
        assert assemble.static_bootstrap(config, TOPOLOGY).ByteSize(), "which translates all the same"

"""`auth.verified_by: envoy`: whose tokens Envoy verifies, with which keys, and what it leaves to authz."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import protos
from controlplane.config.model import GatewayConfig
from controlplane.translate import jwt_authn
from controlplane.translate.jwt_authn import NO_KEYS, EnvoyKeys, held
from tests.support.configs import a_config, a_route

ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "alg": "EdDSA"}
SHARED: dict[str, Any] = {"name": "shared-1", "algorithms": ["HS256"], "secret": "${S}"}
PUBLIC: dict[str, Any] = {"name": "public", "algorithms": ["EdDSA"], "jwks": {"keys": [ED25519]}}
REMOTE: dict[str, Any] = {"name": "remote", "algorithms": ["EdDSA"], "jwks_uri": "https://idp.example/keys"}


def the_config(*providers: dict[str, Any], **auth: Any) -> GatewayConfig:
    return a_config(auth={"verified_by": "envoy", "providers": list(providers)} | auth)


def filter_of(config: GatewayConfig, keys: EnvoyKeys = NO_KEYS) -> dict[str, Any] | None:
    found = jwt_authn.jwt_authn(config, keys)
    return None if found is None else protos.message_to_dict(found)


def verified(config: GatewayConfig, keys: EnvoyKeys = NO_KEYS) -> set[str]:
    """The providers whose tokens this Envoy verifies."""
    return set((filter_of(config, keys) or {"providers": {}})["providers"])


def with_secret(config: GatewayConfig) -> EnvoyKeys:
    return EnvoyKeys(in_environment=frozenset(held(provider) for provider in config.auth.providers))


def test_envoy_only_ever_allows() -> None:
    """Without a token, or with one that it cannot verify, a request goes on, and authz decides."""
    found = filter_of(the_config(PUBLIC))

    assert found is not None
    (rule,) = found["rules"]
    assert rule["match"] == {"prefix": "/"}
    assert rule["requires"]["requires_any"]["requirements"] == [
        {"provider_name": "public"},
        {"allow_missing_or_failed": {}},
    ]


def test_what_is_verified_is_what_the_script_reads() -> None:
    """The token stands in Authorization behind `Bearer `, is passed on, and leaves a mark of its provider."""
    found = filter_of(the_config(PUBLIC | {"leeway_seconds": 0}))

    assert found is not None
    provider = found["providers"]["public"]
    assert provider["from_headers"] == [{"name": "Authorization", "value_prefix": "Bearer "}]
    assert (provider["forward"], provider["header_in_metadata"]) == (True, "public")
    assert provider["require_expiration"] is True
    assert provider["clock_skew_seconds"] == 1, "0 would be Envoy's 60"


def test_a_secret_stays_in_envoys_environment() -> None:
    """The configuration names the variable; an Envoy without it verifies nothing."""
    config = the_config(SHARED)
    found = filter_of(config, with_secret(config))

    assert found is not None
    assert found["providers"]["shared-1"]["local_jwks"] == {"environment_variable": "MGW_JWKS_SHARED_1"}
    assert filter_of(config) is None


def test_another_reference_is_another_secret() -> None:
    """An Envoy that was started with what the document said before does not verify by it."""
    before, after = the_config(SHARED), the_config(SHARED | {"secret": "${T}"})

    assert verified(after, with_secret(before)) == set()


@pytest.mark.parametrize(
    "secrets",
    [
        {"secret": None, "secret_file": "/run/secret"},
        {"secret": None, "secrets": [{"kid": "a", "secret_file": "/run/secret"}]},
        {"secret": None, "secrets": [{"kid": "a", "secret": "${A}"}, {"secret": "${B}"}]},
    ],
    ids=["in a file", "one in a file", "kids on some"],
)
def test_secrets_that_envoy_cannot_have(secrets: dict[str, Any]) -> None:
    """A file may change while Envoy runs, and of secrets without a kid it would try more than authz does."""
    provider = {key: value for key, value in (SHARED | secrets).items() if value is not None}
    config = the_config(provider)

    assert verified(config, with_secret(config)) == set()


def test_published_keys() -> None:
    """Verified by the last good copy, and not before there is one."""
    config = the_config(REMOTE)

    assert verified(config) == set()
    assert verified(config, EnvoyKeys(fetched={"remote": {"keys": [ED25519]}})) == {"remote"}


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (None, None, set()),
        ("https://a", None, {"public"}),
        ("https://a", "https://b", {"public", "second"}),
        ("https://a", "https://a", set()),
    ],
)
def test_whose_token_it_is_must_be_beyond_doubt(first: str | None, second: str | None, found: set[str]) -> None:
    """Of several providers only those with an issuer of their own are verified here."""
    providers = [PUBLIC, PUBLIC | {"name": "second"}]
    named = [
        provider | ({"issuer": issuer} if issuer else {})
        for provider, issuer in zip(providers, (first, second), strict=True)
    ]

    assert verified(the_config(*named)) == found


def known(config: GatewayConfig) -> Any:
    """The providers that identity.lua knows."""
    return jwt_authn.constants(config, NO_KEYS)["providers"]


def test_what_the_script_knows_of_a_provider() -> None:
    """Only of those that Envoy verifies."""
    config = the_config(PUBLIC | {"issuer": "https://a", "audiences": ["x", "y"], "leeway_seconds": 3}, REMOTE)
    (provider,) = known(config)

    assert provider == {
        "name": "public",
        "subject": ("sub",),
        "tier": ("tier",),
        "default_tier": "free",
        "leeway": 3,
        "algorithms": frozenset({"EdDSA"}),
        "issuer": "https://a",
        "audiences": frozenset({"x", "y"}),
    }


@pytest.mark.parametrize(("keys", "needed"), [(4, False), (5, True)])
def test_of_many_keys_a_token_must_name_one(keys: int, needed: bool) -> None:
    """authz tries four; Envoy would try them all."""
    many = {"keys": [ED25519 | {"kid": f"k{number}"} for number in range(keys)]}
    (provider,) = known(the_config(PUBLIC | {"jwks": many}))

    assert ("needs_kid" in provider) is needed


@pytest.mark.parametrize(
    ("route", "revocations", "told"),
    [
        ({}, {}, {}),
        ({"scopes": ["a"]}, {}, {"ask": "yes"}),
        ({"claims": {"plan": "gold"}}, {}, {"ask": "yes"}),
        ({"tiers": ["pro", "free"]}, {}, {"tiers": ",free,pro,"}),
        ({"providers": ["public"]}, {}, {"providers": ",public,"}),
        ({}, {"jti": ["t"]}, {"revoked_ids": "yes"}),
        ({}, {"subjects": [{"provider": "public", "subject": "u", "issued_before": 1}]}, {"revoked": ",public,"}),
    ],
    ids=str,
)
def test_what_the_script_is_told_of_a_route(
    route: dict[str, Any], revocations: dict[str, Any], told: dict[str, str]
) -> None:
    """What may decide against a caller; scopes and claims are left to authz."""
    config = the_config(PUBLIC, revocations=revocations)

    assert jwt_authn.route_settings(a_route(auth="required", **route), config, "v1") == told | {"verifier": "v1"}
    assert jwt_authn.route_settings(a_route(auth="required", **route), a_config(), "") == {}


def fetched(*keys: dict[str, Any]) -> EnvoyKeys:
    return EnvoyKeys(fetched={"remote": {"keys": list(keys)}})


ONE, OTHER = (ED25519 | {"kid": kid} for kid in ("one", "other"))


def test_the_order_of_published_keys_says_nothing() -> None:
    """A source that alternates between two orders changes neither the filter nor the version of it."""
    config = the_config(REMOTE)

    assert filter_of(config, fetched(ONE, OTHER)) == filter_of(config, fetched(OTHER, ONE))
    assert jwt_authn.version(config, fetched(ONE, OTHER)) == jwt_authn.version(config, fetched(OTHER, ONE))


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (the_config(REMOTE), fetched(ONE)),
        (the_config(REMOTE | {"audiences": ["a"]}), fetched(ONE, OTHER)),
        (the_config(REMOTE | {"default_tier": "pro"}), fetched(ONE, OTHER)),
        (the_config(PUBLIC), NO_KEYS),
        (the_config(REMOTE), NO_KEYS),
    ],
    ids=["withdrawn", "audiences", "default tier", "another provider", "no keys"],
)
def test_a_verifier_that_differs_has_another_version(config: GatewayConfig, keys: EnvoyKeys) -> None:
    """So that connections which still have the earlier one can be told."""
    before = jwt_authn.version(the_config(REMOTE), fetched(ONE, OTHER))

    assert jwt_authn.version(config, keys) != before


def test_without_a_verifier_there_is_no_version() -> None:
    """In the default mode, and before the keys are there."""
    assert jwt_authn.version(a_config(), NO_KEYS) == jwt_authn.version(the_config(REMOTE), NO_KEYS) == ""

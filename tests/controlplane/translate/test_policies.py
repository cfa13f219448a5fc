"""Policies: what the two services are told. That they take it is tried in tests/contract."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.config.model import GatewayConfig
from controlplane.translate.policies import authz_policy, ratelimit_policy
from tests.support.configs import a_config, a_route, rich_config, values

NUMBERS = {"rps": 1, "rpm": 10, "burst": 2}
LIMITS: dict[str, Any] = values()["limits"]


def with_auth(**changes: Any) -> GatewayConfig:
    return a_config(auth=values()["auth"] | changes)


def test_secrets_are_named_and_not_told() -> None:
    """By the variable or the file that authz reads them from."""
    policy: dict[str, Any] = authz_policy(rich_config())
    providers = {each["name"]: each for each in policy["providers"]}

    assert providers["platform"]["secrets"] == [
        {"kid": "2026-01", "env": "JWT_SECRET"},
        {"kid": "2025-07", "file": "/run/secrets/old-jwt"},
    ]
    assert "secrets" not in providers["idp"]


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key_header": "x-other"},
        {"api_keys": [{"name": "a", "sha256": "0" * 64, "subject": "s"}]},
        {"revocations": {"jti": ["t"]}},
        {"max_failures_per_minute": 5},
        {"providers": [{"name": "platform", "algorithms": ["HS512"], "secret": "${JWT_SECRET}"}]},
    ],
    ids=str,
)
def test_every_change_has_another_epoch(changes: dict[str, Any]) -> None:
    """By it Envoy forgets what was decided before."""
    assert authz_policy(with_auth(**changes))["epoch"] != authz_policy(with_auth())["epoch"]


def test_the_epoch_is_the_content_s() -> None:
    """Every replica has the same, and nothing that is no policy moves it."""
    cors = {"allow_origins": ["https://a.example"]}

    assert authz_policy(a_config(cors=cors))["epoch"] == authz_policy(a_config())["epoch"]
    assert ratelimit_policy(a_config(cors=cors), 1)["epoch"] == ratelimit_policy(a_config(), 1)["epoch"]


@pytest.mark.parametrize(("replicas", "told"), [(0, 1), (1, 1), (3, 3)])
def test_replicas(replicas: int, told: int) -> None:
    """Each has its share when the store is away; there is never less than one, and the number is no epoch."""
    found = ratelimit_policy(a_config(), replicas)

    assert found["replicas"] == told
    assert found["epoch"] == ratelimit_policy(a_config(), 1)["epoch"]


@pytest.mark.parametrize(
    ("route", "told"),
    [
        ({}, None),
        ({"cost": 3}, {"cost": 3}),
        ({"on_store_failure": "closed"}, {"on_store_failure": "closed"}),
        ({"limits": NUMBERS | {"shadow": True}}, {"limits": NUMBERS | {"shadow": True}}),
        ({"tier_limits": {"free": NUMBERS | {"counter": "c"}}}, {"tier_limits": {"free": NUMBERS | {"counter": "c"}}}),
    ],
    ids=str,
)
def test_only_what_departs_is_told_of_a_route(route: dict[str, Any], told: dict[str, Any] | None) -> None:
    """A route as most are is not even named."""
    found = ratelimit_policy(a_config(routes=[a_route(**route)]), 1)["routes"]

    assert found == ({} if told is None else {"all": told})


@pytest.mark.parametrize(
    ("rule", "routes"),
    [({}, None), ({"service": "demo"}, ["a", "b"]), ({"routes": ["b", "b", "a"]}, ["a", "b"])],
    ids=str,
)
def test_global_rules_name_routes(rule: dict[str, Any], routes: list[str] | None) -> None:
    """The service knows no services: a rule on one is a rule on its routes. Without a list it is on every one."""
    config = a_config(
        limits=LIMITS | {"global": [NUMBERS | {"name": "g"} | rule]},
        routes=[a_route("b", "/b"), a_route("a", "/a")],
    )
    policy: dict[str, Any] = ratelimit_policy(config, 1)
    (found,) = policy["global"]

    assert found == NUMBERS | {"name": "g"} | ({} if routes is None else {"routes": routes})


def test_a_policy_is_json() -> None:
    """It travels in a message that knows texts, numbers, truth, lists and mappings."""
    for policy in (authz_policy(rich_config()), ratelimit_policy(rich_config(), 1)):
        assert json.loads(json.dumps(policy)) == policy

"""The decision cache: which routes share what is kept, and what makes it worthless."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.config.model import GatewayConfig
from controlplane.translate import decision_cache
from controlplane.translate.policies import authz_policy
from controlplane.translate.routes import authz_context
from tests.support.configs import a_config, a_route, rich_config

REQUIRED: dict[str, Any] = {"auth": "required"}


def policy_of(route: dict[str, Any], name: str = "all", config: GatewayConfig | None = None) -> str:
    context = authz_context(a_route(name, **route))
    return decision_cache.route_settings(config or a_config(), context, "e1")["policy"]


@pytest.mark.parametrize(
    "asks",
    [
        {"auth": "optional"},
        REQUIRED | {"scopes": ["a"]},
        REQUIRED | {"tiers": ["free"]},
        REQUIRED | {"claims": {"plan": "gold"}},
        REQUIRED | {"providers": ["platform"]},
    ],
    ids=str,
)
def test_a_route_that_asks_something_else_finds_nothing(asks: dict[str, Any]) -> None:
    """A decision for one route says nothing of a route with other conditions."""
    assert policy_of(REQUIRED) != policy_of(asks)


def test_routes_that_ask_the_same_share() -> None:
    """Whatever their names, paths and limits are."""
    assert policy_of(REQUIRED) == policy_of(REQUIRED | {"cost": 5}, "another")


def test_a_changed_policy_makes_all_of_it_worthless() -> None:
    """A new revocation, say, has another epoch, which is a part of every key; authz sends it with each decision."""
    before = rich_config()
    revocations = before.auth.revocations.model_copy(update={"jti": ("another",)})
    after = before.model_copy(update={"auth": before.auth.model_copy(update={"revocations": revocations})})

    assert decision_cache.epoch(before) == authz_policy(before)["epoch"]
    assert decision_cache.epoch(before) != decision_cache.epoch(after)


def test_turned_off() -> None:
    """The scripts are told nothing, so they keep nothing."""
    off = a_config(auth={"decision_cache": {"enabled": False}, "providers": a_config().auth.providers})

    assert decision_cache.route_settings(off, authz_context(a_route(auth="required")), "e1") == {}


def test_how_much_is_kept() -> None:
    """The document's numbers."""
    cache = {"enabled": True, "seconds": 2.5, "max_entries": 7}
    config = a_config(auth={"decision_cache": cache, "providers": a_config().auth.providers})

    assert decision_cache.constants(config) == {"cache_seconds": 2.5, "cache_entries": 7}

"""Leases: what the request filter is told of a route, and what Envoy does with a request that it marked."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import protos
from controlplane.translate import leases, lua_filter
from controlplane.translate.headers import Header
from controlplane.translate.policies import ratelimit_policy
from tests.support.configs import a_config, a_route, rich_config, values

LIMITS: dict[str, Any] = values()["limits"]
NUMBERS = {"rps": 1, "rpm": 10, "burst": 2}


def told(**route: Any) -> str | None:
    """Under which limits a route's leases are."""
    return leases.route_settings(a_config(), a_route(**route), "e1").get("limits")


@pytest.mark.parametrize(
    "route",
    [
        {"cost": 2},
        {"limits": NUMBERS},
        {"tier_limits": {"free": NUMBERS}},
        {"on_store_failure": "open"},
    ],
    ids=str,
)
def test_a_route_that_charges_otherwise_has_leases_of_its_own(route: dict[str, Any]) -> None:
    """All others share a caller's lease, whatever their names are."""
    assert told(name="a") == told(name="b") == "e1/"
    assert told(name="a", **route) == "e1/a"


def test_a_global_rule_may_make_any_route_differ() -> None:
    """With a rule on some routes only, no route shares."""
    rule = NUMBERS | {"name": "some", "routes": ["all"]}
    config = a_config(limits=LIMITS | {"global": [rule]})

    assert leases.route_settings(config, config.routes[0], "e1") == {"limits": "e1/all"}


def test_a_route_whose_cost_comes_with_the_response_has_none() -> None:
    """Nothing can be charged in advance."""
    assert told(cost_from_response_header="x-cost") is None
    assert told(cost_from_response_status={"401": 1}) is None
    assert told(limits={"rps": 1, "rpm": 1, "burst": 1, "by": "both"}) is None
    assert told(ip={"deny": ["10.0.0.0/8"]}) is None


@pytest.mark.parametrize("limits", [{"leases": {"enabled": False}}, {"enforced_by": "envoy"}], ids=str)
def test_turned_off(limits: dict[str, Any]) -> None:
    """No route has leases, and the script that spends them is left out."""
    config = a_config(limits=LIMITS | limits)

    assert leases.route_settings(config, config.routes[0], "e1") == {}
    assert "local leases = " not in lua_filter.request_filter(config)


def test_a_prepaid_request_asks_nobody() -> None:
    """Its descriptor lacks an entry, so Envoy drops it; a request that is not marked is asked about."""
    found: dict[str, Any] = protos.message_to_dict(leases.asked("e1/"))
    action = found["header_value_match"]

    assert action["descriptor_value"] == "e1/"
    assert action["expect_match"] is False
    assert action["headers"] == [{"name": Header.PREPAID, "present_match": True}]


def test_changed_limits_have_another_name() -> None:
    """Any change of a limit, wherever it is; the number of replicas is none."""
    before = rich_config()
    tiers = {name: limit.model_copy(update={"rpm": 7}) for name, limit in before.limits.tiers.items()}
    after = before.model_copy(update={"limits": before.limits.model_copy(update={"tiers": tiers})})

    assert leases.epoch(before) == ratelimit_policy(before, 3)["epoch"] != leases.epoch(after)

"""The policy document, read strictly and compiled."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit_service.errors import PolicyRejected
from ratelimit_service.limits import Limit, Rule
from ratelimit_service.policy import Plan, read_policy

NUMBERS = {"rps": 10, "rpm": 200, "burst": 20}


def a_policy(**changes: Any) -> Plan:
    tiers = {
        "anonymous": {"rps": 5, "rpm": 100, "burst": 10},
        "free": NUMBERS,
        "pro": {"rps": 50, "rpm": 1000, "burst": 100},
    }
    return read_policy({"tiers": tiers} | changes)


def test_as_agreed() -> None:
    """The document of the agreements is read."""
    plan = read_policy(
        {
            "anonymous_key": "client_ip",
            "on_store_failure": "share",
            "replicas": 1,
            "tiers": {"free": NUMBERS},
            "routes": {
                "search": {
                    "cost": 2,
                    "limits": {"rps": 1, "rpm": 10, "burst": 2},
                    "tier_limits": {"pro": {"rps": 5, "rpm": 50, "burst": 10}},
                    "on_store_failure": "closed",
                }
            },
        }
    )
    search = plan.route("search")
    assert (search.cost, search.on_store_failure) == (2, "closed")
    assert search.rules("free")[0] == Rule("route:search", Limit(1, 10, 2))
    assert search.rules("pro")[0] == Rule("route:search", Limit(5, 50, 10))
    assert plan.route("content").rules("free")[0] == Rule("tier", Limit(10, 200, 20))


def test_numbers_from_a_struct() -> None:
    """A protobuf Struct turns 200 into 200.0, which is as good; 200.5 requests a minute are not."""
    assert a_policy(tiers={"free": {"rps": 10.0, "rpm": 200.0, "burst": 20.0}}, replicas=2.0).replicas == 2
    with pytest.raises(PolicyRejected, match="tiers/free/rpm"):
        a_policy(tiers={"free": {"rps": 10, "rpm": 200.5, "burst": 20}})


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"teirs": {}}, "teirs"),
        ({"tiers": {}}, "tiers"),
        ({"tiers": {"free": {"rps": 0, "rpm": 1, "burst": 1}}}, "tiers/free/rps"),
        ({"tiers": {"free": {"rps": 1, "rpm": 1, "burst": 1_000_001}}}, "tiers/free/burst"),
        ({"tiers": {"free": {"rps": "1", "rpm": 1, "burst": 1}}}, "tiers/free/rps"),
        ({"replicas": 0}, "replicas"),
        ({"on_store_failure": "ask"}, "on_store_failure"),
        ({"routes": {"a": {"cost": -1}}}, "routes/a/cost"),
        ({"routes": {"a": {"limits": NUMBERS | {"rph": 1}}}}, "routes/a/limits/rph"),
    ],
)
def test_refused(changes: dict[str, Any], path: str) -> None:
    """A policy with a mistake is refused at its path."""
    with pytest.raises(PolicyRejected, match=path):
        a_policy(**changes)


def test_all_problems_at_once() -> None:
    """Every mistake is named."""
    with pytest.raises(PolicyRejected, match=r"replicas: .*; .*anonymous_key|anonymous_key: .*; .*replicas"):
        a_policy(replicas=0, anonymous_key="ip")


def test_unknown_tier() -> None:
    """An unknown tier has the numbers of anonymous; without such a tier, the smallest there are."""
    assert a_policy().route("content").rules("gold")[0].limit == Limit(5, 100, 10)
    assert a_policy(tiers={"free": NUMBERS, "tiny": NUMBERS | {"rpm": 5}}).default.rules("gold")[0].limit.rpm == 5


def test_route_that_limits_one_tier() -> None:
    """Where a route limits one tier, the others stay in the one budget of their caller."""
    plan = a_policy(routes={"search": {"tier_limits": {"pro": NUMBERS}}})

    assert plan.route("search").rules("pro")[0].name == "route:search"
    assert plan.route("search").rules("free")[0].name == "tier"
    assert plan.route("search").rules("gold")[0].limit == Limit(5, 100, 10)


def test_unknown_tier_on_a_limited_route() -> None:
    """On a route with its own limits an unknown tier has those."""
    plan = a_policy(routes={"login": {"limits": {"rps": 1, "rpm": 5, "burst": 3}}})

    assert plan.route("login").rules("gold")[0] == Rule("route:login", Limit(1, 5, 3))


def test_without_limits() -> None:
    """A tier or a route without numbers has no rule of its own; one beside it, and those that all share, stay."""
    none, all_share = {"unlimited": True}, {"name": "all", "rps": 1, "rpm": 9, "burst": 1}
    plan = a_policy(
        tiers={"anonymous": NUMBERS, "staff": none},
        routes={
            "open": {"limits": none},
            "half": {"limits": NUMBERS, "tier_limits": {"anonymous": none}},
            "tried": {"limits": NUMBERS | {"shadow": True}},
        },
    )
    names = {
        (route, tier): [rule.name for rule in plan.route(route).rules(tier)]
        for route in ("any", "open", "half", "tried")
        for tier in ("anonymous", "staff", "unknown")
    }

    tier, half = ["tier"], ["route:half"]
    assert [names["any", each] for each in ("anonymous", "staff", "unknown")] == [tier, [], tier]
    assert [names["open", each] for each in ("anonymous", "staff", "unknown")] == [[], [], []]
    assert [names["half", each] for each in ("anonymous", "staff", "unknown")] == [[], half, []]
    assert names["tried", "staff"] == ["route:tried"]
    shared = a_policy(tiers={"anonymous": none}, **{"global": [all_share]})
    assert [rule.name for rule in shared.route("any").rules("anonymous")] == ["global:all"]
    assert shared.route("any").rule("anonymous") is None


@pytest.mark.parametrize("tiers", [{"free": {"unlimited": False}}, {"free": NUMBERS | {"unlimited": True}}])
def test_numbers_or_none(tiers: dict[str, Any]) -> None:
    """A tier has numbers, or says that it has none."""
    with pytest.raises(PolicyRejected, match="tiers/free"):
        a_policy(tiers=tiers)

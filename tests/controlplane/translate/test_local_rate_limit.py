"""The local fallback limit: to which requests it applies, and how much each caller may then have."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import protos
from controlplane.config.model import Limits
from controlplane.translate import local_rate_limit
from tests.support.configs import a_config

TIERS = {
    "anonymous": {"rps": 1, "rpm": 10, "burst": 2},
    "free": {"rps": 3, "rpm": 30, "burst": 5},
}


def the_limits(**changes: Any) -> Limits:
    return a_config(limits={"tiers": TIERS} | changes).limits


def policy(**changes: Any) -> dict[str, Any]:
    message = protos.local_ratelimit.LocalRateLimit()
    assert local_rate_limit.policy(the_limits(**changes)).Unpack(message)
    return protos.message_to_dict(message)


Request = dict[str, dict[str, str]]
"""What Envoy knows of a request: `headers`, and the metadata of `ext_authz` and `ratelimit`."""


def entry(action: dict[str, Any], request: Request) -> tuple[str, str] | None:
    """The descriptor's entry that Envoy makes of an action (config.route.v3.RateLimit.Action); None drops all of it."""
    headers = {"x-mgw-network": "192.0.2.1"} | request.get("headers", {})
    if "request_headers" in action:
        name = action["request_headers"]["header_name"]
        return (action["request_headers"]["descriptor_key"], headers[name]) if name in headers else None
    if "header_value_match" in action:
        match = action["header_value_match"]
        assert match["expect_match"] is False
        is_there = match["headers"][0]["name"] in headers
        return None if is_there else (match["descriptor_key"], match["descriptor_value"])
    if "metadata" in action:
        key = action["metadata"]["metadata_key"]
        filter_name = key["key"].rpartition(".")[2]
        value = request.get(filter_name, {}).get(key["path"][0]["key"], action["metadata"].get("default_value", ""))
        return (action["metadata"]["descriptor_key"], value) if value else None
    return action["generic_key"]["descriptor_key"], action["generic_key"]["descriptor_value"]


def bucket(found: dict[str, Any], request: Request) -> tuple[int, str] | None:
    """The size of the bucket that a request takes from, and the value that it is for; None if it is not limited."""
    for rate_limit in found["rate_limits"]:
        entries = [entry(action, request) for action in rate_limit["actions"]]
        if None in entries:
            continue
        for descriptor in found["descriptors"]:
            wanted = [(each["key"], each.get("value")) for each in descriptor["entries"]]
            if all(
                one is not None and one[0] == key and value in (None, one[1])
                for one, (key, value) in zip(entries, wanted, strict=True)
            ):
                return descriptor["token_bucket"]["max_tokens"], str(entries[-1] and entries[-1][1])
    return None


FREE = {"tier": "free", "caller": "idp/u1"}


@pytest.mark.parametrize(
    ("request_", "taken_from"),
    [
        ({"ext_authz": FREE}, (5, "idp/u1")),
        ({"ext_authz": FREE, "ratelimit": {"decided": "yes"}}, None),
        ({"ext_authz": FREE, "headers": {"x-mgw-prepaid": "1"}}, None),
        ({"ext_authz": {"tier": "anonymous"}}, (2, "192.0.2.1")),
        ({}, (2, "192.0.2.1")),
        ({"ratelimit": {"decided": "yes"}}, None),
    ],
    ids=["a caller", "decided", "prepaid", "anonymous", "auth: none", "anonymous and decided"],
)
def test_behind_the_service(request_: Request, taken_from: tuple[int, str] | None) -> None:
    """It limits only what the service should have decided and did not: each caller by its tier, else each address."""
    assert bucket(policy(), request_) == taken_from


@pytest.mark.parametrize(
    ("headers", "taken_from"),
    [
        ({"x-user-tier": "free", "x-mgw-caller": "free idp/u1"}, (5, "free idp/u1")),
        ({}, (2, "192.0.2.1")),
    ],
    ids=["a caller", "anonymous"],
)
def test_before_the_quotas(headers: dict[str, str], taken_from: tuple[int, str]) -> None:
    """In quota mode it limits every request, by what the headers say of the caller."""
    assert bucket(policy(enforced_by="envoy"), {"headers": headers}) == taken_from


def test_a_shared_anonymous_budget() -> None:
    """All addresses have one bucket."""
    assert bucket(policy(anonymous_key="shared"), {}) == (2, "everyone")


def test_a_bucket_is_the_burst_rule() -> None:
    """`burst` at once, and `rps` each second."""
    buckets = {descriptor["entries"][2]["value"]: descriptor["token_bucket"] for descriptor in policy()["descriptors"]}

    assert buckets["free"] == {"max_tokens": 5, "tokens_per_fill": 3, "fill_interval": "1s"}
    assert buckets["anonymous"] == {"max_tokens": 2, "tokens_per_fill": 1, "fill_interval": "1s"}


def test_the_filter_itself_limits_nothing() -> None:
    """So a route that is told nothing, such as health, is free; the numbers move routes and not the listener."""
    found = protos.message_to_dict(local_rate_limit.idle())

    assert "filter_enabled" not in found
    assert "descriptors" not in found
    assert found["stat_prefix"] == policy()["stat_prefix"] == "ceiling", "a part of metric names that users know"


def test_its_429_is_told_from_the_services() -> None:
    """By a status that nothing else has."""
    assert policy()["status"] == {"code": "Locked"}


@pytest.mark.parametrize(
    ("rps", "tokens", "seconds"), [(0.001, 1, 1000), (0.2, 1, 5), (0.333, 333, 1000), (0.7, 7, 10), (2.5, 5, 2)]
)
def test_a_fraction_of_a_request(rps: float, tokens: int, seconds: int) -> None:
    """A rate that is no whole number is whole tokens in whole seconds."""
    slow = {tier: numbers | {"rps": rps} for tier, numbers in TIERS.items()}

    for descriptor in policy(tiers=slow)["descriptors"]:
        found = descriptor["token_bucket"]
        assert (found["tokens_per_fill"], found["fill_interval"]) == (tokens, f"{seconds}s")


def test_a_tier_without_limits_has_no_bucket() -> None:
    """Its callers fit no descriptor, so nothing is taken from them."""
    tiers = {"anonymous": {"unlimited": True}, "free": TIERS["free"], "staff": {"unlimited": True}}

    found = [
        entry["value"] for each in policy(tiers=tiers)["descriptors"] for entry in each["entries"] if "value" in entry
    ]

    assert "free" in found
    assert not {"anonymous", "staff"} & set(found)

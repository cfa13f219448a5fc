"""Contract 3: what a tier table can say beside three whole numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import Gateway, a_route, bearer, default_document, token, unique
from tests.support.waiting import eventually

PLAIN = "/t/plain"
NARROW = {"rps": 1, "rpm": 100, "burst": 1}
RATE_LIMIT_HEADERS = (
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "ratelimit",
    "ratelimit-policy",
)


def the_document() -> dict[str, Any]:
    document = default_document()
    document["listener"]["trusted_hops"] = 1
    document["limits"]["tiers"] |= {"slow": {"rps": 0.2, "rpm": 100, "burst": 2}, "staff": {"unlimited": True}}
    document["limits"]["global"] = [{"name": "club", "routes": ["t-club"], "rps": 1000, "rpm": 5, "burst": 1000}]
    document["routes"] += [
        a_route("plain", "discovery"),
        a_route("club", "discovery"),
        a_route("free-of-limits", "discovery", limits={"unlimited": True}),
        a_route("for-some", "discovery", limits=NARROW, tier_limits={"pro": {"unlimited": True}}),
    ]
    return document


@pytest.fixture(scope="module")
def tiered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two replicas of the rate-limit service."""
    with Gateway(tmp_path_factory.mktemp("tiers") / "run", "--ratelimit", "2", document=the_document()) as running:
        yield running


def of_tier(tier: str) -> tuple[str, str]:
    """A caller of this tier whom no other test knows."""
    return bearer(token(unique(), tier))


def statuses(gateway: Gateway, asked: int, *headers: tuple[str, str], path: str = PLAIN) -> list[int]:
    return [gateway.ask(path, headers=list(headers)).status for _ in range(asked)]


def test_a_fifth_of_a_request_a_second(tiered: Gateway) -> None:
    """The burst passes, then one request every five seconds; the refusal says how long."""
    caller, began = of_tier("slow"), time.monotonic()
    assert statuses(tiered, 2, caller) == [200, 200]

    refused = tiered.ask(PLAIN, headers=[caller])

    assert time.monotonic() - began > 5 or refused.status == 429
    assert 3 <= int(refused.value("retry-after") or 0) <= 5
    assert '"burst";q=2;w=10' in (refused.value("ratelimit-policy") or "")


@pytest.mark.parametrize(
    ("tier", "path"),
    [("staff", PLAIN), ("slow", "/t/free-of-limits"), ("pro", "/t/for-some"), ("staff", "/t/for-some")],
)
def test_no_limits(tiered: Gateway, tier: str, path: str) -> None:
    """A tier or a route without limits is never refused, and its answers speak of none; others have their own."""
    caller = of_tier(tier)
    if (tier, path) == ("staff", "/t/for-some"):
        assert 429 in statuses(tiered, 10, caller, path=path), "the route's numbers hold for a tier without any"
        return

    answers = [tiered.ask(path, headers=[caller]) for _ in range(150)]

    assert {answer.status for answer in answers} == {200}
    assert not any(answer.value(name) for answer in answers for name in RATE_LIMIT_HEADERS)


def test_a_shared_rule_holds_for_a_tier_without_limits(tiered: Gateway) -> None:
    """What all callers share protects a service from everybody."""
    answers = [tiered.ask("/t/club", headers=[of_tier("staff")]) for _ in range(6)]

    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert answers[0].value("x-ratelimit-limit") == "5"


def test_no_limits_without_the_service(start: StartGateway) -> None:
    """Envoy's local fallback limit spares whom the document does not limit."""
    gateway = start(document=the_document())
    gateway.kill("ratelimit")

    assert eventually(lambda: 429 in statuses(gateway, 12, of_tier("slow"))), "the fallback holds for others"
    assert set(statuses(gateway, 450, of_tier("staff"))) == {200}
    assert set(statuses(gateway, 12, of_tier("slow"), path="/t/free-of-limits")) == {200}


def test_no_limits_in_quota_mode(start: StartGateway) -> None:
    """A tier and a route without limits have none inside Envoy either."""
    document = the_document()
    document["limits"]["enforced_by"] = "envoy"
    del document["limits"]["global"]
    gateway = start(document=document)

    assert set(statuses(gateway, 450, of_tier("staff"))) == {200}
    assert set(statuses(gateway, 30, of_tier("slow"), path="/t/free-of-limits")) == {200}
    assert 429 in statuses(gateway, 10, of_tier("slow"))


def test_a_block(tiered: Gateway) -> None:
    """An override of 0 a minute refuses everything of one caller until it ends, and says for how long."""
    subject = unique()
    caller = bearer(token(subject, "free"))
    assert statuses(tiered, 1, caller) == [200]

    told = tiered.operate("PUT", f"{subject}", "override", {"rpm": 0, "expires_in_seconds": 600, "reason": "a thief"})
    refused = tiered.ask(PLAIN, headers=[caller])

    assert told["rules"][0]["override"]["rpm"] == 0
    assert statuses(tiered, 10, caller) == [429] * 10
    assert 590 <= int(refused.value("retry-after") or 0) <= 600
    assert (refused.value("x-ratelimit-limit"), refused.value("x-ratelimit-remaining")) == ("0", "0")
    tiered.operate("DELETE", f"{subject}", "override")
    assert statuses(tiered, 1, caller) == [200]

"""Contract 3: what a tier table can say beside three whole numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import Demo, Gateway, a_route, bearer, client_address, default_document, token, unique
from tests.support.waiting import eventually

PLAIN = "/t/plain"
WIDE = {"rps": 1000, "rpm": 1000, "burst": 1000}
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
    document["limits"]["exempt"] = {"cidrs": ["198.18.0.0/24"], "callers": ["exempt-job"]}
    document["limits"]["global"] = [{"name": "club", "routes": ["t-club"], "rps": 1000, "rpm": 5, "burst": 1000}]
    document["routes"] += [
        a_route("plain", "discovery"),
        a_route("club", "discovery"),
        a_route("by-address", "discovery", auth="required", limits=WIDE | {"rpm": 4, "by": "address"}),
        a_route("by-both", "discovery", limits=WIDE | {"rpm": 4, "by": "both"}),
        a_route("inside", "discovery", ip={"allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.0.0.13"]}),
        a_route("not-there", "discovery", ip={"deny": ["10.0.0.0/8"]}),
        a_route("login", "sync", cost=0, cost_from_response_status={"401": 1, 403: 2}, limits=WIDE | {"rpm": 3}),
        a_route("login-required", "sync", auth="required", cost=0, cost_from_response_status={"401": 1}, limits=WIDE),
        a_route("both", "sync", cost_from_response_header="x-cost", cost_from_response_status={"404": 7}),
        a_route("free-of-limits", "discovery", limits={"unlimited": True}),
        a_route("for-some", "discovery", limits=NARROW, tier_limits={"pro": {"unlimited": True}}),
    ]
    return document


@pytest.fixture(scope="module", params=["authz_service", "envoy"])
def tiered(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """Two replicas of the rate-limit service, whoever verifies callers."""
    document = the_document()
    document["auth"]["verified_by"] = request.param
    with Gateway(tmp_path_factory.mktemp("tiers") / "run", "--ratelimit", "2", document=document) as running:
        yield running


def asks_always(route: dict[str, Any]) -> bool:
    """What quota mode cannot do."""
    return "cost_from_response_status" in route or "by" in route.get("limits", ())


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
    assert set(statuses(gateway, 12, bearer(token("exempt-job", "slow")))) == {200}
    assert set(statuses(gateway, 12, of_tier("slow"), path="/t/free-of-limits")) == {200}


def test_no_limits_in_quota_mode(start: StartGateway) -> None:
    """A tier and a route without limits have none inside Envoy either."""
    document = the_document()
    document["limits"]["enforced_by"] = "envoy"
    del document["limits"]["global"], document["limits"]["exempt"]
    document["routes"] = [route for route in document["routes"] if not asks_always(route)]
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


def used(gateway: Gateway, subject: str, rule: str) -> int:
    rules = gateway.operate("GET", subject, "limits")["rules"]
    found: int = next(each["used"] for each in rules if each["rule"] == rule)
    return found


@pytest.fixture
def sync(tiered: Gateway) -> Iterator[Demo]:
    """The service behind the routes that charge by what it answers."""
    service = tiered.demo("sync")
    yield service
    service.behave()


def test_only_failed_logins_count(tiered: Gateway, sync: Demo) -> None:
    """A request that costs nothing is charged by the upstream's status, and refused while nothing is left."""
    subject, path = unique(), "/t/login"
    caller = bearer(token(subject, "free"))
    assert statuses(tiered, 10, caller, path=path) == [200] * 10
    assert used(tiered, subject, "route:t-login") == 0

    sync.misbehave(status=401)
    assert statuses(tiered, 1, caller, path=path) == [401]
    assert eventually(lambda: used(tiered, subject, "route:t-login") == 1)
    sync.misbehave(status=403)
    assert statuses(tiered, 1, caller, path=path) == [403]
    assert eventually(lambda: used(tiered, subject, "route:t-login") == 3)
    sync.behave()

    refused = tiered.ask(path, headers=[caller])
    assert (refused.status, refused.value("x-ratelimit-remaining")) == (429, "0")
    assert used(tiered, subject, "tier") == 0


def test_what_the_gateway_answers_itself_is_no_failed_login(tiered: Gateway) -> None:
    """Its own 401 costs nothing."""
    address = client_address()
    headers = [("X-Forwarded-For", address), ("Authorization", "Bearer no.such.token")]
    assert statuses(tiered, 5, *headers, path="/t/login-required") == [401] * 5
    rules = tiered.operate("GET", address, "limits")["rules"]
    assert {rule["used"] for rule in rules if rule["rule"] == "route:t-login-required"} == {0}


@pytest.mark.parametrize(("status", "told", "costs"), [(404, "5", 13), (404, None, 8), (200, "5", 6), (200, None, 1)])
def test_a_header_and_a_status_add_up(tiered: Gateway, sync: Demo, status: int, told: str | None, costs: int) -> None:
    """Each of them is charged where it says something."""
    subject = unique()
    sync.misbehave(status=status, headers=[["x-cost", told]] if told else [])

    assert statuses(tiered, 1, bearer(token(subject, "free")), path="/t/both") == [status]

    assert eventually(lambda: used(tiered, subject, "tier") == costs), used(tiered, subject, "tier")


EXEMPT = {
    "a caller": [bearer(token("exempt-job", "slow"))],
    "an address": [("X-Forwarded-For", "198.18.0.7")],
    "a caller from an address": [("X-Forwarded-For", "198.18.0.7"), bearer(token("somebody", "slow"))],
}


@pytest.mark.parametrize("headers", EXEMPT.values(), ids=EXEMPT)
@pytest.mark.parametrize("path", [PLAIN, "/t/club"])
def test_exempt(tiered: Gateway, headers: list[tuple[str, str]], path: str) -> None:
    """Whoever is exempt is never refused, not by a shared rule either, and nothing is counted."""
    assert set(statuses(tiered, 150, *headers, path=path)) == {200}


def test_an_operator_sees_who_is_exempt(tiered: Gateway) -> None:
    """The caller's limits say so."""
    assert tiered.operate("GET", "exempt-job", "limits")["exempt"] is True
    assert tiered.operate("GET", "198.18.0.9", "limits")["exempt"] is True
    assert "exempt" not in tiered.operate("GET", "198.18.1.9", "limits")


def test_others_are_not_exempt(tiered: Gateway) -> None:
    """The neighbouring network, and the same subject of another provider or none."""
    assert 429 in statuses(tiered, 30, ("X-Forwarded-For", "198.18.1.7"))
    assert 429 in statuses(tiered, 10, bearer(token("exempt-job-2", "slow")))


FROM = [
    ("inside", "10.0.0.7", 200),
    ("inside", "10.0.0.13", 403),
    ("inside", "192.0.2.1", 403),
    ("inside", "2001:db8::1", 200),
    ("inside", "2001:db9::1", 403),
    ("not-there", "10.0.0.7", 403),
    ("not-there", "192.0.2.1", 200),
    ("%69nside", "192.0.2.1", 403),
]


@pytest.mark.parametrize(("route", "address", "status"), FROM)
def test_a_route_by_address(tiered: Gateway, route: str, address: str, status: int) -> None:
    """A route may name who calls from where: what is denied is so even if it is allowed, however the path is spelt."""
    answer = tiered.ask(f"/t/{route}", headers=[("X-Forwarded-For", address), of_tier("free")])

    assert answer.status == status
    if status == 403:
        assert answer.json()["error"] == {"code": "FORBIDDEN", "message": "Not allowed from this address"}
        assert answer.value("x-ratelimit-limit") is None
        assert answer.value("x-request-id")


def a_place() -> tuple[str, str]:
    return ("X-Forwarded-For", client_address())


def test_by_address_on_a_route_that_requires_a_caller(tiered: Gateway) -> None:
    """Whoever calls from an address spends what it has; the caller's own budget is not touched."""
    here, there, path, subject = a_place(), a_place(), "/t/by-address", unique()
    caller = bearer(token(subject, "free"))

    assert statuses(tiered, 2, here, caller, path=path) == [200] * 2
    assert statuses(tiered, 3, here, of_tier("pro"), path=path) == [200, 200, 429]
    assert statuses(tiered, 1, here, caller, path=path) == [429]
    assert statuses(tiered, 1, there, caller, path=path) == [200]
    assert used(tiered, here[1], "route:t-by-address") == 4
    assert used(tiered, subject, "tier") == 0


def test_by_both(tiered: Gateway) -> None:
    """A caller over all addresses, and an address over all callers; an anonymous caller is charged once."""
    path, caller, here = "/t/by-both", of_tier("free"), a_place()

    assert [statuses(tiered, 1, a_place(), caller, path=path) for _ in range(5)] == [[200]] * 4 + [[429]]
    assert [statuses(tiered, 1, here, of_tier("free"), path=path) for _ in range(5)] == [[200]] * 4 + [[429]]
    assert statuses(tiered, 5, a_place(), path=path) == [200] * 4 + [429]

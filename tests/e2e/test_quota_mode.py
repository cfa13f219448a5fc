"""`limits.enforced_by: envoy`: quotas handed out by the rate-limit service, spent inside real Envoys."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.gateway import Gateway, a_route, bearer, default_document, token
from tests.support.waiting import eventually

PATH = "/api/v1/genres"
FREE_RPS, FREE_BURST = 10, 20
POLICIES = "mgw_ratelimit_policies_accepted_total"
Passed = list[float]


def quota_document() -> dict[str, Any]:
    document = default_document()
    document["limits"]["enforced_by"] = "envoy"
    document["routes"].append(a_route("scarce", "discovery", limits={"rps": 1, "rpm": 100, "burst": 3}))
    return document


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of two Envoys. The tests leave it as they find it, and the last ones break it."""
    with Gateway(tmp_path_factory.mktemp("quota") / "run", "--envoy", "2", document=quota_document()) as running:
        yield running


def hammer(address: str, headers: dict[str, str], seconds: float, path: str = PATH) -> Passed:
    """Ask without a pause over one connection; answers when requests passed. Everything else must be a 429."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    began, passed = time.monotonic(), Passed()
    while (now := time.monotonic() - began) < seconds:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (200, 429), answer.status
        if answer.status == 200:
            passed.append(now)
    connection.close()
    return passed


def hammer_all(addresses: Sequence[str], headers: dict[str, str], seconds: float) -> list[Passed]:
    with ThreadPoolExecutor(len(addresses)) as threads:
        return list(threads.map(lambda address: hammer(address, headers, seconds), addresses))


def caller(tier: str) -> dict[str, str]:
    return dict([bearer(token(tier=tier))])


def address(gateway: Gateway, index: int) -> str:
    found: str = gateway.component("envoy", index)["address"]
    return found


def metric(gateway: Gateway, name: str, label: str = "") -> float:
    lines = gateway.metrics("ratelimit").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name) and label in line)


def reported(gateway: Gateway, tier: str) -> float:
    """How many requests of a tier the Envoys have reported: a new bucket's first at once, the others every 5 s."""
    return metric(gateway, "mgw_ratelimit_quota_requests_total", f'tier="{tier}"')


@pytest.mark.parametrize(("tier", "rps", "burst"), [("free", 10, 20), ("pro", 50, 100)])
def test_a_caller_has_the_tiers_burst_and_rate(two: Gateway, tier: str, rps: int, burst: int) -> None:
    """At one Envoy a caller gets the burst at once and then the rate."""
    passed = hammer(address(two, 0), caller(tier), 1.5)

    assert burst + 1.5 * rps * 0.8 <= len(passed) <= burst + 1.5 * rps + 2


def test_two_envoys_share_one_limit(two: Gateway) -> None:
    """Both together let the limit pass, and each its part. What their first requests may add is a ceiling's burst."""
    one, other = hammer_all([address(two, 0), address(two, 1)], caller("free"), 2.5)

    assert len(one) + len(other) <= FREE_BURST + 2.5 * FREE_RPS + FREE_BURST
    late = [len([at for at in passed if at > 0.5]) for passed in (one, other)]
    assert sum(late) <= 2 * FREE_RPS + 2
    assert min(late) >= 0.7 * FREE_RPS, "each has half of the rate"


def test_a_refusal_has_the_gateways_shape(two: Gateway) -> None:
    """A 429 of a quota or of the ceiling reads like any other; Retry-After is the shortest wait that may help."""
    mine = [bearer(token(tier="free"))]
    refused = eventually(lambda: (answer := two.ask(PATH, headers=mine)).status == 429 and answer, every=0)

    assert refused
    assert refused.json() == {"error": {"code": "RATE_LIMITED", "message": "Too many requests", "retry_after": 1}}
    assert refused.value("retry-after") == "1"
    assert refused.value("x-gateway-error") == "RATE_LIMITED"


def test_a_route_with_its_own_numbers_has_its_own_quota(two: Gateway) -> None:
    """Its budget is spent alone, and leaves the tier's whole."""
    mine = caller("free")

    scarce = hammer(address(two, 0), mine, 0.8, "/t/scarce")

    assert 3 <= len(scarce) <= 4
    assert len(hammer(address(two, 0), mine, 0.5)) >= FREE_BURST


@pytest.mark.parametrize("name", ["X-Mgw-Caller", "x_mgw_caller", "X-Mgw-Counter", "X-User-Tier"])
def test_a_client_cannot_choose_its_quota(two: Gateway, name: str) -> None:
    """Another name in the header that names a bucket, with every request, opens no other bucket; nor does a tier."""
    who = bearer(token(tier="free"))
    began = time.monotonic()

    answers = [two.ask(PATH, headers=[who, (name, f"enterprise platform/{number}")]) for number in range(60)]

    most = FREE_BURST + (time.monotonic() - began) * FREE_RPS + 1
    assert [answer.status for answer in answers].count(200) <= most
    assert [answer.status for answer in answers].count(429) >= 60 - most


def test_what_is_free_is_in_no_quota(two: Gateway) -> None:
    """Health, unknown paths, wrong methods and missing tokens open no bucket."""
    before = metric(two, "mgw_ratelimit_quota_buckets")
    for path, method in (("/health", "GET"), ("/nope", "GET"), (PATH, "DELETE"), ("/api/v1/user/profile", "GET")):
        two.ask(path, method)
    told = reported(two, "enterprise")
    two.ask(PATH, headers=[bearer(token(tier="enterprise"))])
    assert eventually(lambda: reported(two, "enterprise") > told), "what came later was not reported"

    assert metric(two, "mgw_ratelimit_quota_buckets") <= before + 1


def test_a_changed_tier_is_enforced_within_a_second(two: Gateway) -> None:
    """A higher rate reaches the Envoys by itself: no report and no restart in between."""
    mine, document = caller("free"), quota_document()
    document["limits"]["tiers"]["free"] = {"rps": 100, "rpm": 6000, "burst": 100}
    told = reported(two, "free")
    with ThreadPoolExecutor(1) as threads:
        began = time.monotonic()
        asking = threads.submit(hammer, address(two, 0), mine, 4)
        assert eventually(lambda: reported(two, "free") > told)
        answer = two.put_config(document)
        live = time.monotonic() - began
        passed = asking.result()
    assert answer.status_code == 200, answer.text

    assert live < 2, "there was no time to see it"
    assert len([at for at in passed if live + 1 <= at < live + 2]) > 60
    accepted = metric(two, POLICIES)
    assert two.put_config(quota_document()).status_code == 200
    assert eventually(lambda: metric(two, POLICIES) > accepted)


def test_an_envoy_that_dies_leaves_its_share(two: Gateway) -> None:
    """Killed, its connection breaks, and the other has the whole rate at once."""
    mine = caller("free")
    with ThreadPoolExecutor(2) as threads:
        began = time.monotonic()
        living = threads.submit(hammer, address(two, 0), mine, 5)
        dying = threads.submit(hammer, address(two, 1), mine, 2.2)
        assert dying.result()
        two.kill("envoy", 1)
        gone = time.monotonic() - began
        passed = living.result()

    # The first second has what each Envoy lets pass before it is told its share.
    before = len([at for at in passed if 1.2 < at <= 2.2])
    after = len([at for at in passed if gone + 0.3 < at <= 5])
    assert before <= FREE_RPS * 0.7
    assert after >= (5 - gone - 0.3) * FREE_RPS * 0.8
    two.revive("envoy")


def test_without_the_service_the_ceiling_holds(two: Gateway) -> None:
    """Killed, assignments go on and new callers have their tier's burst and rate in each Envoy; back, it is told."""
    old = caller("free")
    hammer(address(two, 0), old, 1)
    two.kill("ratelimit")

    known, unknown = hammer(address(two, 0), old, 1), hammer(address(two, 0), caller("free"), 1)

    assert 0.6 * FREE_RPS <= len(known) <= FREE_RPS + 3
    assert FREE_BURST <= len(unknown) <= FREE_BURST + FREE_RPS + 2
    two.revive("ratelimit")
    assert eventually(lambda: metric(two, "mgw_ratelimit_quota_streams") >= 1, seconds=8)


def test_identity_inside_envoy_is_charged_alike(tmp_path: Any) -> None:
    """With auth.verified_by: envoy a caller's bucket and tier are the same, and authz is not needed."""
    document = quota_document()
    document["auth"]["verified_by"] = "envoy"
    with Gateway(tmp_path / "run", document=document) as gateway:
        gateway.kill("authz")

        passed = hammer(gateway.address, caller("free"), 1)

        assert FREE_BURST + 0.7 * FREE_RPS <= len(passed) <= FREE_BURST + FREE_RPS + 2
        assert metric(gateway, 'mgw_ratelimit_quota_requests_total{outcome="allowed",tier="free"}') >= 1

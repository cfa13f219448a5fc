"""Contract 3: an anonymous caller is its network, whoever enforces the limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import Gateway, default_document

PATH = "/api/v1/genres"
BURST = 6
LIMIT = {"rps": 1, "rpm": 40, "burst": BURST}
MODES = ["service", "verified by Envoy", "no leases", "quota", "service gone"]
NETWORKS = iter(range(1, 10_000))


def a_network() -> str:
    """The first 64 bits of an address that no other test of this file uses."""
    return f"2001:db8:77:{next(NETWORKS):x}"


def an_address() -> tuple[str, str]:
    """An IPv4 address that no other test of this file uses, and the end of it in IPv6."""
    number = next(NETWORKS)
    return f"198.18.{number // 250}.{number % 250 + 1}", f"c612:{(number // 250 << 8) + number % 250 + 1:x}"


def networks_document(**limits: Any) -> dict[str, Any]:
    document = default_document()
    document["listener"]["trusted_hops"] = 1
    document["limits"] |= limits
    document["limits"]["tiers"]["anonymous"] = LIMIT
    return document


@pytest.fixture(scope="module", params=MODES)
def limiting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that limits in one of the ways there are."""
    document = networks_document()
    if request.param == "quota":
        document["limits"]["enforced_by"] = "envoy"
    if request.param == "no leases":
        document["limits"]["leases"] = {"enabled": False}
    if request.param == "verified by Envoy":
        document["auth"]["verified_by"] = "envoy"
    with Gateway(tmp_path_factory.mktemp("networks") / "run", document=document) as running:
        if request.param == "service gone":
            running.kill("ratelimit")
        yield running


def ask(gateway: Gateway, address: str) -> int:
    status = gateway.ask(PATH, headers=[("X-Forwarded-For", address)]).status
    assert status in (200, 429)
    return status


def use_up(gateway: Gateway, address: str) -> None:
    """Spend all that this caller has."""
    assert 429 in (ask(gateway, address) for _ in range(100))


def is_used_up(gateway: Gateway, *addresses: str) -> bool:
    """Whether these share a budget that is used up. One request may have come back meanwhile."""
    return [ask(gateway, address) for address in addresses * 3].count(429) >= 2 * len(addresses)


def test_the_addresses_of_a_network_are_one_caller(limiting: Gateway) -> None:
    """Sixty addresses of one /64 pass as often as one would; the next /64 is somebody else."""
    network, other = a_network(), a_network()
    began = time.monotonic()

    statuses = [ask(limiting, f"{network}:{number:x}::{number:x}") for number in range(1, 61)]

    # In quota mode the burst rule holds until the first assignment, which may let as many pass again.
    assert BURST <= statuses.count(200) <= 2 * BURST + time.monotonic() - began + 1
    assert ask(limiting, f"{other}::1") == 200


def test_ipv4_in_the_guise_of_ipv6_is_ipv4(limiting: Gateway) -> None:
    """Each such address is the caller of the plain one, and no two are the same caller."""
    (plain, mapped), (other, _) = an_address(), an_address()

    use_up(limiting, f"::ffff:{plain}")

    assert is_used_up(limiting, plain, f"::ffff:{mapped}", f"[::FFFF:{plain}]:4711")
    assert ask(limiting, f"::ffff:{other}") == 200


def test_each_ipv4_address_is_a_caller(limiting: Gateway) -> None:
    """As ever."""
    (one, _), (other, _) = an_address(), an_address()

    use_up(limiting, one)

    assert is_used_up(limiting, one)
    assert ask(limiting, other) == 200


PREFIXES = {"ipv4_prefix": 24, "ipv6_prefix": 48}


@pytest.mark.parametrize("limits", [{}, {"enforced_by": "envoy"}], ids=["service", "quota"])
def test_other_prefixes(start: StartGateway, limits: dict[str, Any]) -> None:
    """The document says how many bits tell callers apart."""
    gateway = start(document=networks_document(**limits, **PREFIXES))

    use_up(gateway, "198.18.7.1")
    assert is_used_up(gateway, "198.18.7.255", "::ffff:198.18.7.9")
    assert ask(gateway, "198.18.8.1") == 200

    use_up(gateway, "2001:db8:1:2::3")
    assert is_used_up(gateway, "2001:db8:1:ffff::1")
    assert ask(gateway, "2001:db8:2:2::3") == 200


def test_an_operator_names_any_address_of_a_network(start: StartGateway) -> None:
    """All of them are one caller in `/v1/callers` too; so is the network itself."""
    gateway = start(document=networks_document())
    for address in ("2001:db8:5:6::1", "2001:db8:5:6::2", "2001:db8:5:6:7::"):
        ask(gateway, address)

    for named in ("2001:db8:5:6::99", "2001:DB8:5:6:0::1", "2001:db8:5:6::/64"):
        answer = gateway.api("GET", f"/v1/callers/{named}/limits")
        assert answer.json()["address"] == "2001:db8:5:6::/64", answer.text
        assert [rule["used"] for rule in answer.json()["rules"] if rule["rule"] == "tier"] == [3]

    reset = gateway.operate("POST", "2001:db8:5:6::abc", "reset")
    assert [rule["used"] for rule in reset["rules"] if rule["rule"] == "tier"] == [0]

    ask(gateway, "203.0.113.77")
    mapped = gateway.api("GET", "/v1/callers/::ffff:203.0.113.77/limits").json()
    assert (mapped["address"], [rule["used"] for rule in mapped["rules"] if rule["rule"] == "tier"]) == (
        "203.0.113.77",
        [1],
    )

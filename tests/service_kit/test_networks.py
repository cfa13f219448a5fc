"""Whom an address stands for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.networks import Prefixes, network_of


@pytest.mark.parametrize(
    ("address", "prefixes", "network"),
    [
        ("203.0.113.9", Prefixes(), "203.0.113.9"),
        ("203.0.113.9", Prefixes(ipv4=24), "203.0.113.0/24"),
        ("203.0.113.9", Prefixes(ipv4=1), "128.0.0.0/1"),
        ("2001:db8:1:2:3:4:5:6", Prefixes(), "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", Prefixes(), "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3:4:5:6", Prefixes(ipv6=56), "2001:db8:1::/56"),
        ("2001:db8:1:2:3:4:5:6", Prefixes(ipv6=128), "2001:db8:1:2:3:4:5:6"),
        ("::ffff:203.0.113.9", Prefixes(), "203.0.113.9"),
        ("::ffff:cb00:7109", Prefixes(), "203.0.113.9"),
        ("::FFFF:203.0.113.9", Prefixes(ipv4=24), "203.0.113.0/24"),
        ("fe80::1%eth0", Prefixes(), "fe80::/64"),
        ("2001:db8:1:2::/64", Prefixes(), "2001:db8:1:2::/64"),
        ("nowhere", Prefixes(), "nowhere"),
        ("", Prefixes(), ""),
    ],
)
def test_the_network(address: str, prefixes: Prefixes, network: str) -> None:
    """One spelling each; IPv4 in the guise of IPv6 is IPv4; what is no address stays as it is."""
    assert network_of(address, prefixes) == network


@given(st.ip_addresses(), st.integers(1, 32), st.integers(1, 128))
def test_a_network_is_its_own(address: object, ipv4: int, ipv6: int) -> None:
    """Whoever says it again says the same."""
    prefixes = Prefixes(ipv4, ipv6)
    network = network_of(str(address), prefixes)

    assert network_of(network, prefixes) == network

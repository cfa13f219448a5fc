"""address.lua: the network of an address, as the rate-limit service has it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.networks import Prefixes, network_of
from tests.lua.support.worker import Worker


def worker(ipv4: int = 32, ipv6: int = 64) -> Worker:
    return Worker("address", {"ipv4_prefix": ipv4, "ipv6_prefix": ipv6})


BY_DEFAULT = worker()


@pytest.mark.parametrize(
    ("peer", "first"),
    [
        ("203.0.113.9:4711", "203.0.113.9"),
        ("203.0.113.9:0", "203.0.113.9"),
        ("[2001:db8:1:2:3:4:5:6]:4711", "2001:db8:1:2:0:0:0:0"),
        ("[2001:db8::1]:0", "2001:db8:0:0:0:0:0:0"),
        ("[::1]:1", "0:0:0:0:0:0:0:0"),
        ("[fe80::1%eth0]:1", "fe80:0:0:0:0:0:0:0"),
        ("[::ffff:203.0.113.9]:1", "203.0.113.9"),
        ("[::ffff:cb00:7109]:1", "203.0.113.9"),
        ("[64:ff9b::203.0.113.9]:1", "64:ff9b:0:0:0:0:0:0"),
    ],
)
def test_the_first_address(peer: str, first: str) -> None:
    """Of `ADDRESS:PORT` as Envoy writes it."""
    assert BY_DEFAULT.network_of(peer) == first


def spellings(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[str]:
    """As Envoy may have it."""
    if address.version == 4:
        return [f"{address}:1", f"[::ffff:{address}]:1"]
    return [f"[{address}]:1", f"[{address.exploded}]:0"]


@given(st.ip_addresses(), st.sampled_from([1, 8, 17, 24, 31, 32]), st.sampled_from([1, 16, 47, 48, 56, 64, 127, 128]))
def test_the_service_agrees(address: ipaddress.IPv4Address, ipv4: int, ipv6: int) -> None:
    """Whatever the prefixes: the first address is of the network that the service charges."""
    found = {worker(ipv4, ipv6).network_of(each) for each in spellings(address)}
    prefixes = Prefixes(ipv4, ipv6)
    network = network_of(str(address), prefixes)

    assert {network_of(each, prefixes) for each in found} == {network}
    assert len(found) == 1
    assert ipaddress.ip_address(found.pop()) == ipaddress.ip_network(network).network_address


def test_many_addresses() -> None:
    """What was read is remembered, within bounds, and stays right."""
    found = worker()

    networks = [found.network_of(f"[2001:db8::{number % 65536:x}:{number // 65536:x}]:1") for number in range(20_050)]

    assert set(networks) == {"2001:db8:0:0:0:0:0:0"}

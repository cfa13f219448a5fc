"""Addresses: how they are written, and what is none."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.settings import Settings
from controlplane.topology import AUTHZ_CLUSTER, HEALTH_CLUSTER, NO_CLUSTER, RATELIMIT_CLUSTER, Address, Topology

NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True)
HOSTS = NAMES | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)
PORTS = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("authz:1", Address("authz", 1)),
        ("mgw_authz.example.:080", Address("mgw_authz.example.", 80)),
        ("[::1]:65535", Address("::1", 65535)),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1)),
        (" a:1 ", Address("a", 1)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """HOST:PORT, with brackets around an IPv6 address."""
    assert Address.parse(text) == address


@given(HOSTS, PORTS)
def test_an_address_is_read_as_it_is_written(host: str, port: int) -> None:
    """What `str` makes of an address is that address again."""
    address = Address(host, port)

    assert Address.parse(str(address)) == address


@given(st.ip_addresses(v=6), PORTS)
def test_an_ipv6_address_without_brackets_is_none(host: ipaddress.IPv6Address, port: int) -> None:
    """Where the address ends and the port begins would be a guess."""
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        Address.parse(f"{host}:{port}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:" + "9" * 5000,
        "a:x",
        "a:-1",
        "a:+1",
        "a:1_0",
        "a: 1",
        "a:²",
        "a:٣",
        "80",
        "[]:80",
        "[a]:80",
        "[127.0.0.1]:80",
        "[[::1]]:80",
        "[::1:80",
        "::1]:80",
        "[::1]80",
        "http://a:80",
        "user@a:80",
        "a/b:80",
        "a b:80",
        "a,b:80",
        "é:80",
    ],
    ids=lambda text: repr(text)[:20],
)
def test_what_is_no_address(text: str) -> None:
    """Anything else is said in words, with the text that it was."""
    with pytest.raises(ValueError, match="is not HOST:PORT") as caught:
        Address.parse(text)

    assert str(caught.value).startswith(repr(text))


def test_addresses_are_in_the_order_of_hosts_and_ports() -> None:
    """Ports as numbers, so that the same replicas are in the same order everywhere."""
    texts = ["b:1", "a:10", "a:9"]

    assert [str(each) for each in sorted(map(Address.parse, texts))] == ["a:9", "a:10", "b:1"]


def test_clusters_of_our_own_have_names_of_their_own() -> None:
    """No two are alike, and each has the prefix that no operator's service can have."""
    names = {AUTHZ_CLUSTER, RATELIMIT_CLUSTER, HEALTH_CLUSTER, NO_CLUSTER}

    assert len(names) == 4
    assert all(name.startswith("mgw-") for name in names)


def test_the_authorities_are_the_same_by_either_default() -> None:
    """A topology that is made without settings has the file that the settings have."""
    address = (Address("a", 1),)

    assert Topology(address, address, address).trusted_ca == Settings.from_environment({}).topology.trusted_ca

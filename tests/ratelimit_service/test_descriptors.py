"""What Envoy's entries ask, and how a caller becomes a key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.descriptors import Descriptor, caller_tag, read_descriptor
from service_kit.networks import Prefixes

ENTRIES = [("route", "content"), ("tier", "free"), ("caller", "p/u1"), ("remote_address", "10.0.0.1")]


def test_our_shape() -> None:
    """The four entries make a descriptor."""
    assert read_descriptor(ENTRIES, 3) == Descriptor("content", "free", "p/u1", "10.0.0.1", 3)


@pytest.mark.parametrize("missing", ["route", "tier", "caller"])
def test_missing_entry(missing: str) -> None:
    """Without one of the entries there is no descriptor."""
    assert read_descriptor([entry for entry in ENTRIES if entry[0] != missing], 1) is None


def test_anonymous_without_an_address() -> None:
    """An anonymous caller without an address is nobody; a verified one needs no address."""
    assert read_descriptor([("route", "r"), ("tier", "t"), ("caller", "-")], 1) is None
    assert read_descriptor([("route", "r"), ("tier", "t"), ("caller", "p/u")], 1) is not None


def asked_by(caller: str, address: str = "10.0.0.1", tier: str = "free") -> Descriptor:
    return Descriptor("content", tier, caller, address, 1)


def test_who_shares_a_counter() -> None:
    """A verified caller is the same from every address and in every tier; an anonymous one is its address."""
    assert caller_tag(asked_by("p/u1"), "client_ip") == caller_tag(asked_by("p/u1", "10.0.0.2", "pro"), "client_ip")
    assert caller_tag(asked_by("-"), "client_ip") != caller_tag(asked_by("-", "10.0.0.2"), "client_ip")
    assert caller_tag(asked_by("-"), "shared") == caller_tag(asked_by("-", "10.0.0.2"), "shared")
    assert caller_tag(asked_by("p/u1"), "shared") == caller_tag(asked_by("p/u1"), "client_ip")


def test_an_anonymous_caller_is_its_network() -> None:
    """Of an IPv6 address the first 64 bits count, or as many as the policy says; a verified caller has no address."""
    one, other, further = (asked_by("-", f"2001:db8:1:{each}") for each in ("2::1", "2:3::", "3::1"))
    as_ipv4 = asked_by("-", "::ffff:10.0.0.1")

    assert caller_tag(one, "client_ip") == caller_tag(other, "client_ip") != caller_tag(further, "client_ip")
    assert caller_tag(one, "client_ip", Prefixes(ipv6=48)) == caller_tag(further, "client_ip", Prefixes(ipv6=48))
    assert caller_tag(one, "client_ip", Prefixes(ipv6=128)) != caller_tag(other, "client_ip", Prefixes(ipv6=128))
    assert caller_tag(as_ipv4, "client_ip") == caller_tag(asked_by("-", "10.0.0.1"), "client_ip")
    assert caller_tag(asked_by("-"), "client_ip", Prefixes(24)) == caller_tag(as_ipv4, "client_ip", Prefixes(24))


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), unique=True, max_size=20))
def test_no_two_callers_collide(pairs: list[tuple[str, str]]) -> None:
    """Whatever characters an identity holds, it has a tag of its own, of one length and safe in a key."""
    descriptors = {
        ("c", caller) if caller != "-" else ("a", address): asked_by(caller, address) for caller, address in pairs
    }
    tags = {caller_tag(descriptor, "client_ip") for descriptor in descriptors.values()}

    assert len(tags) == len(descriptors)
    assert all(len(tag) == 22 and tag.replace("-", "").replace("_", "").isalnum() for tag in tags)

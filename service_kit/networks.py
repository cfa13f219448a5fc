"""Whom an address stands for: the network that one anonymous caller is taken to have for itself."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple


class Prefixes(NamedTuple):
    """How many bits of an address tell callers apart."""

    ipv4: int = 32
    ipv6: int = 64


def plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address. IPv4 in the guise of IPv6 is IPv4. None for what is no address."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


@lru_cache(maxsize=4096)
def network_of(address: str, prefixes: Prefixes) -> str:
    """The network in its one spelling: `203.0.113.9`, `203.0.113.0/24` or `2001:db8::/64`. A network stays what it is.

    What is no address is returned as it is.
    """
    parsed = plain_address(address.partition("/")[0].partition("%")[0])
    if parsed is None:
        return address
    length = prefixes.ipv4 if parsed.version == 4 else prefixes.ipv6
    network = ipaddress.ip_network((parsed, length), strict=False)
    return str(network.network_address if length == parsed.max_prefixlen else network)

"""Whom no limit holds for: verified callers by name, and whoever calls from some addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Exempt:
    """Names are PROVIDER/SUBJECT, as in a descriptor."""

    networks: tuple[Network, ...] = ()
    callers: frozenset[str] = frozenset()

    @classmethod
    def of(cls, cidrs: Iterable[str], callers: Iterable[str]) -> Exempt:
        return cls(tuple(ip_network(cidr) for cidr in cidrs), frozenset(callers))

    def has(self, caller: str, address: str) -> bool:
        """Whether nothing limits a request of this caller from this address."""
        return caller in self.callers or bool(self.networks and address and _is_in(address, self.networks))


@lru_cache(maxsize=4096)
def _is_in(address: str, networks: tuple[Network, ...]) -> bool:
    """IPv4 in the guise of IPv6 is IPv4. What is no address is nowhere."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed in network for network in networks)

"""Whom no limit holds for: verified callers by name, and whoever calls from some addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

from service_kit.networks import plain_address

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
    """What is no address is nowhere."""
    parsed = plain_address(address)
    return parsed is not None and any(parsed in network for network in networks)

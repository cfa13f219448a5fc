"""Where the gateway's own parts are: what translation needs to know beside the operator's configuration."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

AUTHZ_CLUSTER = "mgw-authz"
RATELIMIT_CLUSTER = "mgw-ratelimit"
HEALTH_CLUSTER = "mgw-health"
NO_CLUSTER = "mgw-refusal"
"""Names of our own clusters; operators' services cannot begin with `mgw-`. The last one never exists."""


_HOST_PORT = re.compile(r"(\[(?P<ipv6>[^\[\]]+)\]|(?P<name>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, order=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """`HOST:PORT`, with brackets around an IPv6 address. Raises ValueError."""
        found = _HOST_PORT.fullmatch(text.strip())
        if not found or not 0 < int(found["port"]) < 65536 or not _fits(found["ipv6"]):
            raise ValueError(f"{text!r} is not HOST:PORT")
        return cls(found["ipv6"] or found["name"], int(found["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Topology:
    """Addresses of the replicas of each part."""

    authz: tuple[Address, ...]
    ratelimit: tuple[Address, ...]
    health: tuple[Address, ...]
    """The control planes' HTTP side, which answers /health and /health/ready."""
    trusted_ca: str = "/etc/ssl/certs/ca-certificates.crt"
    """Where an Envoy finds the authorities that https services are checked against. The default is Debian's."""


def _fits(bracketed: str | None) -> bool:
    """Only an IPv6 address stands in brackets; a name has none."""
    try:
        ipaddress.IPv6Address(bracketed or "::")
    except ValueError:
        return False
    return True

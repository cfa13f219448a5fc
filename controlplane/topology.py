"""Where the gateway's own parts are: what translation needs to know beside the operator's configuration."""

from __future__ import annotations

from dataclasses import dataclass

AUTHZ_CLUSTER = "mgw-authz"
RATELIMIT_CLUSTER = "mgw-ratelimit"
HEALTH_CLUSTER = "mgw-health"
NO_CLUSTER = "mgw-refusal"
"""Names of our own clusters; operators' services cannot begin with `mgw-`. The last one never exists."""


@dataclass(frozen=True, order=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """`HOST:PORT`, with brackets around an IPv6 address. Raises ValueError."""
        host, colon, port = text.strip().rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r} is not HOST:PORT")
        return cls(host.strip("[]"), int(port))

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

"""How the control plane runs: the environment, read once and checked whole."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from controlplane.topology import Address, Topology
from service_kit import settings as kit
from service_kit.settings import variable


def addresses(text: str) -> tuple[Address, ...]:
    """Addresses, separated by commas."""
    return tuple(Address.parse(part) for part in text.split(",") if part.strip())


@dataclass(frozen=True)
class Settings:
    """The environment of the control plane. By default everything is on loopback."""

    config: Path = variable("MGW_CONFIG", kit.path, Path("deploy/config/gateway.yaml"))
    """The document that it starts from: YAML, or JSON where the name ends in `.json`."""
    state_dir: Path | None = variable("MGW_STATE_DIR", kit.path, None)
    """Where breaker overrides are kept over a restart. Without it they are not."""
    xds_listen: Address = variable("MGW_XDS_LISTEN", Address.parse, Address("127.0.0.1", 18000))
    """Where it serves xDS to Envoys and services. Inside only: it asks for no credential."""
    api_listen: Address = variable("MGW_API_LISTEN", Address.parse, Address("127.0.0.1", 18001))
    """Where it serves the operator API, health and metrics."""
    api_token: str = variable("MGW_API_TOKEN", kit.text, "", is_secret=True)
    """The operator's token with the role admin. Without it a random one is made, which nobody knows."""
    api_token_editor: str = variable("MGW_API_TOKEN_EDITOR", kit.text, "", is_secret=True)
    """A token with the role editor."""
    api_token_viewer: str = variable("MGW_API_TOKEN_VIEWER", kit.text, "", is_secret=True)
    """A token with the role viewer."""
    authz_addresses: tuple[Address, ...] = variable("MGW_AUTHZ_ADDRESSES", addresses, (Address("127.0.0.1", 18010),))
    """The authz replicas that Envoys call, separated by commas."""
    ratelimit_addresses: tuple[Address, ...] = variable(
        "MGW_RATELIMIT_ADDRESSES", addresses, (Address("127.0.0.1", 18020),)
    )
    """The rate-limit replicas that Envoys call, separated by commas."""
    health_addresses: tuple[Address, ...] = variable("MGW_HEALTH_ADDRESSES", addresses, (Address("127.0.0.1", 18001),))
    """The control planes' API addresses, which Envoys ask for `/health`."""
    internal_addresses: tuple[Address, ...] = variable("MGW_INTERNAL_ADDRESSES", addresses, ())
    """Further parts that no service's URL may point at: Envoy's admin, Redis."""
    trusted_ca: str = variable("MGW_TRUSTED_CA", kit.text, "/etc/ssl/certs/ca-certificates.crt")
    """The file in which Envoys find the authorities that https services are checked against."""
    log_level: str = variable("LOG_LEVEL", kit.one_of(*kit.LOG_LEVELS), "info")
    """`debug`, `info`, `warning` or `error`."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Raises StartFailed, in one line, with every variable that does not fit."""
        settings = kit.read(cls, environment)
        return settings if settings.api_token else replace(settings, api_token=secrets.token_urlsafe(32))

    @property
    def topology(self) -> Topology:
        """Where the gateway's own parts are."""
        return Topology(self.authz_addresses, self.ratelimit_addresses, self.health_addresses, self.trusted_ca)

    @property
    def internal(self) -> frozenset[str]:
        """Every address that belongs to the gateway itself, as `host:port`."""
        parts = (self.xds_listen, self.api_listen, *self.authz_addresses, *self.ratelimit_addresses)
        return frozenset(str(address) for address in (*parts, *self.health_addresses, *self.internal_addresses))

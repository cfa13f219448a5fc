"""How the control plane runs, from the environment: read once, checked at start."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from controlplane.topology import Address, Topology


def _addresses(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(Address.parse(part) for part in value.split(",") if part.strip())


def _address(value: Any) -> Any:
    return Address.parse(value) if isinstance(value, str) else value


OneAddress = Annotated[Address, BeforeValidator(_address)]
Addresses = Annotated[tuple[Address, ...], BeforeValidator(_addresses)]


class Settings(BaseModel):
    """Every setting's environment variable is `MGW_` and its name in capitals, unless an alias says otherwise."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, extra="ignore")

    config: Path = Path("deploy/config/gateway.yaml")
    state_dir: Path | None = None
    xds_listen: OneAddress = Address("127.0.0.1", 18000)
    api_listen: OneAddress = Address("127.0.0.1", 18001)
    api_token: SecretStr = Field(default_factory=lambda: SecretStr(secrets.token_urlsafe(32)))
    api_token_editor: SecretStr | None = None
    api_token_viewer: SecretStr | None = None
    authz_addresses: Addresses = (Address("127.0.0.1", 18010),)
    ratelimit_addresses: Addresses = (Address("127.0.0.1", 18020),)
    health_addresses: Addresses = (Address("127.0.0.1", 18001),)
    internal_addresses: Addresses = ()
    """Further parts that no service may point at: Envoy's admin, Redis."""
    trusted_ca: str = "/etc/ssl/certs/ca-certificates.crt"
    log_level: str = Field(default="info", validation_alias=AliasChoices("LOG_LEVEL", "log_level"))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Raises pydantic.ValidationError, which names what does not fit."""
        values: dict[str, Any] = {
            name: environment[f"MGW_{name.upper()}"]
            for name in cls.model_fields
            if environment.get(f"MGW_{name.upper()}")
        }
        if environment.get("LOG_LEVEL"):
            values["LOG_LEVEL"] = environment["LOG_LEVEL"]
        return cls.model_validate(values)

    @property
    def topology(self) -> Topology:
        """Where the gateway's own parts are."""
        return Topology(self.authz_addresses, self.ratelimit_addresses, self.health_addresses, self.trusted_ca)

    @property
    def internal(self) -> frozenset[str]:
        """Every address that belongs to the gateway itself, as `host:port`."""
        parts = (self.xds_listen, self.api_listen, *self.authz_addresses, *self.ratelimit_addresses)
        return frozenset(str(address) for address in (*parts, *self.health_addresses, *self.internal_addresses))

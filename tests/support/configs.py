"""Configuration documents for tests: the default one, a rich one, and small ones made from arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controlplane.config import load
from controlplane.config.model import GatewayConfig, Route, Service
from controlplane.topology import Address, Topology

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "deploy" / "config" / "gateway.yaml"
RICH = Path(__file__).with_name("rich.yaml")

TOPOLOGY = Topology(
    authz=(Address("127.0.0.1", 18010),),
    ratelimit=(Address("127.0.0.1", 18020),),
    health=(Address("127.0.0.1", 18001),),
)
WIDE_TOPOLOGY = Topology(
    authz=(Address("authz-0", 18010), Address("authz-1", 18010)),
    ratelimit=(Address("10.0.0.1", 18020), Address("10.0.0.2", 18020)),
    health=(Address("::1", 18001),),
)
ENVIRONMENT = {"SONA_URL": "http://10.1.0.9:8080"}


def default_text() -> str:
    """The document that the gateway ships with."""
    return DEFAULT.read_text(encoding="utf-8")


def rich_text() -> str:
    """A document that uses everything there is."""
    return RICH.read_text(encoding="utf-8")


def default_config() -> GatewayConfig:
    """The default document, with nothing in the environment."""
    return load.load(default_text(), {})[1]


def rich_config() -> GatewayConfig:
    """The rich document."""
    return load.load(rich_text(), ENVIRONMENT)[1]


def values(**changes: Any) -> dict[str, Any]:
    """The smallest document that is accepted, as values, with top-level keys replaced."""
    return {
        "version": 1,
        "auth": {"providers": [{"name": "platform", "algorithms": ["HS256"], "secret": "${JWT_SECRET}"}]},
        "limits": {"tiers": {tier: {"rps": 1, "rpm": 10, "burst": 2} for tier in ("anonymous", "free")}},
        "services": [{"name": "demo", "endpoints": [{"url": "http://10.0.0.1:8081"}]}],
        "routes": [{"name": "all", "match": {"path": "/all", "methods": ["GET"]}, "service": "demo"}],
    } | changes


def a_config(**changes: Any) -> GatewayConfig:
    """A small configuration, with top-level keys replaced by models or values."""
    return GatewayConfig.model_validate(values(**changes))


def a_route(name: str = "all", path: str = "/all", methods: tuple[str, ...] = ("GET",), **changes: Any) -> Route:
    """A route to the service `demo`."""
    given = {"name": name, "match": {"path": path, "methods": list(methods)}, "service": "demo"}
    return Route.model_validate(given | changes)


def a_service(name: str = "demo", *urls: str, **changes: Any) -> Service:
    """A service with endpoints of weight 1."""
    endpoints = [{"url": url} for url in urls or ("http://10.0.0.1:8081",)]
    return Service.model_validate({"name": name, "endpoints": endpoints} | changes)

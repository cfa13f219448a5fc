"""Envoy's bootstrap for a local run: `envoy/bootstrap.yaml` with this run's node, addresses and ports."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from controlplane.local.keysets import held_secrets
from controlplane.local.plan import Part, Plan
from controlplane.local.resources import bootstrap_template


def write_bootstraps(plan: Plan, config: Path, heap_bytes: int, providers: Collection[str] = ()) -> None:
    """Write D/envoy-N/bootstrap.json for every Envoy of the plan. Each has the secrets of these providers, and a heap
    of at most `heap_bytes`.
    """
    control_planes = [part.address for part in plan.parts if part.name == "controlplane"]
    envoys = [part for part in plan.parts if part.name == "envoy"]
    template = bootstrap_template().read_text() if envoys else ""
    most = max_connections(config)
    held = held_secrets(config, providers)
    for envoy in envoys:
        folder = plan.directory.state(envoy.id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = bootstrap(template, envoy, control_planes, heap_bytes, most)
        document["node"]["metadata"]["secrets"] = held
        (folder / "bootstrap.json").write_text(json.dumps(document, indent=2))


def bootstrap(
    template: str, envoy: Part, control_planes: Sequence[str], heap_bytes: int, most: int | None = None
) -> dict[str, Any]:
    """The template with what differs from Envoy to Envoy filled in."""
    document: dict[str, Any] = _load(template)
    host, port = _split(envoy.address)
    document["node"] |= {"id": envoy.id, "metadata": {"listener": {"host": host, "port": port}}}
    assert envoy.admin is not None
    document["admin"]["address"] = _address(envoy.admin.removeprefix("http://"))
    cluster = next(cluster for cluster in document["static_resources"]["clusters"] if cluster["name"] == "xds")
    cluster["type"] = "STATIC"
    cluster["load_assignment"]["endpoints"] = [
        {"lb_endpoints": [{"endpoint": {"address": _address(address)}} for address in control_planes]}
    ]
    heap, connections = (each["typed_config"] for each in document["overload_manager"]["resource_monitors"])
    heap["max_heap_size_bytes"] = heap_bytes
    if most is not None:
        connections["max_active_downstream_connections"] = max(most, connections["max_active_downstream_connections"])
    return document


def max_connections(config: Path) -> int | None:
    """The configuration's cap on client connections; None where it does not say one in so many words."""
    try:
        most = _load(config.read_text())["listener"]["max_connections"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
        return None
    return most if isinstance(most, int) and most > 0 else None


def _load(text: str) -> Any:
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the C one is ten times as fast


def _address(address: str) -> dict[str, Any]:
    host, port = _split(address)
    return {"socket_address": {"address": host, "port_value": port}}


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)

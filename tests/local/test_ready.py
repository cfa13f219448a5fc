"""What a part still has to acknowledge."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from controlplane.local.plan import Part
from controlplane.local.ready import missing


def a_part(name: str) -> Part:
    return Part(name, 0, (), {}, "127.0.0.1:1", Path("/log"))


def a_type(name: str, sent: str = "1", acknowledged: str | None = "1", rejected: Any = None) -> dict[str, Any]:
    return {
        "type_url": f"type.googleapis.com/x.{name}",
        "version_sent": sent,
        "version_acknowledged": acknowledged,
        "rejected": rejected,
    }


THREE = [a_type("Cluster"), a_type("Listener"), a_type("RouteConfiguration")]


@pytest.mark.parametrize(
    ("name", "types", "says"),
    [
        ("envoy", THREE, None),
        ("authz", [a_type("AuthzPolicy")], None),
        ("redis", None, None),
        ("envoy", None, "has not asked"),
        ("authz", [], "has not asked"),
        ("envoy", THREE[:2], "no RouteConfiguration yet"),
        ("envoy", [*THREE[:2], a_type("RouteConfiguration", "2", "1")], "has not acknowledged .*RouteConfiguration"),
        ("ratelimit", [a_type("RatelimitPolicy", "1", None)], "has not acknowledged"),
        ("ratelimit", [a_type("RatelimitPolicy", "", "")], "has not acknowledged"),
        ("envoy", [a_type("Cluster", "1", None, "no such thing")], "refused .*Cluster: no such thing"),
    ],
)
def test_ready_is_every_type_acknowledged(name: str, types: list[dict[str, Any]] | None, says: str | None) -> None:
    """A node is ready when each type's last version is acknowledged; Envoy needs clusters, listeners and routes."""
    nodes = {} if types is None else {f"{name}-0": {"id": f"{name}-0", "types": types}}

    waits_for = missing(a_part(name), nodes)

    assert (waits_for is None) == (says is None)
    assert re.search(says or "", waits_for or "")

"""What every node was told and said, as operators see it."""

from __future__ import annotations

from controlplane.xds.resources import CLUSTER
from controlplane.xds.status import NodeStatus
from controlplane.xds.stream import Watch
from tests.support.operator_api import Api


async def test_nodes(api: Api) -> None:
    """Per node and type: the version that was sent, the one that is acknowledged, and what was rejected and why."""
    stream = object()
    api.registry.connected(stream, NodeStatus("envoy-0", "media-gateway", "envoy"))
    api.registry.record(stream, {CLUSTER: Watch(sent="v2", acknowledged="v1", rejected="v2", error="no such thing")})

    (node,) = (await api.call("GET", "/v1/nodes")).json()["nodes"]

    assert node["id"] == "envoy-0"
    assert node["types"] == [
        {
            "type_url": CLUSTER,
            "version_sent": "v2",
            "version_acknowledged": "v1",
            "rejected": {"version": "v2", "error": "no such thing"},
        }
    ]

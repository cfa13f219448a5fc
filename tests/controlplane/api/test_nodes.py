"""What every node was told and said, as operators see it."""

from __future__ import annotations

from controlplane.xds.resources import CLUSTER, LISTENER
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


async def test_without_a_node_the_list_is_empty(api: Api) -> None:
    """Nobody is connected: that is an answer, and no error."""
    assert (await api.call("GET", "/v1/nodes", token="a-viewer")).json() == {"nodes": []}


async def test_nodes_and_types_have_an_order(api: Api) -> None:
    """Nodes come by id and types by name, whenever they came; each stream of a node is one entry."""
    for name in ("envoy-1", "authz-0", "envoy-1"):
        stream = object()
        api.registry.connected(stream, NodeStatus(name, f"cluster of {name}", "mgw"))
        api.registry.record(stream, {LISTENER: Watch(sent="1", acknowledged="1"), CLUSTER: Watch(sent="1")})

    nodes = (await api.call("GET", "/v1/nodes")).json()["nodes"]

    assert [(node["id"], node["cluster"], node["agent"]) for node in nodes] == [
        ("authz-0", "cluster of authz-0", "mgw"),
        ("envoy-1", "cluster of envoy-1", "mgw"),
        ("envoy-1", "cluster of envoy-1", "mgw"),
    ]
    assert [[each["type_url"] for each in node["types"]] for node in nodes] == [[CLUSTER, LISTENER]] * 3


async def test_what_was_not_rejected_is_null(api: Api) -> None:
    """A version that waits for its answer has none acknowledged, and none rejected."""
    stream = object()
    api.registry.connected(stream, NodeStatus("envoy-0", "", "envoy"))
    api.registry.record(stream, {CLUSTER: Watch(sent="v1")})

    (node,) = (await api.call("GET", "/v1/nodes")).json()["nodes"]

    (only,) = node["types"]
    assert (only["version_sent"], only["version_acknowledged"], only["rejected"]) == ("v1", "", None)


async def test_a_node_that_left_is_not_listed(api: Api) -> None:
    """The list is of those that are connected now."""
    api.registry.connected("stream", NodeStatus("envoy-0", "", "envoy"))
    api.registry.disconnected("stream")

    assert (await api.call("GET", "/v1/nodes")).json() == {"nodes": []}

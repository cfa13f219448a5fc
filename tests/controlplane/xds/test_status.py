"""The operator's view of the streams."""

from __future__ import annotations

import pytest

from controlplane.xds.resources import CLUSTER, LISTENER, ROUTE
from controlplane.xds.snapshot import Snapshot
from controlplane.xds.status import NodeRegistry, NodeStatus, TypeStatus
from controlplane.xds.stream import Request, Stream, Watch


def a_node(name: str) -> NodeStatus:
    return NodeStatus(name, "media-gateway", "envoy")


def names(registry: NodeRegistry) -> list[str]:
    return [node.id for node in registry.nodes()]


@pytest.mark.parametrize(
    ("sent", "acknowledged", "settled"),
    [("2", "2", True), ("2", "1", False), ("2", "", False), ("", "", True)],
)
def test_a_type_is_settled_when_the_node_runs_what_it_was_sent(sent: str, acknowledged: str, settled: bool) -> None:
    """Nothing is settled by an older acknowledgement, nor by none; where nothing was sent nothing is missing."""
    assert TypeStatus(CLUSTER, sent, acknowledged).settled is settled


def test_nodes_come_in_the_order_of_their_ids() -> None:
    """Whenever they connected."""
    registry = NodeRegistry()
    for name in ("envoy-1", "authz-0", "envoy-0"):
        registry.connected(object(), a_node(name))

    assert names(registry) == ["authz-0", "envoy-0", "envoy-1"]


def test_an_old_stream_that_ends_takes_no_new_one_along() -> None:
    """A node that reconnects before its old stream is known to be dead is listed twice, and then once."""
    registry = NodeRegistry()
    old, new = object(), object()
    registry.connected(old, a_node("envoy-0"))
    registry.connected(new, a_node("envoy-0"))
    registry.record(new, {CLUSTER: Watch(sent="1", acknowledged="1")})
    assert names(registry) == ["envoy-0", "envoy-0"]

    registry.disconnected(old)

    (left,) = registry.nodes()
    assert left.types[CLUSTER].settled


def test_a_stream_that_never_said_who_it_is() -> None:
    """It is not listed, and nothing breaks when it says something or ends."""
    registry = NodeRegistry()
    registry.record("stranger", {CLUSTER: Watch(sent="1")})
    registry.disconnected("stranger")

    assert registry.nodes() == []


def test_a_stream_that_ended_says_nothing_more() -> None:
    """What is recorded after its end brings nobody back."""
    registry = NodeRegistry()
    registry.connected("stream", a_node("envoy-0"))
    registry.disconnected("stream")
    registry.disconnected("stream")
    registry.record("stream", {CLUSTER: Watch(sent="1")})

    assert registry.nodes() == []


def test_how_far_each_type_has_come() -> None:
    """Of a real stream: one type acknowledged, one rejected in the node's own words, one not answered yet."""
    kinds = (CLUSTER, LISTENER, ROUTE)
    stream = Stream(Snapshot({kind: {"a": kind.encode()} for kind in kinds}))
    sent = {kind: stream.on_request(Request(kind, names=frozenset({"a"})))[0] for kind in kinds}
    for kind, error in ((CLUSTER, None), (LISTENER, "no such filter")):
        stream.on_request(Request(kind, nonce=sent[kind].nonce, names=frozenset({"a"}), error=error))
    registry = NodeRegistry()
    registry.connected(stream, a_node("envoy-0"))

    registry.record(stream, stream.watches)

    versions = {kind: sent[kind].version for kind in kinds}
    (node,) = registry.nodes()
    assert node.types == {
        CLUSTER: TypeStatus(CLUSTER, versions[CLUSTER], versions[CLUSTER]),
        LISTENER: TypeStatus(LISTENER, versions[LISTENER], "", versions[LISTENER], "no such filter"),
        ROUTE: TypeStatus(ROUTE, versions[ROUTE], ""),
    }


def test_a_record_stays_as_it_was_when_the_stream_goes_on() -> None:
    """What somebody looks at does not change under them, and types that are no longer watched are gone."""
    registry = NodeRegistry()
    registry.connected("stream", a_node("envoy-0"))
    watch = Watch(sent="1")
    registry.record("stream", {CLUSTER: watch, ROUTE: Watch(sent="1")})
    (seen,) = [node.types for node in registry.nodes()]

    watch.sent, watch.error = "2", "no"
    registry.record("stream", {CLUSTER: watch})

    assert (seen[CLUSTER].version_sent, seen[CLUSTER].error) == ("1", None)
    assert set(registry.nodes()[0].types) == {CLUSTER}

"""The discovery server over real gRPC: a node that asks, is told, agrees or objects, and leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from controlplane import protos
from controlplane.protos import base, discovery, load_stats, metrics_service, rtds, struct
from controlplane.topology import Address
from controlplane.translate import assemble
from controlplane.xds.cache import Group, SnapshotCache
from controlplane.xds.resources import CLUSTER, ENDPOINT, LISTENER, RATELIMIT_POLICY, RUNTIME
from controlplane.xds.runtime import LAYER, RuntimeLayers
from controlplane.xds.server import DISCOVERY_SERVICE, LOAD_SERVICE, METRICS_SERVICE, DiscoveryServer
from controlplane.xds.snapshot import Snapshot
from controlplane.xds.status import NodeRegistry
from tests.support.configs import TOPOLOGY, a_config
from tests.support.waiting import until


def a_snapshot(number: int, kind: str = CLUSTER) -> Snapshot:
    resource = base.Node(id=f"resource-{number}")
    return Snapshot({kind: {"a": protos.any_of(resource).SerializeToString()}})


class ANode:
    """A node on a stream of its own."""

    def __init__(self, channel: grpc.aio.Channel, node_id: str, metadata: dict[str, Any] | None = None) -> None:
        self.call = channel.stream_stream(
            f"/{DISCOVERY_SERVICE}/StreamAggregatedResources",
            request_serializer=discovery.DiscoveryRequest.SerializeToString,
            response_deserializer=discovery.DiscoveryResponse.FromString,
        )()
        self.node: base.Node | None = base.Node(id=node_id, cluster="tests", metadata=struct(metadata or {}))

    async def asks(self, kind: str, **fields: Any) -> None:
        """Sends a request; the node says who it is once."""
        await self.call.write(discovery.DiscoveryRequest(type_url=kind, node=self.node, **fields))
        self.node = None

    async def hears(self) -> Any:
        """The next response."""
        return await asyncio.wait_for(self.call.read(), 5)

    async def acks(self, response: Any, error: str | None = None, names: tuple[str, ...] = ()) -> None:
        request = discovery.DiscoveryRequest(
            type_url=response.type_url,
            resource_names=names,
            version_info="" if error else response.version_info,
            response_nonce=response.nonce,
        )
        if error:
            request.error_detail.message = error
        await self.call.write(request)


class Heard:
    """What Envoys reported."""

    def __init__(self) -> None:
        self.metrics: list[tuple[str, list[str]]] = []
        self.silent: list[str] = []
        self.loads: list[tuple[str, list[str]]] = []
        self.ended: list[str] = []
        self.seconds = 0.25
        self.paced = asyncio.Event()

    def on_metrics(self, node: str, families: Any) -> None:
        self.metrics.append((node, [family.name for family in families]))

    def on_silence(self, node: str) -> None:
        self.silent.append(node)

    def on_load(self, node: str, message: Any) -> None:
        self.loads.append((node, [each.cluster_name for each in message.cluster_stats]))

    def on_load_end(self, node: str) -> None:
        self.ended.append(node)

    def report_seconds(self) -> float:
        return self.seconds

    def pace_change(self) -> asyncio.Event:
        return self.paced

    def haste(self, seconds: float) -> None:
        self.seconds = seconds
        paced, self.paced = self.paced, asyncio.Event()
        paced.set()


class Running:
    """A server with what it serves from and what it keeps."""

    def __init__(self) -> None:
        self.cache = SnapshotCache()
        self.registry = NodeRegistry()
        self.runtime = RuntimeLayers()
        self.reports = Heard()
        self.server = DiscoveryServer(self.cache, self.registry, self.runtime, self.reports)
        self.channel: Any = None

    def node(self, node_id: str = "envoy-0", metadata: dict[str, Any] | None = None) -> ANode:
        return ANode(self.channel, node_id, metadata)

    def status(self, kind: str = CLUSTER) -> Any:
        (node,) = self.registry.nodes()
        return node.types[kind]


@pytest.fixture
async def running(tmp_path: Any) -> AsyncIterator[Running]:
    running = Running()
    address = f"unix:{tmp_path}/x"
    await running.server.start(address)
    async with grpc.aio.insecure_channel(address) as running.channel:
        yield running
    await running.server.stop(0)


async def test_a_node_is_told_and_told_again(running: Running) -> None:
    """The current snapshot answers the first request; the next one is pushed without being asked for."""
    running.cache.set(lambda _group: a_snapshot(1))
    node = running.node()
    await node.asks(CLUSTER)
    first = await node.hears()
    await node.acks(first)
    await until(lambda: running.status().version_acknowledged == first.version_info)

    running.cache.set(lambda _group: a_snapshot(2))
    second = await node.hears()

    assert first.resources[0].type_url.endswith("Node")
    assert [each.version_info for each in (first, second)] == [a_snapshot(n).version(CLUSTER) for n in (1, 2)]
    assert first.nonce != second.nonce
    assert (running.status().version_sent, running.status().settled) == (second.version_info, False)


async def test_a_node_waits_for_the_first_configuration(running: Running) -> None:
    """Without a configuration nothing is sent; with the first one everything that was asked for is."""
    node = running.node()
    await node.asks(CLUSTER)
    await until(running.registry.nodes)

    running.cache.set(lambda _group: a_snapshot(1))

    assert (await node.hears()).version_info == a_snapshot(1).version(CLUSTER)


async def test_a_nack_is_kept_in_the_nodes_own_words(running: Running) -> None:
    """The registry says which node refused which version and why, and the server does not insist."""
    running.cache.set(lambda _group: a_snapshot(1))
    node = running.node()
    await node.asks(CLUSTER)
    good = await node.hears()
    await node.acks(good)
    await until(lambda: running.status().settled)
    running.cache.set(lambda _group: a_snapshot(2))
    bad = await node.hears()
    await node.acks(bad, error="no such cluster")
    await until(lambda: running.status().error)

    running.cache.set(lambda _group: a_snapshot(3))
    after = await node.hears()

    status = running.status()
    assert (status.rejected, status.error) == (bad.version_info, "no such cluster")
    assert status.version_acknowledged == good.version_info
    assert after.version_info == a_snapshot(3).version(CLUSTER)


async def test_a_node_that_leaves_is_forgotten(running: Running) -> None:
    """Only connected nodes are listed, by id; a second stream of one node is an entry of its own."""
    nodes = [running.node(name) for name in ("envoy-1", "envoy-0", "envoy-0")]
    for node in nodes:
        await node.asks(CLUSTER)
    await until(lambda: len(running.registry.nodes()) == 3)
    listed = [node.id for node in running.registry.nodes()]

    nodes[2].call.cancel()
    await until(lambda: len(running.registry.nodes()) == 2)
    await nodes[0].call.done_writing()

    assert listed == ["envoy-0", "envoy-0", "envoy-1"]
    await until(lambda: [node.id for node in running.registry.nodes()] == ["envoy-0"])


@pytest.mark.parametrize(
    ("metadata", "listener"),
    [
        ({}, ("0.0.0.0", 8080)),
        ({"listener": {"host": "127.0.0.1", "port": 9000}}, ("127.0.0.1", 9000)),
        ({"listener": {"port": 9000}}, ("0.0.0.0", 9000)),
        ({"listener": {"port": "9000"}}, ("0.0.0.0", 9000)),
        ({"listener": {"port": "many"}}, ("0.0.0.0", 8080)),
        ({"listener": {"port": 1e9}}, ("0.0.0.0", 8080)),
        ({"listener": {"port": None}}, ("0.0.0.0", 8080)),
        ({"listener": "127.0.0.1:9000"}, ("0.0.0.0", 8080)),
        ({"listener": [9000]}, ("0.0.0.0", 8080)),
    ],
)
async def test_an_envoy_says_where_it_listens(
    running: Running, metadata: dict[str, Any], listener: tuple[str, int]
) -> None:
    """The listener stands where the node's metadata wants it, and where the document does if that makes no sense."""

    def make(group: Group) -> Snapshot:
        return assemble.snapshot(a_config(), TOPOLOGY, Address(*group.listener) if group.listener else None)

    running.cache.set(make)
    node = running.node(metadata=metadata)
    await node.asks(LISTENER)

    (resource,) = (await node.hears()).resources

    found = protos.listener.Listener.FromString(resource.value).address.socket_address
    assert (found.address, found.port_value) == listener


async def test_a_star_is_everything(running: Running) -> None:
    """The newer spelling of a wildcard subscription means the same."""
    running.cache.set(lambda _group: a_snapshot(1))
    node = running.node()
    await node.asks(CLUSTER, resource_names=["*"])

    assert len((await node.hears()).resources) == 1


async def test_types_share_a_stream(running: Running) -> None:
    """Several types on one stream are watched each for itself."""
    running.cache.set(lambda _group: Snapshot({**a_snapshot(1).resources, **a_snapshot(1, ENDPOINT).resources}))
    node = running.node()
    await node.asks(CLUSTER)
    await node.asks(ENDPOINT, resource_names=["a"])

    assert {(await node.hears()).type_url for _ in range(2)} == {CLUSTER, ENDPOINT}


async def test_a_service_gets_its_policy(running: Running) -> None:
    """A policy is one resource of its own type."""
    running.cache.set(lambda _group: assemble.snapshot(a_config(), TOPOLOGY))
    node = running.node("ratelimit-0")
    await node.asks(RATELIMIT_POLICY)

    response = await node.hears()

    assert response.type_url == RATELIMIT_POLICY
    assert [resource.type_url for resource in response.resources] == ["type.googleapis.com/xds.type.v3.TypedStruct"]


async def test_a_stream_that_ends_before_it_says_anything(running: Running) -> None:
    """Nothing happens, and nothing is kept."""
    node = running.node()
    await node.call.done_writing()

    assert await node.hears() is grpc.aio.EOF
    assert running.registry.nodes() == []


async def test_many_nodes_are_told_at_once(running: Running) -> None:
    """Each of many nodes hears of a change."""
    nodes = [running.node(f"envoy-{number:02}") for number in range(20)]
    for node in nodes:
        await node.asks(CLUSTER)
    await until(lambda: len(running.registry.nodes()) == 20)

    running.cache.set(lambda _group: a_snapshot(1))

    versions = {response.version_info for response in await asyncio.gather(*(node.hears() for node in nodes))}
    assert versions == {a_snapshot(1).version(CLUSTER)}


async def test_envoys_metrics_reach_whoever_wants_them(running: Running) -> None:
    """The first message of a metrics stream says who speaks; all are handed on, and so is the stream's end."""
    call = running.channel.stream_unary(
        f"/{METRICS_SERVICE}/StreamMetrics",
        request_serializer=metrics_service.StreamMetricsMessage.SerializeToString,
        response_deserializer=metrics_service.StreamMetricsResponse.FromString,
    )()
    first = metrics_service.StreamMetricsMessage()
    first.identifier.node.id = "envoy-0"
    first.envoy_metrics.add(name="cluster.membership_total")
    await call.write(first)
    await call.write(metrics_service.StreamMetricsMessage())
    await until(lambda: len(running.reports.metrics) == 2)

    with contextlib.suppress(asyncio.CancelledError):
        call.cancel()
    await until(lambda: running.reports.silent == ["envoy-0"])

    assert running.reports.metrics == [("envoy-0", ["cluster.membership_total"]), ("envoy-0", [])]


async def test_envoys_report_load_as_often_as_is_wanted(running: Running) -> None:
    """An Envoy that opens a stream of load reports is told how often, and again when that changes."""
    call = running.channel.stream_stream(
        f"/{LOAD_SERVICE}/StreamLoadStats",
        request_serializer=load_stats.LoadStatsRequest.SerializeToString,
        response_deserializer=load_stats.LoadStatsResponse.FromString,
    )()
    first = load_stats.LoadStatsRequest(node=base.Node(id="envoy-0"))
    first.cluster_stats.add(cluster_name="demo")
    await call.write(first)
    calm = await call.read()
    running.reports.haste(0.01)
    hasty = await call.read()
    await call.write(load_stats.LoadStatsRequest())
    await until(lambda: len(running.reports.loads) == 2)
    await call.done_writing()
    await until(lambda: running.reports.ended == ["envoy-0"])

    assert [each.load_reporting_interval.ToMilliseconds() for each in (calm, hasty)] == [250, 10]
    assert calm.send_all_clusters
    assert running.reports.loads == [("envoy-0", ["demo"]), ("envoy-0", [])]


def the_layer(response: Any) -> tuple[dict[str, Any], float | None]:
    """A runtime layer, and how long it lives."""
    (resource,) = response.resources
    if resource.type_url == RUNTIME:
        return dict(rtds.Runtime.FromString(resource.value).layer), None
    wrapped = discovery.Resource.FromString(resource.value)
    layer = dict(rtds.Runtime.FromString(wrapped.resource.value).layer)
    return layer, wrapped.ttl.ToTimedelta().total_seconds()


async def test_a_layer_is_each_nodes_own_and_has_an_end(running: Running) -> None:
    """A node with nothing to say to it has an empty layer for good; one that is capped has to hear of it again."""
    nodes = [running.node("envoy-0"), running.node("envoy-1")]
    for node in nodes:
        await node.asks(RUNTIME, resource_names=[LAYER])
    empty = [await node.hears() for node in nodes]
    for node, response in zip(nodes, empty, strict=True):
        await node.acks(response, names=(LAYER,))
    await until(lambda: running.runtime.is_confirmed("envoy-0") and running.runtime.is_confirmed("envoy-1"))

    running.runtime.set({"envoy-1": {"cap": 3}})
    capped = await nodes[1].hears()
    unconfirmed = running.runtime.is_confirmed("envoy-1")
    await nodes[1].acks(capped, names=(LAYER,))
    await until(lambda: running.runtime.is_confirmed("envoy-1"))
    running.runtime.renew()
    again = await nodes[1].hears()
    running.runtime.set({"envoy-0": {"cap": 0}})
    other = await nodes[0].hears()

    assert [the_layer(response) for response in empty] == [({}, None), ({}, None)]
    assert the_layer(capped) == the_layer(again) == ({"cap": 3}, 3.0)
    assert capped.version_info == again.version_info
    assert not unconfirmed
    assert the_layer(other) == ({"cap": 0}, 3.0)  # and nothing came before it: the renewal was not for this node


async def test_a_node_that_comes_back_is_told_its_layer_anyway(running: Running) -> None:
    """What it says it runs may have expired meanwhile, which its version does not tell."""
    running.runtime.set({"envoy-0": {"cap": 0}})
    version = running.runtime.snapshot("envoy-0").version(RUNTIME)
    node = running.node("envoy-0")
    await node.asks(RUNTIME, resource_names=[LAYER], version_info=version)

    assert the_layer(await node.hears()) == ({"cap": 0}, 3.0)


async def test_an_address_that_is_taken() -> None:
    """A server that cannot listen says so at start."""
    with pytest.raises(RuntimeError):
        await Running().server.start("256.0.0.1:1")

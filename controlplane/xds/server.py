"""The gRPC skin over streams: discovery for Envoys and services, and what Envoys report: metrics and load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

import grpc
import structlog

from controlplane import metrics
from controlplane.protos import discovery, duration, load_stats, message_to_dict, metrics_service, prometheus_metrics
from controlplane.xds.cache import Group, SnapshotCache
from controlplane.xds.resources import RUNTIME, short
from controlplane.xds.runtime import RuntimeLayers
from controlplane.xds.status import NodeRegistry, NodeStatus
from controlplane.xds.stream import Request, Response, Stream

log = structlog.get_logger()

DISCOVERY_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METRICS_SERVICE = "envoy.service.metrics.v3.MetricsService"
LOAD_SERVICE = "envoy.service.load_stats.v3.LoadReportingService"

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MetricFamilies = Iterable[prometheus_metrics.MetricFamily]


class Reports(Protocol):
    """Who is told what Envoys report, and says how often they should."""

    def on_metrics(self, node: str, families: MetricFamilies) -> None: ...

    def on_silence(self, node: str) -> None:
        """A stream of metrics ended."""

    def on_load(self, node: str, message: load_stats.LoadStatsRequest) -> None: ...

    def on_load_end(self, node: str) -> None: ...

    def report_seconds(self) -> float: ...

    def pace_change(self) -> asyncio.Event:
        """An event that is set once `report_seconds` says something else."""


class MetricsReader(Protocol):
    """Who else reads Envoys' metrics."""

    def on_metrics(self, node: str, families: MetricFamilies) -> None: ...


class DiscoveryServer:
    """Serves every node from the cache and keeps the registry true."""

    def __init__(
        self,
        cache: SnapshotCache,
        registry: NodeRegistry,
        runtime: RuntimeLayers,
        reports: Reports,
        readers: Sequence[MetricsReader] = (),
    ) -> None:
        self._cache = cache
        self._registry = registry
        self._runtime = runtime
        self._reports = reports
        self._readers = (reports, *readers)
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> None:
        """Listen on `host:port`. Raises RuntimeError where the address cannot be had."""
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.keepalive_time_ms", 10_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
                ("grpc.http2.max_ping_strikes", 0),
            ]
        )
        server.add_generic_rpc_handlers((self._discovery_handler(), self._metrics_handler(), self._load_handler()))
        if not server.add_insecure_port(address):
            raise RuntimeError(f"cannot listen on {address}")
        await server.start()
        self._server = server

    async def stop(self, grace_seconds: float) -> None:
        """Close every stream; nodes keep what they have and try to reconnect."""
        if self._server is not None:
            await self._server.stop(grace_seconds)

    def _discovery_handler(self) -> grpc.GenericRpcHandler:
        method = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=discovery.DiscoveryRequest.FromString,
            response_serializer=discovery.DiscoveryResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(DISCOVERY_SERVICE, {"StreamAggregatedResources": method})

    def _metrics_handler(self) -> grpc.GenericRpcHandler:
        method = grpc.stream_unary_rpc_method_handler(
            self._metrics,
            request_deserializer=metrics_service.StreamMetricsMessage.FromString,
            response_serializer=metrics_service.StreamMetricsResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(METRICS_SERVICE, {"StreamMetrics": method})

    def _load_handler(self) -> grpc.GenericRpcHandler:
        method = grpc.stream_stream_rpc_method_handler(
            self._load,
            request_deserializer=load_stats.LoadStatsRequest.FromString,
            response_serializer=load_stats.LoadStatsResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(LOAD_SERVICE, {"StreamLoadStats": method})

    async def _stream(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        session = _Session(self._cache, self._registry, self._runtime)
        try:
            async with aclosing(session.responses(requests)) as responses:
                async for response in responses:
                    yield response
        finally:
            self._registry.disconnected(session)
            log.info("xds.disconnected", node=session.node_id)

    async def _metrics(self, messages: AsyncIterator[Any], _context: Any) -> Any:
        node = ""
        try:
            async for message in messages:
                node = message.identifier.node.id or node
                for reader in self._readers:
                    reader.on_metrics(node, message.envoy_metrics)
        finally:
            self._reports.on_silence(node)
        return metrics_service.StreamMetricsResponse()

    async def _load(self, messages: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        """Reports in; out goes how often to send them, at first and whenever that changes."""
        node = ""
        reading = asyncio.ensure_future(_next(messages))
        pacing: asyncio.Future[Any] | None = None
        try:
            while True:
                if pacing is None or pacing.done():
                    pacing = asyncio.ensure_future(self._reports.pace_change().wait())
                    yield load_stats.LoadStatsResponse(
                        send_all_clusters=True, load_reporting_interval=duration(self._reports.report_seconds())
                    )
                await asyncio.wait({reading, pacing}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    message = reading.result()
                    if message is None:
                        return
                    reading = asyncio.ensure_future(_next(messages))
                    node = message.node.id or node
                    self._reports.on_load(node, message)
        finally:
            reading.cancel()
            if pacing is not None:
                pacing.cancel()
            if node:
                self._reports.on_load_end(node)


class _Session:
    """One stream: waits for the node's next request or the next snapshot, whichever comes first."""

    def __init__(self, cache: SnapshotCache, registry: NodeRegistry, runtime: RuntimeLayers) -> None:
        self._cache = cache
        self._registry = registry
        self._layers = runtime
        self._group = Group()
        self._stream = Stream()
        self._runtime = Stream()
        """Runtime layers are each node's own, and change far more often than snapshots."""
        self.node_id = ""

    async def responses(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        first = await anext(aiter(requests), None)
        if first is None:
            return
        self._introduce(first.node)
        changed = self._cache.next_change()
        self._stream = Stream(self._cache.snapshot(self._group))
        self._runtime = Stream(self._layers.snapshot(self.node_id))
        for response in self._answer(first):
            yield response
        asking = asyncio.ensure_future(_next(requests))
        changing = asyncio.ensure_future(changed.wait())
        capping = asyncio.ensure_future(self._layers.next_change().wait())
        try:
            while True:
                await asyncio.wait({asking, changing, capping}, return_when=asyncio.FIRST_COMPLETED)
                if capping.done():
                    capping = asyncio.ensure_future(self._layers.next_change().wait())
                    for response in self._push_runtime():
                        yield response
                if changing.done():
                    changing = asyncio.ensure_future(self._cache.next_change().wait())
                    for response in self._push():
                        yield response
                if asking.done():
                    message = asking.result()
                    if message is None:
                        return
                    asking = asyncio.ensure_future(_next(requests))
                    for response in self._answer(message):
                        yield response
        finally:
            asking.cancel()
            changing.cancel()
            capping.cancel()

    def _introduce(self, node: Any) -> None:
        self.node_id = node.id
        self._group = _group_of(node)
        self._registry.connected(self, NodeStatus(node.id, node.cluster, node.user_agent_name or "mgw"))
        log.info("xds.connected", node=node.id)

    def _answer(self, message: Any) -> list[Any]:
        request = _request(message)
        if request.error is not None:
            metrics.NACKS.labels(type=short(request.type_url)).inc()
            log.error("xds.rejected", node=self.node_id, type=short(request.type_url), error=request.error)
        if request.type_url != RUNTIME:
            return self._emit(self._stream.on_request(request))
        if not request.nonce:
            request = replace(request, version="")  # what it says it runs may have come to its end since
        responses = self._runtime.on_request(request)
        self._layers.acknowledged(self.node_id, self._runtime.watches[RUNTIME].acknowledged)
        return self._emit(responses)

    def _push(self) -> list[Any]:
        return self._emit(self._stream.on_snapshot(self._cache.snapshot(self._group)))

    def _push_runtime(self) -> list[Any]:
        responses = self._runtime.on_snapshot(self._layers.snapshot(self.node_id))
        if not responses and self._layers.says_something(self.node_id):
            responses = self._runtime.renew(RUNTIME)
        return self._emit(responses)

    def _emit(self, responses: list[Response]) -> list[Any]:
        self._registry.record(self, {**self._stream.watches, **self._runtime.watches})
        return [_message(response) for response in responses]


async def _next(requests: AsyncIterator[Any]) -> Any:
    return await anext(aiter(requests), None)


def _group_of(node: Any) -> Group:
    metadata = message_to_dict(node.metadata) if node.HasField("metadata") else {}
    secrets = metadata.get("secrets")
    held = frozenset(map(str, secrets)) if isinstance(secrets, list) else frozenset[str]()
    return Group(_listener_of(metadata.get("listener")), held)


def _listener_of(wanted: object) -> tuple[str, int] | None:
    """Where the node wants its listener; None if it says nothing that makes sense: where the document says, then."""
    try:
        host, port = str(wanted.get("host", "0.0.0.0")), int(wanted["port"])  # type: ignore[attr-defined,index] # caught
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
        return None
    return (host, port) if 0 < port < 65536 else None


def _request(message: Any) -> Request:
    return Request(
        type_url=message.type_url,
        version=message.version_info,
        nonce=message.response_nonce,
        names=frozenset(message.resource_names) - {"*"},
        error=message.error_detail.message if message.HasField("error_detail") else None,
    )


def _message(response: Response) -> Any:
    message = discovery.DiscoveryResponse(
        type_url=response.type_url, version_info=response.version, nonce=response.nonce
    )
    for resource in response.resources:
        message.resources.add().ParseFromString(resource)
    return message

"""The gRPC skin over streams: aggregated discovery for Envoys and services, and Envoy's metrics stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Any

import grpc
import structlog

from controlplane import metrics
from controlplane.protos import discovery, message_to_dict, metrics_service, prometheus_metrics
from controlplane.xds.cache import Group, SnapshotCache
from controlplane.xds.resources import short
from controlplane.xds.status import NodeRegistry, NodeStatus
from controlplane.xds.stream import Request, Response, Stream

log = structlog.get_logger()

DISCOVERY_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METRICS_SERVICE = "envoy.service.metrics.v3.MetricsService"

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MetricFamilies = Iterable[prometheus_metrics.MetricFamily]


class DiscoveryServer:
    """Serves every node from the cache and keeps the registry true."""

    def __init__(
        self,
        cache: SnapshotCache,
        registry: NodeRegistry,
        on_metrics: Callable[[str, MetricFamilies], None],
        on_silence: Callable[[str], None] = lambda _node: None,
    ) -> None:
        self._cache = cache
        self._registry = registry
        self._on_metrics = on_metrics
        self._on_silence = on_silence
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
        server.add_generic_rpc_handlers((self._discovery_handler(), self._metrics_handler()))
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

    async def _stream(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        session = _Session(self._cache, self._registry)
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
                self._on_metrics(node, message.envoy_metrics)
        finally:
            self._on_silence(node)
        return metrics_service.StreamMetricsResponse()


class _Session:
    """One stream: waits for the node's next request or the next snapshot, whichever comes first."""

    def __init__(self, cache: SnapshotCache, registry: NodeRegistry) -> None:
        self._cache = cache
        self._registry = registry
        self._group = Group()
        self._stream = Stream()
        self.node_id = ""

    async def responses(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        first = await anext(aiter(requests), None)
        if first is None:
            return
        self._introduce(first.node)
        changed = self._cache.next_change()
        self._stream = Stream(self._cache.snapshot(self._group))
        for response in self._answer(first):
            yield response
        asking = asyncio.ensure_future(_next(requests))
        changing = asyncio.ensure_future(changed.wait())
        try:
            while True:
                await asyncio.wait({asking, changing}, return_when=asyncio.FIRST_COMPLETED)
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
        return self._emit(self._stream.on_request(request))

    def _push(self) -> list[Any]:
        return self._emit(self._stream.on_snapshot(self._cache.snapshot(self._group)))

    def _emit(self, responses: list[Response]) -> list[Any]:
        self._registry.record(self, self._stream.watches)
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

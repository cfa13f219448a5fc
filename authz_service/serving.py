"""Runs a gRPC service: its port, its health, its side door, and a quiet end."""

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from . import http2
from .errors import StartRefused

log = structlog.get_logger()

OPTIONS = (
    ("grpc.so_reuseport", 0),  # two processes on one port would each get half the calls; better to fail
    ("grpc.max_concurrent_streams", 10_000),
    ("grpc.max_receive_message_length", 1024 * 1024),
    # Envoy keeps its connection alive with pings; the default takes more than two in five minutes for abuse.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)

Transport = Literal["native", "grpcio"]
"""`native` is http2.py, which costs a quarter of the CPU; `grpcio` is the portable one."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(slots=True)
class Serving:
    """One gRPC server. It opens at once; `set_ready` says that its answers mean something."""

    listen: str
    handlers: list[grpc.GenericRpcHandler]
    service: str
    transport: Transport = "native"
    now: Mapping[str, Callable[[bytes], bytes | None]] = field(default_factory=dict)
    """Methods that the native transport may answer without a task."""
    address: str = ""
    _server: Any = None
    _health: health.aio.HealthServicer = field(default_factory=health.aio.HealthServicer)

    async def start(self) -> None:
        server: Any = http2.Server(self.now) if self.transport == "native" else grpc.aio.server(options=OPTIONS)
        self._server = server
        server.add_generic_rpc_handlers(self.handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        server.add_generic_rpc_handlers([LazyReflection([self.service, health.SERVICE_NAME])])
        await self._set_health(NOT_SERVING)
        refuse_taken(self.listen)
        try:
            port = server.add_insecure_port(self.listen)
        except (RuntimeError, OSError) as error:
            raise StartRefused(f"cannot listen on {self.listen}; set MGW_LISTEN to another address") from error
        self.address = self.listen if self.listen.startswith("unix:") else f"{self.listen.rpartition(':')[0]}:{port}"
        await server.start()

    async def set_ready(self) -> None:
        await self._set_health(SERVING)

    async def drain(self, grace_seconds: float) -> None:
        """New work goes elsewhere, running calls finish."""
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace_seconds)

    async def _set_health(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        for name in ("", self.service):
            await self._health.set(name, status)


def refuse_taken(listen: str) -> None:
    """Try the port first: gRPC's core says why it cannot have it on standard error, in lines of its own."""
    if listen.startswith("unix:"):
        return
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except OSError as error:
        raise StartRefused(f"cannot listen on {listen}: {error.strerror}; set MGW_LISTEN to another address") from error


class LazyReflection(grpc.GenericRpcHandler):
    """gRPC reflection, imported by the first who asks for it: it would be a tenth of the start."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = (*services, "grpc.reflection.v1alpha.ServerReflection")

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        if handler_call_details.method != "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo":
            return None
        from grpc_reflection.v1alpha import reflection, reflection_pb2

        return grpc.stream_stream_rpc_method_handler(
            reflection.aio.ReflectionServicer(self._services).ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )


def serve_metrics(listen: str, registry: CollectorRegistry) -> str:
    """In a thread, so that a scrape never waits for the loop, nor the loop for it. Answers the bound address."""
    from prometheus_client import start_http_server

    host, _, port = listen.rpartition(":")
    try:
        server, _thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    except OSError as error:
        raise StartRefused(f"cannot listen on {listen}: {error.strerror}; set MGW_METRICS_LISTEN to another") from error
    return f"{host}:{server.server_port}"


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop

"""Runs a gRPC service: its port, its health, its reflection, and a graceful end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from service_kit import http2
from service_kit.errors import StartFailed
from service_kit.readable import ReadableOnly
from service_kit.settings import Transport

OPTIONS = (
    ("grpc.so_reuseport", 0),  # with it two processes on one port would each get half the calls
    ("grpc.max_concurrent_streams", 10_000),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),  # one report has all quota buckets of an Envoy
    # Envoy sends pings to keep its connection. By default gRPC takes more than two in five minutes for abuse.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class GrpcServer:
    """One gRPC server. Its port opens at once; health says from when on it decides."""

    def __init__(
        self,
        listen: str,
        handlers: Sequence[grpc.GenericRpcHandler],
        services: Sequence[str],
        transport: Transport = "native",
        *,
        immediate: Mapping[str, Callable[[bytes], bytes | None]] | None = None,
        dependencies: Sequence[str] = (),
    ) -> None:
        """Health checks know the server as a whole (""), `services`, and `dependencies`.

        `listen` is `host:port` or `unix:PATH`. `transport` is `native` (service_kit.http2, a quarter of the CPU) or
        `grpcio`. `immediate` holds functions, by the full path of a method, that turn a serialized request into a
        serialized response. The native transport calls them without a task; where they return None, the handler runs.
        """
        self.address = listen
        self._listen = listen
        self._handlers = tuple(handlers)
        self._services = ("", *services)
        self._transport = transport
        self._immediate = immediate or {}
        self._dependencies = tuple(dependencies)
        self._health = Health()
        self._server: Any = None

    async def start(self) -> None:
        """Open the port and serve. Nothing is healthy yet. Raises StartFailed where the port cannot be had."""
        server: Any = http2.Server(self._immediate) if self._transport == "native" else grpc.aio.server(options=OPTIONS)
        self._server = server
        reflected = [name for name in self._services if name]
        handlers = [*self._handlers, LazyReflection([*reflected, health.SERVICE_NAME])]
        if self._transport == "grpcio":  # which would say INTERNAL, and log a traceback
            handlers = [ReadableOnly(handler) for handler in handlers]
        server.add_generic_rpc_handlers(handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for name in (*self._services, *self._dependencies):
            await self._health.set(name, NOT_SERVING)
        fail_if_taken(self._listen)
        try:
            port = server.add_insecure_port(self._listen)
        except (RuntimeError, OSError) as error:
            raise StartFailed(f"cannot listen on {self._listen}; set MGW_LISTEN to another address") from error
        if not self._listen.startswith("unix:"):
            self.address = f"{self._listen.rpartition(':')[0]}:{port}"
        await server.start()

    async def set_ready(self) -> None:
        """The server and its services are healthy from now on."""
        for service in self._services:
            await self._set(service, True)

    async def set_dependency(self, name: str, is_serving: bool) -> None:
        """Whether one of `dependencies` is healthy."""
        await self._set(name, is_serving)

    async def drain(self, grace_seconds: float) -> None:
        """End: nothing is healthy from now on, and running calls have `grace_seconds` to finish."""
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace_seconds)

    async def _set(self, service: str, is_serving: bool) -> None:
        await self._health.set(service, SERVING if is_serving else NOT_SERVING)


class Health(health.aio.HealthServicer):  # type: ignore[misc] # untyped
    """grpc.health.v1. `List`, which the package declares without an implementation, is UNIMPLEMENTED."""

    async def List(self, request: Any, context: Any) -> None:
        """Not served."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")


def fail_if_taken(listen: str) -> None:
    """Raises StartFailed where the port is taken. gRPC's core itself would log that in lines of its own."""
    if listen.startswith("unix:"):
        return
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except OSError as error:
        raise StartFailed(f"cannot listen on {listen}: {error.strerror}; set MGW_LISTEN to another address") from error


REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Two names of one protocol, with the same messages."""


class LazyReflection(grpc.GenericRpcHandler):
    """gRPC reflection, imported for the first client that asks for it. The import would be a tenth of the start."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = (*services, *REFLECTION)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of the reflection method; None for every other."""
        if handler_call_details.method not in [f"/{name}/ServerReflectionInfo" for name in REFLECTION]:
            return None
        from grpc_reflection.v1alpha import reflection, reflection_pb2

        return grpc.stream_stream_rpc_method_handler(
            reflection.aio.ReflectionServicer(self._services).ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )

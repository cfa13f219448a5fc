"""Runs a gRPC service: its port, its health, its reflection, and a graceful end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from service_kit import http2
from service_kit.errors import StartFailed
from service_kit.readable import ReadableOnly

OPTIONS = (
    ("grpc.so_reuseport", 0),  # two processes on one port would each get half the calls; better to fail
    ("grpc.max_concurrent_streams", 10_000),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),  # one report has all quota buckets of an Envoy
    # Envoy keeps its connection alive with pings; the default takes more than two in five minutes for abuse.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)

Transport = Literal["native", "grpcio"]
"""`native` is service_kit.http2, which costs a quarter of the CPU; `grpcio` is the portable one."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class GrpcServer:
    """One gRPC server. Its port opens at once; health says whether its answers are decisions yet."""

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
        """`listen` is `host:port` or `unix:PATH`.

        `immediate` holds methods, by full path, that the native transport may answer without a task.
        `dependencies` are further names that health checks may ask about; `set_dependency` says how they are.
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
        self._is_draining = False

    async def start(self) -> None:
        """Open the port. Raises StartFailed where it cannot be had."""
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
        """Answers are decisions from now on."""
        for service in self._services:
            await self._set(service, True)

    async def set_dependency(self, name: str, is_serving: bool) -> None:
        """How one of `dependencies` is."""
        await self._set(name, is_serving)

    async def drain(self, grace_seconds: float) -> None:
        """New work goes elsewhere; running calls have `grace_seconds` to finish."""
        self._is_draining = True
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace_seconds)

    async def _set(self, service: str, is_serving: bool) -> None:
        if not self._is_draining:
            await self._health.set(service, SERVING if is_serving else NOT_SERVING)


class Health(health.aio.HealthServicer):  # type: ignore[misc] # untyped
    """grpc.health.v1, but for its newest method, which the package declares and does not have."""

    async def List(self, request: Any, context: Any) -> None:
        """Not served."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")


def fail_if_taken(listen: str) -> None:
    """Try the port first: gRPC's core says why it cannot have it on standard error, in lines of its own."""
    if listen.startswith("unix:"):
        return
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except OSError as error:
        raise StartFailed(f"cannot listen on {listen}: {error.strerror}; set MGW_LISTEN to another address") from error


REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Both names of the one protocol; their messages are alike."""


class LazyReflection(grpc.GenericRpcHandler):
    """gRPC reflection, imported by the first client that asks for it: it would be a tenth of the start."""

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

"""Runs the gRPC service: its port, its health, its side door, and a quiet end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from . import http2
from .errors import StartRefused

OPTIONS = (
    ("grpc.so_reuseport", 0),  # two processes on one port would each get half the calls; better to fail
    ("grpc.max_concurrent_streams", 10_000),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),  # a report has all quota buckets of an Envoy
    # Envoy keeps its connection alive with pings; the default takes more than two in five minutes for abuse.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Serving:
    """One gRPC server. Its port opens at once; health says what its answers mean."""

    def __init__(
        self,
        listen: str,
        handlers: Sequence[grpc.GenericRpcHandler],
        services: Sequence[str],
        transport: str = "native",
    ) -> None:
        self._transport = transport
        self.address = listen
        self._listen = listen
        self._handlers = tuple(handlers)
        self._services = ("", *services)
        self._health = health.aio.HealthServicer()
        self._server: Any = None
        self._is_draining = False

    async def start(self) -> None:
        """Open the port. StartRefused if it is taken."""
        server: Any = http2.Server() if self._transport == "native" else grpc.aio.server(options=OPTIONS)
        self._server = server
        server.add_generic_rpc_handlers(self._handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for service in (*self._services, "store"):
            await self._health.set(service, _NOT_SERVING)
        try:
            port = server.add_insecure_port(self._listen)
        except (RuntimeError, OSError) as error:
            raise StartRefused(f"cannot listen on {self._listen}: is it in use? Set MGW_LISTEN to another") from error
        if not self._listen.startswith("unix:"):
            self.address = f"{self._listen.rpartition(':')[0]}:{port}"
        await server.start()

    async def set_ready(self) -> None:
        """Answers are decisions now."""
        for service in self._services:
            await self._set(service, True)

    async def set_store(self, is_up: bool) -> None:
        """Whether decisions are exact."""
        await self._set("store", is_up)

    async def drain(self, grace_seconds: float) -> None:
        """New work goes elsewhere, running calls finish."""
        self._is_draining = True
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace_seconds)

    async def _set(self, service: str, is_serving: bool) -> None:
        if not self._is_draining:
            await self._health.set(service, _SERVING if is_serving else _NOT_SERVING)


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

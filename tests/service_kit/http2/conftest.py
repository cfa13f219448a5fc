"""A server with a few methods, and connections to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from service_kit.http2 import Bounds, Server

SERVICE = "mgw.test.Count"
CALL, WAIT, COLLECT, REPEAT = (f"/{SERVICE}/{name}" for name in ("Call", "Wait", "Collect", "Repeat"))


@dataclass
class Counted:
    """A server and what its methods were asked."""

    port: int
    server: Server
    messages: list[bytes] = field(default_factory=list)
    waiting: int = 0
    repeated: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, request: bytes, _context: Any) -> bytes:
        """Responds at once."""
        self.messages.append(request)
        return request

    async def wait(self, request: bytes, _context: Any) -> bytes:
        """Responds when the test says so."""
        self.waiting += 1
        try:
            await self.release.wait()
        finally:
            self.waiting -= 1
        return request

    async def collect(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        """Takes a stream of messages, and responds with how many bytes they were."""
        size = 0
        self.waiting += 1
        try:
            async for request in requests:
                size += len(request)
        finally:
            self.waiting -= 1
        return str(size).encode()

    async def repeat(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """Responds to each message with a thousand times as much."""
        async for request in requests:
            self.repeated += 1
            yield request * 1_000

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Call": grpc.unary_unary_rpc_method_handler(self.call),
                "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
                "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
                "Repeat": grpc.stream_stream_rpc_method_handler(self.repeat),
            },
        )


Serve = Callable[[Bounds], Awaitable[Counted]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts servers with bounds of the test's own."""
    started: list[Server] = []

    async def start(bounds: Bounds) -> Counted:
        server = Server(bounds=bounds)
        counted = Counted(0, server)
        server.add_generic_rpc_handlers([counted.handler()])
        counted.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        started.append(server)
        return counted

    yield start
    for server in started:
        await server.stop(0)


@pytest.fixture
async def counted(serve: Serve) -> Counted:
    """A server with the default bounds."""
    return await serve(Bounds())

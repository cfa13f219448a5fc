"""A gRPC server over HTTP/2 on asyncio: ports, handlers, start and stop.

A drop-in for the part of `grpc.aio.server` that the services use: small messages, many calls, one loop. Why not
grpcio: each of its calls crosses threads and costs over 200 µs of CPU. Here a loop turn reads, responds and writes many
calls at once. What makes that cheap: SETTINGS_HEADER_TABLE_SIZE 0 (RFC 7541, section 4.2) makes equal header blocks
mean equal headers, so each distinct block is decoded once, and a response's header blocks are constants.

Not here: TLS (connections are local or on the pod's network), server push, compression, priorities.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service_kit.http2.bounds import Bounds, Immediate
from service_kit.http2.connection import Connection
from service_kit.http2.connections import ENOUGH_FILES, Connections, allow_files
from service_kit.http2.headers import Request
from service_kit.http2.turns import Turns

BACKLOG = 1_024
DEFAULT_BOUNDS = Bounds()
MOST_READS = 1_000
MOST_MESSAGES = 16
"""In one loop turn. A message is handled after its turn was given, so that its time cannot be taken."""


class Server:
    """Serves generic gRPC handlers. `immediate` may respond to some methods without a task, by full path."""

    def __init__(self, immediate: Mapping[str, Immediate] | None = None, bounds: Bounds = DEFAULT_BOUNDS) -> None:
        self.bounds = bounds
        self.immediate = dict(immediate or {})
        self.connections: Connections[Connection] = Connections(ENOUGH_FILES)
        self.reads = Turns(bounds.turn_seconds, MOST_READS)
        self.messages = Turns(bounds.turn_seconds, MOST_MESSAGES)
        self.known_blocks: dict[bytes, Request] = {}
        self._handlers: list[Any] = []
        self._methods: dict[str, Any] = {}
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Serve what these `grpc.GenericRpcHandler`s know; the first that knows a method has it."""
        self._handlers += handlers

    def add_registered_method_handlers(self, _service: str, _methods: object) -> None:
        """grpc's generated code calls this beside add_generic_rpc_handlers, with the same methods."""

    def add_insecure_port(self, listen: str) -> int:
        """Bind `host:port` or `unix:PATH`. Returns the port. Raises OSError where it cannot be had."""
        if listen.startswith("unix:"):
            path = listen.removeprefix("unix:")
            Path(path).unlink(missing_ok=True)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(path)
            self._sockets.append(sock)
            return 0
        host, _, port = listen.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        sock = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
        self._sockets.append(sock)
        bound: int = sock.getsockname()[1]
        return bound

    async def start(self) -> None:
        """Take connections, as many as this process may have files for; their limit is raised as far as it may be."""
        self.connections.most = allow_files()
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await create(lambda: Connection(self), sock=sock, backlog=BACKLOG))

    async def stop(self, grace_seconds: float | None) -> None:
        """No new connections or calls; running ones may take `grace_seconds`."""
        for server in self._servers:
            server.close()
        running = [task for connection in self.connections for task in connection.retire()]
        if running:
            _, late = await asyncio.wait(running, timeout=grace_seconds or 0.001)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in self.connections:
            connection.close()

    def method(self, path: str) -> Any:
        """The handler of a path, None for one that nobody serves."""
        if path not in self._methods:
            details = _Details(path)
            found = (handler.service(details) for handler in self._handlers)
            handler = next((each for each in found if each is not None), None)
            if handler is None:
                return None  # not kept: any text may be asked for
            self._methods[path] = handler
        return self._methods[path]


@dataclass(frozen=True)
class _Details:
    """What a generic handler looks at, as grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: tuple[object, ...] = ()

"""The gRPC server of both services, on both transports: its port, its health, its reflection, its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from service_kit.errors import StartFailed
from service_kit.grpc_server import NOT_SERVING, REFLECTION, SERVING, GrpcServer
from service_kit.settings import TRANSPORTS, Transport

SERVICE = "mgw.test.Echo"
SAY = f"/{SERVICE}/Say"

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


class Echo:
    """Repeats what it is sent. A call waits while `is_open` is not set."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.waiting = asyncio.Event()

    async def say(self, request: StringValue, context: Any) -> StringValue:
        self.waiting.set()
        await self.is_open.wait()
        return request

    def handler(self) -> grpc.GenericRpcHandler:
        say: grpc.RpcMethodHandler[StringValue, StringValue] = grpc.unary_unary_rpc_method_handler(
            self.say, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Say": say})


class Client:
    """Calls one server."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def say(self, data: bytes) -> bytes:
        call: Any = self._channel.unary_unary(SAY)
        response: bytes = await call(data, timeout=5)
        return response

    async def health(self, service: str) -> int | str:
        """What a health check of `service` says, or the name of its error."""
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            response = await health_pb2_grpc.HealthStub(self._channel).Check(request, timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return int(response.status)

    async def services(self, reflection: str) -> set[str]:
        """The names that reflection lists, by one of its two names."""
        call: Any = self._channel.stream_stream(
            f"/{reflection}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        return {each.name async for response in call([request]) for each in response.list_services_response.service}


@pytest.fixture
def echo() -> Echo:
    return Echo()


@contextlib.asynccontextmanager
async def connected(server: GrpcServer) -> AsyncIterator[Client]:
    """A server that is started, and a client of it."""
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        try:
            yield Client(channel)
        finally:
            await server.drain(0.01)


async def watch_health(channel: grpc.aio.Channel, seen: asyncio.Queue[int]) -> None:
    """Put each status of the server into a queue, until the server ends the call."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for response in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
            seen.put_nowait(response.status)


async def test_it_serves_its_handlers_at_the_address_that_it_tells(transport: Transport, echo: Echo) -> None:
    """Port 0 is a free one; the port is open before anything is healthy."""
    server = GrpcServer("127.0.0.1:0", [echo.handler()], [SERVICE], transport)
    async with connected(server) as client:
        assert not server.address.endswith(":0")
        assert StringValue.FromString(await client.say(StringValue(value="hello").SerializeToString())).value == "hello"


async def test_it_serves_on_a_unix_socket(transport: Transport, echo: Echo, tmp_path: Path) -> None:
    """Whose path is the address."""
    server = GrpcServer(f"unix:{tmp_path}/echo.sock", [echo.handler()], [SERVICE], transport)
    async with connected(server) as client:
        assert server.address == f"unix:{tmp_path}/echo.sock"
        assert await client.say(b"") == b""


async def test_health_knows_the_server_its_services_and_its_dependencies(transport: Transport, echo: Echo) -> None:
    """Nothing is healthy before it is ready, a dependency is healthy on its own, and other names are not found."""
    server = GrpcServer("127.0.0.1:0", [echo.handler()], [SERVICE], transport, dependencies=["store"])
    async with connected(server) as client:

        async def health() -> list[int | str]:
            return [await client.health(name) for name in ("", SERVICE, "store", "another")]

        assert await health() == [NOT_SERVING, NOT_SERVING, NOT_SERVING, "NOT_FOUND"]
        await server.set_ready()
        assert await health() == [SERVING, SERVING, NOT_SERVING, "NOT_FOUND"]
        await server.set_dependency("store", True)
        assert await health() == [SERVING, SERVING, SERVING, "NOT_FOUND"]
        await server.set_dependency("store", False)
        assert await health() == [SERVING, SERVING, NOT_SERVING, "NOT_FOUND"]


async def test_a_running_call_finishes_while_the_server_drains(transport: Transport, echo: Echo) -> None:
    """Within the time that it is given; and no later word makes the server healthy again."""
    server = GrpcServer("127.0.0.1:0", [echo.handler()], [SERVICE], transport, dependencies=["store"])
    await server.start()
    await server.set_ready()
    async with grpc.aio.insecure_channel(server.address) as channel:
        client = Client(channel)
        echo.is_open.clear()
        call = asyncio.ensure_future(client.say(b"\x0a\x01x"))
        await asyncio.wait_for(echo.waiting.wait(), 5)
        seen: asyncio.Queue[int] = asyncio.Queue()
        watching = asyncio.ensure_future(watch_health(channel, seen))
        assert await asyncio.wait_for(seen.get(), 5) == SERVING
        draining = asyncio.ensure_future(server.drain(1))
        assert await asyncio.wait_for(seen.get(), 5) == NOT_SERVING
        await server.set_ready()
        await server.set_dependency("store", True)
        echo.is_open.set()

        assert await call == b"\x0a\x01x"
        await asyncio.wait_for(asyncio.gather(draining, watching), 10)
        assert seen.empty()


async def test_a_call_that_takes_too_long_is_ended(transport: Transport, echo: Echo) -> None:
    """The end of the process does not wait for it."""
    server = GrpcServer("127.0.0.1:0", [echo.handler()], [SERVICE], transport)
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        echo.is_open.clear()
        call = asyncio.ensure_future(Client(channel).say(b""))
        await asyncio.wait_for(echo.waiting.wait(), 5)
        await asyncio.wait_for(server.drain(0.05), 5)

        with pytest.raises(grpc.aio.AioRpcError):
            await call


@pytest.mark.parametrize("reflection", REFLECTION)
async def test_reflection_lists_what_is_served(transport: Transport, reflection: str, echo: Echo) -> None:
    """The services, health, and reflection under both of its names."""
    server = GrpcServer("127.0.0.1:0", [echo.handler()], [SERVICE], transport)
    async with connected(server) as client:
        assert await client.services(reflection) == {SERVICE, "grpc.health.v1.Health", *REFLECTION}


async def test_bytes_that_are_no_message_are_an_invalid_argument(transport: Transport, echo: Echo) -> None:
    """And the next call is served."""
    server = GrpcServer("127.0.0.1:0", [echo.handler()], [SERVICE], transport)
    async with connected(server) as client:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.say(b"\xff\xff\xff")
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await client.say(b"") == b""


async def test_a_port_that_is_taken_fails_the_start(
    transport: Transport, echo: Echo, capfd: pytest.CaptureFixture[str]
) -> None:
    """The message has the address and the variable that changes it; gRPC's core says nothing beside."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartFailed, match=f"cannot listen on {address}: .*; set MGW_LISTEN"):
            await GrpcServer(address, [echo.handler()], [SERVICE], transport).start()

    assert capfd.readouterr().err == ""


async def test_a_socket_that_cannot_be_made_fails_the_start(transport: Transport, echo: Echo, tmp_path: Path) -> None:
    """Its folder is not there."""
    address = f"unix:{tmp_path}/nowhere/echo.sock"
    with pytest.raises(StartFailed, match=f"cannot listen on {address}"):
        await GrpcServer(address, [echo.handler()], [SERVICE], transport).start()

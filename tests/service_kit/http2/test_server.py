"""One suite over both transports: what a gRPC client sees of `http2.Server` is what it sees of grpcio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from service_kit import http2
from service_kit.http2 import frames
from service_kit.http2.bounds import Bounds
from service_kit.http2.connection import greeting
from tests.support.grpc_bytes import stream, unary

SERVICE = "mgw.test.Echo"
MESSAGE_LIMIT = 1024 * 1024


class Echo:
    """Bytes in, bytes out, in every shape that a service may have."""

    def __init__(self) -> None:
        self.waits, self.cancelled = asyncio.Event(), asyncio.Event()

    async def unary(self, request: bytes, _context: object) -> bytes:
        if request == b"crash":
            raise RuntimeError("on purpose")
        if request == b"wait":
            self.waits.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return request * 10 if request.startswith(b"big") else request

    async def abort(self, _request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "nothing here")
        raise AssertionError("abort does not return")

    async def stream(self, requests: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request.upper()

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
                "Abort": grpc.unary_unary_rpc_method_handler(self.abort),
                "Stream": grpc.stream_stream_rpc_method_handler(self.stream),
            },
        )


SERVERS: dict[str, Callable[[], Any]] = {"native": http2.Server, "grpcio": grpc.aio.server}


@pytest.fixture(params=SERVERS)
async def served(request: pytest.FixtureRequest) -> AsyncIterator[tuple[grpc.aio.Channel, Echo, Any]]:
    server, echo = SERVERS[request.param](), Echo()
    server.add_generic_rpc_handlers((echo.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel, echo, server
    await server.stop(0)


Served = tuple[grpc.aio.Channel, Echo, Any]


async def test_answers_carry_the_message(served: Served) -> None:
    """A message comes back as it was, the empty one and one of many frames included."""
    call = unary(served[0], f"/{SERVICE}/Unary")

    for message in (b"", b"hello", bytes(range(256)) * 4000):
        assert await call(message, timeout=5) == message


async def test_many_calls_share_a_connection(served: Served) -> None:
    """A thousand calls at once get their own answers."""
    call = unary(served[0], f"/{SERVICE}/Unary")

    answers = await asyncio.gather(*(call(str(number).encode(), timeout=20) for number in range(1000)))
    assert answers == [str(number).encode() for number in range(1000)]


async def test_answers_respect_the_client_s_window(served: Served) -> None:
    """Answers larger than every window arrive whole: they wait for the client to make room."""
    call = unary(served[0], f"/{SERVICE}/Unary")
    message = b"big" + b"x" * 300_000

    answers = await asyncio.gather(*(call(message, timeout=20) for _ in range(5)))
    assert answers == [message * 10] * 5


@pytest.mark.parametrize(
    ("method", "message", "code"),
    [
        ("Nothing", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("Abort", b"", grpc.StatusCode.NOT_FOUND),
        ("Unary", b"crash", grpc.StatusCode.UNKNOWN),
    ],
)
async def test_failures_are_statuses(served: Served, method: str, message: bytes, code: grpc.StatusCode) -> None:
    """What goes wrong has its gRPC status, and the connection lives on."""
    channel = served[0]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await unary(channel, f"/{SERVICE}/{method}")(message, timeout=5)

    assert refused.value.code() == code
    assert await unary(channel, f"/{SERVICE}/Unary")(b"still", timeout=5) == b"still"


async def test_a_cancelled_call_is_cancelled_inside(served: Served) -> None:
    """A client that gives up ends the work on its call."""
    channel, echo, _ = served
    with pytest.raises(grpc.aio.AioRpcError):
        await unary(channel, f"/{SERVICE}/Unary")(b"wait", timeout=0.2)

    await asyncio.wait_for(echo.cancelled.wait(), 5)


async def test_both_sides_stream(served: Served) -> None:
    """Messages go both ways on one call, each as it comes."""
    call = stream(served[0], f"/{SERVICE}/Stream")()
    for message in (b"a", b"bc", b"x" * 100_000):
        await call.write(message)
        assert await call.read() == message.upper()
    await call.done_writing()

    assert await call.read() is grpc.aio.EOF


async def test_a_stop_lets_running_calls_end(served: Served) -> None:
    """A stopping server cuts calls off only after their grace."""
    channel, echo, server = served
    running = asyncio.ensure_future(unary(channel, f"/{SERVICE}/Unary")(b"wait", timeout=10))
    await asyncio.wait_for(echo.waits.wait(), 5)
    await server.stop(0.1)

    with pytest.raises(grpc.aio.AioRpcError):
        await running
    await asyncio.wait_for(echo.cancelled.wait(), 5)


async def test_an_answer_at_once_needs_no_task() -> None:
    """`now` answers before a task is made; None leaves the call to its handler."""
    seen: list[bytes] = []

    def now(message: bytes) -> bytes | None:
        seen.append(message)
        return b"at once" if message == b"quick" else None

    server = http2.Server({f"/{SERVICE}/Unary": now})
    server.add_generic_rpc_handlers((Echo().handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = unary(channel, f"/{SERVICE}/Unary")
        assert [await call(b"quick", timeout=5), await call(b"slow", timeout=5)] == [b"at once", b"slow"]
    await server.stop(0)
    assert seen == [b"quick", b"slow"]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        frames.PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        frames.PREFACE + frames.frame(frames.HEADERS, frames.END_HEADERS, 2, b"\x82"),
        frames.PREFACE + frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff"),
        frames.PREFACE + frames.frame(frames.CONTINUATION, 0, 1, b""),
        frames.PREFACE + frames.frame(frames.HEADERS, 0, 1, b"") + frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.PREFACE + frames.frame(frames.HEADERS, frames.END_HEADERS | frames.PADDED, 1, b"\x09\x82"),
        frames.PREFACE + frames.frame(frames.PUSH_PROMISE, 0, 1, b""),
    ],
)
async def test_a_broken_peer_loses_its_connection_only(sent: bytes) -> None:
    """Whatever breaks the protocol ends that connection with GOAWAY, and no other."""
    server = http2.Server()
    server.add_generic_rpc_handlers((Echo().handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)

    received = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert received[len(greeting(Bounds())) :][3] == frames.GOAWAY
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await unary(channel, f"/{SERVICE}/Unary")(b"fine", timeout=5) == b"fine"
    await server.stop(0)

"""What one client can make a server do in one loop turn, and keep in memory, while others wait.

A turn is measured in CPU time of this thread, so that a busy machine does not matter: clients and server share one loop
here, and what the clients need counts, too.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import pytest

from service_kit.http2 import Bounds, frames
from service_kit.http2.call import RESOURCE_EXHAUSTED, UNIMPLEMENTED
from service_kit.http2.frames import (
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    LARGEST_WINDOW,
    SETTINGS,
    frame,
)
from service_kit.process import freeze_heap
from tests.service_kit.http2.conftest import CALL, COLLECT, REPEAT, Counted, Serve
from tests.support.http2_peer import Peer, connected, field, message, request_block
from tests.support.waiting import next_turn, until

LATE_SECONDS = 0.05
"""No turn may take longer. In fact they take 5 to 25 ms."""


@asynccontextmanager
async def turns_timed() -> AsyncIterator[Callable[[], float]]:
    """Measures every loop turn; the longest one so far, in seconds of CPU.

    What all other tests have left in memory is nothing for the collector to look at meanwhile, as in a service.
    """
    longest = 0.0
    freeze_heap()

    async def watch() -> None:
        nonlocal longest
        before = time.thread_time()
        while True:
            await next_turn()
            now = time.thread_time()
            longest, before = max(longest, now - before), now

    watching = asyncio.ensure_future(watch())
    await next_turn()
    try:
        yield lambda: longest
    finally:
        watching.cancel()
        gc.unfreeze()


def blocks_of_many_fields() -> list[bytes]:
    """Each other than the last, so that none is known, and as large as may be."""
    blocks = [request_block("/") + field("a", str(number)) + b"\0\x01a\x01b" * 470 for number in range(200)]
    return [frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * at, block) for at, block in enumerate(blocks)]


def blocks_of_table_updates() -> list[bytes]:
    block = b"\x20" * 16_000 + request_block(CALL)
    return [frame(HEADERS, END_HEADERS | END_STREAM, stream, block) for stream in range(1, 60, 2)]


def blocks_in_parts() -> list[bytes]:
    block = request_block(CALL) + b"\0\x01a\x01b" * 400
    return [
        frame(HEADERS, END_STREAM, stream, block[:9]) + frame(CONTINUATION, END_HEADERS, stream, block[9:])
        for stream in range(1, 400, 2)
    ]


def tiny_streamed_messages() -> list[bytes]:
    """3,000 in a frame."""
    return [frame(HEADERS, END_HEADERS, 1, request_block(COLLECT)), *[frame(DATA, 0, 1, message(b"") * 3_000)] * 60]


def settings_of_thousands() -> list[bytes]:
    return [frame(SETTINGS, 0, 0, frames.setting(0x99, 1) * 2_700)] * 200


def pings() -> list[bytes]:
    return [frame(frames.PING, 0, 0, bytes(8))] * 15_000


def resets_of_passed_over_neighbours() -> list[bytes]:
    """Every other stream is passed over; whether a stream was is asked for each reset."""
    opened = [frame(HEADERS, END_HEADERS | END_STREAM, stream, request_block("/")) for stream in range(1, 40_000, 4)]
    return [*opened, *[frames.reset(1, 8)] * 10_000]


LABOURS: dict[str, tuple[Callable[[], list[bytes]], int]] = {
    "blocks of many fields": (blocks_of_many_fields, 1),
    "blocks of many fields from many": (blocks_of_many_fields, 15),
    "blocks of table updates": (blocks_of_table_updates, 1),
    "blocks in parts": (blocks_in_parts, 1),
    "tiny streamed messages": (tiny_streamed_messages, 1),
    "tiny streamed messages from many": (tiny_streamed_messages, 5),
    "settings of thousands": (settings_of_thousands, 1),
    "resets beside streams that were passed over": (resets_of_passed_over_neighbours, 1),
    "pings from many": (pings, 30),
}


@pytest.mark.parametrize("labour", LABOURS)
async def test_nobody_keeps_the_loop(counted: Counted, labour: str) -> None:
    """Frames that are cheap to send and costly to handle are handled over several turns, whoever sends them."""
    make, clients = LABOURS[labour]
    sent = b"".join(make())
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(counted.port)) for _ in range(clients)]
        neighbour = await stack.enter_async_context(connected(counted.port))
        async with turns_timed() as longest:
            for peer in peers:
                peer.send(sent)
                await next_turn()
            for stream in range(1, 40, 2):
                neighbour.open(stream, CALL)
                neighbour.send(frame(DATA, END_STREAM, stream, message(b"fine")))
                await neighbour.until(HEADERS, stream=stream, flags=END_STREAM)
        assert longest() < LATE_SECONDS


async def test_unfinished_streamed_messages_are_bounded_together(serve: Serve) -> None:
    """A streamed message may be larger than a window, which therefore does not bound it; their sum has a bound."""
    counted = await serve(Bounds(streamed_message_bytes=1 << 20))
    begun = b"\0" + (1 << 20).to_bytes(4, "big")
    async with connected(counted.port) as peer:
        for stream in (1, 3, 5):
            peer.open(stream, COLLECT)
            peer.send(frame(DATA, 0, stream, begun), *[frame(DATA, 0, stream, bytes(16_000))] * 25)
        refused = await peer.until(HEADERS, flags=END_STREAM)
        peer.send(frames.reset(3, frames.CANCEL))
        await until(lambda: counted.waiting == 1)
        peer.send(*[frame(DATA, 0, 1, bytes(16_000))] * 40, frame(DATA, END_STREAM, 1, bytes((1 << 20) - 65 * 16_000)))
        response = await peer.until(DATA, stream=1)

    assert refused.stream == 5 and b"grpc-status" + bytes((1,)) + str(RESOURCE_EXHAUSTED).encode() in refused.payload
    assert response.payload[5:] == b"1048576", "with one of the others gone, there is room"


async def test_a_compressed_streamed_message_ends_its_call(counted: Counted) -> None:
    """UNIMPLEMENTED, as of a call with one message; its handler ends, too."""
    async with connected(counted.port) as peer:
        peer.open(1, COLLECT)
        await until(lambda: counted.waiting == 1)
        peer.send(frame(DATA, 0, 1, b"\1" + message(b"x")[1:]))
        ended = await peer.until(HEADERS, stream=1, flags=END_STREAM)
        await until(lambda: counted.waiting == 0)

    assert str(UNIMPLEMENTED).encode() in ended.payload


async def test_responses_that_nobody_reads_are_not_made(counted: Counted) -> None:
    """A handler that streams waits for a client that does not read, however wide that opened its windows."""
    wide = frames.setting(frames.INITIAL_WINDOW_SIZE, LARGEST_WINDOW)
    attacker = await Peer.greeted(counted.port, wide)
    attacker.send(frames.window_update(0, LARGEST_WINDOW - DEFAULT_WINDOW))
    attacker.open(1, REPEAT)
    cast(asyncio.Transport, attacker.writer.transport).pause_reading()
    asked = message(b"x" * 100) * 150
    for _ in range(60):
        attacker.send(frame(DATA, 0, 1, asked))
    (connection,) = counted.server.connections
    await until(lambda: connection._is_write_paused, 20)
    made = counted.repeated
    async with connected(counted.port) as neighbour:
        for stream in range(1, 100, 2):
            neighbour.open(stream, CALL)
            neighbour.send(frame(DATA, END_STREAM, stream, message(b"fine")))
            await neighbour.until(HEADERS, stream=stream, flags=END_STREAM)
    attacker.close()

    assert counted.repeated <= made + 1 < 60 * 150


async def test_an_immediate_answer_that_fails_ends_its_call_alone(counted: Counted) -> None:
    """UNKNOWN for that call, as of any handler; the connection's other calls go on."""

    def fail(_message: bytes) -> bytes | None:
        raise ValueError

    counted.server.immediate[CALL] = lambda message: fail(message) if message == b"bad" else None
    async with connected(counted.port) as peer:
        for stream, content in ((1, b"bad"), (3, b"fine")):
            peer.open(stream, CALL)
            peer.send(frame(DATA, END_STREAM, stream, message(content)))
        first = await peer.until(HEADERS, stream=1, flags=END_STREAM)
        await peer.until(HEADERS, stream=3, flags=END_STREAM)

    assert b"grpc-status\x012" in first.payload
    assert counted.messages == [b"fine"]

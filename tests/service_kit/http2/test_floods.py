"""Peers that only keep a server busy: each loses its connection, and what it made the server hold is bounded.

How long others wait is counted in frames: a connection has a share of each loop turn, so a neighbour's call needs a few
turns, whatever else came in. Timings of one machine would prove nothing on another.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Callable

import grpc
import pytest

from service_kit.http2 import Allowance, Bounds, frames
from service_kit.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    SETTINGS,
    frame,
)
from tests.service_kit.http2.conftest import CALL, WAIT, Counted, Serve
from tests.support.grpc_bytes import unary
from tests.support.http2_peer import Peer, connected, message, request_block
from tests.support.waiting import until

IMPATIENT = Bounds(allowance=Allowance(burst=1_000, per_second=100, per_call=4))
"""So that a test need not send as much as an attacker would."""
MANY = 20_000


def rapid_resets() -> bytes:
    """CVE-2023-44487: calls that are begun and given up at once."""
    block, body = request_block(WAIT), message(b"x")
    return b"".join(
        frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, body) + frames.reset(stream, 8)
        for stream in range(1, MANY, 2)
    )


def continuations() -> bytes:
    """CVE-2024-27316: a header block that does not end."""
    return frame(HEADERS, 0, 1, request_block(CALL)) + frame(CONTINUATION, 0, 1, b"\0\x01a\x01b") * MANY


FLOODS: dict[str, Callable[[], bytes]] = {
    "rapid resets": rapid_resets,
    "continuations": continuations,
    "empty continuations": lambda: frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, b"") * 300_000,
    "settings": lambda: frame(SETTINGS, 0, 0, frames.setting(4, 65_535)) * MANY,
    "acknowledgements": lambda: frame(SETTINGS, frames.ACK, 0, b"") * MANY,
    "pings": lambda: frame(PING, 0, 0, bytes(8)) * MANY,
    "empty DATA": lambda: frame(HEADERS, END_HEADERS, 1, request_block(WAIT)) + frame(DATA, 0, 1, b"") * MANY,
    "DATA of one byte": lambda: frame(HEADERS, END_HEADERS, 1, request_block(WAIT)) + frame(DATA, 0, 1, b"\0") * MANY,
    "priorities": lambda: frame(PRIORITY, 0, 1, b"\0\0\0\3\0") * MANY,
    "unknown frames": lambda: frame(0x77, 0, 0, b"") * MANY,
    "tiny window updates": lambda: frames.window_update(0, 1) * MANY,
    "malformed requests": lambda: b"".join(
        frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x83") for stream in range(1, MANY, 2)
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_ends_its_connection_and_delays_nobody(serve: Serve, flood: str) -> None:
    """GOAWAY with ENHANCE_YOUR_CALM for it; a neighbour's calls are answered all the while."""
    counted = await serve(IMPATIENT)
    async with connected(counted.port) as attacker, connected(counted.port) as neighbour:
        attacker.send(FLOODS[flood]())
        for stream in (1, 3, 5):
            neighbour.open(stream, CALL)
            neighbour.send(frame(DATA, END_STREAM, stream, message(b"fine")))
            await neighbour.until(HEADERS, stream=stream, flags=END_STREAM)
        last = await attacker.rest()

    assert last and (last[-1].kind, last[-1].code) == (GOAWAY, ENHANCE_YOUR_CALM)
    assert counted.messages == [b"fine"] * 3
    assert counted.waiting == 0, "nothing that it began runs on"


BOMBS = {
    "many fields": (b"\0\x01a\x64" + b"x" * 100) * 600,
    # The table of 4,096 bytes that RFC 7541 begins with holds one field, which one byte then repeats.
    "one field again and again": b"",
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_header_bomb_ends_its_connection(counted: Counted, bomb: str) -> None:
    """What decodes to more than 16 KiB is given up while it is decoded, however little was sent."""
    block = request_block(CALL) + (BOMBS[bomb] or _indexed_field(b"a", b"x" * 4_000) + b"\xbe" * 16_000)
    parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    attacker = Peer(*await asyncio.open_connection("127.0.0.1", counted.port))
    attacker.send(PREFACE, frame(SETTINGS, 0, 0, b""), frame(HEADERS, 0, 1, parts[0]))
    attacker.send(*[frame(CONTINUATION, 0, 1, part) for part in parts[1:]], frame(CONTINUATION, END_HEADERS, 1, b""))
    last = await attacker.rest()
    attacker.close()
    async with connected(counted.port) as peer:
        peer.open(1, CALL)
        peer.send(frame(DATA, END_STREAM, 1, message(b"fine")))
        await peer.until(HEADERS, stream=1, flags=END_STREAM)

    assert (last[-1].kind, last[-1].code) == (GOAWAY, ENHANCE_YOUR_CALM)


def _indexed_field(name: bytes, value: bytes) -> bytes:
    """A field that goes into the dynamic table (RFC 7541, section 6.2.1), with lengths as in section 5.1."""
    return b"\x40" + _length(len(name)) + name + _length(len(value)) + value


def _length(size: int) -> bytes:
    if size < 127:
        return bytes((size,))
    size -= 127
    rest = bytearray(b"\x7f")
    while size >= 128:
        rest.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*rest, size))


async def test_a_window_of_nothing_holds_up_nobody(serve: Serve) -> None:
    """Thousands of responses that wait for a window cost nothing but their memory, and their connection ends."""
    counted = await serve(Bounds(stall_seconds=0.5))
    closed = frames.setting(frames.INITIAL_WINDOW_SIZE, 0)
    async with connected(counted.port, closed) as attacker, connected(counted.port) as neighbour:
        for stream in range(1, 2 * 5_000, 2):
            attacker.open(stream, CALL)
            attacker.send(frame(DATA, END_STREAM, stream, message(b"x")))
        attacker.send(frames.window_update(0, 1) * 2_000)
        neighbour.open(1, CALL)
        neighbour.send(frame(DATA, END_STREAM, 1, message(b"fine")))
        await neighbour.until(HEADERS, stream=1, flags=END_STREAM)
        assert all(each.kind != DATA for each in await attacker.rest()), "and ends without having sent any of them"


async def test_a_window_update_costs_what_it_lets_through(counted: Counted) -> None:
    """With thousands of calls behind the connection's window, an update of one byte sends one byte."""
    async with connected(counted.port, frames.setting(frames.INITIAL_WINDOW_SIZE, 2**31 - 1)) as peer:
        spent = 0
        for stream in range(1, 2 * 9_000, 2):
            peer.open(stream, CALL)
            peer.send(frame(DATA, END_STREAM, stream, message(b"x" * 20)))
        while spent < frames.DEFAULT_WINDOW:
            each = await peer.until(DATA)
            spent += len(each.payload)
        peer.send(frames.window_update(0, 1) * 50, frame(PING, 0, 0, b"together"))
        sizes = []
        while (read := await peer.read()) is not None and read.kind != PING:
            if read.kind == DATA:
                sizes.append(len(read.payload))

    assert sizes == [1] * 50


async def test_who_does_not_read_is_not_read_from(serve: Serve) -> None:
    """Responses that nobody reads end the connection, and pings are not answered into memory."""
    counted = await serve(Bounds(stall_seconds=0.5))
    attacker = await Peer.greeted(counted.port)
    transport = attacker.writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    ping, sent = frame(PING, 0, 0, bytes(8)) * 1_000, 0
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            while not attacker.writer.transport.is_closing():
                attacker.send(ping)
                sent += 1
                await attacker.writer.drain()
    (most_held,) = [held(connection) for connection in counted.server.connections] or [0]
    attacker.close()

    assert most_held <= 1 << 20


def held(connection: object) -> int:
    """What a connection has in memory to be written."""
    size: int = connection._transport.get_write_buffer_size()  # type: ignore[attr-defined] # nobody else can tell
    return size


async def test_a_silent_client_is_let_go(serve: Serve) -> None:
    """Whoever connects and says nothing is disconnected after the time for a preface."""
    counted = await serve(Bounds(preface_seconds=0.1))
    silent = Peer(*await asyncio.open_connection("127.0.0.1", counted.port))
    half = Peer(*await asyncio.open_connection("127.0.0.1", counted.port))
    half.send(PREFACE[:10])

    for peer in (silent, half):
        last = await peer.rest()
        assert last[-1].kind == GOAWAY
        peer.close()


async def test_thousands_of_idle_connections_harm_nobody(counted: Counted) -> None:
    """As many as this process may have files for, up to 10,000; calls on another connection go on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        most = min(10_000, (hard - 200) // 2)
        idle = [await Peer.greeted(counted.port) for _ in range(most)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{counted.port}") as channel:
            assert await unary(channel, CALL)(b"fine", timeout=10) == b"fine"
        assert len(counted.server.connections) >= most
        for peer in idle:
            peer.close()
        await until(lambda: not counted.server.connections, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_resets_of_slow_calls_are_no_flood(serve: Serve) -> None:
    """An Envoy whose clients all hang up resets thousands of calls at once, and keeps its connection."""
    counted = await serve(IMPATIENT)
    async with connected(counted.port) as peer:
        streams = range(1, 2 * 5_000, 2)
        for stream in streams:
            peer.open(stream, WAIT)
            peer.send(frame(DATA, END_STREAM, stream, message(b"x")))
        await until(lambda: counted.waiting == len(streams), 20)
        peer.send(*[frames.reset(stream, frames.CANCEL) for stream in streams])
        await until(lambda: counted.waiting == 0, 20)
        peer.open(20_001, CALL)
        peer.send(frame(DATA, END_STREAM, 20_001, message(b"fine")))
        await peer.until(HEADERS, stream=20_001, flags=END_STREAM)

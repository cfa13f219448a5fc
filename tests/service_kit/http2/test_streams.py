"""Stream states over a real socket: what a peer may send when, and what becomes of it where it may not."""

from __future__ import annotations

import pytest

from service_kit.http2 import Bounds, frames
from service_kit.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    frame,
)
from tests.service_kit.http2.conftest import CALL, COLLECT, WAIT, Counted, Serve
from tests.support.http2_peer import Frame, Peer, connected, field, message, request_block

BODY = message(b"once")


def opened(stream: int, path: str = CALL, *more: tuple[str, str], flags: int = 0) -> bytes:
    return frame(HEADERS, END_HEADERS | flags, stream, request_block(path, *more))


def ended(stream: int, body: bytes = BODY) -> bytes:
    return frame(DATA, END_STREAM, stream, body)


def long_length() -> bytes:
    """A call whose content-length is a number that Python would not read."""
    block = request_block(CALL) + b"\0\x0econtent-length" + b"\x7f\x89\x26" + b"9" * 5_000
    return frame(HEADERS, END_HEADERS, 1, block)


async def test_a_call_runs_once_however_often_it_ends(counted: Counted) -> None:
    """A second END_STREAM, by DATA or by trailers, resets the stream and runs nothing again."""
    trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, field("x-late", "1"))
    async with connected(counted.port) as peer:
        peer.send(opened(1, WAIT), ended(1), ended(1, b""), trailers, ended(1))
        reset = await peer.until(RST_STREAM, stream=1)
        peer.send(opened(3), ended(3))
        await peer.until(HEADERS, stream=3, flags=END_STREAM)

    assert reset.code == STREAM_CLOSED
    assert counted.messages == [b"once"], "the neighbour's message alone"


async def test_trailers_end_a_call(counted: Counted) -> None:
    """A client may end its part with trailers; the call runs once."""
    async with connected(counted.port) as peer:
        peer.send(opened(1), frame(DATA, 0, 1, BODY), frame(HEADERS, END_HEADERS | END_STREAM, 1, field("x-a", "1")))
        await peer.until(HEADERS, stream=1, flags=END_STREAM)

    assert counted.messages == [b"once"]


STREAM_FAILURES = {
    "content-length": (opened(1, CALL, ("content-length", "3")) + ended(1), PROTOCOL_ERROR),
    "a content-length of 5,000 digits": (long_length(), PROTOCOL_ERROR),
    "an upper-case name": (opened(1, CALL, ("X-Name", "1")), PROTOCOL_ERROR),
    "a connection-specific field": (opened(1, CALL, ("connection", "close")), PROTOCOL_ERROR),
    "te other than trailers": (opened(1, CALL, ("te", "gzip")), PROTOCOL_ERROR),
    "no path": (frame(HEADERS, END_HEADERS, 1, b"\x83\x86"), PROTOCOL_ERROR),
    "no pseudo-header": (frame(HEADERS, END_HEADERS, 1, field("x", "1")), PROTOCOL_ERROR),
    "an unknown pseudo-header": (opened(1, CALL, (":x", "1")), PROTOCOL_ERROR),
    "fields in the middle": (opened(1, WAIT) + frame(HEADERS, END_HEADERS, 1, field("x", "1")), PROTOCOL_ERROR),
    "a pseudo-header in trailers": (opened(1, WAIT) + opened(1, WAIT, flags=END_STREAM), PROTOCOL_ERROR),
    "no increment": (opened(1, WAIT) + frame(WINDOW_UPDATE, 0, 1, bytes(4)), PROTOCOL_ERROR),
    "a window above 2^31-1": (opened(1, WAIT) + frames.window_update(1, 2**31 - 1), FLOW_CONTROL_ERROR),
    "a short PRIORITY": (opened(1, WAIT) + frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    "a stream that depends on itself": (opened(1, WAIT) + frame(PRIORITY, 0, 1, b"\0\0\0\1\0"), PROTOCOL_ERROR),
    "DATA after the end": (opened(1, WAIT) + ended(1) + frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
}


@pytest.mark.parametrize("case", STREAM_FAILURES)
async def test_a_bad_stream_ends_alone(counted: Counted, case: str) -> None:
    """A malformed request, or a frame that its stream cannot have, resets that stream; its neighbours go on."""
    sent, code = STREAM_FAILURES[case]
    async with connected(counted.port) as peer:
        peer.send(sent)
        reset = await peer.until(RST_STREAM, stream=1)
        peer.send(opened(3), ended(3))
        await peer.until(HEADERS, stream=3, flags=END_STREAM)

    assert reset.code == code
    assert counted.messages == [b"once"]


CONNECTION_FAILURES = {
    "DATA of no stream": (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "DATA of an idle stream": (frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
    "WINDOW_UPDATE of an idle stream": (frames.window_update(1, 1), PROTOCOL_ERROR),
    "RST_STREAM of an idle stream": (frames.reset(1, 0), PROTOCOL_ERROR),
    "RST_STREAM of a stream that was passed over": (opened(5, WAIT) + frames.reset(3, 8), PROTOCOL_ERROR),
    "RST_STREAM of another length": (opened(1, WAIT) + frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    "an even stream": (opened(2), PROTOCOL_ERROR),
    "a stream that was passed over": (opened(5, WAIT) + opened(3), PROTOCOL_ERROR),
    "a stream that is over": (opened(1, WAIT) + frames.reset(1, 8) + opened(1), STREAM_CLOSED),
    "SETTINGS of a stream": (frame(SETTINGS, 0, 1, b""), PROTOCOL_ERROR),
    "SETTINGS of another length": (frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    "an acknowledgement that says something": (frame(SETTINGS, frames.ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
    "a window of 2^31": (frame(SETTINGS, 0, 0, frames.setting(4, 2**31)), FLOW_CONTROL_ERROR),
    "frames of 16383 bytes": (frame(SETTINGS, 0, 0, frames.setting(5, 16_383)), PROTOCOL_ERROR),
    "push of 2": (frame(SETTINGS, 0, 0, frames.setting(2, 2)), PROTOCOL_ERROR),
    "PING of another length": (frame(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "PING of a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "GOAWAY of another length": (frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "GOAWAY of a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "WINDOW_UPDATE of 0": (frame(WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL_ERROR),
    "the connection's window above 2^31-1": (frames.window_update(0, 2**31 - 1), FLOW_CONTROL_ERROR),
    "a stream's window by settings": (
        opened(1, WAIT) + frames.window_update(1, 2**31 - 70_000) + frame(SETTINGS, 0, 0, frames.setting(4, 2**31 - 1)),
        FLOW_CONTROL_ERROR,
    ),
    "CONTINUATION of nothing": (frame(CONTINUATION, 0, 1, b""), PROTOCOL_ERROR),
    "something between the parts": (frame(HEADERS, 0, 1, request_block(CALL)) + ended(1), PROTOCOL_ERROR),
    "another stream's part": (frame(HEADERS, 0, 1, b"\x83") + frame(CONTINUATION, 4, 3, b"\x86"), PROTOCOL_ERROR),
    "all padding": (opened(1, WAIT) + frame(DATA, frames.PADDED, 1, b"\x05"), PROTOCOL_ERROR),
    "a frame of 16385 bytes": (opened(1, WAIT) + frame(DATA, 0, 1, bytes(16_385)), FRAME_SIZE_ERROR),
    "a block that cannot be read": (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), frames.COMPRESSION_ERROR),
}


@pytest.mark.parametrize("case", CONNECTION_FAILURES)
async def test_a_broken_connection_ends_with_its_code(counted: Counted, case: str) -> None:
    """What leaves no doubt that the peer is broken ends the connection, with the code that the RFC names."""
    sent, code = CONNECTION_FAILURES[case]
    async with connected(counted.port) as peer:
        peer.send(sent)
        last = await peer.rest()

    assert (last[-1].kind, last[-1].code) == (GOAWAY, code)


async def test_frames_of_types_that_are_not_known_are_ignored(counted: Counted) -> None:
    """Section 4.1: a later version's frames change nothing."""
    async with connected(counted.port) as peer:
        peer.send(frame(0x42, 0xFF, 7, b"whatever"), opened(1), ended(1))
        await peer.until(HEADERS, stream=1, flags=END_STREAM)


async def test_what_is_on_its_way_of_an_answered_stream_is_passed_over(counted: Counted) -> None:
    """A client that was answered early may have sent more: that is no fault, and costs the connection nothing."""
    async with connected(counted.port) as peer:
        peer.send(opened(1, f"{CALL}Not"))
        early = await peer.until(RST_STREAM, stream=1)
        peer.send(frame(DATA, 0, 1, BODY), ended(1), opened(3), ended(3))
        await peer.until(HEADERS, stream=3, flags=END_STREAM)

    assert early.code == frames.NO_ERROR, "the client may stop sending"


async def test_clients_need_not_end_what_was_answered(serve: Serve) -> None:
    """However many calls are answered before their clients end them, the connection goes on."""
    counted = await serve(Bounds(streams=20))
    async with connected(counted.port) as peer:
        for stream in range(1, 200, 2):
            peer.send(opened(stream, f"{CALL}Not"))
            await peer.until(RST_STREAM, stream=stream)
        peer.send(opened(201), ended(201))
        await peer.until(HEADERS, stream=201, flags=END_STREAM)


async def test_calls_whose_clients_stream_are_few(serve: Serve) -> None:
    """Each has a task from its beginning, so that one too many is refused; one that ends makes room."""
    counted = await serve(Bounds(streaming_calls=2))
    async with connected(counted.port) as peer:
        peer.send(*[opened(stream, COLLECT) for stream in (1, 3, 5)])
        refused = await peer.until(RST_STREAM)
        peer.send(ended(1))
        await peer.until(HEADERS, stream=1, flags=END_STREAM)
        peer.send(opened(7, COLLECT), ended(7))
        await peer.until(HEADERS, stream=7, flags=END_STREAM)

    assert (refused.stream, refused.code) == (5, frames.REFUSED_STREAM)


async def test_a_message_larger_than_the_window_arrives(counted: Counted) -> None:
    """Of a streaming call the window is given back while a message is still incomplete."""
    body = message(bytes(3_000_000))
    async with connected(counted.port) as peer:
        peer.send(opened(1, COLLECT))
        allowed, at = counted.server.bounds.stream_window, 0
        while at < len(body):
            while allowed <= 0:
                update = await peer.until(WINDOW_UPDATE, stream=1)
                allowed += int.from_bytes(update.payload, "big")
            part = body[at : at + min(allowed, 16_384)]
            peer.send(frame(DATA, END_STREAM if at + len(part) == len(body) else 0, 1, part))
            at, allowed = at + len(part), allowed - len(part)
        response = await peer.until(DATA, stream=1)

    assert response.payload[5:] == b"3000000"


async def test_unfinished_messages_hold_no_more_than_the_connection_s_window(counted: Counted) -> None:
    """The window is not given back for what is still held, and is given back when it is let go."""
    bounds = counted.server.bounds
    async with connected(counted.port) as peer:
        streams = range(1, 2 * (bounds.connection_window // 1_000_000), 2)
        for stream in streams:
            peer.send(opened(stream, CALL))
            for _ in range(62):
                peer.send(frame(DATA, 0, stream, bytes(16_000)))
        peer.send(frame(PING, 0, 0, bytes(8)))
        before = [each for each in await _until_ping(peer) if each.kind == WINDOW_UPDATE]
        for stream in streams:
            peer.send(frames.reset(stream, frames.CANCEL))
        given_back = await peer.until(WINDOW_UPDATE, stream=0)

    assert before == []
    assert int.from_bytes(given_back.payload, "big") > 900_000


async def test_more_than_the_window_ends_the_connection(counted: Counted) -> None:
    """Whoever sends more than was allowed is disconnected with FLOW_CONTROL_ERROR."""
    async with connected(counted.port) as peer:
        for stream in range(1, 200, 2):
            peer.send(opened(stream, CALL), *[frame(DATA, 0, stream, bytes(16_000)) for _ in range(62)])
        last = await peer.rest()

    assert (last[-1].kind, last[-1].code) == (GOAWAY, FLOW_CONTROL_ERROR)


async def _until_ping(peer: Peer) -> list[Frame]:
    found = []
    while (each := await peer.read()) is not None and each.kind != PING:
        found.append(each)
    return found

"""Whatever a peer sends: an answer, a reset or a GOAWAY, and never an exception."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from service_kit.http2 import Bounds, Server, frames
from service_kit.http2.frames import PREFACE, SETTINGS, frame
from tests.service_kit.http2.conftest import CALL, COLLECT, REPEAT, SERVICE, WAIT, Counted
from tests.support.http2_peer import Peer, field, message, request_block
from tests.support.waiting import until

PATHS = (CALL, WAIT, COLLECT, REPEAT, f"/{SERVICE}/No", "/", "")
STREAMS = st.sampled_from((0, 1, 1, 1, 3, 3, 5, 7, 9, 2, 2**31 - 1))
FLAGS = st.sampled_from((0, 1, 4, 4, 5, 5, 5, 8, 0x20, 0x2D, 0xFF))
BLOCKS = st.one_of(
    st.sampled_from(PATHS).map(request_block),
    st.just(field("x-late", "1")),
    st.sampled_from((b"", b"\x20", b"\x3f\xe1\x1f", b"\xff\xff\xff\xff\xff", b"\x82" * 600)),
    st.binary(max_size=40),
)
PAYLOADS = st.one_of(
    BLOCKS,
    st.binary(max_size=30).map(message),
    st.binary(max_size=30),
    st.sampled_from((bytes(4), bytes(8), b"\0\0\0\1", b"\x7f\xff\xff\xff", message(b"x") * 50, b"\1" + bytes(9))),
    st.tuples(st.integers(0, 8), st.integers(0, 2**32 - 1)).map(lambda pair: frames.setting(*pair)),
)
LIKELY = st.builds(frame, st.integers(0, 11), FLAGS, STREAMS, PAYLOADS)
REQUEST = st.tuples(st.sampled_from((1, 3, 5, 7, 9)), st.sampled_from(PATHS), st.sampled_from((4, 5))).map(
    lambda each: frame(frames.HEADERS, each[2], each[0], request_block(each[1]))
)

SENT = st.lists(st.one_of(LIKELY, REQUEST, st.binary(max_size=20)), max_size=25)


async def what_becomes_of(parts: list[bytes]) -> None:
    """Send them to a server; it must still serve others, and have reported no error of its own."""
    errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    counted = Counted(0, Server(bounds=Bounds(streaming_calls=2, streams=4)))
    counted.server.add_generic_rpc_handlers([counted.handler()])
    counted.port = counted.server.add_insecure_port("127.0.0.1:0")
    await counted.server.start()
    peer = Peer(*await asyncio.open_connection("127.0.0.1", counted.port))
    peer.send(PREFACE, frame(SETTINGS, 0, 0, b""), *parts)
    peer.writer.write_eof()
    await peer.rest()
    peer.close()
    await until(lambda: not (counted.server.connections or counted.waiting), 10, every=0)
    await counted.server.stop(0)
    assert errors == []


@settings(max_examples=150, deadline=None)
@given(SENT)
def test_frames_by_chance_harm_nothing(parts: list[bytes]) -> None:
    """No order of frames, well-formed or not, makes the server fail or leaves anything running."""
    with capture_logs() as logs:
        asyncio.run(what_becomes_of(parts))

    assert not [each for each in logs if each["log_level"] in ("error", "critical")]

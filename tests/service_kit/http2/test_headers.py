"""Header blocks: what they say, which are malformed, and what is remembered of them."""

from __future__ import annotations

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from service_kit.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFailure
from service_kit.http2.headers import MAX_KNOWN_BLOCKS, BlockReader, Request, read_fields, status_block
from tests.support.http2_peer import request_block

GOOD = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/B")]


def test_a_request_is_its_path_and_its_length() -> None:
    """All else is of no interest."""
    assert read_fields([*GOOD, (b"content-length", b"12"), (b"te", b"trailers")]) == Request("/a/B", 12)


@pytest.mark.parametrize(
    "fields",
    [
        GOOD[:2],
        [*GOOD[:2], (b":path", b"")],
        [*GOOD, (b":path", b"/b")],
        [*GOOD, (b":status", b"200")],
        [GOOD[0], (b"x", b"1"), *GOOD[1:]],
        [*GOOD, (b"", b"1")],
        [*GOOD, (b"Upper", b"1")],
        [*GOOD, (b"te", b"gzip")],
        [*GOOD, (b"transfer-encoding", b"chunked")],
        [*GOOD, (b"content-length", b"-1")],
        [*GOOD, (b"content-length", b"9" * 5_000)],
        [*GOOD, (b"content-length", b"1"), (b"content-length", b"2")],
    ],
)
def test_malformed_requests_say_why(fields: list[tuple[bytes, bytes]]) -> None:
    """Sections 8.2 and 8.3: names, pseudo-headers and connection-specific fields."""
    assert read_fields(fields).problem


def test_equal_blocks_are_read_once() -> None:
    """Once the peer uses no table, a block means the same whenever and on whichever connection it comes."""
    known: dict[bytes, Request] = {}
    reader, block = BlockReader(known), request_block("/a/B")
    reader.settings_acknowledged()

    assert reader.read(b"\x20" + block).path == "/a/B"
    assert known == {}, "the table's size is of that moment"
    assert reader.known(block) is None
    assert reader.read(block) is reader.known(block)
    assert list(known) == [block]


@pytest.mark.parametrize("updates", [b"\x20" * 3, b"\x20" * 16_000, b"\x20\x3f\xe1\x1f", b"\x3f\xff\xff\xff\xff\x0f"])
def test_updates_of_the_table_are_few_and_small(updates: bytes) -> None:
    """Two are as many as can be of use, and none may ask for more than we announced."""
    reader = BlockReader({})
    reader.settings_acknowledged()

    with pytest.raises(ConnectionFailure) as failure:
        reader.read(updates + request_block("/a/B"))
    assert failure.value.code == COMPRESSION_ERROR


def test_a_table_is_used_until_our_settings_are_known() -> None:
    """A block that refers to a table is not remembered."""
    known: dict[bytes, Request] = {}
    reader, encoder = BlockReader(known), Encoder()
    fields = [*GOOD, (b"x", b"1")]

    assert [reader.read(encoder.encode(fields)).path for _ in range(3)] == ["/a/B"] * 3
    assert known == {}


def test_a_table_that_was_not_allowed_cannot_be() -> None:
    """RFC 7541, section 4.2: the table is never larger than what was announced and acknowledged."""
    reader = BlockReader({})
    reader.settings_acknowledged()

    with pytest.raises(ConnectionFailure) as failure:
        reader.read(b"\x3f\xe1\x1f" + request_block("/a/B"))
    assert failure.value.code == COMPRESSION_ERROR


def test_what_is_remembered_is_bounded() -> None:
    """A peer that never says the same twice makes nobody remember it all."""
    known: dict[bytes, Request] = {}
    reader = BlockReader(known)
    reader.settings_acknowledged()
    reader.read(b"\x20" + request_block("/a/B"))
    for number in range(2 * MAX_KNOWN_BLOCKS):
        reader.read(request_block("/a/B", ("x-number", str(number))))

    assert 0 < len(known) <= MAX_KNOWN_BLOCKS


def test_a_block_is_not_decoded_beyond_its_bound() -> None:
    """What is too large is told from what cannot be read."""
    with pytest.raises(ConnectionFailure) as failure:
        BlockReader({}).read(request_block("/a/B", *[("a", "x" * 100)] * 1_000))
    assert failure.value.code == ENHANCE_YOUR_CALM


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_failure(block: bytes) -> None:
    """Nothing else comes out, whatever goes in."""
    reader = BlockReader({})
    try:
        assert isinstance(reader.read(block), Request)
    except ConnectionFailure as failure:
        assert failure.code in (COMPRESSION_ERROR, ENHANCE_YOUR_CALM)


@given(st.integers(0, 16), st.text())
def test_any_text_fits_into_trailers(code: int, text: str) -> None:
    """What a header cannot hold is replaced, and it is never too long."""
    assert len(status_block(code, text)) < 160

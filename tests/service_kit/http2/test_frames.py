"""Frames as bytes: how they are written, and which cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.http2 import frames
from service_kit.http2.frames import ConnectionFailure, StreamFailure


def test_a_frame_is_its_header_and_its_payload() -> None:
    """RFC 9113, section 4.1: 24 bits of length, type, flags, 31 bits of stream."""
    assert frames.frame(frames.DATA, frames.END_STREAM, 5, b"abc") == b"\0\0\x03\0\x01\0\0\0\x05abc"


def test_short_forms_are_frames() -> None:
    """What is written without `frame` is what `frame` would write."""
    assert frames.window_update(7, 9) == frames.frame(frames.WINDOW_UPDATE, 0, 7, bytes((0, 0, 0, 9)))
    assert frames.reset(7, 9) == frames.frame(frames.RST_STREAM, 0, 7, bytes((0, 0, 0, 9)))
    assert frames.goaway(7, 9) == frames.frame(frames.GOAWAY, 0, 0, bytes((0, 0, 0, 7, 0, 0, 0, 9)))


@given(st.binary(max_size=50), st.integers(0, 20))
def test_padding_is_taken_off(content: bytes, padding: int) -> None:
    """Whatever the padding, the payload is what was padded."""
    assert frames.unpadded(bytes((padding,)) + content + bytes(padding)) == content


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x05abcd"])
def test_a_payload_that_is_all_padding_cannot_be(payload: bytes) -> None:
    """Section 6.1: padding as long as the payload is a connection error."""
    with pytest.raises(ConnectionFailure):
        frames.unpadded(payload)


@given(st.dictionaries(st.integers(7, 0xFFFF), st.integers(0, 2**32 - 1), max_size=5))
def test_settings_are_read_as_they_were_written(values: dict[int, int]) -> None:
    """Settings that are not known are read like all others."""
    payload = b"".join(frames.setting(name, value) for name, value in values.items())

    assert dict(frames.read_settings(payload)) == values


@given(st.integers(0, 20), st.integers(0, 3), st.integers(0, 20))
def test_every_shape_is_right_or_says_why(kind: int, stream: int, size: int) -> None:
    """No frame raises anything but the two failures."""
    try:
        frames.check_shape(kind, stream, size)
    except StreamFailure as failure:
        assert kind == frames.PRIORITY and failure.code == frames.FRAME_SIZE_ERROR
    except ConnectionFailure as failure:
        assert failure.code in (frames.PROTOCOL_ERROR, frames.FRAME_SIZE_ERROR)

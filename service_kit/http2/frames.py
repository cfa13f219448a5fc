"""HTTP/2 frames (RFC 9113, sections 4 and 6): their numbers, how they are written, and which are well-formed."""

from __future__ import annotations

from collections.abc import Iterator

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
"""Frame types, section 6."""

END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
"""Flags, section 6."""

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x4, 0x5, 0x6
"""Settings, section 6.5.2."""

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x2, 0x3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 0x5, 0x6, 0x7, 0x8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x9, 0xB
"""Error codes, section 7."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first, section 3.4."""
HEADER_BYTES = 9
FRAME_BYTES = 16_384
"""The largest payload without a SETTINGS_MAX_FRAME_SIZE, which we do not send, section 4.2."""
DEFAULT_WINDOW = 65_535
LARGEST_FRAME_BYTES = (1 << 24) - 1
LARGEST_WINDOW = (1 << 31) - 1
STREAM_MASK = 0x7FFF_FFFF


class Http2Error(Exception):
    """The root of what a peer can do wrong."""


class ConnectionFailure(Http2Error):
    """Ends the connection: GOAWAY with this code (section 5.4.1)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamFailure(Http2Error):
    """Ends one stream: RST_STREAM with this code (section 5.4.2). Its neighbours go on."""

    def __init__(self, stream: int, code: int, message: str) -> None:
        super().__init__(message)
        self.stream = stream
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame (section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def setting(name: int, value: int) -> bytes:
    """One parameter of a SETTINGS frame."""
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


def window_update(stream: int, increment: int) -> bytes:
    """Gives the peer `increment` bytes more."""
    return b"\0\0\x04\x08\0" + stream.to_bytes(4, "big") + increment.to_bytes(4, "big")


def reset(stream: int, code: int) -> bytes:
    """RST_STREAM."""
    return b"\0\0\x04\x03\0" + stream.to_bytes(4, "big") + code.to_bytes(4, "big")


def goaway(last_stream: int, code: int) -> bytes:
    """GOAWAY: streams after `last_stream` were not looked at."""
    return frame(GOAWAY, 0, 0, last_stream.to_bytes(4, "big") + code.to_bytes(4, "big"))


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The parameters of a SETTINGS frame. Raises ConnectionFailure for a length or a value that cannot be."""
    if len(payload) % 6:
        raise ConnectionFailure(FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    for at in range(0, len(payload), 6):
        name, value = int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
        if name == ENABLE_PUSH and value > 1:
            raise ConnectionFailure(PROTOCOL_ERROR, f"SETTINGS_ENABLE_PUSH {value}")
        if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFailure(FLOW_CONTROL_ERROR, f"SETTINGS_INITIAL_WINDOW_SIZE {value}")
        if name == MAX_FRAME_SIZE and not FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
            raise ConnectionFailure(PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE {value}")
        yield name, value


def unpadded(payload: bytes) -> bytes:
    """The payload of a frame with the flag PADDED (section 6.1). Raises ConnectionFailure where it is all padding."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionFailure(PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def without_priority(stream: int, payload: bytes) -> bytes:
    """A HEADERS payload behind its priority fields (section 6.2), which are checked and not used."""
    check_dependency(stream, payload)
    return payload[5:]


def check_dependency(stream: int, priority: bytes) -> None:
    """Raises where priority fields are cut short, or a stream depends on itself (RFC 7540, section 5.3.1)."""
    if len(priority) < 5:
        raise ConnectionFailure(FRAME_SIZE_ERROR, "priority fields that are cut short")
    if int.from_bytes(priority[:4], "big") & STREAM_MASK == stream:
        raise StreamFailure(stream, PROTOCOL_ERROR, "a stream that depends on itself")


_LENGTHS = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}


def check_shape(kind: int, stream: int, size: int) -> None:
    """Whether a frame of this type may have this length, and be on a stream or on the connection (section 6).

    Raises ConnectionFailure; StreamFailure for a PRIORITY of another length than 5.
    """
    if kind in (SETTINGS, PING, GOAWAY):
        if stream:
            raise ConnectionFailure(PROTOCOL_ERROR, f"a frame of type {kind} on stream {stream}")
    elif kind != WINDOW_UPDATE and not stream:
        raise ConnectionFailure(PROTOCOL_ERROR, f"a frame of type {kind} without a stream")
    if kind in _LENGTHS and size != _LENGTHS[kind]:
        raise ConnectionFailure(FRAME_SIZE_ERROR, f"a frame of type {kind} with {size} bytes")
    if kind == GOAWAY and size < 8:
        raise ConnectionFailure(FRAME_SIZE_ERROR, f"GOAWAY of {size} bytes")
    if kind == PRIORITY and size != 5:
        raise StreamFailure(stream, FRAME_SIZE_ERROR, f"PRIORITY of {size} bytes")

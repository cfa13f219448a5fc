"""One call: a stream, what was received of it, what is still to be sent, and what its handler sees of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from service_kit.http2.flow import ReceiveWindow

# gRPC status codes, https://grpc.github.io/grpc/core/md_doc_statuscodes.html
OK, UNKNOWN, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 2, 3, 8, 12, 13, 14

PREFIX_BYTES = 5
"""Of a gRPC message: a flag and its length."""


class Status(Exception):
    """Ends a call with a gRPC status other than OK."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Context:
    """What handlers ask of grpc's ServicerContext."""

    def __init__(self, write: Callable[[Any], Awaitable[None]] | None = None) -> None:
        self.status: int = OK
        self.details = ""
        self._write = write

    async def write(self, message: Any) -> None:
        """Send one of several responses. Waits while the client does not read."""
        assert self._write is not None
        await self._write(message)

    def set_code(self, code: Any) -> None:
        """Of `grpc.StatusCode`, whose value is a pair of number and text."""
        self.status = code.value[0]

    def set_details(self, details: str) -> None:
        """The text beside the code."""
        self.details = details

    async def abort(self, code: Any, details: str = "", trailing_metadata: object = ()) -> None:
        """End the call. Raises Status."""
        raise Status(code.value[0], details)


@dataclass(slots=True)
class Call:
    """One stream. Open until the client has said all, half-closed until it is answered (RFC 9113, section 5.1)."""

    stream: int
    path: str
    content_length: int | None = None
    body: bytearray = field(default_factory=bytearray)
    body_bytes: int = 0
    """Received in DATA frames, without padding."""
    held: int = 0
    """Of the connection's window, until the body is done with."""
    is_half_closed: bool = False
    """The client has said all."""
    messages: asyncio.Queue[bytes | None] | None = None
    """Of a call whose client streams; None ends it."""
    window: ReceiveWindow | None = None
    """Of a call whose client streams. The bound on one message is smaller than the window that every stream has."""
    task: asyncio.Task[None] | None = None
    began: float = 0.0
    """When the task was made, by the loop's clock."""
    extra: int = 0
    """The client's window for this stream, beside the size that its settings give every stream."""
    is_over: bool = False
    """Ended, reset, or without a connection: nothing is sent of it any more."""
    has_begun: bool = False
    """The response's headers are sent."""
    is_queued: bool = False
    """Waits for the connection's window."""
    out: deque[bytes] | None = None
    """Bytes of DATA that the windows did not let through yet."""
    last: bytes = b""
    """The frame that ends the stream, once everything else is out."""
    room: asyncio.Event | None = None
    """Set when `out` is empty again."""


def take_message(body: bytearray) -> bytes | None:
    """Cut the first whole message off the front; None if there is none yet."""
    if len(body) < PREFIX_BYTES:
        return None
    end = PREFIX_BYTES + int.from_bytes(body[1:PREFIX_BYTES], "big")
    if len(body) < end:
        return None
    message = bytes(body[PREFIX_BYTES:end])
    del body[:end]
    return message

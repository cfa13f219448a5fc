"""An HTTP/2 client that sends what a test wants, well-formed or not, and tells frame by frame what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from service_kit.http2 import frames
from service_kit.http2.frames import END_HEADERS, HEADER_BYTES, HEADERS, PREFACE, SETTINGS, frame

WAIT_SECONDS = 10.0


def field(name: str, value: str) -> bytes:
    """A field without indexing, both texts plain (RFC 7541, section 6.2.2). Both under 127 bytes."""
    return bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode()


def request_block(path: str, *more: tuple[str, str]) -> bytes:
    """`POST path`, as gRPC clients send it, and further fields."""
    block = b"\x83\x86" + b"\x04" + bytes((len(path),)) + path.encode()
    given = (("content-type", "application/grpc"), ("te", "trailers"), *more)
    return block + b"".join(field(name, value) for name, value in given)


def message(content: bytes) -> bytes:
    """A gRPC message: not compressed, with its length."""
    return b"\0" + len(content).to_bytes(4, "big") + content


@dataclass(frozen=True)
class Frame:
    """One frame that came back."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of a RST_STREAM or GOAWAY."""
        start = 4 if self.kind == frames.GOAWAY else 0
        return int.from_bytes(self.payload[start : start + 4], "big")


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def greeted(cls, port: int, *settings: bytes) -> Self:
        """Connected, with both sides' settings acknowledged."""
        peer = cls(*await asyncio.open_connection("127.0.0.1", port))
        peer.send(PREFACE, frame(SETTINGS, 0, 0, b"".join(settings)), frame(SETTINGS, frames.ACK, 0, b""))
        await peer.until(SETTINGS, flags=frames.ACK)
        return peer

    def send(self, *data: bytes) -> None:
        """Send bytes, which are frames where the test means well."""
        self.writer.write(b"".join(data))

    def open(self, stream: int, path: str, *more: tuple[str, str], flags: int = 0) -> None:
        """A request's header block."""
        self.send(frame(HEADERS, END_HEADERS | flags, stream, request_block(path, *more)))

    async def read(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        async with asyncio.timeout(WAIT_SECONDS):
            try:
                head = await self.reader.readexactly(HEADER_BYTES)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
        return Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), payload)

    async def until(self, kind: int, stream: int | None = None, flags: int = 0) -> Frame:
        """The next frame of this type, on this stream and with these flags, if given."""
        while (each := await self.read()) is not None:
            if each.kind == kind and stream in (None, each.stream) and each.flags & flags == flags:
                return each
        raise AssertionError(f"the connection ended before a frame of type {kind} on stream {stream}")

    async def rest(self) -> list[Frame]:
        """Every frame until the connection ends."""
        found = []
        while (each := await self.read()) is not None:
            found.append(each)
        return found

    def close(self) -> None:
        """Hang up."""
        self.writer.close()


@asynccontextmanager
async def connected(port: int, *settings: bytes) -> AsyncIterator[Peer]:
    """A greeted peer that hangs up at the end."""
    peer = await Peer.greeted(port, *settings)
    try:
        yield peer
    finally:
        peer.close()

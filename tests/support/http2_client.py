"""An HTTP/2 client for whole requests, good and bad, on one connection; several may be in progress."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

from service_kit.http2 import frames
from service_kit.http2.frames import END_HEADERS, END_STREAM, frame
from tests.support.http2_peer import Peer

Fields = Iterable[tuple[str, str]]
LARGEST_FRAME = 16_384


@dataclass
class Outcome:
    """What became of a stream."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    reset: int | None = None
    """The code of its RST_STREAM."""
    ended: bool = False


class Http2Client:
    """One connection. Streams are numbered 1, 3, 5, …"""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.encoder, self.decoder = Encoder(), Decoder()
        self.outcomes: dict[int, Outcome] = {}
        self.goaway: int | None = None
        """The code of the GOAWAY that came."""
        self.is_closed = False
        self._next = 1

    def start(self, fields: Fields, *, end: bool = True) -> int:
        """Send a request's header block, in as many frames as it takes."""
        stream, self._next = self._next, self._next + 2
        self.outcomes[stream] = Outcome()
        block = self.encoder.encode(list(fields), huffman=False)
        pieces = [block[at : at + LARGEST_FRAME] for at in range(0, len(block), LARGEST_FRAME)] or [b""]
        for number, piece in enumerate(pieces):
            last = END_HEADERS if number == len(pieces) - 1 else 0
            if number == 0:
                self.peer.send(frame(frames.HEADERS, last | (END_STREAM if end else 0), stream, piece))
            else:
                self.peer.send(frame(frames.CONTINUATION, last, stream, piece))
        return stream

    def data(self, stream: int, content: bytes, *, end: bool = False) -> None:
        """Send part of a body, whatever the window."""
        for at in range(0, max(1, len(content)), LARGEST_FRAME):
            last = end and at + LARGEST_FRAME >= len(content)
            self.peer.send(frame(frames.DATA, END_STREAM if last else 0, stream, content[at : at + LARGEST_FRAME]))

    async def finish(self, *streams: int) -> list[Outcome]:
        """Read until these streams have ended, or the connection has."""
        while not self.is_closed and any(not self._is_over(stream) for stream in streams):
            await self._read()
        return [self.outcomes[stream] for stream in streams]

    def _is_over(self, stream: int) -> bool:
        outcome = self.outcomes[stream]
        return outcome.ended or outcome.reset is not None

    async def _read(self) -> None:
        came = await self.peer.read()
        if came is None:
            self.is_closed = True
            return
        outcome = self.outcomes.get(came.stream, Outcome())
        if came.kind == frames.GOAWAY:
            self.goaway = came.code
        elif came.kind == frames.RST_STREAM:
            outcome.reset = came.code
        elif came.kind == frames.HEADERS:
            headers = [(str(name), str(value)) for name, value in self.decoder.decode(came.payload)]
            if not outcome.status and dict(headers)[":status"] != "100":
                outcome.status, outcome.headers = int(dict(headers)[":status"]), headers
        elif came.kind == frames.DATA:
            outcome.body += came.payload
        if came.kind in (frames.HEADERS, frames.DATA) and came.flags & END_STREAM:
            outcome.ended = True


@asynccontextmanager
async def http2(address: str, *settings: bytes) -> AsyncIterator[Http2Client]:
    """A client on a connection of its own."""
    peer = await Peer.greeted(int(address.rpartition(":")[2]), *settings)
    try:
        yield Http2Client(peer)
    finally:
        peer.close()


def request(path: str, *more: tuple[str, str], method: str = "GET") -> list[tuple[str, str]]:
    """A request's fields."""
    pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "gateway.test")]
    return [*pseudo, *more]

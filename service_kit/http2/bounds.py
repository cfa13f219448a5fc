"""What a connection may hold, and what it asks of its server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from service_kit.http2.connections import Connections
from service_kit.http2.flow import Allowance
from service_kit.http2.headers import Request
from service_kit.http2.turns import Turns


@dataclass(frozen=True)
class Bounds:
    """What one connection may hold and how long it may wait. Sizes in bytes, times in seconds."""

    streams: int = 10_000
    streaming_calls: int = 256
    """Calls whose client streams, among them: each has a task from its beginning."""
    message_bytes: int = 1 << 20
    streamed_message_bytes: int = 1 << 25
    """Of a call whose client streams: an Envoy reports all of its quota buckets in one message. Unfinished ones of all
    such calls together may be no larger."""
    stream_window: int = (1 << 20) + (1 << 16)
    connection_window: int = 1 << 22
    """All unfinished messages together; it is given back as they are done with."""
    block_frames: int = 64
    """HEADERS and CONTINUATION frames of one header block."""
    preface_seconds: float = 10.0
    stall_seconds: float = 30.0
    """How long a client may leave what it asked for unread, or its window closed."""
    turn_seconds: float = 0.004
    """A connection's share of one loop turn, and that of all connections together that have more to read."""
    quick_reset_seconds: float = 0.01
    """A call that is reset sooner was begun to be reset. A later reset is a client's that has waited long enough."""
    allowance: Allowance = field(default_factory=Allowance)


Immediate = Callable[[bytes], bytes | None]
"""Returns the response to a message at once, or None: the call is then run as a task."""


class Host(Protocol):
    """What a connection asks of its server."""

    bounds: Bounds
    known_blocks: dict[bytes, Request]
    connections: Connections[Any]
    reads: Turns
    """Of connections that have more to read than one turn's share."""
    messages: Turns
    """Of calls that have more messages than one."""

    @property
    def immediate(self) -> Mapping[str, Immediate]:
        """Methods, by full path, that are tried without a task."""

    def method(self, path: str) -> Any:
        """The handler of a path, None for one that nobody serves."""

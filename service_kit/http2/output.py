"""What one connection sends: each loop turn's frames in one write, DATA as far as the client's windows let it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from service_kit.http2.call import OK, PREFIX_BYTES, Call
from service_kit.http2.flow import widened
from service_kit.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_BYTES,
    HEADERS,
    LARGEST_WINDOW,
    ConnectionFailure,
    StreamFailure,
    frame,
)
from service_kit.http2.headers import OK_BLOCK, RESPONSE_BLOCK, status_block

_RESPONSE_START = len(RESPONSE_BLOCK).to_bytes(3, "big") + bytes((HEADERS, END_HEADERS))
_RESPONSE_END = len(OK_BLOCK).to_bytes(3, "big") + bytes((HEADERS, END_HEADERS | END_STREAM))


class Output:
    """The sending side of a connection.

    `finished` is called once for each call whose last frame is sent, `blocked` when a window lets no more through.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, finished: Callable[[Call], None], blocked: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._finished = finished
        self._blocked = blocked
        self._transport: asyncio.Transport | None = None
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._queue: deque[Call] = deque()
        """Calls that wait for the connection's window, first come first served."""
        self.pending: list[bytes] = []
        """Frames of this loop turn."""
        self._is_flushing = False
        self.progress = 0
        """Grows with every DATA frame that the windows let through."""

    def open(self, transport: asyncio.Transport) -> None:
        """Send over this transport from now on."""
        self._transport = transport

    def close(self) -> None:
        """What is not sent by now is dropped."""
        self._transport = None
        self.pending.clear()
        self._queue.clear()

    # --- frames

    def send(self, data: bytes) -> None:
        """One or more whole frames, with this turn's others."""
        self.pending.append(data)

    def flush_soon(self) -> None:
        """Write at the end of this loop turn."""
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write now what there is."""
        self._is_flushing = False
        if self.pending:
            if self._transport is not None:
                self._transport.write(b"".join(self.pending))
            self.pending.clear()

    # --- calls

    def respond(self, call: Call, message: bytes) -> None:
        """The whole response of a unary call: headers, message, trailers."""
        if call.is_over:
            return
        stream = call.stream.to_bytes(4, "big")
        size = len(message) + PREFIX_BYTES
        if size > FRAME_BYTES or size > self._window or size > self._stream_window + call.extra:
            self.begin(call)
            self.write_message(call, message)
            self.end(call, OK, "")
            return
        self._window -= size
        self.pending.append(
            _RESPONSE_START + stream + RESPONSE_BLOCK
            + size.to_bytes(3, "big") + b"\0\0" + stream + b"\0" + len(message).to_bytes(4, "big") + message
            + _RESPONSE_END + stream + OK_BLOCK
        )  # fmt: skip
        self._finished(call)

    def begin(self, call: Call) -> None:
        """The response's headers."""
        if call.is_over:
            return
        call.has_begun = True
        self.send(frame(HEADERS, END_HEADERS, call.stream, RESPONSE_BLOCK))
        self.flush_soon()

    def write_message(self, call: Call, message: bytes) -> None:
        """One message, as far as the windows let it; the rest waits in the call."""
        body = b"\0" + len(message).to_bytes(4, "big") + message
        if call.out is None:
            call.out = deque()
        call.out.extend(body[at : at + FRAME_BYTES] for at in range(0, len(body), FRAME_BYTES))
        self._push(call)
        self.flush_soon()

    def end(self, call: Call, code: int, details: str) -> None:
        """The trailers, behind whatever is still to be sent."""
        block = OK_BLOCK if code == OK and not details else status_block(code, details)
        call.last = frame(HEADERS, END_HEADERS | END_STREAM, call.stream, block)
        self._push(call)
        self.flush_soon()

    def fail(self, call: Call, code: int, details: str) -> None:
        """End a call with a status at once, in one block where nothing was sent of it yet."""
        call.out = None
        block = (b"" if call.has_begun else RESPONSE_BLOCK) + status_block(code, details)
        self.send(frame(HEADERS, END_HEADERS | END_STREAM, call.stream, block))
        self._finished(call)
        self.flush_soon()

    def _push(self, call: Call) -> None:
        """Send what the windows allow."""
        if call.is_queued or call.is_over:
            return
        while call.out:
            of_stream = self._stream_window + call.extra
            if of_stream <= 0:  # until its own WINDOW_UPDATE
                self._blocked()
                return
            if self._window <= 0:
                call.is_queued = True
                self._queue.append(call)
                self._blocked()
                return
            self._send_part(call, call.out, min(self._window, of_stream))
        if call.room is not None:
            call.room.set()
        if call.last:
            self.send(call.last)
            call.last = b""
            self._finished(call)

    def _send_part(self, call: Call, out: deque[bytes], allowed: int) -> None:
        part = out.popleft()
        if len(part) > allowed:
            out.appendleft(part[allowed:])
            part = part[:allowed]
        self._window -= len(part)
        call.extra -= len(part)
        self.progress += 1
        self.send(frame(DATA, 0, call.stream, part))

    # --- windows

    def widen(self, increment: int) -> None:
        """The client takes so many bytes more on the connection. Costs no more than what it lets through."""
        window = widened(self._window, increment)
        if window is None:
            raise ConnectionFailure(FLOW_CONTROL_ERROR, "a connection's window above 2^31-1")
        self._window = window
        while self._queue and self._window > 0:
            call = self._queue.popleft()
            call.is_queued = False
            self._push(call)

    def widen_stream(self, call: Call, increment: int) -> None:
        """The client takes so many bytes more of one call."""
        if widened(self._stream_window + call.extra, increment) is None:
            raise StreamFailure(call.stream, FLOW_CONTROL_ERROR, "a stream's window above 2^31-1")
        call.extra += increment
        self._push(call)

    def resize_streams(self, size: int, calls: list[Call]) -> None:
        """SETTINGS_INITIAL_WINDOW_SIZE, which moves the window of every open stream (section 6.9.2)."""
        is_wider = size > self._stream_window
        self._stream_window = size
        if not is_wider:
            return
        if any(size + call.extra > LARGEST_WINDOW for call in calls):
            raise ConnectionFailure(FLOW_CONTROL_ERROR, "a stream's window above 2^31-1")
        for call in calls:
            if call.out:
                self._push(call)

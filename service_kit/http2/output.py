"""What one connection sends: each loop turn's frames in one write, DATA as far as the client's windows let it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
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

FLUSH_BYTES = 1 << 16
CALLS_A_TURN = 256


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
        self._queue: OrderedDict[int, Call] = OrderedDict()
        """Calls that wait for the connection's window, by stream, first come first served."""
        self._is_serving = False
        """The queue is served on in the next loop turn."""
        self.pending: list[bytes] = []
        """Frames of this loop turn."""
        self._unflushed = 0
        """Bytes of streamed messages among them."""
        self._is_flushing = False
        self._writable: asyncio.Event | None = None
        """Set when the client reads again, where it does not."""
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

    def pause(self) -> None:
        """The client does not read."""
        if self._writable is None:
            self._writable = asyncio.Event()

    def resume(self) -> None:
        """It reads again."""
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    async def drain(self, call: Call) -> None:
        """Wait until what was written of a call has gone, and the client reads."""
        if call.out:
            call.room = call.room or asyncio.Event()
            await call.room.wait()
        if self._writable is not None:
            await self._writable.wait()

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
        self._unflushed = 0
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
        if call.is_over:
            return
        body = b"\0" + len(message).to_bytes(4, "big") + message
        if call.out is None:
            call.out = deque()
        call.out.extend(body[at : at + FRAME_BYTES] for at in range(0, len(body), FRAME_BYTES))
        self._push(call)
        self._unflushed += len(body)
        if self._unflushed < FLUSH_BYTES:
            self.flush_soon()
        else:  # so that the transport says when the client does not read
            self.flush()

    def end(self, call: Call, code: int, details: str) -> None:
        """The trailers, behind whatever is still to be sent."""
        block = OK_BLOCK if code == OK and not details else status_block(code, details)
        call.last = frame(HEADERS, END_HEADERS | END_STREAM, call.stream, block)
        self._push(call)
        self.flush_soon()

    def fail(self, call: Call, code: int, details: str) -> None:
        """End a call with a status at once, in one block where nothing was sent of it yet."""
        self.forget(call)
        block = (b"" if call.has_begun else RESPONSE_BLOCK) + status_block(code, details)
        self.send(frame(HEADERS, END_HEADERS | END_STREAM, call.stream, block))
        self._finished(call)
        self.flush_soon()

    def forget(self, call: Call) -> None:
        """Nothing more is sent of what a call still has."""
        call.out = None
        if call.is_queued:
            call.is_queued = False
            del self._queue[call.stream]

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
                self._wait(call)
                self._blocked()
                return
            self._send_part(call, call.out, min(self._window, of_stream))
        if call.room is not None:
            call.room.set()
            call.room = None
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

    def _wait(self, call: Call) -> None:
        call.is_queued = True
        self._queue[call.stream] = call

    def _serve(self) -> None:
        """Push calls that wait for the connection's window: some in this loop turn, the others in the next ones."""
        self._is_serving = False
        for _ in range(min(len(self._queue), CALLS_A_TURN)):
            if self._window <= 0:
                return
            _, call = self._queue.popitem(last=False)
            call.is_queued = False
            self._push(call)
        self.flush_soon()
        if self._queue and self._window > 0:
            self._is_serving = True
            self._loop.call_soon(self._serve)

    # --- windows

    def widen(self, increment: int) -> None:
        """The client takes so many bytes more on the connection. Costs no more than what it lets through."""
        window = widened(self._window, increment)
        if window is None:
            raise ConnectionFailure(FLOW_CONTROL_ERROR, "a connection's window above 2^31-1")
        self._window = window
        if self._queue and not self._is_serving:
            self._serve()

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
            if call.out and not call.is_queued:
                self._wait(call)
        if self._queue and not self._is_serving:
            self._serve()

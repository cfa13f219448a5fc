"""The streams of one connection: which states they are in (RFC 9113, section 5.1), and the calls that they carry."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import structlog

from service_kit.http2 import frames
from service_kit.http2.bounds import Host
from service_kit.http2.call import (
    INTERNAL,
    PREFIX_BYTES,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    UNKNOWN,
    Call,
    take_message,
)
from service_kit.http2.flow import Patience, ReceiveWindow
from service_kit.http2.frames import (
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    HAS_PRIORITY,
    NO_ERROR,
    PADDED,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFailure,
    StreamFailure,
)
from service_kit.http2.headers import MAX_LIST_BYTES, BlockReader, Request
from service_kit.http2.output import Output
from service_kit.http2.running import Runner

log = structlog.get_logger()

SMALL_FRAME = 64
"""DATA smaller than this that does not end a stream counts as a frame that does no work."""
RECENTLY_RESET = 256
COMPRESSED = b"\1"
"""The flag of a gRPC message that we cannot read: we never said that we take any encoding."""


class Streams:
    """What the client has opened, from the first HEADERS frame of each to the last frame of its response.

    `blocked` is called when a window of the client's lets no more through. All methods that take a frame raise
    ConnectionFailure or StreamFailure for one that the peer may not send. Those that return a bool return whether the
    frame may have cost more than a few microseconds.
    """

    def __init__(
        self, host: Host, loop: asyncio.AbstractEventLoop, patience: Patience, blocked: Callable[[], None]
    ) -> None:
        self._host = host
        self._bounds = host.bounds
        self._loop = loop
        self._patience = patience
        self.output = Output(loop, self._finish, blocked)
        self.last_stream = 0
        self.is_retired = False
        """New streams are refused."""
        self.block: _Block | None = None
        """The header block that is not whole yet: nothing may come between its parts."""
        self._calls: dict[int, Call] = {}
        self._unended: OrderedDict[int, None] = OrderedDict()
        """Streams that we ended before the client had: what is on its way of them is passed over."""
        self._recently_reset: deque[int] = deque(maxlen=RECENTLY_RESET)
        """The same of streams that we reset for a frame of the client's, which may have sent more of them."""
        self._skipped_from: list[int] = []
        self._skipped_to: list[int] = []
        """Where runs of streams begin and end that are below the last one and were never opened."""
        self._streaming = 0
        """Calls whose client streams."""
        self._unfinished_bytes = 0
        """Of their messages that are not whole yet. The window does not bound these: one may be larger than it."""
        self._reader = BlockReader(host.known_blocks)
        self._window = ReceiveWindow(self._bounds.connection_window)
        self._runner = Runner(self.output, host.messages, self.fail, self._consumed)

    def __len__(self) -> int:
        return len(self._calls)

    def get(self, stream: int) -> Call | None:
        """The call on a stream, if it is not over."""
        return self._calls.get(stream)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls.values())

    def settings_acknowledged(self) -> None:
        """The client knows our settings."""
        self._reader.settings_acknowledged()

    def close(self) -> None:
        """The connection is lost: nobody waits for the calls any more."""
        for call in self._calls.values():
            call.is_over = True
            if call.task is not None:
                call.task.cancel()
        self._calls.clear()

    def on_headers(self, flags: int, stream: int, payload: bytes) -> bool:
        """A header block, or its beginning."""
        if flags & PADDED:
            payload = frames.unpadded(payload)
        failure = None
        if flags & HAS_PRIORITY:
            try:
                payload = frames.without_priority(stream, payload)
            except StreamFailure as error:  # its block has to be read all the same
                failure, payload = error, payload[5:]
        if flags & END_HEADERS:
            return self._on_block(stream, flags, payload, failure)
        self.block = _Block(stream, flags, payload, failure)
        return False

    def on_continuation(self, flags: int, payload: bytes) -> None:
        """Another part of it."""
        block = self.block
        if block is None:
            raise ConnectionFailure(PROTOCOL_ERROR, "a continuation of nothing")
        block.payload += payload
        block.frames += 1
        if len(block.payload) > MAX_LIST_BYTES or block.frames > self._bounds.block_frames:
            raise ConnectionFailure(ENHANCE_YOUR_CALM, "a header block without end")
        if flags & END_HEADERS:
            self.block = None
            self._on_block(block.stream, block.flags, bytes(block.payload), block.failure)

    def _on_block(self, stream: int, flags: int, block: bytes, failure: StreamFailure | None = None) -> bool:
        known = self._reader.known(block)
        request = known or self._reader.read(block)
        call = self._calls.get(stream)
        if call is not None:
            self._on_trailers(call, flags, request)
            return known is None
        if stream <= self.last_stream or stream % 2 == 0:
            self._on_closed(stream, flags)
            return known is None
        if stream > self.last_stream + 2 and len(self._skipped_to) < self._bounds.streams:
            self._skipped_from.append(self.last_stream + 1)
            self._skipped_to.append(stream)
        self.last_stream = stream
        if failure is None and request.problem:
            failure = StreamFailure(stream, PROTOCOL_ERROR, f"a malformed request: {request.problem}")
        if failure is None and not request.has_pseudo:
            failure = StreamFailure(stream, PROTOCOL_ERROR, "a request without a path")
        if failure is None and (self.is_retired or len(self._calls) >= self._bounds.streams):
            failure = StreamFailure(stream, REFUSED_STREAM, "")
        if failure is not None:
            raise failure
        self._begin(stream, flags, request)
        return known is None

    def _begin(self, stream: int, flags: int, request: Request) -> None:
        call = self._calls[stream] = Call(stream, request.path, request.content_length)
        method = self._host.method(request.path)
        if method is None:
            call.is_half_closed = bool(flags & END_STREAM)
            self.fail(call, UNIMPLEMENTED, "no such method")
            return
        if method.request_streaming:
            if self._streaming >= self._bounds.streaming_calls:
                raise StreamFailure(stream, REFUSED_STREAM, "")
            self._streaming += 1
            call.messages = asyncio.Queue()
            call.window = ReceiveWindow(self._bounds.stream_window)
            self._run(call, self._runner.streaming(call, method))
        if flags & END_STREAM:
            self._on_end(call)

    def _run(self, call: Call, run: Coroutine[Any, Any, None]) -> None:
        call.began = self._loop.time()
        call.task = self._loop.create_task(run)

    def _on_trailers(self, call: Call, flags: int, request: Request) -> None:
        if call.is_half_closed:
            raise StreamFailure(call.stream, STREAM_CLOSED, "fields after the end")
        if not flags & END_STREAM or request.has_pseudo or request.problem:
            raise StreamFailure(call.stream, PROTOCOL_ERROR, "fields that are no trailers")
        self._on_end(call)

    def _on_closed(self, stream: int, flags: int) -> None:
        """A header block of a stream that is over, or that cannot be (section 5.1.1)."""
        if self._is_passed_over(stream, flags):
            return
        if stream % 2 == 0 or self._is_skipped(stream):
            raise ConnectionFailure(PROTOCOL_ERROR, f"stream {stream} after {self.last_stream}")
        raise ConnectionFailure(STREAM_CLOSED, f"fields of stream {stream}, which is over")

    def on_data(self, flags: int, stream: int, payload: bytes) -> bool:
        """A part of a message, or of several."""
        size = len(payload)
        if not self._window.take(size):
            raise ConnectionFailure(FLOW_CONTROL_ERROR, "more than the connection's window")
        call = self._calls.get(stream)
        if call is None or call.is_half_closed:
            self._release(size)
            self._on_late_data(call, flags, stream)
            return False
        call.held += size
        if call.window is not None and not call.window.take(size):
            raise StreamFailure(stream, FLOW_CONTROL_ERROR, "more than the stream's window")
        if flags & PADDED:
            payload = frames.unpadded(payload)
        if size < SMALL_FRAME and not flags & END_STREAM:
            self._patience.spend(1)
        call.body += payload
        call.body_bytes += len(payload)
        if call.messages is not None:
            self._on_streamed(call, flags, len(payload))
        elif len(call.body) > self._bounds.message_bytes + PREFIX_BYTES:
            call.is_half_closed = bool(flags & END_STREAM)
            self.fail(call, RESOURCE_EXHAUSTED, "the message is too large")
        if flags & END_STREAM and not call.is_over:
            self._on_end(call)
        return call.messages is not None

    def _on_late_data(self, call: Call | None, flags: int, stream: int) -> None:
        """DATA where none may be: of a stream that is half-closed, over, or was never opened."""
        if call is not None:
            raise StreamFailure(stream, STREAM_CLOSED, "DATA after the end")
        if self._is_passed_over(stream, flags):
            return
        if self.is_idle(stream):
            raise ConnectionFailure(PROTOCOL_ERROR, f"DATA of stream {stream}, which is not open")
        raise ConnectionFailure(STREAM_CLOSED, f"DATA of stream {stream}, which is over")

    def _is_passed_over(self, stream: int, flags: int) -> bool:
        """Whether a frame of a stream that is over was on its way when we ended it."""
        if stream in self._unended:
            if flags & END_STREAM:
                del self._unended[stream]
        elif stream not in self._recently_reset:
            return False
        self._patience.spend(1)
        return True

    def is_idle(self, stream: int) -> bool:
        """Whether a stream was never opened (section 5.1)."""
        return stream > self.last_stream or stream % 2 == 0 or self._is_skipped(stream)

    def _is_skipped(self, stream: int) -> bool:
        at = bisect_right(self._skipped_from, stream) - 1
        return at >= 0 and stream < self._skipped_to[at]

    def _on_streamed(self, call: Call, flags: int, size: int) -> None:
        """Queue whole messages. A part of one is given back at once, since it may be larger than the window."""
        assert call.messages is not None
        before = len(call.body) - size
        while call.body[:1] != COMPRESSED and (message := take_message(call.body)) is not None:
            call.messages.put_nowait(message)
        self._unfinished_bytes += len(call.body) - before
        if call.body[:1] == COMPRESSED:
            self._give_up(call, flags, UNIMPLEMENTED, "plain messages are expected")
        elif self._unfinished_bytes > self._bounds.streamed_message_bytes + PREFIX_BYTES:
            self._give_up(call, flags, RESOURCE_EXHAUSTED, "the messages are too large")
        elif call.messages.empty():
            self._give_back(call)

    def _give_up(self, call: Call, flags: int, code: int, message: str) -> None:
        """End a call whose handler runs."""
        call.is_half_closed = bool(flags & END_STREAM)
        self.fail(call, code, message)
        if call.task is not None:
            call.task.cancel()

    def _consumed(self, call: Call) -> None:
        """A handler took a message; once it has them all, the client may send more."""
        if call.messages is not None and call.messages.empty() and call.stream in self._calls:
            self._give_back(call)
            self.output.flush_soon()

    def _give_back(self, call: Call) -> None:
        size, call.held = call.held, 0
        self._release(size)
        increment = call.window.release(size) if call.window is not None else 0
        if increment and not call.is_half_closed:
            self.output.send(frames.window_update(call.stream, increment))

    def _release(self, size: int) -> None:
        increment = self._window.release(size)
        if increment:
            self.output.send(frames.window_update(0, increment))

    def _on_end(self, call: Call) -> None:
        """The client has said all."""
        call.is_half_closed = True
        if call.content_length is not None and call.content_length != call.body_bytes:
            raise StreamFailure(call.stream, PROTOCOL_ERROR, "a content-length that is not the body's")
        if call.messages is not None:
            call.messages.put_nowait(None)
            return
        body = call.body
        if len(body) < PREFIX_BYTES or body[0] or int.from_bytes(body[1:5], "big") != len(body) - PREFIX_BYTES:
            self.fail(call, UNIMPLEMENTED if body[:1] == COMPRESSED else INTERNAL, "one plain message is expected")
            return
        message = bytes(body[PREFIX_BYTES:])
        immediate = self._host.immediate.get(call.path)
        try:
            response = immediate(message) if immediate is not None else None
        except Exception as error:  # the connection's other calls go on
            log.exception("http2.handler_crashed", path=call.path, exc_info=error)
            self.fail(call, UNKNOWN, "internal error")
            return
        if response is not None:
            self.output.respond(call, response)
            return
        body.clear()
        self._run(call, self._runner.unary(call, self._host.method(call.path), message))

    def on_reset(self, stream: int) -> None:
        if self.is_idle(stream):
            raise ConnectionFailure(PROTOCOL_ERROR, f"RST_STREAM of stream {stream}, which is not open")
        self._unended.pop(stream, None)
        call = self._calls.get(stream)
        if call is None or self._loop.time() - call.began < self._bounds.quick_reset_seconds or call.task is None:
            self._patience.spend(1)
        if call is not None:
            self._drop(call)

    def end_one(self, failure: StreamFailure) -> None:
        """End one stream, and nothing else."""
        call = self._calls.get(failure.stream)
        self._recently_reset.append(failure.stream)
        if call is not None:
            self._drop(call)
        self._patience.spend(1)
        if failure.code != REFUSED_STREAM:
            log.debug("http2.stream_reset", stream=failure.stream, error=str(failure))
        self.output.send(frames.reset(failure.stream, failure.code))

    def _remember_unended(self, stream: int) -> None:
        if len(self._unended) >= self._bounds.streams:  # a client need not say that it ends a stream that we have ended
            self._unended.popitem(last=False)
        self._unended[stream] = None

    def _drop(self, call: Call) -> None:
        """Forget a call, with what it held of the window, and stop its handler."""
        del self._calls[call.stream]
        self.output.forget(call)
        self._let_go(call)
        if call.task is not None:
            call.task.cancel()

    def _let_go(self, call: Call) -> None:
        """Of what a call that is over has held."""
        call.is_over = True
        if call.messages is not None:
            self._streaming -= 1
            self._unfinished_bytes -= len(call.body)
            call.body.clear()
        if call.held:
            self._release(call.held)
            call.held = 0

    def _finish(self, call: Call) -> None:
        """A call's last frame is sent."""
        if self._calls.pop(call.stream, None) is None:
            return
        self._patience.calls += 1
        self._let_go(call)
        if not call.is_half_closed:  # the client may stop sending (section 8.1)
            self._remember_unended(call.stream)
            self.output.send(frames.reset(call.stream, NO_ERROR))

    def fail(self, call: Call, code: int, message: str) -> None:
        """End a call with a gRPC status; nothing if it is over already."""
        if call.stream in self._calls:
            self.output.fail(call, code, message)


@dataclass(slots=True)
class _Block:
    """A header block that is not whole yet."""

    stream: int
    flags: int
    payload: bytes
    failure: StreamFailure | None
    frames: int = 1

"""gRPC over HTTP/2 on asyncio, as much of both as a proxy's side calls need: small messages, many calls, one loop.

A drop-in for the part of `grpc.aio.server` that the services use. Why not grpcio: each of its calls crosses threads and
costs over 200 µs of CPU; here a loop turn reads, answers and writes many calls at once. What makes that cheap:
SETTINGS_HEADER_TABLE_SIZE 0 (RFC 7541 section 4.2) makes equal header blocks mean equal headers, so each distinct block
is decoded once, and an answer's header blocks are constants.

Not here: TLS (connections are local or on the pod's network), server push, compression, priorities.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import structlog

log = structlog.get_logger()

# RFC 9113 section 6: frame types, flags, settings, error codes.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 0x1, 0x3, 0x4, 0x5
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, COMPRESSION_ERROR = 0x0, 0x1, 0x3, 0x6, 0x9
REFUSED_STREAM = 0x7

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES = 16_384
DEFAULT_WINDOW = 65_535
OUR_WINDOW = 1 << 24
REPLENISH_AT = 1 << 20
MAX_MESSAGE_BYTES = 1 << 20
MAX_STREAMED_BYTES = 1 << 25
"""Of a call whose client streams: an Envoy reports all of its quota buckets in one message."""
MAX_HEADER_BYTES = 1 << 16
MAX_STREAMS = 10_000
MAX_KNOWN_BLOCKS = 1_024
BACKLOG = 1_024

# gRPC status codes, https://grpc.github.io/grpc/core/md_doc_statuscodes.html
OK, UNKNOWN, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 2, 8, 12, 13, 14

Now = Callable[[bytes], bytes | None]
"""Answers a message at once, or None: the call then takes the way over a task."""


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing, both texts plain (RFC 7541 section 6.2.2). Both under 127 bytes."""
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


# `:status 200` is entry 8 of the static table, `content-type` the name of entry 31.
RESPONSE_BLOCK = b"\x88" + b"\x0f\x10\x10application/grpc"
OK_BLOCK = literal(b"grpc-status", b"0")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame (RFC 9113 section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _setting(name: int, value: int) -> bytes:
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


GREETING = frame(
    SETTINGS,
    0,
    0,
    _setting(HEADER_TABLE_SIZE, 0)
    + _setting(MAX_CONCURRENT_STREAMS, MAX_STREAMS)
    + _setting(INITIAL_WINDOW_SIZE, OUR_WINDOW),
) + frame(WINDOW_UPDATE, 0, 0, (OUR_WINDOW - DEFAULT_WINDOW).to_bytes(4, "big"))


class ProtocolError(Exception):
    """The peer broke the protocol: the connection ends with this code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Status(Exception):
    """Ends a call with a gRPC status other than OK."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Context:
    """What handlers ask of grpc's ServicerContext."""

    def __init__(self, write: Callable[[Any], None] | None = None) -> None:
        self.status: int = OK
        self.details = ""
        self._write = write

    async def write(self, answer: Any) -> None:
        """Of a call whose answers stream."""
        assert self._write is not None
        self._write(answer)

    def set_code(self, code: Any) -> None:
        """Of `grpc.StatusCode`, whose value is a pair of number and text."""
        self.status = code.value[0]

    def set_details(self, details: str) -> None:
        self.details = details

    async def abort(self, code: Any, details: str = "", trailing_metadata: object = ()) -> None:
        raise Status(code.value[0], details)


@dataclass(slots=True)
class _Call:
    """One stream."""

    stream: int
    path: str
    window: int
    body: bytearray = field(default_factory=bytearray)
    received: int = 0
    messages: asyncio.Queue[bytes | None] | None = None
    """Of a call whose client streams; None ends it."""
    task: asyncio.Task[None] | None = None
    out: deque[bytes] = field(default_factory=deque)
    """Bytes of DATA that the windows did not let through yet."""
    last: bytes = b""
    """The frame that ends the stream, once everything else is out."""
    answered: bool = False


class Server:
    """Serves generic gRPC handlers. `now` may answer some methods without a task, by full path."""

    def __init__(self, now: Mapping[str, Now] | None = None) -> None:
        self._now = dict(now or {})
        self._handlers: list[Any] = []
        self._methods: dict[str, Any] = {}
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self.connections: set[Connection] = set()
        self.known_blocks: dict[bytes, str] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        self._handlers += handlers

    def add_registered_method_handlers(self, _service: str, _methods: object) -> None:
        """grpc's generated code calls this beside add_generic_rpc_handlers, with the same methods."""

    def add_insecure_port(self, listen: str) -> int:
        """Bind `host:port` or `unix:PATH`. Answers the port. Raises OSError where it cannot be had."""
        if listen.startswith("unix:"):
            path = listen.removeprefix("unix:")
            Path(path).unlink(missing_ok=True)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(path)
            self._sockets.append(sock)
            return 0
        host, _, port = listen.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        sock = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
        self._sockets.append(sock)
        bound: int = sock.getsockname()[1]
        return bound

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await create(lambda: Connection(self), sock=sock, backlog=BACKLOG))

    async def stop(self, grace_seconds: float | None) -> None:
        """No new connections or calls; running ones may take `grace_seconds`."""
        for server in self._servers:
            server.close()
        running = [task for connection in self.connections for task in connection.retire()]
        if running:
            _, late = await asyncio.wait(running, timeout=grace_seconds or 0.001)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in list(self.connections):
            connection.close()

    def method(self, path: str) -> Any:
        """The handler of a path, None for one that nobody serves."""
        if path not in self._methods:
            details = _Details(path)
            found = (handler.service(details) for handler in self._handlers)
            handler = next((each for each in found if each is not None), None)
            if handler is None:
                return None  # not kept: any text may be asked for
            self._methods[path] = handler
        return self._methods[path]

    def now(self, path: str) -> Now | None:
        return self._now.get(path)


@dataclass(frozen=True)
class _Details:
    """What a generic handler looks at, as grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: tuple[object, ...] = ()


class Connection(asyncio.Protocol):
    """One client: frames in, answers out, each loop turn's answers in one write."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._greeted = False
        self._calls: dict[int, _Call] = {}
        self._last_stream = 0
        self._retired = False
        self._unfinished: tuple[int, int, bytes] | None = None
        self._decoder: Any = None
        self._stateless = False
        self._received = 0
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._blocked: deque[_Call] = deque()
        self._out: list[bytes] = []
        self._flushing = False

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop has a class of its own
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server.connections.add(self)
        transport.write(GREETING)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._transport = None
        for call in self._calls.values():
            if call.task is not None:
                call.task.cancel()
        self._calls.clear()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        try:
            at = 0 if self._greeted else self._greet(data)
            self._rest = data[self._frames(data, at) :] if self._greeted else data
        except ProtocolError as error:
            log.warning("http2.protocol_error", error=str(error))
            self._send(frame(GOAWAY, 0, 0, self._last_stream.to_bytes(4, "big") + error.code.to_bytes(4, "big")))
            self._flush()
            self.close()
            return
        if self._out:
            self._flush()

    # --- reading

    def _greet(self, data: bytes) -> int:
        if data[: len(PREFACE)] != PREFACE[: len(data)]:
            raise ProtocolError(PROTOCOL_ERROR, "the client does not speak HTTP/2")
        if len(data) < len(PREFACE):
            return 0
        self._greeted = True
        return len(PREFACE)

    def _frames(self, data: bytes, at: int) -> int:
        """Handle every whole frame; answers where the first that is not whole begins."""
        end = len(data)
        while end - at >= 9:
            length = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2]
            if length > FRAME_BYTES:
                raise ProtocolError(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            stop = at + 9 + length
            if stop > end:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFF_FFFF
            self._frame(data[at + 3], data[at + 4], stream, data[at + 9 : stop])
            at = stop
        return at

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._unfinished is not None and (kind != CONTINUATION or stream != self._unfinished[0]):
            raise ProtocolError(PROTOCOL_ERROR, "something between a header block's parts")
        if kind == DATA:
            self._on_data(flags, stream, payload)
        elif kind == HEADERS:
            self._on_headers(flags, stream, payload)
        elif kind == WINDOW_UPDATE:
            self._on_window_update(stream, payload)
        elif kind == RST_STREAM:
            self._on_reset(stream)
        elif kind == SETTINGS:
            self._on_settings(flags, payload)
        elif kind == PING:
            if not flags & ACK:
                self._send(frame(PING, ACK, 0, payload))
        elif kind == CONTINUATION:
            self._on_continuation(flags, payload)
        elif kind == PUSH_PROMISE:
            raise ProtocolError(PROTOCOL_ERROR, "a client cannot push")

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & HAS_PRIORITY:
            payload = payload[5:]
        if flags & END_HEADERS:
            self._on_block(stream, flags, payload)
        else:
            self._unfinished = (stream, flags, payload)

    def _on_continuation(self, flags: int, payload: bytes) -> None:
        if self._unfinished is None:
            raise ProtocolError(PROTOCOL_ERROR, "a continuation of nothing")
        stream, first_flags, begun = self._unfinished
        block = begun + payload
        if len(block) > MAX_HEADER_BYTES:
            raise ProtocolError(PROTOCOL_ERROR, "a header block without end")
        self._unfinished = None if flags & END_HEADERS else (stream, first_flags, block)
        if flags & END_HEADERS:
            self._on_block(stream, first_flags, block)

    def _on_block(self, stream: int, flags: int, block: bytes) -> None:
        path = self._path(block)
        if stream in self._calls:
            if flags & END_STREAM:  # the client's trailers
                self._on_end(self._calls[stream])
            return
        if stream % 2 == 0 or stream <= self._last_stream:
            raise ProtocolError(PROTOCOL_ERROR, f"stream {stream} after {self._last_stream}")
        self._last_stream = stream
        if self._retired or len(self._calls) >= MAX_STREAMS:
            self._send(frame(RST_STREAM, 0, stream, REFUSED_STREAM.to_bytes(4, "big")))
            return
        call = self._calls[stream] = _Call(stream, path, self._stream_window)
        method = self._server.method(path)
        if method is None:
            self._refuse(call, UNIMPLEMENTED, "no such method")
        elif method.request_streaming:
            call.messages = asyncio.Queue()
            call.task = self._loop.create_task(self._run_stream(call, method))
        if flags & END_STREAM:
            self._on_end(call)

    def _path(self, block: bytes) -> str:
        """The `:path` of a header block. With an empty dynamic table a block means the same whenever it is seen."""
        if self._stateless:
            known = self._server.known_blocks.get(block)
            if known is not None:
                return known
        if self._decoder is None:
            from hpack import Decoder

            self._decoder = Decoder()
        try:
            fields = self._decoder.decode(block, raw=True)
        except Exception as error:  # whatever the library raises, the connection's state is lost
            raise ProtocolError(COMPRESSION_ERROR, f"a header block cannot be read: {error}") from error
        path = next((value for name, value in fields if name == b":path"), b"").decode("latin-1")
        self._stateless = self._decoder.header_table_size == 0
        known_blocks = self._server.known_blocks
        is_size_update = b"\x20" <= block[:1] < b"\x40"  # which is for this moment only
        if self._stateless and not is_size_update and len(known_blocks) < MAX_KNOWN_BLOCKS:
            known_blocks[block] = path
        return path

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._received += len(payload)
        if self._received >= REPLENISH_AT:
            self._send(frame(WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big")))
            self._received = 0
        call = self._calls.get(stream)
        if call is None or call.answered:
            return
        call.received += len(payload)
        if flags & PADDED:
            payload = _unpadded(payload)
        call.body += payload
        most = MAX_MESSAGE_BYTES if call.messages is None else MAX_STREAMED_BYTES
        if len(call.body) > most + 5:
            self._refuse(call, RESOURCE_EXHAUSTED, "the message is too large")
            return
        if call.messages is not None:
            self._on_streamed(call)
        if flags & END_STREAM:
            self._on_end(call)

    def _on_streamed(self, call: _Call) -> None:
        assert call.messages is not None
        if call.received >= REPLENISH_AT:
            self._send(frame(WINDOW_UPDATE, 0, call.stream, call.received.to_bytes(4, "big")))
            call.received = 0
        while (message := _take_message(call.body)) is not None:
            call.messages.put_nowait(message)

    def _on_end(self, call: _Call) -> None:
        """The client said all."""
        if call.answered:
            return
        if call.messages is not None:
            call.messages.put_nowait(None)
            return
        body = call.body
        if len(body) < 5 or body[0] or int.from_bytes(body[1:5], "big") != len(body) - 5:
            self._refuse(call, UNIMPLEMENTED if body[:1] == b"\1" else INTERNAL, "one plain message is expected")
            return
        message = bytes(body[5:])
        answer_now = self._server.now(call.path)
        answer = answer_now(message) if answer_now is not None else None
        if answer is not None:
            self._answer(call, answer)
        else:
            call.task = self._loop.create_task(self._run(call, self._server.method(call.path), message))

    def _on_window_update(self, stream: int, payload: bytes) -> None:
        increment = int.from_bytes(payload, "big") & 0x7FFF_FFFF
        if stream == 0:
            self._window += increment
        elif stream in self._calls:
            self._calls[stream].window += increment
        for _ in range(len(self._blocked)):
            self._push(self._blocked.popleft())

    def _on_reset(self, stream: int) -> None:
        call = self._calls.pop(stream, None)
        if call is not None and call.task is not None:
            call.task.cancel()

    def _on_settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        for at in range(0, len(payload) - 5, 6):
            if int.from_bytes(payload[at : at + 2], "big") == INITIAL_WINDOW_SIZE:
                window = int.from_bytes(payload[at + 2 : at + 6], "big")
                for call in self._calls.values():
                    call.window += window - self._stream_window
                self._stream_window = window
        self._send(frame(SETTINGS, ACK, 0, b""))

    # --- running

    async def _run(self, call: _Call, method: Any, message: bytes) -> None:
        context = Context(lambda answer: self._stream_one(call, method, answer))
        with _Ending(self, call):
            request = method.request_deserializer(message) if method.request_deserializer else message
            if method.response_streaming:
                await self._stream_out(call, method, method.unary_stream(request, context), context)
                return
            answer = await method.unary_unary(request, context)
            if context.status != OK:
                raise Status(context.status, context.details)
            self._answer(call, method.response_serializer(answer) if method.response_serializer else answer)

    async def _run_stream(self, call: _Call, method: Any) -> None:
        context = Context(lambda answer: self._stream_one(call, method, answer))
        with _Ending(self, call):
            requests = self._messages(call, method)
            if method.response_streaming:
                await self._stream_out(call, method, method.stream_stream(requests, context), context)
                return
            answer = await method.stream_unary(requests, context)
            self._answer(call, method.response_serializer(answer) if method.response_serializer else answer)

    async def _messages(self, call: _Call, method: Any) -> AsyncIterator[Any]:
        assert call.messages is not None
        while (message := await call.messages.get()) is not None:
            yield method.request_deserializer(message) if method.request_deserializer else message

    async def _stream_out(self, call: _Call, method: Any, answers: Any, context: Context) -> None:
        self._send(frame(HEADERS, END_HEADERS, call.stream, RESPONSE_BLOCK))
        self._flush_soon()
        if isinstance(answers, Awaitable):
            await answers
        else:
            async for answer in answers:
                self._stream_one(call, method, answer)
        block = _status_block(context.status, context.details)
        call.last = frame(HEADERS, END_HEADERS | END_STREAM, call.stream, block)
        self._push(call)
        self._flush_soon()

    def _stream_one(self, call: _Call, method: Any, answer: Any) -> None:
        self._push_message(call, method.response_serializer(answer) if method.response_serializer else answer)
        self._flush_soon()

    # --- answering

    def _answer(self, call: _Call, message: bytes) -> None:
        """The whole answer to a call: headers, message, trailers."""
        stream = call.stream.to_bytes(4, "big")
        size = len(message) + 5
        if size > FRAME_BYTES or size > self._window or size > call.window or call.stream not in self._calls:
            self._answer_in_parts(call, message)
            return
        self._window -= size
        self._send(
            _RESPONSE_START + stream + RESPONSE_BLOCK
            + size.to_bytes(3, "big") + b"\0\0" + stream + b"\0" + len(message).to_bytes(4, "big") + message
            + _RESPONSE_END + stream + OK_BLOCK
        )  # fmt: skip
        del self._calls[call.stream]
        if call.task is not None:
            self._flush_soon()

    def _answer_in_parts(self, call: _Call, message: bytes) -> None:
        if call.stream not in self._calls:
            return  # the client gave up
        self._send(frame(HEADERS, END_HEADERS, call.stream, RESPONSE_BLOCK))
        call.last = frame(HEADERS, END_HEADERS | END_STREAM, call.stream, OK_BLOCK)
        self._push_message(call, message)
        self._flush_soon()

    def _push_message(self, call: _Call, message: bytes) -> None:
        body = b"\0" + len(message).to_bytes(4, "big") + message
        call.out.extend(body[at : at + FRAME_BYTES] for at in range(0, len(body), FRAME_BYTES))
        self._push(call)

    def _push(self, call: _Call) -> None:
        """Send what the windows allow; the rest waits for the client's WINDOW_UPDATE."""
        if call.stream not in self._calls:
            return
        while call.out:
            allowed = min(self._window, call.window)
            if allowed <= 0:
                self._blocked.append(call)
                return
            part = call.out.popleft()
            if len(part) > allowed:
                call.out.appendleft(part[allowed:])
                part = part[:allowed]
            self._window -= len(part)
            call.window -= len(part)
            self._send(frame(DATA, 0, call.stream, part))
        if call.last:
            self._send(call.last)
            del self._calls[call.stream]

    def refuse(self, call: _Call, code: int, message: str) -> None:
        """End a call with a status; nothing if it is over already."""
        self._refuse(call, code, message)
        self._flush_soon()

    def _refuse(self, call: _Call, code: int, message: str) -> None:
        if self._calls.pop(call.stream, None) is None:
            return
        call.answered = True
        block = b"\x88" + b"\x0f\x10\x10application/grpc" + _status_block(code, message)
        self._send(frame(HEADERS, END_HEADERS | END_STREAM, call.stream, block))

    def retire(self) -> list[asyncio.Task[None]]:
        """Say goodbye: calls that run may end, new ones go elsewhere."""
        self._retired = True
        self._send(frame(GOAWAY, 0, 0, self._last_stream.to_bytes(4, "big") + NO_ERROR.to_bytes(4, "big")))
        self._flush()
        return [call.task for call in self._calls.values() if call.task is not None and call.messages is None]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _send(self, data: bytes) -> None:
        self._out.append(data)

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()


_RESPONSE_START = len(RESPONSE_BLOCK).to_bytes(3, "big") + bytes((HEADERS, END_HEADERS))
_RESPONSE_END = len(OK_BLOCK).to_bytes(3, "big") + bytes((HEADERS, END_HEADERS | END_STREAM))


class _Ending:
    """Turns a handler's end into the call's: what it raises becomes a status."""

    def __init__(self, connection: Connection, call: _Call) -> None:
        self._connection, self._call = connection, call

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if error is None:
            return False
        if isinstance(error, Status):
            self._connection.refuse(self._call, error.code, str(error))
            return True
        if isinstance(error, Exception):
            log.exception("http2.handler_crashed", path=self._call.path, exc_info=error)
            self._connection.refuse(self._call, UNKNOWN, "internal error")
            return True
        self._connection.refuse(self._call, UNAVAILABLE, "stopped")
        return False


def _status_block(code: int, message: str) -> bytes:
    block = literal(b"grpc-status", str(code).encode())
    text = "".join(each if " " <= each <= "~" and each != "%" else "?" for each in message)[:120]
    return block + literal(b"grpc-message", text.encode()) if text else block


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ProtocolError(PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def _take_message(body: bytearray) -> bytes | None:
    """Cut the first whole message off the front; None if there is none yet."""
    if len(body) < 5:
        return None
    end = 5 + int.from_bytes(body[1:5], "big")
    if len(body) < end:
        return None
    message = bytes(body[5:end])
    del body[:end]
    return message

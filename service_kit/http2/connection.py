"""One client: frames in, responses out, and a bound on everything that a peer can make us hold or do.

No frame costs more than its own stream. A client that sends more than a loop turn's share waits for the next turn, one
that does not read its responses is not read from, and one that only keeps us busy is disconnected.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import cast

import structlog

from service_kit.http2 import frames
from service_kit.http2.bounds import Bounds, Host
from service_kit.http2.flow import Patience
from service_kit.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    FRAME_BYTES,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_BYTES,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    NO_ERROR,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_MASK,
    WINDOW_UPDATE,
    ConnectionFailure,
    StreamFailure,
)
from service_kit.http2.headers import MAX_LIST_BYTES
from service_kit.http2.streams import Streams

log = structlog.get_logger()


FRAMES_BETWEEN_LOOKS = 16
LINGER_SECONDS = 1.0


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._bounds = host.bounds
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._is_resuming = False
        self._is_write_paused = False
        self._was_used = False
        self._idle_since = self._loop.time()
        self._is_greeted = False
        self._has_ended = False
        """GOAWAY is sent: what still comes is dropped."""
        self._patience = Patience(self._bounds.allowance, time.monotonic)
        self._streams = Streams(host, self._loop, self._patience, self._watch_for_stall)
        self._output = self._streams.output
        self._timer: asyncio.TimerHandle | None = None
        self._seen_progress = 0

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our settings and wait for the client's preface."""
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop has a class of its own
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._output.open(transport)
        transport.write(greeting(self._bounds))
        self._timer = self._loop.call_later(self._bounds.preface_seconds, self._no_preface)
        self._host.connections.add(self)  # which may be one too many

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the calls any more."""
        self._host.connections.discard(self)
        self._transport = None
        self._output.close()
        if self._timer is not None:
            self._timer.cancel()
        self._streams.close()

    def pause_writing(self) -> None:
        """The client does not read: nothing more is read of it, until it does."""
        self._is_write_paused = True
        self._output.pause()
        self._pause_reading()
        self._watch_for_stall()

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_write_paused = False
        self._output.resume()
        self._resume_soon()

    def data_received(self, data: bytes) -> None:
        """Handle what came, as far as this turn's share goes."""
        if self._has_ended:
            return
        self._was_used = True
        if self._rest:
            data = self._rest + data
        if self._is_resuming or self._is_write_paused:
            self._rest = data
        else:
            self._read_on(data)

    # --- reading

    def _read_on(self, data: bytes) -> None:
        try:
            at = self._read(data)
        except ConnectionFailure as failure:
            self._end(failure.code, str(failure))
            return
        self._rest = data[at:] if at < len(data) else b""
        if self._output.pending:
            self._output.flush()

    def _read(self, data: bytes) -> int:
        """Handle every whole frame that fits into this turn; returns where the first other one begins."""
        at = 0
        if not self._is_greeted:
            if data[: len(PREFACE)] != PREFACE[: len(data)]:
                raise ConnectionFailure(PROTOCOL_ERROR, "the client does not speak HTTP/2")
            if len(data) < len(PREFACE) + HEADER_BYTES:
                return 0
            self._greet(data[len(PREFACE) : len(PREFACE) + HEADER_BYTES])
            at = len(PREFACE)
        streams, end, handled, deadline = self._streams, len(data), 0, 0.0
        while end - at >= HEADER_BYTES:
            length = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2]
            if length > FRAME_BYTES:
                raise ConnectionFailure(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            stop = at + HEADER_BYTES + length
            if stop > end:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big") & STREAM_MASK
            kind, flags, payload = data[at + 3], data[at + 4], data[at + HEADER_BYTES : stop]
            try:
                if kind > HEADERS or stream == 0 or streams.block is not None:
                    is_costly = self._rare_frame(kind, flags, stream, payload)
                elif kind == DATA:
                    is_costly = streams.on_data(flags, stream, payload)
                else:
                    is_costly = streams.on_headers(flags, stream, payload)
            except StreamFailure as failure:
                self._streams.end_one(failure)
                is_costly = True
            at = stop
            handled += 1
            if is_costly or handled % FRAMES_BETWEEN_LOOKS == 0:
                now = self._loop.time()
                deadline = deadline or now + self._bounds.turn_seconds / (1 + len(self._host.reads))
                if now >= deadline:
                    self._pause_reading()
                    self._resume_soon()
                    break
        return at

    def _pause_reading(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def _resume_soon(self) -> None:
        if not self._is_resuming:
            self._is_resuming = True
            self._host.reads.later(self._resume)

    def _resume(self) -> None:
        self._is_resuming = False
        if self._may_read():
            self._read_on(self._rest)
        if self._transport is not None and self._may_read() and not self._transport.is_reading():
            self._transport.resume_reading()

    def _may_read(self) -> bool:
        is_open = self._transport is not None and not self._transport.is_closing()
        return is_open and not (self._has_ended or self._is_resuming or self._is_write_paused)

    # --- frames

    def _greet(self, header: bytes) -> None:
        """Section 3.4: the client's preface ends in a SETTINGS frame, of which this is the beginning."""
        if header[3] != SETTINGS or header[4] & ACK:
            raise ConnectionFailure(PROTOCOL_ERROR, "the first frame is not SETTINGS")
        self._is_greeted = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rare_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        """Returns whether it may have cost more than a few microseconds."""
        block = self._streams.block
        if block is not None and (kind != CONTINUATION or stream != block.stream):
            raise ConnectionFailure(PROTOCOL_ERROR, "something between a header block's parts")
        if kind > CONTINUATION:  # section 4.1: types that are not known are ignored
            self._patience.spend(1)
            return False
        frames.check_shape(kind, stream, len(payload))
        if kind == WINDOW_UPDATE:
            self._on_window_update(stream, payload)
        elif kind == RST_STREAM:
            self._streams.on_reset(stream)
        elif kind == SETTINGS:
            self._on_settings(flags, payload)
        elif kind == PING:
            self._patience.spend(1)
            if not flags & ACK:
                self._output.send(frames.frame(PING, ACK, 0, payload))
        elif kind == CONTINUATION:
            self._streams.on_continuation(flags, payload)
        elif kind == PRIORITY:
            self._patience.spend(1)
            frames.check_dependency(stream, payload)
        elif kind == PUSH_PROMISE:
            raise ConnectionFailure(PROTOCOL_ERROR, "a client cannot push")
        elif kind == GOAWAY:
            self._patience.spend(1)
        return kind in (SETTINGS, CONTINUATION, WINDOW_UPDATE)

    def _on_window_update(self, stream: int, payload: bytes) -> None:
        self._patience.spend(1)
        increment = int.from_bytes(payload, "big") & STREAM_MASK
        if stream == 0:
            if increment == 0:
                raise ConnectionFailure(PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            self._output.widen(increment)
            return
        call = self._streams.get(stream)
        if call is None:
            if self._streams.is_idle(stream):
                raise ConnectionFailure(PROTOCOL_ERROR, f"WINDOW_UPDATE of stream {stream}, which is not open")
            return
        if increment == 0:
            raise StreamFailure(stream, PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        self._output.widen_stream(call, increment)

    def _on_settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            if payload:
                raise ConnectionFailure(FRAME_SIZE_ERROR, "an acknowledgement that says something")
            self._streams.settings_acknowledged()
            self._patience.spend(1)
            return
        for name, value in frames.read_settings(payload):
            if name == INITIAL_WINDOW_SIZE:
                self._patience.spend(1 + len(self._streams) // 8)
                self._output.resize_streams(value, list(self._streams))
        self._patience.spend(1 + len(payload) // 64)
        self._output.send(frames.frame(SETTINGS, ACK, 0, b""))

    # --- ends

    def _end(self, code: int, why: str) -> None:
        """GOAWAY, and the connection ends."""
        log.warning("http2.connection_ended", error=why, code=code)
        self._has_ended = True
        self._rest = b""
        self._output.send(frames.goaway(self._streams.last_stream, code))
        self._output.flush()
        self._output.close()
        self._streams.close()
        self._linger()

    def _linger(self) -> None:
        """Closing with bytes unread makes TCP drop what the peer has not read yet: the GOAWAY that says why."""
        if self._timer is not None:
            self._timer.cancel()
        transport = self._transport
        if transport is None:
            return
        if not transport.can_write_eof() or self._is_write_paused:
            transport.abort()
            return
        transport.write_eof()
        if not transport.is_reading():
            transport.resume_reading()
        self._timer = self._loop.call_later(LINGER_SECONDS, transport.abort)

    def _no_preface(self) -> None:
        self._timer = None
        self._end(PROTOCOL_ERROR, f"no preface within {self._bounds.preface_seconds:g} s")

    def _watch_for_stall(self) -> None:
        if self._timer is None and self._transport is not None:
            self._seen_progress = self._output.progress
            self._timer = self._loop.call_later(self._bounds.stall_seconds, self._look_for_stall)

    def _look_for_stall(self) -> None:
        self._timer = None
        is_stuck = self._is_write_paused or any(call.out for call in self._streams)
        if not is_stuck:
            return
        if self._output.progress == self._seen_progress and self._transport is not None:
            log.warning("http2.client_stalled", seconds=self._bounds.stall_seconds, calls=len(self._streams))
            self._transport.abort()
            return
        self._watch_for_stall()

    def retire(self) -> list[asyncio.Task[None]]:
        """Say goodbye: calls that run may end, new ones go elsewhere. Returns the tasks that end by themselves."""
        self._streams.is_retired = True
        self._output.send(frames.goaway(self._streams.last_stream, NO_ERROR))
        self._output.flush()
        return [call.task for call in self._streams if call.task is not None and call.messages is None]

    def idle_seconds(self) -> float:
        """How long it has had no calls and sent nothing, as far as that is known from asking now and then."""
        now = self._loop.time()
        if self._was_used or len(self._streams):
            self._was_used = False
            self._idle_since = now
        return now - self._idle_since

    def let_go(self) -> None:
        """Others need its place: its client may come again."""
        log.info("http2.idle_connection_closed")
        self.retire()
        self.close()

    def close(self) -> None:
        """Close once what was written is sent; at once where the client does not read."""
        if self._transport is None:
            return
        if self._is_write_paused:
            self._transport.abort()
        else:
            self._transport.close()


def greeting(bounds: Bounds) -> bytes:
    """Our settings and the connection's window."""
    settings = (
        frames.setting(frames.HEADER_TABLE_SIZE, 0)
        + frames.setting(frames.MAX_CONCURRENT_STREAMS, bounds.streams)
        + frames.setting(INITIAL_WINDOW_SIZE, bounds.stream_window)
        + frames.setting(frames.MAX_HEADER_LIST_SIZE, MAX_LIST_BYTES)
    )
    update = frames.window_update(0, bounds.connection_window - frames.DEFAULT_WINDOW)
    return frames.frame(SETTINGS, 0, 0, settings) + update

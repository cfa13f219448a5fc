"""One connection to Redis that many requests share: the requests of one turn of the loop go out in one write."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from ratelimit_service.counters.base import LinkMetrics
from ratelimit_service.errors import CountersUnavailable

_LATE_SECONDS = 0.002
_INCOMPLETE = object()


class Link(asyncio.Protocol):
    """Sends commands and returns their replies, which come in the order of the commands.

    redis-py opens the connection (address, TLS, login) and closes it. In between, this is the transport's protocol:
    redis-py's streams and its coroutine for each reply would cost a decision more than everything else does.
    """

    def __init__(self, connection: AbstractConnection, timeout_seconds: float, metrics: LinkMetrics) -> None:
        self._connection = connection
        self._metrics = metrics
        # A late reply is looked for twice, with a turn of the loop in between. If it was our own loop that was blocked,
        # the reply is in the socket by then.
        self._timeout = timeout_seconds
        self._patience = timeout_seconds * 0.75
        self._grace = timeout_seconds * 0.25
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._suspect: asyncio.Future[Any] | None = None
        self._look_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=ResponseError, notEnoughData=_INCOMPLETE
        )
        assert connection._writer is not None  # it has just connected
        self._transport = connection._writer.transport
        self._transport.set_protocol(self)

    def ask(self, *command: str | int) -> asyncio.Future[Any]:
        """The reply to a command; CountersUnavailable if the connection fails before it comes."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        if self._failure.done():
            reply.set_exception(CountersUnavailable("the connection has failed"))
            return reply
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub says one element
        self._waiting.append((reply, time.monotonic()))
        if self._timer is None:
            self._look_after(self._patience)
        return reply

    @property
    def has_failed(self) -> bool:
        """Whether no more replies will come."""
        return self._failure.done()

    def fail(self, error: CountersUnavailable) -> None:
        """Give the connection up and tell everyone who waits."""
        if not self._failure.done():
            self._failure.set_exception(error)
        while self._waiting:
            reply, _ = self._waiting.popleft()
            if not reply.done():
                reply.set_exception(error)

    async def run(self) -> None:
        """Until the connection fails."""
        try:
            await self._failure
        finally:
            self.fail(CountersUnavailable("closing"))
            if self._timer is not None:
                self._timer.cancel()
            self._transport.abort()  # a stalled server takes nothing more, so there is nothing to wait for
            with contextlib.suppress(RedisError, OSError):
                await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (result := self._reader.gets()) is not _INCOMPLETE:
                self._resolve(result)
        except (InvalidResponse, IndexError) as error:  # no Redis, or one reply too many
            self.fail(CountersUnavailable(f"{type(error).__name__}: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.fail(CountersUnavailable(f"connection lost: {error or 'closed by the server'}"))

    def _send(self) -> None:
        """Write all commands of this turn of the loop at once."""
        batch, self._unsent = self._unsent, []
        self._metrics.batch_sent(len(batch))
        if not self._failure.done():
            self._transport.write(b"".join(batch))

    def _resolve(self, result: Any) -> None:
        reply, asked_at = self._waiting.popleft()
        if not self._waiting:
            self._metrics.batch_answered(time.monotonic() - asked_at)
        if reply.done():  # its request was cancelled
            return
        if isinstance(result, ResponseError):
            reply.set_exception(result)
        else:
            reply.set_result(result)

    def _look_after(self, seconds: float) -> None:
        self._look_due = time.monotonic() + seconds
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Is the oldest command overdue? Suspect it first; give up if it still has no reply after the grace.

        If this look itself comes late, the machine is busy: then the store gets up to twice the time.
        """
        self._timer = None
        if not self._waiting:
            return
        now = time.monotonic()
        oldest, asked_at = self._waiting[0]
        age, is_late = now - asked_at, now - self._look_due > _LATE_SECONDS
        if age < self._patience:
            self._look_after(self._patience - age)
        elif oldest is not self._suspect or (is_late and age < 2 * self._timeout):
            self._suspect = oldest
            self._look_after(self._grace)
        else:
            self.fail(CountersUnavailable(f"no answer within {age * 1000:.0f} ms"))

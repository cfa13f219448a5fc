"""The demo upstream's loop: one thread over `selectors`, since importing asyncio takes longer than all of this."""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import struct
import time
from collections.abc import Callable
from typing import NoReturn

from controlplane.local.demo import echo
from controlplane.local.demo.echo import Echo, Plan
from controlplane.local.demo.wire import Answer, BadRequest, Reader, Request, encode

_NO_LINGER = struct.pack("ii", 1, 0)


class Connection:
    """One client: what it has sent, what it is still owed, and whether a request of it is being answered."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = Reader()
        self.outgoing = bytearray()
        self.busy = False
        self.closing = False
        self.open = True


class Server:
    """Accepts clients and gives each request, in the order of its connection, what `Echo` planned for it."""

    def __init__(self, listener: socket.socket, service: Echo) -> None:
        self._listener = listener
        self._service = service
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def run(self) -> NoReturn:
        """Serve until a signal handler raises."""
        while True:
            for key, events in self._selector.select(self._patience()):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._serve(key.data, events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def _patience(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # the client is already gone
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ, Connection(sock))

    def _serve(self, connection: Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(connection)
            if events & selectors.EVENT_READ and connection.open:
                self._receive(connection)
        except OSError:
            self._close(connection)

    def _receive(self, connection: Connection) -> None:
        data = connection.sock.recv(256 * 1024)
        if not data:
            self._close(connection)
            return
        connection.reader.feed(data)
        self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        """Take up requests until one of them has to wait."""
        while connection.open and not connection.busy and not connection.closing:
            try:
                request = connection.reader.next_request()
            except BadRequest as error:
                connection.closing = True
                self._send(connection, encode(Answer(400, [], str(error).encode()), head=False, close=True))
                return
            if request is None:
                if connection.reader.wants_continue():
                    self._send(connection, b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self._take_up(connection, request)

    def _take_up(self, connection: Connection, request: Request) -> None:
        plan = self._service.plan(request)
        if not plan.delay_seconds:
            self._carry_out(connection, request, plan)
            return
        connection.busy = True

        def later() -> None:
            connection.busy = False
            if connection.open:
                self._carry_out(connection, request, plan)
                self._advance(connection)

        heapq.heappush(self._timers, (time.monotonic() + plan.delay_seconds, next(self._order), later))

    def _carry_out(self, connection: Connection, request: Request, plan: Plan) -> None:
        if plan.act == echo.HANG:
            connection.busy = True  # for good: only the client can end this
        elif plan.act == echo.CLOSE:
            self._close(connection)
        elif plan.act == echo.RESET:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._close(connection)
        else:
            connection.closing = not request.keeps_alive
            head = request.method == "HEAD"
            self._send(connection, encode(plan.answer, head=head, close=connection.closing))

    def _send(self, connection: Connection, data: bytes) -> None:
        connection.outgoing += data
        try:
            self._flush(connection)
        except OSError:
            self._close(connection)

    def _flush(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.outgoing)
        except BlockingIOError:
            sent = 0
        del connection.outgoing[:sent]
        if connection.outgoing:
            self._selector.modify(connection.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
        elif connection.closing:
            self._close(connection)
        else:
            self._selector.modify(connection.sock, selectors.EVENT_READ, connection)

    def _close(self, connection: Connection) -> None:
        if connection.open:
            connection.open = False
            self._selector.unregister(connection.sock)
            connection.sock.close()

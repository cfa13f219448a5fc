"""An open-loop load generator: requests are due at fixed times, and waiting counts from the time a request was due.

A closed-loop generator such as wrk sends the next request when the last one was answered: while the target stalls, it
stalls too, and the wait is seen once instead of by all who would have come (coordinated omission). Here the schedule
goes on, and what cannot be sent yet grows old in the queue.

One thread, plain sockets, no pipelining. `select` waits in microseconds where epoll of Python waits in milliseconds.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.load.figures import percentile

CONNECTIONS = 128
DRAIN_SECONDS = 2.0
"""How long to wait for answers after the last request was due. What has none by then counts as this late."""


@dataclass(frozen=True)
class Lane:
    """A stream of requests at an even rate: whole requests as bytes, sent in turn."""

    name: str
    requests: Sequence[bytes]
    per_second: float


@dataclass
class Seen:
    """What a lane's requests met. Latencies in milliseconds, from the time a request was due to its whole answer."""

    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    broken: int = 0
    unanswered: int = 0

    def summary(self) -> dict[str, float]:
        """The figures of a report; an unanswered request is as late as we waited for it."""
        ordered = sorted(self.latencies) + [1000 * DRAIN_SECONDS] * (self.unanswered + self.broken)
        named = {f"p{percent}": round(percentile(ordered, percent), 2) for percent in (50, 95, 99)}
        refused = sum(count for status, count in self.statuses.items() if not 200 <= status < 400)
        counts = {"requests": len(ordered), "refused": refused, "errors": self.broken + self.unanswered}
        return {**named, "max": round(percentile(ordered, 100), 2), **counts}


def request(host: str, path: str, token: str | None = None) -> bytes:
    """A GET as bytes."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n".encode()


def schedule(lanes: Sequence[Lane], seconds: float) -> list[tuple[float, int, int]]:
    """When each request is due, in seconds from the start, with its lane and its number in it.

    Lanes begin within the fastest one's first interval, each at another time, so that they do not fall together.
    """
    apart = 1 / max(lane.per_second for lane in lanes) / (len(lanes) + 1)
    due = [
        ((index + 1) * apart + number / lane.per_second, index, number)
        for index, lane in enumerate(lanes)
        for number in range(round(lane.per_second * seconds))
    ]
    return sorted(due)


def answer_length(data: bytes | bytearray) -> int | None:
    """How long the answer at the start of `data` is with its body; None while its head is not whole."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return None
    at = data.find(b"content-length: ", 0, head)
    if at < 0:
        at = data.lower().find(b"content-length: ", 0, head)
    if at < 0:
        raise ValueError(f"an answer without Content-Length: {bytes(data[:head])!r}")
    return head + 4 + int(data[at + 16 : data.find(b"\r\n", at)])


def run(port: int, lanes: Sequence[Lane], seconds: float, connections: int = CONNECTIONS) -> dict[str, Seen]:
    """Send every lane's requests when they are due to a port of this machine; what each lane saw."""
    generator = _Generator(port, lanes, schedule(lanes, seconds), connections)
    gc.collect()
    gc.disable()  # a pause of ours would look like one of the target's
    try:
        generator.run()
    finally:
        gc.enable()
        generator.close()
    return {lane.name: seen for lane, seen in zip(lanes, generator.seen, strict=True)}


@dataclass
class _Connection:
    socket: socket.socket
    data: bytearray = field(default_factory=bytearray)
    due: float = 0.0
    lane: int = -1


class _Generator:
    def __init__(self, port: int, lanes: Sequence[Lane], due: list[tuple[float, int, int]], connections: int) -> None:
        self._address = ("127.0.0.1", port)
        self._lanes = lanes
        self._due = deque(due)
        self.seen = [Seen() for _ in lanes]
        self._epoll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._free: deque[_Connection] = deque()
        self._busy = 0
        for _ in range(connections):
            self._connect()

    def _connect(self) -> None:
        connected = socket.create_connection(self._address)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        connection = _Connection(connected)
        self._open[connected.fileno()] = connection
        self._epoll.register(connected.fileno(), select.EPOLLIN)
        self._free.append(connection)

    def run(self) -> None:
        start = time.perf_counter() + 0.01
        end = start + (self._due[-1][0] if self._due else 0) + DRAIN_SECONDS
        while (self._due or self._busy) and (now := time.perf_counter()) < end:
            self._send_due(start, now)
            self._await(start)
            self._receive(start)
        self._give_up()

    def _send_due(self, start: float, now: float) -> None:
        due, free = self._due, self._free
        while due and free and start + due[0][0] <= now:
            moment, lane, number = due.popleft()
            connection = free.popleft()
            connection.due, connection.lane = moment, lane
            self._busy += 1
            requests = self._lanes[lane].requests
            try:
                connection.socket.send(requests[number % len(requests)])
            except OSError:
                self._broke(connection)

    def _await(self, start: float) -> None:
        """Until an answer comes or a request is due that a connection is free for."""
        wait = DRAIN_SECONDS
        if self._due and self._free:
            wait = start + self._due[0][0] - time.perf_counter()
        if wait > 0:
            select.select([self._epoll], [], [], wait)

    def _receive(self, start: float) -> None:
        for descriptor, _ in self._epoll.poll(0):
            connection = self._open[descriptor]
            try:
                received = connection.socket.recv(65536)
            except OSError:
                received = b""
            if not received:
                self._broke(connection)
                continue
            connection.data += received
            length = answer_length(connection.data)
            if length is not None and len(connection.data) >= length:
                self._answered(connection, start)

    def _answered(self, connection: _Connection, start: float) -> None:
        seen = self.seen[connection.lane]
        seen.latencies.append(1000 * (time.perf_counter() - start - connection.due))
        status = int(connection.data[9:12])
        seen.statuses[status] = seen.statuses.get(status, 0) + 1
        connection.data.clear()
        connection.lane = -1
        self._busy -= 1
        self._free.append(connection)

    def _broke(self, connection: _Connection) -> None:
        """The connection is replaced; its request, if it had one, counts as broken."""
        if connection.lane >= 0:
            self.seen[connection.lane].broken += 1
            self._busy -= 1
        else:
            self._free.remove(connection)
        descriptor = connection.socket.fileno()
        self._epoll.unregister(descriptor)
        del self._open[descriptor]
        connection.socket.close()
        self._connect()

    def _give_up(self) -> None:
        for connection in self._open.values():
            if connection.lane >= 0:
                self.seen[connection.lane].unanswered += 1
        for _, lane, _ in self._due:
            self.seen[lane].unanswered += 1

    def close(self) -> None:
        for connection in self._open.values():
            connection.socket.close()
        self._epoll.close()

"""Contract 1: bodies stream with back-pressure, and Envoy keeps nothing for somebody who may not come in."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import Gateway, a_route, a_service, default_document, token
from tests.support.http2_client import Http2Client, http2, request
from tests.support.waiting import during, eventually
from tests.support.wire import Connection

MIB = 1 << 20
REQUIRED = "/api/v1/user/preferences"
UPLOADS = 400
"""Of each protocol. Each would hold a mebibyte."""
ROOM_MIB = 24


class Sink:
    """A service that takes what comes, as slowly as the test wants, and answers when told to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.received = b""
        self.is_reading = threading.Event()
        self.is_reading.set()
        self._connection: socket.socket | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        while self.is_reading.wait(30):
            try:
                data = connection.recv(65_536)
            except OSError:
                return
            if not data:
                return
            self._connection = connection
            self.received += data

    def answer(self, data: bytes) -> None:
        """Send this on the connection that data came on last."""
        assert self._connection is not None
        self._connection.sendall(data)

    def forget(self) -> None:
        """What came so far."""
        self.received = b""

    def close(self) -> None:
        self.is_reading.set()
        self._listener.close()


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    it = Sink()
    yield it
    it.close()


@pytest.fixture(scope="module")
def place(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The shipped configuration with routes to the sink."""
    document = default_document()
    document["services"] += [a_service("sink", f"http://127.0.0.1:{sink.port}", breaker={"failures": 10_000})]
    document["routes"] += [
        a_route("stream", "sink", max_request_bytes=1000),
        a_route("held", "sink", max_request_bytes=1000, buffer_request=True),
        a_route("huge", "sink", auth="required", max_request_bytes=256 * MIB),
    ]
    with Gateway(tmp_path_factory.mktemp("uploads") / "run", document=document) as gateway:
        yield gateway


def allocated_mib(gateway: Gateway) -> float:
    """Envoy's heap. What it gave back to its allocator does not count."""
    admin = gateway.component("envoy")["admin"]
    return int(json.loads(gateway.read(f"{admin}/memory"))["allocated"]) / MIB


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: gateway.test", *lines, "", ""]).encode()


@pytest.mark.parametrize("credential", [None, "Bearer a.b.c"], ids=["no token", "a bad token"])
def test_unfinished_uploads_over_http1_are_refused_and_not_kept(plain: Gateway, credential: str | None) -> None:
    """Each has its 401 while its body is on the way; on a busy machine authz may be late for a bad token."""
    lines = [f"Content-Length: {MIB}", *([f"Authorization: {credential}"] if credential else [])]
    before = allocated_mib(plain)
    with ExitStack() as stack:
        clients = [stack.enter_context(Connection(plain.address)) for _ in range(UPLOADS)]
        for client in clients:
            client.send(head(REQUIRED, *lines, method="PUT") + b"x" * 1000)
        answers = [client.receive() for client in clients]
        after = allocated_mib(plain)

    assert {answer.status for answer in answers if answer} <= {401, 503 if credential else 401}
    assert all(answers)
    assert after - before < ROOM_MIB


@pytest.mark.parametrize("credential", [None, "Bearer a.b.c"], ids=["no token", "a bad token"])
async def test_unfinished_uploads_over_http2_are_refused_and_not_kept(plain: Gateway, credential: str | None) -> None:
    """The same, and the connection goes on."""
    fields = request(REQUIRED, ("content-length", str(MIB)), method="PUT")
    fields += [("authorization", credential)] if credential else []
    before = await asyncio.to_thread(allocated_mib, plain)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(http2(plain.address)) for _ in range(UPLOADS // 100)]
        for client in clients:
            for stream in [client.start(fields, end=False) for _ in range(100)]:
                client.data(stream, b"x" * 1000)
        outcomes = [each for client in clients for each in await client.finish(*client.outcomes)]
        after = await asyncio.to_thread(allocated_mib, plain)
        again = [await served(client) for client in clients]

    assert {outcome.status for outcome in outcomes} <= {401, 503 if credential else 401}
    assert after - before < ROOM_MIB
    assert again == [200] * len(clients)


async def served(client: Http2Client) -> int:
    (outcome,) = await client.finish(client.start(request("/health/live")))
    return outcome.status


@pytest.mark.parametrize("path", ["/t/huge", REQUIRED])
def test_an_upload_without_a_token_is_refused_at_once(place: Gateway, path: str) -> None:
    """However much the route would take."""
    with Connection(place.address) as client:
        client.send(head(path, f"Content-Length: {MIB}", method="PUT" if path == REQUIRED else "POST"))
        answer = client.receive()

    assert answer is not None
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


def test_a_body_reaches_the_service_as_it_comes(place: Gateway, sink: Sink) -> None:
    """The first part is there before the last is sent."""
    sink.forget()
    with Connection(place.address) as client:
        client.send(head("/t/stream", "Content-Length: 10") + b"first")
        assert eventually(lambda: sink.received.endswith(b"first"))
        client.send(b"-last")
        assert eventually(lambda: sink.received.endswith(b"first-last"))
        sink.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        answer = client.receive()

    assert answer is not None
    assert answer.status == 200


def test_a_held_body_reaches_the_service_whole(place: Gateway, sink: Sink) -> None:
    """Nothing arrives before all of it is there."""
    sink.forget()
    with Connection(place.address) as client:
        client.send(head("/t/held", "Content-Length: 10") + b"first")
        for _ in during(0.3):
            assert sink.received == b""
        client.send(b"-last")
        assert eventually(lambda: sink.received.endswith(b"first-last"))
        sink.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        answer = client.receive()

    assert answer is not None
    assert answer.status == 200


@pytest.mark.parametrize("path", ["/t/stream", "/t/held"])
def test_chunks_over_the_limit_are_413(place: Gateway, path: str) -> None:
    """At the byte that exceeds it, if no answer has begun."""
    with Connection(place.address) as client:
        client.send(head(path, "Transfer-Encoding: chunked") + b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        client.send(b"1\r\nx\r\n")
        answer = client.receive()

    assert answer is not None
    assert (answer.status, answer.code) == (413, "PAYLOAD_TOO_LARGE")


async def test_http2_data_over_the_limit_is_413(place: Gateway) -> None:
    """At the byte that exceeds it, and exactly there: a last frame counts like any other."""
    async with http2(place.address) as client:
        stream = client.start(request("/t/stream", method="POST"), end=False)
        client.data(stream, b"x" * 1000)
        client.data(stream, b"x", end=True)
        (outcome,) = await client.finish(stream)

    assert outcome.status == 413
    assert b"PAYLOAD_TOO_LARGE" in outcome.body


def test_too_much_after_the_answer_began_ends_the_connection(place: Gateway, sink: Sink) -> None:
    """There is no status left to send."""
    sink.forget()
    with Connection(place.address) as client:
        client.send(head("/t/stream", "Transfer-Encoding: chunked") + b"1\r\nx\r\n")
        assert eventually(lambda: b"\r\n\r\n1\r\nx" in sink.received)
        sink.answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\ny\r\n")
        answer_began = client.read_head()
        client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")

        assert answer_began.startswith(b"HTTP/1.1 200")
        assert client.is_closed()


def test_a_service_that_does_not_read_holds_the_client_back(place: Gateway, sink: Sink) -> None:
    """Envoy holds a few buffers of an upload, not the upload."""
    before = allocated_mib(place)
    sink.is_reading.clear()
    sent = 0
    lines = (f"Content-Length: {200 * MIB}", f"Authorization: Bearer {token(tier='pro')}")
    with socket.create_connection(place.address.split(":"), timeout=1) as client:  # type: ignore[arg-type]
        client.sendall(head("/t/huge", *lines))
        try:
            while sent < 200 * MIB:
                sent += client.send(b"x" * 65_536)
        except TimeoutError:
            pass
        after = allocated_mib(place)
    sink.is_reading.set()

    assert sent < 64 * MIB, "nobody held the client back"
    assert after - before < 4


def test_a_request_that_does_not_arrive_in_time_is_408(start: StartGateway, tmp_path: Path) -> None:
    """Headers and bodies, however slowly they dribble; a response that has begun may take longer."""
    document = default_document()
    document["listener"] |= {"headers_timeout_seconds": 0.5, "request_timeout_seconds": 1}
    gateway = start(document=document)
    dribbled = {
        "headers": b"GET /api/v1/genres HTTP/1.1\r\n",
        "body": head("/api/v1/search", "Content-Length: 100"),
        "chunks": head("/api/v1/search", "Transfer-Encoding: chunked") + b"1\r\na\r\n",
    }
    for what, data in dribbled.items():
        with Connection(gateway.address) as client:
            client.send(data)
            answer = client.receive()
        assert answer is not None, what
        assert (answer.status, answer.code) == (408, "REQUEST_TIMEOUT"), what

    slow = gateway.ask("/api/v1/genres", headers=[("X-Demo-Delay", "1.5")])
    assert slow.status == 200

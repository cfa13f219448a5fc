"""A body that comes late: its request reached the upstream when it was charged, so no minute there holds too many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.e2e.leases.busy import decisions, hammer, request_of, the_document
from tests.support.gateway import Gateway, a_route, a_service, bearer, token, unique
from tests.support.waiting import eventually
from tests.support.wire import Connection

LIMIT = {"rps": 1, "rpm": 2000, "burst": 2000}
LATE = 80
"""Envoy has at most 100 connections to an endpoint."""


class Upstream(ThreadingHTTPServer):
    """Notes each request when its headers are there, and answers when its body is."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[str] = []
        Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def _serve(self) -> None:
        self.server.seen.append(self.command)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = _serve

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.shutdown()
    server.server_close()


def test_what_a_lease_paid_for_is_at_the_upstream_before_its_body(start: Any, upstream: Upstream) -> None:
    """Requests whose bodies are held back reach the upstream all the same; their bodies bring nothing that is new."""
    document = the_document()
    document["limits"]["tiers"]["late"] = LIMIT
    url = f"http://127.0.0.1:{upstream.server_port}"
    document["services"].append(a_service("slow", url, breaker={"failures": 10_000}, health_check=None))
    document["routes"].append(a_route("late", "slow"))
    gateway: Gateway = start(document=document)
    credential = bearer(token(unique(), "late"))
    hammer(gateway.address, request_of(credential, "/t/late"), requests=300)
    begun = "POST /t/late HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 4\r\n{}: {}\r\n\r\n".format(*credential)
    before = decisions(gateway)

    with ExitStack() as stack:
        clients = [stack.enter_context(Connection(gateway.address)) for _ in range(LATE)]
        for client in clients:
            client.send(begun.encode())
        assert eventually(lambda: upstream.seen.count("POST") == LATE), upstream.seen.count("POST")
        assert decisions(gateway) - before < LATE, "no lease paid"
        for client in clients:
            client.send(b"body")
        answers = [client.receive() for client in clients]

    assert {answer and answer.status for answer in answers} == {200}
    assert upstream.seen.count("POST") == LATE

"""Contract 1 and 7: an Envoy whose heap is full refuses new requests, and health on a port of its own goes on."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import Gateway, a_route, default_document, token
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.support.wire import Connection

MIB = 1 << 20


@pytest.fixture
def gateway(start: StartGateway) -> tuple[Gateway, str]:
    """With 64 MiB of heap, a route that holds bodies, and a port for health; and that port's address."""
    document = default_document()
    health = free_port()
    document["listener"]["health_port"] = health
    document["routes"] += [a_route("held", "discovery", max_request_bytes=64 * MIB, buffer_request=True)]
    started = start(document=document, environment={"MGW_ENVOY_HEAP_MIB": "64"})
    return started, f"127.0.0.1:{health}"


def test_a_full_heap(gateway: tuple[Gateway, str]) -> None:
    """New requests are 503 with Retry-After, health on the gateway's port included, until memory is free again."""
    place, health = gateway
    head = f"POST /t/held HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token(tier='enterprise')}\r\n"
    with ExitStack() as stack:
        for _ in range(3):
            upload = stack.enter_context(Connection(place.address))
            upload.send(f"{head}Content-Length: {30 * MIB}\r\n\r\n".encode() + b"x" * (25 * MIB))
        assert eventually(lambda: place.ask("/api/v1/genres").status == 503, 10)
        refused = [place.ask(path) for path in ("/api/v1/genres", "/health/live", "/nowhere")]
        asked = {path: place.ask(path, address=health).status for path in ("/health/live", "/health", "/health/ready")}

    assert {(answer.status, answer.code, answer.value("retry-after")) for answer in refused} == {
        (503, "SERVICE_UNAVAILABLE", "1")
    }
    assert asked == {"/health/live": 200, "/health": 200, "/health/ready": 200}
    assert eventually(lambda: place.ask("/api/v1/genres").status == 200, 10)


def test_the_port_for_health_serves_health_alone(gateway: tuple[Gateway, str]) -> None:
    """With ids as everywhere, and in HTTP/1.0 without a host; any other path is 404."""
    place, health = gateway

    found = place.ask("/health/live", headers=[("X-Request-ID", "mine"), ("X-Correlation-ID", "a b")], address=health)
    bare = place.send(b"GET /health/ready HTTP/1.0\r\n\r\n", address=health)
    other = place.ask("/api/v1/genres", address=health)
    wrong = place.ask("/health", "DELETE", address=health)

    assert (found.json(), found.value("x-request-id")) == ({"status": "alive"}, "mine")
    assert found.value("x-correlation-id") == "mine"
    assert bare is not None
    assert bare.status == 200
    assert (other.status, other.code) == (404, "NOT_FOUND")
    assert (wrong.status, wrong.value("allow")) == (405, "GET, HEAD")

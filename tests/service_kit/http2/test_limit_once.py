"""What a peer that ends a call more than once is charged by the rate-limit service."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from envoy_api.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.limiter import Limiter
from ratelimit_service.metrics import Metrics
from ratelimit_service.policy import read_policy
from ratelimit_service.rate_limit_server import SERVICE, RateLimitServer
from service_kit.http2 import Server
from service_kit.http2.frames import DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, STREAM_CLOSED, frame
from tests.support.http2_peer import Peer, connected, field, message

METHOD = f"/{SERVICE}/ShouldRateLimit"
TRAILERS = field("x-late", "1")


def a_request() -> bytes:
    request = rls_pb2.RateLimitRequest(domain="mgw")
    descriptor = request.descriptors.add()
    for key, value in (("route", "content"), ("tier", "free"), ("caller", "p/u1"), ("remote_address", "192.0.2.1")):
        descriptor.entries.add(key=key, value=value)
    return message(request.SerializeToString())


ENDS = {
    "END_STREAM": frame(DATA, END_STREAM, 1, b"") * 3,
    "trailers": frame(HEADERS, END_HEADERS | END_STREAM, 1, TRAILERS) * 3,
    "the message": frame(DATA, END_STREAM, 1, a_request()) * 3,
}


async def remaining(peer: Peer, stream: int) -> int:
    """What is left of the limit after one more call."""
    peer.open(stream, METHOD)
    peer.send(frame(DATA, END_STREAM, stream, a_request()))
    data = await peer.until(DATA, stream=stream)
    response = rls_pb2.RateLimitResponse.FromString(data.payload[5:])
    assert response.overall_code == rls_pb2.RateLimitResponse.OK
    return response.statuses[0].limit_remaining


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The rate-limit service's own server, with a limit of 100."""
    metrics = Metrics()
    policy = read_policy({"tiers": {"free": {"rps": 100, "rpm": 100, "burst": 100}}})
    server = Server()
    limiter = Limiter(MemoryCounters(clock=lambda: 1_000_000_000), None, metrics)
    server.add_generic_rpc_handlers([RateLimitServer(metrics, limiter, policy).handler()])
    listening = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield listening
    await server.stop(0)


@pytest.mark.parametrize("again", ENDS)
async def test_an_answered_request_is_charged_once(port: int, again: str) -> None:
    """However often its stream is ended after that: by DATA, by trailers, or by the message once more."""
    async with connected(port) as peer:
        assert await remaining(peer, 1) == 99
        peer.send(ENDS[again])
        assert (await peer.until(GOAWAY)).code == STREAM_CLOSED
    async with connected(port) as neighbour:
        assert await remaining(neighbour, 1) == 98


@pytest.mark.parametrize("again", ENDS)
async def test_a_request_that_ends_twice_at_once_is_not_charged(port: int, again: str) -> None:
    """It is reset before anybody decides on it, and the connection goes on."""
    async with connected(port) as peer:
        peer.open(1, METHOD)
        peer.send(frame(DATA, END_STREAM, 1, a_request()), ENDS[again])
        assert (await peer.until(RST_STREAM, stream=1)).code == STREAM_CLOSED
        assert await remaining(peer, 3) == 99

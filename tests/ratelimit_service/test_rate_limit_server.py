"""RateLimitService over a real channel."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.internal import api_implementation

from envoy_api.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.limiter import Limiter
from ratelimit_service.metrics import Metrics
from ratelimit_service.policy import read_policy
from ratelimit_service.rate_limit_server import RateLimitServer

Ask = Callable[[rls_pb2.RateLimitRequest], Awaitable[rls_pb2.RateLimitResponse]]
OK, OVER_LIMIT = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
POLICY = {
    "tiers": {"anonymous": {"rps": 5, "rpm": 100, "burst": 10}, "free": {"rps": 10, "rpm": 200, "burst": 20}},
    "routes": {"search": {"cost": 2}, "login": {"limits": {"rps": 100, "rpm": 3, "burst": 100}}},
}


def a_request(
    *callers: str, route: str = "content", domain: str = "mgw", hits: int = 0, own_hits: int | None = None
) -> rls_pb2.RateLimitRequest:
    request = rls_pb2.RateLimitRequest(domain=domain, hits_addend=hits)
    for caller in callers or ("p/u1",):
        descriptor = request.descriptors.add()
        entries = {"route": route, "tier": "free", "caller": caller, "remote_address": "10.0.0.1"}
        for key, value in entries.items():
            descriptor.entries.add(key=key, value=value)
        if own_hits is not None:
            descriptor.hits_addend.value = own_hits
    return request


def headers(response: rls_pb2.RateLimitResponse) -> dict[str, str]:
    return {header.key: header.value for header in response.response_headers_to_add}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(metrics: Metrics, clock: Any) -> RateLimitServer:
    return RateLimitServer(metrics, Limiter(MemoryCounters(clock=clock), None, metrics), read_policy(POLICY))


@pytest.fixture
async def ask(server: RateLimitServer) -> AsyncIterator[Ask]:
    grpc_server = grpc.aio.server()
    grpc_server.add_generic_rpc_handlers((server.handler(),))
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.unary_unary(
            "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
            request_serializer=rls_pb2.RateLimitRequest.SerializeToString,
            response_deserializer=rls_pb2.RateLimitResponse.FromString,
        )
    await grpc_server.stop(None)


def test_protobuf_is_fast() -> None:
    """Protobuf runs on its C implementation."""
    assert api_implementation.Type() == "upb"


async def test_allowed(ask: Ask) -> None:
    """An allowed request is told the state of the minute rule, in both dialects."""
    response = await ask(a_request())

    assert response.overall_code == OK
    assert headers(response) == {
        "X-RateLimit-Limit": "200",
        "X-RateLimit-Remaining": "199",
        "X-RateLimit-Reset": "1800000060",
        "RateLimit": '"minute";r=199;t=60',
        "RateLimit-Policy": '"burst";q=20;w=2, "minute";q=200;w=60',
    }
    assert not response.raw_body
    assert [(status.code, status.limit_remaining) for status in response.statuses] == [(OK, 199)]


async def test_refused_by_burst(ask: Ask) -> None:
    """A refused request is told the rule that refused, and how long to wait, twice the same."""
    for _ in range(20):
        await ask(a_request())
    response = await ask(a_request())

    assert response.overall_code == OVER_LIMIT
    assert json.loads(response.raw_body) == {
        "error": {"code": "RATE_LIMITED", "message": "Too many requests", "retry_after": 1}
    }
    told = headers(response)
    assert (told["X-RateLimit-Limit"], told["X-RateLimit-Remaining"], told["X-RateLimit-Reset"]) == (
        "20",
        "0",
        "1800000001",
    )
    assert (told["Retry-After"], told["Content-Type"], told["x-gateway-error"]) == (
        "1",
        "application/json",
        "RATE_LIMITED",
    )
    assert told["RateLimit"] == '"burst";r=0;t=1'
    assert response.dynamic_metadata["rule"] == "tier/burst"


async def test_refused_by_minute(ask: Ask) -> None:
    """The minute rule of a route with its own limits refuses in that counter's name."""
    for _ in range(3):
        assert (await ask(a_request(route="login"))).overall_code == OK
    response = await ask(a_request(route="login"))

    assert (headers(response)["X-RateLimit-Limit"], headers(response)["Retry-After"]) == ("3", "60")
    assert response.dynamic_metadata["rule"] == "route:login/minute"


@pytest.mark.parametrize(
    ("request_", "spent"),
    [
        (a_request(hits=0), 1),
        (a_request(hits=3), 3),
        (a_request(hits=3, own_hits=5), 5),
        (a_request(own_hits=0), 1),
        (a_request(route="search", hits=3), 6),
    ],
)
async def test_hits(ask: Ask, request_: rls_pb2.RateLimitRequest, spent: int) -> None:
    """No hits are one; a descriptor's own come before the request's; the route's cost multiplies them."""
    assert headers(await ask(request_))["X-RateLimit-Remaining"] == str(200 - spent)


async def test_several_descriptors(ask: Ask) -> None:
    """Any descriptor over its limit refuses the request, and then none is charged."""
    await ask(a_request("p/u1", hits=20))
    response = await ask(a_request("p/u1", "p/u2"))
    assert response.overall_code == OVER_LIMIT
    assert len(response.statuses) == 2

    assert headers(await ask(a_request("p/u2")))["X-RateLimit-Remaining"] == "199"


@pytest.mark.parametrize(
    "request_",
    [a_request(domain="other"), rls_pb2.RateLimitRequest(domain="mgw"), a_request("-", route="ping", domain="")],
)
async def test_unknown_shape(ask: Ask, metrics: Metrics, request_: rls_pb2.RateLimitRequest) -> None:
    """What no limit is known for passes, and is counted."""
    response = await ask(request_)

    assert (response.overall_code, headers(response)) == (OK, {})
    assert b"mgw_ratelimit_unmatched_descriptors_total 1.0" in metrics.text()


async def test_no_policy_yet(ask: Ask, server: RateLimitServer, metrics: Metrics) -> None:
    """Until a policy is known every request passes, and is counted."""
    server.plan = None

    assert (await ask(a_request())).overall_code == OK
    assert b"mgw_ratelimit_without_policy_total 1.0" in metrics.text()


async def test_new_policy_at_once(ask: Ask, server: RateLimitServer) -> None:
    """A new policy holds from the next request on, and what was spent stays spent."""
    await ask(a_request(hits=15))
    server.plan = read_policy({"tiers": {"free": {"rps": 10, "rpm": 18, "burst": 40}}})

    assert headers(await ask(a_request()))["X-RateLimit-Remaining"] == "2"


async def test_metrics(ask: Ask, metrics: Metrics) -> None:
    """Decisions are counted by tier and outcome, refusals by the counter and rule, callers nowhere."""
    for _ in range(21):
        await ask(a_request("p/secret-name"))
    text = metrics.text().decode()

    assert 'mgw_ratelimit_decisions_total{mode="exact",outcome="allowed",tier="free"} 20.0' in text
    assert 'mgw_ratelimit_refusals_total{counter="tier",rule="burst"} 1.0' in text
    assert "secret-name" not in text


@pytest.mark.parametrize(
    ("asked", "report", "told"),
    [("now/", "w.1", True), ("before/", "w.1", False), ("now/", None, False), ("yes", "w.1", False)],
)
async def test_how_long_a_refusal_holds(
    ask: Ask, server: RateLimitServer, asked: str, report: str | None, told: bool
) -> None:
    """Told to an Envoy worker that goes by the same numbers, in whole milliseconds: never longer than it holds."""
    server.plan = read_policy(POLICY | {"epoch": "now"})
    request = a_request()
    request.descriptors[0].entries.add(key="asked", value=asked)
    if report is not None:
        request.descriptors[0].entries.add(key="lease", value=report)
    answers = [await ask(request) for _ in range(21)]

    assert "over_limit_ms" not in answers[0].dynamic_metadata
    assert answers[20].overall_code == OVER_LIMIT
    assert ("over_limit_ms" in answers[20].dynamic_metadata) is told
    if told:
        assert answers[20].dynamic_metadata["over_limit_ms"] == 100

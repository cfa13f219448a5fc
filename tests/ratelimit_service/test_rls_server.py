"""What any Envoy gets for a policy of envoyproxy/ratelimit's form."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from envoy_api.envoy.service.ratelimit.v3 import rls_pb2
from envoy_api.envoy.type.v3 import ratelimit_unit_pb2
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.metrics import Metrics
from ratelimit_service.rate_limit_server import SERVICE
from ratelimit_service.rls_policy import read_texts
from ratelimit_service.rls_server import RlsServer
from ratelimit_service.windows import MAX_HITS

POLICY = """
domain: shop
descriptors:
  - {key: user, rate_limit: {unit: minute, requests_per_unit: 3, name: per-user}}
  - {key: path, value: "/slow*", rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: path, value: /free, rate_limit: {unlimited: true}}
  - {key: everyone, rate_limit: {unit: day, requests_per_unit: 1000}}
  - {key: trial, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: staff, rate_limit: {unit: minute, requests_per_unit: 50, name: staff, replaces: [{name: per-user}]}}
  - {key: plan, value: small, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: plan, value: large, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 3}}
  - {key: plan, value: tried, quota_mode: true, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: file, value: "*.png", share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 2}}
  - {key: gone, rate_limit: {unlimited: true, name: gone}}
  - {key: goes, rate_limit: {unit: minute, requests_per_unit: 1, replaces: [{name: gone}]}}
"""
OK, OVER = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
Units = rls_pb2.RateLimitResponse.RateLimit
Entry = tuple[str, str]


def a_request(*descriptors: tuple[Entry, ...] | list[Entry], hits: int = 0, domain: str = "shop") -> Any:
    request = rls_pb2.RateLimitRequest(domain=domain, hits_addend=hits)
    for entries in descriptors:
        descriptor = request.descriptors.add()
        for key, value in entries:
            descriptor.entries.add(key=key, value=value)
    return request


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(metrics: Metrics) -> RlsServer:
    return RlsServer(metrics, read_texts({"shop.yaml": POLICY}), 1000, is_alone=True)


def codes(response: Any) -> list[int]:
    return [status.code for status in response.statuses]


async def test_a_descriptor_has_its_own_status(server: RlsServer) -> None:
    """Each tells its limit, what remains, and when hits come back; without a limit it is simply OK."""
    response = await server.should_rate_limit(a_request([("user", "ann")], [("path", "/slow/x")], [("no", "limit")]))

    user, path, nothing = response.statuses
    assert response.overall_code == OK and codes(response) == [OK, OK, OK]
    assert (user.current_limit.name, user.current_limit.requests_per_unit) == ("per-user", 3)
    assert (user.current_limit.unit, user.limit_remaining) == (Units.MINUTE, 2)
    assert (path.current_limit.unit, path.limit_remaining) == (Units.HOUR, 1)
    assert user.duration_until_reset.seconds == 60
    assert not nothing.HasField("current_limit")


async def test_a_refusal_charges_nothing(server: RlsServer) -> None:
    """One descriptor over its limit refuses the request; the others say OK and are as they were."""
    asked = a_request([("user", "ann")], [("path", "/slow")])
    for _ in range(2):
        await server.should_rate_limit(asked)

    for _ in range(3):
        refused = await server.should_rate_limit(asked)
        assert refused.overall_code == OVER and codes(refused) == [OK, OVER]
        assert [status.limit_remaining for status in refused.statuses] == [1, 0]
    assert 0 < refused.statuses[1].duration_until_reset.seconds <= 3660


async def test_hits_are_the_requests_or_the_descriptors(server: RlsServer) -> None:
    """The request's hits hold for all descriptors, a descriptor's own before them; 0 there only asks."""
    first = await server.should_rate_limit(a_request([("everyone", "")], hits=5))
    assert first.statuses[0].limit_remaining == 995

    asked = a_request([("everyone", "")], [("user", "bob")], hits=5)
    asked.descriptors[0].hits_addend.value = 10
    asked.descriptors[1].hits_addend.value = 0
    second = await server.should_rate_limit(asked)
    assert [status.limit_remaining for status in second.statuses] == [985, 3]

    asked.descriptors[0].is_negative_hits = True
    third = await server.should_rate_limit(asked)
    assert third.statuses[0].limit_remaining == 985, "hits are not returned"


async def test_a_request_may_bring_its_own_limit(server: RlsServer) -> None:
    """`limit` in a descriptor comes before the policy's, in a domain that the policy knows."""
    for domain, expected in (("shop", OVER), ("elsewhere", OK)):
        asked = a_request([("user", "eve")], domain=domain)
        asked.descriptors[0].limit.requests_per_unit = 1
        asked.descriptors[0].limit.unit = ratelimit_unit_pb2.HOUR
        await server.should_rate_limit(asked)
        assert (await server.should_rate_limit(asked)).overall_code == expected


async def test_unlimited_is_counted_nowhere(server: RlsServer) -> None:
    """It says so by the largest remainder there is."""
    response = await server.should_rate_limit(a_request([("path", "/free")]))

    assert response.overall_code == OK and response.statuses[0].limit_remaining == MAX_HITS


async def test_a_shadow_passes_and_is_counted(server: RlsServer, metrics: Metrics) -> None:
    """Its status is OK with nothing remaining; a metric says what it would have refused."""
    for _ in range(3):
        response = await server.should_rate_limit(a_request([("trial", "x")]))

    assert response.overall_code == OK and codes(response) == [OK] and response.statuses[0].limit_remaining == 0
    assert 'mgw_ratelimit_shadow_refusals_total{counter="trial",rule="minute"} 2.0' in metrics.text().decode()


async def test_a_limit_may_replace_another(server: RlsServer) -> None:
    """Where both are asked, the replaced one holds nothing and says nothing."""
    for _ in range(5):
        response = await server.should_rate_limit(a_request([("user", "ann")], [("staff", "ann")]))

    assert response.overall_code == OK
    assert [status.HasField("current_limit") for status in response.statuses] == [False, True]


async def test_values_have_counters_of_their_own(server: RlsServer) -> None:
    """A limit of a key alone, or of a wildcard, is for each value."""
    for user in ("ann", "bob"):
        for _ in range(3):
            assert (await server.should_rate_limit(a_request([("user", user)]))).overall_code == OK
        assert (await server.should_rate_limit(a_request([("user", user)]))).overall_code == OVER


async def test_the_same_descriptor_twice_is_charged_twice(server: RlsServer) -> None:
    """Together, so that half of a request cannot pass."""
    asked = a_request([("user", "ann")], [("user", "ann")])

    assert (await server.should_rate_limit(asked)).overall_code == OK
    refused = await server.should_rate_limit(asked)
    assert refused.overall_code == OVER and codes(refused) == [OVER, OVER]


async def test_nothing_asked_is_nothing_refused(server: RlsServer) -> None:
    """A status for each descriptor, and OK for all."""
    response = await server.should_rate_limit(a_request([("no", "limit")], domain="elsewhere"))

    assert response.overall_code == OK and codes(response) == [OK]
    assert (await server.should_rate_limit(a_request())).overall_code == OK


async def test_without_the_store_each_replica_counts_alone(metrics: Metrics) -> None:
    """Degraded decisions are limited and counted as such."""

    class Broken:
        async def call(self, *_: object) -> Any:
            raise CountersUnavailable("gone")

    server = RlsServer(metrics, read_texts({"shop.yaml": POLICY}), 1000)
    server.use_store(Broken())
    answers = [await server.should_rate_limit(a_request([("user", "ann")])) for _ in range(4)]

    assert [answer.overall_code for answer in answers] == [OK, OK, OK, OVER]
    assert 'mgw_ratelimit_degraded_decisions_total{mode="share"} 4.0' in metrics.text().decode()


async def test_over_a_real_port(server: RlsServer) -> None:
    """The service's name and method are Envoy's."""
    running = grpc.aio.server()
    running.add_generic_rpc_handlers([server.handler()])
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/ShouldRateLimit",
            request_serializer=rls_pb2.RateLimitRequest.SerializeToString,
            response_deserializer=rls_pb2.RateLimitResponse.FromString,
        )
        answers = await asyncio.gather(*(ask(a_request([("user", "zoe")])) for _ in range(20)))
    await running.stop(0)

    assert sum(answer.overall_code == OK for answer in answers) == 3


async def test_quotas_refuse_together(server: RlsServer) -> None:
    """One that has room lets the request pass; the status of one that is over says so all the same."""
    asked = a_request([("plan", "small")], [("plan", "large")])
    answers = [await server.should_rate_limit(asked) for _ in range(5)]

    assert [answer.overall_code for answer in answers] == [OK, OK, OK, OVER, OVER]
    assert [codes(answer) for answer in answers] == [[OK, OK], [OVER, OK], [OVER, OK], [OVER, OVER], [OVER, OVER]]
    assert [answer.statuses[1].limit_remaining for answer in answers] == [2, 1, 0, 0, 0]


async def test_a_quota_does_not_open_a_limit(server: RlsServer) -> None:
    """A descriptor that is no quota refuses by itself, and one quota alone is a limit."""
    beside = a_request([("path", "/slow")], [("plan", "large")])
    assert [(await server.should_rate_limit(beside)).overall_code for _ in range(3)] == [OK, OK, OVER]

    alone = a_request([("plan", "small")])
    assert [(await server.should_rate_limit(alone)).overall_code for _ in range(2)] == [OK, OVER]


async def test_a_quota_in_shadow_is_never_over(server: RlsServer) -> None:
    """So the other quotas refuse nothing beside it."""
    asked = a_request([("plan", "tried")], [("plan", "small")])
    answers = [await server.should_rate_limit(asked) for _ in range(3)]

    assert [answer.overall_code for answer in answers] == [OK, OK, OK]
    assert codes(answers[2]) == [OK, OVER]


async def test_a_shared_threshold(server: RlsServer) -> None:
    """All values that the wildcard fits spend from one counter."""
    answers = [await server.should_rate_limit(a_request([("file", f"{name}.png")])) for name in "abc"]

    assert [answer.overall_code for answer in answers] == [OK, OK, OVER]


async def test_unlimited_is_not_replaced(server: RlsServer) -> None:
    """What another limit replaces is a limit."""
    response = await server.should_rate_limit(a_request([("gone", "x")], [("goes", "x")]))

    assert [status.limit_remaining for status in response.statuses] == [MAX_HITS, 0]

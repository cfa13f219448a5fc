"""Envoy's quota protocol over a real port, on both transports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest

from envoy_api.envoy.service.rate_limit_quota.v3 import rlqs_pb2
from ratelimit_service.metrics import Metrics
from ratelimit_service.policy import Plan, read_policy
from ratelimit_service.quota import NOTHING, TTL_SECONDS, Assignment, Share
from ratelimit_service.quota_server import SERVICE, QuotaServer, find_budget, read_bucket, render
from service_kit import http2
from service_kit.grpc_server import OPTIONS
from tests.support.waiting import until

FREE = {"rps": 10, "rpm": 200, "burst": 20}
PRO = {"rps": 50, "rpm": 1000, "burst": 100}
SCARCE = {"rps": 1, "rpm": 30, "burst": 3}


def a_plan(free: Mapping[str, int] = FREE, **more: Any) -> Plan:
    tiers = {"anonymous": {"rps": 5, "rpm": 100, "burst": 10}, "free": dict(free), "pro": PRO}
    return read_policy({"tiers": tiers, "routes": {"scarce": {"limits": SCARCE}}} | more)


def a_bucket(caller: str = "platform/alice", tier: str = "free", counter: str = "") -> dict[str, str]:
    """As Envoy makes it of what the request says: no entry for what it does not say."""
    return {"caller": f"{tier} {caller}"} | ({"counter": counter} if counter else {})


def of_address(address: str) -> dict[str, str]:
    """An anonymous caller's."""
    return {"address": address}


class FakeEnvoy:
    """One stream, and the assignments that came over it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call: Any = channel.stream_stream(
            f"/{SERVICE}/StreamRateLimitQuotas",
            request_serializer=rlqs_pb2.RateLimitQuotaUsageReports.SerializeToString,
            response_deserializer=rlqs_pb2.RateLimitQuotaResponse.FromString,
        )()

    async def report(self, *buckets: Mapping[str, str], allowed: int = 1, denied: int = 0, domain: str = "mgw") -> None:
        message = rlqs_pb2.RateLimitQuotaUsageReports(domain=domain)
        for bucket in buckets:
            usage = message.bucket_quota_usages.add(num_requests_allowed=allowed, num_requests_denied=denied)
            usage.bucket_id.bucket.update(bucket)
        await self.call.write(message)

    async def told(self) -> list[rlqs_pb2.RateLimitQuotaResponse.BucketAction]:
        response = await asyncio.wait_for(self.call.read(), 3)
        return list(response.bucket_action)

    async def share(self) -> tuple[int, int]:
        """The one assignment that comes next, as tokens and tokens a minute."""
        (action,) = await self.told()
        bucket = action.quota_assignment_action.rate_limit_strategy.token_bucket
        return bucket.max_tokens, bucket.tokens_per_fill.value


class Running:
    """A quota server on a port of its own."""

    def __init__(self, server: QuotaServer, port: int, metrics: Metrics) -> None:
        self.server, self.port, self.metrics = server, port, metrics
        self._channels: list[grpc.aio.Channel] = []

    def envoy(self) -> FakeEnvoy:
        """An Envoy with a connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options))
        return FakeEnvoy(self._channels[-1])

    async def has_read_a_report(self) -> None:
        """Streams are counted with every report that was taken in."""
        await until(lambda: b"mgw_ratelimit_quota_streams 1.0" in self.metrics.text())

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


@contextlib.asynccontextmanager
async def running(transport: str, plan: Plan | None) -> AsyncIterator[Running]:
    metrics = Metrics()
    quotas = QuotaServer(metrics)
    if plan is not None:
        quotas.adopt(plan)
    server: Any = http2.Server() if transport == "native" else grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers([quotas.handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    started = Running(quotas, port, metrics)
    try:
        yield started
    finally:
        await started.close()
        await server.stop(0)


@pytest.fixture(params=["native", "grpcio"])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with running(request.param, a_plan()) as started:
        yield started


async def test_a_first_report_is_answered_with_the_share(service: Running) -> None:
    """The first report of a bucket asks for its assignment: a token bucket with a time to live."""
    envoy = service.envoy()
    await envoy.report(a_bucket())

    (action,) = await envoy.told()

    assigned = action.quota_assignment_action
    assert dict(action.bucket_id.bucket) == a_bucket(), "Envoy finds its bucket by the very same id"
    assert assigned.assignment_time_to_live.seconds == TTL_SECONDS
    bucket = assigned.rate_limit_strategy.token_bucket
    assert (bucket.max_tokens, bucket.tokens_per_fill.value, bucket.fill_interval.seconds) == (20, 600, 60)


async def test_a_second_envoy_gets_half_and_the_first_is_told(service: Running) -> None:
    """Shares are pushed to every Envoy that they change for, and return when a connection breaks."""
    one, two = service.envoy(), service.envoy()
    await one.report(a_bucket())
    assert await one.share() == (20, 600)
    await two.report(a_bucket())

    assert await one.share() == (10, 300)
    assert await two.share() == (10, 300)

    two.call.cancel()
    assert await one.share() == (20, 600)


async def test_a_new_policy_is_told_at_once(service: Running) -> None:
    """No report is needed for a changed table to reach Envoy."""
    envoy = service.envoy()
    await envoy.report(a_bucket())
    await envoy.share()

    service.server.adopt(a_plan({"rps": 30, "rpm": 900, "burst": 60}))

    assert await envoy.share() == (60, 1800)


async def test_tiers_and_routes_have_buckets_of_their_own(service: Running) -> None:
    """A route with numbers of its own is its own counter; the address stands for an anonymous caller."""
    envoy = service.envoy()
    buckets = [a_bucket(tier="pro"), a_bucket(counter="scarce"), of_address("192.0.2.7")]
    await envoy.report(*buckets)

    tokens = {
        frozenset(action.bucket_id.bucket.items()): action.quota_assignment_action.rate_limit_strategy.token_bucket
        for action in await envoy.told()
    }

    assert [tokens[frozenset(bucket.items())].max_tokens for bucket in buckets] == [100, 3, 10]


async def test_a_strangers_domain_is_not_answered(service: Running) -> None:
    """Only the gateway's own domain has quotas here."""
    envoy = service.envoy()
    await envoy.report(a_bucket("platform/other"), domain="elsewhere")
    await envoy.report(a_bucket())

    (action,) = await envoy.told()
    assert action.bucket_id.bucket["caller"] == "free platform/alice"


async def test_a_report_may_be_large(service: Running) -> None:
    """An Envoy reports all of its buckets in one message, of several megabytes."""
    envoy = service.envoy()
    await envoy.report(*(a_bucket(f"platform/{'x' * 200}{number}") for number in range(10_000)))
    told = 0
    while told < 10_000:
        told += len(await envoy.told())

    assert told == 10_000


async def test_what_is_reported_is_counted(service: Running) -> None:
    """Metrics tell what Envoys let pass and refused, by tier."""
    envoy = service.envoy()
    await envoy.report(a_bucket(), allowed=7, denied=3)
    await envoy.told()

    text = service.metrics.text().decode()
    assert 'mgw_ratelimit_quota_requests_total{outcome="allowed",tier="free"} 7.0' in text
    assert 'mgw_ratelimit_quota_requests_total{outcome="refused",tier="free"} 3.0' in text


async def test_without_a_policy_nothing_is_assigned() -> None:
    """Until the first policy Envoy's ceiling holds; then the next report is answered."""
    async with running("native", None) as service:
        envoy = service.envoy()
        await envoy.report(a_bucket())
        await service.has_read_a_report()
        service.server.adopt(a_plan())
        await envoy.report(a_bucket("platform/bob"))

        assert (await envoy.told())[-1].bucket_id.bucket["caller"] == "free platform/bob"


def test_a_callers_tiers_share_one_counter() -> None:
    """What was spent stays spent when the tier changes, as with the exact limits."""
    plan = a_plan()
    free = find_budget(tuple(sorted(a_bucket().items())), plan)
    pro = find_budget(tuple(sorted(a_bucket(tier="pro").items())), plan)

    assert free and pro and free.counter == pro.counter and free.limit != pro.limit


def test_an_address_is_no_caller() -> None:
    """An anonymous caller at an address never shares a counter with a subject of that name."""
    address = read_bucket(tuple(of_address("192.0.2.7").items()))
    subject = read_bucket(tuple(sorted(a_bucket("platform/192.0.2.7").items())))

    assert (address.caller, address.remote_address) == ("-", "192.0.2.7")
    assert (subject.caller, subject.remote_address) == ("platform/192.0.2.7", "")


def test_a_subject_may_have_spaces() -> None:
    """A tier's name has none, so that the first one ends it."""
    asked = read_bucket(tuple(a_bucket("platform/pro admin  x", tier="free").items()))

    assert (asked.tier, asked.caller) == ("free", "platform/pro admin  x")


def test_no_share_is_a_refusal_and_no_bucket_an_end() -> None:
    """DENY_ALL where nothing is left, ABANDON where the bucket is to be forgotten."""
    response = render([Assignment(1, (("caller", "a"),), NOTHING), Assignment(1, (("caller", "b"),), None)])

    refused, ended = response.bucket_action
    strategy = refused.quota_assignment_action.rate_limit_strategy
    assert strategy.WhichOneof("strategy") == "blanket_rule" and strategy.blanket_rule == strategy.DENY_ALL
    assert ended.WhichOneof("bucket_action") == "abandon_action"


def test_a_share_is_a_bucket_filled_by_the_minute() -> None:
    """Envoy 1.40 takes whole seconds for the interval and compares buckets without it: it never changes."""
    response = render([Assignment(1, (("caller", "a"),), Share(3, 7))])

    bucket = response.bucket_action[0].quota_assignment_action.rate_limit_strategy.token_bucket
    assert (bucket.max_tokens, bucket.tokens_per_fill.value, bucket.fill_interval.seconds) == (3, 7, 60)

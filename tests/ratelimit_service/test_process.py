"""The process: it starts, serves, degrades, and ends quietly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from envoy_api.envoy.service.ratelimit.v3 import rls_pb2
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
POLICY = {"tiers": {"anonymous": {"rps": 1000, "rpm": 100, "burst": 1000}}}
BAD_POLICIES = Path(__file__).parent / "bad_policies"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Process:
    """`python -m ratelimit_service` on a unix socket."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.address = f"unix:{folder}/rl.sock"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ratelimit_service"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "MGW_LISTEN": self.address} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, event: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            entry: dict[str, Any] = json.loads(line)
            if entry["event"] == event:
                return entry
        raise AssertionError(f"no {event}: {self.process.stderr and self.process.stderr.read()}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


@pytest.fixture
def start(tmp_path: Path, valkey: Any) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []
    policy_file = tmp_path / "policy.json"
    policy_file.write_text(json.dumps(POLICY))

    def start_one(**environment: str) -> Process:
        folder = tmp_path / str(len(processes))
        folder.mkdir()
        given = {"REDIS_URL": valkey.url, "MGW_POLICY_FILE": str(policy_file)} | environment
        processes.append(Process(folder, **given))
        return processes[-1]

    yield start_one
    for process in processes:
        process.process.kill()
        process.process.communicate()


def a_request() -> rls_pb2.RateLimitRequest:
    request = rls_pb2.RateLimitRequest(domain="mgw")
    descriptor = request.descriptors.add()
    for key, value in {"route": "r", "tier": "free", "caller": "p/u1", "remote_address": "10.0.0.1"}.items():
        descriptor.entries.add(key=key, value=value)
    return request


@contextlib.asynccontextmanager
async def asking(process: Process) -> Any:
    async with grpc.aio.insecure_channel(process.address) as channel:
        yield asking_on(channel)


def asking_on(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(
        "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
        request_serializer=rls_pb2.RateLimitRequest.SerializeToString,
        response_deserializer=rls_pb2.RateLimitResponse.FromString,
    )


def health(process: Process, service: str = "") -> int:
    with grpc.insecure_channel(process.address) as channel:
        status: int = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service)).status
        return status


def _counts_in_the_store(process: Process) -> bool:
    return bool(health(process, "store") == SERVING)


async def test_exact_over_replicas(start: Callable[..., Process]) -> None:
    """300 calls at once over two replicas and several connections: exactly the limit is admitted."""
    replicas = [start(), start()]
    for replica in replicas:
        replica.wait_for("store.up")
    async with contextlib.AsyncExitStack() as stack:
        asks = [await stack.enter_async_context(asking(replica)) for replica in replicas * 3]
        answers = await asyncio.gather(*(asks[number % 6](a_request(), wait_for_ready=True) for number in range(300)))

    assert sum(answer.overall_code == rls_pb2.RateLimitResponse.OK for answer in answers) == 100


def test_life(start: Callable[..., Process], free_port: Callable[[], int]) -> None:
    """It says when it is ready, reports health and metrics, and ends with 0 on SIGTERM."""
    metrics = f"127.0.0.1:{free_port()}"
    process = start(MGW_METRICS_LISTEN=metrics)
    ready = process.wait_for("ratelimit.ready")
    assert ready["address"] == process.address
    process.wait_for("store.up")

    assert health(process) == SERVING
    assert health(process, "store") == SERVING
    with urllib.request.urlopen(f"http://{metrics}/metrics") as answer:
        assert b"mgw_ratelimit_store_up 1.0" in answer.read()
    assert process.stop() == 0


async def test_store_unreachable_at_start(start: Callable[..., Process]) -> None:
    """Without its store it starts all the same, says so once, and enforces its share."""
    process = start(REDIS_URL="redis://:secret@127.0.0.1:1/0")
    process.wait_for("ratelimit.ready")
    down = process.wait_for("store.down")
    async with asking(process) as ask:
        answers = [await ask(a_request(), wait_for_ready=True) for _ in range(150)]

    assert sum(answer.overall_code == rls_pb2.RateLimitResponse.OK for answer in answers) == 100
    assert await asyncio.to_thread(health, process) == SERVING
    assert await asyncio.to_thread(health, process, "store") == NOT_SERVING
    assert process.stop() == 0
    output, _ = process.process.communicate()
    assert "store.down" not in output
    assert "secret" not in json.dumps(down) + output


async def test_calls_finish_on_sigterm(start: Callable[..., Process], valkey: Any) -> None:
    """Calls that are running when the process is told to stop are answered."""
    process = start(MGW_STORE_TIMEOUT_SECONDS="2")
    process.wait_for("store.up")
    async with grpc.aio.insecure_channel(process.address) as channel:
        ask = asking_on(channel)
        await ask(a_request(), wait_for_ready=True)
        valkey.signal(signal.SIGSTOP)
        calls = [asyncio.ensure_future(ask(a_request())) for _ in range(5)]
        # The reply to what came after them on the same connection says that they were read.
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        process.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait_for, "ratelimit.draining")
        valkey.signal(signal.SIGCONT)
        answers = await asyncio.gather(*calls)

    assert [answer.overall_code for answer in answers] == [rls_pb2.RateLimitResponse.OK] * 5
    assert process.process.wait(10) == 0


async def test_without_a_policy(start: Callable[..., Process]) -> None:
    """Before any policy is known it is not ready, and lets everything pass."""
    process = start(MGW_POLICY_FILE="", MGW_CONTROLPLANE="127.0.0.1:1")
    process.wait_for("policy.none")
    async with asking(process) as ask:
        answer = await ask(a_request(), wait_for_ready=True)

    assert answer.overall_code == rls_pb2.RateLimitResponse.OK
    assert await asyncio.to_thread(health, process) == NOT_SERVING
    assert process.stop() == 0


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"MGW_POLICY_FILE": "/nowhere.json"}, "/nowhere.json"),
        ({"MGW_POLICY_FILE": ""}, "MGW_CONTROLPLANE"),
        ({"REDIS_URL": "mysql://x"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://:hush@127.0.0.1:99999"}, "REDIS_URL: the port of the host is no number"),
        ({"REDIS_URL": "rediss://:hush@h?ssl_ca_certs=/nowhere.pem"}, "ssl_ca_certs: No such file"),
        ({"MGW_LISTEN": "unix:/nowhere/rl.sock"}, "MGW_LISTEN"),
        ({"MGW_POLICY_FILE": f"{BAD_POLICIES}/unknown_unit.yaml"}, "unknown_unit.yaml:5: no unit 'fortnight'"),
        ({"MGW_POLICY_FILE": str(BAD_POLICIES), "REDIS_URL": "redis+cluster://127.0.0.1:1"}, "not on a cluster"),
    ],
)
def test_cannot_start(start: Callable[..., Process], environment: dict[str, str], says: str) -> None:
    """A start that cannot succeed ends with 1 and one line that says what to do."""
    process = start(**environment)
    _, error = process.process.communicate(timeout=10)

    assert process.process.returncode == 1
    lines = [line for line in error.splitlines() if line.startswith("ratelimit_service: ")]
    assert len(lines) == 1
    assert says in lines[0]
    assert "Traceback" not in error
    assert "hush" not in error


def test_start_is_quick(start: Callable[..., Process]) -> None:
    """From the command to serving, about the time that the imports take."""
    started = time.monotonic()
    start().wait_for("ratelimit.ready")

    assert time.monotonic() - started < 3  # 0.4 s on a quiet machine


USERS = "{domain: shop, descriptors: [{key: user, rate_limit: {unit: minute, requests_per_unit: 30}}]}"
FILES = """
domain: shop
descriptors:
  - {key: file, value: "/*x/*", share_threshold: true, quota_mode: true, rate_limit: {unit: hour, requests_per_unit: 9}}
  - {key: plan, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 20}}
"""


async def test_a_yaml_policy_counts_over_replicas(start: Callable[..., Process], tmp_path: Path) -> None:
    """With files of envoyproxy/ratelimit's form two replicas admit exactly their limits, in any domain."""
    policies = tmp_path / "policies"
    policies.mkdir()
    for name, text in (("users", USERS), ("files", FILES)):
        (policies / f"{name}.yaml").write_text(text)
    # The usual 20 ms are not enough for a machine that runs other tests too.
    replicas = [start(MGW_POLICY_FILE=str(policies), MGW_STORE_TIMEOUT_SECONDS="5") for _ in range(2)]
    for replica in replicas:
        replica.wait_for("ratelimit.ready")
        await until(partial(_counts_in_the_store, replica))

    async with contextlib.AsyncExitStack() as stack:
        asks = [await stack.enter_async_context(asking(replica)) for replica in replicas]

        async def admitted(*descriptors: tuple[str, str]) -> int:
            requests = [_a_shop_request(number, descriptors) for number in range(100)]
            answers = await asyncio.gather(*(asks[at % 2](request) for at, request in enumerate(requests)))
            return sum(answer.overall_code == rls_pb2.RateLimitResponse.OK for answer in answers)

        assert await admitted(("user", "ann")) == 30
        assert await admitted(("file", "/a/x/{number}")) == 9
        # The files' quota is used up, that of the plan is not yet.
        assert await admitted(("file", "/b/x/{number}"), ("plan", "p")) == 20


def _a_shop_request(number: int, descriptors: tuple[tuple[str, str], ...]) -> rls_pb2.RateLimitRequest:
    request = rls_pb2.RateLimitRequest(domain="shop")
    for key, value in descriptors:
        request.descriptors.add().entries.add(key=key, value=value.format(number=number))
    return request

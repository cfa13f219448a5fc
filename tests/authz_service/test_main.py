"""The process: how it starts, serves, follows its file, and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from envoy_api.envoy.service.auth.v3 import external_auth_pb2
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
CHECK = "/envoy.service.auth.v3.Authorization/Check"


class Process:
    """One `python -m authz_service`."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.lines: list[dict[str, Any]] = []
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "authz_service"],
            cwd=ROOT,
            env={**inherited, "MGW_LISTEN": "127.0.0.1:0", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, event: str) -> dict[str, Any]:
        """The next log line with this event."""
        assert self.popen.stdout is not None
        for text in self.popen.stdout:
            self.lines.append(json.loads(text))
            if self.lines[-1]["event"] == event:
                return self.lines[-1]
        raise AssertionError(f"no {event}; standard error: {self.popen.stderr.read() if self.popen.stderr else ''}")

    def end(self) -> tuple[int, str, str]:
        """Exit status, the rest of standard output, and standard error."""
        out, error = self.popen.communicate(timeout=10)
        return self.popen.returncode, out, error


@pytest.fixture
def run() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(**environ: str) -> Process:
        started.append(Process(environ))
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()


@pytest.fixture
def policy_file(tmp_path: Path, a_policy: Any) -> Path:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(a_policy()))
    return path


def check(address: str, token: str | None, **extensions: str) -> Any:
    request = external_auth_pb2.CheckRequest()
    request.attributes.context_extensions.update({"auth": "required", **extensions})
    if token is not None:
        request.attributes.request.http.headers["authorization"] = f"Bearer {token}"
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            CHECK,
            request_serializer=external_auth_pb2.CheckRequest.SerializeToString,
            response_deserializer=external_auth_pb2.CheckResponse.FromString,
        )
        return call(request, timeout=5)


def test_it_serves_a_policy_file_and_drains(run: Any, policy_file: Path, secret: str, a_policy: Any) -> None:
    """From ready to exit 0: health, metrics, a bad file, a changed one, SIGTERM; and no secret anywhere."""
    process = run(
        JWT_SECRET=secret, MGW_POLICY_FILE=str(policy_file), MGW_METRICS_LISTEN="127.0.0.1:0", LOG_LEVEL="debug"
    )
    ready = process.until("authz.ready")
    token = jwt.encode({"sub": "u1", "exp": time.time() + 60, "jti": "t1"}, secret, "HS256")

    assert check(ready["address"], token).HasField("ok_response")
    assert check(ready["address"], None).denied_response.status.code == 401
    with grpc.insecure_channel(ready["address"]) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    with urllib.request.urlopen(f"http://{ready['metrics']}/metrics") as response:
        text = response.read().decode()
    assert 'mgw_authz_decisions_total{outcome="allow",reason="verified"} 1.0' in text

    policy_file.write_text("{")
    process.until("policy.refused")
    assert check(ready["address"], token).HasField("ok_response")
    policy_file.write_text(json.dumps(a_policy(revocations={"jti": ["t1"]})))
    process.until("policy.enforced")
    assert check(ready["address"], token).denied_response.status.code == 401

    process.popen.send_signal(signal.SIGTERM)
    status, out, error = process.end()
    printed = json.dumps(process.lines) + out
    assert (status, error) == (0, "")
    assert [line["event"] for line in process.lines].count("authz.ready") == 1
    assert secret not in printed
    assert token not in printed


def test_it_serves_on_a_unix_socket(run: Any, policy_file: Path, secret: str, tmp_path: Path) -> None:
    """And leaves on SIGINT as on SIGTERM."""
    process = run(JWT_SECRET=secret, MGW_POLICY_FILE=str(policy_file), MGW_LISTEN=f"unix:{tmp_path}/authz.sock")
    address = process.until("authz.ready")["address"]

    assert address == f"unix:{tmp_path}/authz.sock"
    assert check(address, None).denied_response.status.code == 401
    process.popen.send_signal(signal.SIGINT)
    assert process.end()[0] == 0


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"MGW_CONTROLPLANE": "127.0.0.1:1"}, "JWT_SECRET is not set: export at least 32 random bytes"),
        ({"MGW_CONTROLPLANE": "127.0.0.1:1", "JWT_SECRET": ""}, "JWT_SECRET is not set"),
        ({"MGW_CONTROLPLANE": "127.0.0.1:1", "JWT_SECRET": "hunter2"}, "JWT_SECRET has 7 bytes"),
        ({"MGW_CONTROLPLANE": "127.0.0.1:1", "JWT_SECRET": "hunter2", "AUTHZ_SECRETLESS": "1"}, "has 7 bytes"),
        ({"MGW_POLICY_FILE": "{file}"}, "JWT_SECRET is not set"),
        (
            {"MGW_POLICY_FILE": "/nowhere/policy.json", "JWT_SECRET": "x" * 32},
            "cannot be used: /nowhere/policy.json: No such file",
        ),
        ({"JWT_SECRET": "x" * 32}, "set MGW_CONTROLPLANE to host:port or MGW_POLICY_FILE"),
        ({"MGW_POLICY_FILE": "{file}", "JWT_SECRET": "x" * 32, "MGW_LISTEN": "{taken}"}, "cannot listen on 127.0.0.1"),
        (
            {"MGW_POLICY_FILE": "{file}", "JWT_SECRET": "x" * 32, "MGW_METRICS_LISTEN": "{taken}"},
            "cannot listen on 127",
        ),
    ],
)
def test_a_start_that_cannot_succeed(
    environ: dict[str, str], message: str, run: Any, policy_file: Path, key_source: Any
) -> None:
    """Exit 1, and one line on standard error that says what to do and quotes no secret."""
    taken = key_source.url.removeprefix("http://").removesuffix("/keys")
    process = run(**{name: value.format(file=policy_file, taken=taken) for name, value in environ.items()})
    status, _, error = process.end()

    assert (status, error.count("\n")) == (1, 1), error
    assert message in error
    assert "hunter2" not in error


async def test_it_starts_from_the_last_good_policy(
    run: Any, tmp_path: Path, a_policy: Any, private_keys: Any, jwk: Any
) -> None:
    """With no control plane, and with no JWT_SECRET where that policy needs none."""
    key_set = {"keys": [jwk(private_keys["ES256"], "k1", "ES256")]}
    policy = a_policy({"secrets": ..., "algorithms": ["ES256"], "jwks": key_set})
    (tmp_path / "authz-policy.json").write_text(json.dumps({"version": "v1", "policy": policy}))
    process = run(MGW_CONTROLPLANE="127.0.0.1:1", MGW_STATE_DIR=str(tmp_path))
    address = (await asyncio.to_thread(process.until, "authz.ready"))["address"]

    token = jwt.encode({"sub": "u1", "exp": time.time() + 60}, private_keys["ES256"], "ES256", headers={"kid": "k1"})
    assert check(address, token).ok_response.headers[0].header.value == "u1"


def test_without_a_policy_every_request_is_denied(run: Any, secret: str) -> None:
    """The port opens at once; until a policy is known every response is a 503 and health says so."""
    port = free_port()
    process = run(JWT_SECRET=secret, MGW_CONTROLPLANE="127.0.0.1:1", MGW_LISTEN=f"127.0.0.1:{port}")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=True
        )
    assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert check(f"127.0.0.1:{port}", None, auth="optional").denied_response.status.code == 503

    process.popen.terminate()
    assert process.end()[0] == 0

"""Other people's gRPC clients against both services' processes: grpc-go, grpcurl, grpc-js, and Python's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from envoy_api.envoy.service.auth.v3 import external_auth_pb2
from envoy_api.envoy.service.ratelimit.v3 import rls_pb2
from tests.support.go_tools import go_tool
from tests.support.grpc_bytes import unary
from tests.support.services import Service, running

HERE = Path(__file__).parent
AUTHZ, RATELIMIT = "authz_service", "ratelimit_service"
NAMES = {AUTHZ: "envoy.service.auth.v3.Authorization", RATELIMIT: "envoy.service.ratelimit.v3.RateLimitService"}
METHODS = {AUTHZ: f"/{NAMES[AUTHZ]}/Check", RATELIMIT: f"/{NAMES[RATELIMIT]}/ShouldRateLimit"}
GARBAGE = b"\xff\xff\xff\xff"


def a_check() -> bytes:
    request = external_auth_pb2.CheckRequest()
    request.attributes.context_extensions.update({"route": "content", "auth": "optional"})
    return request.SerializeToString()


def a_question() -> bytes:
    request = rls_pb2.RateLimitRequest(domain="mgw")
    descriptor = request.descriptors.add()
    for key, value in (("route", "content"), ("tier", "anonymous"), ("caller", "-"), ("remote_address", "192.0.2.1")):
        descriptor.entries.add(key=key, value=value)
    return request.SerializeToString()


REQUESTS = {AUTHZ: a_check(), RATELIMIT: a_question()}


def is_good(package: str, response: bytes) -> bool:
    """Whether the service lets the request pass."""
    if package == AUTHZ:
        return bool(external_auth_pb2.CheckResponse.FromString(response).status.code == 0)
    return bool(rls_pb2.RateLimitResponse.FromString(response).overall_code == rls_pb2.RateLimitResponse.OK)


@pytest.fixture(scope="module", params=[AUTHZ, RATELIMIT])
def package(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def service(package: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(package, tmp_path_factory.mktemp(package)) as started:
        yield started


def told(*command: str | Path, cwd: Path | None = None) -> list[str]:
    """What a client printed, line by line."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="session")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client in go/, built."""
    binary = tmp_path_factory.mktemp("go") / "client"
    told("go", "build", "-o", binary, ".", cwd=HERE / "go")
    return binary


@pytest.fixture(scope="session")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client in node/, with what its lock names."""
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "client.js"):
        shutil.copy(HERE / "node" / name, folder)
    told("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", cwd=folder)
    return folder / "client.js"


@pytest.mark.go
def test_grpc_go_calls(service: Service, package: str, go_client: Path) -> None:
    """Calls one by one and many at once, health by Check and Watch; List and unknown methods are UNIMPLEMENTED."""
    method, request = METHODS[package], REQUESTS[package].hex()

    (line,) = told(go_client, service.address, "call", method, request)
    status, response = line.split(" ")
    assert status == "OK" and is_good(package, bytes.fromhex(response))
    assert told(go_client, service.address, "many", method, request, "500") == ["500"]
    assert told(go_client, service.address, "call", f"{method}Not", "") == ["Unimplemented "]
    assert told(go_client, service.address, "call", method, GARBAGE.hex()) == ["InvalidArgument "]
    for name in ("", NAMES[package]):
        assert told(go_client, service.address, "health", name) == ["OK SERVING", "OK SERVING", "Unimplemented"]


@pytest.mark.node
def test_grpc_js_calls(service: Service, package: str, node_client: Path) -> None:
    """Calls one by one and many at once; unknown methods and bytes that are no message have their statuses."""
    method, request = METHODS[package], REQUESTS[package].hex()

    (line,) = told("node", node_client, service.address, "call", method, request)
    status, response = line.split(" ")
    assert status == "OK" and is_good(package, bytes.fromhex(response))
    assert told("node", node_client, service.address, "many", method, request, "500") == ["500"]
    assert told("node", node_client, service.address, "call", f"{method}Not", "") == ["UNIMPLEMENTED "]
    assert told("node", node_client, service.address, "call", method, GARBAGE.hex()) == ["INVALID_ARGUMENT "]


@pytest.mark.go
def test_grpcurl_finds_its_way(service: Service, package: str) -> None:
    """By reflection alone: it lists the services, describes one, and calls its method with JSON."""
    grpcurl = go_tool("grpcurl")
    assert grpcurl is not None
    plain = (grpcurl, "-plaintext", "-max-time", "20")
    body: dict[str, Any] = (
        {"attributes": {"contextExtensions": {"route": "content", "auth": "optional"}}}
        if package == AUTHZ
        else {"domain": "mgw", "descriptors": [{"entries": [{"key": "route", "value": "content"}]}]}
    )

    listed = told(*plain, service.address, "list")
    assert {NAMES[package], "grpc.health.v1.Health"} <= set(listed)
    assert any("rpc" in line for line in told(*plain, service.address, "describe", NAMES[package]))
    answered = json.loads("\n".join(told(*plain, "-d", json.dumps(body), service.address, METHODS[package][1:])))
    assert ("ok_response" in answered) if package == AUTHZ else (answered["overall_code"] == "OK")
    health = told(*plain, "-d", json.dumps({"service": NAMES[package]}), service.address, "grpc.health.v1.Health/Check")
    assert "SERVING" in "".join(health)


@pytest.mark.parametrize("transport", ["native", "grpcio"])
@pytest.mark.parametrize("package", [AUTHZ, RATELIMIT])
async def test_bytes_that_are_no_message(package: str, transport: str, tmp_path: Path) -> None:
    """INVALID_ARGUMENT and one line in the log for each, without a traceback, on both transports."""
    with running(package, tmp_path, transport) as service:
        async with grpc.aio.insecure_channel(service.address) as channel:
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await unary(channel, METHODS[package])(GARBAGE, timeout=10)
                assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert is_good(package, await unary(channel, METHODS[package])(REQUESTS[package], timeout=10))
        events = service.events()

    assert [event["event"].partition(".")[2] for event in events if event["level"] != "info"] == [
        "message_unreadable"
    ] * 3
    assert "Traceback" not in json.dumps(events)


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_list_is_not_served(transport: str, tmp_path: Path) -> None:
    """Health's newest method is UNIMPLEMENTED, as clients take for "older than that"."""
    with running(RATELIMIT, tmp_path, transport) as service:
        async with grpc.aio.insecure_channel(service.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await unary(channel, "/grpc.health.v1.Health/List")(b"", timeout=10)

    assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_clients_locks_name_no_registry() -> None:
    """Packages come from wherever the machine is set up to fetch them."""
    lock = json.loads((HERE / "node" / "package-lock.json").read_text())

    assert not any("resolved" in entry for entry in lock["packages"].values())
    assert os.access(HERE / "go" / "go.sum", os.R_OK)

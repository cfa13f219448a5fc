"""Health: what the probes find, and what is said about it."""

from __future__ import annotations

import asyncio
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health

from controlplane.breakers.state_machine import State
from controlplane.config.model import Service
from controlplane.health.checker import HealthChecker, Report, health, readiness
from controlplane.health.probes import GrpcProbe, ServiceProbe
from controlplane.topology import Address
from tests.support.configs import a_config, a_service

SERVICES = [a_service("a", critical=True), a_service("b", critical=True), a_service("c")]
WELL = {"redis": True, "authz": True, "ratelimit": True}


@pytest.mark.parametrize(
    ("down", "open_breakers", "dependencies", "status", "word"),
    [
        ("", "", WELL, 200, "healthy"),
        ("c", "", WELL, 200, "degraded"),
        ("a", "", WELL, 200, "degraded"),
        ("ac", "", WELL, 200, "degraded"),
        ("ab", "", WELL, 503, "unhealthy"),
        ("abc", "", WELL, 503, "unhealthy"),
        ("", "c", WELL, 200, "degraded"),
        ("a", "b", WELL, 503, "unhealthy"),
        ("", "", WELL | {"redis": False}, 200, "degraded"),
        ("", "", WELL | {"authz": False}, 200, "degraded"),
        ("ab", "", WELL | {"authz": False}, 503, "unhealthy"),
    ],
)
def test_health(down: str, open_breakers: str, dependencies: dict[str, bool], status: int, word: str) -> None:
    """Unhealthy is only a gateway of whose critical services none is up; anything less than all well is degraded."""
    report = Report({name: name not in down for name in "abc"}, dependencies)

    found = health(
        a_config(services=SERVICES, routes=[]),
        report,
        lambda name: "open" if name in open_breakers else "closed",
        "1.2.3",
        42,
    )

    assert (found[0], found[1]["status"]) == (status, word)


def test_without_critical_services_nothing_is_unhealthy() -> None:
    """Where no service is critical, the worst is degraded."""
    report = Report({"c": False}, WELL)

    assert health(a_config(services=[SERVICES[2]], routes=[]), report, lambda _: "closed", "", 0)[0] == 200


def test_the_body_of_health() -> None:
    """Each service with its state and breaker, each dependency with its state, version and uptime."""
    report = Report({"a": True, "b": False}, {"redis": True, "authz": False})
    states: dict[str, State] = {"a": "open", "b": "closed", "c": "half_open"}

    _, body = health(
        a_config(services=SERVICES, routes=[]),
        report,
        states.__getitem__,
        "1",
        7,
    )

    assert body == {
        "status": "unhealthy",
        "version": "1",
        "uptime_seconds": 7,
        "checks": {
            "a": {"status": "unhealthy", "circuit_breaker": "open"},
            "b": {"status": "unhealthy", "circuit_breaker": "closed"},
            "c": {"status": "unhealthy", "circuit_breaker": "half_open"},
        },
        "dependencies": {"redis": "healthy", "authz": "unhealthy"},
    }


@pytest.mark.parametrize(
    ("services", "dependencies", "configured", "ready"),
    [
        ({"a": True}, WELL, True, True),
        ({"a": False}, WELL, True, True),
        ({"a": True}, WELL | {"redis": False, "ratelimit": False}, True, True),
        ({"a": True}, WELL | {"authz": False}, True, False),
        ({"a": True}, {}, True, False),
        ({"a": True}, WELL, False, False),
    ],
)
def test_readiness(services: dict[str, bool], dependencies: dict[str, bool], configured: bool, ready: bool) -> None:
    """Ready is a gateway with a configuration and authz; a sick service does not take it out of rotation."""
    status, body = readiness(Report(services, dependencies), configured)

    assert status == (200 if ready else 503)
    assert body == {"ready": ready, "services": services, "dependencies": dependencies}


class Probes:
    """Counts what is asked, and returns what it is told, but only when so many are asked at the same time."""

    def __init__(self, together: int) -> None:
        self.asked: list[str] = []
        self.down: set[str] = set()
        self.barrier = asyncio.Barrier(together)

    async def ask(self, name: str) -> bool:
        self.asked.append(name)
        async with asyncio.timeout(5):
            await self.barrier.wait()
        return name not in self.down

    async def service(self, service: Service) -> bool:
        return await self.ask(service.name)


async def test_probes_run_side_by_side_and_are_kept(clock: Any) -> None:
    """However many ask, each service and dependency is asked once a second, all at the same time."""
    probes = Probes(together=4)
    checker = HealthChecker(probes.service, {"authz": lambda: probes.ask("authz")}, clock)
    config = a_config(services=SERVICES, routes=[])

    reports = await asyncio.gather(*(checker.report(config) for _ in range(50)))
    clock.advance(0.99)
    probes.down = {"b"}
    still = await checker.report(config)
    clock.advance(0.02)
    fresh = await checker.report(config)

    assert probes.asked == ["a", "b", "c", "authz"] * 2
    assert reports == [Report({"a": True, "b": True, "c": True}, {"authz": True})] * 50
    assert still is reports[0]
    assert fresh.services == {"a": True, "b": False, "c": True}


async def test_a_probe_that_hangs_is_down_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """No probe holds the answer up for longer than its time."""
    monkeypatch.setattr("controlplane.health.checker.PROBE_TIMEOUT_SECONDS", 0.05)

    async def hangs(_service: Service) -> bool:
        await asyncio.Event().wait()
        return True

    async def is_well() -> bool:
        return True

    report = await HealthChecker(hangs, {"authz": is_well}).report(a_config(services=SERVICES, routes=[]))

    assert report == Report({"a": False, "b": False, "c": False}, {"authz": True})


@pytest.fixture
def http_server() -> Iterator[Callable[[int], str]]:
    """Servers that answer every request with one status."""
    servers = []

    def start(status: int) -> str:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                path = self.rfile.readline().split()[1:2]
                code = status if path == [b"/well"] else 500
                self.wfile.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % code)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("statuses", "well"),
    [([200], True), ([204], True), ([302], True), ([404], True), ([500], False), ([503], False), ([503, 200], True)],
)
async def test_a_service_is_well_if_an_endpoint_answers(
    http_server: Callable[[int], str], statuses: list[int], well: bool
) -> None:
    """Any endpoint that answers its health check below 500 will do."""
    urls = [http_server(status) for status in statuses]
    probe = ServiceProbe()

    assert await probe(a_service("demo", *urls, health_check={"path": "/well"})) is well
    await probe.close()


@pytest.mark.parametrize("url", [NOBODY, "http://nowhere.invalid"])
@pytest.mark.parametrize("path", ["/well", "/\x01"])
async def test_a_service_that_cannot_be_asked_is_down(url: str, path: str) -> None:
    """No connection, no such name, no such URL: down, and nothing breaks."""
    probe = ServiceProbe()

    assert await probe(a_service("demo", url, health_check={"path": path})) is False
    await probe.close()


async def test_another_endpoint_is_asked(http_server: Callable[[int], str]) -> None:
    """A dead endpoint does not hide a living one."""
    probe = ServiceProbe()

    assert await probe(a_service("demo", NOBODY, http_server(200), health_check={"path": "/well"})) is True
    await probe.close()


async def test_a_service_without_a_health_check_is_well() -> None:
    """What cannot be asked is taken for well; its breaker still counts."""
    assert await ServiceProbe()(a_service("demo", NOBODY, health_check=None)) is True


@pytest.fixture
async def grpc_server() -> Any:
    """A gRPC health server: its address, and the switch."""
    servicer = grpc_health.HealthServicer()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Address("127.0.0.1", port), servicer
    await server.stop(0)


SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize(("state", "well"), [(SERVING, True), (NOT_SERVING, False), (None, False)])
async def test_a_replica_is_well_if_it_says_so(grpc_server: Any, state: Any, well: bool) -> None:
    """A replica that is not serving, or does not know the name, is down."""
    address, servicer = grpc_server
    if state is not None:
        await servicer.set("store", state)
    probe = GrpcProbe((address,), service="store")

    assert await probe() is well
    await probe.close()


async def test_one_replica_that_serves_will_do(grpc_server: Any) -> None:
    """A dead replica before it costs little."""
    address, servicer = grpc_server
    await servicer.set("", SERVING)
    probe = GrpcProbe((Address("127.0.0.1", 9), address))
    started = time.monotonic()

    assert await probe() is True
    assert time.monotonic() - started < 1
    await probe.close()


async def test_no_replica_is_down() -> None:
    """Nobody to ask, or nobody there."""
    probe = GrpcProbe((Address("127.0.0.1", 9),))

    assert await GrpcProbe(())() is False
    assert await probe() is False
    await probe.close()

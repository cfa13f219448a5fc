"""The probes, against servers that are well, ill, silent or something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health

from controlplane.config.model import Service
from controlplane.health.checker import HealthChecker
from controlplane.health.probes import GrpcProbe, ServiceProbe
from controlplane.topology import Address
from tests.support.configs import a_config, a_service
from tests.support.ports import closed_port
from tests.support.waiting import next_turn, until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
"""What a server does with the head of a request."""


def says(status: int, *headers: str, body: bytes = b"") -> Answer:
    async def answer(_head: str, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", *headers]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return answer


async def is_silent(_head: str, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


class Servers:
    """HTTP servers of this event loop, what they were asked, and how many connections are open."""

    def __init__(self, running: AsyncExitStack) -> None:
        self._running = running
        self.heads: list[str] = []
        self.open = 0

    async def start(self, answer: Answer) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.open += 1
            answering = None
            try:
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                answering = asyncio.ensure_future(answer(self.heads[-1], writer))
                while await reader.read(65536):
                    pass
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                self.open -= 1
                if answering:
                    answering.cancel()
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self._running.callback(server.close)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    async with AsyncExitStack() as running:
        yield Servers(running)


@pytest.fixture
async def probe() -> AsyncIterator[ServiceProbe]:
    probe = ServiceProbe()
    yield probe
    await probe.close()


def nobody() -> str:
    return f"http://127.0.0.1:{closed_port()}"


def at(*urls: str, path: str = "/well") -> Service:
    return a_service("demo", *urls, health_check={"path": path})


@pytest.mark.parametrize(
    ("statuses", "well"),
    [
        ([200], True),
        ([204], True),
        ([302], True),
        ([404], True),
        ([499], True),
        ([500], False),
        ([503], False),
        ([503, 200], True),
        ([200, 503], True),
        ([503, 503], False),
    ],
)
async def test_a_service_is_well_if_an_endpoint_answers(
    servers: Servers, probe: ServiceProbe, statuses: list[int], well: bool
) -> None:
    """Any endpoint that answers its health check below 500 will do."""
    urls = [await servers.start(says(status)) for status in statuses]

    assert await probe(at(*urls)) is well


@pytest.mark.parametrize(("slash", "path"), [("", "/well"), ("/", "/well"), ("", "/"), ("/", "/a%20b?deep=1")])
async def test_the_path_is_asked_as_it_is_written(servers: Servers, probe: ServiceProbe, slash: str, path: str) -> None:
    """Behind the endpoint's host and port, whether that ends in a slash or not."""
    url = await servers.start(says(200))

    assert await probe(at(url + slash, path=path)) is True

    first, *fields = servers.heads[0].split("\r\n")
    assert first == f"GET {path} HTTP/1.1"
    assert f"host: {url.removeprefix('http://')}" in map(str.lower, fields)


async def test_where_a_redirect_leads_nobody_goes(servers: Servers, probe: ServiceProbe) -> None:
    """It is an answer; what is elsewhere says nothing of this service."""
    elsewhere = await servers.start(says(503))
    url = await servers.start(says(307, f"location: {elsewhere}"))

    assert await probe(at(url)) is True
    assert len(servers.heads) == 1


async def test_a_body_is_not_waited_for(servers: Servers, probe: ServiceProbe) -> None:
    """A service that streams its health for ever has answered, and the connection is given up."""

    async def endless(_head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"4\r\nwell\r\n")
            await writer.drain()
            await next_turn()

    url = await servers.start(endless)

    assert await asyncio.wait_for(probe(at(url)), 5) is True
    await until(lambda: servers.open == 0)


@pytest.mark.parametrize("url", ["http://nowhere.invalid", "http://a..b", f"http://{'a' * 64}", "http://[::1]:1"])
@pytest.mark.parametrize("path", ["/well", "/\x01"])
async def test_a_service_that_cannot_be_asked_is_down(probe: ServiceProbe, url: str, path: str) -> None:
    """No connection, no such name, no such URL: down, and nothing breaks."""
    assert await probe(at(url, path=path)) is False
    assert await probe(at(nobody(), path=path)) is False


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"\0" * 99])
async def test_what_speaks_no_http_is_down(servers: Servers, probe: ServiceProbe, answer: bytes) -> None:
    """Whatever it says before it closes."""

    async def speaks(_head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    assert await probe(at(await servers.start(speaks))) is False


async def test_a_service_that_is_silent_is_down(servers: Servers, probe: ServiceProbe) -> None:
    """After the time that a probe has, and the connection is given up."""
    assert await asyncio.wait_for(probe(at(await servers.start(is_silent))), 10) is False
    await until(lambda: servers.open == 0)


async def test_a_silent_endpoint_hides_no_living_one(servers: Servers, probe: ServiceProbe) -> None:
    """A service with one endpoint that hangs is well, within the time that a whole report has."""
    urls = [nobody(), await servers.start(is_silent), await servers.start(is_silent), await servers.start(says(200))]

    report = await HealthChecker(probe, {}).report(a_config(services=[at(*urls)], routes=[]))

    assert report.services == {"demo": True}
    await until(lambda: servers.open == 0)


async def test_endpoints_are_asked_side_by_side(servers: Servers, probe: ServiceProbe) -> None:
    """Each of these answers only when all of them were asked."""
    together = asyncio.Barrier(8)

    async def waits(head: str, writer: asyncio.StreamWriter) -> None:
        await together.wait()
        await says(503)(head, writer)

    urls = [await servers.start(waits) for _ in range(8)]

    assert await probe(at(*urls)) is False
    assert len(servers.heads) == 8
    assert together.n_waiting == 0


async def test_services_on_one_host_learn_nothing_of_each_other(servers: Servers, probe: ServiceProbe) -> None:
    """Cookies know no ports: one service's would be sent to the next, so none is kept."""
    one = await servers.start(says(200, "set-cookie: session=hush; path=/"))
    other = await servers.start(says(200))

    assert await probe(at(one)) is await probe(at(other)) is await probe(at(one)) is True
    assert not any("hush" in head for head in servers.heads)


async def test_a_proxy_of_the_environment_is_not_asked(
    servers: Servers, probe: ServiceProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services are reached directly, as Envoy reaches them."""
    monkeypatch.setenv("HTTP_PROXY", nobody())
    monkeypatch.setenv("ALL_PROXY", nobody())

    assert await probe(at(await servers.start(says(200)))) is True


async def test_a_service_without_a_health_check_is_well(servers: Servers, probe: ServiceProbe) -> None:
    """What is not asked is taken for well; its breaker still counts."""
    url = await servers.start(says(503))

    assert await probe(a_service("demo", url, health_check=None)) is True
    assert servers.heads == []


class Replicas:
    """Servers of grpc.health.v1, each with its switches."""

    def __init__(self, running: AsyncExitStack) -> None:
        self._running = running

    async def start(self, **states: int) -> Address:
        """One that says these of itself, by service; nothing of any, if there are none."""
        server = grpc.aio.server()
        if states:
            servicer = grpc_health.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
            for service, state in states.items():
                await servicer.set(service.removeprefix("itself"), state)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._running.push_async_callback(server.stop, 0)
        return Address("127.0.0.1", port)


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as running:
        yield Replicas(running)


async def asks(*addresses: Address, service: str = "") -> bool:
    probe = GrpcProbe(addresses, service)
    try:
        return await asyncio.wait_for(probe(), 10)
    finally:
        await probe.close()


@pytest.mark.parametrize(
    ("states", "service", "well"),
    [
        ({"itself": SERVING}, "", True),
        ({"itself": NOT_SERVING}, "", False),
        ({"itself": SERVING, "store": SERVING}, "store", True),
        ({"itself": SERVING, "store": NOT_SERVING}, "store", False),
        ({"itself": NOT_SERVING, "store": SERVING}, "store", True),
        ({"itself": SERVING}, "store", False),
        ({}, "", False),
    ],
)
async def test_a_replica_is_well_if_it_says_so(
    replicas: Replicas, states: dict[str, int], service: str, well: bool
) -> None:
    """Of the very part that is asked for. One that does not serve, or does not know what is meant, is down."""
    assert await asks(await replicas.start(**states), service=service) is well


async def test_one_replica_that_serves_will_do(replicas: Replicas) -> None:
    """Wherever it stands, among those that are dead, ill, or know nothing."""
    dead = Address("127.0.0.1", closed_port())
    ill, well = await replicas.start(itself=NOT_SERVING), await replicas.start(itself=SERVING)

    assert await asks(dead, ill, await replicas.start(), well) is True
    assert await asks(well, dead) is True
    assert await asks(dead, ill) is False
    assert await asks() is False


async def test_silent_replicas_hide_no_living_one(servers: Servers, replicas: Replicas) -> None:
    """Processes that are stopped still take connections: with three of them the gateway is ready all the same."""
    silent = [Address.parse((await servers.start(is_silent)).removeprefix("http://")) for _ in range(3)]
    probe = GrpcProbe((*silent, await replicas.start(itself=SERVING)))

    async def is_well(_service: Service) -> bool:
        return True

    report = await HealthChecker(is_well, {"authz": probe}).report(a_config())
    await probe.close()

    assert report.dependencies == {"authz": True}
    assert await asks(*silent) is False


async def test_a_replica_that_comes_back_is_seen(replicas: Replicas) -> None:
    """The connection is kept, and made again when it was lost."""
    server = grpc.aio.server()
    servicer = grpc_health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    probe = GrpcProbe((Address("127.0.0.1", port),))
    assert await probe() is True

    await server.stop(0)
    assert await probe() is False
    again = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, again)
    await until(lambda: again.add_insecure_port(f"127.0.0.1:{port}") == port)
    await again.start()

    await until(probe, 20)
    await probe.close()
    await again.stop(0)

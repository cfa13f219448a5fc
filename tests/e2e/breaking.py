"""A service behind Envoys that falls ill and gets well, for tests of its breaker."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.e2e.conftest import StartGateway
from tests.support.gateway import Gateway, a_route, a_service, default_document, token
from tests.support.waiting import during_async, until

OPEN_SECONDS = 1.5
FAILURES = 5
TOKEN = token(tier="enterprise")


class Upstream:
    """A service that counts what it holds, and is slow or ill as it is told."""

    def __init__(self) -> None:
        self.status = 200
        self.delay = 0.0
        self.hits = 0
        self.now = 0
        self.most = 0
        self.port = 0
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Upstream]:
        await self.start()
        try:
            yield self
        finally:
            self.stop()

    async def start(self) -> None:
        """Listen, again at the same port if it did before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Close the port and every connection."""
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()

    def watch(self) -> None:
        """Count anew."""
        self.hits, self.most = 0, self.now

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the gateway closed it, or we did, or the test is over
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self.hits += 1
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await asyncio.sleep(self.delay)
            finally:
                self.now -= 1
            writer.write(f"HTTP/1.1 {self.status} Said\r\ncontent-length: 2\r\n\r\nok".encode())


class Service:
    """One service behind a gateway: its upstream, and callers at any Envoy."""

    def __init__(self, gateway: Gateway, upstream: Upstream) -> None:
        self.gateway = gateway
        self.upstream = upstream
        parts = [part for part in gateway.run["components"] if part["name"] == "envoy"]
        self.addresses = [part["address"] for part in parts]

    async def ask(self, envoy: int = 0, path: str = "/t/own") -> int:
        """The status of one request; 0 for an answer 503 that is not the breaker's."""
        host, _, port = self.addresses[envoy].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with contextlib.closing(writer):
            lines = [
                f"GET {path} HTTP/1.1",
                "Host: gateway.test",
                f"Authorization: Bearer {TOKEN}",
                "Connection: close",
            ]
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
        status = int(head.split()[1])
        if status == 503 and (b"CIRCUIT_BREAKER_OPEN" not in head or b"retry-after:" not in head):
            return 0
        return status

    async def storm(self, seconds: float, callers: int = 10) -> list[int]:
        """Statuses of many callers, spread over the Envoys, each asking again and again."""

        async def one(number: int) -> list[int]:
            found: list[int] = []
            async for _ in during_async(seconds, every=0.005):
                found.append(await self.ask(number % len(self.addresses)))
            return found

        return [status for each in await asyncio.gather(*(one(n) for n in range(callers))) for status in each]

    async def state(self) -> str:
        return str((await self.breaker())["state"])

    async def breaker(self) -> dict[str, Any]:
        answer = await asyncio.to_thread(self.gateway.api, "GET", "/v1/breakers/own")
        assert answer.status_code == 200, answer.text
        breaker: dict[str, Any] = answer.json()
        return breaker

    async def force(self, force: str, reason: str = "") -> dict[str, Any]:
        body = json.dumps({"force": force, "reason": reason})
        headers = [("Content-Type", "application/json")]
        answer = await asyncio.to_thread(
            lambda: self.gateway.api("PUT", "/v1/breakers/own", content=body, headers=headers)
        )
        assert answer.status_code == 200, answer.text
        breaker: dict[str, Any] = answer.json()
        return breaker

    async def until(self, state: str, seconds: float = 5) -> None:
        await until(lambda: self._is(state), seconds)

    async def _is(self, state: str) -> bool:
        return await self.state() == state

    async def opens(self) -> None:
        """The service falls ill, the breaker opens, and every thread of every Envoy has heard of it."""
        self.upstream.status = 500
        for _ in range(FAILURES):
            assert await self.ask() == 500
        await self.until("open", 10)
        await until(self._refuses_everywhere, 10)

    async def _refuses_everywhere(self) -> bool:
        """Connections are spread over an Envoy's threads, so several tell of all of them."""
        envoys = range(len(self.addresses))
        return {*await asyncio.gather(*(self.ask(envoy) for envoy in envoys for _ in range(8)))} == {503}


def a_document(port: int, trials: int = 1, **breaker: Any) -> dict[str, Any]:
    document = default_document()
    rules = {"failures": FAILURES, "error_rate_percent": 50, "open_seconds": OPEN_SECONDS, "half_open_requests": trials}
    document["services"].append(a_service("own", f"http://127.0.0.1:{port}", breaker=rules | breaker))
    document["routes"].append(a_route("own", "own", auth="optional"))
    document["limits"]["tiers"]["enterprise"] = {"rps": 100_000, "rpm": 1_000_000, "burst": 100_000}
    return document


@contextlib.asynccontextmanager
async def a_service_behind(start: StartGateway, *options: str, trials: int = 1) -> AsyncIterator[Service]:
    async with Upstream().serving() as upstream:
        document = a_document(upstream.port, trials)
        gateway = await asyncio.to_thread(lambda: start(*options, document=document))
        service = Service(gateway, upstream)
        await until(lambda: hears(service, len(service.addresses)), 5)
        yield service


async def hears(service: Service, envoys: int) -> bool:
    return [node["reports"] for node in (await service.breaker())["nodes"]] == [True] * envoys


async def is_served(service: Service, envoy: int = 0) -> bool:
    return await service.ask(envoy) == 200


async def is_closed(service: Service) -> bool:
    """Asked of a service that has callers: without a request there is no trial that would close it."""
    await service.ask()
    return await service.state() == "closed"


async def are_served(service: Service, callers: int) -> bool:
    """Whether so many are served at once."""
    return {*await asyncio.gather(*(service.ask() for _ in range(callers)))} == {200}


async def answers(service: Service, status: int) -> bool:
    return await service.ask() == status

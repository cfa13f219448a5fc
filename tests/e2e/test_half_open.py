"""Contract 4, half-open: how many may try a service that was ill, over all Envoys, and what is left without us."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import Gateway, a_route, a_service, default_document, token
from tests.support.waiting import during_async, eventually, until

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
        await self.until("open", 2)
        await until(self._refuses_everywhere, 2)

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
        await until(lambda: _hears(service, len(service.addresses)), 5)
        yield service


async def _hears(service: Service, envoys: int) -> bool:
    return [node["reports"] for node in (await service.breaker())["nodes"]] == [True] * envoys


@pytest.mark.parametrize(("trials", "envoys"), [(1, 1), (3, 1), (1, 2), (3, 2)])
async def test_never_more_than_k_at_once(start: StartGateway, trials: int, envoys: int) -> None:
    """Half-open, of many callers at most K are at the service, over all Envoys; the first good answer frees all."""
    async with a_service_behind(start, "--envoy", str(envoys), trials=trials) as service:
        upstream = service.upstream
        await service.opens()
        upstream.watch()
        upstream.delay = 0.5
        refused = await service.storm(OPEN_SECONDS / 3, callers=20)
        hits_open = upstream.hits
        await service.until("half_open", 2)
        for _ in range(2):  # ill for two trials more: each opens it again
            await service.storm(1.2, callers=20)
            await service.until("half_open", 3)
        tried = upstream.hits, upstream.most
        upstream.status = 200
        statuses = await service.storm(OPEN_SECONDS + 2.5, callers=20)

        assert hits_open == 0
        assert set(refused) == {503}
        assert {200, 503} <= set(statuses) <= {200, 500, 503}
        assert await service.state() == "closed"
        assert {await service.ask(envoy) for envoy in range(envoys)} == {200}
        assert tried[0] >= 2
        assert 1 <= tried[1] <= trials


async def test_half_open_holds_k_at_the_service(start: StartGateway) -> None:
    """While the trial takes its time it is alone, at whichever of two Envoys it came in; then all are let in."""
    async with a_service_behind(start, "--envoy", "2") as service:
        upstream = service.upstream
        await service.opens()
        upstream.status, upstream.delay = 200, 2.0
        await service.until("half_open", 3)
        upstream.watch()
        statuses = await service.storm(1.5, callers=20)
        during = upstream.hits, upstream.most
        await service.until("closed", 5)

        assert during == (1, 1)
        assert statuses.count(200) == 1
        assert set(statuses) == {200, 503}


async def test_a_right_goes_where_it_is_wanted(start: StartGateway) -> None:
    """With one trial for two Envoys, callers at either alone get the service back, however long it was half-open."""
    async with a_service_behind(start, "--envoy", "2") as service:
        for envoy in (0, 1, 0):
            await service.opens()
            service.upstream.status = 200
            await service.until("half_open", 3)

            took = await until(partial(_is_served, service, envoy), 3)

            assert took < 2
            await service.until("closed")
            await until(lambda: _is_served(service, 0), 2)


async def _is_served(service: Service, envoy: int = 0) -> bool:
    return await service.ask(envoy) == 200


async def _is_closed(service: Service) -> bool:
    """Asked of a service that has callers: without a request there is no trial that would close it."""
    await service.ask()
    return await service.state() == "closed"


async def _are_served(service: Service, callers: int) -> bool:
    """Whether so many are served at once."""
    return {*await asyncio.gather(*(service.ask() for _ in range(callers)))} == {200}


async def test_well_again_within_a_second_of_the_open_time(start: StartGateway) -> None:
    """Callers who keep asking get it back soon after the open time, and not before."""
    async with a_service_behind(start) as service:
        await service.opens()
        service.upstream.status = 200
        service.upstream.watch()
        took = await until(lambda: _is_served(service), 5)

        assert OPEN_SECONDS - 0.5 < took < OPEN_SECONDS + 1
        await service.until("closed", 1)


async def test_who_was_served_is_served_on(start: StartGateway) -> None:
    """After the first good answer the next requests, one after another, pass too: nobody waits for the news of it."""
    async with a_service_behind(start) as service:
        for _ in range(3):
            await service.opens()
            service.upstream.status = 200
            await service.until("half_open", 3)
            assert await until(lambda: _is_served(service), 3)
            assert {await service.ask() for _ in range(50)} == {200}
            await service.until("closed", 1)


async def test_a_sick_service_is_hardly_asked(start: StartGateway) -> None:
    """Under a storm, a service that stays ill hears of a few requests each open time, and never more than K at once."""
    async with a_service_behind(start) as service:
        await service.opens()
        service.upstream.watch()
        statuses = await service.storm(3 * OPEN_SECONDS, callers=20)

        assert set(statuses) == {500, 503}
        assert service.upstream.most == 1
        assert 1 <= service.upstream.hits <= 3 * FAILURES


async def test_a_service_that_is_not_there(start: StartGateway) -> None:
    """No connection is a failure: 502 until it opens, then 503 with a 502 for each trial, and 200 once it is back."""
    async with a_service_behind(start) as service:
        assert await service.ask() == 200
        service.upstream.stop()
        statuses = await service.storm(3 * OPEN_SECONDS, callers=5)
        await service.upstream.start()
        took = await until(lambda: _is_served(service), 5)

        assert set(statuses) == {502, 503}
        assert FAILURES < statuses.count(502) <= 6 * FAILURES
        assert took < OPEN_SECONDS + 1
        await service.until("closed", 1)


async def test_many_not_found_and_a_rate(start: StartGateway) -> None:
    """Forty 404s are fine; too many failures open it by their rate, slow as they come; others do not notice."""
    async with a_service_behind(start) as service:
        service.upstream.status = 404
        assert {await service.ask() for _ in range(40)} == {404}
        assert await service.state() == "closed"
        statuses: list[int] = []
        async for _ in during_async(15, every=0.2):  # fewer than N within Envoy's own window
            service.upstream.status = 500 if len(statuses) % 3 else 200
            statuses.append(await service.ask())
            if statuses[-1] == 503:
                break

        assert statuses[-1] == 503
        await service.until("open", 2)
        assert "failed" in (await service.breaker())["why"]
        assert await service.ask(path="/api/v1/genres") in (200, 502)  # nobody plays that one here
        health = await asyncio.to_thread(lambda: service.gateway.ask("/health").json())
        assert health["checks"]["own"]["circuit_breaker"] in ("open", "half_open")
        assert health["checks"]["discovery"]["circuit_breaker"] == "closed"


async def test_an_operator_holds_it(start: StartGateway) -> None:
    """Forced open nothing passes; forced closed failures hold nothing back; both outlive the control plane."""
    async with a_service_behind(start) as service:
        gateway, upstream = service.gateway, service.upstream
        held = await service.force("open", "being moved")
        await until(lambda: _is(service, 503), 2)
        upstream.watch()
        refused = {await service.ask() for _ in range(20)}
        gateway.kill("controlplane")
        refused |= {await service.ask() for _ in range(20)}
        # For longer than a runtime layer lives: what it held has lapsed at the end.
        refused |= {await service.ask() async for _ in during_async(3.5)}
        await asyncio.to_thread(gateway.revive, "controlplane")
        await until(lambda: _hears(service, 1))
        refused |= {await service.ask() for _ in range(20)}
        still = await service.breaker()

        assert (refused, upstream.hits) == ({503}, 0)
        assert (held["state"], held["force"]["reason"], held["force"]["by"]) == ("open", "being moved", "admin")
        assert still["force"] == held["force"]

        await service.force("closed")
        await until(lambda: _is(service, 200), 2)
        upstream.status = 500
        failed = [await service.ask() for _ in range(4 * FAILURES)]
        upstream.status = 200
        assert failed == [500] * len(failed)
        assert (await service.state(), await service.ask()) == ("closed", 200)

        await service.force("auto", "all is well")
        upstream.status = 500
        await until(lambda: _is(service, 503), 2)
        await service.until("open", 2)


async def _is(service: Service, status: int) -> bool:
    return await service.ask() == status


@pytest.mark.parametrize("state", ["closed", "open", "half_open"])
async def test_the_control_plane_dies(start: StartGateway, state: str) -> None:
    """In whatever state it leaves the breaker, the service is served within seconds of being well; no cap stays."""
    async with a_service_behind(start) as service:
        if state != "closed":
            await service.opens()
        if state == "half_open":
            await service.until("half_open", 3)
        service.gateway.kill("controlplane")
        service.upstream.status = 200
        took = await until(lambda: _is_served(service), 6)
        service.upstream.delay = 0.3
        await until(lambda: _are_served(service, 20), 5)
        service.upstream.delay, service.upstream.status = 0, 500
        failing = [await service.ask() for _ in range(2 * FAILURES)]

        assert took < OPEN_SECONDS + 2.5
        assert failing[:FAILURES] == [500] * FAILURES  # Envoy's own ejection is there as ever
        assert failing[-1] == 503
        await asyncio.to_thread(service.gateway.revive, "controlplane")
        service.upstream.status = 200
        await until(lambda: _is_served(service), 6)
        await until(lambda: _is_closed(service), 8)


def test_the_command_shows_and_forces(start: StartGateway, tmp_path: Path) -> None:
    """`mgw breakers` lists them for people and machines; `force` holds one, and says why in the list."""
    gateway = start()
    listed = gateway.mgw("breakers")
    forced = gateway.mgw("breakers", "force", "sona", "open", "--reason", "under repair")
    as_json = json.loads(gateway.mgw("breakers", "--json").stdout)
    unknown = gateway.mgw("breakers", "force", "nobody", "open")
    nonsense = gateway.mgw("breakers", "force", "sona", "ajar")
    released = gateway.mgw("breakers", "force", "sona", "auto")
    metric = eventually(lambda: 'mgw_breaker_forced{service="sona"} 0.0' in gateway.metrics("controlplane"))

    assert listed.returncode == 0, listed.stderr
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:]] == [
        [name, "closed", "auto"] for name in ("auth", "discovery", "sona", "sync")
    ]
    assert forced.returncode == released.returncode == 0, forced.stderr + released.stderr
    sona = next(each for each in as_json["breakers"] if each["service"] == "sona")
    assert (sona["state"], sona["force"]["reason"]) == ("open", "under repair")
    assert (unknown.returncode, nonsense.returncode) == (1, 64)
    assert "nobody" in unknown.stderr
    assert metric
    alone = gateway.mgw("breakers", MGW_API_URL="http://127.0.0.1:9", MGW_API_TOKEN="x")
    assert alone.returncode == 69

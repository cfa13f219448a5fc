"""Contract 4, half-open: how many may try a service that was ill, over all Envoys."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from tests.e2e.breaking import FAILURES, OPEN_SECONDS, a_service_behind, is_served
from tests.e2e.conftest import StartGateway
from tests.support.waiting import during_async, until


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

            took = await until(partial(is_served, service, envoy), 3)

            assert took < 2
            await service.until("closed")
            await until(lambda: is_served(service, 0), 2)


async def test_well_again_within_a_second_of_the_open_time(start: StartGateway) -> None:
    """Callers who keep asking get it back soon after the open time, and not before."""
    async with a_service_behind(start) as service:
        await service.opens()
        service.upstream.status = 200
        service.upstream.watch()
        took = await until(lambda: is_served(service), 5)

        assert OPEN_SECONDS - 0.5 < took < OPEN_SECONDS + 1
        await service.until("closed", 1)


async def test_who_was_served_is_served_on(start: StartGateway) -> None:
    """After the first good answer the next requests, one after another, pass too: nobody waits for the news of it."""
    async with a_service_behind(start) as service:
        for _ in range(3):
            await service.opens()
            service.upstream.status = 200
            await service.until("half_open", 3)
            assert await until(lambda: is_served(service), 3)
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
        took = await until(lambda: is_served(service), 5)

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

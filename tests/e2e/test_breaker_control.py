"""Contract 4: breakers in an operator's hands, and what is left of them without the control plane."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.e2e.breaking import (
    FAILURES,
    OPEN_SECONDS,
    a_service_behind,
    answers,
    are_served,
    hears,
    is_closed,
    is_served,
)
from tests.e2e.conftest import StartGateway
from tests.support.waiting import during_async, eventually, until


async def test_an_operator_holds_it(start: StartGateway) -> None:
    """Forced open nothing passes; forced closed failures hold nothing back; both outlive the control plane."""
    async with a_service_behind(start) as service:
        gateway, upstream = service.gateway, service.upstream
        held = await service.force("open", "being moved")
        await until(lambda: answers(service, 503), 2)
        upstream.watch()
        refused = {await service.ask() for _ in range(20)}
        gateway.kill("controlplane")
        refused |= {await service.ask() for _ in range(20)}
        # For longer than a runtime layer lives: what it held has lapsed at the end.
        refused |= {await service.ask() async for _ in during_async(3.5)}
        await asyncio.to_thread(gateway.revive, "controlplane")
        await until(lambda: hears(service, 1))
        refused |= {await service.ask() for _ in range(20)}
        still = await service.breaker()

        assert (refused, upstream.hits) == ({503}, 0)
        assert (held["state"], held["force"]["reason"], held["force"]["by"]) == ("open", "being moved", "admin")
        assert still["force"] == held["force"]

        await service.force("closed")
        await until(lambda: answers(service, 200), 2)
        upstream.status = 500
        failed = [await service.ask() for _ in range(4 * FAILURES)]
        upstream.status = 200
        assert failed == [500] * len(failed)
        assert (await service.state(), await service.ask()) == ("closed", 200)

        await service.force("auto", "all is well")
        upstream.status = 500
        await until(lambda: answers(service, 503), 2)
        await service.until("open", 2)


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
        took = await until(lambda: is_served(service), 6)
        service.upstream.delay = 0.3
        await until(lambda: are_served(service, 20), 5)
        service.upstream.delay, service.upstream.status = 0, 500
        failing = [await service.ask() for _ in range(2 * FAILURES)]

        assert took < OPEN_SECONDS + 2.5
        assert failing[:FAILURES] == [500] * FAILURES  # Envoy's own ejection is there as ever
        assert failing[-1] == 503
        await asyncio.to_thread(service.gateway.revive, "controlplane")
        service.upstream.status = 200
        await until(lambda: is_served(service), 6)
        await until(lambda: is_closed(service), 8)


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

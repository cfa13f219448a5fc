"""GET and PUT /v1/breakers: what an operator sees and may do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from controlplane.api.app import create_app
from controlplane.api.auth import Operators, Role
from controlplane.breakers.controller import BreakerController
from controlplane.breakers.override_file import OverrideFile
from controlplane.breakers.registry import BreakerRegistry
from controlplane.breakers.state_machine import Count
from controlplane.health.checker import HealthChecker
from controlplane.publish import Change, Publisher
from controlplane.store.memory import MemoryStore
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.runtime import RuntimeLayers
from controlplane.xds.status import NodeRegistry
from tests.support.clock import FakeClock
from tests.support.configs import TOPOLOGY, default_text
from tests.support.declared import check_declared

TOKENS = {"a-viewer": Role.VIEWER, "an-editor": Role.EDITOR}


class Api:
    """The application with a controller that a test feeds."""

    def __init__(self, clock: FakeClock, directory: Any) -> None:
        self.publisher = Publisher(MemoryStore(), SnapshotCache(), TOPOLOGY, {}, frozenset(), None)
        current, use_forces = self.publisher.current_config, self.publisher.use_forces
        file = OverrideFile(directory)
        self.controller = BreakerController(BreakerRegistry(clock), RuntimeLayers(), file, current, use_forces, clock)

        async def well(*_: object) -> bool:
            return True

        self.app = create_app(
            self.publisher, NodeRegistry(), HealthChecker(well, {}), self.controller, Operators(TOKENS)
        )
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://api")

    async def call(self, method: str, path: str, token: str = "an-editor", **more: Any) -> httpx2.Response:
        response = await self.client.request(method, path, headers={"authorization": f"Bearer {token}"}, **more)
        check_declared(self.app, method, path, response.status_code)
        return response

    async def circuit(self) -> str:
        health = (await self.client.get("/health")).json()
        state: str = health["checks"]["sona"]["circuit_breaker"]
        return state


@pytest.fixture
async def api(clock: FakeClock, tmp_path: Any) -> AsyncIterator[Api]:
    api = Api(clock, tmp_path)
    await api.publisher.publish(Change(default_text(), "application/yaml", "test", "", None))
    api.controller.restore()
    async with api.client:
        yield api


async def test_all_breakers_are_listed(api: Api, clock: FakeClock) -> None:
    """State, since when, why, counts and every Envoy; `/health` says the same word."""
    registry = api.controller.registry
    registry.report("envoy-0", {}, confirmed=True)
    registry.report("envoy-0", {"sona": Count(issued=5, successes=4, errors=1)}, confirmed=True)
    listed = (await api.call("GET", "/v1/breakers", "a-viewer")).json()["breakers"]
    registry.report("envoy-0", {"sona": Count(issued=12, errors=12, in_progress=0)}, confirmed=True)
    opened = (await api.call("GET", "/v1/breakers/sona", "a-viewer")).json()
    words = [await api.circuit()]
    clock.advance(2)
    registry.tick()
    tried = (await api.call("GET", "/v1/breakers/sona", "a-viewer")).json()
    words.append(await api.circuit())

    assert [each["service"] for each in listed] == ["auth", "discovery", "sona", "sync"]
    sona = listed[2]
    assert (sona["state"], sona["force"], sona["window"]) == (
        "closed",
        {"force": "auto"},
        {"requests": 5, "failures": 1},
    )
    assert sona["rules"]["half_open_requests"] == 1
    assert (opened["state"], opened["open_seconds_left"]) == ("open", 2.0)
    assert "12 failures in a row" in opened["why"]
    assert opened["nodes"] == [{"id": "envoy-0", "reports": True, "ejected": False, "in_progress": 0, "cap": 0}]
    assert (tried["state"], tried["open_seconds_left"], tried["nodes"][0]["cap"]) == ("half_open", None, 1)
    assert words == ["open", "half_open"]


@pytest.mark.parametrize("force", ["open", "closed"])
async def test_a_breaker_is_held(api: Api, force: str) -> None:
    """An editor holds it, with a reason that everybody can read; `auto` lets it go."""
    held = await api.call("PUT", "/v1/breakers/sona", json={"force": force, "reason": "moving house"})
    seen = (await api.call("GET", "/v1/breakers/sona", "a-viewer")).json()
    word = await api.circuit()
    released = (await api.call("PUT", "/v1/breakers/sona", json={"force": "auto"})).json()

    assert held.status_code == 200
    assert (seen["state"], seen["force"]["force"], seen["force"]["by"]) == (force, force, "editor")
    assert seen["force"]["reason"] == "moving house"
    assert seen["force"]["at"].endswith("Z")
    assert word == force
    assert (released["state"], released["force"]) == ("closed", {"force": "auto"})


@pytest.mark.parametrize(
    ("token", "service", "body", "status"),
    [
        ("a-viewer", "sona", {"force": "open"}, 403),
        ("nobody", "sona", {"force": "open"}, 401),
        ("an-editor", "nobody", {"force": "open"}, 404),
        ("an-editor", "sona", {"force": "ajar"}, 400),
        ("an-editor", "sona", {}, 400),
        ("an-editor", "sona", {"force": "open", "why": "?"}, 400),
        ("an-editor", "sona", {"force": "open", "reason": "a\nb"}, 400),
        ("an-editor", "sona", {"force": "open", "reason": "x" * 1025}, 400),
    ],
)
async def test_what_is_refused(api: Api, token: str, service: str, body: dict[str, str], status: int) -> None:
    """With a problem document, and nothing is held."""
    response = await api.call("PUT", f"/v1/breakers/{service}", token, json=body)

    assert (response.status_code, response.json()["status"]) == (status, status)
    assert response.headers["content-type"] == "application/problem+json"
    assert api.controller.registry.forced() == {}


async def test_a_disk_that_takes_nothing_is_a_503(api: Api, tmp_path: Any) -> None:
    """What cannot be kept is not acknowledged."""
    (tmp_path / "breakers.json").mkdir()

    response = await api.call("PUT", "/v1/breakers/sona", json={"force": "open"})

    assert response.status_code == 503
    assert "breakers.json" in response.json()["detail"]
    assert api.controller.registry.forced() == {}


async def test_an_unknown_breaker(api: Api) -> None:
    assert (await api.call("GET", "/v1/breakers/nobody")).status_code == 404

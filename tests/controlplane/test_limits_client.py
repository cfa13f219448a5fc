"""Who an id means, and who may lay hands on a caller."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from controlplane.api.app import create_app
from controlplane.api.auth import Operators, Role
from controlplane.breakers.controller import BreakerController
from controlplane.breakers.override_file import OverrideFile
from controlplane.breakers.registry import BreakerRegistry
from controlplane.errors import LimitsRejected, LimitsUnavailable
from controlplane.health.checker import HealthChecker
from controlplane.limits_client import Caller, find_caller
from controlplane.publish import Change, Publisher
from controlplane.store.memory import MemoryStore
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.runtime import RuntimeLayers
from controlplane.xds.status import NodeRegistry
from tests.support.configs import TOPOLOGY, default_text, rich_config
from tests.support.declared import check_declared


@pytest.mark.parametrize(
    ("given", "tier", "means"),
    [
        ("u-1", None, Caller("platform/u-1", None, "free", True)),
        ("u-1", "pro", Caller("platform/u-1", None, "pro", False)),
        ("idp/u-1", None, Caller("idp/u-1", None, "pro", True)),
        ("teams/u-1", None, Caller("platform/teams/u-1", None, "free", True)),
        ("platform/idp/x", None, Caller("platform/idp/x", None, "free", True)),
        ("platform/10.0.0.1", None, Caller("platform/10.0.0.1", None, "free", True)),
        ("apikey/partner:1", None, Caller("apikey/partner:1", None, "pro", False)),
        ("apikey/nobody", None, Caller("apikey/nobody", None, "anonymous", True)),
        ("203.0.113.9", None, Caller(None, "203.0.113.9", "anonymous", False)),
        ("2001:DB8:0::1", None, Caller(None, "2001:db8::/64", "anonymous", False)),
        ("2001:db8::/64", None, Caller(None, "2001:db8::/64", "anonymous", False)),
        ("2001:db8::/48", None, Caller("platform/2001:db8::/48", None, "free", True)),
        ("::ffff:203.0.113.9", None, Caller(None, "203.0.113.9", "anonymous", False)),
    ],
)
def test_an_id_means_one_caller(given: str, tier: str | None, means: Caller) -> None:
    """A provider's subject, an address as Envoy writes it, or a subject of the first provider."""
    assert find_caller(given, tier, rich_config()) == means


@pytest.mark.parametrize(("given", "tier"), [("", None), ("a\nb", None), ("u" * 401, None), ("u", "gold")])
def test_no_caller(given: str, tier: str | None) -> None:
    """What cannot be a caller or a tier is refused."""
    with pytest.raises(ValueError, match=r"a caller is|no tier named"):
        find_caller(given, tier, rich_config())


class Service:
    """A rate-limit service that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Caller, dict[str, Any]]] = []
        self.fails: Exception | None = None

    async def ask(self, method: str, caller: Caller, **values: Any) -> dict[str, Any]:
        if self.fails:
            raise self.fails
        self.asked.append((method, caller, {key: value for key, value in values.items() if value is not None}))
        return {"rules": []}


TOKENS = {"a-viewer": Role.VIEWER, "an-editor": Role.EDITOR}
NUMBERS = {"rps": 1, "rpm": 30, "burst": 5}


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def client(service: Service) -> httpx2.AsyncClient:
    publisher = Publisher(MemoryStore(), SnapshotCache(), TOPOLOGY, {}, frozenset(), None)
    await publisher.publish(Change(default_text(), "application/yaml", "test", "", None))

    async def well(*_: object) -> bool:
        return True

    given: Any = service
    checker, operators = HealthChecker(well, {}), Operators(TOKENS)
    controller = BreakerController(
        BreakerRegistry(lambda: 0.0),
        RuntimeLayers(),
        OverrideFile(None),
        publisher.current_config,
        publisher.use_forces,
    )
    app = create_app(publisher, NodeRegistry(), checker, controller, operators, given)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)

    async def declared(response: httpx2.Response) -> None:
        request = response.request
        check_declared(app, request.method, request.url.path, response.status_code)

    return httpx2.AsyncClient(
        transport=transport,
        base_url="http://api",
        headers={"authorization": "Bearer an-editor"},
        event_hooks={"response": [declared]},
    )


async def test_slashes_are_part_of_an_id(client: httpx2.AsyncClient, service: Service) -> None:
    """Encoded or not, an id may hold slashes."""
    for path in ("a%2Fb%2Flimits", "a/b/limits"):
        assert (await client.get(f"/v1/callers/{path}/limits")).status_code == 200

    assert [caller.caller for _, caller, _ in service.asked] == ["platform/a/b/limits"] * 2


WRITES = [
    ("POST", "reset", None),
    ("POST", "grant", {"requests": 3}),
    ("PUT", "override", NUMBERS | {"expires_in_seconds": 60}),
    ("DELETE", "override", None),
]


@pytest.mark.parametrize(("method", "verb", "body"), WRITES)
async def test_only_an_editor_changes(
    client: httpx2.AsyncClient, service: Service, method: str, verb: str, body: Any
) -> None:
    """A viewer may look; each change needs an editor, and comes with who and why."""
    path, viewer = f"/v1/callers/u/{verb}", {"authorization": "Bearer a-viewer"}
    assert (await client.get("/v1/callers/u/limits", headers=viewer)).status_code == 200
    assert (await client.request(method, path, json=body, headers=viewer)).status_code == 403
    assert (await client.request(method, path, json=body, headers={"authorization": ""})).status_code == 401

    assert (await client.request(method, path, json=body, headers={"x-change-reason": "why"})).status_code == 200
    _, _, values = service.asked[-1]
    assert (values["by"], values["reason"]) == ("editor", "why")


@pytest.mark.parametrize(
    "body",
    [
        NUMBERS,
        NUMBERS | {"expires_in_seconds": 0},
        NUMBERS | {"expires_in_seconds": 60, "expires_at": "2999-01-01T00:00:00Z"},
        NUMBERS | {"expires_at": "2020-01-01T00:00:00Z"},
        NUMBERS | {"expires_at": "2020-01-01T00:00:00"},
        NUMBERS | {"expires_in_seconds": 60, "burst": 0},
        NUMBERS | {"expires_in_seconds": 60, "reason": "a\nb"},
        NUMBERS | {"expires_in_seconds": 60, "tier": "pro"},
    ],
)
async def test_bad_overrides(client: httpx2.AsyncClient, service: Service, body: Any) -> None:
    """An override that does not fit, or does not end, is a problem, and the service is not asked."""
    answer = await client.put("/v1/callers/u/override", json=body)

    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert service.asked == []


@pytest.mark.parametrize(("failure", "status"), [(LimitsRejected("no"), 400), (LimitsUnavailable("away"), 503)])
async def test_failures(client: httpx2.AsyncClient, service: Service, failure: Exception, status: int) -> None:
    """What the service refuses is the operator's mistake; a service or a store that is away is not."""
    service.fails = failure

    assert (await client.get("/v1/callers/u/limits")).status_code == status

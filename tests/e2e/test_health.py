"""Contract 7: health tells which service is ill, and takes the gateway out of rotation only when it should."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.gateway import SERVICES, Gateway, bearer, token
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose upstreams may fall ill, by tests that heal them."""
    with Gateway(tmp_path_factory.mktemp("health") / "run") as running:
        yield running


@pytest.fixture(autouse=True)
def healed(gateway: Gateway) -> Iterator[None]:
    yield
    for service in SERVICES:
        gateway.demo(service).behave()
    assert told(gateway, lambda body: body["status"] == "healthy")


def told(gateway: Gateway, when: Callable[[dict[str, Any]], bool], seconds: float = 6) -> dict[str, Any] | None:
    """The body of GET /health once it is as expected; None where it never is."""

    def ask() -> dict[str, Any] | None:
        body: dict[str, Any] = gateway.ask("/health").json()
        return body if when(body) else None

    body: dict[str, Any] | None = eventually(ask, seconds, every=0.1)
    return body


def fall_ill(gateway: Gateway, *services: str) -> None:
    for service in services:
        gateway.demo(service).misbehave(status=503, health=True)


def test_all_is_well(gateway: Gateway) -> None:
    """The whole answer of a healthy gateway, with the types that are documented."""
    answer = gateway.ask("/health")

    body = answer.json()
    assert (answer.status, answer.value("content-type"), body["status"]) == (200, "application/json", "healthy")
    assert isinstance(body["version"], str)
    assert isinstance(body["uptime_seconds"], int)
    assert body["checks"] == {name: {"status": "healthy", "circuit_breaker": "closed"} for name in SERVICES}
    assert set(body["dependencies"]) >= {"redis", "authz", "ratelimit"}


def test_ready_and_alive(gateway: Gateway) -> None:
    """The other two, as documented."""
    live, ready = gateway.ask("/health/live"), gateway.ask("/health/ready")

    assert (live.status, live.json()) == (200, {"status": "alive"})
    assert (ready.status, ready.json()["ready"]) == (200, True)
    assert ready.json()["services"] == dict.fromkeys(SERVICES, True)
    assert all(value is True for value in ready.json()["dependencies"].values())


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/health/live"])
@pytest.mark.parametrize("query", ["", "?verbose=1"])
def test_anybody_may_ask(gateway: Gateway, path: str, query: str) -> None:
    """Health asks for no token, minds no bad one, and ignores a query."""
    answer = gateway.ask(path + query, headers=[bearer("nonsense")])

    assert (answer.status, answer.value("content-type")) == (200, "application/json")
    assert answer.value("x-ratelimit-limit") is None


ILL = [
    (("sona",), "degraded", 200),
    (("sync",), "degraded", 200),
    (("discovery",), "degraded", 200),
    (("auth",), "degraded", 200),
    (("sona", "sync"), "degraded", 200),
    (("discovery", "auth"), "unhealthy", 503),
]


@pytest.mark.parametrize(("services", "status", "code"), ILL)
def test_ill_services(gateway: Gateway, services: tuple[str, ...], status: str, code: int) -> None:
    """Degraded with any of them down, 503 unhealthy only with every critical one; always alive and ready."""
    fall_ill(gateway, *services)

    body = told(gateway, lambda body: body["status"] == status)

    assert body
    assert {name for name, check in body["checks"].items() if check["status"] == "unhealthy"} == set(services)
    assert gateway.ask("/health").status == code
    assert gateway.ask("/health/live").status == 200
    ready = gateway.ask("/health/ready")
    assert (ready.status, ready.json()["ready"]) == (200, True)
    assert {name for name, well in ready.json()["services"].items() if not well} == set(services)


def test_an_open_breaker_shows(gateway: Gateway) -> None:
    """A breaker's state is told while it is open, and closed again when its service is well."""
    caller = token(tier="pro")
    for _ in range(10):
        gateway.ask("/api/v1/recommendations", headers=[("X-Demo-Status", "500")], bearer_token=caller)

    assert told(gateway, lambda body: body["checks"]["sona"]["circuit_breaker"] == "open", 2)
    assert told(gateway, lambda body: body["checks"]["sona"]["circuit_breaker"] in ("half_open", "closed"), 5)
    assert eventually(lambda: gateway.ask("/api/v1/recommendations", bearer_token=caller).status == 200)
    assert told(gateway, lambda body: body["checks"]["sona"]["circuit_breaker"] == "closed", 4)


def test_a_probe_that_hangs_does_not_hold_up_the_answer(gateway: Gateway) -> None:
    """A service that never answers its probe counts as ill after a second; the others are asked meanwhile."""
    gateway.demo("sync").misbehave(hang=True, health=True)

    body = told(gateway, lambda body: body["checks"]["sync"]["status"] == "unhealthy")
    slowest = max(gateway.ask("/health").seconds for _ in range(5))

    assert body
    assert body["checks"]["discovery"]["status"] == "healthy"
    assert slowest < 1.7


def test_probes_are_shared(gateway: Gateway) -> None:
    """However many ask, services are probed at most about once a second."""
    demo = gateway.demo("discovery")
    seen = demo.hits()

    for _ in range(40):
        assert gateway.ask("/health").status == 200

    assert demo.hits() == seen, "probes are no traffic"

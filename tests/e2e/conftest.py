"""One gateway a worker for all tests that leave it as they found it; those that do not start their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, a_route, a_service, default_document
from tests.support.ports import closed_port

StartGateway = Callable[..., Gateway]


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The shipped configuration behind one trusted hop, with a few more routes under /t/ and services of their own."""
    with Gateway(tmp_path_factory.mktemp("shared") / "run", document=extended_document()) as running:
        yield running


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The shipped configuration as it is."""
    with Gateway(tmp_path_factory.mktemp("plain") / "run") as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartGateway]:
    """Starts gateways that end with the test."""
    with ExitStack() as running:

        def start_one(*options: str, name: str = "run", **more: Any) -> Gateway:
            return running.enter_context(Gateway(tmp_path / name, *options, **more))

        yield start_one


def extended_document() -> dict[str, Any]:
    """The shipped configuration; everything that is added stands beside what it has."""
    document = default_document()
    document["listener"]["trusted_hops"] = 1
    discovery = "${DISCOVERY_SERVICE_URL}"
    quick = {"failures": 5, "error_rate_percent": 100, "open_seconds": 1}
    document["services"] += [
        a_service("patient", discovery, breaker={"failures": 10_000, "error_rate_percent": 100}),
        a_service("dead", f"http://127.0.0.1:{closed_port()}", breaker={"failures": 10_000}),
        a_service("frail", discovery, breaker=quick),
        a_service("mixed", discovery, breaker={"failures": 10, "error_rate_percent": 50, "open_seconds": 1}),
    ]
    document["routes"] += [
        a_route("open", "patient", auth="none"),
        a_route("required", "patient", auth="required"),
        a_route("pro-only", "patient", auth="required", tiers=["pro"]),
        a_route("hasty", "patient", timeout_seconds=0.3),
        a_route("small", "patient", max_request_bytes=100),
        a_route("large", "patient", max_request_bytes=3 << 20),
        a_route("dear", "patient", cost=5),
        a_route("scarce", "patient", limits={"rps": 1, "rpm": 100, "burst": 3}),
        a_route("dead", "dead"),
        a_route("frail", "frail"),
        a_route("frail-hasty", "frail", timeout_seconds=0.1),
        a_route("mixed", "mixed"),
    ]
    return document

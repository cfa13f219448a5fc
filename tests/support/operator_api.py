"""The operator API with a client for it, without a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
from fastapi import FastAPI

from controlplane.api.app import create_app
from controlplane.api.auth import Operators, Role
from controlplane.breakers.controller import BreakerController
from controlplane.breakers.override_file import OverrideFile
from controlplane.breakers.registry import BreakerRegistry
from controlplane.config.model import Service
from controlplane.health.checker import HealthChecker
from controlplane.publish import Publisher
from controlplane.store.memory import MemoryStore
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.runtime import RuntimeLayers
from controlplane.xds.status import NodeRegistry
from tests.support.configs import TOPOLOGY, default_text
from tests.support.declared import check_declared

TOKENS = {"a-viewer": Role.VIEWER, "an-editor": Role.EDITOR, "an-admin": Role.ADMIN}
TEXT = default_text()
OTHER = TEXT.replace("trusted_hops: 0", "trusted_hops: 1")
YAML = {"content-type": "application/yaml"}
SECRET = "hush-" * 8


Content = str | bytes | AsyncIterator[bytes]


class Api:
    """The application and a client for it."""

    def __init__(self, published: bool = True) -> None:
        environment = {"JWT_SECRET": SECRET, "MGW_API_TOKEN": SECRET}
        self.publisher = Publisher(MemoryStore(), SnapshotCache(), TOPOLOGY, environment, frozenset(), None)
        self.registry = NodeRegistry()
        self.well = True
        self.checker = HealthChecker(self.probe, {"authz": self.probe_dependency}, lambda: 0.0)
        self.controller = BreakerController(
            BreakerRegistry(lambda: 0.0),
            RuntimeLayers(),
            OverrideFile(None),
            self.publisher.current_config,
            self.publisher.use_forces,
        )
        self.app: FastAPI = create_app(self.publisher, self.registry, self.checker, self.controller, Operators(TOKENS))
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://api")

    async def probe(self, _service: Service) -> bool:
        return self.well

    async def probe_dependency(self) -> bool:
        return self.well

    async def call(self, method: str, path: str, *, token: str | None = "an-admin", **more: Any) -> httpx2.Response:
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        response = await self.client.request(method, path, headers=headers, **more)
        check_declared(self.app, method, path, response.status_code)
        return response

    async def put(self, text: Content, if_match: str | None = '"1"', **headers: str) -> httpx2.Response:
        given = YAML | {name.replace("_", "-"): value for name, value in headers.items()}
        if if_match is not None:
            given["if-match"] = if_match
        return await self.call("PUT", "/v1/config", content=text, headers=given)


def is_problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    """Checks the form of an error (RFC 9457) and gives its content."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = response.json()
    assert content["status"] == status
    assert {"type", "title", "detail"} <= set(content)
    return content

"""The HTTP application: routers and what they share."""

from __future__ import annotations

import time

from fastapi import FastAPI

from controlplane import __version__
from controlplane.api import breakers, config, docs, errors, health, nodes, openapi
from controlplane.api import callers as caller_limits
from controlplane.api.auth import Operators
from controlplane.breakers.controller import BreakerController
from controlplane.health.checker import HealthChecker
from controlplane.limits_client import CallerLimits
from controlplane.publish import Publisher
from controlplane.xds.status import NodeRegistry


def create_app(
    publisher: Publisher,
    registry: NodeRegistry,
    checker: HealthChecker,
    controller: BreakerController,
    operators: Operators,
    callers: CallerLimits | None = None,
) -> FastAPI:
    """The application, ready to be served. Without `callers`, their limits are a 503."""
    app = FastAPI(
        title="Media Gateway control plane",
        version=__version__,
        description=openapi.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
    )
    app.state.publisher = publisher
    app.state.registry = registry
    app.state.health = checker
    app.state.breakers = controller
    app.state.operators = operators
    app.state.callers = callers
    app.state.started_at = time.monotonic()
    errors.install(app)
    openapi.install(app)
    for module in (config, nodes, breakers, caller_limits, health, docs):
        app.include_router(module.router)
    return app

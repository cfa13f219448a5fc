"""GET /health, /health/ready and /health/live, and the process's metrics."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from controlplane import __version__
from controlplane.api.openapi import text
from controlplane.breakers.controller import BreakerController
from controlplane.health.checker import HealthChecker, Report, health, readiness
from controlplane.publish import Publisher

router = APIRouter(tags=["health"])


@router.head("/health", include_in_schema=False)
@router.get(
    "/health",
    summary="How the gateway and each service are",
    operation_id="health",
    responses={503: {"description": "Every critical service is down, or nothing is in force yet."}},
)
async def whole(request: Request) -> Response:
    state = request.app.state
    publisher: Publisher = state.publisher
    checker: HealthChecker = state.health
    breakers: BreakerController = state.breakers
    if publisher.published is None:
        return JSONResponse({"status": "unhealthy", "version": __version__, "uptime_seconds": 0, "checks": {}}, 503)
    config = publisher.published.config
    uptime_seconds = int(time.monotonic() - state.started_at)
    status, body = health(config, await checker.report(config), breakers.registry.state, __version__, uptime_seconds)
    return JSONResponse(body, status)


@router.head("/health/ready", include_in_schema=False)
@router.get(
    "/health/ready",
    summary="Whether the gateway can serve",
    operation_id="ready",
    responses={503: {"description": "It cannot."}},
)
async def ready(request: Request) -> Response:
    publisher: Publisher = request.app.state.publisher
    checker: HealthChecker = request.app.state.health
    published = publisher.published
    report = await checker.report(published.config) if published else Report()
    status, body = readiness(report, configured=published is not None)
    return JSONResponse(body, status)


@router.head("/health/live", include_in_schema=False)
@router.get(
    "/health/live",
    summary="Whether this process lives",
    operation_id="live",
)
async def live() -> dict[str, str]:
    return {"status": "alive"}


@router.get(
    "/metrics",
    summary="Prometheus metrics of the control plane",
    operation_id="metrics",
    response_class=Response,
    responses={200: text("Metrics.", "text/plain")},
)
async def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

"""The breakers in an operator's hands: how they are and why, and holding one open or closed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from controlplane.api.auth import Role, require
from controlplane.api.changes import ChangeReason, ChangeRequest, rfc3339
from controlplane.api.errors import ApiError
from controlplane.api.openapi import problems
from controlplane.breakers.controller import BreakerController
from controlplane.breakers.registry import BreakerRegistry, Force, Override
from controlplane.breakers.state_machine import View

router = APIRouter(prefix="/v1/breakers", tags=["breakers"])
Viewer = Depends(require(Role.VIEWER))
Editor = Annotated[str, Depends(require(Role.EDITOR))]


class ForceRequest(ChangeRequest):
    """What a body may say."""

    force: Force


@router.get(
    "",
    dependencies=[Viewer],
    summary="Every service's breaker: its state, since when, why, and what is counted",
    operation_id="breakers",
    responses=problems(401),
)
async def breakers(request: Request) -> dict[str, Any]:
    registry = _controller(request).registry
    return {"breakers": [_breaker(registry, service) for service in sorted(registry.breakers())]}


@router.get(
    "/{service}",
    dependencies=[Viewer],
    summary="One service's breaker",
    operation_id="breaker",
    responses=problems(401, 404),
)
async def breaker(request: Request, service: str) -> dict[str, Any]:
    registry = _controller(request).registry
    if service not in registry.breakers():
        raise _unknown(service)
    return _breaker(registry, service)


@router.put(
    "/{service}",
    summary="Hold a breaker open or closed, or let it decide by itself again",
    operation_id="forceBreaker",
    responses=problems(400, 401, 403, 404, 503),
)
async def force(
    request: Request,
    service: str,
    change: ForceRequest,
    by: Editor,
    x_change_reason: ChangeReason = "",
) -> dict[str, Any]:
    controller = _controller(request)
    try:
        controller.force(service, change.force, change.reason or x_change_reason, by)
    except KeyError as error:
        raise _unknown(service) from error
    return _breaker(controller.registry, service)


def _controller(request: Request) -> BreakerController:
    controller: BreakerController = request.app.state.breakers
    return controller


def _unknown(service: str) -> ApiError:
    return ApiError(404, f"there is no service named {service!r}")


def _breaker(registry: BreakerRegistry, service: str) -> dict[str, Any]:
    held = registry.breakers()[service]
    forced = registry.forced().get(service)
    return {
        "service": service,
        "state": registry.state(service),
        "since": _moment(registry.seconds_since(held.since)),
        "why": held.why,
        "force": _forced(forced),
        "open_seconds_left": round(-registry.seconds_since(held.until), 3) if held.state == "open" else None,
        "failures_in_a_row": held.in_a_row,
        "window": {"requests": held.asked, "failures": held.failed},
        "rules": {
            "failures": held.rules.failures,
            "error_rate_percent": held.rules.error_rate_percent,
            "open_seconds": held.rules.open_seconds,
            "half_open_requests": held.rules.trials,
        },
        "nodes": [_node(node, view, registry.cap(service, node)) for node, view in sorted(held.views.items())],
    }


def _forced(forced: Override | None) -> dict[str, Any]:
    if forced is None:
        return {"force": "auto"}
    at = datetime.fromtimestamp(forced.at, UTC)
    return {"force": forced.force, "reason": forced.reason, "by": forced.by, "at": rfc3339(at)}


def _node(node: str, view: View, cap: int | None) -> dict[str, Any]:
    """`cap` is how many requests it may have at the service at once; null: as many as it likes."""
    return {
        "id": node,
        "reports": view.is_heard,
        "ejected": view.is_ejected,
        "in_progress": view.in_progress,
        "cap": cap,
    }


def _moment(seconds_ago: float) -> str:
    return rfc3339(datetime.now(UTC) - timedelta(seconds=seconds_ago))

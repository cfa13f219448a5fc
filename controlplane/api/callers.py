"""An operator's hands on one caller's limits: look, reset, give back, and other numbers for a while."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Body, Depends, Query, Request
from pydantic import AwareDatetime, Field, model_validator

from controlplane.api.auth import Role, require
from controlplane.api.caller_view import CallerView, view
from controlplane.api.changes import ChangeReason, ChangeRequest
from controlplane.api.errors import ApiError
from controlplane.api.openapi import problems
from controlplane.errors import LimitsRejected, LimitsUnavailable
from controlplane.limits_client import Caller, CallerLimits, find_caller
from controlplane.publish import Publisher

log = structlog.get_logger()

router = APIRouter(prefix="/v1/callers", tags=["callers"])
CHANGE_PROBLEMS = problems(400, 401, 403, 503)
LONGEST_SECONDS = 366 * 24 * 3600
UNITS = 1_000_000


RuleName = Annotated[str, Field(min_length=1, max_length=200)]
Editor = Annotated[str, Depends(require(Role.EDITOR))]
Tier = Annotated[str | None, Query(description="The caller's tier, which only its token tells")]


class Reset(ChangeRequest):
    """Which counter: all of the caller's own, or the one of this rule."""

    rule: RuleName | None = None


class Grant(ChangeRequest):
    """How many requests to give back, at most what was spent."""

    rule: RuleName | None = None
    requests: Annotated[int, Field(ge=1, le=UNITS)]


class Override(ChangeRequest):
    """Numbers in place of the rule's, until a moment. With `rpm: 0` nothing passes, and the others need not be said."""

    rule: RuleName | None = None
    rps: Annotated[float, Field(ge=0.001, le=UNITS)] | None = None
    rpm: Annotated[int, Field(ge=0, le=UNITS)]
    burst: Annotated[int, Field(ge=1, le=UNITS)] | None = None
    expires_in_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS)] | None = None
    expires_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def all_numbers(self) -> Override:
        if self.rpm and (self.rps is None or self.burst is None):
            raise ValueError("give rps and burst too: only rpm 0, a block, stands alone")
        return self

    @model_validator(mode="after")
    def ends(self) -> Override:
        if (self.expires_in_seconds is None) == (self.expires_at is None):
            raise ValueError("give either expires_in_seconds or expires_at: every override ends")
        if self.expires_at is not None and not 0 < (self.expires_at - _now()).total_seconds() <= LONGEST_SECONDS:
            raise ValueError("expires_at is within the next 366 days")
        return self


def _caller(request: Request, caller: str, tier: Tier = None) -> Caller:
    publisher: Publisher = request.app.state.publisher
    if publisher.published is None:
        raise ApiError(503, "no configuration is in force yet")
    try:
        return find_caller(caller, tier, publisher.published.config)
    except ValueError as error:
        raise ApiError(400, str(error)) from error


Who = Annotated[Caller, Depends(_caller)]


@router.get(
    "/{caller:path}/limits",
    dependencies=[Depends(require(Role.VIEWER))],
    summary="What a caller has spent and has left; spends nothing",
    operation_id="callerLimits",
    responses=problems(400, 401, 503),
    response_model_exclude_unset=True,
)
async def limits(request: Request, who: Who) -> CallerView:
    return await _ask(request, "Peek", who)


@router.post(
    "/{caller:path}/reset",
    summary="Nothing is spent any more",
    operation_id="resetCaller",
    responses=CHANGE_PROBLEMS,
    response_model_exclude_unset=True,
)
async def reset(
    request: Request,
    who: Who,
    by: Editor,
    change: Annotated[Reset | None, Body()] = None,
    x_change_reason: ChangeReason = "",
) -> CallerView:
    change = change or Reset()
    return await _change(request, "Reset", who, by, change.reason or x_change_reason, rule=change.rule)


@router.post(
    "/{caller:path}/grant",
    summary="Give back some requests now",
    operation_id="grantCaller",
    responses=CHANGE_PROBLEMS,
    response_model_exclude_unset=True,
)
async def grant(
    request: Request, who: Who, by: Editor, change: Grant, x_change_reason: ChangeReason = ""
) -> CallerView:
    reason = change.reason or x_change_reason
    return await _change(request, "Grant", who, by, reason, rule=change.rule, requests=change.requests)


@router.put(
    "/{caller:path}/override",
    summary="Other numbers for one caller, until a moment",
    operation_id="overrideCaller",
    responses=CHANGE_PROBLEMS,
    response_model_exclude_unset=True,
)
async def override(
    request: Request, who: Who, by: Editor, change: Override, x_change_reason: ChangeReason = ""
) -> CallerView:
    values = change.model_dump(exclude={"reason", "expires_at"})
    expires_at = change.expires_at.timestamp() if change.expires_at else None
    reason = change.reason or x_change_reason
    return await _change(request, "Override", who, by, reason, **values, expires_at=expires_at)


@router.delete(
    "/{caller:path}/override",
    summary="Back to the policy's numbers",
    operation_id="removeOverride",
    responses=CHANGE_PROBLEMS,
    response_model_exclude_unset=True,
)
async def remove_override(
    request: Request,
    who: Who,
    by: Editor,
    rule: Annotated[RuleName | None, Query()] = None,
    x_change_reason: ChangeReason = "",
) -> CallerView:
    return await _change(request, "Override", who, by, x_change_reason, rule=rule, remove=True)


async def _change(request: Request, method: str, who: Caller, by: str, reason: str, **values: Any) -> CallerView:
    answer = await _ask(request, method, who, by=by, reason=reason, **values)
    log.info(f"caller.{method.lower()}", caller=who.caller, address=who.address, by=by, reason=reason, **values)
    return answer


async def _ask(request: Request, method: str, who: Caller, **values: Any) -> CallerView:
    service: CallerLimits | None = request.app.state.callers
    if service is None:
        raise ApiError(503, "this control plane knows no rate-limit service")
    try:
        answer = await service.ask(method, who, **values)
    except LimitsRejected as error:
        raise ApiError(400, str(error)) from error
    except LimitsUnavailable as error:
        raise ApiError(503, str(error), {"Retry-After": "1"}) from error
    return view(who, answer)


def _now() -> datetime:
    return datetime.now(UTC)

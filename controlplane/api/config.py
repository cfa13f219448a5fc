"""The configuration as one document: read it, try it, replace it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from controlplane.api.auth import Role, require
from controlplane.api.errors import ApiError
from controlplane.api.openapi import document_body, problems, text
from controlplane.config import document, load
from controlplane.config.document import Document
from controlplane.config.model import GatewayConfig
from controlplane.publish import Change, Published, Publisher

router = APIRouter(prefix="/v1/config", tags=["config"])

YAML = "application/yaml"
JSON = "application/json"
MEDIA_TYPES = {YAML: YAML, "text/yaml": YAML, "application/x-yaml": YAML, "text/x-yaml": YAML, JSON: JSON}


class ConfigWarning(BaseModel):
    """Something in an accepted document that is probably not meant."""

    path: str = Field(description="where it stands, dotted")
    message: str
    line: int
    column: int


class Accepted(BaseModel):
    """A document that is in force."""

    revision: int
    state: str = Field(description="`published`")
    warnings: list[ConfigWarning] | None = Field(None, description="absent where there are none")


class Valid(BaseModel):
    """A document that would be accepted."""

    valid: bool
    warnings: list[ConfigWarning] | None = Field(None, description="absent where there are none")


def _publisher(request: Request) -> Publisher:
    publisher: Publisher = request.app.state.publisher
    return publisher


def _etag(published: Published) -> dict[str, str]:
    return {"ETag": f'"{published.revision.number}"'}


@router.get(
    "",
    dependencies=[Depends(require(Role.VIEWER))],
    summary="The current document, as it was written",
    operation_id="readConfig",
    response_class=Response,
    responses={200: text("The document; `ETag` is its revision.", YAML, JSON), **problems(401, 503)},
)
async def read(request: Request, accept: Annotated[str, Header()] = "*/*") -> Response:
    published = _publisher(request).published
    if published is None:
        raise ApiError(503, "no configuration is in force yet")
    revision = published.revision
    if JSON in accept and revision.media_type != JSON:
        return JSONResponse(published.document.data, headers=_etag(published))
    return Response(revision.text, headers=_etag(published), media_type=revision.media_type)


@router.put(
    "",
    summary="Replace the document; in force without a restart, or rejected whole",
    operation_id="replaceConfig",
    response_class=Response,
    responses={
        200: {"model": Accepted, "description": "It is in force; `ETag` is its revision."},
        **problems(400, 401, 403, 412, 413, 415, 422, 428, 503),
    },
    openapi_extra=document_body(),
)
async def replace(
    request: Request,
    role: Annotated[str, Depends(require(Role.EDITOR))],
    if_match: Annotated[str | None, Header()] = None,
    x_change_reason: Annotated[str, Header()] = "",
) -> Response:
    expected = _expected(if_match)
    written, media_type = await _body(request)
    change = Change(written, media_type, author=role, reason=x_change_reason, expected=expected)
    published = await _publisher(request).publish(change)
    told = {"revision": published.revision.number, "state": "published"}
    return JSONResponse(told | _warnings(published.document, published.config), headers=_etag(published))


@router.post(
    "/validate",
    dependencies=[Depends(require(Role.VIEWER))],
    summary="Would this document be accepted? Nothing is changed",
    operation_id="validateConfig",
    response_class=Response,
    responses={
        200: {"model": Valid, "description": "It would be."},
        **problems(400, 401, 413, 415, 422, 503),
    },
    openapi_extra=document_body(),
)
async def check(request: Request) -> Response:
    written, _ = await _body(request)
    return JSONResponse({"valid": True} | _warnings(*await _publisher(request).check(written)))


def _warnings(written: Document, config: GatewayConfig) -> dict[str, object]:
    found = [asdict(each) for each in load.warnings_of(written, config)]
    return {"warnings": found} if found else {}


def _expected(if_match: str | None) -> int:
    """The revision that the writer saw (RFC 9110, section 13.1.1; RFC 6585, section 3)."""
    if if_match is None:
        raise ApiError(428, "send If-Match with the ETag of the revision that you changed")
    match = re.fullmatch(r'(?:W/)?"(\d{1,18})"', if_match.strip())
    if match is None:
        raise ApiError(412, f"If-Match {if_match!r} is no revision's ETag")
    return int(match[1])


async def _body(request: Request) -> tuple[str, str]:
    named = request.headers.get("content-type", YAML).partition(";")[0].strip().lower()
    media_type = MEDIA_TYPES.get(named)
    if media_type is None:
        raise ApiError(415, f"send the document as {YAML} or {JSON}, not as {named}")
    body = bytearray()
    async for chunk in request.stream():  # counted, not believed: a chunked body declares no length
        body += chunk
        if len(body) > document.MAX_BYTES:
            raise ApiError(413, f"the document is larger than {document.MAX_BYTES} bytes")
    try:
        written = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the document is not UTF-8: {error}") from error
    if media_type == JSON:
        _require_json(written)
    return written, media_type


def _require_json(written: str) -> None:
    try:
        json.loads(written)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the document is not JSON: {error}") from error

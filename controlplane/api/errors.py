"""Every error of the API as a problem document (RFC 9457), made in one place."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from controlplane.errors import (
    ConfigRejected,
    ControlPlaneError,
    EnvoyUnavailable,
    Problem,
    RevisionConflict,
    StateUnwritable,
)

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    412: "Precondition failed",
    413: "Payload too large",
    415: "Unsupported media type",
    422: "The configuration is rejected",
    428: "Precondition required",
    500: "Internal error",
    503: "Service unavailable",
}


class ApiError(ControlPlaneError):
    """An answer other than success that a handler decides on."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, extensions: Mapping[str, object] | None = None
) -> JSONResponse:
    """A problem document. `type` is about:blank: the status says what kind of problem it is."""
    body = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status, "detail": detail}
    return JSONResponse(body | dict(extensions or {}), status, dict(headers or {}), MEDIA_TYPE)


def as_json(found: Problem) -> dict[str, object]:
    """One finding as the API answers it."""
    return {"path": found.path, "message": found.message, "line": found.line, "column": found.column}


def install(app: FastAPI) -> None:
    """Make the application answer its errors as problems."""

    async def api_error(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return problem(error.status, error.detail, error.headers)

    async def rejected(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ConfigRejected)
        found = [as_json(each) for each in error.problems]
        return problem(422, f"{len(found)} problem(s), nothing was changed", extensions={"problems": found})

    async def conflict(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RevisionConflict)
        etag = {"ETag": f'"{error.current}"'}
        return problem(412, str(error), etag, {"current_revision": error.current})

    async def unavailable(_request: Request, error: Exception) -> JSONResponse:
        return problem(503, str(error))

    async def http_error(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), error.headers)

    async def bad_parameters(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = [{"path": ".".join(map(str, each["loc"])), "message": each["msg"]} for each in error.errors()]
        return problem(400, "the request's parameters do not fit", extensions={"problems": found})

    async def crashed(_request: Request, _error: Exception) -> JSONResponse:
        return problem(500, "something broke here, and its log says what")  # Starlette raises it again, for the log

    app.add_exception_handler(Exception, crashed)
    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(ConfigRejected, rejected)
    app.add_exception_handler(RevisionConflict, conflict)
    app.add_exception_handler(EnvoyUnavailable, unavailable)
    app.add_exception_handler(StateUnwritable, unavailable)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, bad_parameters)

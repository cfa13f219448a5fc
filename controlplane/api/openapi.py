"""What the API says of itself: every status that an operation may answer with, and none that it does not."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from controlplane.api.errors import MEDIA_TYPE, TITLES

DESCRIPTION = """\
Every call under `/v1` needs an operator's token (`Authorization: Bearer …`) with a role: a viewer reads, an editor also
changes, an admin may do everything. Errors are problem documents (RFC 9457). A document is written with `If-Match`, so
that nobody's change is lost.
"""

WHEN = {
    400: "The parameters or the body do not fit.",
    401: "No valid token.",
    403: "The token's role allows too little.",
    404: "There is nothing of that name.",
    412: "Somebody else changed the configuration; `current_revision` and `ETag` say which revision is current.",
    413: "The document is larger than 8 MiB.",
    415: "The document is neither YAML nor JSON by its `Content-Type`.",
    422: "The document has problems, all of which are listed. Nothing was changed.",
    428: "`If-Match` is missing.",
    500: "A fault of the control plane's own; its log says what.",
    503: "What is needed for it is away, or nothing is in force yet.",
}


class Finding(BaseModel):
    """One problem of a document or of the parameters."""

    path: str = Field(description="Where, with dots: `routes.3.service`.")
    message: str = Field(description="What is wrong.")
    line: int = Field(default=0, description="The line in the document, from 1; 0 where it has no place.")
    column: int = Field(default=0, description="The column, from 1.")


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="Always `about:blank`: the status says what kind of problem it is.")
    title: str
    status: int
    detail: str
    problems: list[Finding] | None = Field(default=None, description="With 400 and 422: everything that was found.")
    current_revision: int | None = Field(default=None, description="With 412.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of one operation, for its decorator. 500 is always among them."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {
        status: {"description": f"{TITLES[status]}. {WHEN[status]}", "content": content}
        for status in sorted({*statuses, 500})
    }


def text(description: str, *media_types: str) -> dict[str, Any]:
    """A response that is text."""
    return {"description": description, "content": {each: {"schema": {"type": "string"}} for each in media_types}}


def document_body() -> dict[str, Any]:
    """A body that is a configuration document: text for us, which the reader takes apart with its lines."""
    schema = {"type": "string", "description": "The whole document; `mgw schema` prints its JSON Schema."}
    content = {"application/yaml": {"schema": schema}, "application/json": {"schema": {"type": "object"}}}
    return {"requestBody": {"required": True, "content": content}}


def install(app: FastAPI) -> None:
    """Make the application describe what it does, not what FastAPI takes for granted."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        found = describe()
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        for operations in found["paths"].values():
            for operation in operations.values():
                _drop_presumed_errors(operation)
        for presumed in ("HTTPValidationError", "ValidationError"):
            schemas.pop(presumed, None)
        own = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= own.pop("$defs") | {"ProblemDocument": own}
        return found

    app.openapi = described  # type: ignore[method-assign] # as FastAPI's documentation has it


def _drop_presumed_errors(operation: dict[str, Any]) -> None:
    """FastAPI presumes 422 for parameters that do not fit; ours are 400."""
    presumed = operation["responses"].get("422", {})
    if "HTTPValidationError" in str(presumed):
        del operation["responses"]["422"]

"""docs/reference/openapi.json, and docs/reference/api.md: the operator API."""

from __future__ import annotations

import json
from typing import Any

from controlplane.api.app import create_app
from docs.generate.markdown import page, table


def document() -> dict[str, Any]:
    """The description of the API. None of the parts that it is made of is needed for that."""
    nothing: Any = None
    return create_app(nothing, nothing, nothing, nothing, nothing).openapi()


def openapi() -> str:
    """The file."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def api() -> str:
    """The page."""
    found = document()
    parts = [
        found["info"]["description"],
        "A control plane serves the same at `/openapi.json`, and as a page to try it on at `/docs`. "
        "The file beside this page is [openapi.json](openapi.json).",
    ]
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            parts.append(f"## `{method.upper()} {path}`")
            parts.append(f"{operation['summary']}.")
            if parameters := operation.get("parameters"):
                parts.append(table(("parameter", "in", "meaning"), [_parameter(each) for each in parameters]))
            rows = [(status, each["description"]) for status, each in operation["responses"].items()]
            parts.append(table(("status", "when"), rows))
    return page("Operator API", parts)


def _parameter(parameter: dict[str, Any]) -> tuple[str, str, str]:
    required = "required" if parameter.get("required") else "optional"
    return f"`{parameter['name']}`", parameter["in"], parameter.get("description", required)

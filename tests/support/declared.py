"""Whether the operator API answers only as its own description says."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI


def check_declared(app: FastAPI, method: str, path: str, status: int) -> None:
    """Fails for a status that the operation does not declare. What is no operation has nothing to declare."""
    for template, operations in _operations(app).items():
        operation = operations.get(method.lower())
        if operation is not None and _pattern(template).fullmatch(path.partition("?")[0]):
            assert str(status) in operation["responses"], f"{method} {template} does not declare {status}"
            return


def _operations(app: FastAPI) -> dict[str, Any]:
    described: dict[str, Any] = app.openapi()["paths"]
    return described


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{[^}]*\}", template)
    return re.compile(".+".join(map(re.escape, parts)))

"""The configuration document as a JSON Schema (draft 2020-12), for editors and for checks before a write.

It says less than `mgw validate`: a schema cannot know that a route's service exists.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, BeforeValidator

from controlplane.config.fields import split_commas
from controlplane.config.model import GatewayConfig
from controlplane.reference.docstrings import field_texts
from controlplane.reference.models import models

DIALECT = "https://json-schema.org/draft/2020-12/schema"
KEPT = ("type", "required", "additionalProperties")
REFERENCE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
"""Stands wherever the loader takes `${NAME}`, whatever the type of the value."""


def schema() -> dict[str, Any]:
    """The whole schema, with every field's meaning."""
    made = GatewayConfig.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = made.pop("$defs")
    by_name = {model.__name__: model for model in models()}
    root = _described(made, GatewayConfig)
    described = {name: _described(each, by_name[name]) for name, each in sorted(definitions.items()) if name in by_name}
    return {"$schema": DIALECT, "title": "Media Gateway configuration", **root, "$defs": described}


def text() -> str:
    """The schema as a file holds it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def _described(definition: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    texts = field_texts(model)
    names = {str(field.alias or name): name for name, field in model.model_fields.items()}
    properties = {}
    for key, value in definition.get("properties", {}).items():
        name = names.get(key, key)
        field = model.model_fields[name]
        taken = _with_references(value)
        if any(isinstance(each, BeforeValidator) and each.func is split_commas for each in field.metadata):
            taken = {"anyOf": [taken, {"type": "string"}]}
        properties[key] = {"description": texts.get(name, ""), **taken}
    kept: dict[str, Any] = {key: definition[key] for key in KEPT if key in definition}
    return {"description": _first_line(model), **kept, "properties": properties}


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip()


def _with_references(value: Any) -> Any:
    """Without titles, and with a reference wherever a scalar has to look like something."""
    if isinstance(value, list):
        return [_with_references(each) for each in value]
    if not isinstance(value, dict):
        return value
    inner = {key: _with_references(child) for key, child in value.items() if key != "title"}
    if not _is_strict_scalar(inner):
        return inner
    default = {"default": inner.pop("default")} if "default" in inner else {}
    return {"anyOf": [inner, REFERENCE], **default}


def _is_strict_scalar(value: dict[str, Any]) -> bool:
    if value.get("type") in ("integer", "number", "boolean"):
        return True
    return value.get("type") == "string" and bool({"pattern", "enum", "const"} & value.keys())

"""The models of the configuration document, and where each stands in it."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from controlplane.config.model import GatewayConfig


def models() -> Mapping[type[BaseModel], str]:
    """Every model with its place, such as `services[].breaker`; empty for the document itself. Parents come first."""
    found: dict[type[BaseModel], str] = {}
    _find(GatewayConfig, "", found)
    return found


def _find(model: type[BaseModel], place: str, found: dict[type[BaseModel], str]) -> None:
    if model in found:
        return
    found[model] = place
    for name, field in model.model_fields.items():
        key = str(field.alias or name)
        for inner, suffix in inner_models(field.annotation):
            _find(inner, f"{place}.{key}{suffix}".lstrip("."), found)


def inner_models(annotation: Any, suffix: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """The models in a field's type, with `[]` for each list and `.NAME` for each mapping around them."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and origin is None and issubclass(annotation, BaseModel):
        yield annotation, suffix
    elif origin is list:
        yield from inner_models(arguments[0], f"{suffix}[]")
    elif origin is dict:
        yield from inner_models(arguments[1], f"{suffix}.NAME")
    elif origin is typing.Annotated:
        yield from inner_models(arguments[0], suffix)
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from inner_models(argument, suffix)

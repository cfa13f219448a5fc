"""The text below a field, which Python itself throws away."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from collections.abc import Mapping
from functools import cache


def field_texts(model: type) -> Mapping[str, str]:
    """What each field of a class says, inherited fields included: the string literal that follows it."""
    texts: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each.__module__ in sys.modules and each.__module__.split(".")[0] != "builtins":
            texts |= _in_module(each.__module__).get(each.__qualname__, {})
    fields = _fields(model)  # what pydantic says of its own is none of them
    return {name: text for name, text in texts.items() if name in fields}


def _fields(model: type) -> set[str]:
    if dataclasses.is_dataclass(model):
        return {field.name for field in dataclasses.fields(model)}
    return set(getattr(model, "model_fields", ()))


@cache
def _in_module(name: str) -> Mapping[str, Mapping[str, str]]:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[name]))
    except (OSError, TypeError):  # built in, or without its source
        return {}
    return {node.name: _of_class(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _of_class(node: ast.ClassDef) -> Mapping[str, str]:
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        match below:
            case ast.Expr(value=ast.Constant(value=str(text))):
                found[field.target.id] = inspect.cleandoc(text).replace("\n", " ")
    return found

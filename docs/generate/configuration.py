"""docs/reference/configuration.md: every key of the document with its type, default, bounds, meaning and an example."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from controlplane.reference.docstrings import field_texts
from controlplane.reference.models import inner_models, models
from controlplane.reference.schema import schema
from docs.generate.examples import EXAMPLES
from docs.generate.markdown import code, page, table

INTRODUCTION = """\
The document is YAML or JSON. It is strict: a key that is not here is a problem, and so is a key that stands twice.

- `${NAME}` and `${NAME:-default}` stand for a value of the control plane's environment. Names that begin with `MGW_` or
  hold `SECRET`, `TOKEN` or `PASSWORD` are private: only the key `secret` may refer to them, and it stays a reference.
- `mgw validate -f FILE` checks a document offline. `mgw schema` prints its JSON Schema, which editors understand: the
  default document begins with a comment that names it.
- Seconds may have fractions where the type is "number".
"""


def configuration() -> str:
    """The page."""
    definitions = schema()
    parts = [INTRODUCTION]
    for model, place in models().items():
        parts += _section(model, place, definitions)
    return page("Configuration document", parts)


def _section(model: type[BaseModel], place: str, definitions: dict[str, Any]) -> Iterator[str]:
    yield f"## {_title(model, place)}"
    yield (model.__doc__ or "").strip()
    of_model = definitions if not place else definitions["$defs"][model.__name__]
    texts = field_texts(model)
    rows = []
    for name, field in model.model_fields.items():
        key = str(field.alias or name)
        rows.append(_row(key, field, of_model["properties"][key], texts.get(name, "")))
    yield table(("key", "type", "default", "meaning"), rows)
    for example in EXAMPLES.get(model.__name__, ()):
        yield f"```yaml\n{example.rstrip()}\n```"


def _title(model: type[BaseModel], place: str) -> str:
    """Two kinds of object may stand in one place: the second one's title has its name."""
    first = next(other for other, its_place in models().items() if its_place == place)
    if not place:
        return "The document"
    return f"`{place}`" if model is first else f"`{place}` ({model.__name__.lower()})"


def _row(key: str, field: FieldInfo, definition: dict[str, Any], text: str) -> tuple[str, str, str, str]:
    kind = "; ".join(dict.fromkeys(_kinds(definition)))
    links = [f"#{_anchor(_title(inner, models()[inner]))}" for inner, _ in inner_models(field.annotation)]
    if links:
        word = kind or "object"
        kind = " or ".join(f"[{word}]({link})" for link in links)
    return f"`{key}`", kind, _default(field), text


def _anchor(place: str) -> str:
    """As the site makes it of a heading."""
    return "".join(each for each in place.lower().replace(" ", "-") if each.isalnum() or each in "_-")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return "its keys' defaults"
    return "none" if value is None else f"`{json.dumps(value)}`"


def _kinds(definition: dict[str, Any]) -> Iterator[str]:
    """A type in words, with its bounds."""
    if "anyOf" in definition:
        for each in definition["anyOf"]:
            if not _is_reference(each) and each.get("type") != "null":
                yield from _kinds(each)
    elif "$ref" in definition:
        yield "object"
    elif "enum" in definition:
        yield ", ".join(f"`{each}`" for each in definition["enum"])
    elif "const" in definition:
        yield f"`{str(definition['const']).lower()}`"
    elif definition.get("type") == "array":
        yield f"list of {' or '.join(_kinds(definition['items']))}{_bounds(definition)}"
    elif definition.get("type") == "object":
        inner = definition.get("additionalProperties")
        yield f"mapping of names to {' or '.join(_kinds(inner))}" if isinstance(inner, dict) else "object"
    else:
        word = {"string": "text", "integer": "whole number"}.get(definition.get("type", ""), definition.get("type", ""))
        yield f"{word}{_bounds(definition)}"


def _is_reference(definition: dict[str, Any]) -> bool:
    return definition.get("type") == "string" and str(definition.get("pattern", "")).startswith(r"\$\{")


def _bounds(definition: dict[str, Any]) -> str:
    low = definition.get("minimum", definition.get("exclusiveMinimum"))
    high = definition.get("maximum")
    said = []
    if low is not None and high is not None:
        said.append(f"{'above ' if 'exclusiveMinimum' in definition else ''}{low:,} to {high:,}")
    elif low is not None:
        said.append(f"{low:,} or more" if "minimum" in definition else f"above {low:,}")
    if definition.get("maxLength"):
        said.append(f"at most {definition['maxLength']:,} characters")
    if definition.get("minItems"):
        said.append("not empty")
    if definition.get("pattern"):
        said.append(code(definition["pattern"]).replace("|", "\\|"))
    return f", {', '.join(said)}" if said else ""

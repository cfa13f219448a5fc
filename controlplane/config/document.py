"""Read a configuration document: YAML or JSON text to plain values, remembering where each one stands."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from controlplane.errors import ConfigRejected, Problem
from service_kit.bounded_yaml import Path, compose, place, scalar
from service_kit.errors import YamlRejected

MAX_BYTES = 8 * 1024 * 1024

UNRESOLVED_KEYS = frozenset({"secret"})
"""Keys whose `${NAME}` stays a reference: the value is nobody's business but the service's that uses it."""

PRIVATE_NAMES = re.compile(r"^MGW_|SECRET|TOKEN|PASSWORD")
"""Variables that a document cannot read: their values would show in problems, answers and what nodes are told."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

Mark = tuple[int, int]


@dataclass(frozen=True)
class Document:
    """A document's values, as written (`data`), and the line and column of each (from 1)."""

    text: str
    data: Any
    marks: Mapping[Path, Mark] = field(repr=False)

    def mark(self, path: Path) -> Mark:
        """Where `path` stands, or the nearest thing around it that does."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, (1, 1))

    def problem(self, path: Path, message: str) -> Problem:
        """A problem at `path`, with its place in the text."""
        line, column = self.mark(path)
        return Problem(dotted(path), message, line, column)


def dotted(path: Path) -> str:
    """`("routes", 3, "service")` as `routes.3.service`."""
    return ".".join(str(part) for part in path)


def read(text: str) -> Document:
    """Parse a document.

    Raises ConfigRejected for text that is not YAML or JSON, for duplicate keys, for nesting over 32 levels, and for
    documents over 8 MiB or 500,000 values (aliases followed).
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ConfigRejected([Problem("", f"the document is larger than {MAX_BYTES} bytes", 1, 1)])
    try:
        node = compose(_with_characters_for_pairs(text))
    except YamlRejected as error:
        raise ConfigRejected([Problem(dotted(error.path), error.message, error.line, error.column)]) from error
    if node is None:
        raise ConfigRejected([Problem("", "the document is empty", 1, 1)])
    return _Walk().document(text, node)


_ESCAPED_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})")


def _with_characters_for_pairs(text: str) -> str:
    """JSON escapes a character beyond U+FFFF as a pair (RFC 8259, section 7). YAML knows no pairs, and rejects both."""
    if not text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        return text
    return _ESCAPED_PAIR.sub(lambda pair: pair[1] + json.loads(f'"{pair[2]}"'), text)


class _Walk:
    """One walk over a node tree: values, places, and what is wrong with the text itself."""

    def __init__(self) -> None:
        self.marks: dict[Path, Mark] = {}
        self.problems: list[Problem] = []

    def document(self, text: str, node: yaml.Node) -> Document:
        data = self.value(node, ())
        if self.problems:
            raise ConfigRejected(self.problems)
        return Document(text, data, self.marks)

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.marks.setdefault(path, place(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        try:
            return _json_scalar(node)
        except ValueError as error:
            self.problems.append(Problem(dotted(path), f"cannot be read: {error}", *place(node)))
        return None

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(dotted(path), "a key must be text", *place(key_node)))
                continue
            key = str(key_node.value)
            here = (*path, key)
            if key in values:
                self.problems.append(Problem(dotted(here), "the key stands here twice", *place(key_node)))
                continue
            self.marks[here] = place(key_node)
            values[key] = self.value(value_node, here)
        return values


_TAG = "tag:yaml.org,2002:"
_AS_WRITTEN = frozenset(_TAG + name for name in ("str", "timestamp", "value", "merge"))
_JSON_SCALARS = frozenset(_TAG + name for name in ("null", "bool", "int", "float"))


def _json_scalar(node: yaml.Node) -> Any:
    """Text, a number, a boolean or null: what JSON has. A date is text as it was written. Raises ValueError."""
    if node.tag in _AS_WRITTEN:
        return str(node.value)
    if node.tag not in _JSON_SCALARS:
        raise ValueError(f"{node.tag} is neither text, number, boolean nor null")
    value = scalar(node)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


def resolve(document: Document, environment: Mapping[str, str]) -> Any:
    """The document's values with `${NAME}` and `${NAME:-default}` replaced from the environment.

    Values under a key in UNRESOLVED_KEYS stay as written. Raises ConfigRejected naming every reference that has no
    value or is private.
    """
    problems: list[Problem] = []

    def walk(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: child if key in UNRESOLVED_KEYS else walk(child, (*path, key)) for key, child in value.items()}
        if isinstance(value, list):
            return [walk(child, (*path, index)) for index, child in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            problems.extend(document.problem(path, message) for message in _missing(value, environment))
            return _REFERENCE.sub(lambda match: environment.get(match[1]) or match[2] or "", value)
        return value

    resolved = walk(document.data, ())
    if problems:
        raise ConfigRejected(problems)
    return resolved


def _missing(value: str, environment: Mapping[str, str]) -> Iterator[str]:
    for name, default in ((match[1], match[2]) for match in _REFERENCE.finditer(value)):
        if PRIVATE_NAMES.search(name):
            yield f"{name} is private: only the key 'secret' may refer to it"
        elif default is None and not environment.get(name):
            yield f"the environment has no {name}, and the reference gives no default"

"""YAML to nodes, within bounds: no text of a stranger or of a tired operator ends a process or keeps it busy.

PyYAML has no bounds of its own. Its C parser recurses over nesting and ends the process; an alias lets a short text
stand for millions of values, for itself, or for a chain that is as deep as the text is long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from service_kit.errors import YamlRejected, YamlUnreadable

Path = tuple[str | int, ...]

MAX_DEPTH = 32
"""Levels of nesting, aliases followed."""

MAX_VALUES = 500_000
"""Values, aliases followed: what a reader visits, not what is written."""

MAX_NUMBER_LENGTH = 64
"""Characters of a scalar that is not text: YAML 1.1 has numbers (`1:59:59:…`) whose value takes quadratic time."""


def compose(text: str) -> yaml.Node | None:
    """The text's one document; None for a text without any.

    Raises YamlRejected with the place: for more than 32 levels, for more than 500,000 values, and for an alias that
    contains itself. Raises YamlUnreadable, which is one of them, for what is not YAML.
    """
    try:
        _check_nesting(text)
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise YamlUnreadable(error.problem or "not a YAML document", (), line, column) from error
    except (yaml.YAMLError, ValueError) as error:
        raise YamlUnreadable(f"not a YAML document: {error}", (), 1, 1) from error
    if node is not None:
        _check_aliases(node)
    return node


def _check_nesting(text: str) -> None:
    """On events, because composing nodes already recurses."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark: Any = event.start_mark
                raise _too_deep((), mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


@dataclass
class _Open:
    """A collection whose parts are being looked at."""

    node: yaml.Node
    path: Path
    parts: Iterator[tuple[Path, yaml.Node]]
    values: int = 1
    levels: int = 1


def _check_aliases(root: yaml.Node) -> None:
    """Each node once, however often it is referred to: its values and levels are known after the first visit."""
    known: dict[int, tuple[int, int]] = {}
    stack = [_Open(root, (), _parts(root, ()))]
    above = {id(root)}
    while stack:
        this = stack[-1]
        for path, part in this.parts:
            if id(part) in above:
                raise YamlRejected("an alias that contains itself", path, *place(part))
            if id(part) not in known and not isinstance(part, yaml.ScalarNode):
                stack.append(_Open(part, path, _parts(part, path)))
                above.add(id(part))
                break
            _count(this, *known.get(id(part), (1, 0)))
        else:
            stack.pop()
            above.discard(id(this.node))
            known[id(this.node)] = this.values, this.levels
            if stack:
                _count(stack[-1], this.values, this.levels)


def _count(this: _Open, values: int, levels: int) -> None:
    this.values += values
    this.levels = max(this.levels, 1 + levels)
    if this.values > MAX_VALUES:
        raise YamlRejected(f"more than {MAX_VALUES} values", this.path, *place(this.node))
    if this.levels > MAX_DEPTH:
        raise _too_deep(this.path, this.node.start_mark)


def _parts(node: yaml.Node, path: Path) -> Iterator[tuple[Path, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        yield from (((*path, index), part) for index, part in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                yield path, key
            yield (*path, str(key.value) if isinstance(key, yaml.ScalarNode) else "?"), value


def _too_deep(path: Path, mark: yaml.Mark) -> YamlRejected:
    return YamlRejected(f"nested deeper than {MAX_DEPTH} levels", path, mark.line + 1, mark.column + 1)


def scalar(node: yaml.Node) -> Any:
    """What YAML 1.1 reads in a scalar. Raises ValueError, which says why, for one that is too long or does not fit."""
    if len(node.value) > MAX_NUMBER_LENGTH:
        raise ValueError(f"a number has at most {MAX_NUMBER_LENGTH} characters")
    try:
        return SafeConstructor().construct_object(node)
    except LookupError as error:  # PyYAML's own, for `!!bool maybe` and `!!int ""`
        raise ValueError("not a value of this type") from error
    except (yaml.YAMLError, ArithmeticError) as error:
        raise ValueError(str(error)) from error


def place(node: yaml.Node) -> tuple[int, int]:
    """Line and column of a node, from 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1

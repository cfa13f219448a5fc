"""The policy form of envoyproxy/ratelimit: a YAML file a domain, with nested descriptors. Its users can move with it.

Matching is theirs. An entry of a request is looked up level by level: its key and value, then the first wildcard of its
key (`foo*`), then its key alone. Nothing is tried again after a match. A limit holds where its depth is exactly the
number of the request's entries. What differs on purpose is said in docs/agreements.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ratelimit_service.errors import PolicyRejected
from ratelimit_service.windows import MAX_HITS, Unit
from service_kit.bounded_yaml import compose, scalar
from service_kit.errors import YamlRejected, YamlUnreadable

SUFFIXES = (".yaml", ".yml")
_DESCRIPTOR_KEYS = ("key", "value", "rate_limit", "descriptors", "shadow_mode", "detailed_metric")
_LIMIT_KEYS = ("unit", "requests_per_unit", "unlimited", "name", "replaces")

Entries = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class RlsLimit:
    """A limit of the file. Without a unit it is unlimited."""

    unit: Unit | None
    requests: int
    label: str
    """What metrics call it: its name, or its place in the file."""
    name: str = ""
    replaces: frozenset[str] = frozenset()
    is_shadow: bool = False


@dataclass(slots=True)
class Level:
    """The descriptors at one depth: by key and value, by key and beginning of the value in file order, by key alone."""

    exact: dict[tuple[str, str], Node] = field(default_factory=dict)
    wildcards: dict[str, list[tuple[str, Node]]] = field(default_factory=dict)
    by_key: dict[str, Node] = field(default_factory=dict)

    def find(self, key: str, value: str) -> Node | None:
        node = self.exact.get((key, value)) if value else None
        if node is None and value:
            starts = self.wildcards.get(key, ())
            node = next((each for start, each in starts if value.startswith(start)), None)
        return node or self.by_key.get(key)


@dataclass(slots=True)
class Node:
    """One descriptor of the file."""

    limit: RlsLimit | None = None
    below: Level = field(default_factory=Level)


@dataclass(frozen=True, slots=True)
class RlsPolicy:
    """All domains."""

    domains: Mapping[str, Level]

    def find(self, domain: str, entries: Entries) -> RlsLimit | None:
        """The limit of a request's descriptor."""
        level = self.domains.get(domain)
        node: Node | None = None
        for key, value in entries:
            node = level.find(key, value) if level is not None else None
            if node is None:
                return None
            level = node.below
        return node.limit if node is not None else None


def is_rls(path: Path) -> bool:
    """Whether a policy file is of this form: YAML, or a directory of such files."""
    return path.is_dir() or path.suffix in SUFFIXES


def load(path: Path) -> RlsPolicy:
    """The policy in a file, or in a directory of YAML files. PolicyRejected tells every mistake with file and line."""
    files = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise PolicyRejected(f"{path}: no YAML file is in it")
    try:
        texts = {str(file): file.read_text("utf-8") for file in files}
    except (OSError, ValueError) as error:
        raise PolicyRejected(f"{path}: cannot be read: {error}") from error
    return read_texts(texts)


def read_texts(texts: Mapping[str, str]) -> RlsPolicy:
    """The policy in these texts, by file name. PolicyRejected says every mistake with file and line."""
    domains: dict[str, Level] = {}
    problems: list[str] = []
    for name, text in texts.items():
        reader = _Reader(name)
        reader.read(text, domains)
        problems += reader.problems
    if problems:
        raise PolicyRejected("; ".join(problems))
    return RlsPolicy(domains)


class _Reader:
    """Reads one file, and notes each mistake where it is."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[str] = []

    def read(self, text: str, domains: dict[str, Level]) -> None:
        try:
            root = compose(text)
        except YamlUnreadable as error:
            self.problems.append(f"{self._file}:{error.line}: no YAML: {error.message}")
            return
        except YamlRejected as error:
            self.problems.append(f"{self._file}:{error.line}: {error.message}")
            return
        if root is None:
            self.problems.append(f"{self._file}:1: the file is empty")
            return
        found = self._mapping(root, ("domain", "descriptors"))
        domain = self._text(root, found, "domain", required=True)
        if domain in domains:
            self._say(found["domain"], f"domain {domain!r} is in another file too")
        level = Level()
        self._descriptors(found.get("descriptors"), level, "")
        domains.setdefault(domain, level)

    def _descriptors(self, node: yaml.Node | None, level: Level, parent: str) -> None:
        for each in self._sequence(node, "descriptors"):
            self._descriptor(each, level, parent)

    def _descriptor(self, node: yaml.Node, level: Level, parent: str) -> None:
        found = self._mapping(node, _DESCRIPTOR_KEYS)
        key, value = self._text(node, found, "key", required=True), self._text(node, found, "value")
        path = f"{parent}.{key}" if parent else key
        path += f"_{value}" if value else ""
        is_shadow, _ = self._flag(found, "shadow_mode"), self._flag(found, "detailed_metric")
        limit = self._limit(found["rate_limit"], path, is_shadow) if "rate_limit" in found else None
        result = Node(limit)
        if not self._put(level, key, value, result):
            self._say(node, f"descriptor {path!r} is there twice")
        self._descriptors(found.get("descriptors"), result.below, path)

    @staticmethod
    def _put(level: Level, key: str, value: str, node: Node) -> bool:
        """Whether the place was free."""
        if not value:
            return level.by_key.setdefault(key, node) is node
        if not value.endswith("*"):
            return level.exact.setdefault((key, value), node) is node
        starts = level.wildcards.setdefault(key, [])
        is_free = all(start != value[:-1] for start, _ in starts)
        starts.append((value[:-1], node))
        return is_free

    def _limit(self, node: yaml.Node, path: str, is_shadow: bool) -> RlsLimit:
        found = self._mapping(node, _LIMIT_KEYS)
        name = self._text(node, found, "name")
        replaces = frozenset(self._replaced(found.get("replaces"), name))
        if self._flag(found, "unlimited"):
            for key in ("unit", "requests_per_unit"):
                if key in found:
                    self._say(found[key], f"{path!r} is unlimited and has a {key}")
            return RlsLimit(None, 0, name or path, name, replaces, is_shadow)
        unit, requests = self._text(node, found, "unit", required=True), self._count(node, found)
        known = {each.name.lower(): each for each in Unit}
        if unit and unit.lower() not in known:
            self._say(found["unit"], f"no unit {unit!r}: use one of {', '.join(known)}")
        return RlsLimit(known.get(unit.lower()), requests, name or path, name, replaces, is_shadow)

    def _replaced(self, node: yaml.Node | None, name: str) -> Iterator[str]:
        for each in self._sequence(node, "replaces"):
            replaced = self._text(each, self._mapping(each, ("name",)), "name", required=True)
            if replaced and replaced == name:
                self._say(each, f"limit {name!r} cannot replace itself")
            yield replaced

    def _count(self, node: yaml.Node, found: Mapping[str, yaml.Node]) -> int:
        if "requests_per_unit" not in found:
            self._say(node, "requests_per_unit is missing")
            return 0
        value = _plain(found["requests_per_unit"])
        if type(value) is not int or not 0 <= value <= MAX_HITS:
            self._say(found["requests_per_unit"], f"requests_per_unit is a whole number from 0 to {MAX_HITS}")
            return 0
        return value

    def _flag(self, found: Mapping[str, yaml.Node], key: str) -> bool:
        value = _plain(found[key]) if key in found else False
        if type(value) is not bool:
            self._say(found[key], f"{key} is true or false")
        return value is True

    def _text(self, node: yaml.Node, found: Mapping[str, yaml.Node], key: str, *, required: bool = False) -> str:
        """The scalar as it is written: a value 404 or true is text here."""
        child = found.get(key)
        if child is not None and not isinstance(child, yaml.ScalarNode):
            self._say(child, f"{key} is a text")
            return ""
        text = "" if child is None or _plain(child) is None else str(child.value)
        if required and not text:
            self._say(child or node, f"{key} is missing")
        return text

    def _mapping(self, node: yaml.Node, allowed: Iterable[str]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self._say(node, f"expected a mapping of {', '.join(allowed)}")
            return {}
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value not in allowed:
                self._say(key, f"no such key {key.value!r}: use {', '.join(allowed)}")
            elif key.value in found:
                self._say(key, f"{key.value} is there twice")
            else:
                found[key.value] = value
        return found

    def _sequence(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        if node is None or (isinstance(node, yaml.ScalarNode) and _plain(node) is None):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._say(node, f"{what} is a list")
            return []
        return list(node.value)

    def _say(self, node: yaml.Node, problem: str) -> None:
        self.problems.append(f"{self._file}:{node.start_mark.line + 1}: {problem}")


def _plain(node: yaml.Node) -> Any:
    """A scalar as YAML reads it, or as it is written where YAML cannot."""
    if not isinstance(node, yaml.ScalarNode):
        return node
    try:
        return scalar(node)
    except ValueError:
        return node.value

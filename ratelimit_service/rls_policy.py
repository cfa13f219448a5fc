"""The policy form of envoyproxy/ratelimit: a YAML file a domain, with nested descriptors. Its users can move with it.

Matching is theirs. An entry of a request is looked up level by level, as the text `key_value`: word for word, then by
the first wildcard that fits (`*` is any text, also none, wherever it stands), then by its key alone. Nothing is tried
again after a match. A limit holds where its depth is exactly the number of the request's entries. What differs on
purpose is said in docs/agreements.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ratelimit_service.errors import PolicyRejected
from ratelimit_service.windows import MAX_HITS, Unit
from service_kit.bounded_yaml import compose, scalar
from service_kit.errors import YamlRejected, YamlUnreadable

SUFFIXES = (".yaml", ".yml")
_FLAGS = ("shadow_mode", "quota_mode", "share_threshold", "detailed_metric", "value_to_metric")
_DESCRIPTOR_KEYS = ("key", "value", "rate_limit", "descriptors", *_FLAGS, "metadata")
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
    is_quota: bool = False
    """Over limit it refuses the request only together with all other quotas of the request."""


@dataclass(frozen=True, slots=True)
class Wildcard:
    """A descriptor whose `key_value` has a `*`."""

    text: str
    node: Node

    def fits(self, asked: str) -> bool:
        first, *middle, last = self.text.split("*")
        if not asked.startswith(first) or not asked.endswith(last) or len(asked) < len(first) + len(last):
            return False
        rest, at = asked[len(first) : len(asked) - len(last)], 0
        for part in middle:
            found = rest.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return True


@dataclass(slots=True)
class Level:
    """The descriptors at one depth: by `key_value`, or by `key` where they have no value; wildcards in file order."""

    named: dict[str, Node] = field(default_factory=dict)
    wildcards: list[Wildcard] = field(default_factory=list)

    def find(self, key: str, value: str) -> tuple[Node | None, str]:
        """The descriptor, and the value under which its hits are counted."""
        asked = f"{key}_{value}"
        node = self.named.get(asked)
        if node is not None:
            return node, value
        wildcard = next((each for each in self.wildcards if each.fits(asked)), None)
        if wildcard is None:
            return self.named.get(key), value
        return wildcard.node, wildcard.text.removeprefix(f"{key}_") if wildcard.node.is_shared else value


@dataclass(slots=True)
class Node:
    """One descriptor of the file."""

    limit: RlsLimit | None = None
    is_shared: bool = False
    """All values that the wildcard fits spend from one counter."""
    below: Level = field(default_factory=Level)


@dataclass(frozen=True, slots=True)
class RlsPolicy:
    """All domains."""

    domains: Mapping[str, Level]

    def find(self, domain: str, entries: Entries) -> tuple[RlsLimit | None, Entries]:
        """The limit of a request's descriptor, and the entries under which it is counted."""
        level = self.domains.get(domain)
        node: Node | None = None
        counted: list[tuple[str, str]] = []
        for key, value in entries:
            node, name = level.find(key, value) if level is not None else (None, value)
            if node is None:
                return None, entries
            counted.append((key, name))
            level = node.below
        return (node.limit, counted) if node is not None else (None, entries)


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
        self._descriptors(found.get("descriptors"), domains.setdefault(domain, Level()), "")

    def _descriptors(self, node: yaml.Node | None, level: Level, parent: str) -> None:
        for each in self._sequence(node, "descriptors"):
            self._descriptor(each, level, parent)

    def _descriptor(self, node: yaml.Node, level: Level, parent: str) -> None:
        found = self._mapping(node, _DESCRIPTOR_KEYS)
        if not isinstance(node, yaml.MappingNode):
            return
        key, value = self._text(node, found, "key", required=True), self._text(node, found, "value")
        name = f"{key}_{value}" if value else key
        path = f"{parent}.{name}" if parent else name
        flags = {flag for flag in _FLAGS if self._flag(found, flag)}
        if "share_threshold" in flags and "*" not in name:
            self._say(found["share_threshold"], f"share_threshold of {path!r} needs a value with a *")
        if not _is_null(found.get("metadata")) and not isinstance(found["metadata"], yaml.MappingNode):
            self._say(found["metadata"], "metadata is a mapping")
        limit = None if _is_null(found.get("rate_limit")) else self._limit(found["rate_limit"], path, flags)
        result = Node(limit, "share_threshold" in flags)
        if level.named.setdefault(name, result) is not result:
            self._say(node, f"descriptor {path!r} is there twice")
        elif "*" in name:
            level.wildcards.append(Wildcard(name, result))
        self._descriptors(found.get("descriptors"), result.below, path)

    def _limit(self, node: yaml.Node, path: str, flags: Set[str]) -> RlsLimit:
        found = self._mapping(node, _LIMIT_KEYS)
        name = self._text(node, found, "name")
        replaces = frozenset(self._replaced(found.get("replaces"), name))
        modes = ("shadow_mode" in flags, "quota_mode" in flags)
        if self._flag(found, "unlimited"):
            if "unit" in found:
                self._say(found["unit"], f"{path!r} is unlimited and has a unit")
            return RlsLimit(None, 0, name or path, name, replaces, *modes)
        unit, requests = self._text(node, found, "unit", required=True), self._count(node, found)
        known = {each.name.lower(): each for each in Unit}
        if unit and unit.lower() not in known:
            self._say(found["unit"], f"no unit {unit!r}: use one of {', '.join(known)}")
        return RlsLimit(known.get(unit.lower()), requests, name or path, name, replaces, *modes)

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
        value = False if _is_null(found.get(key)) else _plain(found[key])
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
        if node is None or _is_null(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._say(node, f"{what} is a list")
            return []
        return list(node.value)

    def _say(self, node: yaml.Node, problem: str) -> None:
        self.problems.append(f"{self._file}:{node.start_mark.line + 1}: {problem}")


def _is_null(node: yaml.Node | None) -> bool:
    """Whether nothing is given: what is null counts as absent."""
    return node is None or (isinstance(node, yaml.ScalarNode) and _plain(node) is None)


def _plain(node: yaml.Node) -> Any:
    """A scalar as YAML reads it, or as it is written where YAML cannot."""
    if not isinstance(node, yaml.ScalarNode):
        return node
    try:
        return scalar(node)
    except ValueError:
        return node.value

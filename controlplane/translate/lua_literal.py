"""Values as Lua source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        "and break do else elseif end false for function goto if in local"
        " nil not or repeat return then true until while",
    )
)
PLAIN = frozenset(range(0x20, 0x7F)) - set(b'"\\')
"""Bytes that stand for themselves in a Lua string."""

Literal = str | bool | int | float | Set[str] | tuple["Literal", ...] | Mapping[str, "Literal"]


def literal(value: Literal) -> str:
    """The value as a Lua expression. A set is a table with the value `true` for each member."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return _table(f"{_key(name)} = {literal(child)}" for name, child in value.items())
    if isinstance(value, tuple):
        return _table(map(literal, value))
    return _table(f"{_key(name)} = true" for name in sorted(value))


def quoted(text: str) -> str:
    """A Lua string of these bytes, whatever they are."""
    return '"' + "".join(chr(byte) if byte in PLAIN else f"\\{byte:03d}" for byte in text.encode()) + '"'


def _key(name: str) -> str:
    return name if _NAME.fullmatch(name) and name not in KEYWORDS else f"[{quoted(name)}]"


def _table(entries: Iterable[str]) -> str:
    return "{" + ", ".join(entries) + "}"

"""Values as Lua source: what LuaJIT reads is what was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

from controlplane.translate.lua_literal import literal, quoted

LUA = LuaRuntime(encoding="utf-8")
SCALARS = st.text(max_size=9) | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


def as_lua(value: Any) -> Any:
    if isinstance(value, tuple):
        return {number: as_lua(child) for number, child in enumerate(value, 1)}
    if isinstance(value, dict):
        return {name: as_lua(child) for name, child in value.items()}
    return value


def read(text: str) -> Any:
    return python(LUA.eval(text))


def python(value: Any) -> Any:
    return {key: python(child) for key, child in value.items()} if hasattr(value, "items") else value


@given(VALUES)
def test_what_is_written_is_read(value: Any) -> None:
    """Text, numbers, truth, and tables of them, whatever is in the text."""
    assert read(literal(value)) == as_lua(value)


@given(st.text())
def test_a_text_is_one_word(text: str) -> None:
    """No text ends its own quotes, or the line."""
    written = quoted(text)

    assert written.isascii() and written.isprintable()
    assert read(written) == text


@pytest.mark.parametrize("name", ["a", "a_1", "end", "and", "1a", "a-b", "", "ä"])
def test_names_of_entries(name: str) -> None:
    """A keyword of Lua is a name like any other."""
    assert read(literal({name: 1})) == {name: 1}


def test_a_set_has_an_order() -> None:
    """However Python hashes, the text is the same."""
    assert literal(frozenset({"b", "a", "c-d"})) == '{a = true, b = true, ["c-d"] = true}'

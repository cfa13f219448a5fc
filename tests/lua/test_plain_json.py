"""plain_json.lua: what it reads it reads as Python does, and what is unusual it does not read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service_kit.json_pointer import ABSENT, find, steps
from tests.lua.support.worker import Worker, python

JSON = Worker("plain_json")
PLAIN_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), max_size=8)
SCALARS = PLAIN_TEXT | st.booleans() | st.integers(-(10**13), 10**13)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN_TEXT, inner, max_size=3),
    max_leaves=8,
)


def as_lua(value: Any) -> Any:
    """The value as Lua has it: an array is a table with numbers as names."""
    if isinstance(value, list):
        return {number: as_lua(child) for number, child in enumerate(value, 1)}
    if isinstance(value, dict):
        return {name: as_lua(child) for name, child in value.items()}
    return value


def found_at(value: Any, pointer: str) -> Any:
    way = dict(enumerate(steps(pointer), 1))
    found = JSON.member(JSON.table(as_lua(value)), JSON.table(way))
    return None if found is None else python(found)


@given(st.dictionaries(PLAIN_TEXT, VALUES, max_size=4), st.lists(PLAIN_TEXT | st.sampled_from("0123"), max_size=4))
def test_a_pointer_leads_where_it_leads_in_python(value: dict[str, Any], way: list[str]) -> None:
    """Through objects and arrays, or nowhere."""
    pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in way) or "/"
    expected = find(value, steps(pointer))

    assert found_at(value, pointer) == (None if expected is ABSENT else as_lua(expected))


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("/a/b/0", "x"),
        ("/a/b/1/c", False),
        ("/a/b/2", None),
        ("/a/b/-", None),
        ("/a/b/00", None),
        ("/a/b/1e0", None),
        ("/a/b/0x0", None),
        ("/a/b/1.0", None),
        ("/a/b/#", None),
        ("/a/b/0/len", None),
        ("/a/b/99999999999999999999", None),
        ("/a/0", "member"),
        ("/none/b", None),
    ],
)
def test_pointers(pointer: str, expected: object) -> None:
    """A number is a place in an array, or a member's name; nothing is found in texts."""
    assert found_at({"a": {"b": ["x", {"c": False}], "0": "member"}}, pointer) == expected


def read(text: str) -> Any:
    found = JSON.object(text)
    return None if found is None else python(found)


@given(st.dictionaries(PLAIN_TEXT, VALUES, max_size=4), st.sampled_from([None, 1]), st.sampled_from(["", " \n"]))
def test_a_plain_object_is_read_as_python_reads_it(value: dict[str, Any], indent: int | None, around: str) -> None:
    """However it is laid out."""
    text = around + json.dumps(value, indent=indent) + around

    assert read(text) == as_lua(value)


RIGHT = ("{", "}", "[", "]", ":", ",", '"a"', '"b"', "1", "-1", "1.5", "1e3", "true", "false", "null", " ", "\t")
WRONG = ("'a'", "01", "1.", '"', "\\", "\0", "\xe9", "NaN", "tru", "//", "-", '"\\u0041"')
FRAGMENTS = st.sampled_from(RIGHT + WRONG)


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


@given(st.lists(FRAGMENTS, max_size=12).map(lambda inner: "{" + "".join(inner)))
@example('{"a":1,}')
@example('{"a":1}x')
@example('{"a":[1,2')
def test_hostile_text_is_read_rightly_or_not_at_all(text: str) -> None:
    """There is no text that the scripts read otherwise than a strict reader, or that only they can read."""
    found = read(text)

    if found is not None:
        assert found == as_lua(json.loads(text, object_pairs_hook=without_twins))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "[1]",
        '{"a":null}',
        '{"a":1,"a":1}',
        '{"a":"\\u0041"}',
        '{"a":"\xc3\xa9"}',
        '{"a":"\x7f"}',
        '{"a":01}',
        '{"a":1.}',
        '{"a":1e3}',
        '{"a":' + "1" * 16 + "}",
        "{'a':1}",
        '{"a":1,}',
        '{"a" 1}',
        '{"a":1} x',
        '{"a":' * 10 + "1" + "}" * 10,
        '{"a":[' + ",".join(["[]"] * 70) + "]}",
    ],
)
def test_what_is_not_plain_is_not_read(text: str) -> None:
    """Such a token may be right, and then authz says so."""
    assert read(text) is None
